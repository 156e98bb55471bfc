"""A download started by one backend is finished by the other, which keeps the data fetched so far."""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from aria2.driving import Desk, downloaded, plain_aria2c
from rangefetch.disk import state
from rangefetch.disk.control_file import ControlFile, to_control_file
from rangefetch.disk.state import SourceState
from rangefetch.disk.target import Target
from rangefetch.errors import EngineUnavailable
from rangefetch.native.backend import NativeBackend
from servers.misbehaving import MisbehavingServer, content, etag
from support.files import MIB, names
from support.waiting import until

SIZE = 32 * MIB + 7
SLACK = 5 * MIB
"""Bytes that the server sends in vain when connections are cut: they are still in socket buffers."""


@pytest.fixture
def native() -> Iterator[Desk]:
    """A desk with a running native backend."""
    desk = Desk()
    backend = desk.backend = NativeBackend(desk)
    try:
        backend.start()
    except EngineUnavailable as error:
        pytest.skip(f"there is nobody to hand over to: {error}")
    yield desk
    backend.stop()


def _half_done(desk: Desk, server: MisbehavingServer, target: Path) -> int:
    """Start a download, stop it half-way, and return how many bytes are kept."""
    download = desk.begin(server.url("/shared-rate/x", size=SIZE, rate="12M"), target)
    until(lambda: downloaded(download) > SIZE // 2)
    desk.halt(download)
    server.wait_idle()
    server.clear()
    assert names(target.parent) == ["file.bin.part", "file.bin.part.json"]
    saved = state.load(target.with_name("file.bin.part.json"))
    return ControlFile.parse(to_control_file(saved)).written_bytes


def _finish(desk: Desk, server: MisbehavingServer, target: Path, kept: int) -> None:
    """Finish the download, and check that only missing bytes were fetched."""
    result = desk.fetch(server.url("/shared-rate/x", size=SIZE, rate="12M"), target)
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
    url = server.url("/shared-rate/x", size=SIZE, rate="12M")
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


@pytest.fixture(params=["native", "aria2"])
def hands(request: pytest.FixtureRequest, native: Desk, desk: Desk) -> Desk:
    """A desk with one of the two backends."""
    return native if request.param == "native" else desk


def test_begun_by_an_aria2c_of_the_users_own(
    hands: Desk, aria2c: Path, server: MisbehavingServer, target: Path
) -> None:
    """aria2's control file does not say which file it belongs to, so a checksum is needed."""
    url = server.url("/shared-rate/x", size=SIZE, rate="12M")
    part, control = target.with_name("file.bin.part"), target.with_name("file.bin.part.aria2")
    with plain_aria2c(aria2c, url, part):
        until(lambda: server.bytes_sent > SIZE // 2)
    server.wait_idle()
    server.clear()
    kept = ControlFile.parse(control.read_bytes()).written_bytes
    assert kept > SIZE // 3
    result = hands.fetch(url, target, checksum=f"sha-256={hashlib.sha256(content(SIZE)).hexdigest()}")
    server.wait_idle()
    assert target.read_bytes() == content(SIZE)
    assert names(target.parent) == ["file.bin"]
    assert abs(result.resumed - kept) < 4 * MIB  # in an unfinished block, only bytes from its start count
    assert server.bytes_sent < SIZE - kept + SLACK


def test_halting_what_a_killed_aria2_left_loses_nothing(native: Desk, server: MisbehavingServer, target: Path) -> None:
    url = server.url("/slow/x", size=SIZE, rate="100K")
    _leave(url, target)
    download = native.begin(url, target)
    until(lambda: downloaded(download) >= 16 * MIB)
    assert "file.bin.part.aria2" not in names(target.parent)
    native.halt(download)
    assert names(target.parent) == ["file.bin.part", "file.bin.part.json"]
    assert state.load(target.with_name("file.bin.part.json")).blocks.startswith(b"\x02" * 16)


def _leave(url: str, target: Path, done: int = 16) -> None:
    """Create the files that an aria2 leaves when it is killed with its parent: the control file records the progress,
    and the state only says which file it belongs to."""
    part = bytearray(b"\xee" * SIZE)
    part[: done * MIB] = content(SIZE)[: done * MIB]
    target.with_name("file.bin.part").write_bytes(part)
    sources = [SourceState(url, etag(SIZE))]
    full = state.State(url, url, SIZE, True, sources, MIB, b"\x02" * done + bytes(33 - done), {})
    target.with_name("file.bin.part.aria2").write_bytes(to_control_file(full))
    state.save(target.with_name("file.bin.part.json"), state.State(url, url, SIZE, True, sources, MIB, bytes(33), {}))


def test_what_a_killed_aria2_left_is_gone_on_with(hands: Desk, server: MisbehavingServer, target: Path) -> None:
    url = server.url("/good/x", size=SIZE)
    _leave(url, target)
    result = hands.fetch(url, target)
    server.wait_idle()
    assert result.resumed == 16 * MIB
    assert target.read_bytes() == content(SIZE)
    assert server.bytes_sent < SIZE - 16 * MIB + SLACK
    assert names(target.parent) == ["file.bin"]


@pytest.mark.parametrize("damage", ["zeros", "cut", "another size", "longer than the file", "no state", "another url"])
def test_a_control_file_that_cannot_be_trusted_is_not(
    hands: Desk, server: MisbehavingServer, target: Path, damage: str
) -> None:
    url = server.url("/good/x", size=SIZE)
    part = target.with_name("file.bin.part")
    part.write_bytes(b"\xee" * SIZE)
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
        case "longer than the file":
            part.write_bytes(b"\xee" * (SIZE - 1))
        case "another url":
            saved.url = url + "&id=other"
    target.with_name("file.bin.part.aria2").write_bytes(octets)
    if damage != "no state":
        state.save(target.with_name("file.bin.part.json"), saved)
    result = hands.fetch(url, target)
    assert result.resumed == 0
    assert target.read_bytes() == content(SIZE)
    left = [name for name in names(target.parent) if name.endswith((".part", ".aria2"))]
    # Without a state of ours and without a checksum, these files count as somebody else's.
    assert left == (["file.bin.part", "file.bin.part.aria2"] if damage == "no state" else [])


def test_a_file_that_was_whole_needs_no_byte(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    url = server.url("/good/x", size=SIZE)
    with closing(Target.open(target.parent, target.name, url)) as opened:
        os.pwrite(opened.fd, content(SIZE), 0)
        opened.save_state(state.State(url, url, SIZE, True, [SourceState(url, etag(SIZE))], MIB, b"\x02" * 33, {}))
    result = desk.fetch(url, target)
    server.wait_idle()
    assert result.resumed == SIZE
    assert server.bytes_sent == 1
    assert target.read_bytes() == content(SIZE)
