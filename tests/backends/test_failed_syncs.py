"""A disk that loses written data and reports it once: data that it may have lost no longer counts.

Linux reports a failed write-back to one fsync, drops the pages, and lets the next fsync succeed. The disk here does the
same: at a sync that fails, the part file returns to its content at the last sync that succeeded.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backends.conftest import Make
from rangefetch import DownloadManager, DownloadStatus
from rangefetch.errors import DiskError
from rangefetch.transfer import keeping
from servers.directed import Valve
from servers.misbehaving import MisbehavingServer, content
from support.downloads import QUICK, downloaded, into
from support.files import MIB, names
from support.waiting import until

SIZE = 12 * MIB + 12_345
LONG = 4 * SIZE


class LosingDisk:
    """An ``os.fsync`` for a disk that loses data; ``fails`` chooses the failing syncs by file name and number."""

    def __init__(self, fails: Callable[[str, int], bool], error: int = errno.EIO) -> None:
        self.armed = False
        self.failed = 0
        self.synced: dict[str, int] = {}
        self._fails = fails
        self._error = error
        self._real = os.fsync
        self._kept: dict[str, bytes] = {}

    def fsync(self, fd: int) -> None:
        name, size = _name_of(fd), os.fstat(fd).st_size
        number = self.synced[name] = self.synced.get(name, 0) + 1
        if not self._fails(name, number):
            # Data written during this sync may or may not be on the disk; here it is not.
            if _is_part(name):
                self._kept[name] = os.pread(fd, size, 0)
            self._real(fd)
            return
        self.failed += 1
        if _is_part(name):
            kept = self._kept.get(name, b"")
            os.pwrite(fd, kept + bytes(size - len(kept)), 0)
        raise OSError(self._error, os.strerror(self._error))


def _name_of(fd: int) -> str:
    """The current name of an open file, which may have had none when it was opened."""
    path = Path(f"/proc/self/fd/{fd}").readlink()
    found = (each.name for each in path.parent.iterdir() if os.path.samestat(each.lstat(), os.fstat(fd)))
    return next(found, path.name)


@pytest.fixture
def losing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., LosingDisk]:
    def make(fails: Callable[[str, int], bool], error: int = errno.EIO) -> LosingDisk:
        disk = LosingDisk(fails, error)
        monkeypatch.setattr(os, "fsync", disk.fsync)
        return disk

    return make


def _is_part(name: str) -> bool:
    return name.endswith(".part")


def _fails_at(manager: DownloadManager, gid: str, error: int) -> None:
    with pytest.raises(DiskError) as caught:
        manager.wait(gid, 30)
    assert caught.value.errno == error
    assert "sync" in str(caught.value)
    assert manager.get_download_progress(gid).status is DownloadStatus.ERROR


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("how", ["retry", "another manager"])
def test_what_a_pause_could_not_sync_is_fetched_again(
    manage: Make,
    server: MisbehavingServer,
    valve: Valve,
    target: Path,
    losing: Callable[..., LosingDisk],
    error: int,
    durable: bool,
    how: str,
) -> None:
    """The first pause is saved, the second is not: the data between them is lost, and is not counted."""
    url = server.url("/valve/x", size=LONG, etag='"a"')
    with manage() as manager:
        disk: Any = losing(lambda name, _: disk.armed and disk.failed == 0 and _is_part(name), error)
        options = into(target, target.name, durable=durable, total_timeout=60.0)
        gid = manager.download(url, options)
        until(lambda: downloaded(manager, gid) > 2 * MIB)
        manager.pause(gid)
        saved = target.with_name("file.bin.part.json").read_bytes()
        begun = downloaded(manager, gid)
        disk.armed = True
        manager.resume(gid)
        until(lambda: downloaded(manager, gid) > begun + 2 * MIB)
        manager.pause(gid)
        assert disk.failed == 1
        _fails_at(manager, gid, error)
        assert names(target.parent) == ["file.bin.part", "file.bin.part.json"]
        assert len(target.with_name("file.bin.part.json").read_bytes()) == pytest.approx(len(saved), abs=200)
        valve.open()
        if how == "retry":
            manager.retry(gid)
            result = manager.wait(gid, 30)
    if how != "retry":
        with manage() as manager:
            result = manager.download_and_wait(url, options)
    assert 0 < result.resumed <= begun
    assert target.read_bytes() == content(LONG)
    assert names(target.parent) == ["file.bin"]


@pytest.mark.parametrize("how", ["retry", "another manager"])
def test_a_file_that_could_not_be_synced_gets_no_name(
    manage: Make, server: MisbehavingServer, target: Path, losing: Callable[..., LosingDisk], how: str
) -> None:
    disk = losing(lambda name, number: _is_part(name) and number == 1)
    url = server.url("/good/x", size=SIZE, etag='"a"')
    options = into(target, target.name, durable=True)
    with manage() as manager:
        gid = manager.download(url, options)
        _fails_at(manager, gid, errno.EIO)
        assert disk.failed == 1
        assert not target.exists()
        if how == "retry":
            manager.retry(gid)
            manager.wait(gid, 30)
    if how != "retry":
        with manage() as manager:
            manager.download_and_wait(url, options)
    assert target.read_bytes() == content(SIZE)
    assert names(target.parent) == ["file.bin"]


def test_a_file_that_is_there_is_not_replaced_by_one_that_could_not_be_synced(
    manager: DownloadManager, server: MisbehavingServer, target: Path, losing: Callable[..., LosingDisk]
) -> None:
    target.write_bytes(b"what was there before")
    losing(lambda name, _: _is_part(name))
    gid = manager.download(server.url("/good/x", size=SIZE), into(target, target.name, durable=True, overwrite=True))
    _fails_at(manager, gid, errno.EIO)
    assert target.read_bytes() == b"what was there before"


@pytest.mark.parametrize("durable", [False, True])
def test_a_name_that_could_not_be_synced_is_an_error_only_where_that_was_asked_for(
    manager: DownloadManager, server: MisbehavingServer, target: Path, losing: Callable[..., LosingDisk], durable: bool
) -> None:
    losing(lambda name, _: name == target.parent.name)
    gid = manager.download(server.url("/good/x", size=SIZE), into(target, target.name, durable=durable))
    if durable:
        with pytest.raises(DiskError, match="cannot sync its directory"):
            manager.wait(gid, 30)
    else:
        manager.wait(gid, 30)
    assert target.read_bytes() == content(SIZE)
    assert names(target.parent) == ["file.bin"]


def test_a_close_that_reports_lost_writes_comes_before_the_name(
    manager: DownloadManager, server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS reports failed writes at close."""
    real = os.close
    failed: list[int] = []

    def close(fd: int) -> None:
        if not failed and _name_of(fd) == "file.bin.part" and os.fstat(fd).st_size == SIZE:
            failed.append(fd)
            real(fd)
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        real(fd)

    monkeypatch.setattr(os, "close", close)
    gid = manager.download(server.url("/good/x", size=SIZE), into(target, target.name))
    _fails_at(manager, gid, errno.EDQUOT)
    assert not target.exists()
    manager.retry(gid)
    manager.wait(gid, 30)
    assert target.read_bytes() == content(SIZE)


# -- saves on the way, which only the native engine makes ------------------------------------------------------------


@pytest.mark.parametrize("number", range(1, 6))
@pytest.mark.parametrize("of", [".part", ".tmp"])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("backend", ["native"])
def test_each_sync_of_the_saves_on_the_way_may_fail(
    manager: DownloadManager,
    server: MisbehavingServer,
    valve: Valve,
    target: Path,
    losing: Callable[..., LosingDisk],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    of: str,
    error: int,
) -> None:
    monkeypatch.setattr(keeping, "_FIRST_SAVE_S", 0.0)
    monkeypatch.setattr(keeping, "_SAVE_EVERY_S", 0.0)
    valve.narrow(MIB // 2)  # leaves time for more than five saves
    url = server.url("/valve/x", size=SIZE, etag='"a"')
    disk = losing(lambda name, now: name.endswith(of) and now == number, error)
    gid = manager.download(url, QUICK | into(target, target.name))
    until(lambda: disk.failed)
    valve.open()
    if of == ".tmp" and error == errno.ENOSPC:
        manager.wait(gid, 30)  # no room for the state is no reason to stop
    else:
        with pytest.raises(DiskError) as caught:
            manager.wait(gid, 30)
        assert caught.value.errno == error
        assert not target.exists()
        again: dict[str, Any] = into(target, target.name)
        manager.download_and_wait(url, again)
    assert disk.failed == 1
    assert target.read_bytes() == content(SIZE)
    assert names(target.parent) == ["file.bin"]
