"""Reads members of untrusted documents: a member of the wrong type counts as absent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from rangefetch.manifests.item import Mistake, Row

__all__ = ["each_of", "list_in", "mapping_in", "text_in"]


def text_in(value: object, *names: str) -> str:
    """The first of these members that is non-empty text; "" if none is."""
    if isinstance(value, Mapping):
        for name in names:
            found = value.get(name)
            if isinstance(found, str) and found:
                return found
    return ""


def mapping_in(value: object, name: str) -> Mapping[str, Any]:
    """The member if it is an object, otherwise an empty mapping."""
    found = value.get(name) if isinstance(value, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def list_in(value: object, name: str) -> list[Any]:
    """The member if it is a list, or a list of the member if it is a single object; otherwise an empty list."""
    found = value.get(name) if isinstance(value, Mapping) else None
    if isinstance(found, Mapping):
        return [found]
    return found if isinstance(found, list) else []


def each_of(values: Iterable[object], read: Callable[[int, Any], Row | None], what: str) -> Iterator[Row | Mistake]:
    """Call ``read`` with the number (from 1) of each object and the object, and yield the rows that it returns. None
    means that there is nothing to fetch; a ``ValueError`` becomes a mistake of that object only.
    """
    for number, value in enumerate(values, start=1):
        if not isinstance(value, Mapping):
            yield Mistake(number, f"{what} {number} is not an object")
            continue
        try:
            row = read(number, value)
        except ValueError as error:
            yield Mistake(number, f"{what} {number}: {error}")
        else:
            if row is not None:
                yield row
