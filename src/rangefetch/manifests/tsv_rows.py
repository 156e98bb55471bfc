"""Tables with fields separated by TABs and column names in the first line, including ENA's file reports."""

from __future__ import annotations

from collections.abc import Iterator

from rangefetch.manifests.columns import has_urls
from rangefetch.manifests.delimited import read_table
from rangefetch.manifests.formats import Asked, Look
from rangefetch.manifests.item import Mistake, Row

__all__ = ["A_LINE_EACH", "NAME", "read", "recognises"]

NAME = "tsv"
A_LINE_EACH = True


def recognises(look: Look) -> bool:
    """Whether the first line has column names, including one for URLs."""
    first = next((line for line in look.lines if line.strip()), "")
    if "\t" not in first or "://" in first:
        return False
    return has_urls([name.strip().strip('"') for name in first.split("\t")], look.asked)


def read(look: Look, asked: Asked) -> Iterator[Row | Mistake]:
    """Yield the rows."""
    return read_table(look, asked, "\t")
