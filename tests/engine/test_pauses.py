"""A transfer that a limit or a slow reader pauses repeatedly, at the worst moments, puts no byte in the wrong place.

Data that libcurl kept during a pause arrives in other memory than was announced and in pieces of other sizes, and the
pause may come at the first piece of an announced span, or within a span that is already in the file.
"""

from __future__ import annotations

import itertools
import random
import time
from functools import partial

import pytest

from engine.driving import Driver
from rangefetch import _engine
from rangefetch._engine import File, Profile
from servers.misbehaving import MisbehavingServer, content
from servers.nginx import Nginx
from support.files import MIB

pytestmark = pytest.mark.usefixtures("no_leaks")

SIZE = 48 * MIB
A_TRICKLE = 1
"""Bytes per second: each limit pauses whatever comes next, once the piece that is in flight was taken."""


def _has_come_to(driver: Driver, file: File, goal: int) -> bool:
    return file.downloaded >= goal or "DONE" in driver.names(file)


def _can_be_read_beyond(driver: Driver, file: File, read: int) -> bool:
    return file.contiguous > read or "DONE" in driver.names(file)


def interrupt(driver: Driver, file: File, *, every: int, seconds: float = 30.0) -> int:
    """Set a limit and lift it again whenever ``every`` more bytes have come; returns how often."""
    chance = random.Random(every)
    times = 0
    while "DONE" not in driver.names(file):
        driver.until(partial(_has_come_to, driver, file, file.downloaded + chance.randrange(every)), seconds)
        file.limit = A_TRICKLE
        time.sleep(0.004)
        # A limit under which some pieces come before the transfer pauses again.
        file.limit = chance.choice([8 * MIB, 64 * MIB])
        time.sleep(0.002)
        file.limit = 0
        times += 1
    return times


@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize("scheme", ["http", "https", "h2"])
def test_a_limit_that_comes_and_goes_never_costs_a_byte(driver: Driver, nginx: Nginx, scheme: str, lanes: int) -> None:
    octets = content(SIZE)
    path = nginx.write("/paused.bin", octets)
    url = {"http": nginx.url, "https": nginx.https_url, "h2": nginx.http2_url}[scheme]("/paused.bin")
    try:
        file = driver.add(url, lanes=lanes, least_bytes=1, allocation="none")
        assert interrupt(driver, file, every=MIB) > 1
    finally:
        path.unlink()
    assert file.tag.octets == octets


@pytest.mark.parametrize("route", ["/good", "/no-ranges", "/no-length", "/chunked", "/chunked-ranges"])
def test_nor_where_the_server_knows_no_ranges_or_no_length(
    driver: Driver, server: MisbehavingServer, route: str
) -> None:
    file = driver.add(server.url(route, size=SIZE), lanes=2, least_bytes=1, allocation="none")
    assert interrupt(driver, file, every=2 * MIB) > 1
    assert file.tag.octets == content(SIZE)


def test_nor_where_bytes_come_a_few_at_a_time(driver: Driver, server: MisbehavingServer) -> None:
    size = 2 * MIB
    file = driver.add(server.url("/slow", size=size, rate=8 * MIB), lanes=1)
    interrupt(driver, file, every=50_000)
    assert file.tag.octets == content(size)


@pytest.mark.parametrize("route", ["/good", "/no-ranges", "/no-length", "/chunked"])
def test_a_slow_reader_of_a_stream_gets_every_byte_in_its_place(
    driver: Driver, server: MisbehavingServer, route: str
) -> None:
    octets = content(SIZE)
    file = driver.add(server.url(route, size=SIZE), lanes=1, window_bytes=256 << 10, allocation="none")
    read = 0
    file.read_to(0)
    with file.tag.path.open("rb") as written:
        while "DONE" not in driver.names(file) or read < SIZE:
            there = file.contiguous
            assert written.read(there - read) == octets[read:there]
            read = there
            file.read_to(read)
            driver.until(partial(_can_be_read_beyond, driver, file, read))
    assert file.tag.octets == octets


def test_a_lane_that_hedges_is_paused_and_goes_on(driver: Driver, server: MisbehavingServer) -> None:
    # The first lane stalls with less than a block to come; the second fetches that again, in bursts.
    size = 3 * MIB
    url = server.url("/script", size=size, steps=f"good|stall:after={MIB - 100_000}|slow:rate={4 * MIB}")
    file = driver.add(url, lanes=2, least_bytes=1, first_bytes=MIB)
    driver.until(lambda: file.hedges > 0, 30)
    for _ in itertools.takewhile(lambda _: "DONE" not in driver.names(file), range(10)):
        file.limit = A_TRICKLE
        driver.take()
        time.sleep(0.01)
        file.limit = 0
        time.sleep(0.02)
    assert driver.end(file, 30).name == "DONE"
    assert file.tag.octets == content(size)


def test_a_limit_of_one_loop_and_many_files_keeps_them_apart(driver: Driver, server: MisbehavingServer) -> None:
    # Since 8.7 all transfers of a loop share libcurl's receive buffer: an announcement must not outlive its piece.
    files = [driver.add(server.url("/good", size=8 * MIB, seed=seed), lanes=2, least_bytes=1) for seed in range(4)]
    chance = random.Random(1)
    while not all("DONE" in driver.names(file) for file in files):
        chance.choice(files).limit = A_TRICKLE
        driver.engine.limit = chance.choice([0, A_TRICKLE])
        time.sleep(0.005)
        driver.engine.limit = 0
        chance.choice(files).limit = 0
        if chance.random() < 0.3:
            for file in files:
                file.limit = 0
            time.sleep(0.005)
        driver.take()
    for seed, file in enumerate(files):
        assert file.tag.octets == content(8 * MIB, seed)


def test_a_setting_that_makes_reads_small_does_not_matter(driver: Driver, server: MisbehavingServer) -> None:
    number = _engine.constants()
    profile = Profile([(number["CURLOPT_BUFFERSIZE"], 1024)], [], [])
    file = driver.add(server.url("/good", size=4 * MIB), lanes=1, profile=profile)
    interrupt(driver, file, every=400_000)
    assert file.tag.octets == content(4 * MIB)
