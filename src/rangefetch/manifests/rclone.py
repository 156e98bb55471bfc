"""The input of ``rclone copyurl --urls``: ``URL,FILENAME`` without a header. The name may be missing, or a path."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rangefetch.manifests.delimited import records
from rangefetch.manifests.formats import Asked, Look
from rangefetch.manifests.item import Mistake, Row

__all__ = ["A_LINE_EACH", "NAME", "read", "recognises"]

NAME = "rclone"
A_LINE_EACH = True

# Since a URL may contain commas, the part before the comma must look like a complete URL: it must end like a file, a
# directory or a query.
_LINE = re.compile(
    r'"[a-z]+://[^"\s]+",\s*("[^"]+"|[^,"]+)|[a-z]+://[^,"\s/]+/([^,"\s]*/)?([^,"\s]*\.\w+|[^,"\s]*\?[^,"\s]+|),\s*("[^"]+"|[^,"?]+)'
)


def recognises(look: Look) -> bool:
    """Whether each line is a URL and a name."""
    told = look.told
    return bool(told) and all(_LINE.fullmatch(line.strip()) for line in told)


def read(look: Look, asked: Asked) -> Iterator[Row | Mistake]:
    """Yield the files."""
    for number, fields in records(look.source, ","):
        if isinstance(fields, Mistake):
            yield fields
        elif fields[0].lstrip().startswith("#"):
            continue
        elif len(fields) > 2:
            yield Mistake(number, f"it has {len(fields)} fields; expected a URL and a name; quote URLs with commas")
        else:
            url, name = (*map(str.strip, fields), "")[:2]
            yield Row(number, url, name)
