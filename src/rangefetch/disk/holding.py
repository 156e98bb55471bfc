"""Exclusive use of a file by one object in one process.

``NAME`` belongs to whoever has the lock on ``NAME.lock`` beside it. The system releases the lock when the process ends.
"""

from __future__ import annotations

import contextlib
import gc
import os
import weakref
from pathlib import Path

from rangefetch.disk import locks, system
from rangefetch.disk.parts import is_open_on
from rangefetch.errors import LocalError
from rangefetch.importing import after_fork
from rangefetch.logs import log as _log

__all__ = ["Hold"]


class Hold:
    """A manager's exclusive right to a session file, until :meth:`release` or the end of the process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock_path = path.with_name(path.name + ".lock")
        self._fd = -1
        self._has_warned = False
        _holds.add(self)

    @property
    def is_held(self) -> bool:
        return self._fd >= 0

    def acquire(self) -> None:
        """Take the lock. Raises ``LocalError``, naming the holder, if it is taken; where locking is impossible, logs a
        warning."""
        if self.is_held:
            return
        try:
            try:
                self._take()
            except LocalError:
                # The holder may be an object of ours that is unreachable but not yet garbage-collected.
                gc.collect()
                self._take()
        except OSError as error:
            if not self._has_warned:
                self._has_warned = True
                _log.warning("%s: it cannot be locked (%s); use it for one manager only", self._path, error.strerror)

    def _take(self) -> None:
        while not self.is_held:
            self._try()

    def _try(self) -> None:
        """Try once. This leaves the lock unheld if the previous holder deleted the lock file in the meantime."""
        fd = system.open_file(self._lock_path, os.O_RDWR | os.O_CREAT | system.NO_LINK)
        try:
            locks.take(fd)
            if is_open_on(fd, self._lock_path):
                os.ftruncate(fd, 0)
                system.pwrite(fd, f"{os.getpid()} {system.host_name()}\n".encode(), 0)
                self._fd, fd = fd, -1
        except BlockingIOError:
            raise LocalError(f"{self._path}: {_describe(system.pread(fd, 256, 0))} is using it") from None
        finally:
            if fd >= 0:
                os.close(fd)

    def release(self) -> None:
        """Release the lock. Releasing twice is fine."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                self._lock_path.unlink()
            locks.unlock_and_close(fd)

    def _abandon(self) -> None:
        """In a forked child: close the descriptor, and leave the lock with the parent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.release()


_holds: weakref.WeakSet[Hold] = weakref.WeakSet()


def _describe(holder: bytes) -> str:
    pid, _, host = holder.decode(errors="replace").strip().partition(" ")
    if not pid.isdigit():
        return "another DownloadManager"
    if host != system.host_name():
        return f"a DownloadManager of process {pid} on {host if host.isprintable() else 'another machine'}"
    if int(pid) == os.getpid():
        return "another DownloadManager of this process"
    return f"a DownloadManager of process {pid}"


def _abandon_all() -> None:
    for hold in list(_holds):
        hold._abandon()


after_fork(_abandon_all)
