"""One aria2c as a process: its start, what it prints, its end with all that it started; and whose it is.

Each daemon has a directory of its own with a record of who runs it. A record whose maker is gone is a leftover: the
process that it names is ended if it is beyond doubt that very one, and the directory is removed. Nothing is ever
looked for by name.
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
_SAME_START_S = 2.0  # psutil reckons start times from the boot time, which a clock that is set moves
_RECORD = "owner.json"
_PREFIX = "daemon-"


class Process:
    """A running aria2c and what it has started. ``ended`` is set, and ``on_end`` called, when it is gone.

    ``port`` is where it is to listen.

    Raises ``ProcessStartFailed`` if it cannot be started at all.
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
                **system.apart(),  # so that it is ended in order
            )
        except OSError as error:
            raise ProcessStartFailed(f"{arguments[0]} cannot be started: {error}") from error
        assert self._popen.stdout is not None
        self.pid = self._popen.pid
        self.start_time_s = _start_time_s(self.pid)
        # The thread holds no reference to this object, which may be dropped.
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
        """The last lines that it printed."""
        if not self.is_alive:
            self.ended.wait(1.0)
        return "\n".join(self._console).strip()

    def listening(self) -> set[tuple[str, int]] | None:
        """The addresses and ports on which it, or a child, listens; None where the system does not tell."""
        found = set()
        try:
            for process in _tree(self.pid):
                with contextlib.suppress(psutil.NoSuchProcess):
                    found |= {
                        (connection.laddr.ip, connection.laddr.port)
                        for connection in process.net_connections("tcp")
                        if connection.status == psutil.CONN_LISTEN
                    }
        except psutil.AccessDenied:
            return None
        return found

    def kill(self) -> None:
        """Kill the process itself, without waiting for its end."""
        with contextlib.suppress(OSError):
            self._popen.kill()

    def end(self, grace_s: float) -> None:
        """End the whole tree: SIGTERM, on which aria2c saves what it has, and SIGKILL after ``grace_s``.

        Raises ``ProcessManagementError`` if something of it is still there then.
        """
        below = set(_tree(self.pid)[1:])
        with contextlib.suppress(OSError):
            self._popen.terminate()
            # It looks at the signal when something else wakes it, which may take a second.
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
            raise ProcessManagementError(f"aria2c cannot be ended; still there: {', '.join(map(str, pids))}")
        self._reader.join(_KILL_S)


def _environment() -> dict[str, str]:
    """This process's, but for proxies: each download names its own, which are not only those that aria2 knows."""
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
    """The process and all below it; nothing if it is gone."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def _end_all(processes: Iterable[psutil.Process], grace_s: float) -> list[psutil.Process]:
    """End them, and return those that will not."""
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
    """Wait for their ends, at most so long; those that still run."""
    deadline_s = time.monotonic() + timeout_s
    while left := [process for process in processes if _runs(process)]:
        if time.monotonic() >= deadline_s:
            break
        time.sleep(_LOOK_EVERY_S)
    return left


def _runs(process: psutil.Process) -> bool:
    """Whether it has not ended. Whether its parent has asked how does not matter: in a container none may."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


# -- whose it is ----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class _Record:
    """Who runs the daemon of a directory. A pid of 0: it was about to be started."""

    machine: str
    owner_pid: int
    owner_start_s: float
    pid: int
    start_s: float
    path: str
    port: int


def make_directory(state_directory: Path) -> Path:
    """A new directory for one daemon, which only this user may enter. Raises ``ProcessManagementError``."""
    try:
        state_directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        ready_tempfile()
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=state_directory))
        write_record(directory, None, "")
    except OSError as error:
        raise ProcessManagementError(f"{state_directory}: aria2c's files cannot be kept there: {error}") from error
    return directory


def write_record(directory: Path, process: Process | None, path: str) -> None:
    """Note who runs this daemon, as which process, from where, on which port."""
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
    """End the daemons that were left by processes that are gone, and remove their files; how many were ended.

    A daemon of a living process, of another machine that shares the directory, or of anybody else is left alone.
    """
    reaped = 0
    for directory in sorted(state_directory.glob(_PREFIX + "*")):
        try:
            record = _Record(**json.loads((directory / _RECORD).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            continue  # half made, or not ours
        if record.machine != platform.node() or _is_running(record.owner_pid, record.owner_start_s):
            continue
        if _is_leftover(record, directory):
            _log.info("aria2c %d was left by a process that is gone; ending it", record.pid)
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
    """Whether the process that the record names is there, and is the one that was started for this directory."""
    if not record.pid or not _is_running(record.pid, record.start_s):
        return False
    try:
        # No other process has this directory's random name on its command line.
        return any(str(directory) in argument for argument in psutil.Process(record.pid).cmdline())
    except psutil.Error:
        return False
