"""The faults, one route each. ``routing.Common`` has the parameters that every route takes."""

import threading
from http import HTTPStatus
from urllib.parse import urlencode

from servers.routing import ROUTES, Ask, content_range, message, route
from servers.wire import Break, Pace, Reply

__all__ = ["ROUTES"]

_HOURS = 36_000.0
_SLOT_TIMEOUT = 0.05  # seconds


def _span(reply: Reply) -> tuple[int, int]:
    """The half-open range in a 206."""
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
    """Ignores Range: 200 without a length; the body ends when the connection closes."""
    reply.framing, reply.close = "close", True
    return reply


@route("chunked", ranges=False)
def chunked(ask: Ask, reply: Reply, *, trailer: str = "") -> Reply:
    """Ignores Range: 200 in chunks, optionally with a trailer line after the last one."""
    reply.framing, reply.trailer = "chunked", trailer
    return reply


@route("chunked-ranges")
def chunked_ranges(ask: Ask, reply: Reply, *, trailer: str = "") -> Reply:
    """206 with a chunked body."""
    return chunked(ask, reply, trailer=trailer)


@route("empty", size=0)
def empty(ask: Ask, reply: Reply) -> Reply:
    """An empty file: 416 and ``bytes */0`` to a range, otherwise 200."""
    return reply


@route("empty-200", size=0, ranges=False)
def empty_200(ask: Ask, reply: Reply) -> Reply:
    """An empty file: always 200."""
    return reply


@route("empty-odd", size=0)
def empty_odd(ask: Ask, reply: Reply, *, status: int = 206, said: str = "bytes 0--1/0", length: int = 0) -> Reply:
    """An empty file, with the answer that some servers give to a range of it. A plain request gets 200 and the same
    nonsense.

    ``length=1``: the Content-Length counts a byte that never comes, and a plain request gets a good answer.
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
    """Answers ranges as if the file were empty, and plain requests correctly."""
    if "range" not in ask.headers:
        return reply
    return Reply(code, {"Content-Range": "bytes */0"} if code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE else {})


@route("first-byte-is-all")
def first_byte_is_all(ask: Ask, reply: Reply) -> Reply:
    """Supports ranges, but ``bytes=0-0`` gets the whole file: a common bug in JavaScript treats an end of 0 as none."""
    return whole_206(ask, reply) if ask.headers.get("range") == "bytes=0-0" else reply


@route("close-each")
def close_each(ask: Ask, reply: Reply) -> Reply:
    """Closes the connection after every reply, and says so."""
    reply.close = True
    return reply


@route("http10", ranges=False)
def http10(ask: Ask, reply: Reply) -> Reply:
    """Speaks HTTP/1.0, like simple servers."""
    reply.version, reply.close = "HTTP/1.0", True
    return reply


@route("odd-headers")
def odd_headers(ask: Ask, reply: Reply) -> Reply:
    """Headers with lower-case names, no space before the value and white space after it, which are all valid."""
    reply.odd = True
    return reply


@route("early-hints")
def early_hints(ask: Ask, reply: Reply) -> Reply:
    """A 103 before the real response, with an ETag that is to be ignored."""
    reply.preface = b'HTTP/1.1 103 Early Hints\r\nETag: "early"\r\n\r\n'
    return reply


@route("short-range")
def short_range(ask: Ask, reply: Reply, *, most: int = 64 << 10) -> Reply:
    """206 with less than was asked for, at most ``most`` bytes, and a correct Content-Range."""
    if reply.status == HTTPStatus.PARTIAL_CONTENT:
        reply.body = reply.body[:most]
    return _claim(reply, *_span(reply), ask.common.size)


@route("unknown-total")
def unknown_total(ask: Ask, reply: Reply) -> Reply:
    """206 that does not state the size of the file: ``bytes 0-99/*``."""
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


# Wrong statements.


@route("wrong-start")
def wrong_start(ask: Ask, reply: Reply, *, shift: int = 1) -> Reply:
    """206 with a range that starts ``shift`` bytes away from the one asked for."""
    if reply.status == HTTPStatus.PARTIAL_CONTENT:
        start, end = (min(max(0, border + shift), ask.common.size) for border in _span(reply))
        reply.start, reply.body = start, ask.good(ranges=False).body[start:end]
    return _claim(reply, *_span(reply), ask.common.size)


@route("wrong-total", skip=1)
def wrong_total(ask: Ask, reply: Reply, *, delta: int = 1, grow: int = 0) -> Reply:
    """After the first request, states a size that is ``delta`` bytes too large, and ``grow`` more each time."""
    return _claim(reply, *_span(reply), ask.common.size + delta + grow * ask.turn)


@route("no-content-range")
def no_content_range(ask: Ask, reply: Reply) -> Reply:
    """206 without Content-Range."""
    reply.headers.pop("Content-Range", None)
    return reply


@route("whole-206")
def whole_206(ask: Ask, reply: Reply) -> Reply:
    """206 with the whole file, whatever range was asked for, and a correct Content-Range."""
    if reply.status == HTTPStatus.PARTIAL_CONTENT:
        reply.start, reply.body = 0, ask.good(ranges=False).body
    return _claim(reply, *_span(reply), ask.common.size)


@route("lingers")
def lingers(ask: Ask, reply: Reply, *, framing: str = "chunked", seconds: float = _HOURS) -> Reply:
    """Sends every byte, but ends the reply only ``seconds`` later.

    ``framing``: ``chunked`` (the last chunk is late), ``close`` (the connection closes late), ``length`` (the
    Content-Length is larger than the range, as from servers that state the whole file's).
    """
    reply.lingers = seconds
    if framing == "length":
        reply.length, reply.close = max(ask.common.size, len(reply.body) + 1), True
    else:
        reply.framing = "chunked" if framing == "chunked" else "close"
    return reply


@route("short-body")
def short_body(ask: Ask, reply: Reply, *, missing: int = 1) -> Reply:
    """A complete reply with ``missing`` fewer bytes than its Content-Range promises."""
    reply.body = reply.body[: max(0, len(reply.body) - missing)]
    return reply


@route("stated")
def stated(ask: Ask, reply: Reply, *, length: str = "", total: str = "") -> Reply:
    """States ``length`` as Content-Length (``|`` separates several lines) and ``total`` in Content-Range."""
    if length:
        reply.extra += [f"Content-Length: {each}" for each in length.split("|")]
        reply.framing = "close" if reply.framing == "length" else reply.framing
        reply.close = True
    return _claim(reply, *_span(reply), total) if total else reply


@route("overflow")
def overflow(ask: Ask, reply: Reply, *, extra: int = 1000, framing: str = "close") -> Reply:
    """``extra`` wrong bytes after the promised ones.

    ``framing``: ``close`` (the body ends when the connection closes), ``length`` (the Content-Length counts them),
    ``chunked``, ``excess`` (they follow a Content-Length that does not count them).
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
    """States a Content-Encoding, although the bytes are not encoded."""
    reply.headers["Content-Encoding"] = coding
    return reply


@route("garbage")
def garbage(ask: Ask, reply: Reply, *, amount: int = 1000) -> Reply:
    """Bytes that are not HTTP."""
    reply.raw = bytes(0x80 + number % 0x60 for number in range(amount))
    return reply


# Changes from one request to the next.


@route("range-then-200", skip=1)
def range_then_200(ask: Ask, reply: Reply) -> Reply:
    """206 to the first request, then 200 with the whole file."""
    return ask.good(ranges=False)


@route("if-range-200")
def if_range_200(ask: Ask, reply: Reply) -> Reply:
    """200 to every request with an If-Range, although the validator matches."""
    return ask.good(ranges=False) if "if-range" in ask.headers else reply


@route("etag-changes", skip=1)
def etag_changes(ask: Ask, reply: Reply, *, grow: int = 0, if_range: bool = True) -> Reply:
    """After the first request the file has other content, ETag and date, and is ``grow`` bytes larger.

    ``if_range=0``: an If-Range with the old validator still gets 206.
    """
    size, seed = ask.common.size + grow, ask.common.seed + 1
    return ask.good(if_range=if_range, size=size, seed=seed)


@route("mtime-changes", skip=1, etag="none")
def mtime_changes(ask: Ask, reply: Reply, *, grow: int = 0, if_range: bool = True) -> Reply:
    """The same with a Last-Modified and no ETag."""
    return etag_changes(ask, reply, grow=grow, if_range=if_range)


@route("etag-flaps", mtime=False)
def etag_flaps(ask: Ask, reply: Reply, *, if_range: bool = True) -> Reply:
    """The same file with another ETag each time, as from servers behind one name that disagree about it.

    So an If-Range never matches; ``if_range=0`` ignores it.
    """
    reply = ask.good(if_range=False, ranges=not (if_range and "if-range" in ask.headers))
    reply.headers["ETag"] = f'"flap-{ask.turn}"'
    return reply


# Broken transfers.


@route("cut")
def cut(ask: Ask, reply: Reply, *, after: int = 64 << 10, headers: bool = True) -> Reply:
    """Closes the connection after ``after`` bytes of the body; ``headers=0``: without any answer."""
    reply.broken = Break("close", after, headers=headers)
    return reply


@route("reset")
def reset(ask: Ask, reply: Reply, *, after: int = 64 << 10, headers: bool = True) -> Reply:
    """Resets the connection (RST) at the same point."""
    reply.broken = Break("reset", after, headers=headers)
    return reply


@route("stall")
def stall(ask: Ask, reply: Reply, *, after: int = 64 << 10, seconds: float = _HOURS, headers: bool = True) -> Reply:
    """Sends nothing for ``seconds`` at the same point, then the rest."""
    reply.broken = Break("stall", after, seconds, headers)
    return reply


@route("slow")
def slow(ask: Ask, reply: Reply, *, rate: int = 64 << 10) -> Reply:
    """Sends each reply at ``rate`` bytes per second."""
    reply.pace = Pace(rate)
    return reply


@route("shared-rate")
def shared_rate(ask: Ask, reply: Reply, *, rate: int = 1 << 20) -> Reply:
    """Sends all replies of this URL at ``rate`` bytes per second together."""
    with ask.memory.lock:
        ask.memory.pace = reply.pace = ask.memory.pace or Pace(rate)
    return reply


@route("slow-headers")
def slow_headers(ask: Ask, reply: Reply, *, seconds: float = 1.0) -> Reply:
    """Waits ``seconds`` before the status line."""
    reply.delay = seconds
    return reply


# Refusals.


@route("status")
def status(ask: Ask, reply: Reply, *, code: int = 503, retry_after: str = "") -> Reply:
    """The status ``code``, with a Retry-After (seconds or a date) if one is given."""
    reply = message(code, f"status {code}, as asked for")
    if code in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
        reply.body = reply.body[:0]
    if retry_after:
        reply.headers["Retry-After"] = retry_after
    return reply


@route("limited-connections")
def limited_connections(ask: Ask, reply: Reply, *, limit: int = 4, code: int = 503, retry_after: str = "") -> Reply:
    """``code`` while ``limit`` other requests for this URL are being answered; 0 closes without an answer."""
    with ask.memory.lock:
        slots = ask.memory.slots = ask.memory.slots or threading.Semaphore(limit)
    # The client may see the end of a reply before its slot is free.
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


# Redirects.


def _redirect(code: int, to: str, body: int = 0) -> Reply:
    reply = message(code, "elsewhere" if not body else "x" * body)
    reply.headers["Location"] = to
    return reply


@route("redirect")
def redirect(ask: Ask, reply: Reply, *, to: str = "", code: int = 302, hops: int = 1, body: int = 0) -> Reply:
    """Redirects to ``to``, absolute or relative (by default ``/good`` with this size and seed), in ``hops`` steps.

    ``body`` is the size in bytes of the page sent with each redirect.
    """
    to = to or "/good?" + urlencode({"size": ask.common.size, "seed": ask.common.seed})
    if hops > 1:
        to = "/redirect?" + urlencode({"to": to, "code": code, "hops": hops - 1})
    return _redirect(code, to, body)


@route("redirect-breaks")
def redirect_breaks(ask: Ask, reply: Reply, *, to: str = "/good", page: str = "close") -> Reply:
    """Redirects to ``to`` with a page that is promised but not sent (``close``, ``reset``) or never ends (``stall``,
    ``more``), or with two Location headers (``locations``)."""
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
    """Redirects to the next of the URLs in ``to`` (separated by ``|``), and after those always to the last."""
    listed = to.split("|")
    return _redirect(302, listed[min(ask.turn, len(listed) - 1)])


@route("redirect-loop")
def redirect_loop(ask: Ask, reply: Reply, *, code: int = 302) -> Reply:
    """Redirects to itself."""
    return _redirect(code, ask.target)


@route("redirect-to-file-scheme")
def redirect_to_file_scheme(ask: Ask, reply: Reply, *, to: str = "file:///etc/passwd") -> Reply:
    """Redirects to a URL that is not HTTP."""
    return _redirect(302, to)


@route("redirect-signed")
def redirect_signed(ask: Ask, reply: Reply, *, uses: int = 4, expired: int = 403) -> Reply:
    """Redirects to a new link each time. A link works for ``uses`` requests and then answers ``expired``."""
    common = ask.common
    query = {"size": common.size, "seed": common.seed, "rate": common.rate, "code": expired, "skip": uses}
    return _redirect(302, "/status/signed?" + urlencode(query | {"id": f"{common.id}-{ask.turn}"}))
