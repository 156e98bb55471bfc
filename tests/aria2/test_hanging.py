"""An aria2c that runs but does not answer, callbacks that do not return, and unexpected errors."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from aria2.driving import Desk, downloaded
from rangefetch.aria2 import client, daemon, file
from rangefetch.aria2 import task as aria2_task
from rangefetch.aria2.backend import Aria2Backend
from rangefetch.errors import HttpStatusError, LocalError, TimedOut
from rangefetch.options import DownloadOptions
from rangefetch.progress import DownloadStatus
from rangefetch.transfer import lifecycle, task
from rangefetch.transfer.download import Download
from servers.misbehaving import MisbehavingServer, content
from support.files import MIB, names
from support.waiting import AT_ONCE, until

SIZE = 6 * MIB


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_TIMEOUT_S", 1.0)
    monkeypatch.setattr(daemon, "_MOST_SILENCE_S", 0.9)


@pytest.fixture
def hanging(own_desk: Desk, server: MisbehavingServer, target: Path) -> list[Download]:
    """Two downloads in an aria2c that was stopped with SIGSTOP."""
    begun = [
        own_desk.begin(server.url("/slow/x", size=SIZE, rate="512K", id=n), target.with_name(f"{n}")) for n in range(2)
    ]
    until(lambda: all(downloaded(each) > MIB for each in begun))
    time.sleep(2.5)  # enough for aria2 to save the control files
    os.kill(_daemon(own_desk).pid, signal.SIGSTOP)
    return begun


def _backend(desk: Desk) -> Aria2Backend:
    assert isinstance(desk.backend, Aria2Backend)
    return desk.backend


def _daemon(desk: Desk) -> daemon.Aria2Daemon:
    return next(iter(_backend(desk)._daemons.values()))


def test_a_pause_does_not_wait_for_it_and_the_others_go_on(own_desk: Desk, hanging: list[Download]) -> None:
    paused, other = hanging
    started = time.monotonic()
    own_desk.halt(paused)
    assert time.monotonic() - started < AT_ONCE
    assert own_desk.wait(other).path.read_bytes() == content(SIZE)
    assert own_desk.wait(own_desk.begin_again(paused)).resumed > 0
    assert paused.result is not None
    assert paused.result.path.read_bytes() == content(SIZE)


def test_a_removal_leaves_nothing(own_desk: Desk, hanging: list[Download], target: Path) -> None:
    own_desk.halt(hanging[0], remove_files=True)
    assert not [name for name in names(target.parent) if name.startswith("0")]


def test_a_stop_is_bounded_and_keeps_what_there_is(own_desk: Desk, hanging: list[Download], target: Path) -> None:
    started = time.monotonic()
    _backend(own_desk).stop()
    assert time.monotonic() - started < 2 * AT_ONCE
    assert [each.status for each in hanging] == [DownloadStatus.PAUSED] * 2
    assert names(target.parent) == ["0.part", "0.part.json", "1.part", "1.part.json"]


def test_it_is_started_again_where_nobody_asks(own_desk: Desk, hanging: list[Download]) -> None:
    for each in hanging:
        assert own_desk.wait(each).path.read_bytes() == content(SIZE)


# ---- Callbacks -----------------------------------------------------------------------------------------------------


def test_a_refresh_that_blocks_holds_neither_a_pause_nor_another_download(
    desk: Desk, server: MisbehavingServer, target: Path
) -> None:
    goes_on = threading.Event()

    def refresh(url: str) -> str:
        goes_on.wait(20)
        return url

    download = desk.begin(server.url("/status/x", code=403), target, refresh_url=refresh)
    until(lambda: ("asks", download) in desk.ends)
    assert download.waits is not None
    assert download.waits() == "refresh_url"
    assert desk.fetch(server.url("/good/x", size=SIZE), target.with_name("b")).size == SIZE
    desk.halt(download)
    goes_on.set()


def test_one_that_never_returns_is_given_up(
    desk: Desk, server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task, "_REFRESH_S", 0.3)
    goes_on = threading.Event()
    url = server.url("/status/x", code=403)
    with pytest.raises(HttpStatusError):  # the server's error, not one about the callback
        desk.fetch(url, target, refresh_url=lambda url: str(goes_on.wait(20)), max_tries=1)
    goes_on.set()


def test_a_server_that_drips_its_headers_is_not_waited_for_without_end(
    desk: Desk, server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aria2_task, "_ANSWER_S", 0.5)
    options: dict[str, Any] = {"connect_timeout": 0, "read_timeout": 0, "total_timeout": 0, "max_tries": 1}
    with pytest.raises(TimedOut):
        desk.fetch(server.url("/good/x", delay=5), target, **options)


# ---- Internal errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["__init__", "begin", "tick", "update", "withdraw", "compare"])
def test_an_error_anywhere_ends_one_download_and_no_more(
    own_desk: Desk, server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    right = getattr(file.FileTask, where)
    broken = threading.Event()

    def wrong(self: file.FileTask, *arguments: Any, **named: Any) -> Any:
        download = arguments[1] if where == "__init__" else self.download
        is_due = where != "withdraw" or self.life.is_ending
        if download.options.filename == target.name and not broken.is_set() and is_due:
            broken.set() if where != "withdraw" else None
            raise KeyError("never expected")
        return right(self, *arguments, **named)

    monkeypatch.setattr(lifecycle, "LET_GO_S", 1.0)
    monkeypatch.setattr(file.FileTask, where, wrong)
    download = own_desk.begin(server.url("/slow/x", size=SIZE, rate="8M"), target)
    if where == "withdraw":
        until(lambda: downloaded(download) > 0)
        _backend(own_desk).halt(download)
    until(lambda: download.status is not DownloadStatus.ACTIVE)
    assert download.status is DownloadStatus.PAUSED if where == "withdraw" else isinstance(download.error, LocalError)
    broken.set()
    assert own_desk.fetch(server.url("/good/x", size=SIZE), target.with_name("b")).size == SIZE


def test_options_that_cannot_be_used_are_told_of(own_desk: Desk, server: MisbehavingServer, target: Path) -> None:
    ca_file = target.with_name("ca.pem")
    ca_file.write_text("")
    download = Download(server.url("/good/x"), DownloadOptions(ca_file=ca_file, save_dir=target.parent))
    ca_file.unlink()
    own_desk.begin_again(download)
    until(lambda: download.status is DownloadStatus.ERROR)
