"""Both backends at work in one manager: an aria2c that does not answer delays none of the native engine's downloads."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from backends.conftest import Make
from rangefetch import DownloadManager, DownloadStatus
from rangefetch.aria2 import client, daemon
from servers.directed import Valve
from servers.ftp import FtpServer
from servers.misbehaving import MisbehavingServer, content
from support.downloads import SIZE, downloaded, into, status_of
from support.files import MIB
from support.waiting import until

FOREVER_S = 600.0


@contextmanager
def _stopped_aria2c() -> Iterator[None]:
    """Keep aria2c stopped, so that it does nothing."""
    (process,) = [child for child in psutil.Process().children() if "aria2" in child.name()]
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let callers wait for aria2c's answer without limit, and do not end aria2c when none comes."""
    monkeypatch.setattr(client, "_TIMEOUT_S", FOREVER_S)
    monkeypatch.setattr(daemon, "_MOST_SILENCE_S", FOREVER_S)


@pytest.fixture
def ftp() -> Iterator[FtpServer]:
    with FtpServer(content(SIZE)) as server:
        server.rate = MIB // 4
        yield server


@pytest.fixture
def manager(make: Make) -> Iterator[DownloadManager]:
    with make() as running:
        yield running


@pytest.mark.usefixtures("patient")
def test_a_native_download_does_all_that_it_does_otherwise(
    manager: DownloadManager, server: MisbehavingServer, valve: Valve, ftp: FtpServer, target: Path
) -> None:
    stuck = manager.download(f"ftp://127.0.0.1:{ftp.port}/x", into(target, "stuck"))
    until(lambda: downloaded(manager, stuck) > 0)
    running = manager.download(server.url("/valve/x", size=SIZE), into(target, "running"))
    until(lambda: downloaded(manager, running) > 0)
    with _stopped_aria2c():
        manager.limit(64 * MIB)
        # A running download continues, and can be paused and resumed; a new one starts, and both finish.
        manager.pause(running)
        assert status_of(manager, running) is DownloadStatus.PAUSED
        late = manager.download(server.url("/good/x", size=SIZE), into(target, "late"))
        assert manager.wait(late, timeout=30).path.read_bytes() == content(SIZE)
        manager.resume(running)
        valve.open()
        assert manager.wait(running, timeout=30).path.read_bytes() == content(SIZE)
        # Callers can ask about the stuck download too.
        assert status_of(manager, stuck) is DownloadStatus.ACTIVE
        assert [each.gid for each in manager.list_downloads("active")] == [stuck]
    ftp.rate = 0
    assert manager.wait(stuck, timeout=30).path.read_bytes() == content(SIZE)


@pytest.mark.usefixtures("patient")
def test_what_is_asked_of_the_one_that_hangs_holds_up_no_other(
    manager: DownloadManager, server: MisbehavingServer, ftp: FtpServer, target: Path
) -> None:
    """Its options are changed, another one is given to it, and one of both is cancelled, which nobody waits for."""
    url = f"ftp://127.0.0.1:{ftp.port}/x"
    stuck = [manager.download(url, into(target, f"stuck-{number}")) for number in range(2)]
    until(lambda: all(downloaded(manager, gid) > 0 for gid in stuck))
    with _stopped_aria2c():
        manager.change_options(stuck[0], max_download_limit="1M")
        stuck.append(manager.download(url, into(target, "stuck-2")))
        for number in range(3):
            gid = manager.download(server.url("/good/x", size=SIZE, id=number), into(target, f"{number}"))
            assert manager.wait(gid, timeout=30).size == SIZE
        assert all(status_of(manager, gid) is DownloadStatus.ACTIVE for gid in stuck)
    ftp.rate = 0
    for gid in stuck:
        manager.cancel(gid, remove_files=True)


@pytest.mark.usefixtures("patient")
def test_a_place_that_becomes_free_is_given_to_the_next_at_once(
    make: Make, server: MisbehavingServer, valve: Valve, ftp: FtpServer, target: Path
) -> None:
    """Also if aria2c was started first."""
    with make(prefer="aria2", max_concurrent_downloads=2) as manager:
        stuck = manager.download(f"ftp://127.0.0.1:{ftp.port}/x", into(target, "stuck"))
        until(lambda: downloaded(manager, stuck) > 0)
        native = {"trace": target.parent / "trace"}  # aria2 refuses this option
        running = manager.download(server.url("/valve/x", size=SIZE), into(target, "running", **native))
        until(lambda: downloaded(manager, running) > 0)
        late = manager.download(server.url("/good/x", size=SIZE), into(target, "late", **native))
        with _stopped_aria2c():
            time.sleep(0.5)  # meanwhile aria2's thread asks aria2c
            manager.pause(running)
            assert manager.wait(late, timeout=30).path.read_bytes() == content(SIZE)
        ftp.rate = 0
        manager.cancel(stuck, remove_files=True)
