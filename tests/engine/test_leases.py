"""One file on several loops: the bytes are right, whatever happens while other loops help, and it ends on all of them.

If a test has one lane for each of two loops, the first connection is the home's and the others are the guest's, since
no transfer is cut there.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.driving import Driver, Event
from rangefetch import _engine
from rangefetch._engine import File, Profile
from rangefetch.transfer.failure import Fault
from servers.misbehaving import ROUTES, MisbehavingServer, content
from servers.nginx import Nginx
from servers.routing import Ask, Route
from servers.wire import Pace, Reply
from support.files import MIB

pytestmark = pytest.mark.usefixtures("no_leaks")

KIB = 1 << 10
BLOCK = 32 * KIB
SIZE = 40 * MIB
"""More than the first lanes of a home claim at once, which are up to 8 MiB each, however slow the first answer was."""
RATE = 16 * MIB
"""Of all replies together, so that small ones take their time, too."""
SMALLER = 12 * MIB
"""The same where the home has one lane."""
DONE = 2

Spoil = Callable[[Ask, Reply], Reply]


@pytest.fixture
def loops(tmp_path: Path) -> Iterator[Driver]:
    """An engine with three loops. Fails the test if anything of it is left."""
    with Driver(tmp_path, loops=3) as running:
        yield running
    assert _engine.live_handles() == 0


class Elsewhere:
    """The route ``/elsewhere``: a test spoils the first reply that is not on the first connection."""

    def __init__(self) -> None:
        self.spoil: Spoil | None = None
        self.everywhere = False
        self.spoiled = 0
        self.pace = Pace(RATE // 2)

    def __call__(self, ask: Ask, reply: Reply) -> Reply:
        reply.pace = self.pace
        if self.spoil is None or not (self.everywhere or (ask.connection > 1 and self.spoiled == 0)):
            return reply
        self.spoiled += 1
        return self.spoil(ask, reply)


@pytest.fixture
def elsewhere() -> Elsewhere:
    route = Elsewhere()
    ROUTES["elsewhere"] = Route("elsewhere", route, {})
    return route


def spread(
    loops: int = 2, *, size: int = SIZE, lanes: int = 8, block_size: int = BLOCK, **options: Any
) -> dict[str, Any]:
    """A known file with nothing of it there, to be fetched on this many loops."""
    known = {"size": size, "block_size": block_size, "blocks": bytes(-(-size // block_size)), "least_bytes": 1}
    return {**known, "loops": loops, "lease_bytes": 512 * KIB, "lanes": lanes, "first_bytes": BLOCK, **options}


def lend(driver: Driver, file: File, *, leases: int = 1) -> None:
    """Wait until a guest is at work."""
    driver.until(lambda: file.guests and file.leases >= leases and file.lanes_busy > 1)


def map_is_right(file: File, seed: int = 0) -> int:
    """Check that the bytes marked in the map are in the file. Returns how many are marked."""
    octets, right = file.tag.octets, content(file.size, seed)
    there = 0
    for index, state in enumerate(file.blocks):
        start = index * file.block_size
        end = min(start + file.block_size, file.size) if state == DONE else start + file.partial[index]
        assert octets[start:end] == right[start:end], f"block {index}, which is {state}"
        there += end - start
    assert there == file.downloaded
    return there


def failures(driver: Driver, file: File) -> list[Event]:
    return [event for event in driver.log if event.file is file and event.name == "FAILED"]


# ---- Every byte is right -----------------------------------------------------------------------------------------


@pytest.fixture
def paced_nginx(certificates: Any) -> Iterator[Nginx]:
    if not Nginx.available():
        pytest.skip("there is no nginx")
    with Nginx(certificates=certificates, limit_rate="8m", sendfile=False) as server:
        yield server


def http2_profile() -> Profile:
    number = _engine.constants()
    quiet = [(number["CURLOPT_SSL_VERIFYPEER"], 0), (number["CURLOPT_SSL_VERIFYHOST"], 0)]
    return Profile([*quiet, (number["CURLOPT_HTTP_VERSION"], number["CURL_HTTP_VERSION_2TLS"])], [], [])


@pytest.mark.parametrize("lanes", [1, 2, 8])
@pytest.mark.parametrize("over", ["http", "https", "http2"])
def test_every_byte_is_right(loops: Driver, paced_nginx: Nginx, over: str, lanes: int) -> None:
    size = SIZE if lanes > 2 else 20 * MIB
    paced_nginx.write("/file", content(size))
    url = {"http": paced_nginx.url, "https": paced_nginx.https_url, "http2": paced_nginx.http2_url}[over]("/file")
    more = {"profile": http2_profile()} if over == "http2" else {}
    file = loops.fill(url, **spread(3, size=size, lanes=lanes, block_size=8 * BLOCK, **more))
    assert file.tag.octets == content(size)
    assert file.downloaded == file.contiguous == size
    # With one lane there is nothing to divide.
    assert file.guests == min(lanes, 3) - 1
    assert file.leases >= file.guests
    protocols = {line.protocol for line in paced_nginx.log(at_least=file.requests)}
    assert protocols == {"HTTP/2.0" if over == "http2" else "HTTP/1.1"}


def test_what_guests_do_counts_as_the_files(loops: Driver, server: MisbehavingServer) -> None:
    file = loops.fill(server.url("/shared-rate", size=SIZE, rate=RATE), **spread(3))
    assert file.guests
    assert file.tag.octets == content(SIZE)
    assert file.requests == len(server.requests)
    assert file.connections == server.connections
    assert file.received_bytes >= SIZE
    assert file.received_from(0) == file.received_bytes
    assert set(file.brought_by) == {0}


def test_a_file_that_was_begun_gets_what_is_missing_and_nothing_else(loops: Driver, server: MisbehavingServer) -> None:
    count = SIZE // BLOCK
    blocks = bytes(DONE if index % 7 < 3 else 0 for index in range(count))
    partial = {index: 1 + index % (BLOCK - 1) for index in range(count) if index % 7 == 5}
    octets = bytearray(SIZE)
    right = content(SIZE)
    there = 0
    for index in range(count):
        end = BLOCK if blocks[index] == DONE else partial.get(index, 0)
        octets[index * BLOCK : index * BLOCK + end] = right[index * BLOCK : index * BLOCK + end]
        there += end
    url = server.url("/shared-rate", size=SIZE, rate=RATE)
    file = loops.fill(url, bytes(octets), **spread(2, lanes=4, blocks=blocks, partial=partial, first_bytes=1))
    assert file.guests
    assert file.tag.octets == right
    # A stolen range may also have been sent to the lane that it was stolen from; a hedge is sent twice.
    assert server.bytes_sent <= SIZE - there + (file.steals + file.hedges + file.guests) * MIB


@pytest.mark.parametrize("size", [SIZE - 1, SIZE + 1])
def test_the_last_block_may_be_shorter(loops: Driver, server: MisbehavingServer, size: int) -> None:
    file = loops.fill(server.url("/shared-rate", size=size, rate=RATE), **spread(2, size=size))
    assert file.guests
    assert file.tag.octets == content(size)


# ---- As many at a time as there may be ---------------------------------------------------------------------------


@pytest.mark.parametrize("lanes", [2, 3, 5, 8])
def test_there_are_never_more_transfers_than_lanes(loops: Driver, server: MisbehavingServer, lanes: int) -> None:
    url = server.url("/limited-connections", size=SIZE, limit=lanes, rate=RATE // lanes)
    file = loops.add(url, **spread(3, lanes=lanes))
    loops.end(file)
    assert file.guests
    assert {request.status for request in server.requests} == {206}
    assert file.tag.octets == content(SIZE)


def test_with_fewer_lanes_than_loops_guests_leave(loops: Driver, server: MisbehavingServer) -> None:
    file = loops.add(server.url("/shared-rate", size=SIZE, rate=RATE), **spread(3, lanes=6))
    lend(loops, file)
    file.lanes = 1
    loops.until(lambda: file.lanes_busy <= 1)
    before = file.guests
    file.remove()
    loops.end(file)
    assert file.guests == before
    map_is_right(file)


def test_connections_to_a_host_are_counted_for_all_loops(loops: Driver, server: MisbehavingServer) -> None:
    url = server.url("/limited-connections", size=SIZE, limit=3, rate=RATE // 3)
    file = loops.fill(url, **spread(3, lanes=9, host_lanes=3))
    assert {request.status for request in server.requests} == {206}
    assert file.tag.octets == content(SIZE)


# ---- What happens while something is lent ------------------------------------------------------------------------


def test_a_file_that_is_paused_says_what_is_there_and_goes_on_from_it(loops: Driver, server: MisbehavingServer) -> None:
    url = server.url("/shared-rate", size=SIZE, rate=RATE)
    file = loops.add(url, **spread(3))
    lend(loops, file, leases=3)
    file.remove()
    assert loops.end(file, 5).name == "REMOVED"
    there = map_is_right(file)
    assert 0 < there < SIZE
    sent = server.bytes_sent
    blocks = bytes(DONE if state == DONE else 0 for state in file.blocks)
    partial = {index: held for index, held in enumerate(file.partial) if held and blocks[index] != DONE}
    again = loops.fill(url, file.tag.octets, **spread(3, blocks=blocks, partial=partial))
    assert again.tag.octets == content(SIZE)
    assert server.bytes_sent - sent <= SIZE - there + (again.steals + again.hedges + again.guests) * MIB


def test_while_bytes_come_the_map_is_right(loops: Driver, server: MisbehavingServer) -> None:
    """The map is read without a lock, as when a state is saved."""
    file = loops.add(server.url("/shared-rate", size=SIZE, rate=RATE), **spread(3))
    lend(loops, file)
    right = content(SIZE)
    while "DONE" not in loops.names(file):
        blocks, partial = bytes(file.blocks), list(file.partial)
        contiguous = file.contiguous
        octets = file.tag.octets
        for index, state in enumerate(blocks):
            end = BLOCK if state == DONE else partial[index]
            assert octets[index * BLOCK : index * BLOCK + end] == right[index * BLOCK : index * BLOCK + end]
        assert octets[:contiguous] == right[:contiguous]
        loops.take()
    assert file.downloaded == SIZE


@pytest.mark.parametrize("whose", ["the file's", "the engine's"])
def test_a_limit_holds_for_all_loops_together(loops: Driver, server: MisbehavingServer, whose: str) -> None:
    file = loops.add(server.url("/shared-rate", size=SIZE, rate=RATE), **spread(2))
    lend(loops, file)
    limited: Any = file if whose == "the file's" else loops.engine
    limited.limit = 2 * MIB
    time.sleep(0.5)
    before, began_s = file.downloaded, time.monotonic()
    time.sleep(2)
    took_s = time.monotonic() - began_s
    # What was on its way is taken over a quarter of a second later.
    assert file.downloaded - before <= 2 * MIB * (took_s + 1)
    file.remove()
    loops.end(file)
    map_is_right(file)


def test_under_a_limit_there_are_no_guests(loops: Driver, server: MisbehavingServer) -> None:
    file = loops.fill(server.url("/good", size=SMALLER), **spread(2, size=SMALLER, limit=12 * MIB))
    assert file.guests == 0


def test_a_file_that_moves_is_asked_for_nowhere_else_from_then_on(
    loops: Driver, server: MisbehavingServer, other_server: MisbehavingServer
) -> None:
    file = loops.add(server.url("/shared-rate", size=SIZE, rate=RATE), **spread(2))
    lend(loops, file)
    file.move(0, other_server.url("/shared-rate", size=SIZE, rate=RATE), loops.profile)
    loops.until(lambda: other_server.requests)
    time.sleep(0.3)
    asked = len(server.requests)
    loops.end(file)
    assert len(server.requests) == asked
    assert file.tag.octets == content(SIZE)
    assert not failures(loops, file)


def test_a_source_that_is_banned_is_asked_by_nobody(
    loops: Driver, server: MisbehavingServer, other_server: MisbehavingServer
) -> None:
    mirror = other_server.url("/shared-rate", size=SIZE, rate=RATE)
    file = loops.add(
        server.url("/shared-rate", size=SIZE, rate=RATE), mirrors=[(mirror, loops.profile, "", "")], **spread(2)
    )
    lend(loops, file)
    file.ban(0)
    time.sleep(0.5)
    asked = len(server.requests)
    loops.end(file)
    assert len(server.requests) == asked
    assert file.tag.octets == content(SIZE)


def test_what_fails_elsewhere_the_home_asks_for(loops: Driver, server: MisbehavingServer, elsewhere: Elsewhere) -> None:
    def cut(ask: Ask, reply: Reply) -> Reply:
        return ROUTES["cut"].fault(ask, reply, after=1000)

    elsewhere.spoil = cut
    file = loops.fill(server.url("/elsewhere", size=SMALLER), **spread(2, size=SMALLER, lanes=2))
    assert (file.guests, elsewhere.spoiled) == (1, 1), "one that has failed is not followed by another one at once"
    assert not failures(loops, file)
    assert file.tag.octets == content(SMALLER)


def test_another_version_elsewhere_is_not_mixed_in(
    loops: Driver, server: MisbehavingServer, elsewhere: Elsewhere
) -> None:
    elsewhere.spoil = lambda ask, _: ask.good(if_range=False, seed=1)
    file = loops.fill(server.url("/elsewhere", size=SMALLER), **spread(2, size=SMALLER, lanes=2))
    assert elsewhere.spoiled == 1
    assert file.tag.octets == content(SMALLER)


def test_a_file_that_has_changed_is_told_of_by_its_home(
    loops: Driver, server: MisbehavingServer, elsewhere: Elsewhere
) -> None:
    file = loops.add(server.url("/elsewhere", size=SIZE), **spread(2, lanes=2))
    lend(loops, file)
    elsewhere.spoil = lambda ask, _: ask.good(if_range=False, seed=1)
    elsewhere.everywhere = True
    loops.until(lambda: failures(loops, file))
    assert failures(loops, file)[0].fault == Fault.VALIDATOR_CHANGED
    file.remove()
    loops.end(file, 5)
    map_is_right(file)


def test_a_server_that_sends_too_much_elsewhere_has_it_taken_back(
    loops: Driver, server: MisbehavingServer, elsewhere: Elsewhere
) -> None:
    elsewhere.spoil = lambda ask, reply: ROUTES["overflow"].fault(ask, reply, extra=1000, framing="chunked")
    file = loops.fill(server.url("/elsewhere", size=SMALLER), **spread(2, size=SMALLER, lanes=2))
    assert file.guests == elsewhere.spoiled == 1
    assert file.tag.octets == content(SMALLER)


@pytest.mark.parametrize(("code", "retry_after"), [(429, ""), (503, "7")])
def test_who_wants_not_to_be_asked_elsewhere_is_heard_at_once(
    loops: Driver, server: MisbehavingServer, elsewhere: Elsewhere, code: int, retry_after: str
) -> None:
    elsewhere.spoil = lambda ask, reply: ROUTES["status"].fault(ask, reply, code=code, retry_after=retry_after)
    file = loops.add(server.url("/elsewhere", size=SMALLER), **spread(2, size=SMALLER, lanes=2))
    loops.until(lambda: failures(loops, file))
    # The failure is the guest's; the server serves the home.
    (refused,) = failures(loops, file)
    assert elsewhere.spoiled == 1
    assert (refused.status, refused.retry_after_s) == (code, int(retry_after or 0))
    assert refused.offset % BLOCK == 0
    assert refused.address == server.url("/elsewhere", size=SMALLER)
    file.release()
    loops.end(file)
    assert file.tag.octets == content(SMALLER)


def test_a_refusal_elsewhere_holds_a_lane_until_python_has_decided(
    loops: Driver, server: MisbehavingServer, elsewhere: Elsewhere
) -> None:
    elsewhere.spoil = lambda ask, reply: ROUTES["status"].fault(ask, reply, code=429)
    file = loops.add(server.url("/elsewhere", size=SIZE), **spread(2, lanes=2))
    loops.until(lambda: failures(loops, file))
    time.sleep(0.7)
    assert file.guests == elsewhere.spoiled == 1
    assert file.lanes_busy == 1
    file.remove()
    loops.end(file)


def test_a_full_disk_is_told_of_and_what_is_there_is_right(
    loops: Driver,
    server: MisbehavingServer,
    small_disk: Path,
) -> None:
    loops._directory = small_disk
    file = loops.add(server.url("/shared-rate", size=SIZE, rate=RATE), **spread(3, allocation="none"))
    loops.until(lambda: failures(loops, file))
    assert file.guests
    assert (failures(loops, file)[0].fault, failures(loops, file)[0].errno) == (Fault.DISK, errno.ENOSPC)
    file.remove()
    loops.end(file, 5)
    map_is_right(file)


@pytest.mark.parametrize("home", [0, 1, 2])
def test_an_engine_that_is_closed_waits_for_nobody(loops: Driver, server: MisbehavingServer, home: int) -> None:
    file = loops.add(server.url("/shared-rate", size=SIZE, rate=RATE), loop=home, **spread(3))
    other = loops.add(server.url("/shared-rate", size=SIZE, rate=RATE, seed=1), loop=(home + 1) % 3, **spread(3))
    lend(loops, file)
    lend(loops, other)
    began_s = time.monotonic()
    loops.engine.close()
    assert time.monotonic() - began_s < 5
    assert 0 < map_is_right(file) < SIZE
    assert 0 < map_is_right(other, 1) < SIZE


def test_a_server_that_stands_still_elsewhere_does_not_hold_a_removal(
    loops: Driver, server: MisbehavingServer, elsewhere: Elsewhere
) -> None:
    elsewhere.spoil = lambda ask, reply: ROUTES["stall"].fault(ask, reply, after=100)
    file = loops.add(server.url("/elsewhere", size=SMALLER), **spread(2, size=SMALLER, lanes=2))
    loops.until(lambda: elsewhere.spoiled)
    file.remove()
    loops.end(file, 5)
    map_is_right(file)


# ---- Who waits for what ------------------------------------------------------------------------------------------


def test_a_file_of_which_a_guest_has_the_rest_waits_for_what_that_waits_for(
    loops: Driver, server: MisbehavingServer, elsewhere: Elsewhere
) -> None:
    elsewhere.spoil = lambda ask, reply: ROUTES["stall"].fault(ask, reply, after=100)
    file = loops.add(server.url("/elsewhere", size=SMALLER), **spread(2, size=SMALLER, lanes=2))
    # The home has done its part, and the guest's transfer has stalled.
    loops.until(lambda: elsewhere.spoiled and file.lanes_busy == 1 and file.downloaded >= SMALLER - MIB)
    loops.until(lambda: file.waiting_for == "transfer", 3)
    file.remove()
    loops.end(file)


def test_progress_never_goes_back(loops: Driver, server: MisbehavingServer) -> None:
    file = loops.add(server.url("/shared-rate", size=SIZE, rate=RATE), **spread(3))
    seen = [0]

    def is_done() -> bool:
        seen.append(file.downloaded)
        return "DONE" in loops.names(file)

    loops.until(is_done)
    assert file.guests
    assert seen == sorted(seen)
    assert seen[-1] == SIZE


# ---- Mirrors, readers, and files beside each other ---------------------------------------------------------------


def test_guests_ask_the_mirrors_that_have_answered(
    loops: Driver, server: MisbehavingServer, other_server: MisbehavingServer
) -> None:
    mirror = other_server.url("/shared-rate", size=SIZE, rate=RATE)
    file = loops.fill(
        server.url("/shared-rate", size=SIZE, rate=RATE),
        mirrors=[(mirror, loops.profile, "", "")],
        **spread(3, lanes=9),
    )
    assert file.guests
    assert file.tag.octets == content(SIZE)
    assert set(file.brought_by) == {0, 1}
    assert file.received_from(0) + file.received_from(1) == file.received_bytes
    assert file.requests == len(server.requests) + len(other_server.requests)
    # A source's first answer is reported to Python once, whichever loop asked.
    assert loops.names(file).count("MET") == 1


@pytest.mark.parametrize("window_bytes", [0, 8 * MIB])
def test_what_is_read_in_order_is_not_lent(loops: Driver, server: MisbehavingServer, window_bytes: int) -> None:
    url = server.url("/shared-rate", size=SMALLER, rate=RATE)
    file = loops.file(url, **spread(3, size=SMALLER, window_bytes=window_bytes))
    file.read_to(0)
    loops.engine.add(file)

    def is_done() -> bool:
        file.read_to(file.contiguous)
        return "DONE" in loops.names(file)

    loops.until(is_done)
    assert file.guests == file.leases == 0
    assert file.tag.octets == content(SMALLER)


def test_two_files_that_help_each_other_come_side_by_side(loops: Driver, server: MisbehavingServer) -> None:
    one, other = (
        loops.add(server.url("/shared-rate", size=SIZE, rate=RATE // 2, seed=number), loop=number, **spread(2, lanes=4))
        for number in range(2)
    )
    loops.until(lambda: {"DONE"} & {*loops.names(one), *loops.names(other)})
    assert min(one.downloaded, other.downloaded) > SIZE // 3
    for seed, file in enumerate((one, other)):
        loops.end(file)
        assert file.guests
        assert file.tag.octets == content(SIZE, seed)


# ---- Whether another loop helps at all ---------------------------------------------------------------------------


def test_a_home_that_has_processor_time_left_does_it_alone(loops: Driver, server: MisbehavingServer) -> None:
    file = loops.fill(server.url("/shared-rate", size=SIZE, rate=RATE), **spread(0, lease_bytes=BLOCK))
    assert file.guests == file.leases == 0


@pytest.mark.parametrize(
    ("name", "value"), [("loops", -1), ("loops", 65), ("lease_bytes", 0), ("lease_bytes", 1 << 62)]
)
def test_what_no_file_can_have_is_refused(loops: Driver, name: str, value: int) -> None:
    with pytest.raises(ValueError, match=name):
        loops.file("http://127.0.0.1/", b"", **{name: value})
