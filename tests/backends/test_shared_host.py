"""Downloads of both backends that share one connection to a host, or one active download. Each gets its turn, however
many the other backend has."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.conftest import Make
from rangefetch import DownloadManager, DownloadStatus
from rangefetch.manager import downloads_of
from rangefetch.transfer.download import Download
from servers.ftp import FtpServer
from servers.misbehaving import MisbehavingServer, content
from support.downloads import SMALL, into
from support.files import MIB
from support.waiting import until

WITHIN_S = 60.0


@pytest.fixture
def ftp() -> Iterator[FtpServer]:
    with FtpServer(content(SMALL)) as server:
        yield server


@pytest.mark.parametrize("name", ["native", "aria2"])
def test_with_one_connection_to_the_host_neither_backend_starves_the_other(
    make: Make, server: MisbehavingServer, target: Path, name: str
) -> None:
    """One backend always has more downloads waiting for the host; the other's still get their turn."""
    other = {"native": "aria2", "aria2": "native"}[name]
    with make(name, max_concurrent_downloads=4) as busy, make(other, max_concurrent_downloads=4) as later:
        numbers = itertools.count()

        def add(manager: DownloadManager) -> Download:
            number = next(numbers)
            url = server.url("/slow/x", size=MIB, rate=8 * MIB, id=number)
            return downloads_of(manager).submit(url, into(target, number, max_connection_per_server=1, total_timeout=0))

        many = [add(busy) for _ in range(6)]
        until(lambda: many[0].status is DownloadStatus.COMPLETE)
        few = [add(later) for _ in range(2)]
        over_s = time.monotonic() + WITHIN_S
        while not all(each.status is DownloadStatus.COMPLETE for each in few):
            assert time.monotonic() < over_s, [repr(each) for each in few]
            if sum(each.status is DownloadStatus.COMPLETE for each in many) > len(many) - 6:
                many.append(add(busy))
            time.sleep(0.01)
        for download in many:
            downloads_of(busy).wait_for(download, WITHIN_S)


def test_with_one_place_at_work_they_come_in_the_order_in_which_they_were_asked_for(
    make: Make, server: MisbehavingServer, ftp: FtpServer, target: Path
) -> None:
    ended: list[str] = []
    with make(max_concurrent_downloads=1) as manager:
        urls = [f"ftp://127.0.0.1:{ftp.port}/x", server.url("/good/x", size=SMALL)] * 3
        gids = []
        for number, url in enumerate(urls):
            downloads = downloads_of(manager)
            item = downloads.defaults.check(url, into(target, number))
            [download] = downloads.submit_all([item], downloads.starts, lambda each: ended.append(each.gid))
            gids.append(download.gid)
        for gid in gids:
            manager.wait(gid, WITHIN_S)
    assert ended == gids
