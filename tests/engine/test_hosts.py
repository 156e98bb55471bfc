"""What holds for a host, whichever loop, engine, file or batch asks it: how many connections, and when."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.driving import Driver
from rangefetch import _engine
from rangefetch._engine import Batch
from servers.counting import CountingServer
from servers.misbehaving import MisbehavingServer, content
from support.files import MIB

DONE, RETURNED, LATE = 2, 3, 4


@pytest.fixture
def counting() -> Iterator[CountingServer]:
    with CountingServer() as server:
        yield server


@pytest.fixture
def batch(tmp_path: Path) -> Iterator[Callable[..., Batch]]:
    """Gives a loop a batch of files of these URLs."""
    directory = tmp_path / "files"
    directory.mkdir()
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    turns = itertools.count()

    def begin(driver: Driver, urls: list[str], *, loop: int = 0, **options: Any) -> Batch:
        turn = next(turns)
        items = [(url, f"{turn}-{number}") for number, url in enumerate(urls)]
        batch = Batch(fd, items, driver.profile, **options)
        driver.engine.add_batch(batch, loop)
        return batch

    yield begin
    os.close(fd)


def ended(driver: Driver, *batches: Batch, within_s: float = 30) -> list[int]:
    """The states of all items at the end."""
    for each in batches:
        driver.end(each, within_s)
    return [state for each in batches for state in each.states]


# ---- Connections -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize("loops", [1, 4])
def test_a_host_has_no_more_connections_than_it_may_have(
    tmp_path: Path, counting: CountingServer, batch: Callable[..., Batch], most: int, loops: int
) -> None:
    with Driver(tmp_path, loops=loops) as driver:
        urls = [counting.url(each) for each in range(30)]
        batches = [batch(driver, urls, loop=loop, host_lanes=most) for loop in range(loops)]
        files = [driver.add(counting.url("file"), loop=loop, host_lanes=most) for loop in range(loops)]
        assert set(ended(driver, *batches)) == {DONE}
        for each in files:
            assert driver.end(each).kind == "DONE"
    assert counting.most_connections <= most


def test_engines_share_the_connections_of_a_host(
    tmp_path: Path, counting: CountingServer, batch: Callable[..., Batch]
) -> None:
    with Driver(tmp_path) as one, Driver(tmp_path) as other:
        for _ in range(3):
            batches = [batch(each, [counting.url(n) for n in range(10)], host_lanes=1) for each in (one, other)]
            assert set(ended(one, batches[0]) + ended(other, batches[1])) == {DONE}
    assert counting.most_connections == 1


def test_lanes_of_one_large_file_are_connections_of_its_host(
    driver: Driver, server: MisbehavingServer, counting: CountingServer
) -> None:
    file = driver.add(server.url("/slow", size=8 * MIB, rate=8 * MIB), lanes=8, least_bytes=1, host_lanes=2)
    most = 0
    while driver.kinds(file)[-1:] != ["DONE"]:
        most = max(most, file.lanes_busy)
        driver.take()
        time.sleep(0.01)
    assert (most, server.connections) == (2, 2)
    assert file.tag.octets == content(8 * MIB)


def test_a_connection_that_is_idle_in_one_loop_is_closed_for_another(tmp_path: Path, counting: CountingServer) -> None:
    with Driver(tmp_path, loops=2) as driver:
        for turn in range(4):
            file = driver.add(counting.url(turn), loop=turn % 2, host_lanes=1)
            driver.end(file, 10)
    assert (counting.most_connections, counting.connections) == (1, 4)


def test_who_insists_gets_a_first_connection_and_nobody_else_that_one(
    driver: Driver, server: MisbehavingServer
) -> None:
    waiting = driver.add(server.url("/stall?after=100", size=MIB), host_lanes=1)
    driver.until(lambda: server.requests)
    behind = driver.add(server.url("/good", size=MIB), host_lanes=1)
    insisting = driver.add(server.url("/good", size=MIB), host_lanes=1, insists=True)
    assert driver.end(insisting).kind == "DONE"
    driver.until(lambda: behind.waiting_for == "host")
    waiting.remove()
    assert driver.end(behind).kind == "DONE"
    driver.end(waiting)


def test_a_redirect_leads_to_a_host_with_a_limit_of_its_own(
    driver: Driver, server: MisbehavingServer, counting: CountingServer, batch: Callable[..., Batch]
) -> None:
    counting.delay_s = 0.05
    urls = [server.url("/redirect", to=counting.url(number)) for number in range(8)]
    files = [driver.add(url, host_lanes=2) for url in urls]
    for each in files:
        assert driver.end(each).kind == "DONE"
    assert counting.most_connections <= 2


# ---- Rests -------------------------------------------------------------------------------------------------------


def test_a_host_that_rests_is_asked_by_nobody_and_then_by_one_first(
    tmp_path: Path, counting: CountingServer, batch: Callable[..., Batch]
) -> None:
    counting.delay_s = 0.2
    begun_s = time.monotonic()
    _engine.rest_host(_engine.host_number(counting.url("")), 1.0)
    with Driver(tmp_path, loops=2) as driver, Driver(tmp_path) as other:
        batches = [batch(driver, [counting.url(n) for n in range(8)], loop=loop) for loop in (0, 1)]
        file = driver.add(counting.url("file"), loop=1)
        elsewhere = other.add(counting.url("elsewhere"))
        driver.until(lambda: file.waiting_for == "rest")
        assert not counting.seen
        assert set(ended(driver, *batches)) == {DONE}
        driver.end(file)
        other.end(elsewhere)
    times = sorted(each.time_s for each in counting.seen)
    assert times[0] - begun_s >= 1.0
    assert times[1] - times[0] >= counting.delay_s


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("loops", [1, 2])
def test_items_that_a_host_refuses_wait_for_as_long_as_it_says(
    tmp_path: Path, counting: CountingServer, batch: Callable[..., Batch], status: int, loops: int
) -> None:
    counting.refuse(status, 1, after=30)
    with Driver(tmp_path, loops=loops) as driver:
        batches = [batch(driver, [counting.url(n) for n in range(60)], loop=loop, lanes=4) for loop in range(loops)]
        assert set(ended(driver, *batches)) == {DONE}
    # Those that were under way, and perhaps one that came too early to the next look.
    assert counting.refused <= 4 * loops + 1
    assert len(counting.seen) == 60 * loops + counting.refused


def test_without_a_time_the_rests_of_a_host_become_longer_and_the_item_comes_back(
    driver: Driver, server: MisbehavingServer, batch: Callable[..., Batch]
) -> None:
    items = batch(driver, [server.url("/status", code=429)], retry_wait_s=0.2)
    assert ended(driver, items) == [RETURNED]
    assert len(server.requests) == 4


def test_the_longest_rest_is_the_callers_to_say(
    driver: Driver, counting: CountingServer, batch: Callable[..., Batch]
) -> None:
    counting.refuse(503, 1)
    counting._refusal = (0.0, 503, "3600")
    begun_s = time.monotonic()
    assert ended(driver, batch(driver, [counting.url(0)], longest_rest_s=1.2)) == [DONE]
    assert time.monotonic() - begun_s < 10


def test_one_host_that_rests_holds_up_no_other(
    driver: Driver, counting: CountingServer, server: MisbehavingServer, batch: Callable[..., Batch]
) -> None:
    counting.refuse(429, 30)
    urls = [counting.url(n) if n % 2 else server.url("/good", size=1000, seed=n) for n in range(40)]
    items = batch(driver, urls, lanes=2)
    driver.until(lambda: list(items.states).count(DONE) == 20)
    assert counting.refused <= 2
    items.remove()
    driver.end(items)


# ---- Hosts that do not answer ------------------------------------------------------------------------------------


def test_a_host_that_never_answered_is_not_waited_for_while_others_wait(
    driver: Driver, counting: CountingServer, server: MisbehavingServer, batch: Callable[..., Batch]
) -> None:
    silent = server.url("/stall?headers=0&after=0", size=1000)
    urls = [silent] * 5 + [counting.url(n) for n in range(50)]
    items = batch(driver, urls, lanes=2, hurries=True)
    assert ended(driver, items) == [LATE] * 5 + [DONE] * 50
    assert len(server.requests) <= 2


def test_a_host_that_has_answered_is_waited_for(
    driver: Driver, server: MisbehavingServer, batch: Callable[..., Batch]
) -> None:
    driver.fill(server.url("/good", size=1000))
    items = batch(driver, [server.url("/good", size=1000, delay=3)], hurries=True)
    assert ended(driver, items) == [DONE]
