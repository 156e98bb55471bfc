"""JSON lines: one object per line, whose members are the columns."""

from __future__ import annotations

import json
from collections.abc import Iterator

from rangefetch.manifests.columns import Plan
from rangefetch.manifests.formats import Asked, Look
from rangefetch.manifests.item import Mistake, Row
from rangefetch.manifests.opening import ManifestError

__all__ = ["A_LINE_EACH", "NAME", "Plans", "read", "recognises"]

NAME = "jsonl"
A_LINE_EACH = True


def recognises(look: Look) -> bool:
    """Whether the first line begins like an object, and the manifest is not one JSON document."""
    return look.document is None and look.first.lstrip().startswith("{")


class Plans:
    """The meaning of objects' members, cached by their names: most objects have the same."""

    def __init__(self, asked: Asked, shown: str) -> None:
        self._asked, self._shown = asked, shown
        self._known: dict[tuple[str, ...], Plan] = {}

    def rows(self, line: int, value: object) -> Iterator[Row | Mistake]:
        """Yield the files of one object. Raises ``ManifestError`` if the very first object has no URL."""
        if isinstance(value, str):
            yield Row(line, value.strip())
            return
        if not isinstance(value, dict):
            yield Mistake(line, "this is not a JSON object")
            return
        names = tuple(value)
        plan = self._known.get(names)
        if plan is None:
            try:
                plan = Plan(names, self._asked, self._shown)
            except ManifestError as error:
                if not self._known:
                    raise
                yield Mistake(line, str(error).removeprefix(f"{self._shown}: "))
                return
            if len(self._known) < 1000:
                self._known[names] = plan
        yield from plan.rows(line, value)


def read(look: Look, asked: Asked) -> Iterator[Row | Mistake]:
    """Yield the files of the objects."""
    plans = Plans(asked, look.source.shown)
    for number, line in look.source.lines():
        if isinstance(line, Mistake):
            yield line
        elif line.strip():
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                yield Mistake(number, f"this is not JSON: {error.msg} (column {error.colno})")
            except (ValueError, RecursionError):
                yield Mistake(number, "this JSON has a number with too many digits, or is nested too deeply")
            else:
                yield from plans.rows(number, value)
