"""What the engine tells, with names to the numbers."""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

__all__ = ["Event", "EventKind"]


class EventKind(enum.IntEnum):
    """The kinds of events; the numbers are ``_engine.EVENTS``."""

    ANSWERED = 16
    FAILED = 17
    DONE = 18
    REMOVED = 19
    MET = 20
    REACHED = 21
    TRACE = 22
    HELD = 23


class Event(NamedTuple):
    """One event, as ``_engine.Engine.events`` documents it; ``file.tag`` is whose it is."""

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
    epoch: int
    request: int
    address: str
    host: int
