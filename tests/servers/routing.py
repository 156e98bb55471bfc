"""From a request to a reply: parses the query, builds a good server's reply, decides whether the fault strikes.

A route is a function that takes the good reply and spoils it. Its keyword arguments are its parameters in the
query string, converted by their annotations; the fields of :class:`Common` are parameters of every route.
Anything else in a query is an error, so that a misspelt parameter is noticed.
"""

import dataclasses
import functools
import inspect
import threading
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from servers.content import content, etag, http_date, modified, parse_size
from servers.wire import Pace, Reply, asked_range

__all__ = [
    "ROUTES",
    "Ask",
    "Common",
    "Memory",
    "Route",
    "answer",
    "content_range",
    "find",
    "message",
    "route",
]

Fault = Callable[..., Reply]


@dataclass(frozen=True)
class Common:
    """The parameters of every route."""

    size: int = 1 << 20
    """Of the file; K, M and G are understood, as in all integers of a query."""
    seed: int = 0
    """Which file of that size."""
    ranges: bool = True
    """``ranges=0``: Range headers are ignored."""
    etag: str = "strong"
    """``strong``, ``weak`` or ``none``."""
    mtime: bool = True
    """``mtime=0``: no Last-Modified."""
    rate: int = 0
    """Body bytes per second of each reply; 0: as fast as it goes."""
    delay: float = 0.0
    """Seconds before the status line."""
    header: str = ""
    """One more header line in each reply, good or not: ``Set-Cookie: a=b``."""
    skip: int = 0
    """The fault leaves so many requests alone first. Each URL counts its own; HEAD requests do not count."""
    times: int = 1 << 40
    """Then it strikes so many times; after that the route is good."""
    at: int = -1
    """Only replies whose body holds this byte of the file are struck, and only those count."""
    id: str = ""
    """Without a meaning: another id is another URL, whose count starts afresh."""


@dataclass
class Memory:
    """What the server remembers of one URL (path and query)."""

    turns: int = 0
    """Requests so far that a fault could have struck."""
    pace: Pace | None = None
    """Shared by all replies."""
    slots: threading.Semaphore | None = None
    """Free for replies, where their number is limited."""
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def take_turn(self) -> int:
        """How many requests came before this one."""
        with self.lock:
            self.turns += 1
            return self.turns - 1


@dataclass(frozen=True)
class Ask:
    """A request, as the routes see it."""

    method: str
    target: str
    headers: Mapping[str, str]
    common: Common
    memory: Memory
    turn: int = 0
    """Requests of this URL that came before this one."""
    connection: int = 0
    """On which it came, numbered from 1."""

    def good(self, *, if_range: bool = True, **changes: Any) -> Reply:
        """A good server's reply for the file described by the common parameters with these ``changes``.

        With ``if_range=False`` the server ignores the header If-Range.
        """
        common = dataclasses.replace(self.common, **changes)
        tag, date = etag(common.size, common.seed), http_date(modified(common.seed))
        body = memoryview(content(common.size, common.seed))
        reply = Reply(body=body, pace=Pace(common.rate) if common.rate else None)
        reply.headers["Content-Type"] = "application/octet-stream"
        if common.etag != "none":
            reply.headers["ETag"] = tag if common.etag == "strong" else f"W/{tag}"
        if common.mtime:
            reply.headers["Last-Modified"] = date
        if not common.ranges:
            return reply
        reply.headers["Accept-Ranges"] = "bytes"
        wanted = asked_range(self.headers.get("range", ""), common.size) if self.method == "GET" else None
        if if_range and "if-range" in self.headers:
            # A weak ETag never matches here (RFC 9110, section 13.1.5).
            strong = [tag] * (common.etag == "strong") + [date] * common.mtime
            wanted = wanted if self.headers["if-range"] in strong else None
        if wanted is None:
            return reply
        start, end = wanted[0], min(wanted[1], common.size)
        if start < end:
            reply.status, reply.start, reply.body = 206, start, body[start:end]
            reply.headers["Content-Range"] = content_range(start, end, common.size)
        else:
            reply.status, reply.body = 416, body[:0]
            reply.headers["Content-Range"] = f"bytes */{common.size}"
        return reply


@dataclass(frozen=True)
class Route:
    """One fault: how it spoils a reply, and which parameters it takes."""

    name: str
    fault: Fault
    defaults: Mapping[str, Any]
    """Its own defaults for common parameters."""

    @functools.cached_property
    def own(self) -> dict[str, tuple[type, Any]]:
        """The fault's parameters: name -> (type, default)."""
        found = list(inspect.signature(self.fault).parameters.values())[2:]
        return {parameter.name: (parameter.annotation, parameter.default) for parameter in found}

    @functools.cached_property
    def parameters(self) -> dict[str, tuple[type, Any]]:
        """All parameters; the fault's own override common ones of the same name."""
        common = dataclasses.asdict(Common()) | dict(self.defaults)
        return {name: (type(default), default) for name, default in common.items()} | self.own

    def parse(self, query: str) -> tuple[Common, dict[str, Any]]:
        """The common parameters and the fault's own. ``ValueError`` says what is wrong with the query."""
        values = {name: default for name, (_, default) in self.parameters.items()}
        # Latin-1 preserves each escaped byte, even if it ends up in a header.
        for name, text in urllib.parse.parse_qsl(query, keep_blank_values=True, encoding="latin-1"):
            if name not in values:
                known = ", ".join(sorted(values))
                raise ValueError(f"/{self.name} takes no parameter {name!r}; it takes {known}")
            kind = self.parameters[name][0]
            values[name] = text if kind is str else float(text) if kind is float else kind(parse_size(text))
        own = {name: values.pop(name) for name in self.own}
        return Common(**values), own


ROUTES: dict[str, Route] = {}


def route(name: str, **defaults: Any) -> Callable[[Fault], Fault]:
    """Registers a fault under ``/name``, with its own defaults for common parameters."""

    def register(fault: Fault) -> Fault:
        ROUTES[name] = Route(name, fault, defaults)
        return fault

    return register


def find(target: str) -> tuple[Route, Common, dict[str, Any]]:
    """The route of a request target with its common parameters and its own.

    Only the first segment of the path counts, so that a URL may end in any file name. Raises ``LookupError`` if there
    is no such route, and ``ValueError`` for an unknown parameter or a bad value.
    """
    parts = urllib.parse.urlsplit(target)
    name = parts.path.removeprefix("/").partition("/")[0]
    if name not in ROUTES:
        raise LookupError(f"no route /{name}; there are {', '.join(sorted(ROUTES))}")
    return ROUTES[name], *ROUTES[name].parse(parts.query)


def answer(ask: Ask, route: Route, own: Mapping[str, Any]) -> Reply:
    """The reply of a route: the good one, spoiled if the fault strikes this time."""
    common, reply = ask.common, ask.good()
    if common.at < 0 or reply.start <= common.at < reply.start + len(reply.body):
        turn = ask.memory.turns if ask.method == "HEAD" else ask.memory.take_turn()
        if common.skip <= turn < common.skip + common.times:
            reply = route.fault(dataclasses.replace(ask, turn=turn), reply, **own)
    reply.delay += common.delay
    reply.extra += [common.header] if common.header else []
    return reply


def content_range(start: int, end: int, total: int | str) -> str:
    """The value of Content-Range for the half-open range ``[start, end)``."""
    return f"bytes {start}-{end - 1}/{total}"


def message(status: int, text: str) -> Reply:
    """A reply with a text as its body."""
    return Reply(status, {"Content-Type": "text/plain"}, memoryview(f"{text}\n".encode()))
