"""When another program pauses, resumes or removes a download in aria2 through RPC, the download's status shows it."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aria2p
import pytest

from rangefetch import DownloadManager, DownloadStatus
from rangefetch.errors import Cancelled
from rangefetch.manager import downloads_of
from servers.directed import Valve
from servers.misbehaving import MisbehavingServer, content
from support.downloads import SIZE, downloaded, into, status_of
from support.files import MIB, begun, names
from support.ports import PORTS
from support.waiting import until

SECRET = "known-to-both"


class Both:
    """A manager, and another program that talks to its aria2c."""

    def __init__(self, manager: DownloadManager, port: int) -> None:
        self.manager = manager
        self.other = aria2p.Client(port=port, secret=SECRET)

    def status(self, gid: str) -> DownloadStatus:
        return status_of(self.manager, gid)

    def in_aria2(self, gid: str) -> str:
        """The download's status in aria2; empty if aria2 does not have the download."""
        try:
            return str(self.other.tell_status(gid, ["status"])["status"])
        except aria2p.ClientException:
            return ""


@pytest.fixture
def both(aria2c: Path, tmp_path: Path) -> Iterator[Both]:
    port = next(PORTS)
    daemon: dict[str, Any] = {
        "aria2_path": aria2c,
        "rpc_port": port,
        "rpc_secret": SECRET,
        "state_dir": tmp_path / "state",
        "health_check_interval": 0.5,
        "restart_wait": 0.05,
    }
    with DownloadManager("aria2", **daemon) as manager:
        yield Both(manager, port)


@pytest.fixture
def gid(both: Both, server: MisbehavingServer, valve: Valve, target: Path) -> str:
    """An active download that has received some bytes."""
    gid = both.manager.download(server.url("/valve/x", size=SIZE), into(target, total_timeout=60.0))
    until(lambda: downloaded(both.manager, gid) > MIB)
    return gid


def _paused(both: Both, gid: str) -> None:
    until(lambda: both.status(gid) is DownloadStatus.PAUSED and both.in_aria2(gid) == "paused")


@pytest.mark.parametrize("method", ["pause", "force_pause"])
def test_a_pause_shows_and_what_came_is_saved(both: Both, gid: str, target: Path, method: str) -> None:
    getattr(both.other, method)(gid)
    _paused(both, gid)
    assert names(target.parent) == begun(target)
    assert downloaded(both.manager, gid) > 0
    assert both.manager.get_download_progress(gid).waiting_for == "resume()"


def test_it_goes_on_where_the_other_program_has_it_go_on(both: Both, gid: str, target: Path, valve: Valve) -> None:
    both.other.pause(gid)
    _paused(both, gid)
    valve.open()
    both.other.unpause(gid)
    assert both.manager.wait(gid, timeout=30).resumed > 0
    assert target.read_bytes() == content(SIZE)
    assert names(target.parent) == ["file.bin"]


def test_it_goes_on_where_its_own_manager_resumes_it(both: Both, gid: str, target: Path, valve: Valve) -> None:
    both.other.pause(gid)
    _paused(both, gid)
    valve.open()
    both.manager.resume(gid)
    assert both.manager.wait(gid, timeout=30).resumed > 0
    assert target.read_bytes() == content(SIZE)


def test_a_removal_shows_and_what_came_stays(both: Both, gid: str, target: Path) -> None:
    both.other.force_remove(gid)
    until(lambda: both.status(gid) is DownloadStatus.REMOVED)
    with pytest.raises(Cancelled):
        both.manager.wait(gid, timeout=10)
    assert names(target.parent) == begun(target)


def test_so_does_one_of_which_aria2_keeps_no_result(both: Both, gid: str) -> None:
    aria2p.API(both.other).remove([aria2p.API(both.other).get_download(gid)], force=True, clean=True)
    until(lambda: both.status(gid) is DownloadStatus.REMOVED)


def test_what_rests_can_be_removed_by_either(both: Both, gid: str, target: Path) -> None:
    both.other.pause(gid)
    _paused(both, gid)
    both.other.remove(gid)
    until(lambda: both.status(gid) is DownloadStatus.REMOVED)
    assert names(target.parent) == begun(target)


def test_cancelling_it_takes_it_out_of_aria2(both: Both, gid: str, target: Path) -> None:
    both.other.pause(gid)
    _paused(both, gid)
    both.manager.cancel(gid, remove_files=True)
    assert names(target.parent) == []
    until(lambda: both.in_aria2(gid) in ("", "removed"))


def test_all_of_them_at_once(both: Both, gid: str, server: MisbehavingServer, target: Path, valve: Valve) -> None:
    gids = [gid, both.manager.download(server.url("/valve/y", size=SIZE), into(target, "y", total_timeout=60.0))]
    until(lambda: downloaded(both.manager, gids[1]) > 0)
    both.other.pause_all()
    for each in gids:
        _paused(both, each)
    valve.open()
    both.other.unpause_all()
    for each in gids:
        assert both.manager.wait(each, timeout=30).size == SIZE


def test_it_is_still_paused_there_when_aria2c_was_started_again(both: Both, gid: str, valve: Valve) -> None:
    both.other.pause(gid)
    _paused(both, gid)
    pid = _pid(both)
    os.kill(pid, signal.SIGKILL)
    until(lambda: _pid(both) not in (0, pid))
    until(lambda: _says(both, gid) == "paused")
    assert both.status(gid) is DownloadStatus.PAUSED
    valve.open()
    both.other.unpause(gid)
    assert both.manager.wait(gid, timeout=30).size == SIZE


def _pid(both: Both) -> int:
    backend: Any = downloads_of(both.manager).router._running["aria2"]
    return int(next(iter(backend._daemons.values())).pid)


def _says(both: Both, gid: str) -> str:
    try:
        return both.in_aria2(gid)
    except Exception:  # the new aria2c does not answer yet
        return ""
