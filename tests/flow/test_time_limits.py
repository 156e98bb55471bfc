"""An exception that a signal handler raises in the calling thread, which is how task queues limit a task's time."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import rangefetch
from rangefetch import DownloadManager, DownloadProgress, DownloadStatus, fetch_many, get_download_manager
from servers.directed import Valve
from servers.misbehaving import MisbehavingServer, content
from support.downloads import QUICK, fetch
from support.files import MIB, begun, names, saved_bytes
from support.waiting import until

SIZE = 24 * MIB


class TaskIsLate(Exception):
    """Stands for a task queue's exception, which may be of any type."""


@contextmanager
def _limited(is_due: Callable[[], object]) -> Iterator[None]:
    """Raise ``TaskIsLate`` in the main thread once ``is_due()`` is true, and expect it to end the ``with`` block."""

    def late(number: int, frame: object) -> None:
        raise TaskIsLate

    main = threading.main_thread().ident
    assert main is not None
    before = signal.signal(signal.SIGUSR1, late)

    def watch() -> None:
        until(is_due)
        signal.pthread_kill(main, signal.SIGUSR1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with pytest.raises(TaskIsLate):
            yield
    finally:
        watcher.join()
        signal.signal(signal.SIGUSR1, before)


def _unfinished() -> list[DownloadProgress]:
    """The downloads of the process's manager that are still active or waiting."""
    going_on = (DownloadStatus.ACTIVE, DownloadStatus.WAITING)
    return [each for each in get_download_manager().list_downloads() if each.status in going_on]


def test_it_ends_fetch_and_frees_everything(server: MisbehavingServer, valve: Valve, target: Path) -> None:
    url = server.url("/valve/x", size=SIZE)
    with _limited(lambda: server.bytes_sent > 6 * MIB):
        fetch(url, target)
    assert _unfinished() == []
    assert names(target.parent) == begun(target)
    kept = saved_bytes(target)
    assert kept > 0
    valve.open()
    # The target is unlocked, and the data that came is there.
    assert fetch(url, target).resumed == kept
    assert target.read_bytes() == content(SIZE)


def test_it_ends_download_and_wait_and_the_download_can_be_resumed(
    manager: DownloadManager, server: MisbehavingServer, valve: Valve, target: Path
) -> None:
    options = QUICK | {"save_dir": target.parent, "filename": target.name}
    with _limited(lambda: server.bytes_sent > 6 * MIB):
        manager.download_and_wait(server.url("/valve/x", size=SIZE), options)
    [download] = manager.list_downloads()
    assert download.status is DownloadStatus.PAUSED
    valve.open()
    manager.resume(download.gid)
    assert manager.wait(download.gid, 60).resumed > 0
    assert target.read_bytes() == content(SIZE)


@pytest.mark.parametrize("size", [3000, SIZE])
def test_it_ends_fetch_many_and_frees_everything(
    server: MisbehavingServer, valve: Valve, target: Path, size: int
) -> None:
    urls = [server.url(f"/valve/x{number}", size=size) for number in range(20)]
    if size < SIZE:
        urls += [server.url(f"/slow-headers/y{number}", seconds=60) for number in range(4)]
    with _limited(lambda: len(server.requests) > 10):
        fetch_many(urls, target.parent)
    assert _unfinished() == []
    valve.open()
    results = fetch_many(urls[:20], target.parent)
    assert all(result.path.read_bytes() == content(size) for result in results)


def test_it_ends_a_stream(server: MisbehavingServer, valve: Valve) -> None:
    with (
        _limited(lambda: server.bytes_sent > 6 * MIB),
        rangefetch.stream(server.url("/valve/x", size=SIZE)) as reader,
    ):
        while reader.read(1 << 16):
            pass
    assert _unfinished() == []
