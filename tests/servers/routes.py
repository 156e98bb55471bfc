"""The faults, one route each. What is in a query besides a route's own parameters: ``routing.Common``."""

import threading
from http import HTTPStatus
from urllib.parse import urlencode

from servers.routing import ROUTES, Ask, content_range, message, route
from servers.wire import Break, Pace, Reply

__all__ = ["ROUTES"]

_HOURS = 36_000.0
_SLOT_TIMEOUT = 0.05  # seconds


def _span(reply: Reply) -> tuple[int, int]:
    """The half-open range that a 206 carries."""
    return reply.start, reply.start + len(reply.body)


def _claim(reply: Reply, start: int, end: int, total: int | str) -> Reply:
    """Changes what a 206 says about itself; other replies stay as they are."""
    if reply.status == HTTPStatus.PARTIAL_CONTENT:
        reply.headers["Content-Range"] = content_range(start, end, total)
    return reply


# What a server may do.


@route("good")
def good(ask: Ask, reply: Reply) -> Reply:
    """Ranges, a strong ETag, Last-Modified, If-Range, HEAD, keep-alive."""
    return reply


@route("no-ranges", ranges=False)
def no_ranges(ask: Ask, reply: Reply) -> Reply:
    """Ignores Range: 200 with a Content-Length."""
    return reply


@route("no-length", ranges=False)
def no_length(ask: Ask, reply: Reply) -> Reply:
    """Ignores Range: 200 without a length, whose end is the end of the connection."""
    reply.framing, reply.close = "close", True
    return reply


@route("chunked", ranges=False)
def chunked(ask: Ask, reply: Reply, *, trailer: str = "") -> Reply:
    """Ignores Range: 200 in chunks, with a header line after the last one if asked to."""
    reply.framing, reply.trailer = "chunked", trailer
    return reply


@route("chunked-ranges")
def chunked_ranges(ask: Ask, reply: Reply, *, trailer: str = "") -> Reply:
    """206 whose body comes in chunks."""
    return chunked(ask, reply, trailer=trailer)


@route("empty", size=0)
def empty(ask: Ask, reply: Reply) -> Reply:
    """A file of no bytes: 416 and ``bytes */0`` to a range, else 200."""
    return reply


@route("empty-200", size=0, ranges=False)
def empty_200(ask: Ask, reply: Reply) -> Reply:
    """A file of no bytes: always 200."""
    return reply


@route("empty-odd", size=0)
def empty_odd(ask: Ask, reply: Reply, *, status: int = 206, said: str = "bytes 0--1/0", length: int = 0) -> Reply:
    """A file of no bytes: what some servers make of a range of it; a plain request gets 200 and the same nonsense.

    ``length=1``: a Content-Length that counts a byte which never comes, and a plain request is answered well.
    """
    if "range" not in ask.headers:
        plain = ask.good(ranges=False)
        if not length:
            plain.headers["Content-Range"] = said
        return plain
    reply.status, reply.length = HTTPStatus(status), length
    reply.headers["Content-Range"] = said
    reply.close = bool(length)
    return reply


@route("range-of-nothing")
def range_of_nothing(ask: Ask, reply: Reply, *, code: int = 416) -> Reply:
    """A range is answered as if the file were empty, and a plain request well."""
    if "range" not in ask.headers:
        return reply
    return Reply(code, {"Content-Range": "bytes */0"} if code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE else {})


@route("first-byte-is-all")
def first_byte_is_all(ask: Ask, reply: Reply) -> Reply:
    """Ranges, but ``bytes=0-0`` gets the whole file: an end of 0 is taken for none, as is common in JavaScript."""
    return whole_206(ask, reply) if ask.headers.get("range") == "bytes=0-0" else reply


@route("close-each")
def close_each(ask: Ask, reply: Reply) -> Reply:
    """Closes the connection after every reply, and says so."""
    reply.close = True
    return reply


@route("http10", ranges=False)
def http10(ask: Ask, reply: Reply) -> Reply:
    """Speaks HTTP/1.0, as simple servers do."""
    reply.version, reply.close = "HTTP/1.0", True
    return reply


@route("odd-headers")
def odd_headers(ask: Ask, reply: Reply) -> Reply:
    """Lower-case names, no space before a value, white space after it: all allowed."""
    reply.odd = True
    return reply


@route("early-hints")
def early_hints(ask: Ask, reply: Reply) -> Reply:
    """An answer 103 before the real one, with an ETag that means nothing."""
    reply.preface = b'HTTP/1.1 103 Early Hints\r\nETag: "early"\r\n\r\n'
    return reply


@route("short-range")
def short_range(ask: Ask, reply: Reply, *, most: int = 64 << 10) -> Reply:
    """206 with less than was asked for, at most ``most`` bytes, and right about it."""
    if reply.status == HTTPStatus.PARTIAL_CONTENT:
        reply.body = reply.body[:most]
    return _claim(reply, *_span(reply), ask.common.size)


@route("unknown-total")
def unknown_total(ask: Ask, reply: Reply) -> Reply:
    """206 that does not say how large the file is: ``bytes 0-99/*``."""
    return _claim(reply, *_span(reply), "*")


@route("no-validator", etag="none", mtime=False)
def no_validator(ask: Ask, reply: Reply) -> Reply:
    """Neither ETag nor Last-Modified."""
    return reply


@route("weak-etag", etag="weak", mtime=False)
def weak_etag(ask: Ask, reply: Reply) -> Reply:
    """An ETag that does not promise equal bytes; no Last-Modified."""
    return reply


@route("disposition")
def disposition(ask: Ask, reply: Reply, *, value: str = 'attachment; filename="disposed.bin"') -> Reply:
    """The Content-Disposition header given in ``value``, byte for byte."""
    reply.headers["Content-Disposition"] = value
    return reply


@route("huge-headers")
def huge_headers(ask: Ask, reply: Reply, *, lines: int = 64, width: int = 1000) -> Reply:
    """``lines`` more header lines with values of ``width`` bytes."""
    reply.extra += [f"X-Padding-{number}: {'x' * width}" for number in range(lines)]
    return reply


# What a server says that is not so.


@route("wrong-start")
def wrong_start(ask: Ask, reply: Reply, *, shift: int = 1) -> Reply:
    """206 with a range of the file that starts ``shift`` bytes beside the one asked for."""
    if reply.status == HTTPStatus.PARTIAL_CONTENT:
        start, end = (min(max(0, border + shift), ask.common.size) for border in _span(reply))
        reply.start, reply.body = start, ask.good(ranges=False).body[start:end]
    return _claim(reply, *_span(reply), ask.common.size)


@route("wrong-total", skip=1)
def wrong_total(ask: Ask, reply: Reply, *, delta: int = 1, grow: int = 0) -> Reply:
    """After the first request the file is said to be ``delta`` bytes larger, and ``grow`` more each time."""
    return _claim(reply, *_span(reply), ask.common.size + delta + grow * ask.turn)


@route("no-content-range")
def no_content_range(ask: Ask, reply: Reply) -> Reply:
    """206 that does not say which part it is."""
    reply.headers.pop("Content-Range", None)
    return reply


@route("whole-206")
def whole_206(ask: Ask, reply: Reply) -> Reply:
    """206 with the whole file, whatever part was asked for, and right about it."""
    if reply.status == HTTPStatus.PARTIAL_CONTENT:
        reply.start, reply.body = 0, ask.good(ranges=False).body
    return _claim(reply, *_span(reply), ask.common.size)


@route("lingers")
def lingers(ask: Ask, reply: Reply, *, framing: str = "chunked", seconds: float = _HOURS) -> Reply:
    """Every byte is sent, and the end of the reply comes ``seconds`` later.

    ``framing``: ``chunked`` (the last chunk is late), ``close`` (the end of the connection), ``length`` (a
    Content-Length that is larger than what the range holds, as of servers that give the whole file's).
    """
    reply.lingers = seconds
    if framing == "length":
        reply.length, reply.close = max(ask.common.size, len(reply.body) + 1), True
    else:
        reply.framing = "chunked" if framing == "chunked" else "close"
    return reply


@route("short-body")
def short_body(ask: Ask, reply: Reply, *, missing: int = 1) -> Reply:
    """A complete reply with ``missing`` bytes less than its Content-Range promises."""
    reply.body = reply.body[: max(0, len(reply.body) - missing)]
    return reply


@route("stated")
def stated(ask: Ask, reply: Reply, *, length: str = "", total: str = "") -> Reply:
    """States ``length`` as its Content-Length, with ``|`` in several lines, and ``total`` in its Content-Range."""
    if length:
        reply.extra += [f"Content-Length: {each}" for each in length.split("|")]
        reply.framing = "close" if reply.framing == "length" else reply.framing
        reply.close = True
    return _claim(reply, *_span(reply), total) if total else reply


@route("overflow")
def overflow(ask: Ask, reply: Reply, *, extra: int = 1000, framing: str = "close") -> Reply:
    """``extra`` wrong bytes after the promised ones.

    ``framing``: ``close`` (the end is the end of the connection), ``length`` (a Content-Length that counts
    them), ``chunked``, ``excess`` (a Content-Length that does not, and then they come).
    """
    reply.tail = b"\xee" * extra
    match framing:
        case "close" | "length" | "chunked":
            reply.framing = framing
        case "excess":
            reply.length, reply.close = len(reply.body), True
        case _:
            raise ValueError(f"no such framing: {framing!r}")
    return reply


@route("encoded")
def encoded(ask: Ask, reply: Reply, *, coding: str = "gzip") -> Reply:
    """Says Content-Encoding (of bytes that are as ever)."""
    reply.headers["Content-Encoding"] = coding
    return reply


@route("garbage")
def garbage(ask: Ask, reply: Reply, *, amount: int = 1000) -> Reply:
    """Bytes that are not HTTP."""
    reply.raw = bytes(0x80 + number % 0x60 for number in range(amount))
    return reply


# What changes from one request to the next.


@route("range-then-200", skip=1)
def range_then_200(ask: Ask, reply: Reply) -> Reply:
    """206 to the first request; then the whole file, with 200."""
    return ask.good(ranges=False)


@route("if-range-200")
def if_range_200(ask: Ask, reply: Reply) -> Reply:
    """200 to every request with an If-Range, though the validator is the right one."""
    return ask.good(ranges=False) if "if-range" in ask.headers else reply


@route("etag-changes", skip=1)
def etag_changes(ask: Ask, reply: Reply, *, grow: int = 0, if_range: bool = True) -> Reply:
    """After the first request the file is another: content, ETag and date, and the size by ``grow``.

    ``if_range=0``: and 206 is the answer to an If-Range with the old validator.
    """
    size, seed = ask.common.size + grow, ask.common.seed + 1
    return ask.good(if_range=if_range, size=size, seed=seed)


@route("mtime-changes", skip=1, etag="none")
def mtime_changes(ask: Ask, reply: Reply, *, grow: int = 0, if_range: bool = True) -> Reply:
    """The same with a Last-Modified and no ETag."""
    return etag_changes(ask, reply, grow=grow, if_range=if_range)


@route("etag-flaps", mtime=False)
def etag_flaps(ask: Ask, reply: Reply, *, if_range: bool = True) -> Reply:
    """One file, and another ETag each time, as servers behind one name give that do not agree about it.

    So an If-Range never matches; ``if_range=0``: it is not looked at.
    """
    reply = ask.good(if_range=False, ranges=not (if_range and "if-range" in ask.headers))
    reply.headers["ETag"] = f'"flap-{ask.turn}"'
    return reply


# What breaks on the way.


@route("cut")
def cut(ask: Ask, reply: Reply, *, after: int = 64 << 10, headers: bool = True) -> Reply:
    """Closes the connection after so many bytes of the body; ``headers=0``: without any answer."""
    reply.broken = Break("close", after, headers=headers)
    return reply


@route("reset")
def reset(ask: Ask, reply: Reply, *, after: int = 64 << 10, headers: bool = True) -> Reply:
    """Resets the connection (RST) there."""
    reply.broken = Break("reset", after, headers=headers)
    return reply


@route("stall")
def stall(ask: Ask, reply: Reply, *, after: int = 64 << 10, seconds: float = _HOURS, headers: bool = True) -> Reply:
    """Sends nothing for ``seconds`` there, then the rest."""
    reply.broken = Break("stall", after, seconds, headers)
    return reply


@route("slow")
def slow(ask: Ask, reply: Reply, *, rate: int = 64 << 10) -> Reply:
    """``rate`` bytes per second, each reply."""
    reply.pace = Pace(rate)
    return reply


@route("shared-rate")
def shared_rate(ask: Ask, reply: Reply, *, rate: int = 1 << 20) -> Reply:
    """``rate`` bytes per second, all replies of this URL together."""
    with ask.memory.lock:
        ask.memory.pace = reply.pace = ask.memory.pace or Pace(rate)
    return reply


@route("slow-headers")
def slow_headers(ask: Ask, reply: Reply, *, seconds: float = 1.0) -> Reply:
    """So long before the status line."""
    reply.delay = seconds
    return reply


# What a server refuses.


@route("status")
def status(ask: Ask, reply: Reply, *, code: int = 503, retry_after: str = "") -> Reply:
    """The status ``code``, with a Retry-After (seconds or a date) if there is one."""
    reply = message(code, f"status {code}, as asked for")
    if code in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
        reply.body = reply.body[:0]
    if retry_after:
        reply.headers["Retry-After"] = retry_after
    return reply


@route("limited-connections")
def limited_connections(ask: Ask, reply: Reply, *, limit: int = 4, code: int = 503, retry_after: str = "") -> Reply:
    """``code`` while ``limit`` other requests of this URL are being answered; 0: closes without an answer."""
    with ask.memory.lock:
        slots = ask.memory.slots = ask.memory.slots or threading.Semaphore(limit)
    # The client may know that a reply is over before its slot is free.
    if slots.acquire(timeout=_SLOT_TIMEOUT):
        reply.on_end = slots.release
        return reply
    return status(ask, reply, code=code, retry_after=retry_after) if code else cut(ask, reply, headers=False)


@route("needs")
def needs(ask: Ask, reply: Reply, *, name: str = "Authorization", value: str = "", code: int = 401) -> Reply:
    """``code`` unless the request has this header (with this value, if one is given)."""
    given = ask.headers.get(name.lower())
    if given is not None and value in ("", given):
        return reply
    reply = message(code, f"{name} is missing")
    if code == HTTPStatus.UNAUTHORIZED:
        reply.headers["WWW-Authenticate"] = 'Basic realm="tests"'
    return reply


# Where a server sends its clients.


def _redirect(code: int, to: str, body: int = 0) -> Reply:
    reply = message(code, "elsewhere" if not body else "x" * body)
    reply.headers["Location"] = to
    return reply


@route("redirect")
def redirect(ask: Ask, reply: Reply, *, to: str = "", code: int = 302, hops: int = 1, body: int = 0) -> Reply:
    """To ``to``, absolute or relative (``/good`` with this size and seed if none), over so many redirects.

    ``body``: the bytes of the page that it sends along.
    """
    to = to or "/good?" + urlencode({"size": ask.common.size, "seed": ask.common.seed})
    if hops > 1:
        to = "/redirect?" + urlencode({"to": to, "code": code, "hops": hops - 1})
    return _redirect(code, to, body)


@route("redirect-breaks")
def redirect_breaks(ask: Ask, reply: Reply, *, to: str = "/good", page: str = "close") -> Reply:
    """To ``to``; its page is promised and does not come (``close``, ``reset``), never ends (``stall``, ``more``), or
    says ``locations``: two of them."""
    reply = _redirect(HTTPStatus.FOUND, to, 100)
    match page:
        case "close" | "reset" | "stall":
            reply.broken = Break(page, 0, _HOURS)
        case "more":
            reply.framing, reply.lingers = "close", _HOURS
        case "locations":
            reply.extra.append("Location: /status/second?code=404")
        case _:
            raise ValueError(page)
    return reply


@route("redirect-in-turn")
def redirect_in_turn(ask: Ask, reply: Reply, *, to: str = "") -> Reply:
    """To the next of the URLs in ``to``, with ``|`` between them, and to the last of them from then on."""
    listed = to.split("|")
    return _redirect(302, listed[min(ask.turn, len(listed) - 1)])


@route("redirect-loop")
def redirect_loop(ask: Ask, reply: Reply, *, code: int = 302) -> Reply:
    """To itself."""
    return _redirect(code, ask.target)


@route("redirect-to-file-scheme")
def redirect_to_file_scheme(ask: Ask, reply: Reply, *, to: str = "file:///etc/passwd") -> Reply:
    """To a URL that is not HTTP."""
    return _redirect(302, to)


@route("redirect-signed")
def redirect_signed(ask: Ask, reply: Reply, *, uses: int = 4, expired: int = 403) -> Reply:
    """To a link good for ``uses`` requests, that then answers ``expired``; each redirect makes a new link."""
    common = ask.common
    query = {"size": common.size, "seed": common.seed, "rate": common.rate, "code": expired, "skip": uses}
    return _redirect(302, "/status/signed?" + urlencode(query | {"id": f"{common.id}-{ask.turn}"}))
