"""Downloads that are treated as small files: every option and every operation of a download works with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rangefetch
from rangefetch import DownloadManager, DownloadOptions, DownloadStatus, aio
from rangefetch.native.backend import NativeBackend
from rangefetch.native.task import NativeTask
from rangefetch.transfer.capabilities import NATIVE
from rangefetch.transfer.download import Download
from servers.misbehaving import MisbehavingServer, content
from support.downloads import QUICK, SMALL, fetch
from support.files import MIB, names
from support.waiting import until

URL = "http://127.0.0.1/file"


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The URLs of the downloads that got a task, because they were not, or not only, treated as small files."""
    made: list[str] = []
    whole = NativeTask.__init__

    def noted(task: NativeTask, backend: NativeBackend, download: Download, *more: Any) -> None:
        made.append(download.url)
        whole(task, backend, download, *more)

    monkeypatch.setattr(NativeTask, "__init__", noted)
    return made


# ---- Options -----------------------------------------------------------------------------------------------------

# The effect of each option, also on small files, is tested in ``manager/test_defaults.py``.
NOT_SMALL: dict[str, Any] = {
    "durable": True,
    "decode": True,
    "mirrors": ["http://127.0.0.1/other"],
    "use_github_mirror": True,
    "checksum": "md5=" + 32 * "0",
    "expected_size": 1,
    "max_download_limit": 1,
}


def test_with_the_defaults_a_download_is_taken_for_one() -> None:
    assert NATIVE.takes_as_small(Download(URL, DownloadOptions()))


@pytest.mark.parametrize("option", NOT_SMALL)
def test_with_an_option_that_speaks_against_it_a_download_is_none(option: str) -> None:
    assert not NATIVE.takes_as_small(Download(URL, DownloadOptions(**{option: NOT_SMALL[option]})))


# ---- Results -----------------------------------------------------------------------------------------------------


def _by_fetch(url: str, directory: Path) -> rangefetch.DownloadResult:
    return fetch(url, f"{directory}/")


def _by_fetch_many(url: str, directory: Path) -> rangefetch.DownloadResult:
    return rangefetch.fetch_many([url], directory)[0]


def _by_a_manager(url: str, directory: Path) -> rangefetch.DownloadResult:
    with DownloadManager() as manager:
        return manager.download_and_wait(url, {"save_dir": directory})


def _by_asyncio(url: str, directory: Path) -> rangefetch.DownloadResult:
    import asyncio

    return asyncio.run(aio.fetch(url, f"{directory}/"))


@pytest.mark.parametrize("how", [_by_fetch, _by_fetch_many, _by_a_manager, _by_asyncio])
def test_whoever_asks_gets_the_same_result_for_one_request(
    server: MisbehavingServer, target: Path, how: Callable[[str, Path], rangefetch.DownloadResult], runs: list[str]
) -> None:
    url = server.url("/good/x", size=SMALL, delay=0.05)
    result = how(url, target.parent)
    assert result.path.read_bytes() == content(SMALL)
    assert (result.size, result.sources, result.identity, result.retries) == (SMALL, (url,), "one response", 0)
    assert 0.05 <= result.seconds < 20
    assert result.connections <= 1
    assert result.bound
    assert (len(server.requests), runs) == (1, [])


def test_what_is_not_small_is_requested_once_too(server: MisbehavingServer, target: Path, runs: list[str]) -> None:
    for path in ("disposition", "redirect"):
        server.clear()
        result = fetch(server.url(f"/{path}/x", size=SMALL), f"{target.parent}/{path}/")
        assert result.path.read_bytes() == content(SMALL)
        assert [request.status for request in server.requests].count(206) == 1
    server.clear()
    result = fetch(server.url("/good/large", size=9 * MIB), target)
    assert result.path.read_bytes() == content(9 * MIB)
    assert server.bytes_sent < 9.5 * MIB
    assert [request.range[0] for request in server.requests if request.range].count(0) == 1
    assert len(runs) == 3


# ---- What can be asked of a download -----------------------------------------------------------------------------


def _stalled(server: MisbehavingServer, number: int) -> str:
    return server.url(f"/script/{number}", size=SMALL, seed=number, steps="stall:after=100", then="good")


@pytest.mark.parametrize("all_of_them", [False, True], ids=["one by one", "all"])
def test_small_files_are_listed_paused_and_resumed(
    server: MisbehavingServer, target: Path, all_of_them: bool, runs: list[str]
) -> None:
    with DownloadManager(max_concurrent_downloads=2) as manager:
        options = QUICK | {"save_dir": target.parent}
        gids = [manager.download(_stalled(server, number), options) for number in range(4)]
        until(lambda: len(server.requests) == 2)
        assert [each.status for each in manager.list_downloads()] == ["active"] * 2 + ["waiting"] * 2
        assert all(each.waiting_for for each in manager.list_downloads())
        until(lambda: manager.get_download_progress(gids[0]).total == SMALL)
        if all_of_them:
            manager.pause_all()
        else:
            for gid in reversed(gids):
                manager.pause(gid)
        assert {each.status for each in manager.list_downloads()} == {DownloadStatus.PAUSED}
        assert runs == []
        assert names(target.parent) == []
        manager.resume_all()
        for number, gid in enumerate(gids):
            manager.wait(gid, 20)
            assert (target.parent / str(number)).read_bytes() == content(SMALL, number)


@pytest.mark.parametrize("all_of_them", [False, True], ids=["one by one", "all"])
def test_small_files_are_cancelled_and_leave_nothing(
    server: MisbehavingServer, target: Path, all_of_them: bool
) -> None:
    with DownloadManager(max_concurrent_downloads=2) as manager:
        gids = [manager.download(_stalled(server, n), QUICK | {"save_dir": target.parent}) for n in range(4)]
        until(lambda: len(server.requests) == 2)
        if all_of_them:
            manager.cancel_all(remove_files=True)
        else:
            for gid in reversed(gids):
                manager.cancel(gid)
        assert {each.status for each in manager.list_downloads()} == {DownloadStatus.REMOVED}
    assert len(server.requests) == 2
    assert names(target.parent) == []


def test_a_limit_for_all_holds_for_small_files(server: MisbehavingServer, target: Path) -> None:
    with DownloadManager(max_overall_download_limit=400_000) as manager:
        gids = [
            manager.download(server.url(f"/good/{n}", size=SMALL, seed=n), {"save_dir": target.parent})
            for n in range(5)
        ]
        seconds = max(manager.wait(gid, 30).seconds for gid in gids)
    assert seconds > 0.5


def test_a_manager_that_is_stopped_leaves_nothing_of_them(server: MisbehavingServer, target: Path) -> None:
    with DownloadManager() as manager:
        gids = [manager.download(_stalled(server, n), QUICK | {"save_dir": target.parent}) for n in range(4)]
        until(lambda: len(server.requests) == 4)
    assert {each.status for each in manager.list_downloads()} == {DownloadStatus.PAUSED}
    assert names(target.parent) == []
    with manager:
        manager.resume_all()
        for gid in gids:
            manager.wait(gid, 20)


def test_one_that_is_not_small_keeps_no_connection_from_those_that_have_the_places(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    urls = [server.url(f"/slow/{seed}.bin", size="1200K", seed=seed, rate="8M") for seed in range(40)]

    def stop(progress: rangefetch.DownloadProgress) -> None:
        if progress.downloaded > 4 * MIB:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rangefetch.fetch_many(urls, tmp_path, on_progress=stop)
    # A resumed download takes a place at once, but makes its request later than the new ones.
    results = rangefetch.fetch_many(urls, tmp_path, max_connection_per_server=4, total_timeout=30)
    assert [result.size for result in results] == [1200 << 10] * 40
