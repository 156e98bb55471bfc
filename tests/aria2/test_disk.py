"""Downloads in aria2 when the disk fills up, when a sync fails, and when other people's files are in the way."""

import dataclasses
import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aria2.driving import Desk, downloaded
from rangefetch import DownloadManager
from rangefetch.aria2.backend import remove_leftovers
from rangefetch.disk import state, system
from rangefetch.disk.control_file import to_control_file
from rangefetch.disk.state import SourceState, State
from rangefetch.errors import ChecksumMismatch, DiskError
from rangefetch.options import DownloadOptions
from rangefetch.transfer import saving
from rangefetch.transfer.download import Download
from servers.misbehaving import MisbehavingServer, content, etag
from support.files import MIB, names
from support.waiting import until

SIZE = 6 * MIB


def _fill(disk: Path) -> Path:
    ballast = disk / "ballast"
    with pytest.raises(OSError, match="No space"):
        ballast.write_bytes(bytes(8 * MIB))
    return ballast


@pytest.mark.parametrize("then", ["aria2", "native"])
@pytest.mark.parametrize("allocation", ["none", "trunc"])
def test_a_disk_that_fills_up_keeps_what_came(
    desk: Desk, server: MisbehavingServer, small_disk: Path, allocation: str, then: str
) -> None:
    target = small_disk / "x"
    url = server.url("/slow/x", size=SIZE, rate="2M")
    download = desk.begin(url, target, file_allocation=allocation, split=1)
    until(lambda: downloaded(download) > 2 * MIB)
    ballast = _fill(small_disk)
    with pytest.raises(DiskError) as caught:
        desk.wait(download)
    assert caught.value.errno == errno.ENOSPC
    assert names(small_disk) == ["ballast", "x.part", "x.part.json"]
    ballast.unlink()
    if then == "aria2":
        result = desk.wait(desk.begin_again(download))
    else:
        with DownloadManager("native") as manager:
            result = manager.download_and_wait(url, {"save_dir": small_disk, "filename": "x"})
    assert result.resumed >= MIB
    assert target.read_bytes() == content(SIZE)
    assert names(small_disk) == ["x"]


# ---- Syncs that fail ------------------------------------------------------------------------------------------------


@pytest.fixture
def failing_sync(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Once called, makes the next sync fail, and only that one: Linux reports a lost write once."""
    failures: list[int] = []
    right = system.sync

    def sync(fd: int) -> None:
        if failures:
            failures.pop()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        right(fd)

    monkeypatch.setattr(system, "sync", sync)
    return lambda: failures.append(1)


def test_a_failed_sync_ends_a_pause_with_an_error_and_vouches_for_nothing(
    desk: Desk, server: MisbehavingServer, target: Path, failing_sync: Callable[[], None]
) -> None:
    url = server.url("/slow/x", size=9 * MIB, rate="2M")
    download = desk.begin(url, target, split=2)
    until(lambda: downloaded(download) > 2 * MIB)
    failing_sync()
    assert desk.backend is not None
    desk.backend.halt(download)
    with pytest.raises(DiskError) as caught:
        desk.wait(download)
    assert caught.value.errno == errno.EIO
    assert names(target.parent) == []  # nothing had been synced before
    assert desk.wait(desk.begin_again(download)).resumed == 0
    assert target.read_bytes() == content(9 * MIB)


def test_what_was_safe_before_stays_so(
    desk: Desk, server: MisbehavingServer, target: Path, failing_sync: Callable[[], None]
) -> None:
    url = server.url("/slow/x", size=9 * MIB, rate="2M")
    download = desk.begin(url, target, split=1)
    until(lambda: downloaded(download) > 2 * MIB)
    desk.halt(download)
    safe = state.load(target.with_name("file.bin.part.json")).written_bytes
    desk.begin_again(download)
    until(lambda: downloaded(download) > 5 * MIB)
    failing_sync()
    assert desk.backend is not None
    desk.backend.halt(download)
    with pytest.raises(DiskError):
        desk.wait(download)
    assert state.load(target.with_name("file.bin.part.json")).written_bytes == safe
    assert desk.wait(desk.begin_again(download)).resumed > MIB
    assert target.read_bytes() == content(9 * MIB)


def test_a_durable_file_whose_sync_failed_is_not_published(
    desk: Desk, server: MisbehavingServer, target: Path, failing_sync: Callable[[], None]
) -> None:
    failing_sync()
    with pytest.raises(DiskError) as caught:
        desk.fetch(server.url("/good/x", size=9 * MIB), target, durable=True)
    assert caught.value.errno == errno.EIO
    assert not target.exists()
    assert desk.fetch(server.url("/good/x", size=9 * MIB), target, durable=True).resumed == 0


# ---- Other people's files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["fifo", "huge", "link", "directory"])
def test_a_control_file_that_is_none_is_neither_waited_for_nor_read(
    desk: Desk, server: MisbehavingServer, target: Path, what: str
) -> None:
    url = server.url("/slow/x", size=9 * MIB, rate="3M")
    download = desk.begin(url, target, split=1)
    until(lambda: downloaded(download) > 2 * MIB)
    desk.halt(download)
    control = target.with_name("file.bin.part.aria2")
    match what:
        case "fifo":
            os.mkfifo(control)
        case "huge":
            with control.open("wb") as file:
                file.truncate(saving.MOST_CONTROL_BYTES + 1)
        case "link":
            control.symlink_to("/dev/zero")
        case _:
            control.mkdir()
    if what != "huge":
        before = control.lstat()
        with pytest.raises(DiskError, match="not created by rangefetch"):
            desk.wait(desk.begin_again(download), 10)
        assert os.path.samestat(control.lstat(), before)
        return
    assert desk.wait(desk.begin_again(download), 10).resumed > MIB
    assert target.read_bytes() == content(9 * MIB)


@pytest.mark.parametrize("suffix", ["part", "part.aria2", "part.json"])
def test_files_of_others_are_left_alone(desk: Desk, server: MisbehavingServer, target: Path, suffix: str) -> None:
    foreign = target.with_name(f"file.bin.{suffix}")
    foreign.write_bytes(b"precious")
    url = server.url("/slow/x", size=9 * MIB, rate="8M")
    download = desk.begin(url, target)
    until(lambda: downloaded(download) > MIB)
    desk.halt(download, remove_files=True)
    assert names(target.parent) == [foreign.name]
    desk.fetch(url, target)
    assert names(target.parent) == ["file.bin", foreign.name]
    assert foreign.read_bytes() == b"precious"


def test_aria2s_own_files_are_adopted_only_with_a_checksum(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    url = server.url("/good/x", size=9 * MIB)
    blocks = b"\x02" * 4 + bytes(5)
    control = to_control_file(State(url, url, 9 * MIB, True, [SourceState(url, etag(9 * MIB))], MIB, blocks, {}))
    part = target.with_name("file.bin.part")
    part.write_bytes(content(9 * MIB)[: 4 * MIB])
    target.with_name("file.bin.part.aria2").write_bytes(control)
    download = desk.begin(url, target)
    assert desk.wait(download).resumed == 0
    assert names(target.parent) == ["file.bin", "file.bin.part", "file.bin.part.aria2"]
    target.unlink()
    digest = hashlib.sha256(content(9 * MIB)).hexdigest()
    assert desk.fetch(url, target, checksum=f"sha-256={digest}").resumed == 4 * MIB
    assert names(target.parent) == ["file.bin"]


# ---- Nothing is left ------------------------------------------------------------------------------------------------


def test_retries_after_a_wrong_checksum_keep_one_copy(
    manager_of: Callable[..., DownloadManager], server: MisbehavingServer, target: Path
) -> None:
    manager = manager_of()
    options: dict[str, Any] = {
        "save_dir": target.parent, "filename": target.name, "checksum": "sha-256=" + "0" * 64, "retry_wait": 0.01,
    }  # fmt: skip
    gid = manager.download(server.url("/good/x", size=3 * MIB), options)
    for _ in range(3):
        with pytest.raises(ChecksumMismatch):
            manager.wait(gid)
        assert names(target.parent) == ["file.bin.bad"]
        manager.retry(gid)
    with pytest.raises(ChecksumMismatch):
        manager.wait(gid)
    assert names(target.parent) == ["file.bin.bad"]


@pytest.fixture
def manager_of(configure: Any, request: pytest.FixtureRequest) -> Callable[..., DownloadManager]:
    def make() -> DownloadManager:
        config = configure()
        known = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
        wanted = ("aria2_path", "rpc_port", "state_dir", "health_check_interval", "restart_wait")
        manager = DownloadManager("aria2", **{name: known[name] for name in wanted})
        request.addfinalizer(manager.stop)
        return manager

    return make


def test_a_temporary_control_file_goes_with_the_rest(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    download = desk.begin(server.url("/slow/x", size=9 * MIB, rate="2M"), target)
    until(lambda: downloaded(download) > MIB)
    target.with_name("file.bin.part.aria2__temp").write_bytes(b"\0\1half")
    desk.halt(download, remove_files=True)
    assert names(target.parent) == []


def test_a_download_that_waits_removes_nothing_of_others(tmp_path: Path, target: Path) -> None:
    for suffix in ("part", "part.json", "part.aria2"):
        target.with_name(f"file.bin.{suffix}").write_bytes(b"precious")
    remove_leftovers(Download("http://127.0.0.1/x", DownloadOptions(save_dir=target.parent, filename=target.name)))
    assert names(target.parent) == ["file.bin.part", "file.bin.part.aria2", "file.bin.part.json"]
