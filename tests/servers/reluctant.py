"""Routes on which range requests do not work, although a plain request gets the file."""

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
    """Answers range requests with ``code``; 0 closes the connection without an answer.

    With ``beyond``, only ranges that reach past that many bytes. With ``too_long``, only those that reach past the end
    of the file.
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
    """Sends a good header for a range and then fails before the first byte (``close``, ``reset`` or ``stall``), or
    sends a wrong reply: ``gzip`` (a coding), ``length`` (a size that no file can have), ``lengths`` (two different
    ones), ``more`` (bytes beyond what Content-Range says).
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
    """416 with a Content-Range whose size shows that the range was valid."""
    reply = message(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "no")
    reply.headers["Content-Range"] = f"bytes */{ask.common.size}"
    return reply


@route("mtime-now", etag="none")
def mtime_now(ask: Ask, reply: Reply) -> Reply:
    """Last-Modified is the time of the response: a second later each time."""
    if reply.status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        reply.headers["Last-Modified"] = reply.headers["Date"] = http_date(modified(0) + ask.turn)
    return reply


@route("exclusive-end")
def exclusive_end(ask: Ask, reply: Reply, *, said: bool = True) -> Reply:
    """Treats the last byte of a range as an exclusive end, so one byte is missing; ``said=0``: Content-Range has it."""
    if reply.status == HTTPStatus.PARTIAL_CONTENT:
        reply.body = reply.body[:-1]
        end = reply.start + len(reply.body) + (not said)
        reply.headers["Content-Range"] = content_range(reply.start, max(end, reply.start + 1), ask.common.size)
    return reply


@route("range-length")
def range_length(ask: Ask, reply: Reply, *, delta: int = 1000, total: bool = False) -> Reply:
    """The Content-Length of a range is off by ``delta`` bytes, or is the whole file's; then the connection ends."""
    if reply.status == HTTPStatus.PARTIAL_CONTENT:
        reply.length = ask.common.size if total else max(0, len(reply.body) + delta)
        reply.close = True
    return reply


@route("success", ranges=False)
def success(ask: Ask, reply: Reply, *, code: int = 201, said: bool = True, media: str = "") -> Reply:
    """The whole file with a status other than 200. With 206 it has a Content-Range although no range was asked for;
    ``said=0`` leaves that out. ``media`` is the Content-Type."""
    reply.status = code
    if media:
        reply.headers["Content-Type"] = media
    if code == HTTPStatus.PARTIAL_CONTENT and said:
        reply.headers["Content-Range"] = content_range(0, ask.common.size, ask.common.size)
    return reply
