"""conda's explicit lists: after ``@EXPLICIT``, each line has a package's URL and, optionally, ``#MD5`` or
``#sha256:HEX``.

Source: conda's documentation, "Managing environments".
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from rangefetch.manifests.formats import Asked, Look
from rangefetch.manifests.item import Mistake, Row

__all__ = ["A_LINE_EACH", "NAME", "read", "recognises"]

NAME = "conda-explicit"
A_LINE_EACH = True

_MARK = "@EXPLICIT"
_DIGEST = re.compile(r"(?:sha256:)?[0-9A-Fa-f]{64}|[0-9A-Fa-f]{32}")


def recognises(look: Look) -> bool:
    """Whether the list begins with ``@EXPLICIT``."""
    return look.first.strip() == _MARK


def read(look: Look, asked: Asked) -> Iterator[Row | Mistake]:
    """Yield the packages."""
    for number, line in look.source.lines():
        if isinstance(line, Mistake):
            yield line
            continue
        line = line.strip()
        if line and not line.startswith("#") and line != _MARK:
            url, _, digest = line.partition("#")
            if digest and not _DIGEST.fullmatch(digest):
                yield Mistake(number, f"{digest[:80]!r} is neither an MD5 nor a SHA-256")
            else:
                yield Row(number, url, checksum=digest)
