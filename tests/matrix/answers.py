"""Requests and answers, independent of the HTTP version. Faults change an answer before it is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Answer", "Ask"]


@dataclass(eq=False)
class Ask:
    """One request."""

    number: int
    """How many of its run's phase came before it."""
    protocol: Literal["h1", "h2"]
    method: str
    path: str
    headers: dict[str, str]
    """By lower-case name."""
    start: int
    end: int
    """The half-open range that is asked for, cut to the file; all of it where none is."""
    ranged: bool
    hedge: bool
    """Some of its bytes are being sent to somebody already."""
    over: bool = False
    """It was answered, in whichever way that ended."""


@dataclass
class Answer:
    """An answer to send. ``headers`` does not include those that frame the body."""

    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes | memoryview = b""
    start: int = 0
    """Where in the file ``body`` begins."""
    lengths: list[str] | None = None
    """The values of Content-Length, a line each; None: the body's length."""
    tail: bytes = b""
    """More bytes than were promised, sent after the body."""
    chunked: bool = False
    """HTTP/1: in chunks. HTTP/2: without a Content-Length."""
    chunk: Callable[[int], bytes] = lambda size: b"%x\r\n" % size
    """The line before a chunk of that size."""
    ended: bool = True
    """False: the sign that the body is over does not come, and the connection stays open."""
    raw: bytes | None = None
    """Sent in place of an answer; the connection is closed then."""
    preface: bytes = b""
    """HTTP/1: sent before the status line."""
    lines: list[bytes] = field(default_factory=list)
    """HTTP/1: more header lines, as they are."""
    delay_s: float = 0.0
    silent: bool = False
    """Nothing comes at all."""
    stop_after: int | None = None
    """After so many bytes of the body the answer stops short in the way that ``stop`` says; -1: before the head."""
    stop: Literal["close", "reset", "stall", "end"] = "close"
    """``end``: it is over, in good order but for what is missing."""
    pace: int = 0
    """Bytes per second; 0: as fast as it goes."""
    close: bool = False
    """HTTP/1: the connection is closed afterwards, and that is said."""
    silently_closed: bool = False
    """HTTP/1: it is closed afterwards without having said so."""
    meanwhile: Callable[[], asyncio.Future[None] | None] | None = None
    """Called before anything is sent."""

    def header(self, name: str, value: str | None) -> None:
        """Set a header, or remove it (None)."""
        self.headers = [(key, old) for key, old in self.headers if key.lower() != name.lower()]
        if value is not None:
            self.headers.append((name, value))
