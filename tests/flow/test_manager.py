"""Several downloads: their queue, their states, and a manager that many threads use."""

import contextlib
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rangefetch import DownloadManager, DownloadStatus, fetch
from rangefetch.errors import Cancelled, DownloadError, HttpStatusError
from servers.directed import Valve
from servers.misbehaving import MisbehavingServer, content
from support.downloads import QUICK, consistent, downloaded
from support.files import MIB, begun, names, saved_bytes
from support.requests import paths
from support.waiting import AT_ONCE, until

SIZE = 9 * MIB + 12_345
SMALL = 100_001


def _where(target: Path, name: object = "file.bin") -> dict[str, Any]:
    return QUICK | {"save_dir": target.parent, "filename": str(name)}


def _status(manager: DownloadManager, gid: str) -> DownloadStatus:
    return manager.get_download_progress(gid).status


def test_one_at_a_time_they_come_in_the_order_they_were_asked_for(server: MisbehavingServer, target: Path) -> None:
    with DownloadManager(max_concurrent_downloads=1) as manager:
        urls = [server.url("/good/x", size=SMALL, seed=seed) for seed in range(8)]
        gids = [manager.download(url, _where(target, number)) for number, url in enumerate(urls)]
        assert len(set(gids)) == 8
        assert all(len(gid) == 16 and int(gid, 16) >= 0 for gid in gids)
        for number, gid in enumerate(gids):
            assert manager.wait(gid).path.read_bytes() == content(SMALL, number)
        assert [progress.gid for progress in manager.list_downloads()] == gids
    assert [server.url(request.path) for request in server.requests] == urls


def test_as_many_as_allowed_are_active_and_never_more(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/limited-connections/x", size=SMALL, limit=2, code=404, delay=0.1)
    with DownloadManager(max_concurrent_downloads=2) as manager:
        for gid in [manager.download(url, _where(target, number)) for number in range(6)]:
            assert manager.wait(gid).path.read_bytes() == content(SMALL)
    times = [request.time for request in server.requests]
    assert len(times) == 6
    assert times[1] - times[0] < 0.1


@pytest.mark.parametrize("most", [0, -1])
def test_at_least_one_must_be_allowed(most: int) -> None:
    with pytest.raises(ValueError, match="max_concurrent_downloads"):
        DownloadManager(max_concurrent_downloads=most)


def test_a_failure_does_not_stop_the_queue(server: MisbehavingServer, target: Path) -> None:
    with DownloadManager(max_concurrent_downloads=1) as manager:
        bad = manager.download(server.url("/status/x", code=404), _where(target, "bad"))
        worse = manager.download(server.url("/good/x", size=5), _where(target) | {"save_dir": "/dev/null/x"})
        good = manager.download(server.url("/good/x", size=SMALL), _where(target, "good"))
        assert manager.wait(good).path.read_bytes() == content(SMALL)
        for gid in (bad, worse):
            with pytest.raises(DownloadError):
                manager.wait(gid)
            assert _status(manager, gid) is DownloadStatus.ERROR
    assert names(target.parent) == ["good"]


def test_the_end_of_the_block_saves_what_is_unfinished(server: MisbehavingServer, valve: Valve, target: Path) -> None:
    with DownloadManager(max_concurrent_downloads=1) as manager:
        active = manager.download(server.url("/valve/x", size=SIZE), _where(target))
        waiting = manager.download(server.url("/good/x", size=5), _where(target, "waiting"))
        until(lambda: downloaded(manager, active) > MIB)
        started = time.monotonic()
    assert time.monotonic() - started < AT_ONCE
    assert not manager.is_started
    assert names(target.parent) == begun(target)
    assert saved_bytes(target) > MIB
    for gid in (active, waiting):
        assert _status(manager, gid) is DownloadStatus.PAUSED
        with pytest.raises(Cancelled, match="stopped"):
            manager.wait(gid)
    assert consistent(manager.get_download_progress(active))
    assert downloaded(manager, active) == saved_bytes(target)


def test_it_may_be_stopped_twice_and_started_again(server: MisbehavingServer, valve: Valve, target: Path) -> None:
    manager = DownloadManager()
    manager.stop()
    gid = manager.download(server.url("/valve/x", size=SIZE), _where(target))
    assert manager.is_started
    until(lambda: downloaded(manager, gid) > MIB)
    manager.stop()
    manager.stop()
    valve.open()
    manager.resume(gid)
    result = manager.wait(gid)
    assert target.read_bytes() == content(SIZE)
    assert result.resumed > MIB
    manager.stop()


def test_stopping_wakes_who_waits(server: MisbehavingServer, valve: Valve, target: Path) -> None:
    manager = DownloadManager()
    gid = manager.download(server.url("/valve/x", size=SIZE), _where(target))
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(manager.wait, gid)
        until(lambda: downloaded(manager, gid) > 0)
        manager.stop()
        with pytest.raises(Cancelled):
            waiting.result(timeout=3)


@pytest.mark.usefixtures("no_leaks")
def test_a_stopped_manager_leaves_no_thread_and_no_open_file(server: MisbehavingServer, target: Path) -> None:
    with DownloadManager() as manager:
        gids = [manager.download(server.url("/good/x", size=SIZE), _where(target, number)) for number in range(3)]
        for gid in gids:
            manager.wait(gid)
        with pytest.raises(HttpStatusError):
            manager.download_and_wait(server.url("/status/x", code=404), _where(target, "missing"))
        manager.download(server.url("/slow/x", size=SIZE, rate="1M"), _where(target, "unfinished"))
        until(lambda: names(target.parent)[-1] == "unfinished.part")


def test_waiting_may_be_given_a_time(server: MisbehavingServer, valve: Valve, target: Path) -> None:
    with DownloadManager() as manager:
        gid = manager.download(server.url("/valve/x", size=SIZE), _where(target))
        started = time.monotonic()
        with pytest.raises(TimeoutError) as caught:
            manager.wait(gid, timeout=0.2)
        assert 0.2 <= time.monotonic() - started < AT_ONCE
        assert not isinstance(caught.value, DownloadError)
        with pytest.raises(TimeoutError):
            manager.wait(gid, timeout=0)
        assert _status(manager, gid) is DownloadStatus.ACTIVE
        valve.open()
        assert manager.wait(gid, timeout=30).size == SIZE
        assert manager.wait(gid, timeout=0).size == SIZE


@pytest.mark.parametrize("verb", ["wait", "pause", "resume", "get_download_progress"])
def test_an_unknown_gid_is_a_key_error(manager: DownloadManager, verb: str) -> None:
    with pytest.raises(KeyError, match="0123456789abcdef"):
        getattr(manager, verb)("0123456789abcdef")


def test_a_paused_download_leaves_its_place_to_the_next(server: MisbehavingServer, valve: Valve, target: Path) -> None:
    with DownloadManager(max_concurrent_downloads=1) as manager:
        first = manager.download(server.url("/valve/x", size=SIZE), _where(target))
        second = manager.download(server.url("/good/x", size=SMALL), _where(target, "second"))
        until(lambda: downloaded(manager, first) > 0)
        assert _status(manager, second) is DownloadStatus.WAITING
        manager.pause(first)
        assert manager.wait(second).path.read_bytes() == content(SMALL)
        assert _status(manager, first) is DownloadStatus.PAUSED
        valve.open()
        manager.resume(first)
        assert manager.wait(first).path.read_bytes() == content(SIZE)


def test_a_waiting_download_may_be_paused_and_resumed(server: MisbehavingServer, valve: Valve, target: Path) -> None:
    with DownloadManager(max_concurrent_downloads=1) as manager:
        first = manager.download(server.url("/valve/x", size=SIZE), _where(target))
        second = manager.download(server.url("/good/x", size=SMALL), _where(target, "second"))
        manager.pause(second)
        assert _status(manager, second) is DownloadStatus.PAUSED
        valve.open()
        manager.wait(first)
        assert _status(manager, second) is DownloadStatus.PAUSED
        manager.resume(second)
        assert manager.wait(second).path.read_bytes() == content(SMALL)


def test_a_resume_right_after_a_pause_goes_on(
    server: MisbehavingServer, valve: Valve, target: Path, manager: DownloadManager
) -> None:
    gid = manager.download(server.url("/valve/x", size=SIZE), _where(target))
    until(lambda: downloaded(manager, gid) > 0)
    manager.pause(gid)
    manager.resume(gid)
    valve.open()
    assert manager.wait(gid, timeout=30).path.read_bytes() == content(SIZE)


def test_a_pause_of_what_has_ended_changes_nothing(
    server: MisbehavingServer, target: Path, manager: DownloadManager
) -> None:
    gid = manager.download(server.url("/good/x", size=SMALL), _where(target))
    manager.wait(gid)
    manager.pause(gid)
    assert _status(manager, gid) is DownloadStatus.COMPLETE
    manager.resume(gid)


@pytest.mark.parametrize("route", ["status", "stall", "slow-headers"])
def test_a_download_that_waits_for_its_server_stops_at_once(
    server: MisbehavingServer, target: Path, route: str
) -> None:
    parameters = {
        "status": {"code": 503, "retry_after": 100},
        "stall": {"headers": 0},
        "slow-headers": {"seconds": 100},
    }[route]
    with DownloadManager() as manager:
        manager.download(server.url(f"/{route}/x", **parameters), _where(target))
        until(lambda: server.requests)
        started = time.monotonic()
    assert time.monotonic() - started < AT_ONCE
    assert names(target.parent) == []


def test_eight_threads_may_use_one_manager(server: MisbehavingServer, target: Path) -> None:
    with DownloadManager(max_concurrent_downloads=4) as manager, ThreadPoolExecutor(8) as pool:

        def work(thread: int) -> None:
            chosen = random.Random(thread)
            for number in range(10):
                seed = thread * 100 + number
                size = chosen.choice([0, 1, SMALL, MIB, 5 * MIB])
                gid = manager.download(server.url("/good/x", size=size, seed=seed), _where(target, seed))
                manager.list_downloads(chosen.choice(list(DownloadStatus)))
                assert consistent(manager.get_download_progress(gid))
                assert manager.wait(gid, timeout=30).path.read_bytes() == content(size, seed)

        for done in [pool.submit(work, thread) for thread in range(8)]:
            done.result(timeout=60)
        assert len(manager.list_downloads("complete")) == 80
    assert len(names(target.parent)) == 80


def test_pauses_and_resumes_from_many_threads_lose_nothing(server: MisbehavingServer, target: Path) -> None:
    with DownloadManager(max_concurrent_downloads=3) as manager:
        urls = [server.url("/slow/x", size=3 * MIB, seed=seed, rate="2M") for seed in range(4)]
        gids = [manager.download(url, _where(target, seed)) for seed, url in enumerate(urls)]
        deadline = time.monotonic() + 1.5

        def stopped(gid: str) -> bool:
            return _status(manager, gid) is not DownloadStatus.ACTIVE

        def disturb(seed: int) -> None:
            chosen = random.Random(seed)
            while time.monotonic() < deadline:
                gid = chosen.choice(gids)
                manager.pause(gid)
                while not stopped(gid) and time.monotonic() < deadline:
                    time.sleep(0.001)
                # Another thread may have resumed it, or it has ended.
                with contextlib.suppress(ValueError):
                    manager.resume(gid)

        disturbers = [threading.Thread(target=disturb, args=(seed,)) for seed in range(4)]
        for thread in disturbers:
            thread.start()
        for thread in disturbers:
            thread.join()
        for seed, gid in enumerate(gids):
            until(partial(stopped, gid))
            if _status(manager, gid) is DownloadStatus.PAUSED:
                manager.resume(gid)
            assert manager.wait(gid, timeout=30).path.read_bytes() == content(3 * MIB, seed)


def test_many_threads_may_fetch_at_once(server: MisbehavingServer, target: Path) -> None:
    def one(seed: int) -> bool:
        url = server.url("/good/x", size=SMALL, seed=seed)
        return fetch(url, target.with_name(str(seed))).path.read_bytes() == content(SMALL, seed)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(one, range(64)))
    assert len(server.requests) == 64


def test_wrong_options_are_refused_where_they_are_given(manager: DownloadManager, target: Path) -> None:
    with pytest.raises(TypeError, match="spilt"):
        manager.download("http://127.0.0.1/x", {"spilt": 4})
    with pytest.raises(TypeError, match="options"):
        manager.download("http://127.0.0.1/x", 5)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValueError, match="url"):
        manager.download("gopher://127.0.0.1/x", _where(target))
    assert manager.list_downloads() == []


def test_a_url_is_asked_for_once_however_many_wait(
    server: MisbehavingServer, target: Path, manager: DownloadManager
) -> None:
    gid = manager.download(server.url("/slow-headers/x", size=SMALL, seconds=0.2), _where(target))
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: manager.wait(gid), range(8)))
    assert len({id(result) for result in results}) == 1
    assert paths(server) == ["slow-headers"]
