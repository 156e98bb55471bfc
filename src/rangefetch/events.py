"""What the engine tells, with names to the numbers, and what the headers in it say."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["Event", "EventKind", "parse_date", "parse_headers", "stated_range"]


class EventKind(enum.IntEnum):
    """The kinds of events; the numbers are ``_engine.EVENTS``."""

    ANSWERED = 16
    FAILED = 17
    DONE = 18
    REMOVED = 19
    MET = 20
    REACHED = 21
    TRACE = 22


class Event(NamedTuple):
    """One event, as ``_engine.Engine.events`` documents it; ``file`` may be a batch."""

    kind: int
    file: Any
    code: int
    status: int
    fault: int
    errno: int
    retry_after_s: int
    offset: int
    received_bytes: int
    text: str
    headers: str
    source: int
    moves: int
    request: int
    address: str
    host: int


def parse_headers(lines: str) -> dict[str, str]:
    """Headers by lower-case name; of a repeated one the first."""
    headers: dict[str, str] = {}
    for line in lines.split("\n"):
        name, _, value = line.partition(": ")
        headers.setdefault(name.lower(), value)
    return headers


def parse_date(value: str) -> float | None:
    """An HTTP date as seconds since the epoch, None where there is none."""
    if not value:
        return None
    import email.utils  # not for every start of the command

    try:
        return email.utils.parsedate_to_datetime(value).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def stated_range(headers: Mapping[str, str]) -> tuple[int, int, int] | None:
    """The part of the file that a response says it is (Content-Range), as start, end and total; None where it says
    nothing of that, or nothing that makes sense."""
    from rangefetch import _engine

    return _engine.content_range(headers.get("content-range", "").encode("latin-1", "replace"))
