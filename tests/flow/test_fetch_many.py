"""Many files in one call: their order, their errors, and who fetches which of them."""

from __future__ import annotations

import hashlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

import rangefetch
from rangefetch import DownloadError, DownloadProgress, DownloadResult, DownloadStatus, get_download_manager
from rangefetch.errors import ChecksumMismatch, DiskError, HttpStatusError, TargetExists
from servers.directed import Valve
from servers.misbehaving import MisbehavingServer, content, modified
from support.downloads import QUICK
from support.files import MIB, names
from support.waiting import until

SMALL = 5000


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "downloads"
    made.mkdir()
    return made


@pytest.fixture
def processes() -> Iterator[Executor]:
    """Two processes that inherit nothing from this one."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        yield pool


def many(items: Any, directory: Path, **options: Any) -> list[Any]:
    return rangefetch.fetch_many(items, directory, **(QUICK | options))


def small_urls(server: MisbehavingServer, count: int, *, first: int = 0) -> list[str]:
    """URLs of files of the same size but different content: ``n.bin`` has the content with seed ``n``."""
    return [server.url(f"/good/{seed}.bin", size=SMALL, seed=seed) for seed in range(first, first + count)]


def right(result: object, size: int, seed: int) -> bool:
    return (
        isinstance(result, DownloadResult)
        and result.size == size
        and result.path.read_bytes() == content(size, seed)
        and int(result.path.stat().st_mtime) == modified(seed)
    )


@pytest.mark.parametrize("count", [0, 1, 2, 700])
def test_results_come_in_the_order_of_the_items(server: MisbehavingServer, directory: Path, count: int) -> None:
    results = many(small_urls(server, count), directory)
    assert [result.filename for result in results] == [f"{number}.bin" for number in range(count)]
    assert all(right(result, SMALL, seed) for seed, result in enumerate(results))
    assert len({result.gid for result in results}) == count
    assert len(names(directory)) == count
    assert len(server.requests) == count


def test_small_files_share_a_few_connections(server: MisbehavingServer, directory: Path) -> None:
    many(small_urls(server, 600), directory)
    assert len(server.requests) == 600
    # At most 16 are open at a time. The first files are divided among the loops; then one loop takes over the host, and
    # the others give up their connections.
    assert server.connections <= 32


@pytest.mark.parametrize("special", [False, True], ids=["in batches", "one by one"])
def test_there_are_never_more_connections_to_a_host_than_asked_for(
    server: MisbehavingServer, directory: Path, special: bool
) -> None:
    options: dict[str, Any] = {"max_download_limit": "1G"} if special else {}
    many(small_urls(server, 60), directory, max_connection_per_server=3, max_concurrent_downloads=3, **options)
    assert server.connections <= 3


def test_small_and_large_files_may_be_mixed(server: MisbehavingServer, directory: Path) -> None:
    sizes = [100, 0, 20 * MIB + 5, SMALL, 2 * MIB, 1 * MIB, MIB + 1, 9 * MIB]
    urls = [server.url(f"/good/{seed}.bin", size=size, seed=seed) for seed, size in enumerate(sizes)]
    results = many(urls, directory)
    assert all(right(result, size, seed) for seed, (size, result) in enumerate(zip(sizes, results, strict=True)))
    asked = [request.range for request in server.requests if request.path == urls[2].partition(str(server.port))[2]]
    assert len(asked) > 2, "a large one is fetched in ranges"


def test_when_most_are_large_no_batch_is_tried_for_the_rest(server: MisbehavingServer, directory: Path) -> None:
    urls = [server.url(f"/good/{seed}.bin", size=MIB + 1, seed=seed) for seed in range(8)]
    results = many(urls, directory)
    assert all(right(result, MIB + 1, seed) for seed, result in enumerate(results))


# ---- Errors ------------------------------------------------------------------------------------------------------


def test_errors_stand_in_the_place_of_results(server: MisbehavingServer, directory: Path) -> None:
    urls = small_urls(server, 6)
    urls[2] = server.url("/status/missing.bin", code=404)
    urls[4] = server.url("/status/gone.bin", code=410)
    results = many(urls, directory, on_error="return")
    assert [type(result) for result in results] == [
        DownloadResult, DownloadResult, HttpStatusError, DownloadResult, HttpStatusError, DownloadResult
    ]  # fmt: skip
    assert [(error.status, error.url) for error in (results[2], results[4])] == [(404, urls[2]), (410, urls[4])]
    assert names(directory) == ["0.bin", "1.bin", "3.bin", "5.bin"]


def test_a_directory_that_cannot_be_made_is_an_error_of_each_item(server: MisbehavingServer, directory: Path) -> None:
    blocked = directory / "a-file"
    blocked.write_bytes(b"")
    results = many(small_urls(server, 3), blocked, on_error="return")
    assert [type(result) for result in results] == [DiskError] * 3


def test_errors_are_raised_together_when_all_else_is_done(server: MisbehavingServer, directory: Path) -> None:
    urls = [server.url("/status/a.bin", code=404), *small_urls(server, 5), server.url("/status/b.bin", code=403)]
    with pytest.raises(ExceptionGroup) as caught:
        many(urls, directory)
    assert [getattr(error, "status", None) for error in caught.value.exceptions] == [404, 403]
    assert all(isinstance(error, DownloadError) for error in caught.value.exceptions)
    assert "2 of 7" in str(caught.value)
    assert len(names(directory)) == 5


def test_what_fails_at_first_is_tried_again(server: MisbehavingServer, directory: Path) -> None:
    urls = [
        server.url("/status/a.bin", size=SMALL, code=503, times=2),
        server.url("/cut/b.bin", size=SMALL, after=100, times=1),
        server.url("/short-range/c.bin", size=SMALL, most=1000),
        server.url("/reset/d.bin", size=3 * MIB, after=100_000, times=1),
    ]
    results = many(urls, directory)
    assert [right(result, size, 0) for result, size in zip(results, [SMALL] * 3 + [3 * MIB], strict=True)] == [True] * 4


@pytest.mark.parametrize(
    ("items", "wrong"),
    [
        (["gopher://example.com/a"], "url"),
        ([{"size": 1}], "url"),
        ([("http://example.com/a", {"no_such": 1})], "no_such"),
        ([{"url": "http://example.com/a", "split": 0}], "split"),
        ([3], "items"),
        ([("http://example.com/a",)], "items"),
    ],
)
def test_wrong_items_are_refused_before_anything_is_opened(
    server: MisbehavingServer, directory: Path, items: list[Any], wrong: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=wrong):
        many([*small_urls(server, 3), *items], directory)
    assert (server.requests, names(directory)) == ([], [])


def test_a_wrong_choice_for_errors_is_refused(server: MisbehavingServer, directory: Path) -> None:
    with pytest.raises(ValueError, match="on_error"):
        many(small_urls(server, 1), directory, on_error="ignore")


# ---- The same, twice ---------------------------------------------------------------------------------------------


def test_of_two_with_one_name_the_later_is_refused(server: MisbehavingServer, directory: Path) -> None:
    urls = [server.url(f"/good/{place}/same.bin", size=SMALL, seed=place) for place in range(3)]
    results = many([*urls, *small_urls(server, 2)], directory, on_error="return")
    assert right(results[0], SMALL, 0)
    assert [type(result) for result in results[1:3]] == [TargetExists, TargetExists]
    assert [result.url for result in results[1:3]] == urls[1:]
    assert (directory / "same.bin").read_bytes() == content(SMALL, 0)
    # Their server is asked for their names, and nothing else.
    assert [each.range for each in server.requests if each.path.startswith(("/good/1/", "/good/2/"))] == [(0, 2)] * 2


def test_one_url_given_twice_is_fetched_once(server: MisbehavingServer, directory: Path) -> None:
    urls = small_urls(server, 3)
    results = many([*urls, *urls], directory)
    assert results[:3] == results[3:]
    assert len(server.requests) == 3


def test_what_is_complete_already_is_not_fetched_again(server: MisbehavingServer, directory: Path) -> None:
    urls = [*small_urls(server, 5), server.url("/good/large.bin", size=5 * MIB, seed=9)]
    results = many(urls, directory)
    files = {path: path.stat() for path in directory.iterdir()}
    again = many(urls, directory)
    assert [result.path for result in again] == [result.path for result in results]
    assert all(result.already_complete for result in again)
    assert {path: path.stat() for path in directory.iterdir()}.keys() == files.keys()
    assert all(path.stat().st_ino == before.st_ino for path, before in files.items())


def test_a_file_of_the_users_is_not_touched(server: MisbehavingServer, directory: Path) -> None:
    (directory / "1.bin").write_bytes(b"mine")
    results = many(small_urls(server, 3), directory, on_error="return")
    assert [type(result) for result in results] == [DownloadResult, TargetExists, DownloadResult]
    assert (directory / "1.bin").read_bytes() == b"mine"
    assert all(right(r, SMALL, seed) for seed, r in enumerate(many(small_urls(server, 3), directory, overwrite=True)))


# ---- Options -----------------------------------------------------------------------------------------------------


def test_an_item_may_have_options_of_its_own(server: MisbehavingServer, directory: Path) -> None:
    digest = hashlib.sha256(content(SMALL, 1)).hexdigest()
    urls = small_urls(server, 4)
    items = [
        (urls[0], {"filename": "named.bin"}),
        {"url": urls[1], "checksum": f"sha-256={digest}"},
        {"url": urls[2], "checksum": f"sha-256={digest}"},
        (urls[3], {"headers": {"X-Mine": "3"}}),
    ]
    results = many(items, directory, on_error="return", headers={"X-All": "yes"})
    assert [type(result) for result in results] == [DownloadResult, DownloadResult, ChecksumMismatch, DownloadResult]
    assert (directory / "named.bin").read_bytes() == content(SMALL, 0)
    sent = {request.path.partition("?")[0]: request.headers for request in server.requests}
    assert sent["/good/3.bin"].get("x-mine") == "3"
    assert sent["/good/1.bin"].get("x-all") == "yes"


def test_options_for_all_reach_files_in_batches(server: MisbehavingServer, directory: Path) -> None:
    many(small_urls(server, 20), directory, headers={"X-All": "yes"}, user_agent="tests/1")
    assert {request.headers.get("x-all") for request in server.requests} == {"yes"}
    assert {request.headers.get("user-agent") for request in server.requests} == {"tests/1"}


def test_a_name_that_the_server_gives_is_taken(server: MisbehavingServer, directory: Path) -> None:
    results = many([server.url("/disposition/url.bin", size=SMALL), *small_urls(server, 2)], directory)
    assert results[0].filename == "disposed.bin"
    assert names(directory) == ["0.bin", "1.bin", "disposed.bin"]


# ---- Progress ----------------------------------------------------------------------------------------------------


def test_progress_tells_of_the_whole(server: MisbehavingServer, directory: Path) -> None:
    seen: list[DownloadProgress] = []
    threads = set[int]()

    def note(progress: DownloadProgress) -> None:
        seen.append(progress)
        threads.add(threading.get_ident())

    urls = [*small_urls(server, 50), server.url("/slow/large.bin", size=3 * MIB, rate=4 * MIB)]
    many(urls, directory, on_progress=note)
    assert threads == {threading.get_ident()}
    assert [p.percentage for p in seen] == sorted(p.percentage for p in seen)
    assert [p.downloaded for p in seen] == sorted(p.downloaded for p in seen)
    assert seen[-1].filename == "51 of 51 files"
    assert (seen[-1].percentage, seen[-1].status) == (100.0, DownloadStatus.COMPLETE)
    assert seen[-1].downloaded == 50 * SMALL + 3 * MIB


def test_the_bytes_of_a_file_that_is_paused_still_count(server: MisbehavingServer, directory: Path) -> None:
    seen: list[int] = []
    paused: list[str] = []

    def note(progress: DownloadProgress) -> None:
        seen.append(progress.downloaded)
        manager = get_download_manager()
        if progress.downloaded > MIB and not paused:
            paused.extend(each.gid for each in manager.list_downloads(DownloadStatus.ACTIVE))
            manager.pause(paused[0])
        else:
            manager.resume_all()

    many([server.url("/shared-rate/large.bin", size=9 * MIB, rate=6 * MIB)], directory, on_progress=note)
    assert len(paused) == 1
    assert seen == sorted(seen)


@pytest.mark.alone
@pytest.mark.parametrize("special", [False, True], ids=["in batches", "one by one"])
def test_progress_counts_what_is_at_work_and_how_fast(
    server: MisbehavingServer, directory: Path, special: bool
) -> None:
    seen: list[tuple[float, DownloadProgress]] = []
    options: dict[str, Any] = {"max_download_limit": "1G"} if special else {}
    url = server.url("/shared-rate/large.bin", size=8 * MIB, rate=4 * MIB)
    many([url], directory, on_progress=lambda p: seen.append((time.monotonic(), p)), **options)
    on_the_way = [progress for _, progress in seen if progress.status == DownloadStatus.ACTIVE]
    assert len({progress.downloaded for progress in on_the_way}) > 5
    fastest = max(progress.speed for progress in on_the_way)
    assert 2 * MIB < fastest < 8 * MIB
    assert seen[-1][1].speed == 0.0
    # At most every 100 ms, except for the last.
    times = [at for at, _ in seen[:-1]]
    assert all(after - before >= 0.09 for before, after in itertools.pairwise(times))


@pytest.mark.alone
def test_progress_has_a_speed_for_small_files_in_batches(server: MisbehavingServer, directory: Path) -> None:
    seen: list[DownloadProgress] = []
    urls = [server.url(f"/slow/{n}.bin", size=50_000, rate=200_000, seed=n) for n in range(60)]
    many(urls, directory, on_progress=seen.append)
    assert max(progress.speed for progress in seen) > 200_000
    assert [p.downloaded for p in seen] == sorted(p.downloaded for p in seen)
    assert len({progress.filename for progress in seen}) > 3


# ---- Results as they come ----------------------------------------------------------------------------------------


def test_each_item_is_told_when_it_ends(server: MisbehavingServer, directory: Path, valve: Valve) -> None:
    small = small_urls(server, 3)
    slow = server.url("/valve/slow.bin", size=64 * MIB)
    urls = [slow, *small, server.url("/status/x.bin", code=404), small[0]]
    told: list[tuple[int, object]] = []
    threads = set[int]()

    def note(number: int, outcome: object) -> None:
        told.append((number, outcome))
        threads.add(threading.get_ident())
        # The slow one can end only after all the others have been reported.
        if len(told) == len(urls) - 1:
            valve.open()

    outcomes = many(urls, directory, on_error="return", on_result=note)
    assert threads == {threading.get_ident()}
    assert sorted(number for number, _ in told) == list(range(len(urls)))
    assert all(outcome is outcomes[number] for number, outcome in told)
    assert told[-1][0] == 0


@pytest.mark.parametrize("special", [False, True], ids=["in batches", "one by one"])
def test_a_callback_for_results_that_fails_does_no_harm(
    server: MisbehavingServer, directory: Path, special: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(number: int, outcome: object) -> None:
        raise RuntimeError("a mistake of the caller")

    options: dict[str, Any] = {"max_download_limit": "1G"} if special else {}
    results = many(small_urls(server, 5), directory, on_result=fail, **options)
    assert all(right(result, SMALL, seed) for seed, result in enumerate(results))
    assert caplog.text.count("on_result failed") == 5


def test_with_workers_it_is_told_in_the_calling_thread(server: MisbehavingServer, directory: Path) -> None:
    told: dict[int, object] = {}
    threads = set[int]()

    def note(number: int, outcome: object) -> None:
        told[number] = outcome
        threads.add(threading.get_ident())

    urls = [*small_urls(server, 6), server.url("/good/0.bin", size=SMALL, seed=0)]
    with ThreadPoolExecutor(3) as pool:
        outcomes = many(urls, directory, executor=pool, on_result=note)
    assert told == dict(enumerate(outcomes))
    assert threads == {threading.get_ident()}


# ---- Workers -----------------------------------------------------------------------------------------------------


def test_processes_divide_the_items(server: MisbehavingServer, directory: Path, processes: Executor) -> None:
    urls = [*small_urls(server, 30), server.url("/good/large.bin", size=5 * MIB, seed=30)]
    urls.insert(7, server.url("/status/missing.bin", code=404))
    results = many(urls, directory, executor=processes, on_error="return")
    error = results.pop(7)
    assert (type(error), error.status, error.url) == (HttpStatusError, 404, urls[7])
    assert all(right(result, SMALL if seed < 30 else 5 * MIB, seed) for seed, result in enumerate(results))
    assert len(server.requests) >= 32


def test_threads_divide_the_items(server: MisbehavingServer, directory: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        results = many(small_urls(server, 10), directory, executor=pool)
    assert all(right(result, SMALL, seed) for seed, result in enumerate(results))


def test_workers_do_not_fetch_one_url_twice(server: MisbehavingServer, directory: Path, processes: Executor) -> None:
    urls = small_urls(server, 4)
    results = many([*urls, *urls], directory, executor=processes)
    assert [result.path for result in results[:4]] == [result.path for result in results[4:]]
    assert len(server.requests) == 4


def test_workers_do_not_take_one_name_twice(server: MisbehavingServer, directory: Path, processes: Executor) -> None:
    urls = [server.url(f"/good/{place}/same.bin", size=SMALL, seed=place) for place in range(2)]
    results = many(urls, directory, executor=processes, on_error="return")
    assert right(results[0], SMALL, 0)
    assert isinstance(results[1], TargetExists)


# ---- Ctrl-C ------------------------------------------------------------------------------------------------------


def test_what_was_done_before_a_break_is_told(server: MisbehavingServer, directory: Path) -> None:
    urls = [server.url(f"/good/{number}.bin", size=SMALL, delay=0.3) for number in range(8)]
    urls += [server.url("/stall/stalled.bin", size=SMALL, after=10)]
    told = []

    def break_off(_: DownloadProgress) -> None:
        until(lambda: len(names(directory)) == 8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        many(urls, directory, on_progress=break_off, on_result=lambda number, _: told.append(number))
    assert sorted(told) == list(range(8))


INTERRUPTED = """
import sys, threading
import rangefetch
from support.loops import loop_threads
urls, directory = sys.argv[2:], sys.argv[1]
print("begin", flush=True)
try:
    rangefetch.fetch_many(urls, directory)
except KeyboardInterrupt:
    busy = [p for p in rangefetch.get_download_manager().list_downloads() if p.status in ("active", "waiting")]
    print(f"interrupted {len(busy)}", flush=True)
"""


def test_ctrl_c_leaves_nothing_running(server: MisbehavingServer, directory: Path) -> None:
    urls = [server.url(f"/stall/{number}.bin", size=SMALL, after=10) for number in range(4)]
    urls += [server.url("/stall/large.bin", size=8 * MIB, after=100_000)]
    urls += [server.url("/good/quick.bin", size=SMALL)]
    places = os.pathsep.join([str(Path(rangefetch.__file__).parents[1]), str(Path(__file__).parents[1])])
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(directory), *urls],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": places},
    )
    with process:
        try:
            until(lambda: len(server.requests) >= 5)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=15)
        finally:
            process.kill()
    assert err == ""
    assert out.splitlines() == ["begin", "interrupted 0"]
    assert process.returncode == 0
    until(lambda: all(request.finished for request in server.requests))
    whole = {name for name in names(directory) if not name.endswith((".part", ".part.json"))}
    assert whole <= {"quick.bin"}


def test_a_program_ends_soon_after_its_last_file(server: MisbehavingServer, directory: Path) -> None:
    program = "import sys, rangefetch; rangefetch.fetch_many(sys.argv[2:], sys.argv[1])"
    command = [sys.executable, "-c", program, str(directory), *small_urls(server, 3)]
    places = os.pathsep.join([str(Path(rangefetch.__file__).parents[1])])
    # Otherwise the interpreter would wait for a minute at its end.
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": places}, timeout=20, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
