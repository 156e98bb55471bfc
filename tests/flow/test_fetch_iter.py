"""``fetch_iter``: results as files finish, from any iterable, which is read no further than a window ahead."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rangefetch
from rangefetch import DownloadProgress, DownloadStatus, aio
from rangefetch.errors import Cancelled, HttpStatusError, TargetExists
from servers.directed import Valve
from servers.misbehaving import MisbehavingServer, content
from servers.routing import ROUTES, Route
from support.downloads import QUICK
from support.files import names

SMALL = 5000


def url_of(server: MisbehavingServer, seed: int, name: str = "") -> str:
    return server.url(f"/good/{name or seed}.bin", size=SMALL, seed=seed)


def flow(items: Any, directory: Path, **options: Any) -> Any:
    return rangefetch.fetch_iter(items, directory, **(QUICK | options))


@pytest.fixture
def left() -> Callable[[], set[str]]:
    """A function that returns the gids added to the process's manager since the test began."""

    def gids() -> set[str]:
        return {progress.gid for progress in rangefetch.get_download_manager().list_downloads()}

    before = gids()
    return lambda: gids() - before


def is_there(directory: Path, seeds: Any) -> bool:
    return all((directory / f"{seed}.bin").read_bytes() == content(SMALL, seed) for seed in seeds)


def test_all_files_come_and_errors_are_yielded(server: MisbehavingServer, tmp_path: Path) -> None:
    items = [url_of(server, seed) for seed in range(300)]
    items[7] = server.url("/status/x.bin", code=404)
    fetched = list(flow(iter(items), tmp_path))
    assert sorted(each.number for each in fetched) == list(range(300))
    assert all(each.item == items[each.number] for each in fetched)
    [failed] = [each for each in fetched if each.error]
    assert (failed.number, type(failed.error)) == (7, HttpStatusError)
    with pytest.raises(HttpStatusError):
        _ = failed.result
    assert is_there(tmp_path, set(range(300)) - {7})


def test_an_endless_list_is_read_no_further_than_the_window(server: MisbehavingServer, tmp_path: Path) -> None:
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        for seed in itertools.count():
            taken += 1
            yield url_of(server, seed)

    results = flow(endless(), tmp_path, window=50)
    assert taken == 0
    numbers: list[int] = []
    for fetched in itertools.islice(results, 500):
        assert fetched.error is None
        assert taken <= len(numbers) + 50
        numbers.append(fetched.number)
    results.close()
    assert taken <= 550
    # The other files of the window may or may not be complete.
    assert is_there(tmp_path, numbers)


def test_results_come_as_files_end(server: MisbehavingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    valve = Valve(1)
    monkeypatch.setitem(ROUTES, "shut", Route("shut", valve, {}))
    items = [server.url("/shut/slow.bin", size="9M"), *(url_of(server, seed) for seed in range(20))]
    results = flow(items, tmp_path)
    first = [next(results) for _ in range(20)]
    assert 0 not in {each.number for each in first}
    valve.open()
    last = next(results)
    assert (last.number, last.result.size) == (0, 9 << 20)
    assert list(results) == []


def test_an_item_that_is_given_twice_and_names_that_are_given_twice(server: MisbehavingServer, tmp_path: Path) -> None:
    one, two = url_of(server, 1), url_of(server, 2)
    items: list[Any] = [
        (one, "a"),
        (one, "a"),
        (two, "a"),
        url_of(server, 3, "same"),
        url_of(server, 4, "same"),
        (two, "b"),
    ]
    outcomes = {each.number: each for each in flow(items, tmp_path)}
    assert len(outcomes) == len(items)
    assert outcomes[0].result == outcomes[1].result
    assert isinstance(outcomes[2].error, TargetExists)
    # A name taken from the URL is a guess, and checking it costs a request.
    assert outcomes[3].error is None
    assert isinstance(outcomes[4].error, TargetExists)
    assert names(tmp_path) == ["a", "b", "same.bin"]
    assert len([request for request in server.requests if "seed=1" in request.path]) == 1
    renamed = list(flow([(one, "a"), (two, "a")], tmp_path / "renamed", auto_file_renaming=True))
    assert [each.error for each in renamed] == [None, None]
    assert names(tmp_path / "renamed") == ["a", "a.1"]


def test_leaving_early_stops_what_is_under_way_and_the_same_items_resume_it(
    server: MisbehavingServer, tmp_path: Path, left: Callable[[], set[str]]
) -> None:
    items = [server.url(f"/good/{seed}.bin", size="2M", seed=seed) for seed in range(40)]
    results = flow(items, tmp_path)
    next(results)
    results.close()
    assert not left()
    assert [each.error for each in flow(items, tmp_path)] == [None] * 40
    assert all((tmp_path / f"{seed}.bin").read_bytes() == content("2M", seed) for seed in range(40))
    assert names(tmp_path) == sorted(f"{seed}.bin" for seed in range(40))


def test_what_the_items_raise_reaches_the_caller(
    server: MisbehavingServer, tmp_path: Path, left: Callable[[], set[str]]
) -> None:
    def broken() -> Iterator[str]:
        yield url_of(server, 1)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        list(flow(broken(), tmp_path))
    with pytest.raises(ValueError, match=r"^items\[1\]: .* no URL scheme"):
        list(flow([url_of(server, 1), "x"], tmp_path))
    assert not left()


@pytest.mark.parametrize(
    ("items", "options", "kind"),
    [
        ("http://example.org/", {}, TypeError),
        (7, {}, TypeError),
        ([], {"window": 0}, ValueError),
        ([], {"split": 0}, ValueError),
        ([], {"filename": "x"}, ValueError),
        ([], {"on_progress": 1}, TypeError),
        ([], {"max_concurrent_downloads": 0}, ValueError),
    ],
)
def test_wrong_arguments_are_told_at_once(items: Any, options: dict[str, Any], kind: type[Exception]) -> None:
    for fetch_iter in (rangefetch.fetch_iter, aio.fetch_iter):
        with pytest.raises(kind):
            fetch_iter(items, **options)


def test_hosts_take_turns(server: MisbehavingServer, tmp_path: Path) -> None:
    here = [url_of(server, seed % 50, f"here{seed}") for seed in range(400)]
    there = [url_of(server, seed, f"there{seed}").replace("127.0.0.1", "localhost") for seed in range(10)]
    ended = [each.number for each in flow([*here, *there], tmp_path)]
    # The second host's files do not come last.
    assert max(ended.index(number) for number in range(400, 410)) < 380


def test_a_manifest_and_its_directories(server: MisbehavingServer, tmp_path: Path) -> None:
    text = f"url,path,size\n{url_of(server, 1)},a/b/one.bin,{SMALL}\n{url_of(server, 2)},a/two.bin,{SMALL + 1}\n"
    items = rangefetch.read_manifest(io.BytesIO(text.encode()))
    outcomes = {each.number: each for each in flow(items, tmp_path)}
    assert outcomes[0].result.path == tmp_path / "a" / "b" / "one.bin"
    assert outcomes[0].item.line == 2
    assert "5001" in str(outcomes[1].error)
    items = rangefetch.read_manifest(io.BytesIO(text.encode()))
    results = rangefetch.fetch_many(items, tmp_path / "many", on_error="return", **QUICK)
    assert names(tmp_path / "many" / "a" / "b") == ["one.bin"]
    assert len(results) == 2


def test_progress_says_how_many_are_done(server: MisbehavingServer, tmp_path: Path) -> None:
    seen: list[DownloadProgress] = []
    list(flow((url_of(server, seed) for seed in range(30)), tmp_path, on_progress=seen.append))
    last = seen[-1]
    assert (last.filename, last.percentage, last.status) == ("30 of 30 files", 100.0, DownloadStatus.COMPLETE)
    assert last.downloaded == 30 * SMALL
    with pytest.raises(ZeroDivisionError):
        list(flow([url_of(server, 1)], tmp_path / "again", on_progress=lambda _: 1 / 0))


def test_a_manager_that_is_stopped_ends_it(server: MisbehavingServer, tmp_path: Path) -> None:
    items = [server.url(f"/slow/{seed}.bin", size="1M", rate="100K") for seed in range(5)]
    stopping: list[threading.Thread] = []

    def stop(progress: DownloadProgress) -> None:
        if progress.downloaded and not stopping:
            stopping.append(threading.Thread(target=rangefetch.get_download_manager().stop))
            stopping[0].start()

    with pytest.raises(Cancelled):
        list(flow(items, tmp_path, on_progress=stop))
    stopping[0].join()


# -- asyncio -----------------------------------------------------------------------------------------------------------


def test_an_asynchronous_iterable_is_read_no_further_than_the_window(
    server: MisbehavingServer, tmp_path: Path, left: Callable[[], set[str]]
) -> None:
    taken = 0

    async def endless() -> AsyncIterator[str]:
        nonlocal taken
        for seed in itertools.count():
            taken += 1
            await asyncio.sleep(0)
            yield url_of(server, seed)

    async def main() -> list[int]:
        numbers: list[int] = []
        async with contextlib.aclosing(aio.fetch_iter(endless(), tmp_path, window=40, **QUICK)) as results:
            async for fetched in results:
                assert fetched.error is None
                # Up to a window of items is also buffered on each side of the thread.
                assert taken <= len(numbers) + 4 * 40
                numbers.append(fetched.number)
                if len(numbers) == 200:
                    break
        return numbers

    assert len(set(asyncio.run(main()))) == 200
    assert not left()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_coroutine_gets_all_results(server: MisbehavingServer, tmp_path: Path, asynchronous: bool) -> None:
    urls = [url_of(server, seed) for seed in range(100)]

    async def given() -> AsyncIterator[str]:
        for url in urls:
            yield url

    async def main() -> set[int]:
        items = given() if asynchronous else iter(urls)
        return {fetched.number async for fetched in aio.fetch_iter(items, tmp_path, **QUICK)}

    assert asyncio.run(main()) == set(range(100))
    assert is_there(tmp_path, range(100))


def test_a_source_that_has_nothing_yet_holds_up_no_results(server: MisbehavingServer, tmp_path: Path) -> None:
    async def main() -> None:
        more = asyncio.Event()

        async def given() -> AsyncIterator[str]:
            yield url_of(server, 1)
            await more.wait()
            yield url_of(server, 2)

        results = aio.fetch_iter(given(), tmp_path, **QUICK)
        assert (await anext(results)).number == 0
        more.set()
        assert (await anext(results)).number == 1
        assert [each async for each in results] == []

    asyncio.run(main())


@pytest.mark.parametrize("error", [KeyError("mine"), asyncio.CancelledError("mine")], ids=["error", "cancellation"])
def test_what_an_asynchronous_iterable_raises_reaches_the_caller(
    server: MisbehavingServer, tmp_path: Path, error: BaseException
) -> None:
    async def given() -> AsyncIterator[str]:
        yield url_of(server, 1)
        raise error

    async def main() -> None:
        async with asyncio.timeout(60):
            with pytest.raises(type(error), match="mine"):
                async for _ in aio.fetch_iter(given(), tmp_path, **QUICK):
                    pass

    asyncio.run(main())


def test_cancelling_the_task_stops_and_saves(
    server: MisbehavingServer, tmp_path: Path, left: Callable[[], set[str]]
) -> None:
    items = [server.url(f"/slow/{seed}.bin", size="1M", rate="200K", seed=seed) for seed in range(4)]

    async def main() -> None:
        async def all_of_them() -> None:
            async for _ in aio.fetch_iter(items, tmp_path, **QUICK):
                pass

        task = asyncio.create_task(all_of_them())
        await asyncio.sleep(1)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert not left()
