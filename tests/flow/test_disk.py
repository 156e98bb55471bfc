"""What the disk does to a download, and what a download does to the disk."""

import errno
import os
import re
import stat
from pathlib import Path

import pytest

from flow.children import as_json, run_child
from rangefetch import DownloadManager
from rangefetch.disk import replacing
from rangefetch.errors import DiskError
from rangefetch.transfer import space
from servers.directed import Valve
from servers.misbehaving import MisbehavingServer, content
from support.downloads import QUICK, downloaded, fails, fetch, interrupt
from support.files import MIB, names, saved_bytes
from support.waiting import until

SIZE = 16 * MIB


@pytest.mark.parametrize("allocation", ["falloc", "trunc", "none"])
def test_a_file_that_does_not_fit_is_a_clear_error_and_is_never_named(
    server: MisbehavingServer, small_disk: Path, allocation: str
) -> None:
    # Without a rate limit, all of it could be sent before the first response is dealt with.
    url = server.url("/good/x", size=SIZE, rate="8M")
    error = fails(DiskError, url, small_disk / "x", file_allocation=allocation)
    assert error.errno == errno.ENOSPC
    assert isinstance(error, OSError)
    assert names(small_disk) == []
    assert server.bytes_sent < SIZE
    assert os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize >= 2 * MIB


@pytest.mark.parametrize("route", ["no-length", "chunked"])
def test_a_stream_that_does_not_fit_is_a_clear_error_and_leaves_nothing(
    server: MisbehavingServer, small_disk: Path, route: str
) -> None:
    error = fails(DiskError, server.url(f"/{route}/x", size=SIZE), small_disk / "x")
    assert error.errno == errno.ENOSPC
    assert names(small_disk) == []


def test_a_disk_that_fills_midway_keeps_what_came(
    server: MisbehavingServer, valve: Valve, small_disk: Path, manager: DownloadManager
) -> None:
    target, size = small_disk / "x", 6 * MIB
    url = server.url("/valve/x", size=size)
    where = {"save_dir": small_disk, "filename": "x", "file_allocation": "none", "split": 1}
    gid = manager.download(url, QUICK | where)
    until(lambda: downloaded(manager, gid) > MIB)
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space"):
        ballast.write_bytes(bytes(SIZE))
    with pytest.raises(DiskError, match=r"\d+ more bytes are needed, but only 0 are free") as caught:
        manager.wait(gid)
    assert caught.value.errno == errno.ENOSPC
    assert names(small_disk) == ["ballast", "x.part", "x.part.json"]
    ballast.unlink()
    valve.open()
    result = fetch(url, target)
    assert target.read_bytes() == content(size)
    assert result.resumed >= MIB


def test_a_disk_that_is_full_to_the_last_byte_does_no_harm_to_the_next_run(
    server: MisbehavingServer, valve: Valve, small_disk: Path, manager: DownloadManager
) -> None:
    target, size = small_disk / "x", 6 * MIB
    url = server.url("/valve/x", size=size)
    where = {"save_dir": small_disk, "filename": "x", "file_allocation": "none"}
    gid = manager.download(url, QUICK | where)
    until(lambda: downloaded(manager, gid) > MIB)
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space"):
        ballast.write_bytes(bytes(SIZE))
    with pytest.raises(DiskError):
        manager.wait(gid)
    assert not target.exists()
    ballast.unlink()
    valve.open()
    fetch(url, target)
    assert target.read_bytes() == content(size)
    assert names(small_disk) == ["x"]


def _free(directory: Path) -> int:
    figures = os.statvfs(directory)
    return figures.f_bavail * figures.f_frsize


def _numbers(error: DiskError) -> list[int]:
    return [int(word) for word in re.findall(r"\b\d+\b", error.reason.partition(": ")[2])]


@pytest.mark.parametrize("allocation", ["falloc", "trunc", "none"])
def test_what_others_at_work_still_need_is_not_free(
    server: MisbehavingServer, valve: Valve, small_disk: Path, manager: DownloadManager, allocation: str
) -> None:
    where = {"save_dir": small_disk, "file_allocation": allocation}
    first = manager.download(server.url("/valve/x", size=5 * MIB), QUICK | where)
    until(lambda: downloaded(manager, first) > 0)
    if allocation == "falloc":  # the space is reserved after the first bytes
        until(lambda: _free(small_disk) <= 3 * MIB)
    # Slow, so that the response is dealt with before much of its body has arrived.
    with pytest.raises(DiskError) as caught:
        manager.download_and_wait(server.url("/slow/y", size=6 * MIB, rate=MIB), QUICK | where)
    *needed, left = _numbers(caught.value)
    assert caught.value.errno == errno.ENOSPC
    assert left < sum(needed) <= 11 * MIB
    assert needed[0] > 5 * MIB
    # The error lists what the first download lacks, unless its space is reserved and thus no longer free.
    assert len(needed) == (1 if allocation == "falloc" else 2)
    valve.open()
    assert manager.wait(first).size == 5 * MIB
    assert names(small_disk) == ["x"]


def test_where_there_is_room_for_all_nobody_looks_at_the_files_of_others(
    server: MisbehavingServer, valve: Valve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise each download would look at every other: for a thousand at a time, a million files were opened."""
    looks: list[Path] = []
    look = space._allocated_bytes

    def counted(path: Path, url: str) -> int:
        looks.append(path)
        return look(path, url)

    monkeypatch.setattr(space, "_allocated_bytes", counted)
    with DownloadManager(max_concurrent_downloads=12) as manager:
        options = QUICK | {"save_dir": tmp_path}
        gids = [manager.download(server.url(f"/valve/{number}", size=3 * MIB), options) for number in range(12)]
        until(lambda: all(downloaded(manager, gid) > 0 for gid in gids))
        valve.open()
        assert [manager.wait(gid).size for gid in gids] == [3 * MIB] * 12
    assert looks == []


def test_what_is_announced_must_fit_beside_what_was_asked_for_before(
    server: MisbehavingServer, valve: Valve, small_disk: Path
) -> None:
    def options(size: int) -> dict[str, object]:
        return QUICK | {"save_dir": small_disk, "expected_size": size, "file_allocation": "none"}

    free = _free(small_disk)
    with DownloadManager(max_concurrent_downloads=1) as manager:
        active = manager.download(server.url("/valve/active", size=3 * MIB), options(3 * MIB))
        waiting = manager.download(server.url("/good/waiting", size=3 * MIB), options(3 * MIB))
        refused = manager.download(server.url("/good/refused", size=3 * MIB), options(3 * MIB))
        assert manager.get_download_progress(refused).status == "error"
        with pytest.raises(DiskError) as caught:
            manager.wait(refused, timeout=0)
        needed, others, left = _numbers(caught.value)
        assert (needed, caught.value.errno) == (3 * MIB, errno.ENOSPC)
        assert left <= free
        assert needed + others > left >= others
        # A download that no longer waits needs nothing.
        manager.cancel(waiting)
        manager.retry(refused)
        assert manager.get_download_progress(refused).status == "waiting"
        valve.open()
        assert [manager.wait(gid).size for gid in (active, refused)] == [3 * MIB, 3 * MIB]
    assert names(small_disk) == ["active", "refused"]
    assert all("waiting" not in request.path for request in server.requests)


def test_what_a_part_file_has_already_is_not_asked_for_again(
    server: MisbehavingServer, valve: Valve, small_disk: Path
) -> None:
    url, where = server.url("/valve/x", size=6 * MIB), {"save_dir": small_disk, "expected_size": 6 * MIB}
    with DownloadManager() as manager:
        gid = manager.download(url, QUICK | where)
        until(lambda: downloaded(manager, gid) > MIB)
        manager.pause(gid)
        assert _free(small_disk) < 6 * MIB
        manager.resume(gid)
        until(lambda: manager.get_download_progress(gid).connections)
    valve.open()
    assert fetch(url, small_disk, expected_size=6 * MIB).resumed > MIB
    # A complete file needs no space at all.
    assert fetch(url, small_disk, expected_size=6 * MIB).already_complete


def test_other_filesystems_have_room_of_their_own(
    server: MisbehavingServer, valve: Valve, small_disk: Path, tmp_path: Path, manager: DownloadManager
) -> None:
    def options(directory: Path) -> dict[str, object]:
        return QUICK | {"save_dir": directory, "expected_size": 6 * MIB, "file_allocation": "none"}

    on_small = manager.download(server.url("/valve/x", size=6 * MIB), options(small_disk))
    assert manager.download_and_wait(server.url("/good/y", size=6 * MIB), options(tmp_path)).size == 6 * MIB
    assert manager.get_download_progress(on_small).status == "active"


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_the_mode_follows_the_umask(server: MisbehavingServer, target: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        fetch(server.url("/good/x", size=1000), target)
    finally:
        os.umask(before)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~umask


def test_while_it_is_unfinished_nobody_else_may_read_it(
    server: MisbehavingServer, valve: Valve, target: Path, manager: DownloadManager
) -> None:
    gid = manager.download(server.url("/valve/x", size=SIZE), {"save_dir": target.parent, "filename": target.name})
    until(lambda: downloaded(manager, gid) > 0)
    assert stat.S_IMODE(target.with_name("file.bin.part").stat().st_mode) == 0o600


@pytest.mark.parametrize("allocation", ["falloc", "trunc", "none"])
def test_however_it_is_allocated_the_file_is_the_same(server: MisbehavingServer, target: Path, allocation: str) -> None:
    fetch(server.url("/good/x", size=SIZE), target, file_allocation=allocation, durable=True)
    assert target.read_bytes() == content(SIZE)
    assert target.stat().st_blocks * 512 >= SIZE


def test_a_relative_path_works_in_a_process_of_its_own(server: MisbehavingServer, target: Path) -> None:
    relative = os.path.relpath(target)
    done = run_child("fetch", server.url("/good/x", size=1000), relative)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")
    assert target.read_bytes() == content(1000)


@pytest.mark.parametrize("allocation", ["falloc", "trunc", "none"])
def test_a_limit_of_file_sizes_keeps_what_came(server: MisbehavingServer, target: Path, allocation: str) -> None:
    """RLIMIT_FSIZE, and file systems that limit the size of a file, cause EFBIG."""
    url = server.url("/good/x", size=SIZE)
    options = as_json(split=1, file_allocation=allocation, **QUICK)
    done = run_child("fetch_with_small_files", url, target, options)
    assert done.returncode == 1, done.stderr
    assert "DiskError" in done.stdout
    assert "File too large" in done.stdout
    assert not target.exists()
    kept = saved_bytes(target)
    # With ``falloc`` and ``trunc``, setting the size already fails.
    assert kept >= 4 * MIB if allocation == "none" else True
    result = fetch(url, target)
    assert target.read_bytes() == content(SIZE)
    assert result.resumed == kept
    assert names(target.parent) == ["file.bin"]


def test_a_full_disk_keeps_what_an_earlier_run_had(server: MisbehavingServer, valve: Valve, small_disk: Path) -> None:
    target, url = small_disk / "x", server.url("/valve/x", size=6 * MIB)
    kept = interrupt(url, target, MIB, file_allocation="none")
    before = {path.name: path.read_bytes() for path in small_disk.iterdir()}
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space"):
        ballast.write_bytes(bytes(SIZE))
    for allocation in ("falloc", "none"):
        assert fails(DiskError, url, target, file_allocation=allocation).errno == errno.ENOSPC
        assert saved_bytes(target) >= kept
    assert set(before) <= set(names(small_disk))
    ballast.unlink()
    valve.open()
    assert fetch(url, target).resumed >= kept
    assert target.read_bytes() == content(6 * MIB)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_state_that_cannot_be_written_costs_nothing_that_was_saved(
    server: MisbehavingServer, valve: Valve, target: Path, monkeypatch: pytest.MonkeyPatch, number: int, call: str
) -> None:
    url = server.url("/valve/x", size=9 * MIB)
    kept = interrupt(url, target, 2 * MIB)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch, DownloadManager() as manager:
        if call == "write":
            patch.setattr(replacing, "_create_beside", refuse)
        else:
            patch.setattr(os, "fsync", refuse)
        gid = manager.download(url, QUICK | {"save_dir": target.parent, "filename": target.name})
        until(lambda: downloaded(manager, gid) > kept + MIB)
        manager.stop()
    assert saved_bytes(target) >= kept - 128 * 1024
    valve.open()
    fetch(url, target)
    assert target.read_bytes() == content(9 * MIB)
    assert names(target.parent) == ["file.bin"]
