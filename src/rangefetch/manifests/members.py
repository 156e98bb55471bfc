"""Reading documents that may hold anything anywhere: a member of the wrong kind counts as absent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from rangefetch.manifests.item import Mistake, Row

__all__ = ["each_of", "list_in", "mapping_in", "text_in"]


def text_in(value: object, *names: str) -> str:
    """The first member of these names that is text; "" if there is none."""
    if isinstance(value, Mapping):
        for name in names:
            found = value.get(name)
            if isinstance(found, str) and found:
                return found
    return ""


def mapping_in(value: object, name: str) -> Mapping[str, Any]:
    """The member, if it is an object; otherwise an empty one."""
    found = value.get(name) if isinstance(value, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def list_in(value: object, name: str) -> list[Any]:
    """The member, if it is a list, or the only one of a list that was left out; otherwise an empty one."""
    found = value.get(name) if isinstance(value, Mapping) else None
    if isinstance(found, Mapping):
        return [found]
    return found if isinstance(found, list) else []


def each_of(values: Iterable[object], read: Callable[[int, Any], Row | None], what: str) -> Iterator[Row | Mistake]:
    """What ``read`` makes of each object, told its number, from 1; None: nothing is to be fetched. What it raises
    (``ValueError``) is wrong with that one only.
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
