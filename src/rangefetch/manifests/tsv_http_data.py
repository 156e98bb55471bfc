"""URL lists for Google's Storage Transfer Service: ``TsvHttpData-1.0``, then lines of URL, size and MD5 in base64."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from rangefetch.manifests.formats import Asked, Look
from rangefetch.manifests.item import Mistake, Row, hex_of_base64

__all__ = ["A_LINE_EACH", "NAME", "read", "recognises"]

NAME = "tsv-http-data"
A_LINE_EACH = True

_FIRST = "TsvHttpData-1.0"


def recognises(look: Look) -> bool:
    """Whether the first line is ``TsvHttpData-1.0``."""
    return bool(look.lines) and look.lines[0].strip() == _FIRST


def read(look: Look, asked: Asked) -> Iterator[Row | Mistake]:
    """Yield the files, with the names that the service gives them: host and path of the URL."""
    for number, line in look.source.lines():
        if isinstance(line, Mistake):
            yield line
        elif line.strip() and line.strip() != _FIRST:
            fields = [field.strip() for field in line.split("\t")]
            if len(fields) > 3:
                yield Mistake(number, f"it has {len(fields)} fields; expected a URL, a size and an MD5")
                continue
            url, size, digest = (*fields, "", "")[:3]
            try:
                parts = urlsplit(url)
                name = f"{parts.hostname or ''}{unquote(parts.path)}"
                if digest:
                    digest = f"md5={hex_of_base64(digest)}"
            except ValueError as error:
                yield Mistake(number, str(error))
            else:
                yield Row(number, url, name, digest, size)
