"""One aria2c process: starting it, reading its output, ending it with its children, and recording who owns it.

Each daemon has a directory of its own, which holds a record of the process that owns it. If that owner is gone, the
daemon is a leftover: the aria2c that the record names is ended, provided it is certainly the same process, and the
directory is removed. Processes are never looked up by name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO

import psutil

from rangefetch.disk import system
from rangefetch.disk.replacing import replace_file
from rangefetch.errors import ProcessManagementError, ProcessStartFailed
from rangefetch.importing import ready_tempfile
from rangefetch.logs import log as _log
from rangefetch.net.proxies import VARIABLES

__all__ = ["Process", "make_directory", "reap_leftovers", "write_record"]

_CONSOLE_LINES = 50
_KILL_S = 5.0
_LOOK_EVERY_S = 0.02
_LEFTOVER_GRACE_S = 2.0
_SAME_START_S = 2.0  # psutil derives start times from the boot time, which shifts when the clock is set
_RECORD = "owner.json"
_PREFIX = "daemon-"


class Process:
    """A running aria2c and its children. When it has exited, ``ended`` is set and ``on_end`` is called.

    ``port`` is the port it was told to listen on. Raises ``ProcessStartFailed`` if it cannot be started.
    """

    def __init__(self, arguments: Sequence[str], port: int, *, directory: Path, on_end: Callable[[], None]) -> None:
        self.port = port
        self.ended = threading.Event()
        self._console: deque[str] = deque(maxlen=_CONSOLE_LINES)
        try:
            self._popen = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env=_environment(),
                **system.apart(),  # so that it is ended by us, in order, not by a Ctrl-C
            )
        except OSError as error:
            raise ProcessStartFailed(f"{arguments[0]} cannot be started: {error}") from error
        assert self._popen.stdout is not None
        self.pid = self._popen.pid
        self.start_time_s = _start_time_s(self.pid)
        # The thread must hold no reference to this object, so that it can be dropped.
        self._reader = threading.Thread(
            target=_read_console,
            args=(self._popen.stdout, self._console, self._popen, self.ended, on_end),
            name="rangefetch-aria2-console",
            daemon=True,
        )
        self._reader.start()

    @property
    def is_alive(self) -> bool:
        return self._popen.poll() is None

    @property
    def exit_status(self) -> int | None:
        return self._popen.poll()

    def console(self) -> str:
        """The last lines that aria2c printed."""
        if not self.is_alive:
            self.ended.wait(1.0)
        return "\n".join(self._console).strip()

    def listens_on(self, address: str, port: int) -> bool | None:
        """Whether it or a child listens at this IPv4 address; None if the system denies us this information."""
        try:
            if _listens_on(psutil.Process(self.pid), address, port):
                return True
            return any(_listens_on(child, address, port) for child in _tree(self.pid)[1:])
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            return None

    def kill(self) -> None:
        """Kill the process itself, not its children, without waiting for it to exit."""
        with contextlib.suppress(OSError):
            self._popen.kill()

    def end(self, grace_s: float) -> None:
        """End the process and its children: SIGTERM, on which aria2c saves its state, and SIGKILL after ``grace_s``.

        Raises ``ProcessManagementError`` if any of them is still running afterwards.
        """
        below = set(_tree(self.pid)[1:])
        with contextlib.suppress(OSError):
            self._popen.terminate()
            # aria2c notices the signal only when its event loop wakes, which may take a second; a connection wakes it.
            socket.create_connection(("127.0.0.1", self.port), timeout=0.1).close()
        try:
            self._popen.wait(grace_s)
        except subprocess.TimeoutExpired:
            below.update(_tree(self.pid)[1:])
            self._popen.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(_KILL_S)
        left = _end_all(below, grace_s)
        if self.is_alive or left:
            pids = [self.pid] * self.is_alive + [process.pid for process in left]
            raise ProcessManagementError(f"cannot end aria2c; processes still running: {', '.join(map(str, pids))}")
        self._reader.join(_KILL_S)


def _environment() -> dict[str, str]:
    """This process's environment without its proxy variables: each download is given its proxies explicitly, and the
    variables that we honour are not only those that aria2 knows."""
    kept = {name: value for name, value in os.environ.items() if name.lower() not in VARIABLES}
    return kept | {"LC_ALL": "C"}


def _read_console(
    stream: IO[bytes],
    lines: deque[str],
    popen: subprocess.Popen[bytes],
    ended: threading.Event,
    on_end: Callable[[], None],
) -> None:
    with stream:
        for line in stream:
            lines.append(line.decode(errors="replace").rstrip())
    popen.wait()
    ended.set()
    on_end()


def _start_time_s(pid: int) -> float:
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return 0.0


def _tree(pid: int) -> list[psutil.Process]:
    """The process and all its descendants; an empty list if it is gone."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def _listens_on(process: psutil.Process, address: str, port: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return any(
            connection.status == psutil.CONN_LISTEN and tuple(connection.laddr) == (address, port)
            for connection in process.net_connections("tcp4")
        )
    return False


def _end_all(processes: Iterable[psutil.Process], grace_s: float) -> list[psutil.Process]:
    """End the processes, by SIGKILL if need be, and return those that still run."""
    left = list(processes)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    left = _wait_until_gone(left, grace_s)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    return _wait_until_gone(left, _KILL_S)


def _wait_until_gone(processes: list[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Wait at most ``timeout_s`` for the processes to exit, and return those that still run."""
    deadline_s = time.monotonic() + timeout_s
    while left := [process for process in processes if _runs(process)]:
        if time.monotonic() >= deadline_s:
            break
        time.sleep(_LOOK_EVERY_S)
    return left


def _runs(process: psutil.Process) -> bool:
    """Whether the process still runs. A zombie does not count: in a container there may be no parent to reap it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


# -- whose it is ----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class _Record:
    """Who owns the daemon of a directory. A ``pid`` of 0 means that it had not been started yet."""

    machine: str
    owner_pid: int
    owner_start_s: float
    pid: int
    start_s: float
    path: str
    port: int


def make_directory(state_directory: Path) -> Path:
    """Create a directory for one daemon, accessible to this user only. Raises ``ProcessManagementError``."""
    try:
        state_directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        ready_tempfile()
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=state_directory))
        write_record(directory, None, "")
    except OSError as error:
        raise ProcessManagementError(f"{state_directory}: cannot create aria2c's files there: {error}") from error
    return directory


def write_record(directory: Path, process: Process | None, path: str) -> None:
    """Record the owner of this daemon, its process, the path of its binary, and its port."""
    record = _Record(
        machine=platform.node(),
        owner_pid=os.getpid(),
        owner_start_s=_start_time_s(os.getpid()),
        pid=process.pid if process else 0,
        start_s=process.start_time_s if process else 0.0,
        path=path,
        port=process.port if process else 0,
    )
    replace_file(directory / _RECORD, json.dumps(dataclasses.asdict(record)).encode())


def reap_leftovers(state_directory: Path) -> int:
    """End daemons whose owner is gone, and remove their files. Returns how many were ended.

    Daemons whose owner still runs, and those of another machine that shares the directory, are left alone.
    """
    reaped = 0
    for directory in sorted(state_directory.glob(_PREFIX + "*")):
        try:
            record = _Record(**json.loads((directory / _RECORD).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            continue  # incomplete, or not ours
        if record.machine != platform.node() or _is_running(record.owner_pid, record.owner_start_s):
            continue
        if _is_leftover(record, directory):
            _log.info("ending aria2c %d, whose parent process has exited", record.pid)
            left = _end_all(_tree(record.pid), _LEFTOVER_GRACE_S)
            if left:
                _log.warning("aria2c %d cannot be ended", record.pid)
                continue
            reaped += 1
        shutil.rmtree(directory, ignore_errors=True)
    return reaped


def _is_running(pid: int, start_s: float) -> bool:
    try:
        return abs(psutil.Process(pid).create_time() - start_s) < _SAME_START_S
    except psutil.Error:
        return False


def _is_leftover(record: _Record, directory: Path) -> bool:
    """Whether the process that the record names still runs and is the one started for this directory."""
    if not record.pid or not _is_running(record.pid, record.start_s):
        return False
    try:
        # No other process has this directory's random name in its command line.
        return any(str(directory) in argument for argument in psutil.Process(record.pid).cmdline())
    except psutil.Error:
        return False
