"""When a host asks for a rest, both backends obey, whichever of them was told."""

import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.conftest import Make
from rangefetch import DownloadManager
from rangefetch.errors import HttpStatusError
from rangefetch.options import DownloadOptions
from rangefetch.transfer import governor
from servers.counting import CountingServer
from servers.misbehaving import MisbehavingServer, content
from support.downloads import SIZE, SMALL, downloaded, into
from support.files import MIB
from support.waiting import until

OTHER = {"native": "aria2", "aria2": "native"}


@pytest.fixture
def counting() -> Iterator[CountingServer]:
    with CountingServer() as server:
        yield server


def _rests(counting: CountingServer) -> bool:
    # For as long as the server has said: a short rest comes at once, before the policy is asked.
    return governor.rests_for(governor.host_of_connection(counting.url("any"), DownloadOptions())) > 1.1


@pytest.mark.parametrize("status", [429, 503])
def test_a_rest_that_one_backend_has_heard_of_holds_for_the_other(
    make: Make, backend: str, counting: CountingServer, tmp_path: Path, status: int
) -> None:
    counting.refuse(status, 2)
    with make(backend) as one, make(OTHER[backend]) as other:
        gids = [(one, one.download(counting.url("first"), {"save_dir": tmp_path}))]
        until(lambda: _rests(counting))
        gids += [(other, other.download(counting.url(f"f{n}"), {"save_dir": tmp_path})) for n in range(4)]
        for manager, gid in gids:
            assert manager.wait(gid, timeout=30).size == counting.size
    assert counting.refused == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_rest_holds_for_all_downloads_and_one_request_ends_it(
    manage: Make, counting: CountingServer, tmp_path: Path, status: int
) -> None:
    counting.refuse(status, 2)
    with manage(max_concurrent_downloads=8) as manager:
        gids = [manager.download(counting.url("first"), {"save_dir": tmp_path})]
        until(lambda: _rests(counting))
        gids += [manager.download(counting.url(f"f{n}"), {"save_dir": tmp_path}) for n in range(7)]
        for gid in gids:
            assert manager.wait(gid, timeout=30).size == counting.size
    assert counting.refused == 1


def test_a_download_at_work_sends_no_request_to_a_host_that_rests(
    make: Make, server: MisbehavingServer, target: Path
) -> None:
    with make("aria2") as one, make("native") as other:
        url = server.url("/slow/x", size=SIZE, rate="2M")
        gid = one.download(url, into(target, 1, split=2, total_timeout=60.0))
        until(lambda: downloaded(one, gid) > SIZE // 8)
        refused = other.download(
            server.url("/status/x", code=429, times=1, size=SMALL, header="Retry-After: 2"), into(target, 2)
        )
        until(
            lambda: one.get_download_progress(gid).waiting_for == "the end of a rest period that the server asked for"
        )
        before = len(server.requests)
        time.sleep(0.5)
        assert len(server.requests) == before
        other.wait(refused, timeout=30)
        assert one.wait(gid, timeout=60).size == SIZE
    assert target.with_name("1").read_bytes() == content(SIZE)


# ---- Patience ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lanes", [1, 8])
def test_a_download_survives_the_restart_of_its_server(
    manager: DownloadManager, server: MisbehavingServer, target: Path, lanes: int
) -> None:
    # A tenth of the default times.
    url = server.url("/slow/x", size=SIZE, rate="4M")
    options = into(target, retry_wait=0.05, total_timeout=60.0, split=lanes, min_split_size="1M")
    gid = manager.download(url, options)
    until(lambda: downloaded(manager, gid) > 0)
    server.stop()
    time.sleep(2.0)
    server.start()
    manager.wait(gid, timeout=60)
    assert target.read_bytes() == content(SIZE)


def test_a_host_that_has_answered_may_refuse_for_longer_than_the_tries_last(
    manager: DownloadManager, server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "uniform", lambda _, most: most / 10)
    manager.download_and_wait(server.url("/good/x", size=SMALL), into(target, 1))
    url = server.url("/status/x", code=503, size=SMALL, times=9)
    manager.download_and_wait(url, into(target, 2, retry_wait=0.2, total_timeout=60.0))
    assert sum(request.status == 503 for request in server.requests) == 9


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_so_may_one_that_has_said_nothing_else_than_that_it_cannot_serve_for_now(
    manager: DownloadManager, server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(random, "uniform", lambda _, most: most / 10)
    url = server.url("/status/x", code=status, size=SMALL, times=9)
    manager.download_and_wait(url, into(target, retry_wait=0.2, total_timeout=60.0))
    assert sum(request.status == status for request in server.requests) == 9


def test_but_not_one_that_fails_or_is_behind_a_proxy_that_says_so(
    manager: DownloadManager, server: MisbehavingServer, target: Path
) -> None:
    for number, url, proxy in (
        (1, server.url("/status/x", code=500), ""),
        (2, "http://elsewhere.example/status/x?code=503", f"http://127.0.0.1:{server.port}"),
    ):
        server.clear()
        with pytest.raises(HttpStatusError):
            manager.download_and_wait(url, into(target, number, retry_wait=0.02, proxy=proxy))
        assert len(server.requests) == 5


def test_so_does_one_of_which_work_is_saved(
    manage: Make, server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "uniform", lambda _, most: most / 10)
    url = server.url("/script/x", size=SIZE, steps="|".join(["slow:rate=1M"] * 2 + ["status:code=503"] * 9))
    with manage() as manager:
        gid = manager.download(url, into(target, split=1))
        until(lambda: downloaded(manager, gid) > SIZE // 8)
    with manage() as manager:
        result = manager.download_and_wait(url, into(target, retry_wait=0.2, total_timeout=60.0))
    assert target.read_bytes() == content(SIZE)
    assert result.resumed > 0


def test_tries_that_the_user_has_counted_are_all_there_are(
    manager: DownloadManager, server: MisbehavingServer, target: Path
) -> None:
    manager.download_and_wait(server.url("/good/x", size=SMALL), into(target, 1))
    server.clear()
    with pytest.raises(HttpStatusError, match="503"):
        manager.download_and_wait(server.url("/status/x", code=503), into(target, 2, max_tries=2, retry_wait=0.1))
    assert len(server.requests) == 2


# ---- Connections ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 2])
def test_a_host_has_no_more_connections_than_the_user_says(
    manage: Make, counting: CountingServer, tmp_path: Path, most: int
) -> None:
    options = {"save_dir": tmp_path, "max_connection_per_server": most}
    with manage(max_concurrent_downloads=8) as manager:
        gids = [manager.download(counting.url(f"single{number}"), options) for number in range(12)]
        for gid in gids:
            assert manager.wait(gid, timeout=60).size == counting.size
    assert counting.most_connections <= most


@pytest.mark.parametrize("most", [1, 2, 4])
@pytest.mark.parametrize("size", [1000, 4 * MIB])
def test_both_backends_together_have_no_more(make: Make, tmp_path: Path, most: int, size: int) -> None:
    options = {"save_dir": tmp_path, "max_connection_per_server": most, "min_split_size": "1M"}
    with CountingServer(size=size, delay_s=0.02) as server, make("native") as native, make("aria2") as aria2:
        asked = [
            (manager, manager.download(server.url(f"{number}-{manager.backend}"), options))
            for number in range(6)
            for manager in (native, aria2)
        ]
        for manager, gid in asked:
            assert manager.wait(gid, timeout=60).size == size
        assert server.most_connections <= most


def test_hosts_that_are_silent_hold_up_no_other(manage: Make, server: MisbehavingServer, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent, manage(max_concurrent_downloads=2) as manager:
        port = silent.getsockname()[1]
        options = {"save_dir": tmp_path, "connect_timeout": 60.0, "read_timeout": 60.0}
        for number in range(2):
            manager.download(f"http://127.0.0.1:{port}/{number}", options)
        good = manager.download(server.url("/good/x", size=SMALL), options)
        assert manager.wait(good, timeout=30).size == SMALL
        manager.cancel_all()


@pytest.mark.parametrize("most", [1, 2, 16])
@pytest.mark.parametrize("status", [429, 503])
def test_what_is_of_other_hosts_has_the_places_of_those_that_wait_for_a_rest(
    manage: Make, counting: CountingServer, tmp_path: Path, most: int, status: int
) -> None:
    counting.refuse(status, 120)
    with CountingServer() as other, manage(max_concurrent_downloads=most) as manager:
        first = [manager.download(counting.url(f"r{n}"), {"save_dir": tmp_path}) for n in range(2 * most)]
        until(lambda: _rests(counting))
        gids = [manager.download(other.url(f"f{n}"), {"save_dir": tmp_path}) for n in range(2 * most)]
        for gid in gids:
            assert manager.wait(gid, timeout=60).size == other.size
        assert other.most_requests <= most
        assert counting.refused <= most
        assert {manager.get_download_progress(gid).status.value for gid in first} <= {"active", "waiting"}
        manager.cancel_all()
