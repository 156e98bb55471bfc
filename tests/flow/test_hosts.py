"""A host's demands, and the user's limits for a host, apply to all downloads of the process together."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flow.children import run_child
from rangefetch import DownloadManager, DownloadResult, DownloadStatus, RetryPolicy, fetch_many, stream
from rangefetch.options import DownloadOptions
from rangefetch.transfer import governor
from servers.counting import CountingServer
from servers.hosts import ManyHosts
from servers.misbehaving import MisbehavingServer
from support.files import MIB
from support.waiting import AT_ONCE, until


@pytest.fixture
def counting() -> Iterator[CountingServer]:
    with CountingServer() as server:
        yield server


@pytest.mark.parametrize("status", [429, 503])
def test_a_rest_holds_for_files_in_batches_and_none_of_them_is_lost(
    counting: CountingServer, tmp_path: Path, status: int
) -> None:
    counting.refuse(status, 1, after=100)
    results = fetch_many([counting.url(f"f{number:04}") for number in range(400)], tmp_path, max_concurrent_downloads=8)
    assert all(isinstance(result, DownloadResult) for result in results)
    # The requests under way when the first of them was refused.
    assert counting.refused <= 8 + 1
    assert len(counting.seen) == 400 + counting.refused


def test_a_rest_that_one_manager_has_heard_of_holds_for_the_others(counting: CountingServer, tmp_path: Path) -> None:
    counting.refuse(429, 1)
    with DownloadManager() as one, DownloadManager() as other:
        gids = [(one, one.download(counting.url("first"), {"save_dir": tmp_path}))]
        until(lambda: counting.seen)
        gids += [(other, other.download(counting.url(f"f{n}"), {"save_dir": tmp_path})) for n in range(8)]
        for manager, gid in gids:
            assert manager.wait(gid, timeout=20).size == counting.size
    # The first request, and those sent before its response came.
    assert counting.refused <= 9
    late = [each.time_s - counting.seen[0].time_s for each in counting.seen if each.status < 400]
    assert min(late) >= 1.0


@pytest.mark.parametrize("most", [1, 2])
def test_a_host_has_no_more_connections_than_the_user_says(counting: CountingServer, tmp_path: Path, most: int) -> None:
    options = {"save_dir": tmp_path, "max_connection_per_server": most}
    with DownloadManager(max_concurrent_downloads=8) as manager:
        gids = [manager.download(counting.url(f"single{number}"), options) for number in range(12)]
        fetch_many([counting.url(f"f{n}") for n in range(40)], tmp_path, max_connection_per_server=most)
        for gid in gids:
            assert manager.wait(gid, timeout=30).size == counting.size
    assert counting.most_connections <= most


def test_streams_that_are_read_in_turns_each_have_a_connection(counting: CountingServer) -> None:
    counting.size = 24 << 20
    readers = [stream(counting.url(f"f{n}"), max_connection_per_server=1) for n in range(3)]
    for _ in range(3):
        for reader in readers:
            assert reader.read(1 << 20) == b"x" * (1 << 20)
    for reader in readers:
        reader.close()


# ---- Files at a time ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 3, 24])
def test_small_files_come_as_many_at_a_time_as_the_user_says(
    counting: CountingServer, tmp_path: Path, most: int
) -> None:
    counting.delay_s = 0.2
    urls = [counting.url(f"f{number}") for number in range(4 * most)]
    fetch_many(urls, tmp_path, max_concurrent_downloads=most, max_connection_per_server=32)
    assert most // 2 < counting.most_requests <= most


def test_small_files_and_downloads_share_the_places(counting: CountingServer, tmp_path: Path) -> None:
    counting.delay_s = 0.05
    urls = [counting.url(f"f{number}") for number in range(30)]
    items = [(url, {"filename": f"own{number}"}) if number % 2 else url for number, url in enumerate(urls)]
    fetch_many(items, tmp_path, max_concurrent_downloads=4, max_connection_per_server=32)
    assert counting.most_requests <= 4
    assert len(list(tmp_path.iterdir())) == 30


# ---- Many hosts --------------------------------------------------------------------------------------------------


def test_hosts_that_are_silent_hold_up_no_other(tmp_path: Path) -> None:
    """None of them accepts a connection or answers, and the timeouts are 30 s and more."""
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(20)]
        live = [stack.enter_context(CountingServer()) for _ in range(20)]
        urls = [f"http://127.0.0.1:{each.getsockname()[1]}/s{number}" for number, each in enumerate(silent)]
        done: list[int] = []

        def note(number: int, outcome: object) -> None:
            done.append(number)
            if len(done) == len(live):
                raise KeyboardInterrupt

        begun_s = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            fetch_many([*urls, *(each.url(f"f{number}") for number, each in enumerate(live))], tmp_path, on_result=note)
        assert time.monotonic() - begun_s < 15
    assert sorted(done) == list(range(20, 40))


def test_small_files_of_many_hosts_are_asked_for_as_many_at_a_time_as_curl_does(tmp_path: Path) -> None:
    """``curl -Z`` makes 50 requests at a time. The server does not answer until 50 requests are there."""
    with ManyHosts(together=50) as hosts:
        results = fetch_many([hosts.url(number, f"f{number}") for number in range(300)], tmp_path)
        assert all(result.size == hosts.size for result in results)
        assert 50 <= hosts.most_requests <= 128


def test_a_number_that_the_user_gives_holds_for_many_hosts_too(tmp_path: Path) -> None:
    with ManyHosts(together=16) as hosts:
        fetch_many([hosts.url(number, f"f{number}") for number in range(100)], tmp_path, max_concurrent_downloads=16)
        assert hosts.most_requests == 16


def test_no_more_than_16_files_that_are_not_small_are_at_work(tmp_path: Path) -> None:
    """All begin as small files, and those that prove to be large wait for their turn. Each at work has a part file."""
    with ManyHosts(size=3 * MIB) as hosts:
        urls = [hosts.url(number, f"f{number}") for number in range(60)]
        counts: list[int] = []
        over = threading.Event()

        def count() -> None:
            while not over.wait(0.002):
                counts.append(sum(path.suffix == ".part" for path in tmp_path.iterdir()))

        counting = threading.Thread(target=count)
        counting.start()
        try:
            results = fetch_many(urls, tmp_path)
        finally:
            over.set()
            counting.join()
        assert [result.size for result in results] == [3 * MIB] * 60
        assert 1 < max(counts) <= 16


def test_hosts_that_refuse_are_unknown_or_silent_hold_up_no_other(tmp_path: Path) -> None:
    with ManyHosts() as hosts, socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
        unused.close()
        live = [hosts.url(number, f"f{number}") for number in range(200)]
        dead = [
            (
                f"http://127.0.1.{number + 1}:{port}/refused{number}",
                f"http://no-such-host-{number}.invalid/unknown{number}",
                hosts.url(1000 + number, f"silent/s{number}"),
            )[number % 3]
            for number in range(200)
        ]
        items = [url for pair in zip(dead, live, strict=True) for url in pair]
        done: list[int] = []

        def note(number: int, outcome: object) -> None:
            if isinstance(outcome, DownloadResult):
                done.append(number)
                if len(done) == len(live):
                    raise KeyboardInterrupt

        begun_s = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            fetch_many(items, tmp_path, on_error="return", on_result=note)
        assert time.monotonic() - begun_s < AT_ONCE
    assert sorted(done) == list(range(1, 400, 2))


def test_a_download_from_a_silent_host_lets_others_have_its_place_and_comes_back(
    counting: CountingServer, tmp_path: Path
) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        DownloadManager(max_concurrent_downloads=1) as manager,
    ):
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/silent"
        first = manager.download(url, {"save_dir": tmp_path, "filename": "silent"})
        others = [
            manager.download(counting.url(f"f{n}"), {"save_dir": tmp_path, "filename": f"f{n}"}) for n in range(5)
        ]
        for gid in others:
            assert manager.wait(gid, timeout=20).size == counting.size
        # It gets its turn again, and keeps it.
        until(lambda: manager.get_download_progress(first).status == "active")
        manager.cancel(first, remove_files=True)


@pytest.mark.parametrize(
    ("how", "count", "most_files"),
    [
        *((how, 300, 64) for how in ("fetch", "fetch_many", "manager", "manager of 1000", "asyncio")),
        *((how, 600, 256) for how in ("fetch", "fetch_many")),
        *((how, 1300, 1024) for how in ("fetch", "fetch_many", "manager of 1000")),
    ],
)
def test_more_hosts_than_there_may_be_open_files(tmp_path: Path, how: str, count: int, most_files: int) -> None:
    """Idle connections are kept unless new ones need their descriptors, and connections make room for files."""
    assert _fetched_from_many_hosts(tmp_path, how, count, most_files) == [1000] * count


def test_more_large_files_than_there_may_be_open_files(tmp_path: Path) -> None:
    assert _fetched_from_many_hosts(tmp_path, "manager of 1000", 60, 64, 3 * MIB) == [3 * MIB] * 60


def _fetched_from_many_hosts(tmp_path: Path, how: str, count: int, most_files: int, size: int = 1000) -> list[int]:
    """The sizes of the files fetched by a process that may open at most ``most_files`` files."""
    directory = tmp_path / "into"
    with ManyHosts(size=size) as hosts:
        (tmp_path / "list").write_text("\n".join(hosts.url(number, f"f{number}") for number in range(count)))
        done = run_child("fetch_from_many_hosts", how, tmp_path / "list", directory, most_files)
    assert (done.stdout, done.stderr) == (f"{count}\n", "")
    return [path.stat().st_size for path in directory.iterdir()]


def _rest_of(counting: CountingServer) -> float:
    return governor.rests_for(governor.host_of_connection(counting.url("any"), DownloadOptions()))


@pytest.mark.parametrize("kind", ["small", "large"])
def test_after_a_rest_they_have_places_again_and_no_more_than_there_are(
    counting: CountingServer, tmp_path: Path, kind: str
) -> None:
    counting.refuse(429, 3)
    # A download with an expected size is not treated as a small file.
    options = {"save_dir": tmp_path} | ({"expected_size": counting.size} if kind == "large" else {})
    with CountingServer(delay_s=0.2) as other, DownloadManager("native", max_concurrent_downloads=2) as manager:
        gids = [manager.download(counting.url(f"r{n}"), options) for n in range(4)]
        until(lambda: _rest_of(counting) > 1.1)
        gids += [manager.download(other.url(f"f{n}"), options) for n in range(40)]
        until(lambda: other.seen)
        assert _rest_of(counting) > 0
        at_work = 0
        while not all(manager.get_download_progress(gid).status == "complete" for gid in gids):
            at_work = max(at_work, counting.requests_now + other.requests_now)
            time.sleep(0.002)
        assert at_work <= 2
    assert counting.refused <= 2


def test_a_rest_of_where_redirects_lead_holds_up_no_other_host(
    counting: CountingServer, server: MisbehavingServer, tmp_path: Path
) -> None:
    """Small files that were redirected there give up their places, and are not requested again in the meantime."""
    counting.refuse(429, 120)
    with CountingServer() as other, DownloadManager("native", max_concurrent_downloads=4) as manager:
        options = {"save_dir": tmp_path}
        for number in range(12):
            url = server.url("/redirect/x", to=counting.url(f"r{number}"))
            manager.download(url, {**options, "filename": f"r{number}"})
        until(lambda: _rest_of(counting) > 1.1)
        gids = [manager.download(other.url(f"f{n}"), options) for n in range(20)]
        for gid in gids:
            assert manager.wait(gid, timeout=60).size == other.size
        assert counting.refused <= 4
        assert len(server.requests) <= 12
        manager.cancel_all()


def test_behind_a_proxy_that_rests_nobody_gives_way(counting: CountingServer, tmp_path: Path) -> None:
    """All of them go through it, whatever their hosts are."""
    counting.refuse(429, 2)
    urls = [f"http://host{number}.example/f{number}" for number in range(12)]
    proxy = f"http://127.0.0.1:{counting.port}"
    results = fetch_many(urls, tmp_path, proxy=proxy, max_concurrent_downloads=3)
    assert len(results) == 12
    assert counting.refused <= 3
    assert len(counting.seen) == 12 + counting.refused


def test_a_resting_host_does_not_hold_up_the_others_of_one_call(counting: CountingServer, tmp_path: Path) -> None:
    counting.refuse(429, 120)
    with CountingServer() as other:
        urls = [counting.url(f"r{n}") for n in range(300)] + [other.url(f"f{n}") for n in range(300)]
        done: list[int] = []

        def note(number: int, outcome: object) -> None:
            done.append(number)
            if len(done) == 300:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fetch_many(urls, tmp_path, on_result=note, max_concurrent_downloads=4)
        assert sorted(done) == list(range(300, 600))
        assert counting.refused <= 4


def test_what_waits_for_its_next_try_holds_up_no_other_that_is_to_be_tried(tmp_path: Path) -> None:
    """However short the wait is: even with a single place, several hosts that are down are tried in turns."""
    policy = RetryPolicy(longest_wait=0.9)  # a download that has begun would wait so long in its place
    options = {"save_dir": tmp_path, "retry_wait": 0.9, "max_tries": 1000}
    with (
        socket.create_server(("127.0.0.1", 0)) as unused,
        DownloadManager("native", max_concurrent_downloads=1, retry_policy=policy) as manager,
    ):
        port = unused.getsockname()[1]
        unused.close()
        for number in range(30):
            manager.download(f"http://127.0.1.{number + 1}:{port}/f{number}", options)
        until(lambda: len(manager.list_downloads(DownloadStatus.ACTIVE)) >= 10)
        manager.cancel_all()


# ---- Proxies -----------------------------------------------------------------------------------------------------


def test_behind_a_proxy_all_files_are_of_one_host(counting: CountingServer, tmp_path: Path) -> None:
    """The server is the proxy, and answers for all other hosts."""
    counting.refuse(429, 1, after=10)
    urls = [f"http://host{number}.example/f{number}" for number in range(30)]
    fetch_many(urls, tmp_path, proxy=f"http://127.0.0.1:{counting.port}", max_connection_per_server=2)
    assert counting.most_connections <= 2
    assert counting.refused <= 2 + 1
