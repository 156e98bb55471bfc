"""Runs aria2c as a daemon: restarts it when it dies, and ends it when it is no longer needed."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from rangefetch.aria2 import process as processes
from rangefetch.aria2.binary import Aria2Binary, ensure_aria2
from rangefetch.aria2.client import Aria2Client, RpcError
from rangefetch.aria2.config import DaemonConfig
from rangefetch.aria2.monitor import Monitor
from rangefetch.aria2.process import Process
from rangefetch.disk import system
from rangefetch.disk.replacing import replace_file
from rangefetch.errors import (
    DaemonUnavailable,
    DiskError,
    LocalError,
    ProcessManagementError,
    ProcessStartFailed,
)
from rangefetch.logs import log as _log
from rangefetch.net.certificates import find_ca_file

__all__ = ["Aria2Daemon"]

_LOOPBACK = "127.0.0.1"
_PORTS = 100
_PORT_TRIES = 5
_LAST_PORT = 65535
_NO_PORT = "failed to bind TCP port"  # aria2c's words; the port may be free again by the time we check it
_MOST_SILENCE_S = 9.0  # shorter than the timeout of one RPC call
_FIRST_LOOK_S = 0.02
_LOOK_EVERY_S = 0.5
_SAVE_SESSION_EVERY_S = 5
_SAVE_CONTROL_FILES_EVERY_S = 2
_MOST_DOWNLOADS = 100_000
_MOST_DOWNLOADS_NEXT = 1000


class _PortTaken(Exception):
    """Another program has the port, on IPv4, IPv6 or both."""


class _Holdings:
    """What must be ended and removed when the daemon is dropped; it holds no reference to the daemon."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.owner_pid = os.getpid()
        self.closing = False
        self.monitor: Monitor | None = None
        self.process: Process | None = None
        self.directory: Path | None = None

    def release(self, grace_s: float) -> None:
        """End the process and remove its files. Does nothing in a forked child, which owns neither."""
        with self.lock:
            if os.getpid() != self.owner_pid:
                return
            self.closing = True
            if self.monitor is not None:
                self.monitor.dismiss()
            process, self.process = self.process, None
            directory, self.directory = self.directory, None
        try:
            if process is not None:
                process.end(grace_s)
        finally:
            if directory is not None:
                shutil.rmtree(directory, ignore_errors=True)


class Aria2Daemon:
    """An aria2c on the loopback device that is restarted when it dies. Thread-safe; a context manager.

    Both callbacks run in the monitor's thread: ``on_restart`` when a restarted aria2c answers, ``on_death`` with the
    reason when it will not be restarted any more. With an ``on_restart``, the downloads in the session file are paused
    at every start, so that they can be sorted out before anything is written; without one they simply continue. The
    daemon ends on :meth:`stop`, when this object is dropped, and at interpreter exit; aria2c exits by itself when this
    process is gone.
    """

    def __init__(
        self,
        config: DaemonConfig | None = None,
        client: Aria2Client | None = None,
        *,
        on_restart: Callable[[], object] | None = None,
        on_death: Callable[[DaemonUnavailable], object] | None = None,
    ) -> None:
        self.config = config or DaemonConfig()
        self.binary: Aria2Binary | None = None
        self.error: DaemonUnavailable | None = None
        """Why aria2c will not be restarted; None while it may be."""
        self.restarts = 0
        """How often aria2c was restarted since :meth:`start`."""
        self._secret = client.secret if client else self.config.rpc_secret or secrets.token_urlsafe(32)
        self._client = client
        self._on_restart = on_restart
        self._on_death = on_death
        self._life = threading.RLock()  # one start or stop at a time
        self._monitor: Monitor | None = None
        self._holdings = _Holdings()
        self._finalizer: weakref.finalize[[float], Aria2Daemon] | None = None

    # -- life ---------------------------------------------------------------------------------------------------

    @property
    def is_started(self) -> bool:
        return self._monitor is not None

    def start(self) -> None:
        """Start aria2c, and wait until it answers. Starting twice is fine.

        Raises ``ProcessStartFailed`` if the binary cannot be run or /proc is not mounted, ``ProcessManagementError``
        (with what aria2c printed) if it exits while starting, ``DaemonUnavailable`` if its RPC is not up within
        ``start_timeout``, ``BinaryDownloadFailed``, and ``DiskError`` if ``download_dir`` cannot be created.
        """
        with self._life:
            if self._monitor is not None:
                return
            # Listening ports are read from /proc. aria2c also looks there to see whether this process is alive, and
            # exits if it is not.
            if sys.platform.startswith("linux") and not Path("/proc/self").exists():
                raise ProcessStartFailed("the aria2 backend needs /proc, which is not mounted here")
            self.binary = ensure_aria2(self.config)
            processes.reap_leftovers(self.config.state_directory)
            _make_download_dir(Path(self.config.download_dir))
            if self._client is None:
                self._client = Aria2Client(self.config.rpc_port, self._secret)
            self.error = None
            self.restarts = 0
            self._holdings = holdings = _Holdings()
            self._finalizer = weakref.finalize(self, holdings.release, self.config.stop_timeout)
            monitor = Monitor(
                self,
                interval_s=self.config.health_check_interval,
                most_restarts=self.config.max_restart_attempts,
                restart_wait_s=self.config.restart_wait,
            )
            holdings.monitor = monitor
            try:
                holdings.directory = processes.make_directory(self.config.state_directory)
                self._launch(monitor)
            except BaseException:
                self._finalizer()
                raise
            self._monitor = monitor
            monitor.start()

    def stop(self) -> None:
        """Stop the monitor, then end aria2c and all its child processes. Stopping twice is fine.

        Raises ``ProcessManagementError`` if any of these processes is still running afterwards.
        """
        with self._life:
            monitor, self._monitor = self._monitor, None
            if os.getpid() != self._holdings.owner_pid:
                return
            self._holdings.closing = True
            if self.hangs:
                self.kill()
            if monitor is not None:
                monitor.stop()
            self._ask_to_end()
            if self._finalizer is not None:
                self._finalizer()
            if self._client is not None:
                self._client.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def client(self) -> Aria2Client:
        """The RPC client; it stays the same object when aria2c is restarted."""
        if self._client is None:
            raise DaemonUnavailable("aria2c was not started")
        return self._client

    @property
    def pid(self) -> int:
        """The id of the aria2c process; 0 while none runs."""
        process = self._holdings.process
        return process.pid if process is not None and process.is_alive else 0

    @property
    def port(self) -> int:
        return self.client.port

    def is_alive(self) -> bool:
        """Whether aria2c is running."""
        return self.pid != 0

    def is_healthy(self) -> bool:
        """Whether aria2c is running and answers."""
        if not self.is_alive():
            return False
        try:
            self.client.call("getVersion")
        except (DaemonUnavailable, RpcError):
            return False
        return True

    @property
    def hangs(self) -> bool:
        """Whether aria2c is running but has been silent for so long that no answer is expected any more."""
        return self.is_alive() and self.client.silent_s >= _MOST_SILENCE_S

    def kill(self) -> None:
        """Kill a hung process; the monitor starts another one."""
        process = self._holdings.process
        if process is not None:
            _log.warning("aria2c %d does not respond; killing it", process.pid)
            process.kill()

    # -- for the monitor ------------------------------------------------------------------------------------------

    def start_again(self) -> None:
        monitor, process = self._holdings.monitor, self._holdings.process
        assert monitor is not None
        if process is not None:
            process.end(0.0)
        self._launch(monitor)
        self.restarts += 1
        _log.info("aria2c is back, as process %d on port %d", self.pid, self.port)
        if self._on_restart is not None:
            self._on_restart()

    def give_up(self, reason: str) -> None:
        self.error = DaemonUnavailable(reason)
        _log.error("%s", reason)
        if self._on_death is not None:
            self._on_death(self.error)

    # -- starting ---------------------------------------------------------------------------------------------------

    def _launch(self, monitor: Monitor) -> None:
        """Start the process on a free port, and wait until it answers."""
        deadline_s = time.monotonic() + self.config.start_timeout
        first = self.config.rpc_port
        for _ in range(_PORT_TRIES):
            port = _free_port(first)
            try:
                self._launch_on(port, monitor, deadline_s)
            except _PortTaken:
                # Other daemons that are starting now would also try the next port, so that all would collide again.
                first = min(port + 1 + secrets.randbelow(_PORTS), _LAST_PORT)
            else:
                if port != self.config.rpc_port:
                    _log.info("port %d is taken; aria2c is on port %d", self.config.rpc_port, port)
                return
        raise ProcessManagementError(f"other programs keep taking the ports from {self.config.rpc_port} on")

    def _launch_on(self, port: int, monitor: Monitor, deadline_s: float) -> None:
        holdings = self._holdings
        assert self.binary is not None
        assert holdings.directory is not None
        conf_path = holdings.directory / "aria2.conf"
        replace_file(conf_path, self._conf(port).encode())
        self.client.port = port
        with holdings.lock:
            if holdings.closing:
                raise ProcessManagementError("aria2c is being stopped")
            holdings.process = process = Process(
                [str(self.binary.path), f"--conf-path={conf_path}"],
                port,
                directory=holdings.directory,
                on_end=monitor.look,
            )
        processes.write_record(holdings.directory, process, str(self.binary.path))
        _log.debug(
            "started %s %s as process %d on port %d; its files are in %s, its session in %s, its downloads in %s",
            self.binary.path,
            self.binary.version,
            process.pid,
            port,
            holdings.directory,
            self._session_path,
            self.config.download_dir,
        )
        try:
            self._wait_until_ready(process, port, deadline_s)
        except BaseException:
            with contextlib.suppress(ProcessManagementError):
                process.end(0.0)
            raise

    def _wait_until_ready(self, process: Process, port: int, deadline_s: float) -> None:
        look_s = _FIRST_LOOK_S
        while not self._holdings.closing:
            if not process.is_alive:
                said = self._said(process)
                if _NO_PORT in said or not _is_free(port):
                    raise _PortTaken
                raise ProcessManagementError(f"aria2c exited at startup (exit status {process.exit_status}): {said}")
            # Listing a process's sockets is slow on a machine with many connections, so try to connect first.
            if _takes_connections(port):
                # Only aria2c may be sent the secret. It keeps running if another program has the port on IPv4 only.
                if process.listens_on(_LOOPBACK, port) is not False:
                    with contextlib.suppress(DaemonUnavailable, RpcError):
                        self.client.call("getVersion")
                        return
                elif process.is_alive:
                    raise _PortTaken
            if time.monotonic() > deadline_s:
                raise DaemonUnavailable(
                    f"aria2c did not answer within {self.config.start_timeout:g} seconds: {self._said(process)}"
                )
            process.ended.wait(look_s)
            look_s = min(look_s * 1.5, _LOOK_EVERY_S)
        raise ProcessManagementError("aria2c is being stopped")

    @property
    def _session_path(self) -> Path:
        directory = self._holdings.directory
        assert directory is not None
        return Path(self.config.session_file) if self.config.session_file else directory / "aria2.session"

    def _said(self, process: Process) -> str:
        return process.console().replace(self._secret, "***") or "it printed nothing"

    def _conf(self, port: int) -> str:
        """The content of aria2c's configuration file."""
        config, directory = self.config, self._holdings.directory
        assert directory is not None
        session = self._session_path
        options = {
            "enable-rpc": "true",
            "rpc-listen-port": str(port),
            "rpc-listen-all": "false",
            "rpc-allow-origin-all": "false",
            "rpc-secret": self._secret,
            "rpc-max-request-size": "64M",  # a torrent travels in one request
            "rpc-save-upload-metadata": "false",
            "stop-with-process": str(os.getpid()),
            "dir": str(config.download_dir),
            "save-session": str(session),
            "save-session-interval": str(_SAVE_SESSION_EVERY_S),
            "auto-save-interval": str(_SAVE_CONTROL_FILES_EVERY_S),
            "max-concurrent-downloads": str(_MOST_DOWNLOADS),  # the queue is the manager's
            "max-download-result": str(_MOST_DOWNLOADS),
            "max-connection-per-server": "16",
            "piece-length": "1M",
            # aria2c may be killed at any time, so its control file must never list bytes still in its own cache.
            "disk-cache": "0",
            "auto-file-renaming": "false",
            "allow-overwrite": "true",
            "remote-time": "true",
            "seed-time": "0",
            "show-console-readout": "false",
            "summary-interval": "0",
            "console-log-level": "warn",
            "download-result": "hide",
            "check-certificate": str(config.verify_tls).lower(),
        }
        if self.binary is not None and self.binary.is_next:
            options["max-concurrent-downloads"] = options["max-download-result"] = str(_MOST_DOWNLOADS_NEXT)
            options["state-dir"] = str(directory / "state")
        if ca_file := find_ca_file(str(config.ca_file)):
            options["ca-certificate"] = ca_file
        if session.is_file() and session.stat().st_size:
            options["input-file"] = str(session)
        if self._on_restart is not None:
            options["pause"] = "true"
        options.update(config.extra_options)
        session.parent.mkdir(parents=True, exist_ok=True)
        return "".join(f"{name}={value}\n" for name, value in options.items())

    # -- stopping ---------------------------------------------------------------------------------------------------

    def _ask_to_end(self) -> None:
        """Have aria2c save its session, and shut it down over RPC if it has BitTorrent peers to say goodbye to."""
        process = self._holdings.process
        if process is None or not process.is_alive:
            return
        with contextlib.suppress(LocalError, RpcError):
            self.client.call("saveSession")
            has_peers = any("bittorrent" in status for status in self.client.call("tellActive", ["bittorrent"]))
            # This shutdown always takes 3 seconds, so an aria2c without peers is ended by the signal alone.
            if has_peers or not system.TERMINATION_IS_GENTLE:
                self.client.call("shutdown")
                process.ended.wait(self.config.stop_timeout)


def _make_download_dir(directory: Path) -> None:
    """Create the directory and its parents if they do not exist. Raises ``DiskError``."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskError(f"download_dir: cannot create {directory}: {error.strerror}", errno=error.errno or 0) from error


def _takes_connections(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((_LOOPBACK, port)) == 0


def _is_free(port: int) -> bool:
    """Whether the port can be bound on both loopback addresses."""
    for family, address in ((socket.AF_INET, _LOOPBACK), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                if system.REUSES_PORTS:  # aria2c sets the same option
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((address, port))
                except PermissionError:
                    return False
                except OSError as error:
                    if family is socket.AF_INET or error.errno == errno.EADDRINUSE:
                        return False
        except OSError:
            continue  # no IPv6 on this machine
    return True


def _free_port(first: int) -> int:
    """The first free port from ``first`` on. Raises ``ProcessManagementError`` if none of a hundred is free."""
    last = min(first + _PORTS, _LAST_PORT + 1)
    for port in range(first, last):
        if _is_free(port):
            return port
    raise ProcessManagementError(f"none of the ports {first} to {last - 1} is free")
