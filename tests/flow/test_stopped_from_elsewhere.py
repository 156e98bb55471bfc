"""A manager that another thread stops or starts: whoever waits for its downloads is told, and nothing hangs."""

from __future__ import annotations

import threading
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import rangefetch
from rangefetch import DownloadManager, DownloadOptions, DownloadStatus
from rangefetch.errors import Cancelled, LocalError
from rangefetch.native.backend import NativeBackend
from rangefetch.selection import BackendRouter
from rangefetch.transfer.download import Download
from servers.directed import Valve
from servers.misbehaving import MisbehavingServer
from support.downloads import QUICK, downloaded
from support.files import MIB
from support.waiting import until

SIZE = 9 * MIB


class _Thread(threading.Thread):
    """Calls a function in a thread, and keeps what it returned or raised."""

    def __init__(self, what: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.what = what
        self.error: BaseException | None = None
        self.outcome: object = None
        self.start()

    def run(self) -> None:
        try:
            self.outcome = self.what()
        except BaseException as error:
            self.error = error

    def ended(self) -> bool:
        self.join(20)
        return not self.is_alive()


def _fetch_many(server: MisbehavingServer, directory: Path, count: int, **parameters: Any) -> _Thread:
    urls = [server.url(f"/slow-headers/{number:04}.bin", size=1000, **parameters) for number in range(count)]
    urls = [url.replace("/slow-headers/", "/slow-headers/files/", 1) for url in urls]
    return _Thread(lambda: rangefetch.fetch_many(urls, directory, on_error="return", **QUICK))


@pytest.mark.parametrize("again", [False, True], ids=["stopped", "stopped and started again"])
@pytest.mark.parametrize("count", [4, 2000])
def test_fetch_many_ends_when_the_manager_is_stopped(
    server: MisbehavingServer, target: Path, again: bool, count: int
) -> None:
    manager = rangefetch.get_download_manager()
    thread = _fetch_many(server, target.parent, count, seconds=0.5)
    until(lambda: len(server.requests) >= 2)
    manager.stop()
    if again:
        manager.start()
    assert thread.ended()
    assert isinstance(thread.error, Cancelled)
    time.sleep(1.0)
    assert len(server.requests) < 200, "somebody goes on with it"


@pytest.mark.parametrize("again", [False, True], ids=["stopped", "stopped and started again"])
def test_who_waits_hears_of_a_stop(server: MisbehavingServer, valve: Valve, target: Path, again: bool) -> None:
    with DownloadManager(max_concurrent_downloads=1) as manager:
        options = QUICK | {"save_dir": target.parent, "total_timeout": 0.0}
        gids = [manager.download(server.url("/valve/x", size=SIZE, id=str(n)), options) for n in range(2)]
        until(lambda: downloaded(manager, gids[0]) > 0)
        threads = [_Thread(lambda gid=gid: manager.wait(gid)) for gid in gids]  # type: ignore[misc]  # not inferred
        time.sleep(0.1)
        manager.stop()
        if again:
            manager.start()
        for thread in threads:
            assert thread.ended()
            assert isinstance(thread.error, Cancelled)


def test_a_download_that_a_stopped_backend_is_given_ends() -> None:
    halted: list[Download] = []
    listener: Any = types.SimpleNamespace(halted=halted.append)
    backend = NativeBackend(listener)
    for number in range(3):
        backend.begin(Download("http://127.0.0.1:9/x", DownloadOptions()))
        assert len(halted) == number + 1
        backend.start()
        backend.stop()


def test_starts_and_stops_by_several_threads_leave_nobody_waiting(server: MisbehavingServer, target: Path) -> None:
    manager, over = DownloadManager("native"), threading.Event()

    def stop() -> None:
        while not over.is_set():
            manager.stop()
            time.sleep(0.002)

    def use(name: str) -> int:
        count = 0
        while not over.is_set():
            gid = manager.download(
                server.url("/good/x", size=1000), {"save_dir": target.parent, "filename": name, "overwrite": True}
            )
            try:
                manager.wait(gid, 30)
            except (Cancelled, LocalError):
                count += 1
        return count

    threads = [_Thread(stop), *(_Thread(lambda name=name: use(name)) for name in "abc")]  # type: ignore[misc]  # not inferred
    time.sleep(2)
    over.set()
    assert all(thread.ended() for thread in threads)
    manager.stop()
    assert [thread.error for thread in threads] == [None] * 4


# -- nothing that may block is done under the manager's lock ----------------------------------------------------------


@contextmanager
def _held(monkeypatch: pytest.MonkeyPatch, where: object, name: str) -> Iterator[threading.Event]:
    """Make a method block until the end of the ``with`` block. Sets the event when the method is called."""
    whole, called, may_go_on = getattr(where, name), threading.Event(), threading.Event()

    def slow(*args: Any, **kwargs: Any) -> Any:
        called.set()
        may_go_on.wait(20)
        return whole(*args, **kwargs)

    monkeypatch.setattr(where, name, slow)
    try:
        yield called
    finally:
        may_go_on.set()


def test_a_backend_that_is_slow_to_start_holds_up_nobody_who_looks_on(
    server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = DownloadManager()
    with _held(monkeypatch, BackendRouter, "start") as called:
        thread = _Thread(
            lambda: manager.download_and_wait(server.url("/good/x", size=1000), QUICK | {"save_dir": target.parent})
        )
        assert called.wait(10)
        for look in (manager.list_downloads, lambda: repr(manager)):
            looked = _Thread(look)
            looked.join(5)
            assert not looked.is_alive()
    assert thread.ended()
    assert thread.error is None
    manager.stop()


@pytest.mark.parametrize("place", ["rangefetch.transfer.space.free_space", "rangefetch.disk.target.Target.open"])
def test_a_file_system_that_does_not_answer_holds_up_no_other_download(
    server: MisbehavingServer,
    valve: Valve,
    target: Path,
    manager: DownloadManager,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    from rangefetch.disk.target import Target
    from rangefetch.transfer import space

    slow = target.parent / "slow"
    slow.mkdir()
    may_go_on, called = threading.Event(), threading.Event()

    def wait_for_it(directory: object) -> None:
        if str(directory).endswith("slow"):
            called.set()
            may_go_on.wait(20)

    if place.endswith("free_space"):
        free_space = rangefetch.disk.target.free_space

        def slow_free_space(directory: Any) -> int:
            wait_for_it(directory)
            return free_space(directory)

        monkeypatch.setattr(space, "free_space", slow_free_space)
    else:
        open_target = Target.open.__func__  # type: ignore[attr-defined]  # of a class method

        def slow_open(cls: type[Target], directory: Any, *args: Any, **kwargs: Any) -> Target:
            wait_for_it(directory)
            opened: Target = open_target(cls, directory, *args, **kwargs)
            return opened

        monkeypatch.setattr(Target, "open", classmethod(slow_open))

    url = server.url("/good/x", size=MIB)
    # More than there are workers.
    threads = [
        _Thread(lambda n=n: manager.download(url, QUICK | {"save_dir": slow, "filename": str(n), "expected_size": MIB}))  # type: ignore[misc]  # not inferred
        for n in range(6)
    ]
    try:
        assert called.wait(10)
        manager.download_and_wait(url, QUICK | {"save_dir": target.parent})
        assert manager.list_downloads(DownloadStatus.COMPLETE)
    finally:
        may_go_on.set()
    assert all(thread.ended() for thread in threads)
    until(lambda: len(manager.list_downloads(DownloadStatus.COMPLETE)) == 7)
