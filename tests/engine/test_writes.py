"""How bytes get into the file: in few calls, in the right places, and never because of an announcement alone."""

from __future__ import annotations

from typing import Any

import pytest

from engine.driving import Driver
from rangefetch import _engine
from servers.misbehaving import MisbehavingServer, content
from servers.nginx import Nginx
from support.files import MIB

pytestmark = pytest.mark.usefixtures("no_leaks")

PIECE = 16 << 10
"""What libcurl hands over at once."""
BUFFER = 64 << 10
"""What a lane gathers where spans cannot be written."""


def buffered_writes(start: int, end: int) -> int:
    """The number of calls for ``[start, end)`` if each ends at a multiple of the buffer's size in the file."""
    return (end - 1) // BUFFER - start // BUFFER + 1


# ---- Few calls ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lanes", [1, 4])
def test_plain_http_takes_far_fewer_calls_than_pieces(driver: Driver, nginx: Nginx, lanes: int) -> None:
    octets = content(64 * MIB)
    path = nginx.write("/spans.bin", octets)
    try:
        file = driver.fill(nginx.url("/spans.bin"), lanes=lanes, least_bytes=1)
    finally:
        path.unlink()
    assert file.tag.octets == octets
    assert file.writes < 64 * MIB // PIECE // 4


def test_a_stream_of_known_length_takes_far_fewer_calls_than_pieces(driver: Driver, server: MisbehavingServer) -> None:
    file = driver.fill(server.url("/no-ranges", size=32 * MIB))
    assert file.tag.octets == content(32 * MIB)
    assert file.writes < 32 * MIB // PIECE // 2


@pytest.mark.parametrize("route", ["/chunked", "/chunked-ranges"])
def test_a_chunked_body_goes_through_the_buffer(driver: Driver, server: MisbehavingServer, route: str) -> None:
    size = 3 * MIB + 12_345
    file = driver.fill(server.url(route, size=size), lanes=1)
    assert file.tag.octets == content(size)
    assert file.writes == buffered_writes(0, size)


@pytest.mark.parametrize("lanes", [1, 4])
def test_tls_goes_through_the_buffer(driver: Driver, tls_server: MisbehavingServer, lanes: int) -> None:
    size = 12 * MIB + 12_345
    file = driver.fill(tls_server.url("/good", size=size), lanes=lanes, least_bytes=1)
    assert file.tag.octets == content(size)
    # If a range is cut short, the buffer is written early.
    odd = file.steals + 2 * file.hedges + file.replacements
    assert buffered_writes(0, size) <= file.writes <= buffered_writes(0, size) + odd


def test_http_2_goes_through_the_buffer(driver: Driver, nginx: Nginx) -> None:
    octets = content(5 * MIB + 5)
    path = nginx.write("/frames.bin", octets)
    try:
        file = driver.fill(nginx.http2_url("/frames.bin"), lanes=1)
    finally:
        path.unlink()
    assert file.tag.octets == octets
    assert file.writes == buffered_writes(0, len(octets))


@pytest.mark.parametrize("written", [1, 100, PIECE, BUFFER - 1, BUFFER, BUFFER + 100])
def test_a_range_that_begins_anywhere_is_soon_written_at_borders(
    driver: Driver, tls_server: MisbehavingServer, written: int
) -> None:
    size = MIB + 50
    octets = content(size)
    known: dict[str, Any] = {"size": size, "block_size": MIB, "blocks": bytes(2), "partial": {0: written}}
    file = driver.fill(tls_server.url("/good", size=size), octets[:written], lanes=1, **known)
    assert file.tag.octets == octets
    assert file.writes == buffered_writes(written, MIB) + 1


def test_a_limit_makes_pieces_small_and_the_buffer_gathers_them(driver: Driver, server: MisbehavingServer) -> None:
    file = driver.fill(server.url("/good", size=MIB), limit=64 * MIB)
    assert file.tag.octets == content(MIB)
    assert file.writes == buffered_writes(0, MIB)


# ---- What the buffer holds is written when the transfer ends, however it ends --------------------------------------


def test_removing_a_file_writes_what_the_buffer_holds(driver: Driver, tls_server: MisbehavingServer) -> None:
    file = driver.add(tls_server.url("/stall", size=MIB, after=100_000))
    # Bytes in the buffer do not yet count as written.
    driver.until(lambda: file.downloaded == BUFFER)
    driver.until(lambda: tls_server.bytes_sent == 100_000)
    while file.downloaded == BUFFER:
        file.remove()
        assert driver.end(file).name == "REMOVED"
    assert BUFFER < file.downloaded <= 100_000
    assert file.tag.octets[: file.downloaded] == content(MIB)[: file.downloaded]


@pytest.mark.parametrize("route", ["/cut", "/reset"])
def test_a_broken_connection_leaves_what_came_in_the_file(
    driver: Driver, tls_server: MisbehavingServer, route: str
) -> None:
    file = driver.add(tls_server.url(route, size=MIB, after=100_000))
    driver.until(lambda: "FAILED" in driver.names(file))
    kept = file.downloaded
    assert kept == 100_000 or (route == "/reset" and kept <= 100_000), "a reset may overtake what was sent before"
    assert file.tag.octets[:kept] == content(MIB)[:kept]
    assert file.partial[0] == kept
    file.remove()
    driver.end(file)


def test_a_chunked_body_that_breaks_off_leaves_what_came_in_the_file(driver: Driver, server: MisbehavingServer) -> None:
    file = driver.add(server.url("/chunked-ranges", size=MIB, skip=1, id=1))
    driver.end(file)
    assert file.tag.octets == content(MIB)


# ---- Announcements that are not what they seem ---------------------------------------------------------------------


@pytest.mark.parametrize("route", ["/good", "/no-ranges", "/chunked", "/no-length", "/http10", "/early-hints"])
@pytest.mark.parametrize("size", [1, PIECE - 1, PIECE, PIECE + 1, BUFFER + 1, 300_001, MIB, MIB + 1])
def test_no_byte_too_many_is_ever_written(driver: Driver, server: MisbehavingServer, route: str, size: int) -> None:
    file = driver.fill(server.url(route, size=size), allocation="none")
    assert file.tag.octets == content(size)


@pytest.mark.parametrize("framing", ["close", "length", "chunked", "excess"])
@pytest.mark.parametrize("extra", [1, 1000, 300_000])
def test_bytes_beyond_the_answers_own_end_never_reach_the_file(
    driver: Driver, server: MisbehavingServer, framing: str, extra: int
) -> None:
    size = 500_000
    url = server.url("/overflow", size=size, extra=extra, framing=framing)
    file = driver.add(url, allocation="none")
    driver.until(lambda: {"FAILED", "DONE"} & set(driver.names(file)))
    assert len(file.tag.octets) <= size
    assert b"\xee" * 16 not in file.tag.octets
    file.remove()
    driver.end(file)


def test_bytes_too_many_that_a_limit_holds_back_are_seen(driver: Driver, server: MisbehavingServer) -> None:
    # After the last byte, the limit lets no other byte pass for a quarter of a second.
    url = server.url("/overflow", size=64 << 10, extra=50_000, framing="chunked")
    file = driver.add(url, allocation="none", limit=64 << 10)
    driver.until(lambda: {"FAILED", "DONE"} & set(driver.names(file)))
    assert driver.log[-1].fault == _engine.FAULTS["OVERFLOW"]
    assert file.downloaded == 0
    file.remove()
    driver.end(file)


def test_a_failure_says_how_much_is_there_without_what_other_transfers_are_bringing(
    driver: Driver, server: MisbehavingServer
) -> None:
    url = server.url("/script", size=4 * MIB, steps="stall:after=500000", then="overflow:framing=chunked")
    known: dict[str, Any] = {"size": 4 * MIB, "block_size": MIB, "blocks": b"\2\0\0\0", "least_bytes": 1}
    file = driver.add(url, content(MIB) + bytes(3 * MIB), lanes=2, first_bytes=MIB, **known)
    driver.until(lambda: driver.names(file).count("FAILED") == 1 and file.downloaded > MIB)
    file.release()
    driver.until(lambda: driver.names(file).count("FAILED") == 2)
    assert {(event.fault, event.kept_bytes) for event in driver.log if event.name == "FAILED"} == {
        (_engine.FAULTS["OVERFLOW"], MIB)
    }
    file.remove()
    driver.end(file)


def test_bytes_beyond_a_range_spare_what_follows_it(driver: Driver, server: MisbehavingServer) -> None:
    # The first and third of three blocks are there; the answer for the second is longer than the block.
    size, octets = 3 * MIB, content(3 * MIB)
    held = octets[:MIB] + bytes(MIB) + octets[2 * MIB :]
    known: dict[str, Any] = {"size": size, "block_size": MIB, "blocks": b"\2\0\2"}
    file = driver.add(server.url("/overflow", size=size, extra=50_000, framing="length"), held, **known)
    driver.until(lambda: {"FAILED", "DONE"} & set(driver.names(file)))
    assert file.tag.octets[2 * MIB :] == octets[2 * MIB :]
    file.remove()
    driver.end(file)


def test_a_whole_file_that_answers_a_range_spares_what_is_there(driver: Driver, server: MisbehavingServer) -> None:
    octets = content(2 * MIB)
    known: dict[str, Any] = {"size": 2 * MIB, "block_size": MIB, "blocks": b"\2\0"}
    file = driver.add(server.url("/no-ranges", size=2 * MIB), octets[:MIB], **known)
    driver.until(lambda: "FAILED" in driver.names(file))
    assert file.tag.octets == octets[:MIB]
    assert file.writes == 0
    file.remove()
    driver.end(file)


@pytest.mark.parametrize("rate", [200_000, 2 * MIB])
def test_small_spans_are_as_good_as_large_ones(driver: Driver, server: MisbehavingServer, rate: int) -> None:
    size = rate // 4
    file = driver.fill(server.url("/slow", size=size, rate=rate), lanes=1)
    assert file.tag.octets == content(size)


def test_a_span_that_was_written_ahead_counts_only_with_its_pieces(driver: Driver, server: MisbehavingServer) -> None:
    size = 64 * MIB
    file = driver.add(server.url("/shared-rate", size=size, rate=200 * MIB), lanes=4, least_bytes=1)
    octets = content(size)

    def what_counts_is_there() -> bool:
        contiguous = file.contiguous
        with file.tag.path.open("rb") as opened:
            assert opened.read(contiguous) == octets[:contiguous]
        return "DONE" in driver.names(file)

    driver.until(what_counts_is_there)


@pytest.mark.parametrize("allocation", ["falloc", "trunc", "none"])
@pytest.mark.parametrize("lanes", [1, 4])
def test_every_way_of_allocating_gives_the_same_file(
    driver: Driver, server: MisbehavingServer, allocation: str, lanes: int
) -> None:
    size = 6 * MIB + 1
    file = driver.fill(server.url("/good", size=size), lanes=lanes, least_bytes=1, allocation=allocation)
    assert file.tag.octets == content(size)
