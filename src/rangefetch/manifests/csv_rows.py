"""CSV with the column names in the first record, and fields separated by commas or semicolons."""

from __future__ import annotations

from collections.abc import Iterator

from rangefetch.manifests.columns import has_urls
from rangefetch.manifests.delimited import fields_of, read_table
from rangefetch.manifests.formats import Asked, Look
from rangefetch.manifests.item import Mistake, Row

__all__ = ["A_LINE_EACH", "NAME", "read", "recognises"]

NAME = "csv"
A_LINE_EACH = True


def _names(look: Look, delimiter: str) -> list[str]:
    first = next((line for line in look.lines if line.strip()), "")
    try:
        return [name.strip() for name in fields_of(first, delimiter) or ()]
    except ValueError:
        return []


def _delimiter(look: Look) -> str:
    """The delimiter: the one that splits the first line into more columns."""
    return max(",;", key=lambda each: len(_names(look, each)))


def recognises(look: Look) -> bool:
    """Whether the first line has column names, including one for URLs."""
    if "\t" in look.first or "://" in look.first:
        return False
    return has_urls(_names(look, _delimiter(look)), look.asked)


def read(look: Look, asked: Asked) -> Iterator[Row | Mistake]:
    """Yield the rows."""
    return read_table(look, asked, _delimiter(look))
