"""The table of faults: what servers do wrong, a few lines each.

Each fault has a name, which appears in the tests' ids. To add a fault, add a line; the matrix does the rest.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from matrix.answers import Answer, Ask
from matrix.run import SIZE, Fault, Node, Run
from servers.content import http_date

__all__ = ["FAULTS"]

H1 = ("http", "https")
TLS = ("https", "h2")
H2 = ("h2",)
FAR = 2**63 - 1


def _table() -> Iterator[Fault]:
    yield from _connections()
    yield from _names()
    yield from _bodies()
    yield from _whole_answers_to_ranges()
    yield from _content_ranges()
    yield from _content_lengths()
    yield from _validators()
    yield from _codings()
    yield from _redirects()
    yield from _statuses()
    yield from _heads()
    yield from _of_http2()


# ---- Connections -------------------------------------------------------------------------------------------------


def _connections() -> Iterator[Fault]:
    def stop(how: str, after: int) -> Callable[[Answer, Ask, Run], None]:
        def spoil(answer: Answer, _ask: Ask, _run: Run) -> None:
            answer.stop, answer.stop_after = how, after  # type: ignore[assignment]  # one of the names that Answer lists

        return spoil

    for how, after in itertools.product(("close", "reset", "stall"), (-1, 0, 1, 70_000, 1_500_000)):
        where = "before the head" if after < 0 else f"after {after}"
        # Some bytes arrive each time, so that every try makes progress.
        yield Fault(f"{how} {where}", stop(how, after), slow=0 < after < 1_000_000)

    def drip(answer: Answer, _ask: Ask, _run: Run) -> None:
        answer.pace = 5000

    yield Fault("slow drip", drip, slow=True)

    def restart(answer: Answer, _ask: Ask, run: Run) -> None:
        run.server.restart(0.2)
        answer.silent = True

    yield Fault("server restarts", restart, once=True)

    def change_certificate(answer: Answer, _ask: Ask, run: Run) -> None:
        run.server.show_foreign_certificate()
        answer.silent = True

    yield Fault("certificate changes", change_certificate, protocols=TLS, once=True)

    def limit(most: int, over: str) -> Callable[[Run], None]:
        def begin(run: Run) -> None:
            run.connections_at_most, run.over_limit = most, over  # type: ignore[assignment]  # one of the names that Run lists

        return begin

    for most, over in itertools.product((1, 2), ("unserved", "reset", "503")):
        yield Fault(f"{most} connections, others {over}", begin=limit(most, over))

    def never_served(answer: Answer, _ask: Ask, _run: Run) -> None:
        answer.silent = True

    yield Fault("never served", never_served)

    def close_each(answer: Answer, _ask: Ask, _run: Run) -> None:
        answer.silently_closed = True

    yield Fault("closed after each, unsaid", close_each, protocols=H1)

    def say_close(answer: Answer, _ask: Ask, _run: Run) -> None:
        answer.close = True

    yield Fault("closed after each", say_close, protocols=H1)

    def proxy_dies(answer: Answer, _ask: Ask, run: Run) -> None:
        answer.stop_after = 300_000
        run.server.restart(0.1)

    yield Fault("proxy dies", proxy_dies, proxy=True)

    def proxy_is_gone(answer: Answer, _ask: Ask, run: Run) -> None:
        answer.stop_after = 300_000
        run.server.end_proxy()

    yield Fault("proxy dies for good", proxy_is_gone, proxy=True, once=True)


# ---- Names that cannot be looked up ------------------------------------------------------------------------------


def _names() -> Iterator[Fault]:
    yield Fault("its name's look-up hangs", hangs="the server's")
    yield Fault("the proxy's name's look-up hangs", hangs="the proxy's", proxy=True)

    def elsewhere(_answer: Answer, ask: Ask, run: Run) -> Answer:
        return Answer(302, [("Location", run.server.url(run, host=f"hangs-{ask.number}.invalid"))])

    yield Fault("redirect to a name whose look-up hangs", elsewhere, hangs="another's")


# ---- Bodies ------------------------------------------------------------------------------------------------------


def _bodies() -> Iterator[Fault]:
    def shorter(missing: int) -> Callable[[Answer, Ask, Run], None]:
        def spoil(answer: Answer, _ask: Ask, _run: Run) -> None:
            answer.body = answer.body[: max(0, len(answer.body) - missing)]

        return spoil

    for missing in (1, 100_000, SIZE):
        yield Fault(f"body {missing} shorter than its range", shorter(missing), untold=True)

    def ends_early(answer: Answer, _ask: Ask, _run: Run) -> None:
        answer.stop, answer.stop_after = "end", 100_000

    yield Fault("ends early in good order", ends_early)

    def longer(answer: Answer, _ask: Ask, _run: Run) -> None:
        answer.tail = b"\xee" * 1000

    yield Fault("body longer than its range", longer, untold=True)

    def excess(answer: Answer, _ask: Ask, _run: Run) -> None:
        answer.tail, answer.lengths, answer.silently_closed = b"\xee" * 1000, [str(len(answer.body))], True

    yield Fault("body longer than its length", excess)

    def chunked(answer: Answer, _ask: Ask, _run: Run) -> None:
        answer.chunked = True

    yield Fault("chunked", chunked)

    def endless(answer: Answer, _ask: Ask, _run: Run) -> None:
        answer.chunked, answer.ended = True, False

    yield Fault("chunked without an end", endless)

    def long_chunks(answer: Answer, _ask: Ask, _run: Run) -> None:
        answer.chunked, answer.tail = True, b"\xee" * 1000

    yield Fault("chunked and too long", long_chunks, untold=True)

    for name, line in {"words": b"zz\r\n", "huge": b"ffffffffffffffff\r\n", "negative": b"-1\r\n"}.items():

        def bad_chunks(answer: Answer, _ask: Ask, _run: Run, line: bytes = line) -> None:
            answer.chunked, answer.chunk = True, lambda _: line

        yield Fault(f"chunk sizes that are {name}", bad_chunks, protocols=H1)

    def whole_length(answer: Answer, _ask: Ask, run: Run) -> None:
        answer.lengths, answer.ended = [str(run.node.size)], False

    yield Fault("the whole file's length, left open", whole_length)

    def until_close(answer: Answer, _ask: Ask, _run: Run) -> None:
        answer.lengths, answer.close = [], True

    yield Fault("until close", until_close, protocols=H1)

    def until_close_left_open(answer: Answer, _ask: Ask, _run: Run) -> None:
        answer.lengths, answer.ended = [], False

    yield Fault("until close, left open", until_close_left_open)

    def wrong_range(shift: int) -> Callable[[Answer, Ask, Run], None]:
        def spoil(answer: Answer, ask: Ask, run: Run) -> None:
            start, end = (min(max(0, at + shift), run.node.size) for at in (ask.start, ask.end))
            answer.body, answer.status = run.node.octets[start:end], 206
            answer.header("Content-Range", f"bytes {start}-{end - 1}/{run.node.size}")

        return spoil

    yield Fault("another range, and says so", wrong_range(1))
    yield Fault("an earlier range, and says so", wrong_range(-65_536))


# ---- 200 where a range was asked for -----------------------------------------------------------------------------


def _whole_answers_to_ranges() -> Iterator[Fault]:
    def whole(answer: Answer, _ask: Ask, run: Run) -> None:
        answer.status, answer.start, answer.body = 200, 0, run.node.octets
        answer.header("Content-Range", None)

    yield Fault("200 whole", whole)

    def whole_said(answer: Answer, ask: Ask, run: Run) -> None:
        whole(answer, ask, run)
        answer.header("Content-Range", f"bytes 0-{run.node.size - 1}/{run.node.size}")

    yield Fault("200 whole with a Content-Range", whole_said)

    def part(answer: Answer, _ask: Ask, _run: Run) -> None:
        answer.status = 200

    yield Fault("200 part with a Content-Range", part)

    def part_unsaid(answer: Answer, _ask: Ask, _run: Run) -> None:
        answer.status = 200
        answer.header("Content-Range", None)

    yield Fault("200 part without a Content-Range", part_unsaid)

    def page(answer: Answer, ask: Ask, run: Run, copies: int = 1) -> None:
        answer.status, answer.body, answer.start = 200, b"<!doctype html><title>Log in</title>" * 100 * copies, 0
        answer.headers = [("Content-Type", "text/html; charset=utf-8")]
        if run.place == "first":
            run.versions.add(bytes(answer.body))  # no client could tell

    yield Fault("200 with a page", page)

    def big_page(answer: Answer, ask: Ask, run: Run) -> None:
        page(answer, ask, run, 1000)

    yield Fault("200 with a page as large as a file", big_page)

    def no_ranges(run: Run) -> None:
        run.become(ranges=False)

    yield Fault("no ranges at all", begin=no_ranges)

    def no_more_ranges(_answer: Answer, ask: Ask, run: Run) -> Answer:
        run.become(ranges=False)
        return run.good(ask)

    yield Fault("no more ranges", no_more_ranges, once=True)

    def whole_206(answer: Answer, _ask: Ask, run: Run) -> None:
        answer.status, answer.start, answer.body = 206, 0, run.node.octets
        answer.header("Content-Range", f"bytes 0-{run.node.size - 1}/{run.node.size}")

    yield Fault("206 with the whole file", whole_206)


# ---- Content-Range -----------------------------------------------------------------------------------------------


def _content_ranges() -> Iterator[Fault]:
    values: dict[str, str | None] = {
        "missing": None,
        "empty": "",
        "without a unit": "{start}-{last}/{size}",
        "of another unit": "items {start}-{last}/{size}",
        "without a total": "bytes {start}-{last}",
        "of an unknown total": "bytes {start}-{last}/*",
        "of no range": "bytes */{size}",
        "backwards": "bytes {last}-{start}/{size}",
        "shifted": "bytes {end}-{beyond}/{size}",
        "negative": "bytes -{start}-{last}/{size}",
        "of a negative total": "bytes {start}-{last}/-{size}",
        "of a smaller total": "bytes {start}-{last}/{last}",
        "of a larger total": "bytes {start}-{last}/{larger}",
        "of total 0": "bytes {start}-{last}/0",
        "of total 2^63-1": f"bytes {{start}}-{{last}}/{FAR}",
        "of total 2^63": f"bytes {{start}}-{{last}}/{FAR + 1}",
        "of total 10^40": "bytes {start}-{last}/1" + "0" * 40,
        "with an end of 2^63-1": f"bytes {{start}}-{FAR}/{{size}}",
        "in hexadecimal": "bytes 0x{start:x}-0x{last:x}/0x{size:x}",
        "in words": "bytes one-two/three",
        "with spaces": "bytes  {start} - {last} / {size}",
        "with a plus": "bytes +{start}-+{last}/+{size}",
        "of two ranges": "bytes {start}-{last},{start}-{last}/{size}",
    }
    for name, value in values.items():

        def spoil(answer: Answer, _ask: Ask, run: Run, value: str | None = value) -> None:
            start, size = answer.start, run.node.size
            end = start + len(answer.body)
            figures = {"start": start, "end": end, "last": end - 1, "beyond": 2 * end, "size": size, "larger": size + 1}
            answer.header("Content-Range", None if value is None else value.format(**figures))

        yield Fault(f"Content-Range {name}", spoil, starts_over="total" in name)

    def two(answer: Answer, _ask: Ask, run: Run) -> None:
        answer.headers.append(("Content-Range", f"bytes 0-9/{run.node.size}"))

    yield Fault("Content-Range twice", two)

    def two_totals(answer: Answer, _ask: Ask, run: Run) -> None:
        last = answer.start + len(answer.body) - 1
        answer.headers.append(("Content-Range", f"bytes {answer.start}-{last}/{run.node.size + 1}"))

    yield Fault("Content-Range of two totals", two_totals)


# ---- Content-Length ----------------------------------------------------------------------------------------------


def _content_lengths() -> Iterator[Fault]:
    values = {
        "missing, not closed": [],
        "empty": [""],
        "0": ["0"],
        "one less": ["{less}"],
        "one more": ["{more}"],
        "negative": ["-1"],
        "2^63-1": [str(FAR)],
        "2^63": [str(FAR + 1)],
        "2^64": [str(2 * FAR + 2)],
        "10^40": ["1" + "0" * 40],
        "in words": ["many"],
        "with a plus": ["+{same}"],
        "in hexadecimal": ["0x{same:x}"],
        "with a fraction": ["{same}.0"],
        "twice the same": ["{same}", "{same}"],
        "two that differ": ["{same}", "{more}"],
        "two in a line": ["{same}, {more}"],
    }
    for name, lines in values.items():

        def spoil(answer: Answer, _ask: Ask, _run: Run, lines: list[str] = lines) -> None:
            same = len(answer.body)
            answer.lengths = [line.format(same=same, less=max(0, same - 1), more=same + 1) for line in lines]

        yield Fault(f"Content-Length {name}", spoil, untold=name in ("0", "one less"))

    def with_chunks(answer: Answer, _ask: Ask, _run: Run) -> None:
        answer.chunked = True
        answer.headers.append(("Content-Length", "7"))

    yield Fault("Content-Length and chunks", with_chunks)

    def absurd_200(answer: Answer, ask: Ask, run: Run) -> None:
        answer.status, answer.start, answer.body, answer.lengths = 200, 0, run.node.octets, [str(FAR)]
        answer.header("Content-Range", None)

    yield Fault("200 of 2^63-1 bytes", absurd_200)


# ---- Validators --------------------------------------------------------------------------------------------------


def _validators() -> Iterator[Fault]:
    described = {
        "strong ETag": Node(),
        "strong ETag alone": Node(dated=False),
        "weak ETag": Node(tag="weak"),
        "weak ETag alone": Node(tag="weak", dated=False),
        "date alone": Node(tag="none"),
        "two ETags": Node(tag="two"),
        "nothing": Node(tag="none", dated=False),
    }
    for name, node in described.items():

        def begin(run: Run, node: Node = node) -> None:
            run.node = node

        if name != "strong ETag":
            yield Fault(
                f"identity by {name}", begin=begin, starts_over=name in ("nothing", "two ETags") or "weak" in name
            )

        def another(_answer: Answer, ask: Ask, run: Run) -> Answer:
            run.become(version=run.node.version + 1)
            return run.good(ask)

        def another_size(_answer: Answer, ask: Ask, run: Run) -> Answer:
            run.become(version=run.node.version + 1, size=run.node.size + 1)
            return run.good(ask)

        def vanish(_answer: Answer, ask: Ask, run: Run) -> Answer:
            run.become(tag="none", dated=False)
            return run.good(ask)

        if name != "nothing":
            yield Fault(f"changes under {name}", another, begin, starts_over=True, once=True)
            yield Fault(f"{name} vanishes", vanish, begin, once=True, starts_over=True)
        yield Fault(f"changes and grows under {name}", another_size, begin, starts_over=True, once=True)

    def flap(answer: Answer, ask: Ask, _run: Run) -> None:
        answer.header("ETag", f'"node-{ask.number}"')
        answer.header("Last-Modified", None)

    yield Fault("another ETag each", flap, starts_over=True)

    def two_dates(answer: Answer, _ask: Ask, _run: Run) -> None:
        answer.header("ETag", None)
        answer.headers.append(("Last-Modified", http_date(0)))

    yield Fault("Last-Modified twice", two_dates, starts_over=True)

    def now_weak(answer: Answer, _ask: Ask, run: Run) -> Answer:
        run.become(tag="weak")
        return run.good(_ask)

    yield Fault("strong ETag becomes weak", now_weak, once=True, starts_over=True)

    def long_tag(answer: Answer, _ask: Ask, _run: Run) -> None:
        answer.header("ETag", f'"{"x" * 5000}"')

    yield Fault("ETag of 5000 bytes", long_tag, starts_over=True)

    def future(answer: Answer, _ask: Ask, _run: Run) -> None:
        answer.header("ETag", None)
        answer.header("Last-Modified", "Fri, 31 Dec 9999 23:59:59 GMT")

    yield Fault("Last-Modified in the year 9999", future, starts_over=True)

    def nonsense(answer: Answer, _ask: Ask, _run: Run) -> None:
        answer.header("ETag", "not quoted")
        answer.header("Last-Modified", "yesterday")

    yield Fault("validators in words", nonsense, starts_over=True)


# ---- Codings -----------------------------------------------------------------------------------------------------


def _codings() -> Iterator[Fault]:
    for coding in ("gzip", "br", "identity", "x-unknown"):

        def encode(answer: Answer, _ask: Ask, _run: Run, coding: str = coding) -> None:
            answer.header("Content-Encoding", coding)

        yield Fault(f"Content-Encoding {coding}", encode)

    def multipart(answer: Answer, ask: Ask, run: Run) -> None:
        if not ask.ranged:
            return
        last = answer.start + len(answer.body) - 1
        part = f"\r\n--B\r\nContent-Range: bytes {answer.start}-{last}/{run.node.size}\r\n\r\n".encode()
        answer.body = part + bytes(answer.body) + b"\r\n--B--\r\n"
        answer.header("Content-Range", None)
        answer.header("Content-Type", "multipart/byteranges; boundary=B")

    yield Fault("multipart", multipart)


# ---- Redirects ---------------------------------------------------------------------------------------------------


def _redirects() -> Iterator[Fault]:
    def to(where: Callable[[Ask, Run], str], status: int = 302) -> Callable[[Answer, Ask, Run], Answer]:
        def spoil(_answer: Answer, ask: Ask, run: Run) -> Answer:
            return Answer(status, [("Location", where(ask, run))], b"elsewhere")

        return spoil

    yield Fault("redirect to itself", to(lambda ask, _: ask.path))
    yield Fault("redirect to file:", to(lambda *_: "file:///etc/passwd"))
    yield Fault("redirect to ftp:", to(lambda *_: "ftp://127.0.0.1/x"))
    yield Fault("redirect to nothing", to(lambda *_: ""))
    yield Fault("redirect to nonsense", to(lambda *_: "http://[::1"))
    yield Fault("redirect to plain http", to(lambda _, run: run.server.url(run, "http", mirror=True)), protocols=TLS)
    yield Fault("redirect to https", to(lambda _, run: run.server.url(run, "https", mirror=True)), protocols=("http",))
    for status in (301, 302, 303, 307, 308):
        yield Fault(
            f"{status} to another origin",
            to(lambda _, run: run.server.url(run, mirror=True), status),
        )
    yield Fault("300 without a Location", lambda answer, ask, run: Answer(300, [], b"choose"))
    yield Fault("304 unasked", lambda answer, ask, run: Answer(304))

    def expiring(answer: Answer, ask: Ask, run: Run) -> Answer | None:
        """Redirect to a link that works for one request."""
        if "?link" in ask.path:
            return Answer(403, [], b"expired") if ask.number % 2 else None
        return Answer(302, [("Location", f"{ask.path}?link={ask.number}")])

    yield Fault("links that expire", expiring)


# ---- Statuses ----------------------------------------------------------------------------------------------------


def _statuses() -> Iterator[Fault]:
    def status(code: int, retry_after: str | None = None) -> Callable[[Answer, Ask, Run], Answer]:
        headers = [] if retry_after is None else [("Retry-After", retry_after)]

        def answer(_answer: Answer, ask: Ask, run: Run) -> Answer:
            if code == 204 and not ask.ranged:
                run.versions.add(b"")  # no client could tell
            return Answer(code, headers, b"no")

        return answer

    for code in (
        204,
        205,
        400,
        401,
        403,
        404,
        405,
        408,
        410,
        416,
        418,
        421,
        425,
        429,
        451,
        *range(500, 506),
        *range(520, 531),
        599,
        999,
    ):
        yield Fault(f"{code}", status(code))
    for code, value in itertools.product(
        (429, 503), ("0", "1", "3600", "-5", "soon", "9" * 30, "Fri, 31 Dec 9999 23:59:59 GMT")
    ):
        yield Fault(f"{code} Retry-After {value[:12]}", status(code, value))

    def short(answer: Answer, ask: Ask, run: Run) -> Answer:
        return Answer(416, [("Content-Range", "bytes */100")])

    yield Fault("416 of a smaller file", short)


# ---- Heads -------------------------------------------------------------------------------------------------------


def _heads() -> Iterator[Fault]:
    raws = {
        "garbage": bytes(0x80 + number % 0x60 for number in range(1000)),
        "HTTP/0.9": b"just the body, as in 1991\n",
        "half a status line": b"HTTP/1.1 2",
        "a status line alone": b"HTTP/1.1 206 Partial Content\r\n",
        "half of the headers": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n",
        "a status that is no number": b"HTTP/1.1 abc Whatever\r\n\r\n",
        "HTTP/7.3": b"HTTP/7.3 200 OK\r\n\r\n",
        "an endless line": b"HTTP/1.1 200 OK\r\nX: " + b"x" * (1 << 20),
    }
    for name, octets in raws.items():

        def raw(answer: Answer, _ask: Ask, _run: Run, octets: bytes = octets) -> None:
            answer.raw = octets

        yield Fault(name, raw, protocols=H1)
    lines = {
        "a line without a colon": [b"nonsense"],
        "a NUL in a header": [b"X-Nul: a\0b"],
        "a folded header": [b"X-Long: a", b"  b"],
        "10000 headers": [b"X-%d: y" % number for number in range(10_000)],
        "a header of 300 KB": [b"X-Long: " + b"x" * 300_000],
        "a header of 60 KB": [b"X-Long: " + b"x" * 60_000],
    }
    for name, more in lines.items():

        def add(answer: Answer, _ask: Ask, _run: Run, more: list[bytes] = more) -> None:
            answer.lines = more

        yield Fault(name, add, protocols=H1)

    def hints(answer: Answer, _ask: Ask, _run: Run) -> None:
        answer.preface = b'HTTP/1.1 103 Early Hints\r\nETag: "early"\r\nContent-Length: 3\r\n\r\n' * 5

    yield Fault("answers 103 before it", hints, protocols=H1)

    def endless_hints(answer: Answer, _ask: Ask, _run: Run) -> None:
        answer.raw = b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" * 20_000

    yield Fault("nothing but 103", endless_hints, protocols=H1)


# ---- HTTP/2 ------------------------------------------------------------------------------------------------------


def _of_http2() -> Iterator[Fault]:
    raws = {
        "a frame of an unknown type": b"\x00\x00\x04\xee\x00\x00\x00\x00\x00abcd",
        "garbage in place of a frame": b"HTTP/1.1 400 Bad Request\r\n\r\n",
        "GOAWAY": b"\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
        "GOAWAY that asks for calm": b"\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0b",
        "DATA on stream 0": b"\x00\x00\x01\x00\x00\x00\x00\x00\x00x",
    }
    for name, octets in raws.items():

        def raw(answer: Answer, _ask: Ask, _run: Run, octets: bytes = octets) -> None:
            answer.raw = octets

        yield Fault(name, raw, protocols=H2)

    def big(answer: Answer, _ask: Ask, _run: Run) -> None:
        answer.headers += [(f"x-{number}", "y" * 4000) for number in range(3)]

    yield Fault("12 KB of headers", big, protocols=H2)


FAULTS: dict[str, Fault] = {fault.name: fault for fault in _table()}
