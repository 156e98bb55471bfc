"""A download changes hands: begun by one backend, finished by the other, with what was done kept."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aria2.driving import MIB, Desk, downloaded, names, until
from rangefetch import state
from rangefetch.aria2.control_file import ControlFile, to_control_file
from rangefetch.errors import EngineUnavailable
from rangefetch.native import NativeBackend
from rangefetch.state import SourceState
from servers.misbehaving import MisbehavingServer, content, etag

SIZE = 32 * MIB + 7
SLACK = 5 * MIB
"""What a connection that is cut has sent in vain: it lies in the buffers of its sockets."""


@pytest.fixture
def native() -> Iterator[Desk]:
    """Someone who asks the native backend."""
    desk = Desk()
    backend = desk.backend = NativeBackend(desk)
    try:
        backend.start()
    except EngineUnavailable as error:
        pytest.skip(f"there is nobody to hand over to: {error}")
    yield desk
    backend.stop()


def _half_done(desk: Desk, server: MisbehavingServer, target: Path) -> int:
    """Begin it, stop it half-way, and return the bytes that are kept."""
    download = desk.begin(server.url("/shared-rate/x", size=SIZE, rate="48M"), target)
    until(lambda: downloaded(download) > SIZE // 2)
    desk.halt(download)
    server.wait_idle()
    server.clear()
    assert names(target.parent) == ["file.bin.part", "file.bin.part.json"]
    saved = state.load(target.with_name("file.bin.part.json"))
    return ControlFile.parse(to_control_file(saved)).written_bytes


def _finish(desk: Desk, server: MisbehavingServer, target: Path, kept: int) -> None:
    """Finish it, and prove that only what was missing was fetched."""
    result = desk.fetch(server.url("/shared-rate/x", size=SIZE, rate="48M"), target)
    server.wait_idle()
    assert target.read_bytes() == content(SIZE)
    assert names(target.parent) == ["file.bin"]
    assert kept > SIZE // 3
    assert abs(result.resumed - kept) < 2 * MIB
    assert server.bytes_sent < SIZE - kept + SLACK


def test_begun_natively_and_finished_by_aria2(
    native: Desk, desk: Desk, server: MisbehavingServer, target: Path
) -> None:
    kept = _half_done(native, server, target)
    _finish(desk, server, target, kept)


def test_begun_by_aria2_and_finished_natively(
    native: Desk, desk: Desk, server: MisbehavingServer, target: Path
) -> None:
    kept = _half_done(desk, server, target)
    _finish(native, server, target, kept)


def test_to_and_fro(native: Desk, desk: Desk, server: MisbehavingServer, target: Path) -> None:
    url = server.url("/shared-rate/x", size=SIZE, rate="48M")
    for share, hands in enumerate([native, desk, native, desk], start=1):
        download = hands.begin(url, target)
        while downloaded(download) <= share * SIZE // 6:
            time.sleep(0.005)
        hands.halt(download)
    server.wait_idle()
    assert server.bytes_sent < SIZE + 4 * SLACK
    result = desk.fetch(url, target)
    assert result.resumed > SIZE // 2
    assert target.read_bytes() == content(SIZE)


def test_what_a_killed_aria2_left_is_gone_on_with(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    """As after a crash of this process: the control file is there, and the state says only what of."""
    url = server.url("/good/x", size=SIZE)
    done = 16
    part = bytearray(b"\xee" * SIZE)
    part[: done * MIB] = content(SIZE)[: done * MIB]
    target.with_name("file.bin.part").write_bytes(part)
    full = state.State(
        url=url,
        resolved_url=url,
        total_size=SIZE,
        supports_range=True,
        sources=[SourceState(url, etag(SIZE))],
        block_size=MIB,
        blocks=b"\x02" * done + bytes(33 - done),
        partial={},
    )
    target.with_name("file.bin.part.aria2").write_bytes(to_control_file(full))
    empty = state.State(url, url, SIZE, True, [SourceState(url, etag(SIZE))], MIB, bytes(33), {})
    state.save(target.with_name("file.bin.part.json"), empty)
    result = desk.fetch(url, target)
    server.wait_idle()
    assert result.resumed == done * MIB
    assert target.read_bytes() == content(SIZE)
    assert server.bytes_sent < SIZE - done * MIB + SLACK
    assert names(target.parent) == ["file.bin"]


@pytest.mark.parametrize("damage", ["zeros", "cut", "another size", "no state", "another url"])
def test_a_control_file_that_cannot_be_trusted_is_not(
    desk: Desk, server: MisbehavingServer, target: Path, damage: str
) -> None:
    url = server.url("/good/x", size=SIZE)
    target.with_name("file.bin.part").write_bytes(b"\xee" * SIZE)
    full = state.State(url, url, SIZE, True, [SourceState(url, etag(SIZE))], MIB, b"\x02" * 33, {})
    octets = to_control_file(full)
    saved = state.State(url, url, SIZE, True, [SourceState(url, etag(SIZE))], MIB, bytes(33), {})
    match damage:
        case "zeros":
            octets = bytes(len(octets))
        case "cut":
            octets = octets[:-3]
        case "another size":
            octets = to_control_file(
                state.State(url, url, SIZE + 1, True, [SourceState(url, etag(SIZE))], MIB, b"\x02" * 33, {})
            )
        case "another url":
            saved.url = url + "&id=other"
    target.with_name("file.bin.part.aria2").write_bytes(octets)
    if damage != "no state":
        state.save(target.with_name("file.bin.part.json"), saved)
    result = desk.fetch(url, target)
    assert result.resumed == 0
    assert target.read_bytes() == content(SIZE)


def test_a_file_that_was_whole_needs_no_byte(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    url = server.url("/good/x", size=SIZE)
    target.with_name("file.bin.part").write_bytes(content(SIZE))
    whole = state.State(url, url, SIZE, True, [SourceState(url, etag(SIZE))], MIB, b"\x02" * 33, {})
    state.save(target.with_name("file.bin.part.json"), whole)
    result = desk.fetch(url, target)
    server.wait_idle()
    assert result.resumed == SIZE
    assert server.bytes_sent == 1
    assert target.read_bytes() == content(SIZE)
