"""Which lane does what: few connections, few requests, and no lane that delays the end of a file."""

import functools
import itertools
from typing import Any

import pytest

from engine.driving import Driver
from rangefetch._engine import File
from servers.misbehaving import MisbehavingServer, content
from servers.routing import ROUTES, Ask, Route
from servers.wire import Break, Pace, Reply
from support.files import MIB

pytestmark = pytest.mark.usefixtures("no_leaks")

KIB = 1 << 10
STUCK_S = 12.0
"""A file that takes longer waits for the read timeout, which is a minute."""


def uneven(ask: Ask, reply: Reply, *, slow: int = 0, after: int = 0) -> Reply:
    """The reply that contains the byte ``at`` is slower than others (``slow`` bytes per second), or stalls (0)."""
    if slow:
        reply.pace = Pace(slow)
    else:
        reply.broken = Break("stall", after, 3600.0)
    return reply


@pytest.fixture(autouse=True)
def _uneven_route(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROUTES, "uneven", Route("uneven", uneven, {"times": 1}))


def known(size: int, block_size: int) -> dict[str, Any]:
    """Options for a known file with nothing of it there, in blocks of this size."""
    return {"size": size, "block_size": block_size, "blocks": bytes(-(-size // block_size)), "least_bytes": 1}


def starts(server: MisbehavingServer) -> list[int]:
    return [request.range[0] for request in server.requests if request.range]


def cut_short(server: MisbehavingServer, size: int) -> int:
    """How many replies the client did not read to the end."""
    server.wait_idle()
    return sum(
        request.bytes_sent < min(request.range[1], size) - request.range[0]
        for request in server.requests
        if request.range
    )


def helped(file: File) -> int:
    """How many transfers may have been ended early, each of which costs its connection."""
    return file.steals + 2 * file.hedges + file.replacements


# ---- A clean run -------------------------------------------------------------------------------------------------


def test_one_lane_needs_one_connection_and_cuts_nothing(driver: Driver, server: MisbehavingServer) -> None:
    file = driver.fill(server.url("/good", size=48 * MIB), lanes=1)
    assert file.requests > 1  # fewer if the first answer took long
    assert (server.connections, file.connections) == (1, 1)
    assert cut_short(server, 48 * MIB) == 0
    assert server.bytes_sent == file.received_bytes == 48 * MIB


@pytest.mark.parametrize("lanes", [2, 4])
def test_a_clean_run_needs_a_connection_for_each_lane(driver: Driver, server: MisbehavingServer, lanes: int) -> None:
    size = 40 * MIB
    file = driver.fill(server.url("/slow", size=size, rate=16 * MIB), lanes=lanes, **known(size, 64 * KIB))
    assert file.replacements == 0
    assert file.connections <= lanes + helped(file)
    assert server.connections == file.connections
    assert cut_short(server, size) <= helped(file)
    assert file.requests > lanes


def test_connections_carry_ranges_in_file_order_until_the_tail(driver: Driver, server: MisbehavingServer) -> None:
    size = 12 * MIB
    file = driver.fill(server.url("/slow", size=size, rate=4 * MIB), lanes=4, **known(size, 64 * KIB))
    # Requests on different connections may overtake each other; those on one connection cannot.
    helpers = helped(file)
    for connection in range(1, server.connections + 1):
        found = [request.range for request in server.requests if request.range and request.connection == connection]
        steps_back = sum(later < earlier for earlier, later in itertools.pairwise(found))
        assert steps_back <= helpers, "only who helps goes back"
    assert max(end for _, end in (request.range for request in server.requests if request.range)) == size


def test_every_byte_is_asked_for_once_in_a_clean_run(driver: Driver, server: MisbehavingServer) -> None:
    file = driver.fill(server.url("/good", size=24 * MIB), lanes=4, least_bytes=1)
    assert file.tag.octets == content(24 * MIB)
    assert file.downloaded == 24 * MIB
    assert 24 * MIB <= file.received_bytes <= server.bytes_sent


# ---- The tail ----------------------------------------------------------------------------------------------------


def test_the_later_part_of_a_slow_range_is_taken_at_a_block_border(driver: Driver, server: MisbehavingServer) -> None:
    size, block_size = 8 * MIB, 64 * KIB
    # The slow range starts at once and covers much of the file.
    url = server.url("/uneven", size=size, at=100_000, slow=300 * KIB)
    file = driver.fill(url, lanes=2, first_bytes=4 * MIB, **known(size, block_size))
    assert file.steals >= 1
    assert sum(start % block_size != 0 for start in starts(server)) <= file.hedges
    assert file.tag.octets == content(size)
    assert file.downloaded == size
    assert server.requests[0].bytes_sent < 4 * MIB, "the slow lane was not waited for"


def test_what_was_stolen_comes_once(driver: Driver, server: MisbehavingServer) -> None:
    size = 8 * MIB
    url = server.url("/uneven", size=size, at=100_000, slow=300 * KIB)
    file = driver.fill(url, lanes=2, first_bytes=4 * MIB, **known(size, 64 * KIB))
    hedged_at_most = file.hedges * 64 * KIB + 64 * KIB
    assert size <= file.received_bytes <= size + hedged_at_most + file.steals * 512 * KIB


@pytest.mark.parametrize("after", [0, 1, 100_000])
@pytest.mark.parametrize("lanes", [2, 4, 8])
def test_a_stalled_lane_does_not_hold_the_end(
    driver: Driver, server: MisbehavingServer, lanes: int, after: int
) -> None:
    size = 16 * MIB
    url = server.url("/uneven", size=size, rate=16 * MIB, at=9 * MIB, after=after)
    file = driver.add(url, lanes=lanes, first_bytes=MIB, **known(size, 256 * KIB))
    driver.end(file, STUCK_S)
    assert file.tag.octets == content(size)
    assert file.downloaded == size
    assert file.steals + file.hedges + file.replacements >= 1


def test_a_lane_that_stalls_in_a_file_that_is_over_at_once_does_not_hold_the_end(
    driver: Driver, server: MisbehavingServer
) -> None:
    # Everything except the stalled lane's range is there before any rate has been measured.
    size = 2 * MIB
    file = driver.add(server.url("/uneven", size=size, at=size - 1), lanes=2, first_bytes=MIB, **known(size, MIB))
    driver.end(file, STUCK_S)
    assert file.tag.octets == content(size)


@pytest.mark.parametrize("lanes", [2, 4])
def test_a_lane_that_stalls_last_does_not_hold_the_end(driver: Driver, server: MisbehavingServer, lanes: int) -> None:
    # All lanes are equally fast, and when the last one stalls near the file's end the others have ended.
    size = 4 * MIB
    url = server.url("/uneven", size=size, rate=4 * MIB, at=size - 1, after=200 * KIB)
    file = driver.add(url, lanes=lanes, first_bytes=MIB, **known(size, 256 * KIB))
    driver.end(file, STUCK_S)
    assert file.tag.octets == content(size)


def test_a_lane_that_stalls_alone_does_not_hold_the_end(driver: Driver, server: MisbehavingServer) -> None:
    # The whole file is one range, so there is no other lane to compare its rate with.
    size = 900 * KIB
    file = driver.add(server.url("/uneven", size=size, at=size - 1, after=500 * KIB), lanes=4)
    driver.end(file, STUCK_S)
    assert file.tag.octets == content(size)


def test_a_hedge_commits_once_and_everything_is_counted(driver: Driver, server: MisbehavingServer) -> None:
    size = 4 * MIB
    # Each lane has one block left, and one of the two stalls: there is nothing to steal.
    url = server.url("/uneven", size=size, at=size - 1, after=MIB // 2, rate=8 * MIB)
    file = driver.add(url, lanes=2, first_bytes=MIB, **known(size, MIB))
    driver.end(file, STUCK_S)
    assert file.hedges >= 1
    assert file.tag.octets == content(size)
    assert file.downloaded == file.contiguous == size
    assert bytes(file.blocks) == b"\2" * 4
    server.wait_idle()
    assert size <= file.received_bytes <= server.bytes_sent


@pytest.mark.parametrize("second", ["/short-range?most=50000&", "/status?code=503&"], ids=["in part", "refused"])
def test_a_hedge_that_does_not_bring_all_harms_nothing(
    driver: Driver, server: MisbehavingServer, other_server: MisbehavingServer, second: str
) -> None:
    # The mirror sends its own block well. When asked for the rest of the slow lane's block, it answers late and sends
    # so little that the slow lane has long passed the end of it, or nothing.
    size = 4 * MIB
    slow = server.url("/uneven", size=size, at=2 * MIB + 1, slow=160 * KIB)
    mirror = other_server.url(f"{second}skip=1", size=size, delay=0.5)
    held = content(size)[: 2 * MIB] + bytes(2 * MIB)
    done: dict[str, Any] = {"size": size, "block_size": MIB, "blocks": b"\2\2\0\0", "least_bytes": 1}
    mirrors = [(mirror, driver.profile, "", "")]
    file = driver.add(slow, held, lanes=2, first_bytes=MIB, mirrors=mirrors, source_lanes=1, **done)
    driver.end(file, STUCK_S)
    assert file.hedges >= 1
    assert "FAILED" not in driver.names(file), driver.log
    assert file.tag.octets == content(size)


# ---- Slow lanes in the middle ------------------------------------------------------------------------------------


@pytest.mark.alone
def test_a_lane_far_slower_than_its_fellows_is_replaced(driver: Driver, server: MisbehavingServer) -> None:
    size = 64 * MIB
    url = server.url("/uneven", size=size, rate=3 * MIB, at=5 * MIB, slow=40 * KIB)
    file = driver.add(url, lanes=4, first_bytes=MIB, **known(size, 256 * KIB))
    driver.end(file)
    assert file.replacements >= 1
    assert file.tag.octets == content(size)
    assert "FAILED" not in driver.names(file)


@pytest.mark.alone
def test_lanes_that_are_all_slow_are_left_alone(driver: Driver, server: MisbehavingServer) -> None:
    size = MIB
    file = driver.fill(server.url("/slow", size=size, rate=100 * KIB), lanes=4, **known(size, 64 * KIB))
    assert file.replacements == 0
    assert file.connections <= 4 + helped(file)


# ---- How many lanes ----------------------------------------------------------------------------------------------


@pytest.mark.alone
def test_lanes_grow_where_each_connection_is_paced(driver: Driver, server: MisbehavingServer) -> None:
    file = driver.add(server.url("/slow", size=64 * MIB, rate=2 * MIB), lanes=16)
    driver.until(lambda: file.lanes_busy == 16)
    assert file.downloaded < 32 * MIB
    file.remove()
    driver.end(file)
    assert file.connections <= 16


@pytest.mark.alone
def test_lanes_stay_few_where_all_share_one_rate(driver: Driver, server: MisbehavingServer) -> None:
    file = driver.add(server.url("/shared-rate", size=64 * MIB, rate=24 * MIB), lanes=64)
    most_busy = 0

    def is_done() -> bool:
        nonlocal most_busy
        most_busy = max(most_busy, file.lanes_busy)
        return "DONE" in driver.names(file)

    driver.until(is_done)
    # Growing does not pay here. On a busy machine that sends in bursts, one attempt may seem to.
    assert most_busy <= 32
    assert server.connections <= 32 + helped(file)


def test_lanes_never_grow_beyond_what_is_allowed(driver: Driver, server: MisbehavingServer) -> None:
    file = driver.add(server.url("/slow", size=32 * MIB, rate=MIB), lanes=6)
    most_busy = 0

    def is_done() -> bool:
        nonlocal most_busy
        most_busy = max(most_busy, file.lanes_busy)
        return "DONE" in driver.names(file)

    driver.until(is_done)
    assert most_busy == 6
    assert file.tag.octets == content(32 * MIB)


@pytest.mark.parametrize("window_mib", [2, 8])
def test_a_window_bounds_what_is_ahead_of_the_frontier(
    driver: Driver, server: MisbehavingServer, window_mib: int
) -> None:
    size, window = 32 * MIB, window_mib * MIB
    url = server.url("/slow", size=size, rate=8 * MIB)
    file = driver.add(url, lanes=8, window_bytes=window, first_bytes=256 * KIB, **known(size, 256 * KIB))
    furthest = 0

    def is_done() -> bool:
        nonlocal furthest
        ahead, frontier = file.downloaded, file.contiguous
        furthest = max(furthest, ahead - frontier)
        return "DONE" in driver.names(file)

    driver.until(is_done)
    assert furthest <= window
    assert file.tag.octets == content(size)


@pytest.mark.alone
@pytest.mark.parametrize("delay", [0.3, 0.7])
def test_a_server_that_answers_late_is_not_asked_for_the_same_bytes_over_and_over(
    driver: Driver, server: MisbehavingServer, delay: float
) -> None:
    """A lane that has no rate yet, because answers from this server take long, does not count as slow."""
    size = 9 * MIB + 5
    file = driver.fill(server.url("/good", size=size, delay=delay), lanes=16, least_bytes=1)
    assert file.tag.octets == content(size)
    assert file.requests <= 20
    assert file.received_bytes < size + 4 * MIB


# ---- A range that does not come ----------------------------------------------------------------------------------


def only_what_failed_is_left(driver: Driver, file: File, released: int) -> bool:
    return driver.names(file).count("FAILED") > released and file.lanes_busy == 0


@pytest.mark.parametrize("lanes", [1, 2, 4])
@pytest.mark.parametrize("route", ["/cut", "/status"])
def test_all_comes_but_the_block_that_cannot(driver: Driver, server: MisbehavingServer, lanes: int, route: str) -> None:
    broken, size = 13, 24 * MIB
    fault = {"after": 0} if route == "/cut" else {"code": 503}
    file = driver.add(server.url(route, size=size, at=broken * MIB + 1, **fault), lanes=lanes, least_bytes=MIB)
    missing: list[int] = []
    for released in range(12):
        driver.until(functools.partial(only_what_failed_is_left, driver, file, released))
        missing = [block for block, state in enumerate(bytes(file.blocks)) if state != 2]
        assert broken in missing
        if released == 0:
            # A failed range stays with its lane, which is held; the others fetch the bytes behind it.
            assert missing == list(range(missing[0], missing[-1] + 1))
        if missing == [broken]:
            break
        file.release()
    assert missing == [broken]
    asked = [request.range for request in server.requests if request.range and request.range[0] <= broken * MIB]
    asked = [each for each in asked if broken * MIB < each[1]]
    assert len(asked) == 1 + released, "no lane but the one that was released has asked for it again"
    file.remove()
    driver.end(file)
    whole, fetched = content(size), file.tag.octets
    assert fetched[: broken * MIB] == whole[: broken * MIB]
    assert fetched[(broken + 1) * MIB :] == whole[(broken + 1) * MIB :]
