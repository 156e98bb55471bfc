"""What is in the directory but not this download's: other people's files, planted states, outdated data."""

import os
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import rangefetch
from rangefetch import DownloadManager
from rangefetch.disk import state
from rangefetch.disk.target import Target
from rangefetch.errors import DiskError, HttpStatusError
from servers.directed import Valve
from servers.misbehaving import MisbehavingServer, content, etag
from support.downloads import QUICK, downloaded, fails, fetch, interrupt
from support.files import MIB, names
from support.waiting import until

SIZE = 3 * MIB


def _leave_whole(url: str, target: Path, octets: bytes) -> None:
    """Leave what a run leaves that is killed after the last byte and before the file gets its name."""
    with closing(Target.open(target.parent, target.name, url)) as opened:
        os.pwrite(opened.fd, octets, 0)
        blocks = b"\2" * (len(octets) // MIB)
        sources = [state.SourceState(url, etag(len(octets)))]
        opened.save_state(state.State(url, url, len(octets), True, sources, MIB, blocks, {}, filename=target.name))


def test_a_whole_part_file_is_not_published_before_the_server_was_asked(
    server: MisbehavingServer, target: Path
) -> None:
    url = server.url("/good/x", size=SIZE)
    _leave_whole(url, target, content(SIZE))
    result = fetch(url, target)
    server.wait_idle()
    assert result.resumed == SIZE
    assert target.read_bytes() == content(SIZE)
    assert 1 <= server.bytes_sent < MIB


@pytest.mark.parametrize("change", [{"seed": 5, "etag": "new"}, {"size": 2 * MIB}])
def test_a_whole_part_file_of_another_day_is_fetched_again(
    server: MisbehavingServer, target: Path, change: dict[str, Any]
) -> None:
    url = server.url("/good/x", **({"size": SIZE} | change))
    _leave_whole(url, target, b"old!" * (SIZE // 4))
    fetch(url, target)
    assert target.read_bytes() == content(int(str(change.get("size", SIZE))), int(str(change.get("seed", 0))))
    assert names(target.parent) == ["file.bin"]


def test_where_the_server_cannot_be_asked_nothing_is_published_and_all_is_kept(
    server: MisbehavingServer, target: Path
) -> None:
    url = server.url("/status/x", code=404)
    _leave_whole(url, target, content(SIZE))
    before = {path.name: path.read_bytes() for path in target.parent.iterdir()}
    fails(HttpStatusError, url, target)
    assert {path.name: path.read_bytes() for path in target.parent.iterdir()} == before


def test_pausing_while_the_server_is_asked_keeps_all(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/slow-headers/x", size=SIZE, seconds=30)
    _leave_whole(url, target, content(SIZE))
    before = {path.name: path.read_bytes() for path in target.parent.iterdir()}
    with DownloadManager() as manager:
        manager.download(url, QUICK | {"save_dir": target.parent, "filename": target.name})
        until(lambda: server.requests)
    assert {path.name: path.read_bytes() for path in target.parent.iterdir()} == before


def _foreign(target: Path) -> dict[str, bytes]:
    files = {f"{target.name}.part": b"browser" * 1000, f"{target.name}.part.json": b"notes"}
    for name, octets in files.items():
        target.with_name(name).write_bytes(octets)
    return files


def _left(target: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in target.parent.iterdir()}


@pytest.mark.parametrize("route", ["good", "no-ranges", "chunked"])
def test_files_of_others_survive_a_download(server: MisbehavingServer, target: Path, route: str) -> None:
    files = _foreign(target)
    fetch(server.url(f"/{route}/x", size=SIZE), target)
    assert _left(target) == files | {"file.bin": content(SIZE)}


def test_files_of_others_survive_a_failure(server: MisbehavingServer, target: Path) -> None:
    files = _foreign(target)
    fails(HttpStatusError, server.url("/status/x", code=404), target)
    assert _left(target) == files


def test_files_of_others_survive_an_interrupted_download_which_is_found_again(
    server: MisbehavingServer, valve: Valve, target: Path
) -> None:
    files = _foreign(target)
    url = server.url("/valve/x", size=9 * MIB)
    with DownloadManager() as manager:
        gid = manager.download(url, QUICK | {"save_dir": target.parent, "filename": target.name})
        until(lambda: downloaded(manager, gid) > MIB)
    valve.open()
    assert fetch(url, target).resumed > MIB
    assert _left(target) == files | {"file.bin": content(9 * MIB)}


@pytest.mark.parametrize("what", ["fifo", "directory", "link to a device"])
def test_overwriting_replaces_no_special_file(server: MisbehavingServer, target: Path, what: str) -> None:
    if what == "fifo":
        os.mkfifo(target)
    elif what == "directory":
        target.mkdir()
    else:
        target.symlink_to("/dev/null")
    before = target.lstat()
    url = server.url("/good/file.bin", size=1000)
    [error] = rangefetch.fetch_many([url], target.parent, overwrite=True, on_error="return")
    assert isinstance(error, DiskError)
    fails(DiskError, url, f"{target.parent}/", overwrite=True)
    assert os.path.samestat(before, target.lstat())
    assert names(target.parent) == ["file.bin"]


def test_moved_data_is_resumed(server: MisbehavingServer, valve: Valve, target: Path) -> None:
    url = server.url("/valve/x", size=9 * MIB)
    kept = interrupt(url, target, MIB)
    moved = target.parent.rename(target.parent.parent / "moved")
    valve.open()
    result = fetch(url, moved / target.name)
    assert result.resumed == kept
    assert result.path.read_bytes() == content(9 * MIB)
