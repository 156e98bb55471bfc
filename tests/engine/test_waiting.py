"""What a file in the engine waits for: it can say so at every moment, and something is scheduled that ends the wait."""

from __future__ import annotations

import pytest

from engine.driving import Driver
from servers.misbehaving import MisbehavingServer
from support.files import MIB

pytestmark = pytest.mark.usefixtures("no_leaks")


def test_before_its_loop_has_it_a_file_waits_for_that(driver: Driver) -> None:
    assert driver.file("http://127.0.0.1:1/never-asked").waiting_for == "loop"


@pytest.mark.parametrize("lanes", [1, 8])
def test_a_file_at_work_waits_for_its_transfers(driver: Driver, server: MisbehavingServer, lanes: int) -> None:
    file = driver.add(server.url("/slow", size=16 * MIB, rate=MIB), lanes=lanes)
    driver.until(lambda: file.waiting_for == "transfer" and file.downloaded)
    file.remove()
    driver.end(file)


@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize("whose", ["its own", "the engine's"])
def test_a_file_that_a_limit_holds_back_waits_for_that(
    driver: Driver, server: MisbehavingServer, lanes: int, whose: str
) -> None:
    if whose == "the engine's":
        driver.engine.limit = 20_000
    file = driver.add(server.url("/good", size=16 * MIB), lanes=lanes, limit=20_000 if whose == "its own" else 0)
    driver.until(lambda: file.waiting_for == "limit" and file.downloaded, seconds=30.0)
    file.remove()
    driver.end(file)


@pytest.mark.parametrize("route", ["/good", "/no-ranges"])
def test_a_file_with_a_full_window_waits_for_its_reader(driver: Driver, server: MisbehavingServer, route: str) -> None:
    file = driver.file(server.url(route, size=16 * MIB), window_bytes=4 * MIB)
    file.read_to(0)
    driver.engine.add(file)
    driver.until(lambda: file.waiting_for == "reader")
    file.read_to(16 * MIB)
    driver.end(file)


def test_after_a_failure_a_file_waits_for_a_decision(driver: Driver, server: MisbehavingServer) -> None:
    file = driver.add(server.url("/status", size=MIB, code=503, times=1))
    driver.until(lambda: file.waiting_for == "decision")
    file.release()
    driver.end(file)


def test_after_its_answer_a_probe_waits_for_a_decision(driver: Driver, server: MisbehavingServer) -> None:
    file = driver.add(server.url("/good", size=MIB), probe=True, first_bytes=1)
    driver.until(lambda: file.waiting_for == "decision")
    file.remove()
    driver.end(file)


def test_a_file_whose_sources_rest_waits_for_the_end_of_that(
    driver: Driver, server: MisbehavingServer, other_server: MisbehavingServer
) -> None:
    url, mirror = server.url("/status", size=MIB, code=503, times=1), other_server.url("/good", size=MIB)
    file = driver.add(url, mirrors=[(mirror, driver.profile, "", "")])
    driver.until(lambda: "FAILED" in driver.names(file))
    file.ban(1)
    file.rest(0, 1)
    file.release()
    driver.until(lambda: file.waiting_for == "rest")
    driver.end(file)


def test_a_file_that_nobody_may_be_asked_for_waits_for_nothing(driver: Driver, server: MisbehavingServer) -> None:
    file = driver.add(server.url("/status", size=MIB, code=503))
    driver.until(lambda: "FAILED" in driver.names(file))
    file.ban(0)
    file.release()
    driver.until(lambda: file.waiting_for == "nothing")
    file.remove()
    driver.end(file)
