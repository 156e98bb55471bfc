"""What a worker is at, hashing or saving, when a download stops or begins again does not harm it."""

import hashlib
import threading
from pathlib import Path
from typing import Any

import pytest

from flow.helpers import FIRST_RANGE, MIB, QUICK, downloaded, names, until
from rangefetch import DownloadManager, DownloadStatus, state
from rangefetch.checksum import FileHasher
from rangefetch.target import Target
from servers.misbehaving import MisbehavingServer, content, modified

SIZE = 9 * MIB + 12_345


class Gate:
    """Stops a method where it begins, until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kind: type, method: str) -> None:
        self.reached, self._open = threading.Event(), threading.Event()
        original = getattr(kind, method)

        def gated(*arguments: Any) -> Any:
            self.reached.set()
            assert self._open.wait(20)
            return original(*arguments)

        monkeypatch.setattr(kind, method, gated)

    def open(self) -> None:
        self._open.set()


def _checksum(size: int, seed: int = 0) -> str:
    return f"sha-256={hashlib.sha256(content(size, seed)).hexdigest()}"


def _status(manager: DownloadManager, gid: str) -> DownloadStatus:
    return manager.get_download_progress(gid).status


@pytest.mark.parametrize("filename", ["", "disposed.bin"])
def test_a_stop_while_the_checksum_is_made_loses_nothing(
    server: MisbehavingServer,
    target: Path,
    manager: DownloadManager,
    filename: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hashing = Gate(monkeypatch, FileHasher, "advance")
    where = {"save_dir": target.parent, "filename": filename, "checksum": _checksum(SIZE)}
    gid = manager.download(server.url("/disposition/x", size=SIZE), QUICK | where)
    until(lambda: downloaded(manager, gid) == SIZE and hashing.reached.is_set())
    manager.pause(gid)
    hashing.open()
    until(lambda: _status(manager, gid) is not DownloadStatus.ACTIVE)
    assert _status(manager, gid) is DownloadStatus.PAUSED
    server.clear()
    manager.resume(gid)
    result = manager.wait(gid)
    assert result.path == target.with_name("disposed.bin")
    assert result.path.read_bytes() == content(SIZE)
    assert result.path.stat().st_mtime == modified(0)
    assert names(target.parent) == ["disposed.bin"]
    assert server.bytes_sent <= 1


def test_hashing_while_a_changed_file_is_begun_anew_does_no_harm(
    server: MisbehavingServer, target: Path, manager: DownloadManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashing = Gate(monkeypatch, FileHasher, "advance")
    url = server.url("/script/x", size=SIZE, steps="good", then="good:seed=1:delay=0.6")
    where = {"save_dir": target.parent, "filename": target.name, "checksum": _checksum(SIZE, 1)}
    gid = manager.download(url, QUICK | where)
    until(hashing.reached.is_set)
    # It has been noticed, and the new file's first answer is not there yet.
    until(lambda: target.with_name("file.bin.part").stat().st_size == 0)
    hashing.open()
    manager.wait(gid)
    assert target.read_bytes() == content(SIZE, 1)


def test_a_save_that_was_under_way_when_all_began_again_claims_nothing(
    server: MisbehavingServer, target: Path, manager: DownloadManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    saving = Gate(monkeypatch, Target, "sync")
    url = server.url("/script/x", size=SIZE, steps="slow:rate=1600K", then="no-ranges+slow:rate=8M")
    where = {"save_dir": target.parent, "filename": target.name, "split": 1}
    gid = manager.download(url, QUICK | where)
    until(saving.reached.is_set)
    until(lambda: any(request.range is None for request in server.requests))
    until(lambda: 0 < downloaded(manager, gid) < FIRST_RANGE)
    saving.open()
    # Whoever is killed at any of these moments goes on with what the state says then.
    state_path, part = target.with_name("file.bin.part.json"), target.with_name("file.bin.part")
    while _status(manager, gid) is DownloadStatus.ACTIVE:
        if state_path.exists():
            claimed = state.load(state_path).written_end
            assert part.read_bytes()[:claimed] == content(SIZE)[:claimed]
    manager.wait(gid)
    assert target.read_bytes() == content(SIZE)
    assert names(target.parent) == ["file.bin"]
