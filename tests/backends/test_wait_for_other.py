"""Several downloads of one file that start together: one fetches it, and those that may wait take its result."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from backends.conftest import Make
from rangefetch import DownloadManager, DownloadStatus
from rangefetch.disk import reservations
from rangefetch.errors import TargetLocked
from servers.directed import Valve
from servers.misbehaving import MisbehavingServer, content
from support.downloads import SMALL, downloaded, into, status_of
from support.files import MIB, names
from support.waiting import until

SIZE = 9 * MIB + 7
LONG = 64 * MIB + 7
"""Long enough to be waited for, while the valve is closed."""
TIMES = {"retry_wait": 0.001, "total_timeout": 60.0}


def _command(url: str, target: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "rangefetch", "--no-conf", "--json", "-d", str(target.parent), *options, url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("overwrite", [False, True])
def test_one_fetches_and_the_others_take_its_result(
    manager: DownloadManager,
    server: MisbehavingServer,
    valve: Valve,
    target: Path,
    named: bool,
    overwrite: bool,
) -> None:
    url = server.url("/valve/file.bin", size=LONG)
    options = TIMES | {"save_dir": target.parent, "filename": "file.bin" if named else "", "overwrite": overwrite}
    first = manager.download(url, options)
    until(lambda: downloaded(manager, first) > 0)
    with DownloadManager() as others:
        gids = [others.download(url, options | {"wait_for_other": True}) for _ in range(3)]
        until(lambda: all("is writing it" in others.get_download_progress(gid).waiting_for for gid in gids))
        server.clear()
        valve.open()
        manager.wait(first, 60)
        assert all(others.wait(gid, 60).already_complete for gid in gids)
    assert target.read_bytes() == content(LONG)
    assert names(target.parent) == ["file.bin"]
    server.wait_idle()
    # Less than a second whole file: aria2c requests more than it takes, and receives buffered data twice.
    assert server.bytes_sent < 2 * LONG


@pytest.mark.parametrize("route", ["/good/x.bin", "/no-ranges/x.bin", "/chunked/x.bin"])
def test_a_small_file_that_the_server_names_is_what_all_of_them_get(
    manager: DownloadManager, server: MisbehavingServer, target: Path, route: str
) -> None:
    """Neither the name nor the size need be known beforehand, and nothing but bytes says that it is the same."""
    header = f'Content-Disposition: attachment; filename="{target.name}"'
    url = server.url(route, size=2000, etag="none", mtime=0, header=header)
    options = TIMES | {"save_dir": target.parent, "wait_for_other": True}
    with DownloadManager() as others:
        gids = [(each, each.download(url, options)) for each in (manager, others, others, others)]
        assert {each.wait(gid, 60).path for each, gid in gids} == {target}
    assert target.read_bytes() == content(2000)
    assert names(target.parent) == [target.name]


@pytest.mark.parametrize("size", [2000, SIZE])
def test_a_name_that_another_download_is_about_to_have_is_waited_for(
    manager: DownloadManager, server: MisbehavingServer, target: Path, size: int
) -> None:
    url = server.url("/good/x.bin", size=size, header=f'Content-Disposition: attachment; filename="{target.name}"')
    other = object()
    assert reservations.reserve(target, other)
    try:
        gid = manager.download(url, TIMES | {"save_dir": target.parent, "wait_for_other": True})
        until(lambda: "will have that name" in manager.get_download_progress(gid).waiting_for)
        whole = target.with_name("whole")
        whole.write_bytes(content(size))
        whole.rename(target)
    finally:
        reservations.release(other)
    assert manager.wait(gid, 60).already_complete
    assert names(target.parent) == [target.name]


def test_one_that_waits_has_no_place_that_the_other_needs(
    manage: Make, server: MisbehavingServer, target: Path
) -> None:
    """While the first waits for its next try, others may take its active slot, which it needs in order to continue."""
    options = into(target, wait_for_other=True, durable=True, total_timeout=60.0)
    url = server.url("/script/x", size=SMALL, steps="status:code=503|status:code=503", then="good")
    with manage(max_concurrent_downloads=1) as manager:
        first = manager.download(url, options | {"retry_wait": 4.0})
        until(lambda: "next try" in manager.get_download_progress(first).waiting_for)
        second = manager.download(url, options)
        until(lambda: status_of(manager, second) is DownloadStatus.ACTIVE)
        assert not manager.wait(first, 30).already_complete
        assert manager.wait(second, 30).already_complete


def test_one_that_dies_leaves_its_work_to_the_next(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/script/file.bin", size=SIZE, steps="slow:rate=512K", then="good")
    part = target.with_name("file.bin.part.json")
    with _command(url, target, "-o", "file.bin", "-s1") as first, DownloadManager() as manager:
        until(part.exists)
        gid = manager.download(url, into(target, wait_for_other=True) | TIMES)
        until(lambda: f"process {first.pid}" in manager.get_download_progress(gid).waiting_for)
        first.kill()
        assert manager.wait(gid, 60).resumed > 0
    assert target.read_bytes() == content(SIZE)


def test_without_it_the_refusal_names_the_process(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/slow/file.bin", size=SIZE, rate="256K")
    with DownloadManager() as manager:
        first = manager.download(url, into(target, split=1) | TIMES)
        until(lambda: downloaded(manager, first) > 0)
        second = _command(url, target, "-o", "file.bin")
        out, words = second.communicate(timeout=60)
        assert second.returncode == 1
        assert f"a download of process {os.getpid()} is writing it" in words
        assert json.loads(out)["error"]
        with pytest.raises(TargetLocked, match="another download of this process"):
            manager.download_and_wait(url, into(target) | TIMES)
        manager.cancel(first)


def test_who_waits_can_be_stopped(server: MisbehavingServer, valve: Valve, target: Path) -> None:
    url = server.url("/valve/file.bin", size=LONG)
    with DownloadManager() as manager, DownloadManager() as other:
        first = manager.download(url, into(target) | TIMES)
        until(lambda: downloaded(manager, first) > 0)
        gid = other.download(url, into(target, wait_for_other=True) | TIMES)
        until(lambda: other.get_download_progress(gid).waiting_for)
        other.pause(gid)
        until(lambda: status_of(other, gid) is DownloadStatus.PAUSED)
        other.cancel(gid)
        valve.open()
        manager.wait(first, 60)
    assert target.read_bytes() == content(LONG)
    assert names(target.parent) == ["file.bin"]


def test_all_ranks_of_a_job(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/slow/file.bin", size=LONG, rate="32M")
    ranks = [_command(url, target, "--wait-for-other", "-x1") for _ in range(6)]
    told = [rank.communicate(timeout=90) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * 6, told
    assert [json.loads(out)["path"] for out, _ in told] == [str(target)] * 6
    assert target.read_bytes() == content(LONG)
    assert names(target.parent) == ["file.bin"]
    server.wait_idle()
    # Each of the others may receive the 4 MiB of its first request before it knows.
    assert server.bytes_sent < LONG + 6 * 4 * MIB < 2 * LONG
