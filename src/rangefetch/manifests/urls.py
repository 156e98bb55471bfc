"""One URL per line, as for ``wget -i``. Blank lines and lines that begin with ``#`` are skipped."""

from __future__ import annotations

from collections.abc import Iterator

from rangefetch.manifests.formats import Asked, Look
from rangefetch.manifests.item import Mistake, Row

__all__ = ["A_LINE_EACH", "NAME", "read", "recognises"]

NAME = "urls"
A_LINE_EACH = True


def recognises(look: Look) -> bool:
    """Whether the first line is a URL and nothing else."""
    return "://" in look.first and len(look.first.split()) == 1


def read(look: Look, asked: Asked) -> Iterator[Row | Mistake]:
    """Yield the URLs."""
    for number, line in look.source.lines():
        if isinstance(line, Mistake):
            yield line
            continue
        line = line.strip()
        if line and not line.startswith("#"):
            yield Row(number, line)
