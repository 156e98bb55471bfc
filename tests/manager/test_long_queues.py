"""A long queue: operations on all downloads take a few calls for each, and a waiting download is only a row."""

from __future__ import annotations

import functools
import gc
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rangefetch import DownloadManager, DownloadStatus
from rangefetch.manager import downloads_of
from rangefetch.native.backend import NativeBackend
from rangefetch.transfer.download import Download
from support.waiting import until

MOST_CALLS = 60  # per download


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of a server that accepts connections but never responds."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def _calls(function: Callable[[], object]) -> int:
    """Run ``function``, and return how many calls of Python functions it made on this thread."""
    count = 0

    def note(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def _fill(manager: DownloadManager, url: str, directory: Path, count: int) -> list[str]:
    options = {"save_dir": directory}
    return [manager.download(f"{url}/f{number}", options) for number in range(count)]


@pytest.mark.parametrize("with_session", [False, True])
def test_what_is_done_to_all_takes_a_few_calls_for_each(silent: str, tmp_path: Path, with_session: bool) -> None:
    calls: dict[str, list[float]] = {}
    for count in (1000, 4000):
        session_file = tmp_path / f"session{count}" if with_session else None
        manager = DownloadManager("native", session_file=session_file, max_concurrent_downloads=2)

        def measure(name: str, function: Callable[[], object], count: int = count) -> None:
            calls.setdefault(name, []).append(_calls(function) / count)

        with manager:
            measure("download", functools.partial(_fill, manager, silent, tmp_path, count))
            measure("pause_all", manager.pause_all)
            assert len(manager.list_downloads(DownloadStatus.PAUSED)) == count
            measure("resume_all", manager.resume_all)
            assert len(manager.list_downloads(DownloadStatus.WAITING)) >= count - 2
            measure("cancel_all", manager.cancel_all)
            assert len(manager.list_downloads(DownloadStatus.REMOVED)) == count
            _fill(manager, silent, tmp_path, count)
            measure("stop", manager.stop)
    for name, (few, many) in calls.items():
        assert many <= MOST_CALLS, name
        # The calls of stop depend on timing: on how much of the session had been saved before.
        assert name == "stop" or many <= few * 1.2 + 1, name


def test_to_cancel_one_after_the_other_begins_few_of_them(silent: str, tmp_path: Path) -> None:
    """Someone who cancels a list from first to last does not want the next ones to start meanwhile."""
    with DownloadManager("native", max_concurrent_downloads=4) as manager:
        gids = _fill(manager, silent, tmp_path, 2000)
        until(lambda: len(manager.list_downloads(DownloadStatus.ACTIVE)) == 4)
        for gid in gids:
            manager.cancel(gid)
        began = sum(
            isinstance(entry := downloads_of(manager)._queue.peek(gid), Download) and entry.has_begun for gid in gids
        )
        assert began < 200
        # A download added afterwards starts.
        last = manager.download(f"{silent}/last", {"save_dir": tmp_path})
        until(lambda: manager.get_download_progress(last).status is DownloadStatus.ACTIVE)


def test_what_only_waits_is_no_download_yet(silent: str, tmp_path: Path) -> None:
    with DownloadManager("native", max_concurrent_downloads=2) as manager:
        gids = _fill(manager, silent, tmp_path, 500)
        manager.list_downloads()
        manager.pause_all()
        manager.resume_all()
        assert repr(manager)
        own = set(gids)
        assert sum(isinstance(each, Download) and each.gid in own for each in gc.get_objects()) <= 2 + 2
        # Looking a row up by its gid turns it into a download for good.
        assert downloads_of(manager).find(gids[-1]) is downloads_of(manager).find(gids[-1])
        manager.pause(gids[-1])
        assert manager.get_download_progress(gids[-1]).waiting_for == "resume()"
        assert manager.list_downloads()[-1].status is DownloadStatus.PAUSED


def test_a_row_looks_like_the_download_that_it_becomes(silent: str, tmp_path: Path) -> None:
    with DownloadManager("native", max_concurrent_downloads=1) as manager:
        gids = _fill(manager, silent, tmp_path, 3)
        row = manager.list_downloads()[2]
        assert row == manager.get_download_progress(gids[2])
        assert (row.status, row.waiting_for) == (DownloadStatus.WAITING, "its turn")


def test_however_many_begin_there_is_one_chain_of_ticks(silent: str, tmp_path: Path) -> None:
    with DownloadManager("native", max_concurrent_downloads=32) as manager:
        for _ in range(3):
            _fill(manager, silent, tmp_path, 64)
            until(lambda: len(manager.list_downloads(DownloadStatus.ACTIVE)) == 32)
            manager.cancel_all()
        _fill(manager, silent, tmp_path, 8)
        until(lambda: len(manager.list_downloads(DownloadStatus.ACTIVE)) == 8)
        backend: Any = downloads_of(manager).router._running["native"]
        until(lambda: sum(timer.call == backend._tick for _, _, timer in list(backend._timers._heap)) == 1)


def test_nothing_waits_for_a_backend_that_starts(silent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries are answered while the backend starts."""
    begun, goes_on = threading.Event(), threading.Event()
    start = NativeBackend.start

    def slow(self: NativeBackend) -> None:
        begun.set()
        assert goes_on.wait(30)
        start(self)

    monkeypatch.setattr(NativeBackend, "start", slow)
    manager = DownloadManager("native")
    adding = threading.Thread(target=_fill, args=(manager, silent, tmp_path, 1))
    adding.start()
    try:
        assert begun.wait(30)
        assert manager.list_downloads() == []
        assert "stopped" in repr(manager)
        assert not manager.is_started
        with pytest.raises(KeyError):
            manager.pause("0" * 16)
        manager.pause_all()
        assert adding.is_alive()
    finally:
        goes_on.set()
        adding.join()
    assert len(manager.list_downloads()) == 1
    manager.stop()
