"""Whatever fails, in rangefetch or in the caller's functions: the download ends with a reason and delays no other."""

from __future__ import annotations

import errno
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flow.children import child, run_child
from rangefetch import DownloadManager, DownloadStatus, fetch_many
from rangefetch.disk import state
from rangefetch.errors import BadAnswer, DiskError, DownloadError, HttpStatusError, LocalError, TimedOut
from rangefetch.manager import downloads_of
from rangefetch.native import answering, comparing, starting
from rangefetch.native.backend import NativeBackend
from rangefetch.native.preparing import Preparing
from rangefetch.native.recovery import Recovery
from rangefetch.native.task import NativeTask
from rangefetch.transfer import keeping, lifecycle, proving, saving, task
from servers.directed import Valve
from servers.misbehaving import MisbehavingServer, content
from servers.tls import Certificates
from support import children
from support.downloads import QUICK, SMALL, downloaded, fails, fetch
from support.files import MIB, names
from support.waiting import AT_ONCE, until

SIZE = 9 * MIB


@pytest.fixture
def saves_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save the state at every tick."""
    monkeypatch.setattr(keeping, "_FIRST_SAVE_S", 0.0)
    monkeypatch.setattr(keeping, "_SAVE_EVERY_S", 0.0)


@pytest.fixture
def broken_handler() -> Iterator[None]:
    class Raises(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("the handler is broken")

    handler = Raises(logging.DEBUG)
    logger = logging.getLogger("rangefetch")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield
    logger.setLevel(level)
    logger.removeHandler(handler)


def _into(target: Path, **options: Any) -> dict[str, Any]:
    return QUICK | {"save_dir": target.parent, "filename": target.name} | options


# -- options that cannot be applied --------------------------------------------------------------------------------


def test_a_cookie_file_that_broke_harms_nothing_where_it_is_not_needed(
    server: MisbehavingServer, valve: Valve, target: Path, manager: DownloadManager, tmp_path: Path
) -> None:
    cookies = tmp_path / "cookies.txt"
    cookies.write_text("# Netscape HTTP Cookie File\n")
    gid = manager.download(server.url("/valve/x", size=SIZE), _into(target, cookies=cookies))
    until(lambda: downloaded(manager, gid) > 0)
    cookies.write_text("this is no cookie file\n")
    manager.change_options(gid, max_download_limit="100M")
    valve.open()
    manager.wait(gid, 30)
    assert target.read_bytes() == content(SIZE)


def test_a_cookie_file_that_broke_ends_the_download_that_needs_it_and_no_other(
    server: MisbehavingServer, valve: Valve, target: Path, manager: DownloadManager, tmp_path: Path
) -> None:
    cookies = tmp_path / "cookies.txt"
    cookies.write_text("# Netscape HTTP Cookie File\n")
    gid = manager.download(server.url("/valve/x", size=SIZE), _into(target, cookies=cookies))
    other = manager.download(server.url("/valve/y", size=SIZE), _into(target.with_name("other")))
    until(lambda: downloaded(manager, gid) > 0 and downloaded(manager, other) > 0)
    cookies.write_text("this is no cookie file\n")
    manager.change_options(gid, headers={"X-New": "1"})
    with pytest.raises(LocalError, match=r"cookies\.txt: cannot read cookies from it"):
        manager.wait(gid, 30)
    valve.open()
    manager.wait(other, 30)
    assert target.with_name("other").read_bytes() == content(SIZE)
    assert names(target.parent) == ["file.bin.part", "file.bin.part.json", "other"]


@pytest.mark.parametrize("name", ["max_download_results", "max_concurrent_downloads"])
@pytest.mark.parametrize("value", ["10", 1.5, True])
def test_a_managers_numbers_are_ints(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=name):
        DownloadManager(**{name: value})


def test_a_managers_other_arguments_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_download_results"):
        DownloadManager(max_download_results=-1)
    with pytest.raises(TypeError, match="retry_policy"):
        DownloadManager(retry_policy={"max_tries": 3})  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(TypeError, match="session_file"):
        DownloadManager(session_file=os.fsencode(tmp_path))  # type: ignore[arg-type]  # wrong on purpose


# -- errors inside ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("saves_often")
@pytest.mark.parametrize("kind", [RuntimeError, ImportError, SystemExit, MemoryError])
def test_a_save_that_raises_ends_the_download_with_an_error(
    server: MisbehavingServer, valve: Valve, target: Path, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    def broken(*_: object) -> None:
        raise kind("the save is broken")

    monkeypatch.setattr(state, "save", broken)
    with pytest.raises(LocalError, match="out of memory" if kind is MemoryError else "the save is broken"):
        fetch(server.url("/valve/x", size=SIZE), target)
    assert not target.exists()


@pytest.mark.usefixtures("saves_often")
@pytest.mark.parametrize("what", ["file", "directory"])
def test_a_part_file_that_is_gone_ends_the_download_long_before_its_last_byte(
    server: MisbehavingServer,
    valve: Valve,
    target: Path,
    manager: DownloadManager,
    caplog: pytest.LogCaptureFixture,
    what: str,
) -> None:
    gid = manager.download(server.url("/valve/x", size=64 * MIB), _into(target))
    until(lambda: downloaded(manager, gid) > 0 and "file.bin.part.json" in names(target.parent))
    valve.narrow(1)
    if what == "file":
        target.with_name("file.bin.part").unlink()
    else:
        target.parent.rename(target.parent.with_name("elsewhere"))
    with pytest.raises(DiskError, match="another program removed or replaced it"):
        manager.wait(gid, 30)
    assert not caplog.records  # the error says it


def test_a_save_that_raises_keeps_no_pause_from_ending(
    server: MisbehavingServer, valve: Valve, target: Path, monkeypatch: pytest.MonkeyPatch, manager: DownloadManager
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the save is broken")

    gid = manager.download(server.url("/valve/x", size=SIZE), _into(target))
    until(lambda: downloaded(manager, gid) > 0)
    monkeypatch.setattr(state, "save", broken)
    manager.pause(gid)
    assert manager.get_download_progress(gid).status is DownloadStatus.PAUSED


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, 0], ids=["lost", "full", "well"])
def test_ctrl_c_while_a_save_fails_ends_at_once_and_the_next_run_has_no_wrong_byte(
    server: MisbehavingServer, valve: Valve, target: Path, error: int
) -> None:
    url = server.url("/valve/x", size=SIZE)
    with child("fetch_where_a_save_fails", url, target, error) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "saving\n"
        process.send_signal(signal.SIGINT)
        # The process waits for the disk, whose sync returns now.
        out, err = process.communicate("go on\n", timeout=20)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    # Data that was not synced does not count, and nothing had been saved before.
    assert names(target.parent) == ([] if error else ["file.bin.part", "file.bin.part.json"])
    valve.open()
    result = fetch(url, target)
    assert target.read_bytes() == content(SIZE)
    assert names(target.parent) == ["file.bin"]
    assert (result.resumed > 0) is (error == 0)


@pytest.mark.usefixtures("saves_often")
def test_saving_takes_no_package_that_an_image_may_lack(server: MisbehavingServer, tmp_path: Path) -> None:
    broken = tmp_path / "site" / "numpy"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('a shared object is missing')\n")
    target = tmp_path / "file.bin"
    child = run_child("fetch_slowly", server.url("/slow/x", size=12 * MIB, rate=5 * MIB), target, tmp_path / "site")
    assert child.returncode == 0, child.stderr
    assert target.read_bytes() == content(12 * MIB)


STEPS = [
    (starting.Starting, "_opened"),
    (starting.Starting, "_give_to_engine"),
    (NativeTask, "handle"),
    (NativeTask, "tick"),
    (answering.Answering, "answered"),
    (comparing.Comparing, "_check_identity"),
    (proving.Proving, "prove"),
    (proving.Proving, "complete"),
]


@pytest.mark.parametrize(("owner", "step"), STEPS, ids=[step for _, step in STEPS])
def test_an_error_in_any_step_ends_that_download_and_no_other(
    server: MisbehavingServer,
    target: Path,
    manager: DownloadManager,
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    step: str,
) -> None:
    whole = getattr(owner, step)

    def broken(self: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(self, "_task", self).download.gid == victim.gid:
            raise ValueError("a fault of ours")
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(owner, step, broken)
    monkeypatch.setattr(lifecycle, "LET_GO_S", 1.0)  # if "handle" is broken, the engine's last event is lost, too
    url = server.url("/slow/x", size=2 * MIB, rate=4 * MIB)
    from rangefetch.options import DownloadOptions
    from rangefetch.transfer.download import Download

    victim = Download(url, DownloadOptions.of(_into(target)))
    downloads_of(manager).begin(victim)
    other = manager.download(url, _into(target.with_name("other")))
    with pytest.raises(LocalError, match="a fault of ours"):
        downloads_of(manager).wait_for(victim, 20)
    manager.wait(other, 30)


@pytest.mark.parametrize(
    ("owner", "step"),
    [(Preparing, "_profile_for"), (Preparing, "_keep"), (Preparing, "_fetch"), (NativeBackend, "work")],
    ids=["_profile_for", "_keep", "_fetch", "work"],
)
def test_an_error_while_small_files_are_prepared_together_keeps_none_waiting(
    server: MisbehavingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type, step: str
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("a fault of ours")

    urls = [server.url(f"/good/{number}", size=1000) for number in range(20)]
    with monkeypatch.context() as patch:
        patch.setattr(owner, step, broken)
        failed = fetch_many(urls, tmp_path, on_error="return", **QUICK)
        assert [type(each) for each in failed] == [LocalError] * len(urls)
        assert "a fault of ours" in str(failed[-1])
    assert [each.size for each in fetch_many(urls, tmp_path, **QUICK)] == [1000] * len(urls)


@pytest.mark.keeps_memory
@pytest.mark.parametrize(("owner", "step"), [(NativeTask, "fail"), (NativeTask, "withdraw"), (keeping.Keeping, "keep")])
def test_an_error_on_the_way_to_the_end_keeps_nobody_waiting(
    server: MisbehavingServer,
    target: Path,
    manager: DownloadManager,
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    step: str,
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("a fault of ours")

    monkeypatch.setattr(owner, step, broken)
    gid = manager.download(server.url("/status/x", code=404), _into(target))
    with pytest.raises(DownloadError):
        manager.wait(gid, 30)


@pytest.mark.parametrize("outcome", ["good", "status"])
def test_an_error_in_the_managers_books_keeps_nobody_waiting(
    server: MisbehavingServer, target: Path, manager: DownloadManager, monkeypatch: pytest.MonkeyPatch, outcome: str
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("a fault of ours")

    url = server.url("/good/x", size=MIB) if outcome == "good" else server.url("/status/x", code=404)
    gid = manager.download(url, _into(target))
    monkeypatch.setattr(downloads_of(manager)._queue, "_has_ended", broken)
    if outcome == "good":
        manager.wait(gid, 30)
    else:
        with pytest.raises(HttpStatusError):
            manager.wait(gid, 30)


def test_a_watcher_that_raises_harms_nobody(server: MisbehavingServer, target: Path, manager: DownloadManager) -> None:
    def watcher(_: object) -> None:
        raise ValueError("the caller's fault")

    download = downloads_of(manager).submit(server.url("/slow/x", size=2 * MIB, rate=4 * MIB), _into(target))
    download.watch(watcher)
    downloads_of(manager).wait_for(download, 20)
    fetch(server.url("/good/x", size=MIB), target.with_name("other"))


@pytest.mark.usefixtures("broken_handler")
def test_a_logging_handler_that_raises_harms_nobody(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/script/x", size=SIZE, steps="status:code=503|cut:after=1000000", then="good")
    fetch(url, target)
    assert target.read_bytes() == content(SIZE)


def test_a_download_that_waits_for_nothing_ends_with_an_error_that_keeps_the_work(
    server: MisbehavingServer, target: Path, manager: DownloadManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task, "_NOTHING_S", 0.5)
    monkeypatch.setattr(Recovery, "failed", lambda *_: None)  # a failure that nobody acts upon
    url = server.url("/script/x", size=SIZE, steps="cut:after=3000000", then="status:code=503")
    gid = manager.download(url, _into(target, split=1))
    with pytest.raises(LocalError, match="the download is waiting for nothing"):
        manager.wait(gid, 30)
    assert names(target.parent) == ["file.bin.part", "file.bin.part.json"]


# -- the state -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("saves_often")
def test_nothing_is_saved_before_the_first_answer_or_after_the_file_was_closed(
    server: MisbehavingServer,
    target: Path,
    manager: DownloadManager,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    real, wrong = saving.save, []

    def slow(target: Any, file: Any, *args: Any, **kwargs: Any) -> None:
        if not file.answered or not file.block_size:
            wrong.append("saved before there was anything")
        time.sleep(0.3)
        try:
            os.fstat(target.fd)
        except OSError:
            wrong.append("saved on a descriptor that was closed")
        real(target, file, *args, **kwargs)

    monkeypatch.setattr(saving, "save", slow)
    url = server.url("/slow/x", size=5 * MIB, rate=8 * MIB, delay=0.6)
    gids = [manager.download(url, _into(target.with_name(f"{number}"))) for number in range(8)]
    for gid in gids:
        manager.wait(gid, 30)
    for number in range(8):
        # The second time, all files are complete already.
        assert manager.wait(manager.download(url, _into(target.with_name(f"{number}"))), 30).already_complete
    assert wrong == []
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR] == []


# -- functions of the caller's -----------------------------------------------------------------------------------------


@pytest.fixture
def never(request: pytest.FixtureRequest) -> Iterator[Callable[[str], str]]:
    """A function that blocks until the test is over."""
    over = threading.Event()

    def block(_: str) -> str:
        over.wait(60)
        raise RuntimeError("too late")

    yield block
    over.set()


@pytest.mark.parametrize("verb", ["pause", "cancel", "stop", "let_go"])
def test_a_refresh_url_that_blocks_holds_up_no_verb(
    server: MisbehavingServer, target: Path, never: Callable[[str], str], verb: str
) -> None:
    manager = DownloadManager()
    with manager:
        download = downloads_of(manager).submit(server.url("/status/x", code=403), _into(target, refresh_url=never))
        until(lambda: download.waiting_for == "refresh_url")
        others = [manager.download(server.url("/good/x", size=MIB), _into(target.with_name(f"{n}"))) for n in range(8)]
        for gid in others:
            manager.wait(gid, 30)
        begun_s = time.monotonic()
        match verb:
            case "stop":
                manager.stop()
            case "let_go":
                downloads_of(manager).let_go([download])
            case _:
                getattr(manager, verb)(download.gid)
        assert download.status is not DownloadStatus.ACTIVE
    assert time.monotonic() - begun_s < AT_ONCE


def test_a_refresh_url_that_blocks_does_not_outlast_the_total_timeout(
    server: MisbehavingServer, target: Path, never: Callable[[str], str]
) -> None:
    with pytest.raises(TimedOut):
        fetch(server.url("/status/x", code=403), target, refresh_url=never, total_timeout=1.0)


def test_a_refresh_url_that_blocks_is_not_waited_for_without_end(
    server: MisbehavingServer, target: Path, never: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setattr(task, "_REFRESH_S", 0.3)
    with pytest.raises(HttpStatusError):
        fetch(server.url("/status/x", code=403), target, refresh_url=never)


def test_a_refresh_url_that_blocks_does_not_hold_up_the_interpreters_end(
    server: MisbehavingServer, target: Path
) -> None:
    child = run_child("end_while_refresh_url_blocks", server.url("/status/x", code=403), target)
    assert child.returncode == 0, child.stderr


@pytest.mark.parametrize("most", [1, 16])
def test_a_refresh_url_may_download_with_the_same_manager(server: MisbehavingServer, target: Path, most: int) -> None:
    with DownloadManager(max_concurrent_downloads=most) as manager:

        def refresh(_: str) -> str:
            options = _into(target.with_name("link"))
            manager.download_and_wait(server.url("/good/link", size=1000), options)
            return server.url("/good/x", size=SIZE)

        url = server.url("/status/x", code=403)
        manager.download_and_wait(url, _into(target, refresh_url=refresh))
    assert target.read_bytes() == content(SIZE)


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
def test_a_refresh_url_that_raises_leaves_the_servers_word(
    server: MisbehavingServer, target: Path, kind: type[BaseException]
) -> None:
    def refresh(_: str) -> str:
        raise kind("the caller's fault")

    with pytest.raises(HttpStatusError) as caught:
        fetch(server.url("/status/x", code=403), target, refresh_url=refresh)
    assert caught.value.status == 403


# -- what it waits for -------------------------------------------------------------------------------------------------


def test_a_download_says_what_it_waits_for(server: MisbehavingServer, valve: Valve, target: Path) -> None:
    url = server.url("/valve/x", size=SIZE)
    with DownloadManager(max_concurrent_downloads=1) as manager:
        first, second = (downloads_of(manager).submit(url, _into(target.with_name(name))) for name in ("a", "b"))
        until(lambda: "transfer" in first.waiting_for)
        assert manager.get_download_progress(second.gid).waiting_for == "its turn"
        assert f"waiting for {second.waiting_for}" in repr(second)
        assert "1 active, 1 waiting" in repr(manager)
        manager.change_options(first.gid, max_download_limit=10_000)
        until(lambda: first.waiting_for == "the speed limit")
        manager.pause(first.gid)
        assert first.waiting_for == "resume()"
        valve.open()
        downloads_of(manager).wait_for(second, 20)
        assert second.waiting_for == ""


def test_between_two_tries_a_download_waits_for_the_next(
    server: MisbehavingServer, target: Path, manager: DownloadManager
) -> None:
    url = server.url("/script/x", size=SIZE, steps="status:code=503", then="good")
    download = downloads_of(manager).submit(url, _into(target, retry_wait=15.0))
    until(lambda: download.waiting_for == "the time of the next try")
    manager.cancel(download.gid)


def test_a_lane_that_stands_still_does_not_keep_those_that_fail_from_ending_the_download(
    server: MisbehavingServer, target: Path
) -> None:
    # The second connection stalls, and all later ones break at once. The download must not wait for the second's read
    # timeout.
    url = server.url("/script", size="24M", steps="good|stall:after=1000", then="cut:headers=0:after=0")
    error = fails(BadAnswer, url, target, max_tries=2, total_timeout=15.0)
    assert "no data was received" not in error.reason


@pytest.mark.parametrize("split", [1, 8])
@pytest.mark.parametrize("after", [-1, 0, 100])
@pytest.mark.parametrize("tls", [False, True])
def test_a_last_range_that_never_comes_is_tried_no_oftener_by_eight_connections_than_by_one(
    server: MisbehavingServer,
    tls_server: MisbehavingServer,
    certificates: Certificates,
    target: Path,
    split: int,
    after: int,
    tls: bool,
) -> None:
    tries = 3
    url = (tls_server if tls else server).url(
        "/stall/x", size=SIZE + 1000, at=SIZE + 999, after=max(after, 0), headers=int(after >= 0)
    )
    options: dict[str, Any] = {"read_timeout": 0.5, "connect_timeout": 5, "max_tries": tries, "total_timeout": 0}
    fails(TimedOut, url, target, split=split, min_split_size="1M", ca_file=certificates.ca, **options)
    server_asked = (tls_server if tls else server).requests
    asked = [each for each in server_asked if each.range is not None and each.range[1] > SIZE]
    # Each try may be hedged, and the first one may have been for a longer range.
    assert tries <= len(asked) <= 2 * (tries + 1)
    assert names(target.parent) == ["file.bin.part", "file.bin.part.json"]


@pytest.mark.parametrize("descriptors", range(9, 14))
def test_where_too_few_descriptors_are_left_to_import_modules_a_stream_ends(
    server: MisbehavingServer, descriptors: int
) -> None:
    child = children.run(
        """
        import resource, sys
        import rangefetch
        from rangefetch import stream
        from rangefetch.errors import DownloadError
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]),) * 2)
        try:
            print(len(stream(sys.argv[1]).read()))
        except DownloadError as error:
            print(type(error).__name__)
        """,
        server.url("/good/x", size=SMALL),
        descriptors,
    )
    assert child.returncode == 0, child.stderr
    assert child.stdout.strip() in (str(SMALL), "DiskError", "LocalError"), child.stderr
