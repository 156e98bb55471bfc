"""The last byte ends the transfer and the file, without waiting for the end of the HTTP response."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from engine.driving import Driver
from rangefetch import _engine
from rangefetch._engine import File
from servers.http2 import OpenStreams
from servers.misbehaving import MisbehavingServer, content
from servers.routing import ROUTES, Ask, Route
from servers.tls import Certificates
from servers.wire import Pace, Reply
from support.files import MIB

pytestmark = pytest.mark.usefixtures("no_leaks")

KIB = 1 << 10
FRAMINGS = ["chunked", "close", "length"]
SOON_S = 5.0
"""Far less than any timeout."""


@pytest.fixture(params=["http", "https"])
def either_server(request: pytest.FixtureRequest) -> MisbehavingServer:
    server: MisbehavingServer = request.getfixturevalue("server" if request.param == "http" else "tls_server")
    return server


def known(size: int, block_size: int) -> dict[str, Any]:
    """Options for a known file with nothing of it there, in blocks of this size."""
    return {"size": size, "block_size": block_size, "blocks": bytes(-(-size // block_size)), "least_bytes": 1}


def every_other(size: int, block_size: int) -> dict[str, Any]:
    """Options for a file with every other block present, so that each range is one block."""
    return known(size, block_size) | {"blocks": b"\0\2" * (size // block_size // 2)}


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_small_file_is_done_with_its_last_byte(
    driver: Driver, either_server: MisbehavingServer, framing: str
) -> None:
    file = driver.add(either_server.url("/lingers", size=300_000, framing=framing))
    driver.end(file, SOON_S)
    assert file.tag.octets == content(300_000)
    assert (driver.names(file), file.requests) == (["ANSWERED", "DONE"], 1)


@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_lane_whose_range_is_there_takes_the_next(
    driver: Driver, either_server: MisbehavingServer, framing: str, lanes: int
) -> None:
    size = 24 * MIB
    file = driver.add(either_server.url("/lingers", size=size, framing=framing), lanes=lanes, least_bytes=MIB)
    driver.end(file, SOON_S)
    assert file.tag.octets == content(size)
    assert "FAILED" not in driver.names(file)


def test_only_the_first_answer_without_an_end_is_waited_for(driver: Driver, server: MisbehavingServer) -> None:
    # If the engine waited for the ends of the later responses, they would come in time to keep their connections.
    url = server.url("/script", size=4 * MIB, steps="lingers", then="lingers:seconds=0.05")
    file = driver.fill(url, content(4 * MIB), lanes=1, first_bytes=64 * KIB, **every_other(4 * MIB, 64 * KIB))
    assert file.requests == 32
    assert server.connections > 4


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_one_stream_that_is_whole_by_its_size_is_done(
    driver: Driver, either_server: MisbehavingServer, framing: str
) -> None:
    # The first answer is a range of a few bytes, and the second ends where the file does.
    size = 2 * MIB
    file = driver.add(either_server.url("/lingers", size=size, framing=framing), lanes=1, first_bytes=1000)
    driver.end(file, SOON_S)
    assert file.tag.octets == content(size)


def test_over_http2_a_stream_that_stays_open_does_not_hold_the_file(driver: Driver, certificates: Certificates) -> None:
    number = _engine.constants()
    settings = [(number["CURLOPT_SSL_VERIFYPEER"], 0), (number["CURLOPT_SSL_VERIFYHOST"], 0)]
    settings.append((number["CURLOPT_HTTP_VERSION"], number["CURL_HTTP_VERSION_2TLS"]))
    profile = _engine.Profile(settings, [], [])
    with OpenStreams(certificates.server_context(), content(50_000)) as server:
        for _ in range(3):
            file = driver.add(server.url, profile=profile)
            driver.end(file, SOON_S)
            assert file.tag.octets == content(50_000)
        assert server.requests == 3
        driver.engine.close()


@pytest.mark.parametrize("seconds", [0.0, 0.03])
def test_an_end_that_comes_a_moment_later_saves_the_connection(
    driver: Driver, server: MisbehavingServer, seconds: float
) -> None:
    size = 2 * MIB
    url = server.url("/lingers", size=size, seconds=seconds)
    file = driver.fill(url, content(size), lanes=1, first_bytes=256 * KIB, **every_other(size, 256 * KIB))
    assert file.requests == 4
    assert (server.connections, file.connections) == (1, 1)
    assert file.tag.octets == content(size)


@pytest.mark.parametrize("limit", [0, 2 * MIB])
@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_limited_file_is_done_with_its_last_byte(
    driver: Driver, server: MisbehavingServer, framing: str, limit: int
) -> None:
    driver.engine.limit = 4 * MIB
    file = driver.add(server.url("/lingers", size=3 * MIB, framing=framing), lanes=4, limit=limit)
    driver.end(file, SOON_S)
    assert file.tag.octets == content(3 * MIB)


@pytest.fixture
def _slow_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adds the route ``/lingers-slow``: like ``/lingers``, but the first reply that the fault strikes is slow."""
    fault = ROUTES["lingers"].fault

    def slow_once(ask: Ask, reply: Reply, *, framing: str = "", bytes_per_s: int = 0) -> Reply:
        if ask.turn == 0:
            reply.pace = Pace(bytes_per_s)
        return fault(ask, reply, framing=framing)

    slow_once.__annotations__ |= {"framing": str, "bytes_per_s": int}  # routes read these
    monkeypatch.setitem(ROUTES, "lingers-slow", Route("lingers-slow", slow_once, {}))


@pytest.mark.usefixtures("_slow_once")
@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("how", ["steals", "hedges"])
def test_what_is_taken_over_or_fetched_twice_is_done_with_its_last_byte(
    driver: Driver, server: MisbehavingServer, how: str, framing: str
) -> None:
    size, slow = 4 * MIB, f"/lingers-slow?framing={framing}&bytes_per_s=200000"
    if how == "steals":
        # The slow range starts at once and covers half of the file.
        url, first_bytes, block_size = server.url(slow, size=size, at=100_000), 2 * MIB, 64 * KIB
    else:
        # The slow range is the last block.
        url, first_bytes, block_size = server.url(slow, size=size, at=size - 1), MIB, MIB
    file = driver.add(url, lanes=2, first_bytes=first_bytes, **known(size, block_size))
    driver.end(file, SOON_S)
    assert getattr(file, how) >= 1
    assert file.tag.octets == content(size)
    assert "FAILED" not in driver.names(file)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_small_files_are_done_with_their_last_bytes(
    driver: Driver, either_server: MisbehavingServer, tmp_path: Path, framing: str
) -> None:
    directory = tmp_path / "small"
    directory.mkdir()
    fd = os.open(directory, os.O_RDONLY)
    urls = [either_server.url("/lingers", size=20_000, framing=framing, id=n) for n in range(100)]
    files = [driver.small(url, fd, f"{n}.bin", host_lanes=4) for n, url in enumerate(urls)]
    for each in files:
        assert driver.end(each, SOON_S).name == "DONE"
    os.close(fd)
    assert {path.read_bytes() for path in directory.iterdir()} == {content(20_000)}


def test_a_transfer_that_fails_after_the_last_byte_is_no_failure(driver: Driver, server: MisbehavingServer) -> None:
    # The read timeout strikes when all blocks are there but the end of the answer is still missing.
    number = _engine.constants()
    settings = [(number["CURLOPT_SSL_VERIFYPEER"], 0)]
    hasty = _engine.Profile(settings, [], [], read_timeout_s=0.05)
    file = driver.add(server.url("/lingers", size=300_000), profile=hasty)
    driver.end(file, SOON_S)
    assert driver.names(file) == ["ANSWERED", "DONE"]


def test_a_file_that_has_every_byte_is_over_whatever_became_of_its_last_transfer(
    driver: Driver, server: MisbehavingServer
) -> None:
    # /dev/null accepts the bytes but cannot be truncated: the transfer fails with nothing left to fetch.
    fd = os.open(os.devnull, os.O_RDWR)
    file = File(fd, server.url("/good", size=100), driver.profile)
    driver.engine.add(file, 0)
    assert driver.end(file, SOON_S).name == "DONE"
    assert driver.names(file) == ["ANSWERED", "DONE"]
    os.close(fd)


@pytest.mark.parametrize("code", [403, 404, 429, 500, 503])
def test_an_error_that_takes_long_to_tell_is_heard_soon(driver: Driver, server: MisbehavingServer, code: int) -> None:
    # The body comes one byte at a time, which is enough to avoid every timeout.
    file = driver.add(server.url("/script", size=MIB, steps=f"status:code={code}+slow:rate=1"))
    driver.until(lambda: "FAILED" in driver.names(file), SOON_S)
    assert driver.log[-1].status == code
    file.release()
    driver.end(file, SOON_S)
    assert file.tag.octets == content(MIB)


def test_a_redirect_that_takes_a_while_to_tell_is_followed(driver: Driver, server: MisbehavingServer) -> None:
    # libcurl reports the redirect's target once the whole response is there.
    file = driver.add(server.url("/script", size=MIB, steps="redirect+slow:rate=3"))
    driver.end(file)
    assert file.tag.octets == content(MIB)
