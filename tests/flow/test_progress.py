"""Progress is reported in the calling thread, at intervals, and its numbers agree with each other."""

import itertools
import threading
import time
from pathlib import Path

import pytest

from rangefetch import DownloadError, DownloadManager, DownloadProgress, DownloadStatus
from rangefetch.native.backend import NativeBackend
from rangefetch.native.small import Small
from rangefetch.transfer.download import Download
from servers.misbehaving import MisbehavingServer, content
from support.downloads import consistent, downloaded, fetch, interrupt, into
from support.files import MIB, names
from support.waiting import until

SIZE = 6 * MIB + 5


@pytest.mark.alone
def test_it_comes_in_the_calling_thread_at_most_ten_times_a_second(server: MisbehavingServer, target: Path) -> None:
    threads, times = set[int](), list[float]()

    def note(progress: DownloadProgress) -> None:
        threads.add(threading.get_ident())
        times.append(time.monotonic())

    started = time.monotonic()
    fetch(server.url("/shared-rate/x", size=SIZE, rate="5M"), target, on_progress=note)
    seconds = time.monotonic() - started
    assert threads == {threading.get_ident()}
    assert 4 <= len(times) <= seconds * 10 + 2
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    # The last one reports the end, which is not delayed.
    assert min(gaps[:-1]) > 0.09


@pytest.mark.parametrize("route", ["shared-rate", "script"])
def test_its_numbers_grow_and_fit_together(server: MisbehavingServer, target: Path, route: str) -> None:
    parameters = {"shared-rate": {"rate": "8M"}, "script": {"then": "chunked+slow:rate=8M"}}[route]
    seen: list[DownloadProgress] = []
    result = fetch(server.url(f"/{route}/x", size=SIZE, **parameters), target, on_progress=seen.append)
    assert all(consistent(progress) for progress in seen), seen
    amounts = [progress.downloaded for progress in seen]
    assert amounts == sorted(amounts)
    assert amounts[-1] == seen[-1].total == SIZE
    assert {progress.gid for progress in seen} == {result.gid}
    assert {progress.filename for progress in seen} == {"file.bin"}
    # Before the first byte the size is unknown. With the last byte it is known, shortly before the end is reported.
    on_the_way = [progress for progress in seen[1:-1] if MIB <= progress.downloaded < SIZE]
    assert {progress.total for progress in on_the_way} == ({SIZE} if route == "shared-rate" else {0})
    assert seen[-1].status is DownloadStatus.COMPLETE
    assert seen[-1].percentage == 100.0
    assert seen[-1].connections == 0
    assert {progress.status for progress in seen[:-1]} == {DownloadStatus.ACTIVE}
    assert max(progress.speed for progress in seen) > MIB
    assert set(seen[-1].to_dict()) >= {"gid", "downloaded", "total", "speed", "percentage", "eta", "filename", "status"}


def test_a_resumed_download_counts_what_was_there(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/script/x", size=SIZE, steps="slow:rate=1M|slow:rate=4M")
    kept = interrupt(url, target, 500_000, split=1)
    seen: list[DownloadProgress] = []
    fetch(url, target, on_progress=seen.append, split=1)
    assert seen[0].downloaded >= kept or seen[1].downloaded >= kept
    assert seen[1].total == SIZE


def test_a_callback_that_raises_ends_the_download_and_keeps_what_came(server: MisbehavingServer, target: Path) -> None:
    def fail(progress: DownloadProgress) -> None:
        if progress.downloaded:
            raise ZeroDivisionError("in the callback")

    url = server.url("/shared-rate/x", size=SIZE, rate="20M")
    with pytest.raises(ZeroDivisionError, match="in the callback"):
        fetch(url, target, on_progress=fail)
    assert not target.exists()
    assert fetch(url, target).resumed > 0
    assert target.read_bytes() == content(SIZE)


def test_a_callback_may_stop_the_download(server: MisbehavingServer, target: Path) -> None:
    def stop(progress: DownloadProgress) -> None:
        if progress.downloaded > MIB:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(server.url("/shared-rate/x", size=SIZE, rate="4M"), target, on_progress=stop)
    assert names(target.parent) == ["file.bin.part", "file.bin.part.json"]


@pytest.mark.alone
def test_a_slow_callback_does_not_slow_the_download(server: MisbehavingServer, target: Path) -> None:
    calls = []

    def sleep(progress: DownloadProgress) -> None:
        calls.append(progress)
        until(lambda: server.bytes_sent >= SIZE)

    fetch(server.url("/shared-rate/x", size=SIZE, rate="12M"), target, on_progress=sleep)
    assert target.read_bytes() == content(SIZE)
    assert len(calls) <= 4


def test_no_byte_vanishes_while_a_file_that_was_taken_for_small_becomes_a_large_one(
    server: MisbehavingServer, target: Path, manager: DownloadManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[tuple[int, int]] = []
    make_task = NativeBackend.task_instead

    def hand_over(backend: NativeBackend, small: Small) -> None:
        before = downloaded(manager, small.download.gid)
        make_task(backend, small)
        counts.append((before, downloaded(manager, small.download.gid)))

    monkeypatch.setattr(NativeBackend, "task_instead", hand_over)
    url = server.url("/script/x", size=900_000, steps="cut:after=500000", then="good")
    manager.wait(manager.download(url, into(target)), 30)
    ((before, after),) = counts
    assert (before, after) == (500_000, 500_000)


def test_a_file_that_is_there_already_is_reported_once_and_complete(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/good/x", size=SIZE)
    fetch(url, target)
    seen: list[DownloadProgress] = []
    fetch(url, target, on_progress=seen.append)
    # On a busy machine there may be a report before it is known that the file is complete.
    assert [each.percentage for each in seen if each.downloaded] == [100.0]
    assert seen[-1].downloaded == SIZE


def test_a_failed_download_keeps_its_numbers(server: MisbehavingServer, target: Path, manager: DownloadManager) -> None:
    url = server.url("/script/x", size=SIZE, steps="good", then="status:code=404")
    gid = manager.download(url, {"save_dir": target.parent, "filename": target.name, "split": 1})
    with pytest.raises(DownloadError):
        manager.wait(gid)
    progress = manager.get_download_progress(gid)
    assert (progress.status, progress.total, progress.speed, progress.connections) == (
        DownloadStatus.ERROR,
        SIZE,
        0.0,
        0,
    )
    assert 0 < downloaded(manager, gid) < SIZE
    assert consistent(progress)


def test_the_result_says_what_came_of_it(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/cut/x", size=SIZE, times=1)
    started = time.monotonic()
    result = fetch(url, target)
    assert 0 < result.seconds <= time.monotonic() - started
    assert result.retries == 1
    assert result.sources == (url,)
    assert result.connections == server.connections
    assert result.checksum == ""
    assert len(result.gid) == 16
    int(result.gid, 16)
    as_dict = result.to_dict()
    assert as_dict["path"] == str(target)
    assert as_dict["alreadyComplete"] is False


def test_its_end_is_told_once(server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if the end comes between the moment when a report is due and the report."""
    progress = Download.progress

    def at_the_end(download: Download) -> DownloadProgress:
        if download.status is DownloadStatus.ACTIVE and threading.current_thread() is threading.main_thread():
            until(lambda: download.result is not None)
        return progress(download)

    monkeypatch.setattr(Download, "progress", at_the_end)
    seen: list[DownloadProgress] = []
    fetch(server.url("/slow/x", size=MIB, rate="2M"), target, on_progress=seen.append)
    assert [each.status for each in seen] == [DownloadStatus.COMPLETE]
