"""Which ranges are requested, in which order, over how many connections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine.driving import Driver
from rangefetch import _engine
from rangefetch._engine import File
from servers.misbehaving import MisbehavingServer, content
from support.files import MIB

pytestmark = pytest.mark.usefixtures("no_leaks")


def begun(size: int, block_size: int) -> dict[str, Any]:
    """Options for blocks of a size other than 1 MiB: the file is known, but nothing of it is there."""
    return {"size": size, "block_size": block_size, "blocks": bytes(-(-size // block_size)), "least_bytes": 1}


def ranges(server: MisbehavingServer) -> list[tuple[int, int]]:
    """The requested ranges, in the order in which the requests arrived."""
    # The server lists a request a moment before it has parsed its range.
    found = [request.range for request in server.requests if request.range or request.status]
    assert None not in found
    return [each for each in found if each]


def under_way(server: MisbehavingServer) -> int:
    return sum(not request.finished for request in server.requests)


def test_the_first_request_asks_for_a_bounded_range(driver: Driver, server: MisbehavingServer) -> None:
    driver.fill(server.url("/good", size=20 * MIB), first_bytes=MIB + 1, lanes=4)
    assert ranges(server)[0] == (0, MIB + 1)


def test_a_small_file_takes_one_request(driver: Driver, server: MisbehavingServer) -> None:
    file = driver.fill(server.url("/good", size=300_000))
    assert [request.status for request in server.requests] == [206]
    assert (file.requests, file.connections) == (1, 1)


def test_one_lane_takes_the_ranges_in_file_order(driver: Driver, server: MisbehavingServer) -> None:
    file = driver.fill(server.url("/good", size=500_000), lanes=1, first_bytes=10_000, **begun(500_000, 1000))
    found = ranges(server)
    assert len(found) > 1  # the number depends on how long the first answer took
    assert [start for start, _ in found[1:]] == [end for _, end in found[:-1]]
    assert (found[0][0], found[-1][1]) == (0, 500_000)
    assert (server.connections, file.connections) == (1, 1)
    assert file.tag.octets == content(500_000)


def test_several_lanes_take_the_ranges_in_file_order(driver: Driver, server: MisbehavingServer) -> None:
    url = server.url("/slow", size=4 * MIB, rate=4 * MIB)
    file = driver.fill(url, lanes=4, first_bytes=64_000, **begun(4 * MIB, 16_384))
    claims = [request for request in server.requests if request.range]
    for connection in {request.connection for request in claims}:
        starts = [request.range[0] for request in claims if request.range and request.connection == connection]
        assert starts == sorted(starts)
    assert file.tag.octets == content(4 * MIB)


@pytest.mark.alone
def test_ranges_get_shorter_towards_the_end(driver: Driver, server: MisbehavingServer) -> None:
    driver.fill(server.url("/good", size=4 * MIB), lanes=1, first_bytes=1000, **begun(4 * MIB, 1000))
    lengths = [end - start for start, end in ranges(server)]
    assert max(lengths) <= 2 * MIB
    assert lengths[1] > lengths[-1]
    assert lengths[-1] <= 1000


@pytest.mark.parametrize("window_blocks", [1, 4, 32])
def test_no_range_begins_further_ahead_than_the_window(
    driver: Driver, server: MisbehavingServer, window_blocks: int
) -> None:
    size, block_size = 512 * 1024, 4096
    window = window_blocks * block_size
    # The range at the frontier stalls for a while, and the others must not get too far ahead.
    url = server.url("/stall", size=size, at=100_000, after=0, seconds=0.3, times=1, rate=2 * MIB)
    file = driver.add(url, lanes=4, first_bytes=8192, window_bytes=window, **begun(size, block_size))
    furthest_ahead = 0

    def is_done() -> bool:
        nonlocal furthest_ahead
        # Read before the frontier, which only moves forward, so the distance computed is never too large.
        starts = [start for start, _ in ranges(server)]
        furthest_ahead = max([furthest_ahead, *(start - file.contiguous for start in starts)])
        return "DONE" in driver.names(file)

    driver.until(is_done)
    assert furthest_ahead <= window
    assert file.tag.octets == content(size)


def test_lanes_share_the_window(driver: Driver, server: MisbehavingServer) -> None:
    size, window = 512 * 1024, 128 * 1024
    # The lane at the frontier stalls; the rest of the window is left to the others.
    url = server.url("/stall", size=size, at=100_000, after=0)
    file = driver.add(url, lanes=4, first_bytes=8192, window_bytes=window, **begun(size, 4096))
    driver.until(lambda: file.downloaded - file.contiguous >= window // 2)
    file.remove()
    driver.end(file)


@pytest.mark.parametrize("lanes", [1, 2, 4, 9])
def test_there_are_never_more_transfers_than_lanes(driver: Driver, server: MisbehavingServer, lanes: int) -> None:
    # The server refuses requests above its limit; a reply counts until its last byte is handed over.
    url = server.url("/limited-connections", size=4 * MIB, limit=lanes, rate=2 * MIB)
    file = driver.add(url, lanes=lanes, first_bytes=64_000, **begun(4 * MIB, 16_384))
    most_busy = 0

    def is_done() -> bool:
        nonlocal most_busy
        most_busy = max(most_busy, file.lanes_busy)
        return "DONE" in driver.names(file)

    driver.until(is_done)
    assert {request.status for request in server.requests} == {206}
    assert most_busy <= lanes
    assert most_busy == lanes or lanes > 4, "a file begins with up to four"
    assert file.tag.octets == content(4 * MIB)


def test_a_lane_keeps_its_connection(driver: Driver, server: MisbehavingServer) -> None:
    url = server.url("/slow", size=4 * MIB, rate=8 * MIB)
    file = driver.fill(url, lanes=3, first_bytes=64_000, **begun(4 * MIB, 16_384))
    assert file.requests > 10
    assert server.connections <= 3 + file.steals + file.replacements, "a cut transfer costs its connection"


def test_the_next_file_uses_the_connections_of_the_last(driver: Driver, server: MisbehavingServer) -> None:
    for number in range(20):
        driver.fill(server.url("/good", size=10_000, seed=number))
    assert (len(server.requests), server.connections) == (20, 1)


@pytest.fixture
def slow_file(driver: Driver, server: MisbehavingServer) -> Callable[[int], File]:
    """A file that takes a second or more."""

    def add(lanes: int) -> File:
        url = server.url("/slow", size=8 * MIB, rate=2 * MIB)
        file = driver.add(url, lanes=lanes, first_bytes=16_384, **begun(8 * MIB, 16_384))
        driver.until(lambda: file.answered)
        return file

    return add


def test_lanes_can_be_more_while_running(
    driver: Driver, server: MisbehavingServer, slow_file: Callable[[int], File]
) -> None:
    file = slow_file(1)
    driver.until(lambda: len(server.requests) > 1)
    assert (file.lanes_busy, under_way(server)) == (1, 1)
    file.lanes = 4
    assert file.lanes == 4
    driver.until(lambda: file.lanes_busy == 4)
    driver.until(lambda: under_way(server) == 4)


def test_lanes_can_be_fewer_while_running(
    driver: Driver, server: MisbehavingServer, slow_file: Callable[[int], File]
) -> None:
    file = slow_file(4)
    driver.until(lambda: file.lanes_busy == 4)
    file.lanes = 1
    driver.until(lambda: file.lanes_busy == 1)
    before = len(server.requests)
    driver.until(lambda: "DONE" in driver.names(file) or file.lanes_busy > 1)
    assert file.lanes_busy == 0
    assert len(server.requests) > before, "it went on with the one"
    assert file.tag.octets == content(8 * MIB)


def test_a_tiny_range_is_no_measure_of_a_lane(driver: Driver, server: MisbehavingServer) -> None:
    # A range of one byte takes as long as a request, but must not make a lane count as slow and lose its next range.
    for number in range(8):
        url = server.url("/good", size=13_320, seed=number)
        file = driver.fill(url, lanes=4, first_bytes=1, **begun(13_320, 333))
        assert (file.steals, file.hedges, file.received_bytes) == (0, 0, 13_320)


def test_a_request_that_libcurl_does_not_take_fails_and_asks_nothing_else(
    driver: Driver, server: MisbehavingServer
) -> None:
    # The lane was used by the previous file, and its handle still has that URL. libcurl accepts URLs of up to 8 MB.
    first = driver.fill(server.url("/good", size=MIB))
    asked = len(server.requests)
    file = driver.add(server.url("/good", size=MIB) + "&too-long=" + "x" * 9_000_000)
    driver.until(lambda: "FAILED" in driver.names(file))
    failed = driver.log[-1]
    assert (failed.code, failed.fault, failed.status) == (_engine.constants()["CURLE_FAILED_INIT"], 0, 0)
    assert failed.text
    assert (file.size, file.downloaded, len(server.requests)) == (-1, 0, asked)
    # Each try ends in the same way, and the lane remains usable.
    file.release()
    driver.until(lambda: driver.names(file).count("FAILED") == 2)
    file.remove()
    driver.end(file)
    again = driver.fill(server.url("/good", size=MIB, seed=1))
    assert (first.tag.octets, again.tag.octets) == (content(MIB), content(MIB, 1))
