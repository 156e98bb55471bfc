"""Downloads that are handed over: from an aria2 that has died for good, and from one manager to another."""

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from backends.conftest import Make
from rangefetch import DownloadManager, DownloadStatus
from rangefetch.disk.control_file import ControlFile
from rangefetch.errors import Cancelled, DaemonUnavailable, EngineUnavailable, LocalError
from servers.directed import Valve
from servers.ftp import FtpServer
from servers.misbehaving import MisbehavingServer, content
from support.downloads import downloaded, into, status_of
from support.files import MIB, begun, names, saved_bytes
from support.requests import sent
from support.waiting import until

SIZE = 32 * MIB + 7
SLACK = 5 * MIB
"""What a connection that is cut has sent in vain: it lies in the buffers of its sockets."""


def _kill_aria2() -> None:
    for child in psutil.Process().children():
        if "aria2" in child.name():
            os.kill(child.pid, signal.SIGKILL)


def _noted_bytes(target: Path) -> int:
    """The number of bytes present, according to aria2's control file."""
    try:
        return ControlFile.parse(target.with_name(f"{target.name}.part.aria2").read_bytes()).written_bytes
    except (OSError, ValueError):
        return 0


def test_what_a_daemon_that_died_for_good_was_at_goes_on_natively(
    make: Make, server: MisbehavingServer, valve: Valve, target: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager = make(prefer="aria2", max_restart_attempts=0)
    gid = manager.download(server.url("/valve/x", size=SIZE), into(target))
    until(lambda: _noted_bytes(target) > 6 * MIB)
    assert manager.backend == "aria2"
    asked = len(server.requests)
    _kill_aria2()
    until(lambda: len(server.requests) > asked)
    assert manager.backend == "native"
    valve.open()
    result = manager.wait(gid, timeout=30)
    server.wait_idle()
    assert result.path.read_bytes() == content(SIZE)
    assert result.resumed > 5 * MIB
    assert sent(server.requests[asked:]) < SIZE - result.resumed + SLACK
    assert names(target.parent) == ["file.bin"]
    assert manager.fallback_reason.startswith("aria2: aria2c is not restarted: ")
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert any("continuing without aria2" in line for line in warnings)
    assert f"the native backend is used instead ({manager.fallback_reason})" in warnings
    # Later downloads run on the native backend too.
    asked = len(server.requests)
    manager.download_and_wait(server.url("/good/x", size=SIZE), into(target, "later.bin"))
    assert server.requests[asked].headers["range"] == "bytes=0-4194303"


def test_all_of_them_go_on_and_none_twice(make: Make, server: MisbehavingServer, target: Path) -> None:
    manager = make(prefer="aria2", max_restart_attempts=0, max_concurrent_downloads=3)
    urls = [server.url("/shared-rate/x", size=6 * MIB, seed=seed, rate="6M") for seed in range(5)]
    gids = [manager.download(url, into(target, seed)) for seed, url in enumerate(urls)]
    until(lambda: all(downloaded(manager, gid) > MIB for gid in gids[:3]))
    _kill_aria2()
    for seed, gid in enumerate(gids):
        assert manager.wait(gid, timeout=30).path.read_bytes() == content(6 * MIB, seed)
    assert names(target.parent) == ["0", "1", "2", "3", "4"]
    assert {each.status for each in manager.list_downloads()} == {DownloadStatus.COMPLETE}


@pytest.mark.parametrize("verb", ["pause", "cancel", "stop"])
def test_a_verb_in_the_midst_of_it_holds(make: Make, server: MisbehavingServer, target: Path, verb: str) -> None:
    manager = make(prefer="aria2", max_restart_attempts=0)
    gid = manager.download(server.url("/slow/x", size=SIZE, rate="1M"), into(target))
    until(lambda: downloaded(manager, gid) > MIB)
    _kill_aria2()
    getattr(manager, verb)(*[gid] * (verb != "stop"))
    wanted = DownloadStatus.REMOVED if verb == "cancel" else DownloadStatus.PAUSED
    assert status_of(manager, gid) is wanted
    time.sleep(0.5)
    assert status_of(manager, gid) is wanted
    assert set(names(target.parent)) <= set(begun(target))


def test_where_the_engine_does_not_run_either_the_error_names_both(
    make: Make, server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load() -> None:
        raise EngineUnavailable("no usable libcurl; tried nothing")

    monkeypatch.setattr("rangefetch.net.libcurl.load", load)
    manager = make(prefer="aria2", max_restart_attempts=0)
    gid = manager.download(server.url("/slow/x", size=SIZE, rate="1M"), into(target))
    until(lambda: _noted_bytes(target) > 0)
    _kill_aria2()
    with pytest.raises(LocalError) as caught:
        manager.wait(gid, timeout=30)
    for part in ("aria2: aria2c is not restarted", "native: no usable libcurl", "pip install pycurl"):
        assert part in str(caught.value)
    assert saved_bytes(target) > 0


def test_what_the_engine_does_not_serve_fails_with_the_reason(make: Make, target: Path) -> None:
    manager = make(max_restart_attempts=0)
    with FtpServer(content(SIZE)) as ftp:
        ftp.rate = MIB
        url = f"ftp://127.0.0.1:{ftp.port}/x"
        gid = manager.download(url, into(target))
        until(lambda: downloaded(manager, gid) > 0)
        _kill_aria2()
        with pytest.raises(DaemonUnavailable) as caught:
            manager.wait(gid, timeout=30)
        assert caught.value.url == url
        # aria2 is not started again and again.
        with pytest.raises(LocalError, match="ftp needs the aria2 backend, which cannot run here"):
            manager.download_and_wait(url, into(target, "later.bin"))
    assert (manager.backend, manager.fallback_reason) == ("native", "")


def test_a_backend_that_was_named_hands_nothing_over(make: Make, server: MisbehavingServer, target: Path) -> None:
    manager = make("aria2", max_restart_attempts=0)
    gid = manager.download(server.url("/slow/x", size=SIZE, rate="1M"), into(target))
    until(lambda: _noted_bytes(target) > 0)
    _kill_aria2()
    with pytest.raises(DaemonUnavailable, match="aria2c is not restarted"):
        manager.wait(gid, timeout=30)
    with pytest.raises(DaemonUnavailable, match="aria2c is not restarted"):
        manager.download_and_wait(server.url("/good/x"), into(target, "later.bin"))
    assert manager.backend == "aria2"
    assert saved_bytes(target) > 0
    # Starting the manager again also tries aria2 again.
    manager.stop()
    manager.retry(gid)
    until(lambda: downloaded(manager, gid) > 0)
    manager.cancel(gid)
    with pytest.raises(Cancelled):
        manager.wait(gid)


@pytest.mark.parametrize(("first", "second"), [("native", "aria2"), ("aria2", "native")])
def test_a_session_goes_on_under_the_other_backend(
    make: Make, server: MisbehavingServer, target: Path, tmp_path: Path, first: str, second: str
) -> None:
    session = tmp_path / "session.json"
    before = make(first, session_file=session)
    gid = before.download(server.url("/shared-rate/x", size=SIZE, rate="24M"), into(target, split=4))
    until(lambda: downloaded(before, gid) > SIZE // 2)
    before.stop()
    server.wait_idle()
    server.clear()
    kept = saved_bytes(target)
    assert kept > SIZE // 3
    after: DownloadManager = make(second, session_file=session)
    after.start()
    result = after.wait(gid, timeout=30)
    assert after.backend == second
    server.wait_idle()
    assert abs(result.resumed - kept) < 2 * MIB
    assert server.bytes_sent < SIZE - kept + SLACK
    assert result.path.read_bytes() == content(SIZE)
    assert names(target.parent) == ["file.bin"]
