"""Tables as text (RFC 4180). A quote that is never closed spoils only its own line."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator

from rangefetch.manifests.columns import Plan
from rangefetch.manifests.formats import Asked, Look
from rangefetch.manifests.item import Mistake, Row
from rangefetch.manifests.opening import ManifestError, Source

__all__ = ["fields_of", "read_table", "records"]

_MOST_LINES_OF_A_RECORD = 100


def fields_of(text: str, delimiter: str) -> list[str] | None:
    """The fields of one record; None if it continues on the next line. Raises ``ValueError``."""
    if '"' not in text:
        return text.split(delimiter)
    try:
        found = list(csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True))
    except csv.Error as error:
        if "unexpected end of data" in str(error):
            return None
        raise ValueError(f"the quotes in it are wrong: {error}") from None
    return found[0] if len(found) == 1 else None


def records(source: Source, delimiter: str) -> Iterator[tuple[int, list[str] | Mistake]]:
    """Yield the records that are not blank, each with the number of its first line."""
    lines = source.lines()
    again: deque[tuple[int, str | Mistake]] = deque()
    while True:
        try:
            number, line = again.popleft() if again else next(lines)
        except StopIteration:
            return
        if isinstance(line, Mistake):
            yield number, line
            continue
        if not line.strip():
            continue
        try:
            fields = fields_of(line, delimiter)
            if fields is None:
                fields = _continued(line, delimiter, lines, again)
        except ValueError as error:
            yield number, Mistake(number, str(error))
        else:
            yield number, fields


def _continued(
    text: str, delimiter: str, lines: Iterator[tuple[int, str | Mistake]], again: deque[tuple[int, str | Mistake]]
) -> list[str]:
    """The fields of a record that spans several lines. Raises ``ValueError`` if its quotes are never closed; the lines
    read are then put back into ``again``."""
    taken: deque[tuple[int, str | Mistake]] = deque()
    for _ in range(_MOST_LINES_OF_A_RECORD):
        following = again.popleft() if again else next(lines, None)
        if following is None:
            break
        taken.append(following)
        if isinstance(following[1], Mistake):
            break
        text += "\n" + following[1]
        if '"' in following[1] and (fields := fields_of(text, delimiter)) is not None:
            return fields
    again.extendleft(reversed(taken))
    raise ValueError("a quote in it is not closed")


def read_table(look: Look, asked: Asked, delimiter: str) -> Iterator[Row | Mistake]:
    """Yield the rows of a table whose first record has the column names. Raises ``ManifestError``."""
    shown = look.source.shown
    plan: Plan | None = None
    names: list[str] = []
    for number, fields in records(look.source, delimiter):
        if plan is None:
            if isinstance(fields, Mistake):
                raise ManifestError(f"{shown}:{number}: {fields.what}")
            names = [name.strip() for name in fields]
            plan = Plan(names, asked, shown)
        elif isinstance(fields, Mistake):
            yield fields
        elif len(fields) != len(names):
            yield Mistake(number, f"there are {len(fields)} fields, and {len(names)} columns")
        else:
            columns = dict(zip(names, fields, strict=True))
            yield from plan.rows(number, columns, columns)
