"""The verbs: what each does in every state, from any thread, and with the files."""

import contextlib
import itertools
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backends.conftest import Make
from rangefetch import DownloadManager, DownloadStatus
from rangefetch.aria2.entry import Entry
from rangefetch.bulk import fetch_many
from rangefetch.errors import Cancelled, DownloadError, HttpStatusError
from rangefetch.native.small import Small
from servers.directed import Valve
from servers.misbehaving import MisbehavingServer, content
from support.downloads import SIZE, SMALL, consistent, downloaded, fetch, into, status_of
from support.files import MIB, begun, names, saved_bytes
from support.stage import Stage
from support.waiting import until

WAITING, ACTIVE, PAUSED = DownloadStatus.WAITING, DownloadStatus.ACTIVE, DownloadStatus.PAUSED
COMPLETE, ERROR, REMOVED = DownloadStatus.COMPLETE, DownloadStatus.ERROR, DownloadStatus.REMOVED

# The state to which a verb moves a download, by its present state; in other states it has no effect.
OUTCOMES = {
    "pause": {WAITING: PAUSED, ACTIVE: PAUSED},
    "resume": {PAUSED: ACTIVE},
    "retry": {ERROR: ACTIVE},
    "cancel": {WAITING: REMOVED, ACTIVE: REMOVED, PAUSED: REMOVED, ERROR: REMOVED},
    "get_download_progress": {},
}


@pytest.mark.parametrize("status", list(DownloadStatus))
@pytest.mark.parametrize("verb", OUTCOMES)
def test_each_verb_is_safe_in_every_state(stage: Stage, verb: str, status: DownloadStatus) -> None:
    gid = stage.download_that_is(status)
    for _ in range(2):
        getattr(stage.manager, verb)(gid)
        assert stage.status(gid) is OUTCOMES[verb].get(status, status)
    assert consistent(stage.manager.get_download_progress(gid))
    assert [each.gid for each in stage.manager.list_downloads(stage.status(gid))].count(gid) == 1


@pytest.mark.parametrize("status", list(DownloadStatus))
@pytest.mark.parametrize("verb", ["pause_all", "resume_all", "cancel_all"])
def test_verbs_for_all_are_safe_in_every_state(stage: Stage, verb: str, status: DownloadStatus) -> None:
    gid = stage.download_that_is(status)
    getattr(stage.manager, verb)()
    getattr(stage.manager, verb)()
    assert stage.status(gid) is OUTCOMES[verb.removesuffix("_all")].get(status, status)


@pytest.mark.parametrize("status", list(DownloadStatus))
def test_only_what_is_finished_can_be_removed(stage: Stage, status: DownloadStatus) -> None:
    gid = stage.download_that_is(status)
    if status in (WAITING, ACTIVE, PAUSED):
        with pytest.raises(ValueError, match=rf"{gid}.*{status}"):
            stage.manager.remove(gid)
        assert stage.status(gid) is status
    else:
        stage.manager.remove(gid)
        assert gid not in [each.gid for each in stage.manager.list_downloads()]
        with pytest.raises(KeyError, match=gid):
            stage.manager.get_download_progress(gid)


@pytest.mark.parametrize("status", list(DownloadStatus))
def test_only_what_is_unfinished_takes_options(stage: Stage, status: DownloadStatus) -> None:
    gid = stage.download_that_is(status)
    if status in (WAITING, ACTIVE, PAUSED):
        stage.manager.change_options(gid, max_download_limit="1M")
    else:
        with pytest.raises(ValueError, match=rf"{gid}.*{status}"):
            stage.manager.change_options(gid, max_download_limit="1M")
    assert stage.status(gid) is status


@pytest.mark.parametrize("status", list(DownloadStatus))
def test_waiting_ends_where_the_download_has_ended(stage: Stage, status: DownloadStatus) -> None:
    gid = stage.download_that_is(status)
    if status is COMPLETE:
        assert stage.manager.wait(gid, timeout=0).size == SMALL
    else:
        expected = {ERROR: HttpStatusError, REMOVED: Cancelled}.get(status, TimeoutError)
        with pytest.raises(expected):
            stage.manager.wait(gid, timeout=0)


@pytest.mark.parametrize(
    "verb", ["wait", "pause", "resume", "cancel", "retry", "remove", "change_options", "get_download_progress"]
)
def test_an_unknown_gid_is_a_key_error_that_names_it(manager: DownloadManager, verb: str) -> None:
    with pytest.raises(KeyError, match="0123456789abcdef"):
        getattr(manager, verb)("0123456789abcdef")


def test_verbs_from_many_threads_break_nothing(
    manage: Make, server: MisbehavingServer, target: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with manage(max_concurrent_downloads=2) as manager:
        urls = [server.url("/slow/x", size=3 * MIB, seed=seed, rate="3M") for seed in range(4)]
        gids = [manager.download(url, into(target, seed, split=2)) for seed, url in enumerate(urls)]
        deadline = time.monotonic() + 1.2

        def disturb(seed: int) -> None:
            chosen = random.Random(seed)
            while time.monotonic() < deadline:
                gid = chosen.choice(gids)
                match chosen.randrange(9):
                    case 0 | 1:
                        manager.pause(gid)
                    case 2 | 3:
                        manager.resume(gid)
                    case 4:
                        manager.retry(gid)
                    case 5:
                        chosen.choice([manager.pause_all, manager.resume_all])()
                    case 6:
                        with contextlib.suppress(ValueError):  # the download has just ended
                            manager.change_options(gid, max_download_limit=chosen.choice(["0", "3M"]), split=2)
                    case 7:
                        assert all(consistent(each) for each in manager.list_downloads())
                    case 8 if seed == 0 and gid == gids[0]:
                        manager.cancel(gid, remove_files=True)

        with ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(disturb, seed) for seed in range(8)]:
                done.result(timeout=30)
        for seed, gid in enumerate(gids):
            if status_of(manager, gid) is not REMOVED:
                manager.resume(gid)
                with contextlib.suppress(ValueError):
                    manager.change_options(gid, max_download_limit=0)
                assert manager.wait(gid, timeout=30).path.read_bytes() == content(3 * MIB, seed)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_pause_stops_the_bytes_and_saves_them(stage: Stage) -> None:
    gid = stage.download_that_is(ACTIVE)
    stage.manager.pause(gid)
    progress = stage.manager.get_download_progress(gid)
    assert (progress.speed, progress.connections) == (0.0, 0)
    assert progress.downloaded == saved_bytes(stage.target) > SMALL
    stage.server.wait_idle()
    sent = stage.server.bytes_sent
    time.sleep(0.2)
    assert stage.server.bytes_sent == sent
    stage.valve.open()
    stage.manager.resume(gid)
    result = stage.manager.wait(gid, timeout=30)
    assert result.resumed == progress.downloaded
    assert result.path.read_bytes() == content(SIZE)


@pytest.mark.parametrize("status", [WAITING, ACTIVE, PAUSED, ERROR])
@pytest.mark.parametrize("named", [True, False])
def test_cancelling_with_the_files_leaves_nothing_of_it(stage: Stage, status: DownloadStatus, named: bool) -> None:
    gid = stage.download_that_is(status, "file.bin" if named else "")
    if status in (PAUSED, ERROR):
        assert len(names(stage.target.parent)) == 2
    stage.manager.cancel(gid, remove_files=True)
    assert stage.status(gid) is REMOVED
    assert [name for name in names(stage.target.parent) if not name.startswith("before-it.bin")] == []


def test_what_an_earlier_run_left_of_a_waiting_download_is_removed_with_it(stage: Stage) -> None:
    gid = stage.download_that_is(PAUSED)
    stage.begin("other.bin")
    stage.manager.resume(gid)
    assert stage.status(gid) is WAITING
    assert set(begun(stage.target)) <= set(names(stage.target.parent))
    stage.manager.cancel(gid, remove_files=True)
    assert not set(begun(stage.target)) & set(names(stage.target.parent))


def test_without_the_files_what_was_fetched_stays_for_the_next_time(stage: Stage) -> None:
    gid = stage.download_that_is(ACTIVE)
    path = stage.manager.cancel(gid)
    assert path == stage.target
    assert names(stage.target.parent) == begun(stage.target)
    stage.valve.open()
    again = stage.manager.wait(stage.begin(), timeout=10)
    assert again.resumed > SMALL
    assert again.path.read_bytes() == content(SIZE)


def test_a_finished_file_outlives_its_cancellation(stage: Stage) -> None:
    gid = stage.download_that_is(COMPLETE)
    assert stage.manager.cancel(gid, remove_files=True) == stage.target
    assert stage.target.read_bytes() == content(SMALL)


def test_cancel_all_returns_the_first_path_and_leaves_nothing(
    manage: Make, server: MisbehavingServer, target: Path
) -> None:
    with manage(max_concurrent_downloads=2) as manager:
        assert manager.cancel_all() is None
        url = server.url("/slow/x", size=SIZE, rate="1M")
        first, second, *_ = [manager.download(url, into(target, f"{number}.bin")) for number in range(4)]
        until(lambda: downloaded(manager, first) and downloaded(manager, second))
        assert manager.cancel_all(remove_files=True) == target.with_name("0.bin")
        assert {each.status for each in manager.list_downloads()} == {REMOVED}
        assert names(target.parent) == []
        assert manager.cancel_all(remove_files=True) is None


def test_a_retry_keeps_what_was_fetched(stage: Stage) -> None:
    gid = stage.download_that_is(ERROR)
    kept = saved_bytes(stage.target)
    assert kept > 0
    stage.valve.open()
    stage.manager.retry(gid)
    result = stage.manager.wait(gid, timeout=30)
    assert result.resumed == kept
    assert result.path.read_bytes() == content(SIZE)


def test_of_those_whose_outcome_was_told_only_the_last_are_remembered(
    manage: Make, server: MisbehavingServer, target: Path
) -> None:
    with manage(max_download_results=3) as manager:
        gids = []
        for number in range(6):
            code = 404 if number % 2 else 200
            url = server.url("/status/x", code=code) if code == 404 else server.url("/good/x", size=5, seed=number)
            gids.append(manager.download(url, into(target, number)))
            with contextlib.suppress(DownloadError):
                manager.wait(gids[-1], 30)
        assert [each.gid for each in manager.list_downloads()] == gids[-3:]
        with pytest.raises(KeyError):
            manager.wait(gids[0])
        # A download that is retried is not finished, and is not forgotten either.
        manager.retry(gids[3])
        until(lambda: status_of(manager, gids[3]) is ERROR)
        assert len(manager.list_downloads()) == 3


def test_an_outcome_that_nobody_was_told_is_kept(manage: Make, server: MisbehavingServer, target: Path) -> None:
    with manage(max_download_results=3) as manager:
        gids = [
            manager.download(
                server.url("/status/x", code=404) if number % 2 else server.url("/good/x", size=5, seed=number),
                into(target, number),
            )
            for number in range(12)
        ]
        until(lambda: all(status_of(manager, gid) in (COMPLETE, ERROR) for gid in gids))
        for number, gid in enumerate(gids):
            if number % 2:
                with pytest.raises(HttpStatusError):
                    manager.wait(gid)
            else:
                assert manager.wait(gid).size == 5
        assert [each.gid for each in manager.list_downloads()] == gids[-3:]


def test_a_failed_download_that_is_cancelled_counts_once_among_the_finished(
    manage: Make, server: MisbehavingServer, target: Path
) -> None:
    with manage(max_download_results=2) as manager:
        gids = [manager.download(server.url("/status/x", code=404), into(target, number)) for number in range(2)]
        until(lambda: all(status_of(manager, gid) is ERROR for gid in gids))
        for gid in gids:
            manager.cancel(gid)
        assert sorted(each.gid for each in manager.list_downloads()) == sorted(gids)


def test_who_waits_hears_of_a_download_that_is_forgotten_at_once(
    manage: Make, server: MisbehavingServer, target: Path
) -> None:
    with manage(max_download_results=0) as manager:
        result = manager.download_and_wait(server.url("/good/x", size=SMALL), into(target))
        assert result.size == SMALL
        assert manager.list_downloads() == []


@pytest.mark.alone
def test_a_callback_is_called_in_the_callers_thread_and_not_too_often(stage: Stage) -> None:
    calls: list[tuple[float, threading.Thread]] = []

    def on_progress(progress: object) -> None:
        calls.append((time.monotonic(), threading.current_thread()))

    url = stage.server.url("/valve/x", size=3 * MIB)
    result = stage.manager.download_and_wait(url, into(stage.target), on_progress)
    assert result.path.read_bytes() == content(3 * MIB)
    assert {thread for _, thread in calls} == {threading.current_thread()}
    times = [called for called, _ in calls]
    assert 4 <= len(times) <= 10
    assert all(after - before >= 0.09 for before, after in itertools.pairwise(times[:-1]))


def test_a_callback_that_raises_pauses_the_download(stage: Stage) -> None:
    url = stage.server.url("/valve/x", size=3 * MIB)
    with pytest.raises(ZeroDivisionError):
        stage.manager.download_and_wait(url, into(stage.target), lambda _: 1 / 0)
    (progress,) = stage.manager.list_downloads()
    assert progress.status is DownloadStatus.PAUSED
    stage.manager.resume(progress.gid)
    assert stage.manager.wait(progress.gid).path.read_bytes() == content(3 * MIB)


def test_a_callback_of_fetch_many_that_raises_ends_it(server: MisbehavingServer, target: Path) -> None:
    urls = [server.url("/good/small.bin", size=5), server.url("/good/large.bin", size=SIZE)]
    with pytest.raises(ZeroDivisionError):
        fetch_many(urls, target.parent, on_progress=lambda _: 1 / 0)
    assert [each.size for each in fetch_many(urls, target.parent)] == [5, SIZE]


def test_a_fetch_runs_on_the_manager_of_the_process(server: MisbehavingServer, valve: Valve, target: Path) -> None:
    from rangefetch import get_download_manager

    result = fetch(server.url("/good/x", size=SMALL), target)
    assert result.gid in [each.gid for each in get_download_manager().list_downloads(COMPLETE)]


def test_it_can_be_asked_what_it_waits_for_while_its_backend_takes_it_up(
    manager: DownloadManager, server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def asking(right: Callable[..., None]) -> Callable[..., None]:
        def init(*arguments: object) -> None:
            asked.extend(each.waiting_for for each in manager.list_downloads())
            right(*arguments)

        return init

    for part in (Entry, Small):
        monkeypatch.setattr(part, "__init__", asking(part.__init__))
    manager.download_and_wait(server.url("/good/x", size=SMALL), into(target))
    assert asked == ["its backend"]
