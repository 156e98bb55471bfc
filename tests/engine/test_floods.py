"""Servers that keep a transfer busy without ever sending the file: endless lines, and a byte now and then."""

from __future__ import annotations

import contextlib
import itertools
import socketserver
import time
from collections.abc import Callable, Iterator

import pytest

from engine.driving import Driver
from rangefetch import _engine
from servers.background import Background, Handler
from servers.misbehaving import MisbehavingServer, content
from support.files import MIB

PARTIAL = b"HTTP/1.1 206 Partial Content\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"
FLOODS: dict[str, tuple[bytes, bytes]] = {
    "headers": (PARTIAL, b"X-Filler: abcdefgh\r\n"),
    "informational": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "hints": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n"),
    "trailers": (CHUNKED, b"X-Filler: abcdefgh\r\n"),
    "long lines": (PARTIAL, b"X-Filler: " + 1000 * b"a" + b"\r\n"),
    "one line": (PARTIAL + b"X-Filler: ", b"abcdefgh"),
}


@contextlib.contextmanager
def _sending(pieces: Callable[[], Iterator[bytes]]) -> Iterator[str]:
    """A server that answers every request with these bytes, as long as the client reads."""

    class Sender(Handler):
        def do_GET(self) -> None:
            with contextlib.suppress(OSError):
                for piece in pieces():
                    self.wfile.write(piece)

    with Background(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Sender)) as background:
        yield f"http://127.0.0.1:{background.port}/file.bin"


@pytest.mark.parametrize("flood", FLOODS)
def test_header_lines_without_end_end_the_transfer_and_hold_up_no_other(
    driver: Driver, server: MisbehavingServer, flood: str
) -> None:
    first, line = FLOODS[flood]
    with _sending(lambda: itertools.chain([first], itertools.repeat(line * 500))) as url:
        flooded = driver.add(url)
        other = driver.add(server.url("/good", size=MIB))
        driver.until(lambda: "FAILED" in driver.names(flooded))
        driver.end(other)
        failed = next(event for event in driver.log if event.name == "FAILED")
        assert failed.fault == _engine.FAULTS["HEADERS"]
        flooded.remove()
        driver.end(flooded)


def test_a_byte_now_and_then_is_a_stall(driver: Driver) -> None:
    def drip() -> Iterator[bytes]:
        yield PARTIAL + b"Content-Range: bytes 0-99999/100000\r\nContent-Length: 100000\r\n\r\n"
        while True:
            yield b"x"
            time.sleep(0.2)

    with _sending(drip) as url:
        hasty = _engine.Profile([], [], [], read_timeout_s=1)
        # With a second lane, which requests the rest and gets the same answer, that one might fail first.
        file = driver.add(url, profile=hasty, lanes=1)
        driver.until(lambda: "FAILED" in driver.names(file))
        assert driver.log[-1].fault == _engine.FAULTS["STALLED"]
        assert 10 < file.downloaded < 1000
        file.remove()
        driver.end(file)


def test_under_a_limit_little_is_no_stall(driver: Driver, server: MisbehavingServer) -> None:
    file = driver.add(server.url("/slow", size=200, rate=16), limit=MIB)
    driver.end(file)
    assert file.tag.octets == content(200)
