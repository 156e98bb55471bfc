"""Sizes that a server states: an impossible one is a clear error, and never an overflow."""

from __future__ import annotations

import ctypes
import socketserver

import pytest

from engine.driving import Driver, Event
from rangefetch import _engine
from rangefetch._engine import File
from rangefetch.disk import state
from servers.background import Background, Handler
from servers.misbehaving import MisbehavingServer, content
from support.files import MIB

pytestmark = pytest.mark.usefixtures("no_leaks")

SIZE = 3 * MIB + 17
TOO_MUCH = [
    str(number) for number in (_engine.LARGEST_FILE + 1, (1 << 62) + 5, (1 << 63) - 1, 1 << 63, 1 << 64, 10**40)
]
NO_NUMBERS = ["-1", str(-(1 << 63)), "+5", "0x10", "1e3", "12 13", "5,6", "five"]


def failure(driver: Driver, file: File) -> Event:
    """Wait for the file's failure and its end, check that nothing was written, and return the failure."""
    driver.until(lambda: {"FAILED", "DONE"} & set(driver.names(file)))
    failed = driver.log[-1]
    assert failed.name == "FAILED"
    assert (file.writes, file.block_size, file.tag.octets) == (0, 0, b"")
    file.remove()
    driver.end(file)
    return failed


@pytest.mark.parametrize("ranges", [0, 1], ids=["200", "206"])
@pytest.mark.parametrize("length", [*TOO_MUCH, f"{SIZE}|{SIZE + 1}", f"{SIZE}, {SIZE + 1}", f"|{SIZE}"])
def test_a_length_that_no_file_has_or_two_that_differ_are_refused(
    driver: Driver, server: MisbehavingServer, length: str, ranges: int
) -> None:
    file = driver.add(server.url("/stated", size=SIZE, ranges=ranges, length=length))
    failed = failure(driver, file)
    # It depends on libcurl's version what libcurl itself rejects.
    assert failed.fault == _engine.FAULTS["SIZE_UNSOUND"] or (failed.fault, failed.code) == (0, 8)


@pytest.mark.parametrize("length", NO_NUMBERS)
def test_a_length_that_is_no_number_is_refused(driver: Driver, server: MisbehavingServer, length: str) -> None:
    failed = failure(driver, driver.add(server.url("/stated", size=SIZE, ranges=0, length=length)))
    assert failed.fault == _engine.FAULTS["SIZE_UNSOUND"] or (failed.fault, failed.code) == (0, 8)


@pytest.mark.parametrize("ranges", [0, 1], ids=["200", "206"])
def test_the_same_length_twice_is_a_length(driver: Driver, server: MisbehavingServer, ranges: int) -> None:
    file = driver.fill(server.url("/stated", size=SIZE, ranges=ranges, length=f"{SIZE}|{SIZE}"))
    assert file.tag.octets == content(SIZE)


@pytest.mark.parametrize("total", [*TOO_MUCH, *NO_NUMBERS])
def test_a_range_of_a_file_that_cannot_be_is_refused(driver: Driver, server: MisbehavingServer, total: str) -> None:
    failed = failure(driver, driver.add(server.url("/stated", size=SIZE, total=total)))
    assert failed.fault == _engine.FAULTS["RANGE_WRONG"]


def test_another_range_is_refused_although_its_body_never_comes(driver: Driver) -> None:
    """It must not count as a lost connection, after which the same range would be requested again."""

    class Other(Handler):
        def do_GET(self) -> None:
            self.wfile.write(b"HTTP/1.1 206 Partial\r\nContent-Range: bytes 5-99/100\r\nContent-Length: 95\r\n\r\n")

    with Background(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Other)) as background:
        failed = failure(driver, driver.add(f"http://127.0.0.1:{background.port}/"))
    assert failed.fault == _engine.FAULTS["RANGE_WRONG"]


def test_the_largest_file_that_can_be_is_mapped(driver: Driver, server: MisbehavingServer) -> None:
    url = server.url("/stated", size=64 * MIB, total=str(_engine.LARGEST_FILE))
    file = driver.add(url, allocation="none", lanes=1, first_bytes=MIB)
    driver.until(lambda: file.downloaded >= MIB and file.block_size)
    assert (file.size, file.block_size, len(file.blocks)) == (1 << 48, 1 << 32, 1 << 16)
    assert file.partial[0] >= MIB
    file.remove()
    driver.end(file)


def test_the_limits_of_the_engine_are_those_of_a_saved_state() -> None:
    assert (state.LARGEST_FILE_BYTES, state.LARGEST_BLOCK_BYTES) == (_engine.LARGEST_FILE, _engine.LARGEST_BLOCK)
    # The number of bytes written of a block fits in the type that Python sees.
    assert ctypes.c_uint32(-1).value == _engine.LARGEST_BLOCK - 1


@pytest.mark.parametrize(
    "asked",
    [
        "-5",
        "0",
        "9" * 18,
        str((1 << 63) - 1),
        "9" * 40,
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Thu, 01 Jan 1970 00:00:01 GMT",
        "soon",
    ],
)
def test_what_a_server_asks_to_wait_is_bounded(driver: Driver, server: MisbehavingServer, asked: str) -> None:
    failed = failure(driver, driver.add(server.url("/status", code=503, retry_after=asked)))
    assert 0 <= failed.retry_after_s <= 365 * 24 * 3600


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 1e18, 1e308, float("inf")])
def test_a_time_may_be_as_long_as_it_likes(driver: Driver, server: MisbehavingServer, seconds: float) -> None:
    profile = _engine.Profile([], [], [], connect_timeout_s=seconds or 1, read_timeout_s=seconds)
    file = driver.file(server.url("/good", size=SIZE), profile=profile)
    driver.engine.add(file)
    assert driver.end(file).name == "DONE"
    file.rest(0, seconds)


@pytest.mark.parametrize("seconds", [-1.0, float("-inf"), float("nan")])
def test_a_time_below_nothing_is_none(driver: Driver, server: MisbehavingServer, seconds: float) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        _engine.Profile([], [], [], connect_timeout_s=seconds)
    with pytest.raises(ValueError, match="must not be negative"):
        driver.file(server.url("/good")).rest(0, seconds)


@pytest.mark.parametrize("limit", [1 << 43, (1 << 63) - 1])
def test_a_limit_above_all_machines_is_none(driver: Driver, server: MisbehavingServer, limit: int) -> None:
    file = driver.fill(server.url("/good", size=SIZE), limit=limit)
    assert file.tag.octets == content(SIZE)


@pytest.mark.parametrize(("offset", "notify"), [(-1, 0), (0, -1), ((1 << 63) - 1, 0), (0, (1 << 63) - 1)])
def test_a_reader_is_somewhere_in_a_file(driver: Driver, server: MisbehavingServer, offset: int, notify: int) -> None:
    with pytest.raises(ValueError, match="offset"):
        driver.file(server.url("/good")).read_to(offset, notify)
