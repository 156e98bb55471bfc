"""Halting, resuming and removing downloads: the backend's operations, and what they leave on disk."""

import functools
import json
import time
from pathlib import Path

import pytest

from aria2.conftest import Configure
from aria2.driving import Desk, downloaded
from rangefetch.aria2.backend import Aria2Backend
from rangefetch.disk import state
from rangefetch.errors import TimedOut
from rangefetch.progress import DownloadStatus
from rangefetch.transfer.download import Download
from servers.misbehaving import MisbehavingServer, content
from support.files import MIB, names
from support.waiting import AT_ONCE, until

SIZE = 12 * MIB + 7


def _begun(desk: Desk, url: str, target: Path, at_least: int = 2 * MIB, **options: object) -> Download:
    download = desk.begin(url, target, **options)
    until(lambda: downloaded(download) >= at_least)
    return download


def _saved_bytes(target: Path) -> int:
    saved = state.load(target.with_name(target.name + ".part.json"))
    whole = [i for i, block in enumerate(saved.blocks) if block == 2]
    return sum(min(saved.block_size, saved.total_size - i * saved.block_size) for i in whole) + sum(
        saved.partial.values()
    )


def test_a_halted_download_leaves_what_the_native_backend_leaves(
    desk: Desk, server: MisbehavingServer, target: Path
) -> None:
    download = _begun(desk, server.url("/slow/x", size=SIZE, rate="1M"), target)
    desk.halt(download)
    assert download.status is DownloadStatus.PAUSED
    assert names(target.parent) == ["file.bin.part", "file.bin.part.json"]
    assert _saved_bytes(target) >= MIB
    assert (target.parent / "file.bin.part.json").stat().st_mode & 0o777 == 0o600


def test_a_halted_download_goes_on_where_it_was(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    url = server.url("/shared-rate/x", size=SIZE, rate="24M")
    download = _begun(desk, url, target, 6 * MIB)
    desk.halt(download)
    kept = _saved_bytes(target)
    server.wait_idle()
    server.clear()
    result = desk.wait(desk.begin_again(download))
    server.wait_idle()
    assert target.read_bytes() == content(SIZE)
    assert names(target.parent) == ["file.bin"]
    assert abs(result.resumed - kept) < MIB
    # aria2 may request more than it uses, but never the half that is already on disk.
    assert server.bytes_sent < SIZE - kept + 4 * MIB


def test_what_was_saved_of_another_file_is_not_used(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    download = _begun(desk, server.url("/shared-rate/x", size=SIZE, rate="24M"), target)
    desk.halt(download)
    state_path = target.with_name("file.bin.part.json")
    saved = state.load(state_path)
    saved.sources[0].etag = '"of another file"'
    state.save(state_path, saved)
    assert desk.wait(desk.begin_again(download)).resumed == 0
    assert target.read_bytes() == content(SIZE)


def test_without_a_validator_it_goes_on_after_a_comparison(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    url = server.url("/shared-rate/x", size=SIZE, rate="24M", etag="none", mtime=0)
    download = _begun(desk, url, target)
    desk.halt(download)
    assert desk.wait(desk.begin_again(download)).resumed > 0
    assert target.read_bytes() == content(SIZE)


@pytest.mark.parametrize("when", ["at once", "while it runs"])
def test_halting_with_removal_leaves_nothing(desk: Desk, server: MisbehavingServer, target: Path, when: str) -> None:
    url = server.url("/slow/x", size=SIZE, rate="1M")
    download = desk.begin(url, target)
    if when == "while it runs":
        until(lambda: downloaded(download) > 0)
        assert "file.bin.part.aria2" in names(target.parent) or downloaded(download) < SIZE
    desk.halt(download, remove_files=True)
    assert download.status is DownloadStatus.PAUSED
    assert names(target.parent) == []


def test_halting_while_a_server_says_nothing_takes_no_time(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    download = desk.begin(server.url("/slow-headers/x", seconds=60), target)
    until(lambda: server.requests)
    before = time.monotonic()
    desk.halt(download)
    assert time.monotonic() - before < AT_ONCE
    assert names(target.parent) == []


def test_halting_twice_is_told_once(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    download = _begun(desk, server.url("/slow/x", size=SIZE, rate="1M"), target)
    assert desk.backend is not None
    desk.backend.halt(download)
    download.want(DownloadStatus.PAUSED, remove_files=True)
    desk.backend.halt(download)
    until(lambda: download.status is not DownloadStatus.ACTIVE)
    assert [end for end, told in desk.ends if told is download] == ["halted"]


def test_a_failed_download_keeps_what_it_has(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    url = server.url("/slow/x", size=SIZE, rate="1M")
    with pytest.raises(TimedOut):
        desk.wait(desk.begin(url, target, total_timeout=1.0))
    assert names(target.parent) == ["file.bin.part", "file.bin.part.json"]
    assert _saved_bytes(target) > 0


def test_stopping_the_backend_saves_everything(own_desk: Desk, server: MisbehavingServer, target: Path) -> None:
    url = functools.partial(server.url, "/shared-rate/x", size=SIZE, rate="6M")
    begun = [_begun(own_desk, url(id=str(n)), target.with_name(f"{n}"), MIB) for n in range(3)]
    assert isinstance(own_desk.backend, Aria2Backend)
    own_desk.backend.stop()
    assert [download.status for download in begun] == [DownloadStatus.PAUSED] * 3
    assert [_saved_bytes(target.with_name(f"{n}")) > 0 for n in range(3)] == [True] * 3
    own_desk.backend.start()
    assert own_desk.wait(own_desk.begin_again(begun[0])).resumed > 0
    assert target.with_name("0").read_bytes() == content(SIZE)


def test_the_saved_state_has_no_password(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    url = server.url("/slow/x", size=SIZE, rate="1M").replace("//", "//user:secret@", 1)
    desk.halt(_begun(desk, url, target, headers={"X-Token": "hidden"}))
    text = target.with_name("file.bin.part.json").read_text()
    json.loads(text)
    assert "secret" not in text
    assert "hidden" not in text


def test_everything_is_let_go_of(
    no_leaks: None, configure: Configure, server: MisbehavingServer, target: Path, tmp_path: Path
) -> None:
    desk = Desk()
    desk.backend = Aria2Backend(desk, configure())
    desk.backend.start()
    desk.fetch(server.url("/good/x", size=SIZE), target)
    desk.backend.stop()
    assert names(tmp_path / "state") == []
