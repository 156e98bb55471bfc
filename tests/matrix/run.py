"""The server's side of one download: its file, which requests the fault strikes, and how much it may send."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from matrix.answers import Answer, Ask
from servers.content import content, etag, http_date, modified
from support.faults import fail

if TYPE_CHECKING:
    from matrix.server import Server

__all__ = ["BLOCK", "FIRST_RANGE", "SIZE", "Fault", "Node", "Place", "Run"]

BLOCK = 1 << 20
FIRST_RANGE = 4 << 20
SIZE = (9 << 20) + 12_345
"""Of the file: more than a first range, and no whole number of blocks."""
SLOW = 200 << 10
"""Bytes per second of the reply that others have to help out."""

_FOR_EVER_S = 3600

Place = Literal["first", "middle", "last", "resume", "hedge"]
Spoil = Callable[[Answer, Ask, "Run"], Answer | None]


@dataclass(frozen=True)
class Fault:
    """A server's fault. ``spoil`` changes an answer or returns another; ``begin`` changes the server beforehand."""

    name: str
    spoil: Spoil | None = None
    begin: Callable[[Run], None] | None = None
    protocols: tuple[str, ...] = ("http", "https", "h2")
    starts_over: bool = False
    """The file is another, or may be for all that is said of it: what was fetched may be worth nothing."""
    slow: bool = False
    """There is no end to it but what the user sets (``total_timeout``)."""
    once: bool = False
    """It strikes once: what it does, it does to all that follows."""
    proxy: bool = False
    untold: bool = False
    """Of an answer to a plain request nobody could tell that it is wrong: it describes another file."""
    hangs: Literal["", "the server's", "the proxy's", "another's"] = ""
    """Whose name nobody can look up: whoever tries hangs. Such a case is run in a process whose look-ups are ours."""


@dataclass(frozen=True)
class Node:
    """How a server describes the file."""

    version: int = 0
    tag: Literal["strong", "weak", "none", "two"] = "strong"
    """``two``: a cache's, which is always the same, and then the file's."""
    dated: bool = True
    ranges: bool = True
    size: int = SIZE

    @property
    def octets(self) -> bytes:
        return content(self.size, self.version)


@dataclass
class Run:
    """The server's state while one case runs. The test's thread reads it and calls its methods."""

    server: Server
    token: str
    protocol: str
    fault: Fault
    place: Place
    times: int
    """How often the fault strikes at most."""
    node: Node = field(default_factory=Node)
    asks: list[Ask] = field(default_factory=list)
    struck: int = 0
    sent: int = 0
    armed: bool = True
    """False: the server is good for now."""
    held_after: int | None = None
    """After so many bytes everything is sent slowly, until :meth:`release`."""
    versions: set[bytes] = field(default_factory=set, repr=False)
    """All contents that were served as the file."""
    connections_at_most: int = 0
    over_limit: Literal["unserved", "reset", "503"] = "unserved"
    seats: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        if self.fault.begin is not None:
            self.fault.begin(self)
        self.arm(self.armed)

    # -- for the test ------------------------------------------------------------------------------------------

    def arm(self, armed: bool) -> None:
        """Set whether the fault strikes from now on."""
        self.armed = armed
        if self.fault.hangs:
            fail("getaddrinfo", _FOR_EVER_S, self.times if armed else 0)

    def release(self) -> None:
        """Send at full speed from now on."""
        self.held_after = None

    def next_phase(self) -> None:
        """Stop counting the requests made so far."""
        self.asks = []
        self.sent = 0

    def heal(self) -> None:
        """Be a good server from now on, for the file as it is now."""
        self.arm(False)
        self.connections_at_most = 0
        self.release()
        self.server.heal()

    # -- for the server ----------------------------------------------------------------------------------------

    def ask(self, protocol: Literal["h1", "h2"], method: str, path: str, headers: dict[str, str]) -> Ask:
        """Record a request that has arrived."""
        start, end, ranged = 0, self.node.size, False
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", ""))
        if match:
            start, ranged = int(match[1]), True
            end = min(int(match[2]) + 1, end) if match[2] else end
        hedge = any(other.start < end and start < other.end for other in self.asks if not other.over)
        ask = Ask(len(self.asks), protocol, method, path, headers, start, end, ranged, hedge and bool(self.asks))
        self.asks.append(ask)
        return ask

    def answer(self, ask: Ask) -> Answer:
        """The answer to a request, spoiled if the fault strikes it."""
        answer = self.good(ask)
        if not self.armed:
            return answer
        if self.fault.spoil is not None and self.struck < self.times and self._is_the_place(ask):
            self.struck += 1
            return self.fault.spoil(answer, ask, self) or answer
        if self.place == "hedge" and not ask.hedge and ask.ranged and ask.number > 0 and self._has_the_middle(ask):
            answer.pace = SLOW
        return answer

    def good(self, ask: Ask, node: Node | None = None) -> Answer:
        """A good server's answer."""
        node = node or self.node
        self.versions.add(node.octets)
        answer = Answer()
        tag, date = etag(node.size, node.version), http_date(modified(node.version))
        answer.header("Content-Type", "application/octet-stream")
        if node.tag == "two":
            answer.headers += [("ETag", '"of a cache"'), ("ETag", tag)]
        elif node.tag != "none":
            answer.header("ETag", tag if node.tag == "strong" else f"W/{tag}")
        if node.dated:
            answer.header("Last-Modified", date)
        strong = [tag] * (node.tag == "strong") + [date] * node.dated
        octets = memoryview(node.octets)
        if (
            not ask.ranged
            or not node.ranges
            or ask.headers.get("if-range", strong[0] if strong else "") not in (strong or [""])
        ):
            answer.body = octets
        elif ask.start >= node.size:
            answer.status, answer.body = 416, b""
            answer.header("Content-Range", f"bytes */{node.size}")
        else:
            end = min(ask.end, node.size)
            answer.status, answer.start, answer.body = 206, ask.start, octets[ask.start : end]
            answer.header("Content-Range", f"bytes {ask.start}-{end - 1}/{node.size}")
        return answer

    def become(self, **changes: object) -> None:
        """Change the file, or how it is described, from now on."""
        self.node = replace(self.node, **changes)  # type: ignore[arg-type]  # of several types

    async def permit(self, size: int) -> None:
        """Wait until ``size`` more bytes of a body may be sent."""
        if self.held_after is not None and self.sent + size > self.held_after:
            await asyncio.sleep(0.02)
        self.sent += size

    @property
    def is_held(self) -> bool:
        return self.held_after is not None and self.sent >= self.held_after

    def _has_the_middle(self, ask: Ask) -> bool:
        return ask.start <= self.node.size // 2 < ask.end

    def _is_the_place(self, ask: Ask) -> bool:
        match self.place:
            case "first" | "resume":
                return ask.number < self.times
            case "middle":
                return ask.number > 0 and self._has_the_middle(ask)
            case "last":
                return ask.number > 0 and ask.end >= self.node.size
            case "hedge":
                return ask.hedge
