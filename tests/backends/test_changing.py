"""Limits, and options that change while a download is running."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from backends.conftest import Make
from rangefetch import DownloadManager, DownloadStatus
from servers.misbehaving import MisbehavingServer, content
from support.downloads import SIZE, downloaded, into
from support.files import MIB
from support.stage import Stage
from support.waiting import AT_ONCE, until


def _connections(manager: DownloadManager, gid: str) -> int:
    return manager.get_download_progress(gid).connections


@pytest.mark.alone
def test_a_limit_holds_from_now_on_and_can_be_lifted(
    server: MisbehavingServer, target: Path, manager: DownloadManager, backend: str
) -> None:
    size = 40 * MIB
    gid = manager.download(server.url("/good/x", size=size), into(target, max_download_limit="4M", split=4))
    until(lambda: downloaded(manager, gid) > MIB)
    manager.change_options(gid, max_download_limit="1M")
    time.sleep(0.3)
    before, since = downloaded(manager, gid), time.monotonic()
    time.sleep(1.0)
    rate = (downloaded(manager, gid) - before) / (time.monotonic() - since)
    assert rate < 1.6 * MIB
    # aria2 waits until its average of the last seconds is below the limit.
    assert rate > 0.5 * MIB or backend == "aria2"
    manager.change_options(gid, max_download_limit=0)
    started = time.monotonic()
    assert manager.wait(gid, timeout=30).path.read_bytes() == content(size)
    assert time.monotonic() - started < AT_ONCE, "as long as it takes under the limit"


@pytest.mark.alone
def test_a_limit_for_all_is_shared_and_can_be_lifted(manage: Make, server: MisbehavingServer, target: Path) -> None:
    with manage(max_overall_download_limit="2M") as manager:
        started = time.monotonic()
        gids = [manager.download(server.url("/good/x", size=24 * MIB), into(target, n, split=2)) for n in range(3)]
        # aria2 takes a second to start.
        until(lambda: sum(downloaded(manager, gid) for gid in gids) > 1.5 * MIB)
        came = sum(downloaded(manager, gid) for gid in gids)
        assert came < 2 * MIB * (time.monotonic() - started) + 2 * MIB
        manager.limit(0)
        for gid in gids:
            assert manager.wait(gid, timeout=20).path.read_bytes() == content(24 * MIB)


@pytest.mark.parametrize("option", ["split", "max_connection_per_server"])
def test_lanes_are_added_while_it_runs(
    server: MisbehavingServer, target: Path, manager: DownloadManager, option: str
) -> None:
    url = server.url("/slow/x", size="32M", rate="512K")
    gid = manager.download(url, into(target, min_split_size="1M", **{option: 1}))
    until(lambda: downloaded(manager, gid) > 0)
    time.sleep(0.2)
    assert _connections(manager, gid) == 1
    change: Any = {option: 6}
    manager.change_options(gid, **change)
    until(lambda: _connections(manager, gid) >= 5)
    time.sleep(0.3)
    assert _connections(manager, gid) <= 6
    manager.cancel(gid, remove_files=True)


def test_lanes_are_taken_away_while_it_runs(server: MisbehavingServer, target: Path, manager: DownloadManager) -> None:
    url = server.url("/slow/x", size="48M", rate="2M")
    gid = manager.download(url, into(target, min_split_size="1M", split=6))
    until(lambda: _connections(manager, gid) == 6)
    manager.change_options(gid, split=2)
    until(lambda: _connections(manager, gid) <= 2)
    manager.cancel(gid, remove_files=True)


def test_new_headers_are_sent_with_the_next_requests(stage: Stage) -> None:
    gid = stage.begin(headers={"X-Token": "old"}, split=2, user_agent="old/1")
    until(lambda: len(stage.server.requests) >= 2)
    stage.manager.change_options(gid, headers={"X-Token": "new"}, user_agent="new/2", split=4)
    until(lambda: ("new", "new/2") in _tokens(stage))
    stage.valve.open()
    assert stage.manager.wait(gid, timeout=30).path.read_bytes() == content(SIZE)
    sent = _tokens(stage)
    changed = sent.index(("new", "new/2"))
    assert set(sent[:changed]) == {("old", "old/1")}
    assert set(sent[changed:]) == {("new", "new/2")}


def _tokens(stage: Stage) -> list[tuple[str, str]]:
    return [(each.headers["x-token"], each.headers["user-agent"]) for each in stage.server.requests]


def test_a_further_mirror_is_used_at_once(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path, manager: DownloadManager, backend: str
) -> None:
    gid = manager.download(
        server.url("/slow/x", size="16M", rate="3M"), into(target, max_connection_per_server=1, min_split_size="1M")
    )
    until(lambda: downloaded(manager, gid) > 0)
    # With another host name, because aria2 treats all ports of a host as one server.
    mirror = other_server.url("/good/x", size="16M").replace("127.0.0.1", "localhost")
    manager.change_options(gid, mirrors=[mirror])
    result = manager.wait(gid, timeout=30)
    assert result.path.read_bytes() == content("16M")
    # aria2 does not report which source sent what.
    assert mirror in result.sources or backend == "aria2"
    assert other_server.bytes_sent >= 6 * MIB


def test_options_that_need_a_new_beginning_are_refused_while_it_runs(stage: Stage) -> None:
    gid = stage.download_that_is(DownloadStatus.ACTIVE)
    refused: dict[str, Any] = {"filename": "x", "checksum": f"md5={'0' * 32}", "overwrite": True}
    for option, value in refused.items():
        with pytest.raises(ValueError, match=option):
            stage.manager.change_options(gid, **{option: value})
    with pytest.raises(TypeError, match="spilt"):
        stage.manager.change_options(gid, spilt=4)  # type: ignore[call-arg]  # wrong on purpose
    with pytest.raises(ValueError, match="split"):
        stage.manager.change_options(gid, split=0)
    assert stage.status(gid) is DownloadStatus.ACTIVE


def test_options_of_what_rests_count_when_it_goes_on(stage: Stage) -> None:
    gid = stage.download_that_is(DownloadStatus.PAUSED)
    stage.manager.change_options(gid, user_agent="later/1", checksum=f"md5={'0' * 32}")
    stage.server.wait_idle()
    stage.server.clear()
    stage.valve.open()
    stage.manager.resume(gid)
    until(lambda: stage.status(gid) is DownloadStatus.ERROR)
    assert {request.headers["user-agent"] for request in stage.server.requests} == {"later/1"}


class _Meanwhile(Mapping[str, str]):
    """Headers that change another option of the download at the moment when they are read."""

    def __init__(self, manager: DownloadManager, gid: str) -> None:
        self._manager = manager
        self._gid = gid
        self._left = [3]

    def __getitem__(self, name: str) -> str:
        return "new"

    def __iter__(self) -> Iterator[str]:
        if self._left:
            self._manager.change_options(self._gid, split=self._left.pop(), filename="renamed.bin")
        return iter(["X-Token"])

    def __len__(self) -> int:
        return 1


def test_two_changes_at_the_same_time_both_hold(stage: Stage) -> None:
    gid = stage.download_that_is(DownloadStatus.PAUSED)
    stage.manager.change_options(gid, headers=_Meanwhile(stage.manager, gid), save_dir=stage.target.parent / "there")
    stage.valve.open()
    stage.manager.resume(gid)
    assert stage.manager.wait(gid, timeout=30).path == stage.target.parent / "there" / "renamed.bin"
    assert stage.server.requests[-1].headers["x-token"] == "new"
