"""Common Crawl's lists of paths (``warc.paths.gz`` and similar), which are relative to the URL of its data set."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rangefetch.manifests.formats import Asked, Look
from rangefetch.manifests.item import Mistake, Row, url_below

__all__ = ["A_LINE_EACH", "NAME", "read", "recognises"]

NAME = "common-crawl"
A_LINE_EACH = True

_BASE_URL = "https://data.commoncrawl.org/"
_PATH = re.compile(r"(?:crawl-data|cc-index|contrib|projects|crawl-analysis)/[^\s,]+")


def recognises(look: Look) -> bool:
    """Whether the first line is such a path."""
    return _PATH.fullmatch(look.first.strip()) is not None


def read(look: Look, asked: Asked) -> Iterator[Row | Mistake]:
    """Yield the files, named by their paths."""
    given = look.source.base_url
    base_url = given if given and given != look.source.url else _BASE_URL
    for number, line in look.source.lines():
        if isinstance(line, Mistake):
            yield line
        elif path := line.strip():
            yield Row(number, url_below(base_url, path), path)
