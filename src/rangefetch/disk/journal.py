"""An append-only file of lines: changes are appended, and existing lines are never modified.

A line counts once its newline is there. An incomplete last line, left by a crash or a full disk, is removed before the
next line is written. From time to time the file is rewritten without the lines that later ones have superseded; the new
file replaces the old one in one step.
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
    """The file at ``path``, which must have no other writer. Not thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._end = 0
        self.lines = 0
        """The number of lines in the file."""

    def append(self, lines: list[bytes]) -> bool:
        """Append lines, and sync them. Returns False if the file has changed meanwhile and must be rewritten. Raises
        ``OSError``; then none of the lines is in the file.
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
        """Replace the file's content by these lines, mode 0600. Raises ``OSError``; then the file is unchanged."""
        self.close()
        replace_file(self._path, b"".join(lines))
        self.go_on(len(lines), sum(map(len, lines)))

    def go_on(self, lines: int, end: int) -> None:
        """Continue with the existing file, of which ``lines`` lines and ``end`` bytes were read. If other users may
        read it, it is left closed, so that it will be rewritten.
        """
        self.close()
        with contextlib.suppress(OSError):
            fd = system.open_file(self._path, os.O_RDWR | system.NO_LINK)
            self._fd, self._end, self.lines = fd, end, lines
            status = os.fstat(fd)
            if not (system.is_own(status) and system.is_private(status)):
                self.close()

    def close(self) -> None:
        """Close the file. Closing twice is fine."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _is_ours(self) -> bool:
        """Whether the file is still the one we opened, and has the length that we left it with."""
        try:
            there, here = self._path.lstat(), os.fstat(self._fd)
        except OSError:
            return False
        return os.path.samestat(there, here) and here.st_size == self._end

    def _take_back(self) -> None:
        """Remove the part of the lines that was written before an error."""
        try:
            os.ftruncate(self._fd, self._end)
        except OSError:
            self.close()


def read_lines(path: Path) -> Iterator[bytes]:
    """Yield each line, with its newline if it has one. A line that is too long is truncated. Raises ``OSError``."""
    with path.open("rb") as file:
        while line := file.readline(LONGEST_LINE_BYTES):
            yield line
            while len(line) == LONGEST_LINE_BYTES and not line.endswith(b"\n"):
                line = file.readline(LONGEST_LINE_BYTES)
