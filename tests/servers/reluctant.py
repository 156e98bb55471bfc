"""Servers whose ranges do not work, although a plain request brings the file."""

from http import HTTPStatus

from servers.content import http_date, modified
from servers.routes import cut
from servers.routing import Ask, content_range, message, route
from servers.wire import Break, Reply, asked_range

__all__: list[str] = []

_HOURS = 3600.0


@route("range-refused")
def range_refused(
    ask: Ask, reply: Reply, *, code: int = 400, beyond: int = 0, too_long: bool = False, retry_after: str = ""
) -> Reply:
    """``code`` in answer to a range, 0: the connection is closed without an answer.

    ``beyond``: only to ranges that reach past so many bytes. ``too_long``: only to those that reach past the file.
    """
    wanted = asked_range(ask.headers.get("range", ""), ask.common.size)
    if wanted is None or wanted[1] <= beyond or (too_long and wanted[1] <= ask.common.size):
        return reply
    if code == 0:
        return cut(ask, reply, headers=False)
    reply = message(code, "no ranges here")
    if retry_after:
        reply.headers["Retry-After"] = retry_after
    return reply


@route("range-breaks")
def range_breaks(ask: Ask, reply: Reply, *, how: str = "close") -> Reply:
    """What breaks of a range, after its header: ``close``, ``reset`` or ``stall`` before its first byte; or what is
    wrong in it: ``gzip`` (a coding), ``length`` (a size that no file can have), ``lengths`` (two that differ),
    ``more`` (bytes beyond what Content-Range says).
    """
    if asked_range(ask.headers.get("range", ""), ask.common.size) is None:
        return reply
    match how:
        case "close" | "reset" | "stall":
            reply.broken = Break(how, 0, _HOURS)
        case "gzip":
            reply.headers["Content-Encoding"] = "gzip"
        case "length":
            reply.length = (1 << 63) - 1
        case "lengths":
            reply.extra.append(f"Content-Length: {ask.common.size + 1}")
        case "more":
            reply.tail, reply.framing = b"\xee" * 1000, "close"
        case _:
            raise ValueError(how)
    return reply


@route("same-total")
def same_total(ask: Ask, reply: Reply) -> Reply:
    """416, and in the same breath the size that makes the range a good one."""
    reply = message(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "no")
    reply.headers["Content-Range"] = f"bytes */{ask.common.size}"
    return reply


@route("mtime-now", etag="none")
def mtime_now(ask: Ask, reply: Reply) -> Reply:
    """Last-Modified is when the response was made: a second later each time."""
    if reply.status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        reply.headers["Last-Modified"] = reply.headers["Date"] = http_date(modified(0) + ask.turn)
    return reply


@route("exclusive-end")
def exclusive_end(ask: Ask, reply: Reply, *, said: bool = True) -> Reply:
    """The last byte of a range is taken for its end, so one byte is missing; ``said=0``: Content-Range counts it."""
    if reply.status == HTTPStatus.PARTIAL_CONTENT:
        reply.body = reply.body[:-1]
        end = reply.start + len(reply.body) + (not said)
        reply.headers["Content-Range"] = content_range(reply.start, max(end, reply.start + 1), ask.common.size)
    return reply


@route("range-length")
def range_length(ask: Ask, reply: Reply, *, delta: int = 1000, total: bool = False) -> Reply:
    """The Content-Length of a part is ``delta`` bytes off, or the whole file's, and the connection ends after it."""
    if reply.status == HTTPStatus.PARTIAL_CONTENT:
        reply.length = ask.common.size if total else max(0, len(reply.body) + delta)
        reply.close = True
    return reply


@route("success", ranges=False)
def success(ask: Ask, reply: Reply, *, code: int = 201, said: bool = True, media: str = "") -> Reply:
    """The whole file with another status than 200; 206: with its Content-Range, though nobody asked for a part,
    ``said=0``: without. ``media``: its Content-Type."""
    reply.status = code
    if media:
        reply.headers["Content-Type"] = media
    if code == HTTPStatus.PARTIAL_CONTENT and said:
        reply.headers["Content-Range"] = content_range(0, ask.common.size, ask.common.size)
    return reply
