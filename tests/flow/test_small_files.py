"""Downloads that are taken for small files: every option holds for them, and so does everything that can be asked of a
download."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rangefetch
from rangefetch import DownloadManager, DownloadOptions, DownloadStatus, aio
from rangefetch.errors import ConnectionFailed, FileTooLarge, HttpStatusError, TimedOut
from rangefetch.native.backend import NativeBackend
from rangefetch.native.run import Run
from rangefetch.transfer.capabilities import NATIVE
from rangefetch.transfer.download import Download
from servers.misbehaving import MisbehavingServer, content
from support.downloads import QUICK, SMALL, fails, fetch
from support.files import MIB, names
from support.waiting import until

URL = "http://127.0.0.1/file"


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The URLs of downloads that were not, or not only, taken for small files."""
    made: list[str] = []
    whole = Run.__init__

    def noted(run: Run, backend: NativeBackend, download: Download, *more: Any) -> None:
        made.append(download.url)
        whole(run, backend, download, *more)

    monkeypatch.setattr(Run, "__init__", noted)
    return made


# ---- Options -----------------------------------------------------------------------------------------------------

Check = Callable[[MisbehavingServer, Path, dict[str, Any]], None]


def _sent(name: str, value: str) -> Check:
    def check(server: MisbehavingServer, directory: Path, options: dict[str, Any]) -> None:
        fetch(server.url("/good/x", size=SMALL), directory / "file.bin", **options)
        assert [request.headers.get(name) for request in server.requests] == [value]

    return check


def _comes(server: MisbehavingServer, directory: Path, options: dict[str, Any]) -> None:
    result = fetch(server.url("/good/x", size=SMALL), directory / "file.bin", **options)
    assert result.path.read_bytes() == content(SMALL)
    assert len(server.requests) == 1


def _named(server: MisbehavingServer, directory: Path, options: dict[str, Any]) -> None:
    with DownloadManager() as manager:
        manager.download_and_wait(server.url("/good/x", size=SMALL), QUICK | {"save_dir": directory} | options)
    assert names(directory / "sub" if "save_dir" in options else directory) == [
        "named" if "filename" in options else "x"
    ]


def _replaces(server: MisbehavingServer, directory: Path, options: dict[str, Any]) -> None:
    (directory / "file.bin").write_bytes(b"old")
    _comes(server, directory, options)


def _renamed(server: MisbehavingServer, directory: Path, options: dict[str, Any]) -> None:
    (directory / "file.bin").write_bytes(b"mine")
    result = fetch(server.url("/good/x", size=SMALL), directory / "file.bin", **options)
    assert (directory / "file.bin").read_bytes() == b"mine"
    assert result.path != directory / "file.bin"
    assert result.path.read_bytes() == content(SMALL)


def _through_a_proxy(server: MisbehavingServer, directory: Path, options: dict[str, Any]) -> None:
    proxy = f"http://127.0.0.1:{server.port}"
    fetch(f"http://no-such-host.example/good/x?size={SMALL}", directory / "file.bin", proxy=proxy, **options)
    assert names(directory) == ["file.bin"]


def _not_through_a_proxy(server: MisbehavingServer, directory: Path, options: dict[str, Any]) -> None:
    _comes(server, directory, {"proxy": "http://127.0.0.1:1", "no_proxy": "127.0.0.1"} | options)


def _times_out(server: MisbehavingServer, directory: Path, options: dict[str, Any]) -> None:
    url = server.url("/stall/x", size=SMALL, headers=0, after=0)
    fails(TimedOut, url, directory / "file.bin", **{"max_tries": 1, "connect_timeout": 30.0, **options})
    assert names(directory) == []


def _is_too_large(server: MisbehavingServer, directory: Path, options: dict[str, Any]) -> None:
    fails(FileTooLarge, server.url("/good/x", size=SMALL), directory / "file.bin", **options)
    assert names(directory) == []


def _is_refused(server: MisbehavingServer, directory: Path, options: dict[str, Any]) -> None:
    fails(ConnectionFailed, server.url("/good/x", size=SMALL), directory / "file.bin", **options)
    assert server.requests == []


def _traced(server: MisbehavingServer, directory: Path, options: dict[str, Any]) -> None:
    trace = directory.with_name("trace")
    fetch(server.url("/good/x", size=SMALL), directory / "file.bin", trace=trace)
    [line] = [json.loads(line) for line in trace.read_text().splitlines()]
    assert (line["status"], line["bytes"], line["new_connections"]) == (206, SMALL, 1)


def _tried(server: MisbehavingServer, directory: Path, options: dict[str, Any]) -> None:
    fails(HttpStatusError, server.url("/status/x", code=500), directory / "file.bin", **options)
    assert len(server.requests) == options["max_tries"]


def _refreshed(server: MisbehavingServer, directory: Path, options: dict[str, Any]) -> None:
    url = server.url("/good/new", size=SMALL)
    fetch(server.url("/status/x", code=403), directory / "file.bin", refresh_url=lambda _: url)
    assert (directory / "file.bin").read_bytes() == content(SMALL)


def _with_netrc(server: MisbehavingServer, directory: Path, options: dict[str, Any]) -> None:
    netrc = directory.with_name("netrc")
    netrc.write_text("machine 127.0.0.1 login me password s3cret\n")
    netrc.chmod(0o600)
    _sent("authorization", "Basic bWU6czNjcmV0")(server, directory, {"netrc": netrc})


def _with_a_token(server: MisbehavingServer, directory: Path, options: dict[str, Any]) -> None:
    token = directory.with_name("token")
    token.write_text("s3cret\n")
    _sent("authorization", "Bearer s3cret")(server, directory, {"bearer_file": token})


def _with_cookies(server: MisbehavingServer, directory: Path, options: dict[str, Any]) -> None:
    cookies = directory.with_name("cookies")
    cookies.write_text("127.0.0.1\tFALSE\t/\tFALSE\t0\tname\tvalue\n")
    _sent("cookie", "name=value")(server, directory, {"cookies": cookies})


HONOURED: dict[str, tuple[dict[str, Any], Check]] = {
    "save_dir": ({"save_dir": "sub"}, _named),
    "filename": ({"filename": "named"}, _named),
    "overwrite": ({"overwrite": True}, _replaces),
    "auto_file_renaming": ({"auto_file_renaming": True}, _renamed),
    "wait_for_other": ({"wait_for_other": True}, _comes),
    "file_allocation": ({"file_allocation": "none"}, _comes),
    "decode_limit": ({"decode_limit": 1}, _comes),
    "github_mirrors": ({"github_mirrors": ["http://127.0.0.1:1/"]}, _comes),
    "refresh_url": ({}, _refreshed),
    "max_file_size": ({"max_file_size": 1}, _is_too_large),
    "split": ({"split": 1}, _comes),
    "min_split_size": ({"min_split_size": 1000}, _comes),
    "max_connection_per_server": ({"max_connection_per_server": 1}, _comes),
    "user_agent": ({"user_agent": "tests/1"}, _sent("user-agent", "tests/1")),
    "headers": ({"headers": {"X-Mine": "yes"}}, _sent("x-mine", "yes")),
    "proxy": ({}, _through_a_proxy),
    "no_proxy": ({}, _not_through_a_proxy),
    "bind_address": ({"bind_address": "127.0.0.1"}, _comes),
    "ip_version": ({"ip_version": "4"}, _comes),
    "cookies": ({}, _with_cookies),
    "netrc": ({}, _with_netrc),
    "auth": ({"auth": ("me", "s3cret")}, _comes),
    "bearer_file": ({}, _with_a_token),
    "location_trusted": ({"location_trusted": ["example.org"]}, _comes),
    "ca_file": ({"ca_file": __file__}, _comes),
    "proxy_ca_file": ({"proxy_ca_file": __file__}, _comes),
    "certificate": ({"certificate": __file__}, _comes),
    "private_key": ({"certificate": __file__, "private_key": __file__}, _comes),
    "verify_tls": ({"verify_tls": False}, _comes),
    "http_version": ({"http_version": "2"}, _comes),
    "allow_downgrade": ({"allow_downgrade": True}, _comes),
    "private_addresses": ({"private_addresses": "refuse"}, _is_refused),
    "trace": ({}, _traced),
    "connect_timeout": ({"connect_timeout": 0.1, "read_timeout": 0.3}, _times_out),
    "read_timeout": ({"read_timeout": 0.3}, _times_out),
    "total_timeout": ({"total_timeout": 0.3}, _times_out),
    "max_tries": ({"max_tries": 2}, _tried),
    "retry_wait": ({"retry_wait": 0.001, "max_tries": 3}, _tried),
}
NOT_SMALL: dict[str, Any] = {
    "durable": True,
    "decode": True,
    "mirrors": ["http://127.0.0.1/other"],
    "use_github_mirror": True,
    "checksum": "md5=" + 32 * "0",
    "expected_size": 1,
    "max_download_limit": 1,
}


def test_every_option_holds_for_small_files_or_speaks_against_one() -> None:
    fields = {field.name for field in dataclasses.fields(DownloadOptions)}
    assert HONOURED.keys() | NOT_SMALL.keys() == fields
    assert not HONOURED.keys() & NOT_SMALL.keys()
    assert NATIVE.takes_as_small(Download(URL, DownloadOptions()))


@pytest.mark.parametrize("option", NOT_SMALL)
def test_with_an_option_that_speaks_against_it_a_download_is_none(option: str) -> None:
    assert not NATIVE.takes_as_small(Download(URL, DownloadOptions(**{option: NOT_SMALL[option]})))


@pytest.mark.parametrize("option", HONOURED)
def test_every_other_option_holds(server: MisbehavingServer, target: Path, option: str) -> None:
    options, check = HONOURED[option]
    if "save_dir" in options:
        options = {"save_dir": target.parent / options["save_dir"]}
    assert NATIVE.takes_as_small(Download(URL, DownloadOptions(**options)))
    check(server, target.parent, options)


# ---- Results -----------------------------------------------------------------------------------------------------


def _by_fetch(url: str, directory: Path) -> rangefetch.DownloadResult:
    return fetch(url, f"{directory}/")


def _by_fetch_many(url: str, directory: Path) -> rangefetch.DownloadResult:
    return rangefetch.fetch_many([url], directory)[0]


def _by_a_manager(url: str, directory: Path) -> rangefetch.DownloadResult:
    with DownloadManager() as manager:
        return manager.download_and_wait(url, {"save_dir": directory})


def _by_asyncio(url: str, directory: Path) -> rangefetch.DownloadResult:
    import asyncio

    return asyncio.run(aio.fetch(url, f"{directory}/"))


@pytest.mark.parametrize("how", [_by_fetch, _by_fetch_many, _by_a_manager, _by_asyncio])
def test_whoever_asks_gets_the_same_result_for_one_request(
    server: MisbehavingServer, target: Path, how: Callable[[str, Path], rangefetch.DownloadResult], runs: list[str]
) -> None:
    url = server.url("/good/x", size=SMALL, delay=0.05)
    result = how(url, target.parent)
    assert result.path.read_bytes() == content(SMALL)
    assert (result.size, result.sources, result.identity, result.retries) == (SMALL, (url,), "one response", 0)
    assert 0.05 <= result.seconds < 20
    assert result.connections <= 1
    assert result.bound
    assert (len(server.requests), runs) == (1, [])


def test_what_is_not_small_is_requested_once_too(server: MisbehavingServer, target: Path, runs: list[str]) -> None:
    for path in ("disposition", "redirect"):
        server.clear()
        result = fetch(server.url(f"/{path}/x", size=SMALL), f"{target.parent}/{path}/")
        assert result.path.read_bytes() == content(SMALL)
        assert [request.status for request in server.requests].count(206) == 1
    server.clear()
    result = fetch(server.url("/good/large", size=9 * MIB), target)
    assert result.path.read_bytes() == content(9 * MIB)
    assert server.bytes_sent < 9.5 * MIB
    assert [request.range[0] for request in server.requests if request.range].count(0) == 1
    assert len(runs) == 3


# ---- What can be asked of a download -----------------------------------------------------------------------------


def _stalled(server: MisbehavingServer, number: int) -> str:
    return server.url(f"/script/{number}", size=SMALL, seed=number, steps="stall:after=100", then="good")


@pytest.mark.parametrize("all_of_them", [False, True], ids=["one by one", "all"])
def test_small_files_are_listed_paused_and_resumed(
    server: MisbehavingServer, target: Path, all_of_them: bool, runs: list[str]
) -> None:
    with DownloadManager(max_concurrent_downloads=2) as manager:
        options = QUICK | {"save_dir": target.parent}
        gids = [manager.download(_stalled(server, number), options) for number in range(4)]
        until(lambda: len(server.requests) == 2)
        assert [each.status for each in manager.list_downloads()] == ["active"] * 2 + ["waiting"] * 2
        assert all(each.waiting_for for each in manager.list_downloads())
        until(lambda: manager.get_download_progress(gids[0]).total == SMALL)
        if all_of_them:
            manager.pause_all()
        else:
            for gid in reversed(gids):
                manager.pause(gid)
        assert {each.status for each in manager.list_downloads()} == {DownloadStatus.PAUSED}
        assert runs == []
        assert names(target.parent) == []
        manager.resume_all()
        for number, gid in enumerate(gids):
            manager.wait(gid, 20)
            assert (target.parent / str(number)).read_bytes() == content(SMALL, number)


@pytest.mark.parametrize("all_of_them", [False, True], ids=["one by one", "all"])
def test_small_files_are_cancelled_and_leave_nothing(
    server: MisbehavingServer, target: Path, all_of_them: bool
) -> None:
    with DownloadManager(max_concurrent_downloads=2) as manager:
        gids = [manager.download(_stalled(server, n), QUICK | {"save_dir": target.parent}) for n in range(4)]
        until(lambda: len(server.requests) == 2)
        if all_of_them:
            manager.cancel_all(remove_files=True)
        else:
            for gid in reversed(gids):
                manager.cancel(gid)
        assert {each.status for each in manager.list_downloads()} == {DownloadStatus.REMOVED}
    assert len(server.requests) == 2
    assert names(target.parent) == []


def test_a_limit_for_all_holds_for_small_files(server: MisbehavingServer, target: Path) -> None:
    with DownloadManager(max_overall_download_limit=400_000) as manager:
        gids = [
            manager.download(server.url(f"/good/{n}", size=SMALL, seed=n), {"save_dir": target.parent})
            for n in range(5)
        ]
        seconds = max(manager.wait(gid, 30).seconds for gid in gids)
    assert seconds > 0.5


def test_a_manager_that_is_stopped_leaves_nothing_of_them(server: MisbehavingServer, target: Path) -> None:
    with DownloadManager() as manager:
        gids = [manager.download(_stalled(server, n), QUICK | {"save_dir": target.parent}) for n in range(4)]
        until(lambda: len(server.requests) == 4)
    assert {each.status for each in manager.list_downloads()} == {DownloadStatus.PAUSED}
    assert names(target.parent) == []
    with manager:
        manager.resume_all()
        for gid in gids:
            manager.wait(gid, 20)
