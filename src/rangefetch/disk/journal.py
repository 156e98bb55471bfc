"""A file of lines that grows at its end: what changes is appended, and nothing that is there is written again.

A line counts when its newline is there. What a crash or a full disk has left of the last one is taken away before the
next is written. From time to time the file is written anew, without the lines that later ones have made pointless, and
then replaced in one step.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from rangefetch.disk import system
from rangefetch.disk.replacing import replace_file

__all__ = ["LONGEST_LINE_BYTES", "Journal", "read_lines"]

LONGEST_LINE_BYTES = 1 << 20


class Journal:
    """The file at ``path``, for its only writer. Not safe by itself."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._end = 0
        self.lines = 0
        """In the file."""

    def append(self, lines: list[bytes]) -> bool:
        """Add some lines, and sync them. False: the file is not what it was, and must be rewritten. Raises ``OSError``;
        then none of them is there.
        """
        if self._fd < 0 or not self._is_ours():
            return False
        octets = b"".join(lines)
        if not octets:
            return True
        try:
            written = 0
            while written < len(octets):
                written += system.pwrite(self._fd, octets[written:], self._end + written)
            os.fsync(self._fd)
        except OSError:
            self._take_back()
            raise
        self._end += len(octets)
        self.lines += len(lines)
        return True

    def rewrite(self, lines: list[bytes]) -> None:
        """Have these lines and no others in the file, mode 0600. Raises ``OSError``; then it is as it was."""
        self.close()
        replace_file(self._path, b"".join(lines))
        self.go_on(len(lines), sum(map(len, lines)))

    def go_on(self, lines: int, end: int) -> None:
        """Append to the file that is there, of which so many lines and bytes were read; not where others may read it,
        for then it must be rewritten.
        """
        self.close()
        with contextlib.suppress(OSError):
            fd = system.open_file(self._path, os.O_RDWR | system.NO_LINK)
            self._fd, self._end, self.lines = fd, end, lines
            status = os.fstat(fd)
            if not (system.is_own(status) and system.is_private(status)):
                self.close()

    def close(self) -> None:
        """Doing so twice is fine."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _is_ours(self) -> bool:
        """Whether the file is still the one that was written last, and nobody has added to it or cut it."""
        try:
            there, here = self._path.lstat(), os.fstat(self._fd)
        except OSError:
            return False
        return os.path.samestat(there, here) and here.st_size == self._end

    def _take_back(self) -> None:
        """What was written of lines that did not fit."""
        try:
            os.ftruncate(self._fd, self._end)
        except OSError:
            self.close()


def read_lines(path: Path) -> Iterator[bytes]:
    """Each line, with its newline if it has one; of a line that is longer than any may be, only the beginning.

    Raises ``OSError``.
    """
    with path.open("rb") as file:
        while line := file.readline(LONGEST_LINE_BYTES):
            yield line
            while len(line) == LONGEST_LINE_BYTES and not line.endswith(b"\n"):
                line = file.readline(LONGEST_LINE_BYTES)
