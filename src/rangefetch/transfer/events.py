"""The engine's events, with named fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from rangefetch._engine import _EventName

__all__ = ["EngineEvent", "Traced"]

Traced = tuple[str, Mapping[str, int]]
"""How one transfer went: its source's URL, and the figures of a TRACE event."""


class EngineEvent(NamedTuple):
    """One event, as documented at ``_engine.Engine.events``; ``file.tag`` is its owner."""

    name: _EventName
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
    kept_bytes: int
    trace: Mapping[str, int] | None
