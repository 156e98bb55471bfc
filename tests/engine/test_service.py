"""Servers that answer fewer connections than they accept, and servers that refuse more than one: eight connections take
no longer than one would."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.driving import Driver, plain_profile
from servers.misbehaving import MisbehavingServer, content
from support.files import MIB

pytestmark = pytest.mark.usefixtures("no_leaks")

KIB = 1 << 10
SIZE = 12 * MIB
RATE = 4 * MIB
ALONE_S = SIZE / RATE
"""What one connection takes."""


@pytest.fixture(params=["http", "https"])
def either_server(request: pytest.FixtureRequest) -> MisbehavingServer:
    server: MisbehavingServer = request.getfixturevalue("server" if request.param == "http" else "tls_server")
    return server


def known(size: int, block_size: int) -> dict[str, Any]:
    """Options for a known file with nothing of it there, in blocks of this size."""
    return {"size": size, "block_size": block_size, "blocks": bytes(-(-size // block_size)), "least_bytes": 1}


# ---- Connections that nobody answers -----------------------------------------------------------------------------


@pytest.mark.parametrize("connections", [1, 2])
@pytest.mark.parametrize("lanes", [8, 16])
@pytest.mark.parametrize("how", ["serves_at_once", "serves_ever"])
def test_lanes_that_a_server_does_not_answer_cost_next_to_no_time(
    driver: Driver, either_server: MisbehavingServer, how: str, connections: int, lanes: int
) -> None:
    setattr(either_server, how, connections)
    file = driver.add(either_server.url("/slow", size=SIZE, rate=RATE), lanes=lanes)
    driver.end(file, 5 * ALONE_S)
    assert file.tag.octets == content(SIZE)
    assert "FAILED" not in driver.names(file)
    assert either_server.connections <= 12


@pytest.mark.parametrize("whose", ["its own", "the engine's"])
def test_under_a_limit_lanes_that_a_server_does_not_answer_do_not_hold_the_end(
    driver: Driver, server: MisbehavingServer, whose: str
) -> None:
    server.serves_ever = 1
    driver.engine.limit = RATE if whose == "the engine's" else 0
    file = driver.add(server.url("/good", size=SIZE), lanes=8, limit=RATE if whose == "its own" else 0)
    driver.end(file, 5 * ALONE_S)
    assert file.tag.octets == content(SIZE)


@pytest.mark.parametrize("size", [2 * MIB, 24 * MIB])
def test_a_file_that_is_nearly_there_is_not_held_by_lanes_that_nobody_answers(
    driver: Driver, server: MisbehavingServer, size: int
) -> None:
    # The connection that is answered is done before it is clear that the others will not be answered.
    server.serves_ever = 1
    # The read timeout would end them too, so it is longer than any test may take.
    patient = plain_profile(read_timeout_s=600)
    file = driver.add(server.url("/good", size=size), lanes=8, least_bytes=1, first_bytes=MIB, profile=patient)
    driver.end(file, 100)
    assert file.tag.octets == content(size)
    assert server.connections <= 8 + file.hedges + file.steals


def test_what_a_server_serves_is_remembered(driver: Driver, server: MisbehavingServer) -> None:
    # Long enough for repeated attempts, if the engine had forgotten about the server.
    server.serves_ever = 1
    size = 32 * MIB
    file = driver.add(server.url("/slow", size=size, rate=RATE), lanes=8)
    driver.end(file)
    assert file.tag.octets == content(size)
    assert server.connections <= 8
    assert file.steals + file.hedges <= 8


def test_a_server_that_serves_more_later_is_given_more_lanes(driver: Driver, server: MisbehavingServer) -> None:
    server.serves_ever = 1
    file = driver.add(server.url("/slow", size=256 * MIB, rate=2 * MIB), lanes=4)
    driver.until(lambda: file.lanes_busy == 4)
    driver.until(lambda: file.lanes_busy == 1)
    server.serves_ever = 0
    driver.until(lambda: file.lanes_busy == 4)
    file.remove()
    driver.end(file)


def test_one_connection_that_is_lost_costs_no_lane(driver: Driver, server: MisbehavingServer) -> None:
    # A black hole behind a load balancer, once: the lane is opened again.
    url = server.url("/stall?headers=0&after=0", size=64 * MIB, rate=4 * MIB, skip=2, times=1)
    file = driver.add(url, lanes=4)
    driver.until(lambda: len(server.requests) >= 4)
    before = len(server.requests)
    driver.until(lambda: server.connections >= 5)
    driver.until(lambda: file.lanes_busy == 4 and len(server.requests) > before)
    file.remove()
    driver.end(file)


def test_a_mirror_that_answers_nobody_is_left_alone(
    driver: Driver, server: MisbehavingServer, other_server: MisbehavingServer
) -> None:
    with _accepts_and_is_silent() as (silent, accepted):
        mirrors = [(silent, driver.profile, "", "")]
        file = driver.add(server.url("/slow", size=SIZE, rate=MIB), lanes=8, source_lanes=4, mirrors=mirrors)
        driver.end(file)
        assert file.tag.octets == content(SIZE)
        assert len(accepted) <= 8


@contextlib.contextmanager
def _accepts_and_is_silent() -> Iterator[tuple[str, list[socket.socket]]]:
    accepted: list[socket.socket] = []

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted.append(listener.accept()[0])

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/file.bin", accepted
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    for each in accepted:
        each.close()


@pytest.mark.parametrize("connections", [1, 2])
@pytest.mark.parametrize("how", ["serves_at_once", "serves_ever"])
def test_small_files_do_not_wait_for_lanes_that_a_server_does_not_answer(
    driver: Driver, server: MisbehavingServer, tmp_path: Path, how: str, connections: int
) -> None:
    setattr(server, how, connections)
    directory = tmp_path / "files"
    directory.mkdir()
    fd = os.open(directory, os.O_RDONLY)
    urls = [server.url("/good", size=20_000, seed=number) for number in range(60)]
    files = [driver.small(url, fd, f"{number}", host_lanes=8) for number, url in enumerate(urls)]
    for file in files:
        assert driver.end(file).name == "DONE"
    os.close(fd)
    assert server.connections <= 9
    for number in range(60):
        assert (directory / f"{number}").read_bytes() == content(20_000, number)


# ---- Connections that are kept idle ------------------------------------------------------------------------------


def test_a_connection_that_is_kept_idle_does_not_keep_another_loops_waiting(
    either_server: MisbehavingServer, tmp_path: Path
) -> None:
    # The server serves one connection at a time, and closes none by itself.
    either_server.serves_at_once = 1
    with Driver(tmp_path, loops=2) as driver:
        urls = [either_server.url("/good", size=MIB, seed=number) for number in range(4)]
        files = [driver.add(url, loop=number % 2) for number, url in enumerate(urls)]
        for number, file in enumerate(files):
            driver.end(file)
            assert file.tag.octets == content(MIB, number)


def test_a_server_that_is_silent_costs_no_connection_to_another_one(
    driver: Driver, server: MisbehavingServer, other_server: MisbehavingServer
) -> None:
    driver.fill(server.url("/good", size=MIB))
    waiting = driver.add(other_server.url("/stall?headers=0&after=0", size=MIB))
    time.sleep(3)  # longer than it takes to ask for idle connections to be closed
    driver.fill(server.url("/good", size=MIB))
    assert server.connections == 1
    waiting.remove()
    driver.end(waiting)


# ---- Little that is left, and nobody free for it -----------------------------------------------------------------


@pytest.mark.parametrize("rate", [1, 20 * KIB])
def test_a_range_that_crawls_gets_help_though_little_is_left(
    driver: Driver, server: MisbehavingServer, rate: int
) -> None:
    # Less than a lane's minimum is unclaimed, and the lane that would take it is slow.
    url = server.url("/script", size=6 * MIB, steps=f"good|slow:rate={rate}")
    file = driver.add(url, lanes=8)
    driver.end(file)
    assert file.tag.octets == content(6 * MIB)


def test_little_that_is_left_gets_no_lane_where_one_will_be_free_soon(
    driver: Driver, server: MisbehavingServer
) -> None:
    file = driver.fill(server.url("/slow", size=7 * MIB, rate=16 * MIB), lanes=8, first_bytes=4 * MIB)
    assert server.connections == 1
    assert file.connections == 1


# ---- Help that is refused ----------------------------------------------------------------------------------------

REFUSALS = {
    "429": "status:code=429",
    "429-retry-after": "status:code=429:retry_after=3600",
    "403": "status:code=403",
    "500": "status:code=500",
    "503": "status:code=503",
    "503-retry-after": "status:code=503:retry_after=3600",
    "reset": "reset:headers=0:after=0",
    "closed": "cut:headers=0:after=0",
    "no-range": "no-ranges",
    "wrong-range": "wrong-start",
    "garbage": "garbage",
    "silence": "stall:headers=0:after=0",
    "part": "short-range:most=10",
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_help_that_is_refused_is_asked_for_a_few_times_at_most(
    driver: Driver, server: MisbehavingServer, refusal: str
) -> None:
    size = 5 * MIB
    url = server.url("/script", size=size, steps="good|slow:rate=250K", then=REFUSALS[refusal])
    file = driver.add(url, lanes=8)
    driver.end(file)
    assert file.tag.octets == content(size)
    assert "FAILED" not in driver.names(file), "the slow lane goes on, and nobody hears of it"
    refused = len(server.requests) - 2
    assert 1 <= refused <= (1 if "retry-after" in refusal else 4)
    times = [request.time for request in server.requests[2:]]
    assert all(later - earlier >= 0.9 for earlier, later in itertools.pairwise(times))


def test_help_from_elsewhere_is_not_refused_by_that(
    driver: Driver, server: MisbehavingServer, other_server: MisbehavingServer
) -> None:
    size = 5 * MIB
    url = server.url("/script", size=size, steps="good|slow:rate=20K", then="status:code=429:retry_after=3600")
    file = driver.add(url, lanes=8)
    driver.until(lambda: len(server.requests) == 3)
    file.add_source(other_server.url("/good", size=size), driver.profile)
    driver.end(file)
    assert file.tag.octets == content(size)
    assert len(server.requests) == 3
