"""An existing file with the target's name: it is either the requested file, or must not be touched."""

import hashlib
import os
from pathlib import Path

import pytest

from rangefetch import DownloadManager
from rangefetch.errors import ChecksumMismatch, DownloadError, HttpStatusError, TargetExists
from servers.misbehaving import MisbehavingServer, content, modified
from support.downloads import downloaded, fails, fetch, interrupt
from support.files import MIB, begun, names, saved_bytes
from support.waiting import until

SIZE = 24 * MIB + 7
TINY = 64 << 10
"""More than is sent for a response of one byte, and far less than the file."""


def _digest(size: int, seed: int = 0) -> str:
    return f"sha-256={hashlib.sha256(content(size, seed)).hexdigest()}"


@pytest.mark.parametrize("route", ["good", "redirect", "close-each"])
def test_a_finished_file_is_already_complete_and_costs_next_to_nothing(
    server: MisbehavingServer, target: Path, route: str
) -> None:
    url = server.url(f"/{route}/x", size=SIZE)
    first = fetch(url, target)
    assert not first.already_complete
    before = target.stat()
    server.clear()
    result = fetch(url, target)
    server.wait_idle()
    assert result.already_complete
    assert (result.path, result.size, result.filename) == (target, SIZE, "file.bin")
    assert names(target.parent) == ["file.bin"]
    assert (target.stat().st_ino, target.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert target.read_bytes() == content(SIZE)
    assert server.bytes_sent < TINY


def test_a_finished_file_of_a_server_without_ranges_is_already_complete(
    server: MisbehavingServer, target: Path
) -> None:
    url = server.url("/no-ranges/x", size=SIZE)
    fetch(url, target)
    assert fetch(url, target).already_complete
    assert names(target.parent) == ["file.bin"]


def test_a_finished_empty_file_is_already_complete(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/empty/x")
    fetch(url, target)
    assert fetch(url, target).already_complete
    assert names(target.parent) == ["file.bin"]


def test_a_finished_file_in_a_directory_is_already_complete(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/disposition/x", size=SIZE)
    fetch(url, target.parent)
    result = fetch(url, target.parent)
    assert result.already_complete
    assert result.path == target.with_name("disposed.bin")
    assert names(target.parent) == ["disposed.bin"]


def test_with_the_right_checksum_a_finished_file_costs_no_request(server: MisbehavingServer, target: Path) -> None:
    target.write_bytes(content(SIZE))
    os.utime(target, (0, 0))
    result = fetch(server.url("/good/x", size=SIZE), target, checksum=_digest(SIZE))
    assert result.already_complete
    assert result.checksum == _digest(SIZE)
    assert result.size == SIZE
    assert server.requests == []
    assert names(target.parent) == ["file.bin"]


def test_with_a_checksum_an_existing_file_that_lacks_it_is_left_alone(server: MisbehavingServer, target: Path) -> None:
    target.write_bytes(b"precious")
    fails(TargetExists, server.url("/good/x", size=SIZE), target, checksum=_digest(SIZE))
    assert target.read_bytes() == b"precious"
    assert server.requests == []
    assert names(target.parent) == ["file.bin"]


@pytest.mark.parametrize("other", ["size", "bytes", "both"])
def test_another_file_of_the_name_is_an_error_and_is_left_alone(
    server: MisbehavingServer, target: Path, other: str
) -> None:
    data = b"precious" if other != "bytes" else content(SIZE, 1)
    target.write_bytes(data)
    if other != "both":
        os.utime(target, (0, modified(0)))
    before = target.stat()
    error = fails(TargetExists, server.url("/good/x", size=SIZE), target)
    assert isinstance(error, FileExistsError)
    assert str(target) in str(error)
    assert target.read_bytes() == data
    assert target.stat().st_mtime_ns == before.st_mtime_ns
    assert names(target.parent) == ["file.bin"]
    server.wait_idle()
    assert server.bytes_sent < (4 * TINY if other == "bytes" else TINY)


def test_where_no_time_tells_a_file_of_the_same_size_is_another(server: MisbehavingServer, target: Path) -> None:
    target.write_bytes(content(1000, 1))
    fails(TargetExists, server.url("/no-validator/x", size=1000), target)
    assert target.read_bytes() == content(1000, 1)


def test_another_file_in_a_directory_is_an_error_and_is_left_alone(server: MisbehavingServer, target: Path) -> None:
    target.with_name("disposed.bin").write_bytes(b"precious")
    fails(TargetExists, server.url("/disposition/x", size=SIZE), target.parent)
    assert target.with_name("disposed.bin").read_bytes() == b"precious"
    assert names(target.parent) == ["disposed.bin"]


def test_a_missing_remote_file_leaves_an_existing_one_alone(server: MisbehavingServer, target: Path) -> None:
    target.write_bytes(b"precious")
    fails(HttpStatusError, server.url("/status/x", code=404), target, overwrite=True)
    fails(HttpStatusError, server.url("/status/x", code=404), target)
    assert target.read_bytes() == b"precious"
    assert names(target.parent) == ["file.bin"]


def test_overwriting_replaces_the_old_file_only_at_the_end(
    server: MisbehavingServer, target: Path, manager: DownloadManager
) -> None:
    target.write_bytes(b"old")
    url = server.url("/good/x", size=MIB, rate="2M")
    gid = manager.download(url, {"save_dir": target.parent, "filename": target.name, "overwrite": True})
    until(lambda: downloaded(manager, gid) > MIB // 4)
    assert target.read_bytes() == b"old"
    manager.wait(gid)
    assert target.read_bytes() == content(MIB)
    assert target.stat().st_mtime == modified(0)
    assert names(target.parent) == ["file.bin"]


@pytest.mark.parametrize("then", ["status:code=500", "cut:headers=0", "good:seed=1"])
def test_overwriting_that_fails_leaves_the_old_file(server: MisbehavingServer, target: Path, then: str) -> None:
    target.write_bytes(b"old")
    url = server.url("/script/x", size=SIZE, steps="good", then=then)
    with pytest.raises(DownloadError):
        fetch(url, target, overwrite=True, max_tries=2, checksum=_digest(SIZE))
    assert target.read_bytes() == b"old"


def test_a_wrong_checksum_leaves_the_old_file(server: MisbehavingServer, target: Path) -> None:
    target.write_bytes(b"old")
    fails(ChecksumMismatch, server.url("/good/x", size=1000), target, overwrite=True, checksum=_digest(1000, 1))
    assert target.read_bytes() == b"old"


def test_a_file_that_takes_the_name_in_the_meantime_is_left_alone(
    server: MisbehavingServer, target: Path, manager: DownloadManager
) -> None:
    url = server.url("/good/x", size=MIB, rate="2M")
    gid = manager.download(url, {"save_dir": target.parent, "filename": target.name})
    until(lambda: downloaded(manager, gid) > 0)
    target.write_bytes(b"precious")
    with pytest.raises(TargetExists):
        manager.wait(gid)
    assert target.read_bytes() == b"precious"


def test_a_begun_download_of_a_name_that_was_taken_since_is_kept(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/script/x", size=SIZE, steps="slow:rate=512K")
    kept = interrupt(url, target, 100_000, split=1)
    target.write_bytes(b"precious")
    fails(TargetExists, url, target)
    assert names(target.parent) == ["file.bin", *begun(target)]
    assert saved_bytes(target) >= kept
    fetch(url, target, overwrite=True)
    assert target.read_bytes() == content(SIZE)


def test_nothing_is_written_through_a_link_that_has_the_name(server: MisbehavingServer, target: Path) -> None:
    elsewhere = target.parent.parent / "elsewhere"
    elsewhere.write_bytes(b"precious")
    target.symlink_to(elsewhere)
    fetch(server.url("/good/x", size=1000), target, overwrite=True)
    assert elsewhere.read_bytes() == b"precious"
    assert not target.is_symlink()
    assert target.read_bytes() == content(1000)
