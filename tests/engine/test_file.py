"""A file as Python sees it: its arguments, its counters, and the block map that is the engine's own memory."""

from __future__ import annotations

import gc
import time
from typing import Any

import numpy as np
import pytest

from engine.driving import Driver, Part
from rangefetch import _engine
from rangefetch._engine import File
from rangefetch.disk.state import DONE
from servers.misbehaving import MisbehavingServer, content, etag, http_date, modified
from support.files import MIB

pytestmark = pytest.mark.usefixtures("no_leaks")

URL = "http://127.0.0.1:1/never-asked"
MISSING, CLAIMED = 0, 1


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"block_size": 4, "blocks": bytes(2)}, id="too-few-blocks"),
        pytest.param({"block_size": 4, "blocks": bytes(4)}, id="too-many-blocks"),
        pytest.param({"block_size": 0, "blocks": bytes(3)}, id="no-block-size"),
        pytest.param({"block_size": -4, "blocks": bytes(3)}, id="negative-block-size"),
        pytest.param({"block_size": 4}, id="no-blocks"),
        pytest.param({"block_size": 4, "blocks": bytes(3), "partial": {0: 4}}, id="a-whole-block-is-not-a-part"),
        pytest.param({"block_size": 4, "blocks": bytes(3), "partial": {0: -1}}, id="negative-part"),
        pytest.param({"block_size": 4, "blocks": bytes(3), "partial": {2: 2}}, id="more-than-the-last-block"),
        pytest.param({"block_size": 4, "blocks": bytes(3), "partial": {3: 0}}, id="block-beyond-the-end"),
        pytest.param({"block_size": 4, "blocks": bytes(3), "partial": {-1: 1}}, id="negative-block"),
        pytest.param({"block_size": 4, "blocks": bytes(3), "partial": {-4: 1}}, id="negative-block-beyond"),
        pytest.param({"block_size": 4, "blocks": bytes(3), "etag": '"' + "x" * 1022 + '"'}, id="endless-etag"),
        pytest.param({"block_size": 4, "blocks": bytes(3), "last_modified": "x" * 1024}, id="endless-date"),
    ],
)
def test_a_saved_state_that_does_not_fit_is_refused(driver: Driver, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        driver.file(URL, size=10, **wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"lanes": 0},
        {"lanes": -1},
        {"first_bytes": 0},
        {"first_bytes": -1},
        {"window_bytes": -1},
        {"limit": -1},
        {"size": _engine.LARGEST_FILE + 1, "block_size": 1 << 32, "blocks": bytes(65_537)},
        {"size": (1 << 63) - 1, "block_size": (1 << 63) - 1, "blocks": bytes(1)},
        {"size": 10, "block_size": (1 << 63) - 1, "blocks": bytes(1)},
        {"pinned_size": (1 << 63) - 1},
        {"first_bytes": (1 << 63) - 1},
        {"least_bytes": (1 << 63) - 1},
        {"window_bytes": (1 << 63) - 1},
        {"lanes": 1 << 17},
        {"source_lanes": 1 << 17},
        {"allocation": "prealloc"},
        {"allocation": ""},
    ],
    ids=str,
)
def test_arguments_that_make_no_sense_are_refused(driver: Driver, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        driver.file(URL, **wrong)


def test_there_is_no_use_for_less_than_one_lane(driver: Driver) -> None:
    file = driver.file(URL)
    for most in (0, -1):
        with pytest.raises(ValueError):
            file.lanes = most
    assert file.lanes == 16


def test_a_new_file_is_all_unknown(driver: Driver) -> None:
    file = driver.file(URL)
    assert (file.size, file.block_size, len(file.blocks), len(file.partial)) == (-1, 0, 0, 0)
    assert (file.downloaded, file.contiguous, file.requests, file.connections, file.received_bytes) == (0, 0, 0, 0, 0)
    assert (file.answered, file.splits, file.lanes_busy, file.validators()) == (False, False, 0, ("", ""))


def test_the_answer_tells_what_the_file_is(driver: Driver, server: MisbehavingServer) -> None:
    size = 9 * MIB + 5
    file = driver.fill(server.url("/good", size=size))
    assert file.tag.octets == content(size)
    assert (file.size, file.block_size, len(file.blocks)) == (size, MIB, 10)
    assert bytes(file.blocks) == bytes([DONE]) * 10
    assert (file.downloaded, file.contiguous, file.received_bytes) == (size, size, size)
    assert (file.answered, file.splits, file.lanes_busy) == (True, True, 0)
    assert file.validators() == (etag(size), http_date(modified()))
    assert file.requests == len(server.requests)
    assert file.connections == server.connections


def test_blocks_double_until_there_are_few_enough(driver: Driver, server: MisbehavingServer) -> None:
    # The server only claims this size; nothing that large is sent or stored.
    server_says = "Content-Range: bytes 0-0/{}"
    for size, block_size in (((1 << 36), MIB), ((1 << 36) + 1, 2 * MIB), (1 << 40, 16 * MIB)):
        url = server.url("/no-content-range", size=1, header=server_says.format(size), id=str(size))
        file = driver.add(url, first_bytes=1, allocation="none", lanes=1)
        driver.until(lambda file=file: file.block_size)  # type: ignore[misc]  # not inferred
        assert (file.size, file.block_size) == (size, block_size)
        assert len(file.blocks) == -(-size // block_size) <= 65_536
        file.remove()
        driver.end(file)


def test_numpy_shares_the_block_map(driver: Driver, server: MisbehavingServer) -> None:
    file = driver.add(server.url("/slow", size=4 * MIB, rate=8 * MIB))
    driver.until(lambda: file.block_size)
    blocks, partial = np.asarray(file.blocks), np.asarray(file.partial)
    assert (blocks.dtype.name, blocks.shape) == ("uint8", (4,))
    assert (partial.dtype.name, partial.shape) == ("uint32", (4,))
    assert np.shares_memory(blocks, np.asarray(file.blocks))
    assert np.shares_memory(partial, np.asarray(file.partial))
    assert not (blocks == DONE).all()
    driver.end(file)
    assert (blocks == DONE).all(), "it is the engine's memory, not a copy"


def test_the_block_map_cannot_be_written(driver: Driver, server: MisbehavingServer) -> None:
    file = driver.fill(server.url("/good"))
    for view in (file.blocks, file.partial):
        assert view.readonly
        assert not np.asarray(view).flags.writeable
        with pytest.raises(TypeError):
            view[0] = 0
        with pytest.raises(ValueError):
            np.asarray(view).flags.writeable = True


def test_the_block_map_outlives_the_file(driver: Driver, server: MisbehavingServer) -> None:
    file = driver.fill(server.url("/good", size=3 * MIB))
    view = file.blocks
    driver.log.clear()
    del file
    gc.collect()
    assert bytes(view) == bytes([DONE]) * 3


@pytest.mark.parametrize("block_size", [MIB, 1000])
def test_what_is_in_the_file_is_told_to_the_byte(driver: Driver, server: MisbehavingServer, block_size: int) -> None:
    size, written = 2 * MIB, MIB + 300_500
    whole, rest = divmod(written, block_size)
    blocks = bytes(-(-size // block_size))
    url = server.url("/stall", size=size, after=written)
    file = driver.add(url, lanes=1, first_bytes=size, size=size, block_size=block_size, blocks=blocks)
    driver.until(lambda: file.downloaded == written)
    assert file.contiguous == written
    assert bytes(file.blocks).count(DONE) == bytes(file.blocks).rfind(DONE) + 1 == whole
    assert file.blocks[whole] == CLAIMED
    assert file.partial[whole] == rest
    assert file.tag.octets[:written] == content(size)[:written]
    file.remove()
    driver.end(file)
    assert set(file.blocks[whole:]) == {MISSING}, "nobody has them any more"
    assert (file.partial[whole], file.downloaded, file.contiguous) == (rest, written, written)


def test_a_stream_has_no_block_map_and_still_counts(driver: Driver, server: MisbehavingServer) -> None:
    file = driver.fill(server.url("/chunked", size=3 * MIB))
    assert (len(file.blocks), file.block_size) == (0, 0)
    assert (file.size, file.downloaded, file.contiguous, file.splits) == (3 * MIB, 3 * MIB, 3 * MIB, False)
    assert file.tag.octets == content(3 * MIB)


def test_an_unranged_file_is_asked_for_in_one_piece(driver: Driver, server: MisbehavingServer) -> None:
    file = driver.fill(server.url("/good", size=3 * MIB), ranged=False)
    assert [request.headers.get("range") for request in server.requests] == [None]
    assert file.tag.octets == content(3 * MIB)


@pytest.mark.parametrize("route", ["/good", "/no-ranges", "/empty-200"])
def test_a_probe_learns_what_there_is_and_leaves_the_file_alone(
    driver: Driver, server: MisbehavingServer, route: str
) -> None:
    size = 0 if route == "/empty-200" else 8 * MIB
    # An answer to a range that says the file is empty is not trusted.
    file = driver.add(server.url(route, size=size), b"mine", probe=True, ranged=size > 0)
    driver.until(lambda: driver.names(file))
    time.sleep(0.05)
    driver.take()
    assert driver.names(file) == ["ANSWERED"]
    assert (file.size, file.requests, file.lanes_busy) == (size, 1, 0)
    assert file.validators() == (etag(size), http_date(modified()))
    assert "ETag: " in driver.log[0].headers
    file.remove()
    assert driver.end(file).name == "REMOVED"
    assert file.tag.octets == b"mine"


@pytest.mark.parametrize("allocation", ["none", "trunc", "falloc"])
def test_allocation_is_what_the_file_gets_at_its_first_answer(
    driver: Driver, server: MisbehavingServer, allocation: str
) -> None:
    size = 8 * MIB
    # More than fits in a lane's buffer.
    file = driver.add(server.url("/stall", size=size, after=100_000), allocation=allocation, lanes=1)
    part: Part = file.tag
    driver.until(lambda: "ANSWERED" in driver.names(file) and file.downloaded > 0)
    found = part.path.stat()
    assert 0 < found.st_size <= 100_000 if allocation == "none" else found.st_size == size
    if allocation != "falloc":
        assert found.st_blocks * 512 < size
    file.remove()
    driver.end(file)


def test_the_callers_tag_is_kept_as_it_is(driver: Driver) -> None:
    tag = object()
    assert File(0, URL, driver.profile, tag=tag).tag is tag
    assert File(0, URL, driver.profile).tag is None


def test_counts_of_handles_are_of_open_engines_alone(driver: Driver, server: MisbehavingServer) -> None:
    driver.fill(server.url("/good", size=16 * MIB), lanes=4, least_bytes=MIB)
    assert 1 <= _engine.live_handles() <= 4, "lanes are kept for the next file"
    driver.fill(server.url("/good", size=15 * MIB), lanes=4, least_bytes=MIB)
    assert _engine.live_handles() <= 4
    driver.engine.close()
    assert _engine.live_handles() == 0
