"""The daemon starts, answers, is restarted after a crash, ends with all its children, and touches nothing else."""

import contextlib
import errno
import gc
import json
import logging
import os
import platform
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import psutil
import pytest

from aria2.conftest import Configure
from aria2.driving import Desk, command_lines, downloaded, is_running, program
from rangefetch.aria2.backend import Aria2Backend
from rangefetch.aria2.client import Aria2Client, RpcError
from rangefetch.aria2.daemon import Aria2Daemon
from rangefetch.aria2.monitor import restart_wait_s
from rangefetch.disk.control_file import ControlFile
from rangefetch.errors import DaemonUnavailable, DiskError, ProcessManagementError, ProcessStartFailed
from rangefetch.progress import DownloadStatus
from servers.misbehaving import MisbehavingServer, content
from support.files import MIB, names
from support.waiting import AT_ONCE, until

SIZE = 24 * MIB + 7


@pytest.fixture
def daemon(configure: Configure) -> Iterator[Aria2Daemon]:
    with Aria2Daemon(configure()) as running:
        yield running


@pytest.fixture
def foreign(aria2c: Path, configure: Configure, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Somebody else's aria2c, on the port that our config asks for."""
    port = configure().rpc_port
    arguments = ["--no-conf", "--enable-rpc", f"--rpc-listen-port={port}", f"--dir={tmp_path}", "--quiet"]
    with subprocess.Popen([aria2c, *arguments]) as process:
        until(lambda: _answers(port))
        yield process
        process.kill()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


# -- start and stop -------------------------------------------------------------------------------------------------


def test_it_starts_answers_and_stops(configure: Configure) -> None:
    daemon = Aria2Daemon(configure())
    assert not daemon.is_healthy()
    with daemon:
        assert daemon.is_started
        assert daemon.is_healthy()
        assert daemon.binary is not None
        assert daemon.client.call("getVersion")["version"] == daemon.binary.version
        pid = daemon.pid
    assert not daemon.is_healthy()
    assert not is_running(pid)
    assert daemon.pid == 0


def test_starting_and_stopping_twice_is_fine_and_it_can_start_again(configure: Configure) -> None:
    daemon = Aria2Daemon(configure())
    daemon.start()
    pid = daemon.pid
    daemon.start()
    assert daemon.pid == pid
    daemon.stop()
    daemon.stop()
    daemon.start()
    assert daemon.is_healthy()
    daemon.stop()


def test_an_idle_one_stops_within_a_moment(configure: Configure) -> None:
    daemon = Aria2Daemon(configure())
    daemon.start()
    before = time.monotonic()
    daemon.stop()
    assert time.monotonic() - before < AT_ONCE


def test_one_that_ignores_signals_is_killed(configure: Configure) -> None:
    daemon = Aria2Daemon(configure(stop_timeout=0.3))
    daemon.start()
    pid = daemon.pid
    os.kill(pid, signal.SIGSTOP)
    daemon.client._rpc.timeout = 0.2  # the stopped process does not answer
    daemon.stop()
    assert not is_running(pid)


def test_what_it_has_started_ends_with_it(configure: Configure, server: MisbehavingServer, tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.write_text("#!/bin/sh\necho $$ > " + str(tmp_path / "hook.pid") + "\nexec sleep 1000\n")
    hook.chmod(0o755)
    daemon = Aria2Daemon(configure(extra_options={"on-download-complete": str(hook)}))
    daemon.start()
    daemon.client.call("addUri", [server.url("/good/x")], {})
    until(lambda: (tmp_path / "hook.pid").exists() and (tmp_path / "hook.pid").read_text().strip())
    child = int((tmp_path / "hook.pid").read_text())
    assert is_running(child)
    daemon.stop()
    assert not is_running(child)


def test_dropping_it_ends_it(configure: Configure) -> None:
    daemon = Aria2Daemon(configure())
    daemon.start()
    pid = daemon.pid
    del daemon
    gc.collect()
    until(lambda: not is_running(pid))


def test_the_end_of_the_interpreter_ends_it_without_a_word(configure: Configure, tmp_path: Path) -> None:
    with program("start_and_exit", tmp_path, configure().rpc_port) as process:
        out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert not is_running(int(out))
    assert names(tmp_path / "state") == []


def test_a_forked_child_leaves_it_alone(configure: Configure, tmp_path: Path) -> None:
    with program("fork_and_stop", tmp_path, configure().rpc_port) as process:
        out, err = process.communicate(timeout=30)
    assert (process.returncode, err, out.strip()) == (0, "", "healthy")


# -- the port, the secret, the files --------------------------------------------------------------------------------


def test_only_the_loopback_device_is_listened_on(daemon: Aria2Daemon) -> None:
    connections = psutil.Process(daemon.pid).net_connections("inet")
    addresses = {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN}
    assert addresses
    assert addresses <= {"127.0.0.1", "::1"}


def test_a_secret_is_needed_and_is_on_no_command_line(configure: Configure, tmp_path: Path) -> None:
    with Aria2Daemon(configure(rpc_secret="hush-hush-hush")) as daemon:
        assert "hush-hush-hush" not in command_lines()
        assert str(tmp_path / "state") in command_lines()
        with pytest.raises(RpcError, match="Unauthorized"):
            Aria2Client(daemon.port, "guess").call("getVersion")


def test_the_random_secret_is_on_no_command_line_and_differs_each_time(configure: Configure) -> None:
    secrets = set()
    for _ in range(2):
        with Aria2Daemon(configure()) as daemon:
            secrets.add(daemon.client.secret)
            assert daemon.client.secret not in command_lines()
    assert len(secrets) == 2
    assert min(map(len, secrets)) >= 32


def test_all_its_files_are_private(daemon: Aria2Daemon, server: MisbehavingServer, tmp_path: Path) -> None:
    daemon.client.call("addUri", [server.url("/slow/x", rate="1K")], {"header": ["X-Token: secret"]})
    daemon.client.call("saveSession")
    (directory,) = (tmp_path / "state").iterdir()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert names(directory) == ["aria2.conf", "aria2.session", "owner.json"]
    for file in directory.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_where_the_port_is_taken_the_next_free_one_is_used(
    configure: Configure, family: socket.AddressFamily, caplog: pytest.LogCaptureFixture
) -> None:
    config = configure()
    try:
        taken = socket.create_server(
            ("::1" if family is socket.AF_INET6 else "127.0.0.1", config.rpc_port), family=family
        )
    except OSError:
        pytest.skip("there is no IPv6 here")
    with taken, caplog.at_level(logging.INFO, "rangefetch"), Aria2Daemon(config) as daemon:
        assert daemon.port == config.rpc_port + 1
        assert daemon.is_healthy()
    assert f"port {config.rpc_port} is taken" in caplog.text


def test_a_port_that_is_taken_between_the_look_and_the_start(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure()
    looks = []

    def look(first: int) -> int:
        looks.append(first)
        return first

    monkeypatch.setattr("rangefetch.aria2.daemon._free_port", look)
    monkeypatch.setattr("secrets.randbelow", lambda _: 0)
    with socket.create_server(("127.0.0.1", config.rpc_port)), Aria2Daemon(config) as daemon:
        assert daemon.port == config.rpc_port + 1
    assert looks == [config.rpc_port, config.rpc_port + 1]


def test_a_port_that_was_taken_when_aria2c_started_and_is_free_again(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure()
    monkeypatch.setattr("rangefetch.aria2.daemon._is_free", lambda _: True)
    with socket.create_server(("127.0.0.1", config.rpc_port)), Aria2Daemon(config) as daemon:
        assert daemon.port > config.rpc_port


def test_many_that_start_at_once_find_a_port_each(configure: Configure) -> None:
    daemons = [Aria2Daemon(configure()) for _ in range(8)]
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(len(daemons)) as threads:
        for daemon in daemons:
            stack.callback(daemon.stop)
        list(threads.map(Aria2Daemon.start, daemons))
        assert len({daemon.port for daemon in daemons}) == len(daemons)
        assert all(daemon.is_healthy() for daemon in daemons)


def test_two_live_side_by_side(configure: Configure) -> None:
    with Aria2Daemon(configure()) as first, Aria2Daemon(configure()) as second:
        assert first.port != second.port
        assert first.is_healthy()
        assert second.is_healthy()


def test_one_that_does_not_start_says_why(configure: Configure) -> None:
    with pytest.raises(ProcessManagementError) as caught:
        Aria2Daemon(configure(extra_options={"split": "not-a-number"}, rpc_secret="not-to-be-told")).start()
    assert "not-a-number" in str(caught.value)
    assert "not-to-be-told" not in str(caught.value)


def test_one_that_does_not_answer_in_time_is_ended(configure: Configure, tmp_path: Path) -> None:
    silent = _pretender(tmp_path, "sleep 1000")
    with pytest.raises(DaemonUnavailable, match="did not answer within"):
        Aria2Daemon(configure(aria2_path=silent, start_timeout=0.3)).start()
    assert str(silent) not in command_lines()
    assert names(tmp_path / "state") == []


def test_a_binary_that_cannot_be_run_is_told_from_one_that_exits(configure: Configure, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/nowhere/at/all\n")
    broken.chmod(0o755)
    with pytest.raises(ProcessStartFailed, match="does not run"):
        Aria2Daemon(configure(aria2_path=broken)).start()
    exits = _pretender(tmp_path, "echo 'nothing works today'; exit 7")
    with pytest.raises(ProcessManagementError, match=r"exit status 7\): nothing works today"):
        Aria2Daemon(configure(aria2_path=exits)).start()
    assert names(tmp_path / "state") == []


def test_the_directory_for_downloads_is_made_at_the_start(configure: Configure, tmp_path: Path) -> None:
    directory = tmp_path / "not" / "there yet"
    with Aria2Daemon(configure(download_dir=directory)):
        assert directory.is_dir()


def test_one_that_cannot_be_made_is_named(configure: Configure, tmp_path: Path) -> None:
    config = configure(download_dir=tmp_path / "not" / "there yet")
    (tmp_path / "not").write_bytes(b"")  # a file, created after the config was checked
    with pytest.raises(DiskError, match=r"download_dir: .*there yet") as caught:
        Aria2Daemon(config).start()
    assert caught.value.errno == errno.ENOTDIR


def test_what_is_started_is_logged(configure: Configure, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = configure(rpc_secret="not-to-be-told")
    with caplog.at_level(logging.DEBUG, "rangefetch"), Aria2Daemon(config) as daemon:
        assert daemon.binary is not None
        (line,) = [record.getMessage() for record in caplog.records if "started" in record.getMessage()]
    directory = next(Path(word.rstrip(",;")) for word in line.split() if "daemon-" in word)
    told = (daemon.binary.path, daemon.binary.version, f"port {config.rpc_port}", directory, config.download_dir)
    for each in told:
        assert str(each) in line
    assert "not-to-be-told" not in caplog.text


def _pretender(directory: Path, action: str) -> Path:
    """A program that claims to be aria2c when asked for its version, and otherwise does ``action``."""
    path = directory / "pretender"
    version = "aria2 version 1.37.0\\nEnabled Features: HTTPS\\n"
    path.write_text(f'#!/bin/sh\ncase "$*" in *--version*) printf "{version}"; exit 0;; esac\n{action}\n')
    path.chmod(0o755)
    return path


# -- when it dies ---------------------------------------------------------------------------------------------------


def test_the_waits_between_restarts_double_up_to_a_minute() -> None:
    assert [restart_wait_s(n, 1.0) for n in range(1, 10)] == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_one_that_is_killed_comes_back(daemon: Aria2Daemon) -> None:
    pid = daemon.pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: daemon.restarts == 1)
    assert daemon.pid not in (0, pid)
    assert daemon.is_healthy()


def test_one_that_hangs_is_replaced(configure: Configure) -> None:
    with Aria2Daemon(configure(health_check_interval=0.1)) as daemon:
        daemon.client._rpc.timeout = 0.2
        pid = daemon.pid
        os.kill(pid, signal.SIGSTOP)
        until(lambda: daemon.restarts == 1)
        assert not is_running(pid)


def test_its_session_comes_back_with_it(daemon: Aria2Daemon, server: MisbehavingServer, tmp_path: Path) -> None:
    gid = daemon.client.call("addUri", [server.url("/slow/x", rate="10K")], {"out": "slow.bin"})
    daemon.client.call("saveSession")
    os.kill(daemon.pid, signal.SIGKILL)
    until(lambda: daemon.restarts == 1)
    assert daemon.client.call("tellStatus", gid)["status"] in ("active", "waiting")


def test_a_session_file_survives_the_daemon(configure: Configure, server: MisbehavingServer, tmp_path: Path) -> None:
    config = configure(session_file=tmp_path / "mine.session")
    with Aria2Daemon(config) as daemon:
        gid = daemon.client.call("addUri", [server.url("/slow/x", rate="10K")], {"out": "slow.bin", "pause": "true"})
    with Aria2Daemon(config) as daemon:
        assert daemon.client.call("tellStatus", gid)["status"] == "paused"


def _was_restarted(daemon: Aria2Daemon, times: int) -> bool:
    return daemon.restarts == times


def test_after_the_limit_it_is_given_up(configure: Configure) -> None:
    deaths: list[DaemonUnavailable] = []
    config = configure(max_restart_attempts=2, health_check_interval=30, restart_wait=0.01)
    with Aria2Daemon(config, on_death=deaths.append) as daemon:
        for restarts in (1, 2):
            os.kill(daemon.pid, signal.SIGKILL)
            until(partial(_was_restarted, daemon, restarts))
        os.kill(daemon.pid, signal.SIGKILL)
        until(lambda: deaths)
        assert "2 times without success" in str(deaths[0])
        assert daemon.error is deaths[0]
        time.sleep(0.2)
        assert not daemon.is_alive()
        assert daemon.restarts == 2


def test_a_good_check_makes_the_count_begin_anew(configure: Configure) -> None:
    with Aria2Daemon(configure(max_restart_attempts=1, health_check_interval=0.05)) as daemon:
        for restarts in (1, 2, 3):
            os.kill(daemon.pid, signal.SIGKILL)
            until(partial(_was_restarted, daemon, restarts))
            time.sleep(0.3)
        assert daemon.error is None


def test_stopping_while_it_is_about_to_be_started_again(configure: Configure) -> None:
    daemon = Aria2Daemon(configure(restart_wait=30))
    daemon.start()
    os.kill(daemon.pid, signal.SIGKILL)
    until(lambda: not daemon.is_alive())
    before = time.monotonic()
    daemon.stop()
    assert time.monotonic() - before < AT_ONCE


def _noted_bytes(target: Path) -> int:
    """The number of bytes present, according to aria2's control file."""
    with contextlib.suppress(FileNotFoundError):
        return ControlFile.parse(target.with_name(f"{target.name}.part.aria2").read_bytes()).written_bytes
    return 0


# -- downloads of a daemon that dies --------------------------------------------------------------------------------


def test_downloads_come_back_with_it(own_desk: Desk, server: MisbehavingServer, target: Path) -> None:
    begun = [
        own_desk.begin(server.url("/shared-rate/x", size=SIZE, rate="24M", id=str(n)), target.with_name(f"{n}"))
        for n in range(3)
    ]
    until(lambda: all(downloaded(download) > 4 * MIB for download in begun))
    assert isinstance(own_desk.backend, Aria2Backend)
    (daemon,) = own_desk.backend._daemons.values()
    os.kill(daemon.pid, signal.SIGKILL)
    # Another one, started after the crash, which cannot be in aria2's session file.
    begun.append(own_desk.begin(server.url("/good/x", size=SIZE, id="late"), target.with_name("late")))
    for download in begun:
        assert own_desk.wait(download).path.read_bytes() == content(SIZE)
    assert daemon.restarts == 1
    assert names(target.parent) == ["0", "1", "2", "late"]


def test_what_was_over_before_it_died_does_not_come_back(
    own_desk: Desk, server: MisbehavingServer, target: Path
) -> None:
    done = own_desk.begin(server.url("/shared-rate/x", size=SIZE, rate="24M"), target)
    until(lambda: downloaded(done) > 4 * MIB)
    assert isinstance(own_desk.backend, Aria2Backend)
    (daemon,) = own_desk.backend._daemons.values()
    daemon.client.call("saveSession")
    own_desk.halt(done, remove_files=True)
    os.kill(daemon.pid, signal.SIGKILL)
    until(lambda: daemon.restarts == 1)
    own_desk.fetch(server.url("/good/x"), target.with_name("other"))
    assert names(target.parent) == ["other"]


def test_one_that_dies_for_good_fails_its_downloads_and_keeps_their_files(
    configure: Configure, server: MisbehavingServer, target: Path
) -> None:
    desk = Desk()
    backend = desk.backend = Aria2Backend(desk, configure(max_restart_attempts=0))
    backend.start()
    download = desk.begin(server.url("/shared-rate/x", size=SIZE, rate="8M"), target)
    until(lambda: _noted_bytes(target) > 0)
    (daemon,) = backend._daemons.values()
    os.kill(daemon.pid, signal.SIGKILL)
    with pytest.raises(DaemonUnavailable) as caught:
        desk.wait(download)
    assert caught.value.url == download.url
    assert names(target.parent) == ["file.bin.part", "file.bin.part.json"]
    with pytest.raises(DaemonUnavailable):
        desk.fetch(server.url("/good/x"), target.with_name("later"))
    assert download.status is DownloadStatus.ERROR
    backend.stop()


def test_halting_while_it_is_gone(configure: Configure, server: MisbehavingServer, target: Path) -> None:
    desk = Desk()
    backend = desk.backend = Aria2Backend(desk, configure(restart_wait=0.5))
    backend.start()
    download = desk.begin(server.url("/shared-rate/x", size=SIZE, rate="24M"), target)
    until(lambda: downloaded(download) > 4 * MIB)
    (daemon,) = backend._daemons.values()
    os.kill(daemon.pid, signal.SIGKILL)
    until(lambda: not daemon.is_alive())
    desk.halt(download)
    assert download.status is DownloadStatus.PAUSED
    until(lambda: daemon.restarts == 1)
    assert desk.wait(desk.begin_again(download)).size == SIZE
    backend.stop()


def test_stopping_while_it_hangs(configure: Configure, server: MisbehavingServer, target: Path) -> None:
    desk = Desk()
    backend = desk.backend = Aria2Backend(desk, configure(stop_timeout=0.5, health_check_interval=60))
    backend.start()
    download = desk.begin(server.url("/shared-rate/x", size=SIZE, rate="8M"), target)
    until(lambda: _noted_bytes(target) > 0)
    (daemon,) = backend._daemons.values()
    daemon.client._rpc.timeout = 0.5
    os.kill(daemon.pid, signal.SIGSTOP)
    before = time.monotonic()
    backend.stop()
    assert time.monotonic() - before < 2 * AT_ONCE
    assert download.status is DownloadStatus.PAUSED
    assert names(target.parent) == ["file.bin.part", "file.bin.part.json"]


# -- orphans, and other people's daemons ----------------------------------------------------------------------------


def test_an_orphan_ends_by_itself(configure: Configure, tmp_path: Path) -> None:
    with program("start_and_wait", tmp_path, configure().rpc_port) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
        process.wait()
        until(lambda: not is_running(pid))


def test_an_orphan_is_recognised_and_reaped_at_the_next_start(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rangefetch.aria2.process._LEFTOVER_GRACE_S", 0.2)
    with program("start_and_wait", tmp_path, configure().rpc_port) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        os.kill(pid, signal.SIGSTOP)  # so that it cannot exit by itself
        process.kill()
        process.wait()
        assert is_running(pid)
        with Aria2Daemon(configure()) as daemon:
            assert not is_running(pid)
            assert len(names(tmp_path / "state")) == 1
            assert daemon.is_healthy()


def test_the_daemon_of_a_living_process_is_left_alone(configure: Configure, tmp_path: Path) -> None:
    with program("start_and_wait", tmp_path, configure().rpc_port) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        with Aria2Daemon(configure()) as daemon:
            assert is_running(pid)
            assert daemon.port == configure().rpc_port + 1
        assert is_running(pid)
        os.kill(pid, signal.SIGKILL)


def test_an_aria2c_of_somebody_else_is_left_alone(
    configure: Configure, foreign: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    # Even if a leftover record names its process, because it was not started for that directory.
    leftover = tmp_path / "state" / "daemon-forged"
    leftover.mkdir(parents=True)
    start = psutil.Process(foreign.pid).create_time()
    record = {
        "machine": platform.node(), "owner_pid": 0x7FFFFFF0, "owner_start_s": 0.0, "pid": foreign.pid,
        "start_s": start, "path": "/usr/bin/aria2c", "port": configure().rpc_port,
    }  # fmt: skip
    (leftover / "owner.json").write_text(json.dumps(record))
    with Aria2Daemon(configure()) as daemon:
        assert daemon.port != configure().rpc_port
        assert foreign.poll() is None
        os.kill(daemon.pid, signal.SIGKILL)
        until(lambda: daemon.restarts == 1)
        assert foreign.poll() is None
    assert foreign.poll() is None
    assert not leftover.exists()
    # It still answers without a secret, and has no active downloads.
    assert Aria2Client(configure().rpc_port, "").call("getGlobalStat")["numActive"] == "0"


def test_ctrl_c_in_the_terminal_does_not_reach_it(daemon: Aria2Daemon) -> None:
    assert os.getsid(daemon.pid) == daemon.pid
    assert os.getpgid(daemon.pid) != os.getpgid(0)


def test_importing_the_backend_does_not_import_its_client() -> None:
    code = "import rangefetch.aria2.backend, sys; sys.exit('aria2p' in sys.modules or 'platformdirs' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
