"""The manager's operations, awaited: no thread per download, and cancellation works as documented."""

import asyncio
import contextlib
import resource
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest

from rangefetch import DownloadManager as BlockingManager
from rangefetch import DownloadProgress, DownloadStatus, aio, get_download_manager
from rangefetch.downloads import Downloads
from rangefetch.errors import Cancelled, DownloadError, HttpStatusError
from servers.directed import Valve
from servers.misbehaving import MisbehavingServer, content
from support.downloads import QUICK, SIZE, SMALL, into
from support.files import MIB, begun, names, saved_bytes
from support.waiting import AT_ONCE

T = TypeVar("T")


def run(main: Callable[[], Awaitable[T]]) -> T:
    """Run ``main`` on an event loop for at most a minute; fails if the loop's exception handler is called."""
    reported: list[dict[str, Any]] = []

    async def guarded() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        async with asyncio.timeout(60):
            return await main()

    result = asyncio.run(guarded())
    assert reported == []
    return result


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.005)


async def _more_than(manager: aio.DownloadManager, gid: str, count: int) -> None:
    async def reached() -> bool:
        return (await manager.get_download_progress(gid)).downloaded > count

    await until(reached)


async def _status(manager: aio.DownloadManager, gid: str) -> DownloadStatus:
    return (await manager.get_download_progress(gid)).status


@contextlib.asynccontextmanager
async def _underway(
    server: MisbehavingServer, target: Path, **config: Any
) -> AsyncIterator[tuple[aio.DownloadManager, str]]:
    """A manager, and a download of it that does not finish before the valve is opened."""
    async with aio.DownloadManager(**config) as manager:
        gid = await manager.download(server.url("/valve/x", size=SIZE), into(target))
        await _more_than(manager, gid, MIB)
        yield manager, gid


def test_a_fetch_is_awaited(server: MisbehavingServer, target: Path) -> None:
    async def main() -> None:
        result = await aio.fetch(server.url("/good/x", size=SIZE), target, **QUICK)
        assert result.path == target
        assert result.gid in [each.gid for each in get_download_manager().list_downloads()]
        into_directory = await aio.fetch(server.url("/good/name.bin", size=5), f"{target.parent}/", **QUICK)
        assert into_directory.path == target.with_name("name.bin")
        with pytest.raises(HttpStatusError):
            await aio.fetch(server.url("/status/x", code=404), target.with_name("missing"), **QUICK)
        with pytest.raises(TypeError, match="spilt"):
            await aio.fetch(server.url("/good/x"), target, spilt=3)  # type: ignore[call-arg]  # wrong on purpose

    run(main)
    assert target.read_bytes() == content(SIZE)


@pytest.mark.alone
def test_a_thousand_downloads_are_awaited_at_once_without_a_thread_each(
    server: MisbehavingServer, target: Path
) -> None:
    async def main() -> int:
        async with aio.DownloadManager(max_concurrent_downloads=32) as manager:
            urls = [server.url("/good/x", size=1000, seed=number % 5) for number in range(1000)]
            waiting = [
                asyncio.create_task(manager.download_and_wait(url, into(target, number)))
                for number, url in enumerate(urls)
            ]
            threads = 0
            while not all(task.done() for task in waiting):
                own = [each for each in threading.enumerate() if not each.name.startswith("misbehaving")]
                threads = max(threads, len(own))
                await asyncio.sleep(0.01)
            assert all(task.result().size == 1000 for task in waiting)
            return threads

    assert run(main) < 30
    for number in range(0, 1000, 37):
        assert target.with_name(str(number)).read_bytes() == content(1000, number % 5)


def test_who_waits_uses_no_processor(server: MisbehavingServer, target: Path) -> None:
    def used_s() -> float:
        usage = resource.getrusage(resource.RUSAGE_THREAD)
        return usage.ru_utime + usage.ru_stime

    async def main() -> float:
        async with aio.DownloadManager(max_concurrent_downloads=2) as manager:
            url = server.url("/slow-headers/x", seconds=30)
            gids = [await manager.download(url, into(target, number)) for number in range(300)]
            waiting = [asyncio.create_task(manager.wait(gid)) for gid in gids[:2]]
            await asyncio.sleep(0.3)
            before = used_s()
            await asyncio.sleep(1.5)
            used = used_s() - before
            await manager.cancel_all()
            for task in waiting:
                with pytest.raises(Cancelled):
                    await task
            return used

    assert run(main) < 0.05


@pytest.mark.alone
def test_progress_is_an_iteration(server: MisbehavingServer, target: Path) -> None:
    async def main() -> list[DownloadProgress]:
        async with aio.DownloadManager() as manager:
            gid = await manager.download(server.url("/shared-rate/x", size=4 * MIB, rate="4M"), into(target))
            return [each async for each in manager.progress(gid, every=0.1)]

    seen = run(main)
    assert 5 <= len(seen) <= 16
    assert seen[-1].status is DownloadStatus.COMPLETE
    assert seen[-1].downloaded == 4 * MIB
    counts = [progress.downloaded for progress in seen]
    assert counts == sorted(counts)


def test_an_iteration_follows_every_move(server: MisbehavingServer, valve: Valve, target: Path) -> None:
    async def main() -> list[DownloadStatus]:
        states: list[DownloadStatus] = []

        async def follow() -> None:
            async for progress in manager.progress(gid, every=60):
                if not states or states[-1] is not progress.status:
                    states.append(progress.status)

        async with _underway(server, target) as (manager, gid):
            async for _ in manager.progress(gid):
                break
            following = asyncio.create_task(follow())
            await asyncio.sleep(0.05)
            await manager.pause(gid)
            await asyncio.sleep(0.05)
            valve.open()
            await manager.resume(gid)
            await following
        return states

    states = run(main)
    assert [state for state in states if state is not DownloadStatus.WAITING] == [
        "active",
        "paused",
        "active",
        "complete",
    ]


def test_an_iteration_ends_without_an_error_where_the_download_does(server: MisbehavingServer, target: Path) -> None:
    async def main() -> None:
        async with aio.DownloadManager() as manager:
            gid = await manager.download(server.url("/status/x", code=404), into(target))
            states = [each.status async for each in manager.progress(gid)]
            assert states[-1] is DownloadStatus.ERROR
            with pytest.raises(KeyError):
                manager.progress("0123456789abcdef")
            with pytest.raises(ValueError, match="every"):
                manager.progress(gid, every=0)

    run(main)


@pytest.mark.parametrize("how", ["fetch", "download_and_wait"])
def test_cancelling_who_owns_a_download_pauses_and_saves_it(
    server: MisbehavingServer, valve: Valve, target: Path, how: str
) -> None:
    url = server.url("/valve/x", size=SIZE)

    async def main() -> None:
        manager = aio.DownloadManager.of(get_download_manager())
        known = {each.gid for each in await manager.list_downloads()}
        task = asyncio.create_task(
            aio.fetch(url, target, **QUICK) if how == "fetch" else manager.download_and_wait(url, into(target))
        )

        async def new() -> list[str]:
            return [each.gid for each in await manager.list_downloads() if each.gid not in known]

        await until(new)
        gid = (await new())[0]
        await _more_than(manager, gid, MIB)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        if how == "fetch":
            assert await new() == []
        else:
            assert await _status(manager, gid) is DownloadStatus.PAUSED
            await manager.cancel(gid)
        assert names(target.parent) == begun(target)
        valve.open()
        kept = saved_bytes(target)
        assert kept > MIB
        assert (await aio.fetch(url, target, **QUICK)).resumed == kept

    run(main)
    assert target.read_bytes() == content(SIZE)


def _hold(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> tuple[threading.Event, threading.Event]:
    """Let a method wait after it has done its work. Returns an event that is set then, and one that lets it return."""
    done, may_return = threading.Event(), threading.Event()
    method = getattr(owner, name)

    def held(*args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        done.set()
        assert may_return.wait(60)
        return result

    monkeypatch.setattr(owner, name, held)
    return done, may_return


async def _cancel_meanwhile(task: "asyncio.Task[Any]", done: threading.Event, may_return: threading.Event) -> None:
    """Cancel a task, twice, while a call that was held is being made for it."""

    async def is_done() -> bool:
        return done.is_set()

    await until(is_done)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    may_return.set()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("how", ["fetch", "download_and_wait"])
def test_a_task_that_is_cancelled_while_its_download_is_added_leaves_none_at_work(
    server: MisbehavingServer, valve: Valve, target: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    url = server.url("/valve/x", size=SIZE)
    held = _hold(monkeypatch, Downloads, "submit")

    async def main() -> None:
        manager = aio.DownloadManager.of(get_download_manager())
        known = {each.gid for each in await manager.list_downloads()}
        options = into(target, expected_size=SIZE)
        await _cancel_meanwhile(
            asyncio.create_task(
                aio.fetch(url, target, expected_size=SIZE, **QUICK)
                if how == "fetch"
                else manager.download_and_wait(url, options)
            ),
            *held,
        )

        async def left() -> list[DownloadProgress]:
            return [each for each in await manager.list_downloads() if each.gid not in known]

        async def is_over() -> bool:
            statuses = {each.status for each in await left()}
            return statuses == (set() if how == "fetch" else {DownloadStatus.PAUSED})

        await until(is_over)
        for each in await left():
            await manager.cancel(each.gid, remove_files=True)

    run(main)
    server.wait_idle()


def test_a_with_block_that_is_cancelled_while_it_begins_leaves_no_manager_running(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = _hold(monkeypatch, BlockingManager, "start")

    async def main() -> None:
        manager = aio.DownloadManager()

        async def begin() -> None:
            async with manager:
                raise AssertionError("it was cancelled before")

        async def has_stopped() -> bool:
            return not manager.is_started

        await _cancel_meanwhile(asyncio.create_task(begin()), *held)
        await until(has_stopped)

    run(main)


def test_a_hundred_cancelled_fetches_leave_nothing_behind(
    server: MisbehavingServer, valve: Valve, target: Path
) -> None:
    manager = get_download_manager()
    before = {each.gid for each in manager.list_downloads()}

    async def main() -> None:
        url = server.url("/valve/x", size=SIZE)
        tasks = [asyncio.create_task(aio.fetch(url, target.with_name(str(n)), **QUICK)) for n in range(100)]
        while len(server.requests) < 5:
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)

    run(main)
    assert {each.gid for each in manager.list_downloads()} <= before
    server.wait_idle()


def test_cancelling_who_looks_on_leaves_the_download_running(
    server: MisbehavingServer, valve: Valve, target: Path
) -> None:
    async def main() -> None:
        async with _underway(server, target) as (manager, gid):
            tasks = [asyncio.create_task(manager.wait(gid)) for _ in range(3)]
            await asyncio.sleep(0.05)
            for task in tasks[:2]:
                task.cancel()
            await asyncio.wait(tasks[:2])
            assert all(task.cancelled() for task in tasks[:2])
            assert await _status(manager, gid) is DownloadStatus.ACTIVE
            valve.open()
            assert (await tasks[2]).path.read_bytes() == content(SIZE)

    run(main)


def test_a_loop_that_ends_pauses_what_its_tasks_own(server: MisbehavingServer, valve: Valve, target: Path) -> None:
    async def main(manager: aio.DownloadManager) -> None:
        task = asyncio.create_task(manager.download_and_wait(server.url("/valve/x", size=SIZE), into(target)))
        while not names(target.parent):
            await asyncio.sleep(0.01)
        assert not task.done()

    with BlockingManager() as blocking:
        asyncio.run(main(aio.DownloadManager.of(blocking)))
        assert [each.status for each in blocking.list_downloads()] == [DownloadStatus.PAUSED]


def test_waiting_may_be_given_a_time(server: MisbehavingServer, valve: Valve, target: Path) -> None:
    async def main() -> None:
        async with _underway(server, target) as (manager, gid):
            for timeout in (0, 0.1):
                started = time.monotonic()
                with pytest.raises(TimeoutError, match="not finished") as caught:
                    await manager.wait(gid, timeout=timeout)
                assert time.monotonic() - started < AT_ONCE
                assert not isinstance(caught.value, DownloadError)
            valve.open()
            assert (await manager.wait(gid, timeout=30)).size == SIZE
            assert (await manager.wait(gid, timeout=0)).size == SIZE

    run(main)


def test_every_verb_is_there_and_may_be_awaited(server: MisbehavingServer, valve: Valve, target: Path) -> None:
    async def main() -> None:
        async with _underway(server, target, max_concurrent_downloads=1) as (manager, gid):
            assert manager.is_started
            assert manager.backend == "native"
            assert manager.fallback_reason == ""
            other = await manager.download(server.url("/good/x", size=SMALL), into(target, "other"))
            assert [each.gid for each in await manager.list_downloads("waiting")] == [other]
            await manager.pause_all()
            assert len(await manager.list_downloads("paused")) == 2
            await manager.resume_all()
            await manager.limit("100M")
            await manager.change_options(other, max_download_limit=0)
            assert await manager.cancel(gid, remove_files=True) == target
            assert (await manager.wait(other)).size == SMALL
            await manager.remove(other)
            with pytest.raises(KeyError):
                await manager.wait(other)
            failed = await manager.download(server.url("/status/x", code=404, times=1, size=5), into(target, "late"))
            with pytest.raises(HttpStatusError):
                await manager.wait(failed)
            await manager.retry(failed)
            assert (await manager.wait(failed)).size == 5
            assert await manager.cancel_all() is None
            await manager.stop()
            assert not manager.is_started

    run(main)


def test_stopping_wakes_who_waits(server: MisbehavingServer, valve: Valve, target: Path) -> None:
    async def main() -> None:
        async with _underway(server, target, max_concurrent_downloads=1) as (manager, gid):
            paused = await manager.download(server.url("/good/x"), into(target, "paused"))
            await manager.pause(paused)
            tasks = [asyncio.create_task(manager.wait(each)) for each in (gid, paused)]
            await asyncio.sleep(0.05)
            await manager.stop()
            for task in tasks:
                async with asyncio.timeout(3):
                    with pytest.raises(Cancelled, match="stopped"):
                        await task

    run(main)


def test_several_loops_may_await_one_download(server: MisbehavingServer, valve: Valve, target: Path) -> None:
    sizes: list[int] = []

    def look_on(manager: aio.DownloadManager, gid: str) -> None:
        async def main() -> None:
            sizes.append((await manager.wait(gid)).size)

        run(main)

    with BlockingManager() as blocking:
        manager = aio.DownloadManager.of(blocking)
        gid = blocking.download(server.url("/valve/x", size=SIZE), into(target))
        threads = [threading.Thread(target=look_on, args=(manager, gid)) for _ in range(4)]
        for thread in threads:
            thread.start()
        valve.open()
        for thread in threads:
            thread.join(10)
    assert sizes == [SIZE] * 4


def test_a_callback_runs_on_the_loop(server: MisbehavingServer, target: Path) -> None:
    threads: set[threading.Thread] = set()

    def on_progress(progress: DownloadProgress) -> None:
        threads.add(threading.current_thread())

    async def main() -> None:
        url = server.url("/shared-rate/x", size=2 * MIB, rate="8M")
        await aio.fetch(url, target, on_progress=on_progress, **QUICK)
        urls = [server.url("/good/one.bin", size=5), server.url("/good/two.bin", size=9 * MIB)]
        await aio.fetch_many(urls, target.parent, on_progress=on_progress, **QUICK)

    run(main)
    assert threads == {threading.current_thread()}


def test_many_are_fetched_in_the_order_of_their_items(server: MisbehavingServer, target: Path) -> None:
    items: list[str | tuple[str, dict[str, Any]] | dict[str, Any]] = [
        server.url("/good/a.bin", size=SMALL),
        (server.url("/status/b.bin", code=404), {"max_tries": 1}),
        {"url": server.url("/good/c.bin", size=SIZE, seed=2), "filename": "named.bin"},
    ]

    async def main() -> None:
        outcomes = await aio.fetch_many(items, target.parent, on_error="return", **QUICK)
        assert [type(each).__name__ for each in outcomes] == ["DownloadResult", "HttpStatusError", "DownloadResult"]
        with pytest.raises(ExceptionGroup) as caught:
            await aio.fetch_many(items[1:2], target.parent, max_concurrent_downloads=2, **QUICK)
        assert isinstance(caught.value.exceptions[0], HttpStatusError)
        with pytest.raises(ValueError, match="on_error"):
            await aio.fetch_many(items, target.parent, on_error="ignore")  # type: ignore[call-overload]  # wrong on purpose

    run(main)
    assert names(target.parent) == ["a.bin", "named.bin"]
    assert target.with_name("named.bin").read_bytes() == content(SIZE, 2)


def test_results_of_many_are_told_on_the_loop_as_they_come(
    server: MisbehavingServer, target: Path, caplog: pytest.LogCaptureFixture
) -> None:
    urls = [server.url("/slow/slow.bin", size=SIZE, rate="8M"), *(server.url(f"/good/{n}", size=5) for n in range(3))]
    told: list[tuple[int, object]] = []

    def on_result(number: int, outcome: object) -> None:
        assert threading.current_thread() is threading.main_thread()
        told.append((number, outcome))
        raise RuntimeError("a mistake of the caller")

    async def main() -> None:
        outcomes = await aio.fetch_many(urls, target.parent, on_result=on_result, **QUICK)
        assert sorted(told, key=lambda each: each[0]) == list(enumerate(outcomes))

    run(main)
    assert told[-1][0] == 0
    assert caplog.text.count("on_result failed") == len(urls)


def test_a_cancellation_that_on_progress_raises_ends_many_and_is_raised(
    server: MisbehavingServer, valve: Valve, target: Path
) -> None:
    def on_progress(_: DownloadProgress) -> None:
        raise asyncio.CancelledError("mine")

    async def main() -> None:
        with pytest.raises(asyncio.CancelledError, match="mine"):
            await aio.fetch_many([server.url("/valve/x", size=SIZE)], target.parent, on_progress=on_progress, **QUICK)

    run(main)


def test_cancelling_who_fetches_many_pauses_and_saves_them(
    server: MisbehavingServer, valve: Valve, target: Path
) -> None:
    urls = [server.url(f"/valve/{number}.bin", size=SIZE, seed=number) for number in range(3)]
    before = {each.gid for each in get_download_manager().list_downloads()}

    async def main() -> None:
        task = asyncio.create_task(aio.fetch_many(urls, target.parent, **QUICK))
        while server.bytes_sent < 3 * MIB:
            await asyncio.sleep(0.01)
        task.cancel()
        started = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - started < AT_ONCE
        assert {each.gid for each in get_download_manager().list_downloads()} <= before
        server.wait_idle()
        sent = server.bytes_sent
        await asyncio.sleep(0.2)
        assert server.bytes_sent == sent
        valve.open()
        results = await aio.fetch_many(urls, target.parent, **QUICK)
        assert sum(each.resumed for each in results if not isinstance(each, DownloadError)) > 2 * MIB

    run(main)
    for number in range(3):
        assert target.with_name(f"{number}.bin").read_bytes() == content(SIZE, number)


# A notebook's kernel cancels a cell like this: its Ctrl-C handler only schedules the cancellation for the loop's next
# iteration.
_CELLS: dict[str, Callable[[str, Path], Awaitable[object]]] = {
    "fetch": lambda url, target: aio.fetch(url, target),
    "fetch_many": lambda url, target: aio.fetch_many([url], target.parent),
    "download_and_wait": lambda url, target: aio.DownloadManager.of(get_download_manager()).download_and_wait(
        url, into(target)
    ),
    "head": lambda url, target: aio.head(url),
}


@pytest.mark.parametrize("cell", _CELLS)
def test_a_task_that_a_signals_handler_cancels_without_waking_the_loop_ends(
    server: MisbehavingServer, target: Path, cell: str
) -> None:
    url = server.url("/slow-headers/x", size=SIZE, seconds=60)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(_CELLS[cell](url, target))
        await until(lambda: _true(server.requests))
        thread = threading.main_thread().ident
        assert thread is not None
        before = signal.signal(signal.SIGUSR1, lambda *_: loop.call_soon(task.cancel) and None)
        timer = threading.Timer(0.5, signal.pthread_kill, (thread, signal.SIGUSR1))
        timer.start()
        try:
            started = time.monotonic()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert time.monotonic() - started < AT_ONCE
        finally:
            timer.join()
            signal.signal(signal.SIGUSR1, before)

    run(main)


async def _true(value: object) -> bool:
    return bool(value)


# -- what does not block the loop -------------------------------------------------------------------------------------


def test_operations_use_neither_the_loops_executor_nor_its_time(
    server: MisbehavingServer, valve: Valve, target: Path
) -> None:
    """Each operation returns although every thread of the default executor is busy."""
    release = threading.Event()

    async def operate() -> None:
        async with asyncio.timeout(60), aio.DownloadManager(max_concurrent_downloads=1) as manager:
            active = await manager.download(server.url("/valve/x", size=SIZE), into(target, "a"))
            waiting = await manager.download(server.url("/good/x", size=1), into(target, "b", expected_size=1))
            await manager.pause(active)
            await manager.resume(active)
            await manager.pause(waiting)
            await manager.change_options(waiting, max_tries=3)
            assert len(await manager.list_downloads()) == 2
            await manager.pause_all()
            await manager.resume_all()
            await manager.cancel(active)
            await manager.remove(active)

    async def with_a_busy_executor() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        busy = loop.run_in_executor(None, release.wait)
        try:
            await operate()
        finally:
            release.set()
            await busy

    asyncio.run(with_a_busy_executor())
