"""Open directories, for the files that get their names there by the engine.

Each is opened once for all that come to it at about the same time, and closed when none of them uses it any more.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from rangefetch.disk import system

__all__ = ["Directories", "Directory"]

_FRESH_S = 1.0  # a directory may be renamed, and another one have its path
_MOST = 256


class Directory:
    """An open directory. ``fd`` is closed by the last ``release``; on the backend's thread, but for opening it."""

    __slots__ = ("_users", "fd", "opened_s", "path", "prefix")

    def __init__(self, path: str) -> None:
        """Raises ``OSError``, also where no file can be created there. What is missing is made."""
        self.path = Path(path).absolute()
        self.prefix = str(self.path).rstrip(os.sep) + os.sep
        """What comes before a name for its path."""
        self.path.mkdir(parents=True, exist_ok=True)
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.path))
        self.fd = system.open_directory(self.path)
        self.opened_s = 0.0
        self._users = 1

    def use(self, users: int = 1) -> Directory:
        """For so many more."""
        self._users += users
        return self

    def release(self, users: int = 1) -> None:
        self._users -= users
        if self._users == 0:
            os.close(self.fd)


class Directories:
    """Those that were opened a moment ago, by path. On the backend's thread."""

    def __init__(self) -> None:
        self._known: dict[str, Directory] = {}

    def get(self, path: str, now_s: float) -> Directory | None:
        """The directory, for one more user; None: it is to be opened."""
        known = self._known.get(path)
        if known is None or now_s - known.opened_s > _FRESH_S:
            return None
        return known.use()

    def put(self, path: str, directory: Directory, now_s: float) -> None:
        """It was opened, and is kept for those who come soon."""
        directory.opened_s = now_s
        known = self._known.pop(path, None)
        if known is not None:
            known.release()
        self._known[path] = directory
        if len(self._known) > _MOST:
            self._known.pop(next(iter(self._known))).release()

    def tend(self, now_s: float) -> None:
        """From time to time: close those that nobody uses any more."""
        for path, directory in list(self._known.items()):
            if now_s - directory.opened_s > _FRESH_S:
                del self._known[path]
                directory.release()

    def clear(self) -> None:
        """Nobody comes any more."""
        for directory in self._known.values():
            directory.release()
        self._known.clear()
