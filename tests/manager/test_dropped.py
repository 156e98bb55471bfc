"""A manager that was dropped, one whose ``with`` block has ended, and callbacks that raise."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import rangefetch
from rangefetch import DownloadManager, DownloadProgress, DownloadStatus, aio
from rangefetch.errors import Cancelled, DownloadError
from servers.content import content
from servers.misbehaving import MisbehavingServer
from support.downloads import into
from support.files import names
from support.sessions import listed_in
from support.waiting import until

SIZE = 8 << 20


def _ours() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("rangefetch-")}


@pytest.fixture(autouse=True)
def _the_processs_manager_is_stopped() -> None:
    rangefetch.get_download_manager().stop()
    until(lambda: not _ours())


# A manager that nobody has stopped.


def _drop(make: Callable[[], object]) -> None:
    """Make a manager, and drop the last reference to it."""

    def make_and_collect() -> None:
        make()
        gc.collect()

    with pytest.warns(ResourceWarning, match="was never stopped"):
        make_and_collect()
    until(lambda: not _ours(), 30)


def test_a_manager_that_is_dropped_warns_and_leaves_no_threads() -> None:
    def make() -> None:
        DownloadManager().start()

    _drop(make)


def test_its_aria2c_ends_too(aria2c: Path, tmp_path: Path) -> None:
    before = set(psutil.Process().children())

    def make() -> None:
        manager = DownloadManager("aria2", aria2_path=aria2c, state_dir=tmp_path)
        manager.start()
        assert set(psutil.Process().children()) > before

    _drop(make)
    until(lambda: set(psutil.Process().children()) <= before)


def test_so_does_one_for_asyncio() -> None:
    async def main() -> None:
        await aio.DownloadManager().start()

    _drop(lambda: asyncio.run(main()))


def test_one_in_a_cycle_does_too() -> None:
    def make() -> None:
        manager = DownloadManager()
        manager.start()
        manager.itself = manager  # type: ignore[attr-defined]  # a cycle

    _drop(make)


def test_its_unfinished_downloads_are_saved_and_go_on_later(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/shared-rate/x", size=SIZE, rate="4M")
    session = target.with_name("session")

    def make() -> None:
        manager = DownloadManager(session_file=session)
        gid = manager.download(url, into(target))
        until(lambda: manager.get_download_progress(gid).downloaded > 1 << 20)

    _drop(make)
    assert [each["status"] for each in listed_in(session)] == ["waiting"]
    with DownloadManager(session_file=session) as manager:
        result = manager.wait(manager.list_downloads()[0].gid)
    assert result.resumed > 0
    assert target.read_bytes() == content(SIZE)


@pytest.mark.parametrize("ended", [DownloadManager.stop, lambda manager: manager.__exit__(None, None, None)])
def test_one_that_was_stopped_says_nothing(ended: Callable[[DownloadManager], None]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        manager = DownloadManager()
        manager.start()
        ended(manager)
        del manager
        gc.collect()


def test_one_that_was_never_started_says_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DownloadManager()
        gc.collect()


def test_a_stream_keeps_its_manager() -> None:
    with MisbehavingServer() as server, rangefetch.stream(server.url("/good/x", size=SIZE)) as stream:
        gc.collect()
        assert stream.read() == content(SIZE)


# A manager whose ``with`` block has ended.


def test_after_its_block_a_manager_refuses_until_it_is_started(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/good/x")
    with DownloadManager() as manager:
        pass
    for refused in (
        lambda: manager.download(url, into(target)),
        lambda: manager.download_and_wait(url, into(target)),
    ):
        with pytest.raises(RuntimeError, match=r"start\(\)"):
            refused()
    assert not manager.is_started
    assert not _ours()
    assert names(target.parent) == []
    manager.start()
    try:
        assert manager.download_and_wait(url, into(target)).path == target
    finally:
        manager.stop()
    with manager:
        assert manager.download_and_wait(url, into(target, "again")).size


def test_what_it_has_can_be_looked_at_and_resumed_only_then(server: MisbehavingServer, target: Path) -> None:
    with DownloadManager() as manager:
        gid = manager.download(server.url("/stall/x", after=0), into(target))
    assert manager.get_download_progress(gid).status is DownloadStatus.PAUSED
    with pytest.raises(Cancelled):
        manager.wait(gid)
    with pytest.raises(RuntimeError, match=r"start\(\)"):
        manager.resume(gid)
    assert manager.get_download_progress(gid).status is DownloadStatus.PAUSED
    manager.cancel(gid)


def test_after_stop_a_manager_starts_by_itself_as_before(server: MisbehavingServer, target: Path) -> None:
    manager = DownloadManager()
    manager.start()
    manager.stop()
    try:
        assert manager.download_and_wait(server.url("/good/x"), into(target)).path == target
    finally:
        manager.stop()


def test_the_processs_manager_is_never_closed_for_good(server: MisbehavingServer, target: Path) -> None:
    with rangefetch.get_download_manager():
        pass
    assert rangefetch.fetch(server.url("/good/x"), target).path == target


def test_one_for_asyncio_refuses_too(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/good/x")

    async def main() -> None:
        async with aio.DownloadManager() as manager:
            pass
        with pytest.raises(RuntimeError, match=r"start\(\)"):
            await manager.download(url, into(target))
        with pytest.raises(RuntimeError, match=r"start\(\)"):
            await manager.download_and_wait(url, into(target))
        await manager.start()
        assert (await manager.download_and_wait(url, into(target))).path == target
        await manager.stop()

    asyncio.run(main())


# Callbacks that raise.


class Mistake(Exception):
    """Raised by the caller's callback."""


def _raise_later(progress: DownloadProgress) -> None:
    if progress.downloaded > 1 << 20:
        raise Mistake


def _fetch(url: str, target: Path) -> None:
    rangefetch.fetch(url, target, on_progress=_raise_later)


def _fetch_awaited(url: str, target: Path) -> None:
    asyncio.run(aio.fetch(url, target, on_progress=_raise_later))


def _download_and_wait(url: str, target: Path) -> None:
    with DownloadManager() as manager:
        try:
            manager.download_and_wait(url, into(target), _raise_later)
        finally:
            assert [each.status for each in manager.list_downloads()] == [DownloadStatus.PAUSED]


def _download_and_wait_awaited(url: str, target: Path) -> None:
    async def main() -> None:
        async with aio.DownloadManager() as manager:
            try:
                await manager.download_and_wait(url, into(target), _raise_later)
            finally:
                assert [each.status for each in await manager.list_downloads()] == [DownloadStatus.PAUSED]

    asyncio.run(main())


WAYS = [_fetch, _fetch_awaited, _download_and_wait, _download_and_wait_awaited]


@pytest.mark.parametrize("fetch", WAYS)
def test_a_callback_that_raises_stops_the_download_and_keeps_its_state(
    server: MisbehavingServer, target: Path, fetch: Callable[[str, Path], None]
) -> None:
    url = server.url("/shared-rate/x", size=SIZE, rate="4M")
    with pytest.raises(Mistake):
        fetch(url, target)
    assert sorted(names(target.parent)) == ["file.bin.part", "file.bin.part.json"]
    server.wait_idle()
    result = rangefetch.fetch(url, target)
    assert result.resumed > 0
    assert target.read_bytes() == content(SIZE)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, Cancelled, DownloadError, TimeoutError])
def test_whatever_it_raises_reaches_the_caller(
    server: MisbehavingServer, target: Path, kind: type[BaseException]
) -> None:
    mine = kind("mine")

    def fail(_: object) -> None:
        raise mine

    with pytest.raises(kind) as caught:
        rangefetch.fetch(server.url("/slow/x", size=SIZE, rate="100K"), target, on_progress=fail)
    assert caught.value is mine
    server.wait_idle()
    assert rangefetch.get_download_manager().list_downloads(DownloadStatus.ACTIVE) == []


def test_one_that_raises_when_all_is_done_leaves_the_file(server: MisbehavingServer, target: Path) -> None:
    def fail(progress: DownloadProgress) -> None:
        if progress.status is DownloadStatus.COMPLETE:
            raise Mistake

    with pytest.raises(Mistake):
        rangefetch.fetch(server.url("/good/x"), target, on_progress=fail)
    assert names(target.parent) == ["file.bin"]


def _many(urls: list[str], directory: Path) -> None:
    rangefetch.fetch_many(urls, directory, on_progress=lambda _: _raise(), min_split_size="1M")


def _many_awaited(urls: list[str], directory: Path) -> None:
    asyncio.run(aio.fetch_many(urls, directory, on_progress=lambda _: _raise(), min_split_size="1M"))


def _raise() -> Any:
    raise Mistake


@pytest.mark.parametrize("fetch", [_many, _many_awaited])
def test_of_many_all_are_stopped(
    server: MisbehavingServer, target: Path, fetch: Callable[[list[str], Path], None]
) -> None:
    urls = [server.url(f"/slow/{number}.bin", size=SIZE, rate="100K") for number in range(3)]
    with pytest.raises(Mistake):
        fetch(urls, target.parent)
    server.wait_idle()
    assert not any((target.parent / f"{number}.bin").exists() for number in range(3))
