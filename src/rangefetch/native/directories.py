"""Open directories, in which the engine names files.

Each is opened once for all files that need it at about the same time, and closed when none uses it any more.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from rangefetch.disk import system

__all__ = ["Directories", "Directory"]

_FRESH_S = 1.0  # a directory may be renamed, and another one get its path
_MOST = 256


class Directory:
    """An open directory. The last ``release`` closes ``fd``. Used on the backend's thread, but opened on any."""

    __slots__ = ("_users", "fd", "opened_s", "path", "prefix")

    def __init__(self, path: str) -> None:
        """Open the directory, creating it and its parents if missing.

        Raises ``OSError``, also if the directory is not writable.
        """
        self.path = Path(path).absolute()
        self.prefix = str(self.path).rstrip(os.sep) + os.sep
        """The directory's path up to a file's name."""
        self.path.mkdir(parents=True, exist_ok=True)
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.path))
        self.fd = system.open_directory(self.path)
        self.opened_s = 0.0
        self._users = 1

    def use(self, users: int = 1) -> Directory:
        """Add ``users`` users."""
        self._users += users
        return self

    def release(self, users: int = 1) -> None:
        self._users -= users
        if self._users == 0:
            os.close(self.fd)


class Directories:
    """Recently opened directories, by path. Used on the backend's thread."""

    def __init__(self) -> None:
        self._known: dict[str, Directory] = {}

    def get(self, path: str, now_s: float) -> Directory | None:
        """The directory, with one more user; None if it has to be opened."""
        known = self._known.get(path)
        if known is None or now_s - known.opened_s > _FRESH_S:
            return None
        return known.use()

    def put(self, path: str, directory: Directory, now_s: float) -> None:
        """Keep a directory that was just opened for files that need it soon."""
        directory.opened_s = now_s
        known = self._known.pop(path, None)
        if known is not None:
            known.release()
        self._known[path] = directory
        if len(self._known) > _MOST:
            self._known.pop(next(iter(self._known))).release()

    def tend(self, now_s: float) -> None:
        """Drop directories that were opened too long ago; called periodically."""
        for path, directory in list(self._known.items()):
            if now_s - directory.opened_s > _FRESH_S:
                del self._known[path]
                directory.release()

    def clear(self) -> None:
        """Drop all directories."""
        for directory in self._known.values():
            directory.release()
        self._known.clear()
