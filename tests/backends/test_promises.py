"""The manager's promises to callers, with either backend: results, figures, digests, errors, retries."""

import asyncio
import hashlib
import logging
import os
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from backends.conftest import Make
from rangefetch import DownloadManager, DownloadResult, DownloadStatus, aio
from rangefetch.errors import (
    BadAnswer,
    ChecksumMismatch,
    ConnectionFailed,
    ContentChanged,
    DiskError,
    DownloadError,
    HttpStatusError,
    TargetExists,
    TargetLocked,
    TimedOut,
    TlsError,
)
from servers.directed import Valve
from servers.misbehaving import MisbehavingServer, content, refused_port
from servers.routing import ROUTES, Ask, Route
from servers.wire import Reply
from support.downloads import QUICK, SIZE, clear, consistent, downloaded, into, status_of
from support.files import MIB, begun, names
from support.waiting import until

ALGORITHMS = {"md5": "md5", "sha-1": "sha1", "sha-256": "sha256", "sha-384": "sha384", "sha-512": "sha512"}


def _digest(algorithm: str, octets: bytes) -> str:
    return f"{algorithm}={hashlib.new(ALGORITHMS[algorithm], octets).hexdigest()}"


def _fetch(manager: DownloadManager, url: str, target: Path, **options: Any) -> DownloadResult:
    return manager.download_and_wait(url, into(target, target.name, **options))


def _fails(
    manager: DownloadManager, kind: type[DownloadError], url: str, target: Path, **options: Any
) -> DownloadError:
    """Fetch, expect exactly this type of error with a one-line message that names the URL, and return the error."""
    with pytest.raises(DownloadError) as caught:
        _fetch(manager, url, target, **options)
    return clear(caught.value, kind, url)


# ---- Results -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["good", "no-ranges", "chunked", "redirect"])
@pytest.mark.parametrize("size", [0, 1, SIZE])
def test_the_bytes_are_right_and_nothing_else_is_left(
    manager: DownloadManager, server: MisbehavingServer, target: Path, route: str, size: int
) -> None:
    result = _fetch(manager, server.url(f"/{route}/x", size=size), target)
    assert (result.path, result.filename, result.size) == (target, "file.bin", size)
    assert target.read_bytes() == content(size)
    assert names(target.parent) == ["file.bin"]


def test_a_result_says_how_it_came(manager: DownloadManager, server: MisbehavingServer, target: Path) -> None:
    url = server.url("/good/x", size=SIZE)
    gid = manager.download(url, into(target, checksum=_digest("sha-256", content(SIZE))))
    result = manager.wait(gid)
    assert result.gid == gid
    assert result.checksum == _digest("sha-256", content(SIZE))
    assert (result.retries, result.resumed, result.already_complete) == (0, 0, False)
    assert result.sources == (url,)
    assert result.seconds > 0
    assert result.connections >= 1
    assert result.to_dict()["alreadyComplete"] is False


def test_the_server_names_what_the_user_does_not(
    manager: DownloadManager, server: MisbehavingServer, target: Path
) -> None:
    url = server.url("/good/from-the-url.bin", size=SIZE)
    assert manager.download_and_wait(url, QUICK | {"save_dir": target.parent}).filename == "from-the-url.bin"
    url = server.url("/good/x", size=SIZE, header='Content-Disposition: attachment; filename="../named by it.bin"')
    assert manager.download_and_wait(url, QUICK | {"save_dir": target.parent}).filename == "named by it.bin"


def test_what_is_there_already_is_fetched_once(
    manager: DownloadManager, server: MisbehavingServer, target: Path
) -> None:
    url = server.url("/good/x", size=SIZE)
    _fetch(manager, url, target)
    server.wait_idle()
    server.clear()
    again = _fetch(manager, url, target)
    assert (again.already_complete, again.size, again.path) == (True, SIZE, target)
    server.wait_idle()
    assert server.bytes_sent < 2 * MIB


# ---- Figures -----------------------------------------------------------------------------------------------------


def test_the_figures_of_a_download_fit_together(
    manager: DownloadManager, server: MisbehavingServer, valve: Valve, target: Path
) -> None:
    gid = manager.download(server.url("/valve/x", size=SIZE), into(target))
    until(lambda: manager.get_download_progress(gid).speed > 0 and downloaded(manager, gid) > MIB)
    seen = [manager.get_download_progress(gid) for _ in range(3)]
    assert all(consistent(each) for each in seen)
    active = seen[0]
    assert (active.gid, active.filename, active.status, active.total) == (gid, "file.bin", "active", SIZE)
    assert 0 < active.downloaded < SIZE
    assert active.connections >= 1
    assert active.eta is not None
    assert active.eta > 0
    assert manager.list_downloads("active")[0].gid == gid
    valve.open()
    manager.wait(gid, timeout=30)
    done = manager.get_download_progress(gid)
    assert (done.downloaded, done.total, done.percentage, done.eta, done.speed) == (SIZE, SIZE, 100.0, 0.0, 0.0)
    assert (done.status, done.connections) == (DownloadStatus.COMPLETE, 0)


def test_a_callback_is_told_on_the_way_and_at_the_end(
    manager: DownloadManager, server: MisbehavingServer, target: Path
) -> None:
    told: list[Any] = []
    url = server.url("/shared-rate/x", size=SIZE, rate="12M")
    manager.download_and_wait(url, into(target), lambda progress: told.append((progress, threading.current_thread())))
    assert {thread for _, thread in told} == {threading.current_thread()}
    amounts = [progress.downloaded for progress, _ in told]
    assert amounts == sorted(amounts)
    assert sum(0 < amount < SIZE for amount in amounts) > 0
    assert told[-1][0].percentage == 100.0


def test_the_list_is_in_the_order_of_asking(
    manage: Make, server: MisbehavingServer, valve: Valve, target: Path
) -> None:
    with manage(max_concurrent_downloads=2) as manager:
        gids = [manager.download(server.url("/valve/x", size=SIZE, id=str(n)), into(target, n)) for n in range(4)]
        until(lambda: all(downloaded(manager, gid) for gid in gids[:2]))
        assert [each.gid for each in manager.list_downloads()] == gids
        assert [each.gid for each in manager.list_downloads("waiting")] == gids[2:]
        manager.cancel(gids[0])
        until(lambda: status_of(manager, gids[2]) is DownloadStatus.ACTIVE)
        assert [each.gid for each in manager.list_downloads(DownloadStatus.REMOVED)] == gids[:1]
        manager.cancel_all(remove_files=True)


# ---- Digests -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_right_digest_proves_the_file(
    manager: DownloadManager, server: MisbehavingServer, target: Path, algorithm: str
) -> None:
    wanted = _digest(algorithm, content(SIZE))
    assert _fetch(manager, server.url("/good/x", size=SIZE), target, checksum=wanted).checksum == wanted


def test_wrong_bytes_are_never_named(manager: DownloadManager, server: MisbehavingServer, target: Path) -> None:
    wanted, found = (_digest("sha-256", content(SIZE, seed)) for seed in (1, 0))
    error = _fails(manager, ChecksumMismatch, server.url("/good/x", size=SIZE), target, checksum=wanted)
    assert isinstance(error, ChecksumMismatch)
    assert (error.expected, error.actual) == (wanted, found)
    assert names(target.parent) == ["file.bin.bad"]


def test_a_file_with_the_right_digest_needs_no_request(
    manager: DownloadManager, server: MisbehavingServer, target: Path
) -> None:
    target.write_bytes(content(SIZE))
    result = _fetch(manager, server.url("/good/x", size=SIZE), target, checksum=_digest("sha-256", content(SIZE)))
    assert result.already_complete
    assert server.requests == []


def test_a_file_of_another_size_than_expected_is_refused(
    manager: DownloadManager, server: MisbehavingServer, target: Path
) -> None:
    _fails(manager, ContentChanged, server.url("/good/x", size=SIZE), target, expected_size=SIZE + 1)
    assert names(target.parent) == []


# ---- Errors and retries ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410])
def test_a_refusal_is_an_error_at_once(
    manager: DownloadManager, backend: str, server: MisbehavingServer, target: Path, code: int
) -> None:
    assert _fails(manager, HttpStatusError, server.url("/status/x", code=code), target).status == code
    # The range may be the reason for the refusal, so there is one more request without a range.
    ranges = ["range" in request.headers for request in server.requests]
    assert ranges == ([True, False] if code in (400, 403, 404) else [True])
    assert names(target.parent) == []


@pytest.mark.parametrize("code", [408, 429, 500, 503])
def test_what_passes_is_tried_again(
    manager: DownloadManager, server: MisbehavingServer, target: Path, code: int
) -> None:
    result = _fetch(manager, server.url("/status/x", code=code, times=2, size=SIZE), target)
    assert target.read_bytes() == content(SIZE)
    assert result.retries == 2


def test_what_does_not_pass_is_given_up_and_tells_what_was_tried(
    manager: DownloadManager, server: MisbehavingServer, target: Path
) -> None:
    error = _fails(manager, HttpStatusError, server.url("/status/x", code=503), target, max_tries=3)
    assert error.status == 503
    assert len(error.tried) == 3
    assert len(server.requests) == 3


def test_nobody_is_there(manager: DownloadManager, target: Path) -> None:
    error = _fails(manager, ConnectionFailed, f"http://127.0.0.1:{refused_port()}/x", target, max_tries=2)
    assert isinstance(error, ConnectionError)


def test_a_certificate_that_nobody_trusts(
    manager: DownloadManager, tls_server: MisbehavingServer, target: Path
) -> None:
    _fails(manager, TlsError, tls_server.url("/good/x"), target)


def test_time_is_up_and_what_came_is_kept(manager: DownloadManager, server: MisbehavingServer, target: Path) -> None:
    url = server.url("/slow/x", size=SIZE, rate="1M")
    error = _fails(manager, TimedOut, url, target, total_timeout=1.5)
    assert isinstance(error, TimeoutError)
    assert names(target.parent) == begun(target)


@pytest.mark.parametrize("option", [{}, {"checksum": "md5=" + "0" * 32}])
def test_another_file_is_left_alone(
    manager: DownloadManager, server: MisbehavingServer, target: Path, option: dict[str, str]
) -> None:
    target.write_bytes(b"precious")
    error = _fails(manager, TargetExists, server.url("/good/x", size=SIZE), target, **option)
    assert isinstance(error, FileExistsError)
    assert target.read_bytes() == b"precious"
    assert names(target.parent) == ["file.bin"]
    _fetch(manager, server.url("/good/x", size=SIZE), target, overwrite=True)
    assert target.read_bytes() == content(SIZE)


def test_two_downloads_of_one_target(
    manager: DownloadManager, server: MisbehavingServer, valve: Valve, target: Path
) -> None:
    first = manager.download(server.url("/valve/x", size=SIZE), into(target))
    until(lambda: downloaded(manager, first) > 0)
    _fails(manager, TargetLocked, server.url("/good/x", size=SIZE), target)
    valve.open()
    assert manager.wait(first, timeout=30).path.read_bytes() == content(SIZE)


def test_a_directory_that_cannot_be_made(manager: DownloadManager, server: MisbehavingServer, target: Path) -> None:
    target.touch()
    with pytest.raises(DiskError) as caught:
        _fetch(manager, server.url("/good/x"), target, save_dir=target / "nowhere")
    assert caught.value.errno
    gid = manager.list_downloads("error")[0].gid
    manager.cancel(gid, remove_files=True)
    assert status_of(manager, gid) is DownloadStatus.REMOVED


@pytest.mark.parametrize("code", [300, 301, 302, 303, 307, 308])
def test_a_redirect_is_followed_whatever_its_status(
    manager: DownloadManager, server: MisbehavingServer, target: Path, code: int
) -> None:
    manager.download_and_wait(server.url("/redirect/x", size=SIZE, code=code), into(target))
    assert target.read_bytes() == content(SIZE)


def test_a_redirect_to_a_local_file_is_refused(
    manager: DownloadManager, server: MisbehavingServer, target: Path
) -> None:
    _fails(manager, BadAnswer, server.url("/redirect-to-file-scheme/x"), target)


@pytest.mark.parametrize("route", ["cut", "reset"])
def test_a_connection_that_breaks_is_gone_on_with(
    manager: DownloadManager, server: MisbehavingServer, target: Path, route: str
) -> None:
    _fetch(manager, server.url(f"/{route}/x", size=SIZE, after=2 * MIB, times=2), target)
    assert target.read_bytes() == content(SIZE)


def test_a_file_that_changes_on_the_way_is_never_mixed(
    manager: DownloadManager, server: MisbehavingServer, target: Path
) -> None:
    gid = manager.download(server.url("/script/x", size=SIZE, then="slow:rate=2M"), into(target))
    until(lambda: downloaded(manager, gid) > MIB)
    manager.pause(gid)
    # From here on the server has another file.
    server._reply, reply = (lambda request: reply(_with_seed(request))), server._reply  # type: ignore[method-assign]  # replaced on one server
    manager.resume(gid)
    assert manager.wait(gid, timeout=30).path.read_bytes() == content(SIZE, 1)


def _with_seed(request: Any) -> Any:
    request.path = request.path.replace("then=slow%3Arate%3D2M", "then=good").replace("size=", "seed=1&size=")
    return request


# ---- Options on the wire -----------------------------------------------------------------------------------------


def test_headers_travel_and_stay_at_home(
    manager: DownloadManager, server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    headers = {"X-Token": "secret", "Accept-Language": "de"}
    url = server.url("/redirect/x", size=SIZE, to=other_server.url("/good/x", size=SIZE))
    _fetch(manager, url, target, headers=headers, user_agent="of-the-user/1")
    assert {request.headers["x-token"] for request in server.requests} == {"secret"}
    assert {request.headers["user-agent"] for request in [*server.requests, *other_server.requests]} == {
        "of-the-user/1"
    }
    assert other_server.requests
    assert all("x-token" not in request.headers for request in other_server.requests)


def test_mirrors_step_in(
    manager: DownloadManager, server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    mirror = other_server.url("/good/x", size=SIZE)
    _fetch(manager, server.url("/status/x", code=404), target, mirrors=[mirror])
    assert target.read_bytes() == content(SIZE)


def test_no_secret_is_logged(
    manager: DownloadManager, server: MisbehavingServer, target: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = server.url("/status/x", code=404).replace("//", "//user:hush-hush@", 1)
    with caplog.at_level(logging.DEBUG, "rangefetch"), pytest.raises(HttpStatusError) as caught:
        _fetch(manager, url, target, headers={"X-Token": "hush-hush"})
    assert "hush-hush" not in caplog.text + str(caught.value)


def test_no_secret_is_in_what_lies_beside_the_file_nor_in_the_list_of_processes(
    manager: DownloadManager, server: MisbehavingServer, valve: Valve, target: Path
) -> None:
    """While the download runs, when it is paused and when it is done. The session file is an exception, and says so."""
    secrets = [b"passw0rd", b"t0ken", b"c00kie"]
    url = server.url("/valve/x", size=SIZE).replace("//", "//somebody:passw0rd@", 1)
    options = into(target, headers={"X-Token": "t0ken", "Cookie": "a=c00kie"})
    gid = manager.download(url, options)

    def told() -> dict[str, bytes]:
        processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
        found = {f"process {each.pid}": repr((each.cmdline(), each.environ())).encode() for each in processes}
        for path in (*target.parent.iterdir(), target.parent):
            if path.suffix == ".json":
                found[path.name] = path.read_bytes()
            for name in os.listxattr(path):
                found[f"{path.name} {name}"] = os.getxattr(path, name)
        return {what: octets for what, octets in found.items() if any(secret in octets for secret in secrets)}

    until(lambda: downloaded(manager, gid) > MIB)
    assert told() == {}
    manager.pause(gid)
    assert names(target.parent) == begun(target)
    assert told() == {}
    valve.open()
    manager.resume(gid)
    manager.wait(gid, 30)
    assert told() == {}
    assert {request.headers["x-token"] for request in server.requests} == {"t0ken"}


# ---- Life --------------------------------------------------------------------------------------------------------


def test_stopping_pauses_and_starting_goes_on(
    manage: Make, server: MisbehavingServer, valve: Valve, target: Path
) -> None:
    manager = manage()
    gid = manager.download(server.url("/valve/x", size=SIZE), into(target))
    until(lambda: downloaded(manager, gid) > 2 * MIB)
    manager.stop()
    manager.stop()
    is_started = manager.is_started
    assert not is_started
    assert status_of(manager, gid) is DownloadStatus.PAUSED
    assert names(target.parent) == begun(target)
    valve.open()
    manager.resume(gid)
    assert manager.is_started
    assert manager.wait(gid, timeout=30).resumed > MIB
    assert target.read_bytes() == content(SIZE)


def test_the_same_verbs_awaited(manage: Make, server: MisbehavingServer, valve: Valve, target: Path) -> None:
    async def main() -> DownloadResult:
        async with aio.DownloadManager.of(manage()) as manager:
            gid = await manager.download(server.url("/valve/x", size=SIZE), into(target))
            while (await manager.get_download_progress(gid)).downloaded < 2 * MIB:
                await asyncio.sleep(0.01)
            await manager.pause(gid)
            assert [each.gid for each in await manager.list_downloads("paused")] == [gid]
            valve.open()
            await manager.resume(gid)
            return await manager.wait(gid, timeout=30)

    assert asyncio.run(main()).resumed > MIB
    assert target.read_bytes() == content(SIZE)


def test_everything_is_let_go_of(no_leaks: None, manage: Make, server: MisbehavingServer, target: Path) -> None:
    manager = manage()
    _fetch(manager, server.url("/good/x", size=SIZE), target)
    manager.stop()


class _Replaced:
    """Serves the file until ``armed``, then something of another size, without validators and without ranges."""

    def __init__(self, valve: Valve) -> None:
        self.armed = False
        self._valve = valve

    def __call__(self, ask: Ask, reply: Reply, *, by: int = 0, announced: bool = True) -> Reply:
        if not self.armed:
            return self._valve(ask, reply)
        reply = ask.good(size=by, ranges=False)
        if not announced:
            reply = ROUTES["chunked"].fault(ask, reply)
        for name in ("ETag", "Last-Modified"):
            reply.headers.pop(name, None)
        return reply


@pytest.mark.parametrize("split", [1, 8])
@pytest.mark.parametrize("announced", [1, 0])
@pytest.mark.parametrize("by", [3_500, SIZE - MIB, SIZE + MIB])
def test_a_page_in_place_of_the_file_costs_no_work(
    manager: DownloadManager,
    server: MisbehavingServer,
    valve: Valve,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
    split: int,
    by: int,
    announced: int,
) -> None:
    replaced = _Replaced(valve)
    monkeypatch.setitem(ROUTES, "replaced", Route("replaced", replaced, {}))
    url = server.url("/replaced/x", size=SIZE, by=by, announced=announced)
    options = into(target, target.name, split=split, min_split_size="1M", max_tries=2, retry_wait=0.05)
    gid = manager.download(url, options)
    until(lambda: downloaded(manager, gid) > 2 * MIB)
    manager.pause(gid)
    until(lambda: status_of(manager, gid) is DownloadStatus.PAUSED)
    replaced.armed = True
    manager.resume(gid)
    with pytest.raises(BadAnswer, match="without a validator"):
        manager.wait(gid)
    replaced.armed = False
    valve.open()
    manager.retry(gid)
    assert manager.wait(gid).resumed > MIB
    assert target.read_bytes() == content(SIZE)
