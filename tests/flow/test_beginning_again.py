"""A worker may be hashing or saving when a download stops or starts over; neither does any harm."""

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flow.children import run_child
from rangefetch import DownloadManager, DownloadStatus
from rangefetch.disk.checksum import FileHasher
from rangefetch.disk.target import Target
from servers.misbehaving import MisbehavingServer, content, modified
from support.downloads import QUICK, downloaded, fetch
from support.files import MIB, names, read_state
from support.waiting import until

SIZE = 9 * MIB + 12_345


class Gate:
    """Blocks all calls of a method until it is opened."""

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


@pytest.fixture
def gate(manager: DownloadManager, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[type, str], Gate]]:
    """Makes gates, and opens them all before the manager is stopped."""
    made: list[Gate] = []

    def make(kind: type, method: str) -> Gate:
        made.append(Gate(monkeypatch, kind, method))
        return made[-1]

    yield make
    for each in made:
        each.open()


def _checksum(size: int, seed: int = 0) -> str:
    return f"sha-256={hashlib.sha256(content(size, seed)).hexdigest()}"


def _status(manager: DownloadManager, gid: str) -> DownloadStatus:
    return manager.get_download_progress(gid).status


def _within(seconds: float, condition: Callable[[], object]) -> None:
    """Wait until the condition holds, or for ``seconds``: a wrong action would have happened by then."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)


def _pause_meanwhile(manager: DownloadManager, gid: str, gate: Gate) -> None:
    """Ask for a pause while a worker waits at the gate, and then open the gate."""
    with ThreadPoolExecutor() as pool:
        pausing = pool.submit(manager.pause, gid)
        _within(0.2, pausing.done)
        gate.open()
        pausing.result(timeout=3)
    until(lambda: _status(manager, gid) is not DownloadStatus.ACTIVE)
    assert _status(manager, gid) is DownloadStatus.PAUSED


@pytest.mark.parametrize("filename", ["", "disposed.bin"])
def test_a_stop_while_the_checksum_is_made_loses_nothing(
    server: MisbehavingServer,
    target: Path,
    manager: DownloadManager,
    gate: Callable[[type, str], Gate],
    filename: str,
) -> None:
    hashing = gate(FileHasher, "advance")
    where = {"save_dir": target.parent, "filename": filename, "checksum": _checksum(SIZE)}
    gid = manager.download(server.url("/disposition/x", size=SIZE), QUICK | where)
    until(lambda: downloaded(manager, gid) == SIZE and hashing.reached.is_set())
    _pause_meanwhile(manager, gid, hashing)
    server.clear()
    manager.resume(gid)
    result = manager.wait(gid)
    assert result.path == target.with_name("disposed.bin")
    assert result.path.read_bytes() == content(SIZE)
    assert result.path.stat().st_mtime == modified(0)
    assert names(target.parent) == ["disposed.bin"]
    assert server.bytes_sent <= 1


def test_hashing_while_a_changed_file_is_begun_anew_does_no_harm(
    server: MisbehavingServer,
    target: Path,
    manager: DownloadManager,
    gate: Callable[[type, str], Gate],
    caplog: pytest.LogCaptureFixture,
) -> None:
    hashing = gate(FileHasher, "advance")
    url = server.url("/script/x", size=SIZE, steps="good", then="good:seed=1:delay=0.6")
    where = {"save_dir": target.parent, "filename": target.name, "checksum": _checksum(SIZE, 1)}
    gid = manager.download(url, QUICK | where)
    until(hashing.reached.is_set)
    until(lambda: "starting over" in caplog.text)
    # The file must not be truncated while it is being hashed; that would happen before the new one's first response.
    _within(0.3, lambda: target.with_name("file.bin.part").stat().st_size == 0)
    hashing.open()
    manager.wait(gid)
    assert target.read_bytes() == content(SIZE, 1)


def test_a_save_that_was_under_way_when_all_began_again_claims_nothing(
    server: MisbehavingServer,
    target: Path,
    manager: DownloadManager,
    gate: Callable[[type, str], Gate],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    saving = gate(Target, "sync")
    url = server.url("/script/x", size=SIZE, steps="slow:rate=1600K", then="no-ranges+slow:rate=8M")
    where = {"save_dir": target.parent, "filename": target.name, "split": 1}
    gid = manager.download(url, QUICK | where)
    until(saving.reached.is_set)
    until(lambda: "continuing with a single stream" in caplog.text)
    _within(0.3, lambda: any(request.range is None for request in server.requests))
    saving.open()
    # A process killed at any of these moments would resume from the state as it is then.
    part = target.with_name("file.bin.part")
    while _status(manager, gid) is DownloadStatus.ACTIVE:
        with contextlib.suppress(FileNotFoundError):
            claimed = read_state(target)
            data = part.read_bytes()
            if claimed and claimed == read_state(target):
                assert data[: claimed.written_end] == content(SIZE)[: claimed.written_end]
    manager.wait(gid)
    assert target.read_bytes() == content(SIZE)
    assert names(target.parent) == ["file.bin"]


def test_a_stop_is_heard_while_a_changed_file_is_begun_anew(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/etag-changes/x", size=SIZE)
    # In a separate process, because a manager that does not stop would hang the test run.
    stopped = run_child("stop_while_it_begins_again", url, target)
    assert (stopped.stdout, stopped.stderr) == ("paused\n", "")
    assert not target.exists()
    fetch(url, target)
    assert target.read_bytes() == content(SIZE, 1)
