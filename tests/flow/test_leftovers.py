"""The files of a stopped download: none of them is left behind, and nobody else's files are touched."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rangefetch
from rangefetch import DownloadManager, DownloadStatus
from rangefetch.disk.target import Target
from rangefetch.errors import ChecksumMismatch, DiskError, DownloadError, LocalError, TargetExists
from servers.directed import Valve
from servers.misbehaving import MisbehavingServer, content
from support.downloads import QUICK, downloaded, fetch, interrupt
from support.files import MIB, begun, names
from support.waiting import until

SIZE = 9 * MIB


def _where(target: Path, **options: Any) -> dict[str, Any]:
    return QUICK | {"save_dir": target.parent, "filename": target.name} | options


def _paused(manager: DownloadManager, url: str, target: Path, **options: Any) -> str:
    gid = manager.download(url, _where(target, **options))
    until(lambda: downloaded(manager, gid) > MIB)
    manager.pause(gid)
    until(lambda: manager.get_download_progress(gid).status is DownloadStatus.PAUSED)
    return gid


def _fails_its_checksum(manager: DownloadManager, gid: str) -> None:
    with pytest.raises(ChecksumMismatch):
        manager.wait(gid, 30)


WRONG = f"md5={hashlib.md5(b'else').hexdigest()}"


# -- batches ------------------------------------------------------------------------------------------------------


def test_what_a_single_download_has_left_is_gone_on_with_by_fetch_many(
    server: MisbehavingServer, valve: Valve, target: Path
) -> None:
    urls = [server.url(f"/valve/{name}", size=900_000) for name in ("a.bin", "b.bin")]
    with DownloadManager() as manager:
        gid = manager.download(urls[0], QUICK | {"save_dir": target.parent, "max_download_limit": "100K"})
        until(lambda: downloaded(manager, gid) > 100_000)
    assert len(names(target.parent)) == 2
    valve.open()
    results = rangefetch.fetch_many(urls, target.parent)
    assert names(target.parent) == ["a.bin", "b.bin"]
    assert results[0].resumed > 100_000


# -- moving -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["filename", "save_dir", "both"])
@pytest.mark.parametrize("device", ["the same", "another"])
def test_another_name_or_directory_takes_the_progress_along(
    server: MisbehavingServer, valve: Valve, target: Path, small_disk: Path, change: str, device: str
) -> None:
    url = server.url("/valve/x", size=6 * MIB)
    directory = (small_disk if device == "another" else target.parent.parent) / "new"
    new = {
        "filename": target.with_name("new.bin"),
        "save_dir": directory / target.name,
        "both": directory / "new.bin",
    }[change]
    with DownloadManager() as manager:
        gid = _paused(manager, url, target)
        kept = downloaded(manager, gid)
        if change != "save_dir":
            manager.change_options(gid, filename=new.name)
        if change != "filename":
            manager.change_options(gid, save_dir=new.parent)
        assert names(new.parent) == begun(new)
        assert change == "filename" or names(target.parent) == []
        valve.open()
        manager.resume(gid)
        result = manager.wait(gid, 30)
    assert (result.path, result.resumed) == (new, kept)
    assert new.read_bytes() == content(6 * MIB)
    assert names(new.parent) == [new.name]


def test_another_name_changes_nothing_of_others(server: MisbehavingServer, valve: Valve, target: Path) -> None:
    url = server.url("/valve/x", size=SIZE)
    target.with_name("new.part").write_bytes(b"theirs")
    interrupt_other = server.url("/valve/y", size=SIZE)
    with DownloadManager() as manager:
        gid = _paused(manager, url, target)
        other = _paused(manager, interrupt_other, target.with_name("other"))
        with pytest.raises(TargetExists, match="unfinished"):
            manager.change_options(gid, filename="other")
        manager.change_options(gid, filename="new")
        valve.open()
        for each in (gid, other):
            manager.resume(each)
            assert manager.wait(each, 30).resumed > MIB
    assert names(target.parent) == ["new", "new.part", "other"]
    assert target.with_name("new.part").read_bytes() == b"theirs"


def test_a_move_that_finds_no_room_changes_nothing(
    server: MisbehavingServer, valve: Valve, target: Path, small_disk: Path
) -> None:
    url = server.url("/valve/x", size=SIZE)
    (small_disk / "ballast").write_bytes(bytes(7 * MIB + MIB // 2))
    with DownloadManager() as manager:
        gid = _paused(manager, url, target)
        before = {path.name: path.read_bytes() for path in target.parent.iterdir()}
        with pytest.raises(DiskError):
            manager.change_options(gid, save_dir=small_disk)
        assert {path.name: path.read_bytes() for path in target.parent.iterdir()} == before
        assert names(small_disk) == ["ballast"]
        valve.open()
        manager.resume(gid)
        assert manager.wait(gid, 30).resumed > MIB


# -- wrong checksums ------------------------------------------------------------------------------------------------


def test_each_retry_after_a_wrong_checksum_keeps_one_copy(server: MisbehavingServer, target: Path) -> None:
    with DownloadManager() as manager:
        gid = manager.download(server.url("/good/x", size=1000), _where(target, checksum=WRONG))
        for _ in range(3):
            _fails_its_checksum(manager, gid)
            assert names(target.parent) == ["file.bin.bad"]
            manager.retry(gid)
        _fails_its_checksum(manager, gid)
        manager.cancel(gid, remove_files=True)
    assert names(target.parent) == []


def test_cancelling_removes_what_this_download_set_aside_and_nothing_else(
    server: MisbehavingServer, target: Path, tmp_path: Path
) -> None:
    target.with_name("file.bin.bad").write_bytes(b"theirs")
    with DownloadManager(session_file=tmp_path / "session") as manager:
        gid = manager.download(server.url("/good/x", size=1000), _where(target, checksum=WRONG))
        _fails_its_checksum(manager, gid)
        assert names(target.parent) == ["file.bin.bad", "file.bin.bad.1"]
    with DownloadManager(session_file=tmp_path / "session", max_concurrent_downloads=1) as manager:
        # It fails again, or it waits: either way it knows what it had set aside.
        manager.cancel(gid, remove_files=True)
    assert names(target.parent) == ["file.bin.bad"]
    assert target.with_name("file.bin.bad").read_bytes() == b"theirs"


def test_a_file_that_has_taken_the_name_of_what_was_set_aside_stays(server: MisbehavingServer, target: Path) -> None:
    with DownloadManager() as manager:
        gid = manager.download(server.url("/good/x", size=1000), _where(target, checksum=WRONG))
        _fails_its_checksum(manager, gid)
        bad = target.with_name("file.bin.bad")
        bad.unlink()
        bad.write_bytes(b"theirs")
        manager.cancel(gid, remove_files=True)
    assert bad.read_bytes() == b"theirs"


# -- cancelling -----------------------------------------------------------------------------------------------------


@pytest.fixture
def busy() -> Iterator[DownloadManager]:
    """A manager for one download at a time."""
    with DownloadManager(max_concurrent_downloads=1) as manager:
        yield manager


def test_cancelling_one_that_only_waited_removes_nothing(
    server: MisbehavingServer, valve: Valve, target: Path, busy: DownloadManager
) -> None:
    earlier = server.url("/valve/earlier", size=SIZE)
    interrupt(earlier, target, MIB)
    left = {path.name: path.read_bytes() for path in target.parent.iterdir()}
    busy.download(server.url("/valve/first", size=SIZE), {"save_dir": target.parent.parent})
    target.with_name("doc.part").write_bytes(b"mine")
    left["doc.part"] = b"mine"
    for url, name in ((earlier, target.name), (server.url("/good/doc", size=5), "doc")):
        gid = busy.download(url, {"save_dir": target.parent, "filename": name})
        assert busy.get_download_progress(gid).status is DownloadStatus.WAITING
        busy.cancel(gid, remove_files=True)
    assert {path.name: path.read_bytes() for path in target.parent.iterdir()} == left


@pytest.mark.parametrize("how", ["active", "paused", "failed", "restored"])
def test_cancelling_removes_what_this_download_created(
    server: MisbehavingServer, valve: Valve, target: Path, tmp_path: Path, how: str
) -> None:
    foreign = {"file.bin.part": b"theirs", "file.bin.bad": b"theirs"}
    for name, octets in foreign.items():
        target.with_name(name).write_bytes(octets)
    url = server.url("/valve/x", size=SIZE)
    manager = DownloadManager(session_file=tmp_path / "session")
    with manager:
        gid = manager.download(url, _where(target, total_timeout=0.6 if how == "failed" else 0))
        until(lambda: downloaded(manager, gid) > MIB)
        if how == "failed":
            with pytest.raises(DownloadError):
                manager.wait(gid, 30)
        elif how != "active":
            manager.pause(gid)
        if how != "restored":
            manager.cancel(gid, remove_files=True)
    if how == "restored":
        with DownloadManager(session_file=tmp_path / "session") as manager:
            manager.cancel(gid, remove_files=True)
    assert {path.name: path.read_bytes() for path in target.parent.iterdir()} == foreign


def test_an_unfinished_file_is_never_taken_from_under_another_download(
    server: MisbehavingServer, valve: Valve, target: Path, manager: DownloadManager
) -> None:
    url = server.url("/valve/x", size=SIZE)
    gid = _paused(manager, url, target)
    held = Target.open(target.parent, target.name, url)
    try:
        with pytest.raises(LocalError):
            manager.change_options(gid, filename="other")
        assert names(target.parent) == begun(target)
    finally:
        held.close()


# -- empty files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["fetch", "fetch_many"])
def test_an_empty_file_is_already_complete_the_second_time(server: MisbehavingServer, target: Path, how: str) -> None:
    url = server.url("/empty/file.bin", mtime=0, etag="none")
    for number in range(2):
        if how == "fetch":
            result = fetch(url, target)
        else:
            [result] = rangefetch.fetch_many([url], target.parent)
        assert result.size == 0
        assert result.already_complete == bool(number)
    assert names(target.parent) == ["file.bin"]
