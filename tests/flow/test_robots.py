"""``robots``: an origin's robots.txt is fetched first, and obeyed (RFC 9309)."""

from __future__ import annotations

import errno
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rangefetch import DownloadManager, DownloadResult, fetch, fetch_iter, fetch_many, stream
from rangefetch.errors import ConnectionFailed, DiskError, HttpStatusError, LocalError, RobotsRefused
from servers.misbehaving import refused_port
from servers.robots import BODY, RobotsServer
from support.waiting import until

pytest.importorskip("protego", reason="the package protego, which reads robots.txt, is not installed")

RULES = """
User-agent: *
Disallow: /private/
Allow: /private/but-this
Disallow: /*.zip$

User-agent: greedy
Disallow: /
"""
QUICK: dict[str, Any] = {"robots": True, "retry_wait": 0.01, "max_tries": 2}


def fetched(url: str, place: Path) -> bytes:
    return fetch(url, place / "file", **QUICK).path.read_bytes()


def streamed(url: str, place: Path) -> bytes:
    with stream(url, **QUICK) as opened:
        return opened.read()


def by_a_manager(url: str, place: Path) -> bytes:
    with DownloadManager() as manager:
        return manager.wait(manager.download(url, QUICK | {"save_dir": place}), 30).path.read_bytes()


WAYS = [fetched, streamed, by_a_manager]


@pytest.mark.parametrize("way", WAYS)
def test_what_is_allowed_is_fetched_and_what_is_not_is_not_asked_for(
    tmp_path: Path, way: Callable[[str, Path], bytes]
) -> None:
    with RobotsServer(RULES) as server:
        for path in ("public", "private/but-this", "a.zip.txt"):
            assert way(server.url(path), tmp_path) == BODY
            for each in tmp_path.iterdir():
                each.unlink()
        for path in ("private/x", "a.zip"):
            with pytest.raises(RobotsRefused, match="does not allow it") as caught:
                way(server.url(path), tmp_path)
            assert caught.value.url == server.url(path)
        assert not {"/private/x", "/a.zip"} & set(server.paths)
        assert server.paths[0] == "/robots.txt"
        assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("way", WAYS)
def test_without_a_temporary_file_for_the_rules_every_download_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Callable[[str, Path], bytes]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with RobotsServer(RULES) as server:
        for path in ("a", "b"):
            with pytest.raises(DiskError, match="a temporary file could not be made: No such file") as caught:
                way(server.url(path), tmp_path)
            assert caught.value.url == server.url(path)
            assert caught.value.errno == errno.ENOENT
        urls = [server.url(str(number)) for number in range(20)]
        outcomes = fetch_many(urls, tmp_path, on_error="return", **QUICK)
        assert {type(each) for each in outcomes} == {DiskError}
        assert server.paths == []


def test_the_rules_of_an_origin_are_fetched_once(tmp_path: Path) -> None:
    with RobotsServer(RULES, delay_s=0.3) as server, RobotsServer() as other:
        urls = [server.url(f"private/{n}" if n % 2 else f"public/{n}") for n in range(100)] + [other.url("private/x")]
        outcomes = fetch_many(urls, tmp_path, on_error="return", **QUICK)
        for number, outcome in enumerate(outcomes[:100]):
            assert isinstance(outcome, RobotsRefused if number % 2 else DownloadResult)
        assert isinstance(outcomes[100], DownloadResult)
        assert server.paths.count("/robots.txt") == other.paths.count("/robots.txt") == 1
        assert len(server.paths) == 51


def test_rules_for_our_own_name_come_before_those_for_all(tmp_path: Path) -> None:
    with RobotsServer(RULES) as server:
        with pytest.raises(RobotsRefused):
            fetch(server.url("public"), tmp_path / "x", user_agent="greedy/1.0", **QUICK)
        assert {asked.headers["user-agent"] for asked in server.seen} == {"greedy/1.0"}


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_where_there_are_no_rules_everything_is_allowed(tmp_path: Path, status: int) -> None:
    with RobotsServer("User-agent: *\nDisallow: /", status=status) as server:
        assert fetched(server.url("x"), tmp_path) == BODY


def test_where_the_server_fails_nothing_is_allowed(tmp_path: Path) -> None:
    with RobotsServer(status=503) as server:
        with pytest.raises(
            HttpStatusError, match=r"robots\.txt could not be fetched, so nothing may be downloaded from there"
        ) as caught:
            fetched(server.url("x"), tmp_path)
        assert caught.value.status == 503
        assert set(server.paths) == {"/robots.txt"}
    with pytest.raises(ConnectionFailed, match=r"robots\.txt could not be fetched"):
        fetched(f"http://127.0.0.1:{refused_port()}/x", tmp_path)


@pytest.mark.parametrize("rules", ["Crawl-delay: 0.2", "Request-rate: 5/1"])
def test_the_rate_that_is_asked_for_is_kept(tmp_path: Path, rules: str) -> None:
    with RobotsServer(f"User-agent: *\n{rules}\n") as server:
        urls = [server.url(f"{number}") for number in range(6)]
        assert all(each.result for each in fetch_iter(urls, tmp_path, **QUICK))
        came_s = sorted(asked.at_s for asked in server.seen if asked.path != "/robots.txt")
        assert came_s[-1] - came_s[0] >= 5 * 0.2 - 0.1


def test_a_lower_rate_of_the_user_stays(tmp_path: Path) -> None:
    with RobotsServer("User-agent: *\nCrawl-delay: 0.01\n") as server:
        fetch_many([server.url(f"{number}") for number in range(4)], tmp_path, host_rate="5/s", **QUICK)
        came_s = sorted(asked.at_s for asked in server.seen)
        assert came_s[-1] - came_s[0] >= 3 * 0.2 - 0.1


def test_what_waits_for_the_rules_can_be_paused_and_cancelled(tmp_path: Path) -> None:
    with RobotsServer(delay_s=1.0) as server, DownloadManager() as manager:
        options = QUICK | {"save_dir": tmp_path}
        gids = [manager.download(server.url(f"{number}"), options) for number in range(3)]
        until(lambda: server.paths)
        manager.pause(gids[0])
        manager.cancel(gids[1])
        manager.resume(gids[0])
        for gid in (gids[0], gids[2]):
            assert manager.wait(gid, 20).size == len(BODY)
        assert sorted(server.paths) == ["/0", "/2", "/robots.txt"]
        assert {progress.gid for progress in manager.list_downloads()} == set(gids)


def test_a_manager_can_be_stopped_while_the_rules_are_fetched(tmp_path: Path) -> None:
    with RobotsServer(delay_s=3.0) as server:
        manager = DownloadManager()
        gid = manager.download(server.url("x"), QUICK | {"save_dir": tmp_path})
        until(lambda: server.paths)
        manager.stop()
        assert [progress.gid for progress in manager.list_downloads()] == [gid]
        manager.start()
        manager.resume(gid)
        assert manager.wait(gid, 20).size == len(BODY)
        manager.stop()


def test_a_session_file_has_no_download_of_rules(tmp_path: Path) -> None:
    with RobotsServer(delay_s=2.0) as server:
        with DownloadManager(session_file=tmp_path / "session") as manager:
            gid = manager.download(server.url("x"), QUICK | {"save_dir": tmp_path / "out"})
            until(lambda: server.paths)
        with DownloadManager(session_file=tmp_path / "session") as manager:
            assert [progress.gid for progress in manager.list_downloads()] == [gid]
            assert manager.wait(gid, 20).size == len(BODY)
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["x"]


def test_without_the_parser_it_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "protego", None)
    with RobotsServer(RULES) as server, pytest.raises(LocalError, match=r"rangefetch\[robots\]"):
        fetched(server.url("x"), tmp_path)
