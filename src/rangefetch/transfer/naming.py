"""The final name of one download: chosen, reserved against other downloads of this process, and numbered if taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rangefetch.disk import reservations
from rangefetch.disk.names import choose_filename, numbered
from rangefetch.disk.target import Target
from rangefetch.errors import HOW_TO_NUMBER, TargetExists, TargetLocked

if TYPE_CHECKING:
    from rangefetch.transfer.task import Task

__all__ = ["Naming"]

_MOST_NUMBERS = 9999
"""The same as aria2's."""


class Naming:
    """The name that one download gets. All methods but ``rename`` may run on a worker."""

    def __init__(self, task: Task[Any]) -> None:
        self._task = task
        self._wanted = ""
        self._number = 0  # the number now in the name

    @property
    def _target(self) -> Target:
        target = self._task.target
        assert target is not None
        return target

    def is_taken(self, path: Path) -> bool:
        """Whether a file that must not be replaced has the name."""
        task = self._task
        may_replace = task.options.overwrite and not task.placing.has_waited
        return path != task.placing.compared_whole and path.exists() and not may_replace

    @property
    def may_be_taken(self) -> bool:
        """Whether the name, or the expected one while the server may still give another, is taken or reserved."""
        task, target = self._task, self._target
        path = target.path or target.directory / task.download.filename
        return self.is_taken(path) or reservations.is_reserved(path, task.download)

    def choose(self, *said: str) -> Path | None:
        """Choose the name and reserve it. Returns its path if a file already has it, otherwise None.

        ``said`` is what the server says of the name, for :func:`choose_filename`. Raises ``TargetExists`` if another
        download will have the name, ``TargetLocked`` if that one is to be waited for, and ``DiskError``.
        """
        task, target = self._task, self._target
        if target.path is None:
            target.name(choose_filename(task.url, *said))
        assert target.path is not None
        task.download.filename = target.path.name
        return self.hold(target.path) if target.keeps_state else None

    def hold(self, path: Path) -> Path | None:
        """Reserve the name, or a numbered one instead. Returns the path if a file already has that name, otherwise
        None.

        Raises as :meth:`choose` does.
        """
        self._wanted = self._wanted or path.name
        # A file that is already there may be compared by any number of downloads.
        if self.is_taken(path):
            return path
        if reservations.reserve(path, self._task.download):
            return path if self.is_taken(path) else None
        if self._task.options.wait_for_other:
            words = f"{path}: another download of this process will have that name"
            raise TargetLocked(words, url=self._task.shown_url, filename=path)
        if self._task.options.auto_file_renaming:
            return self._next()
        words = f"{path}: another download will have that name; {HOW_TO_NUMBER}"
        raise TargetExists(words, url=self._task.shown_url, filename=path)

    def number_anew(self, name: str) -> str:
        """Another name to try instead of the user's ``name``, or "" if there is none."""
        if not (name and self._task.options.auto_file_renaming and self._number < _MOST_NUMBERS):
            return ""
        self._wanted = self._wanted or name
        self._number += 1
        return numbered(self._wanted, self._number)

    def rename(self, free: Callable[[], None], taken: Callable[[Path], None]) -> None:
        """Take the next numbered name, and call ``free``, or ``taken`` if a file already has that name."""
        self._task.do(self._next, lambda path: free() if path is None else taken(path))

    def take_free(self) -> None:
        """Take the next numbered name that no file has. Raises ``TargetExists``, ``DiskError``."""
        while self._next() is not None:
            pass

    def release(self) -> None:
        """Release the reservation at the end: the file has the name by now, or others may have it."""
        reservations.release(self._task.download)

    def _next(self) -> Path | None:
        task, target = self._task, self._target
        while self._number < _MOST_NUMBERS:
            self._number += 1
            path = target.name(numbered(self._wanted, self._number))
            taken = self.is_taken(path)
            if taken or reservations.reserve(path, task.download):
                task.download.filename = path.name
                return path if taken or self.is_taken(path) else None
        words = f"{target.path} exists, and so do all lower numbers"
        raise TargetExists(words, url=task.shown_url, filename=target.path)
