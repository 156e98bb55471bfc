"""Limits per host, across loops, engines and files: how many connections, and when."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.driving import Driver
from rangefetch import DownloadManager, _engine
from rangefetch._engine import File
from servers.counting import CountingServer
from servers.misbehaving import MisbehavingServer, content, refused_port
from support.files import MIB
from support.waiting import until


@pytest.fixture
def counting() -> Iterator[CountingServer]:
    with CountingServer() as server:
        yield server


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Callable[..., list[File]]]:
    """Adds small files with these URLs to a loop."""
    directory = tmp_path / "files"
    directory.mkdir()
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    turns = itertools.count()

    def begin(driver: Driver, urls: list[str], *, loop: int = 0, **options: Any) -> list[File]:
        turn = next(turns)
        return [driver.small(url, fd, f"{turn}-{number}", loop=loop, **options) for number, url in enumerate(urls)]

    yield begin
    os.close(fd)


def ended(driver: Driver, files: Iterable[File], within_s: float = 30) -> set[str]:
    """The events with which the files ended."""
    return {driver.end(each, within_s).name for each in files}


# ---- Connections -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize("loops", [1, 4])
def test_a_host_has_no_more_connections_than_it_may_have(
    tmp_path: Path, counting: CountingServer, small: Callable[..., list[File]], most: int, loops: int
) -> None:
    with Driver(tmp_path, loops=loops) as driver:
        urls = [counting.url(each) for each in range(30)]
        files = [each for loop in range(loops) for each in small(driver, urls, loop=loop, host_lanes=most)]
        files += [driver.add(counting.url("file"), loop=loop, host_lanes=most) for loop in range(loops)]
        assert ended(driver, files) == {"DONE"}
    assert counting.most_connections <= most


def test_engines_share_the_connections_of_a_host(
    tmp_path: Path, counting: CountingServer, small: Callable[..., list[File]]
) -> None:
    with Driver(tmp_path) as one, Driver(tmp_path) as other:
        for _ in range(3):
            ours, theirs = (small(each, [counting.url(n) for n in range(10)], host_lanes=1) for each in (one, other))
            assert ended(one, ours) | ended(other, theirs) == {"DONE"}
    assert counting.most_connections == 1


def test_lanes_of_one_large_file_are_connections_of_its_host(
    driver: Driver, server: MisbehavingServer, counting: CountingServer
) -> None:
    file = driver.add(server.url("/slow", size=8 * MIB, rate=8 * MIB), lanes=8, least_bytes=1, host_lanes=2)
    most = 0
    while driver.names(file)[-1:] != ["DONE"]:
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
    assert driver.end(insisting).name == "DONE"
    driver.until(lambda: behind.waiting_for == "host")
    waiting.remove()
    assert driver.end(behind).name == "DONE"
    driver.end(waiting)


def test_connections_of_others_are_counted(driver: Driver, counting: CountingServer) -> None:
    host = _engine.host_number(counting.url(""))
    assert _engine.take_connections(host, 5, 2) == 2
    file = driver.add(counting.url("file"), host_lanes=2)
    driver.until(lambda: file.waiting_for == "host")
    assert not counting.connections
    _engine.give_back_connections(host, 1)
    assert driver.end(file).name == "DONE"
    # The engine closes its idle connections when another user of the host asks, as soon as libcurl can.
    driver.until(lambda: _engine.take_connections(host, 1, 2) == 1)
    assert _engine.take_connections(host, 1, 2) == 0
    _engine.give_back_connections(host, 2)


def test_an_engine_that_is_closed_gives_back_every_connection(server: MisbehavingServer, target: Path) -> None:
    """At whatever moment: before libcurl 8 some connections were not reported as closed."""
    url = server.url("/slow/x", size=64 * MIB, rate=16 * MIB)
    host = _engine.host_number(url)
    for number in range(12):
        with DownloadManager("native") as manager:
            options = {"save_dir": target.parent, "filename": f"{number}.bin", "split": 8, "min_split_size": "1M"}
            gid = manager.download(url, options)
            until(lambda: manager.get_download_progress(gid).downloaded > 0)  # noqa: B023 - called at once
        free = _engine.take_connections(host, 16, 16)
        _engine.give_back_connections(host, free)
        assert free == 16


def test_a_redirect_leads_to_a_host_with_a_limit_of_its_own(
    driver: Driver, server: MisbehavingServer, counting: CountingServer
) -> None:
    counting.delay_s = 0.05
    urls = [server.url("/redirect", to=counting.url(number)) for number in range(8)]
    files = [driver.add(url, host_lanes=2) for url in urls]
    for each in files:
        assert driver.end(each).name == "DONE"
    assert counting.most_connections <= 2


# ---- What is known of a host ---------------------------------------------------------------------------------------


def test_a_host_has_answered_whatever_it_says_but_not_when_it_cannot_be_reached(
    driver: Driver, server: MisbehavingServer
) -> None:
    for url, answered in ((f"http://127.0.0.1:{refused_port()}/", False), (server.url("/status", code=404), True)):
        file = driver.add(url)
        driver.until(lambda: "FAILED" in driver.names(file))  # noqa: B023 - called at once
        assert _engine.host_has_answered(_engine.host_number(url)) is answered
        file.remove()
        driver.end(file)


# ---- Rests -------------------------------------------------------------------------------------------------------


def test_a_host_that_rests_is_asked_by_nobody_and_then_by_one_first(
    tmp_path: Path, counting: CountingServer, small: Callable[..., list[File]]
) -> None:
    counting.delay_s = 0.2
    begun_s = time.monotonic()
    _engine.rest_host(_engine.host_number(counting.url("")), 1.0)
    with Driver(tmp_path, loops=2) as driver, Driver(tmp_path) as other:
        files = [each for loop in (0, 1) for each in small(driver, [counting.url(n) for n in range(8)], loop=loop)]
        file = driver.add(counting.url("file"), loop=1)
        elsewhere = other.add(counting.url("elsewhere"))
        driver.until(lambda: file.waiting_for == "rest")
        assert not counting.seen
        assert ended(driver, files) == {"DONE"}
        driver.end(file)
        other.end(elsewhere)
    times = sorted(each.time_s for each in counting.seen)
    assert times[0] - begun_s >= 1.0
    assert times[1] - times[0] >= counting.delay_s
