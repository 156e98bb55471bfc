"""Replacing a small file in one step: whatever happens, the old content is there or the new one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from rangefetch.disk import system

__all__ = ["copy_content", "remove_what_was_cut_short", "replace_file"]

_COPY_BYTES = 1 << 20


def replace_file(path: Path, octets: bytes, *, prepare: Callable[[int], object] | None = None) -> None:
    """Put ``octets`` in the place of the file at ``path``, mode 0600. ``prepare`` gets the descriptor of the new file.

    The content is on the disk before it gets the name. Several threads or processes may do so at once; the last one
    counts. Raises ``OSError``; then the old file is as it was.
    """
    fd, temporary = _create_beside(path)
    try:
        with os.fdopen(fd, "wb") as file:
            if prepare is not None:
                prepare(fd)
            file.write(octets)
            file.flush()
            os.fsync(fd)
        system.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    # If this fails, a power failure may bring the old content back.
    with contextlib.suppress(OSError):
        system.sync_directory(path.parent)


def remove_what_was_cut_short(path: Path) -> None:
    """Remove what a replacement that was killed has left. For who knows that nobody is at one."""
    with contextlib.suppress(OSError):
        _beside(path).unlink()


def copy_content(source_fd: int, fd: int) -> None:
    """Copy all bytes of an open file to the same places of another one, holes as holes. Raises ``OSError``."""
    size = os.fstat(source_fd).st_size
    os.ftruncate(fd, size)
    at = 0
    while at < size:
        piece = system.pread(source_fd, min(_COPY_BYTES, size - at), at)
        if not piece:
            break  # somebody has cut it meanwhile
        if piece.strip(b"\0"):
            written = 0
            while written < len(piece):
                written += system.pwrite(fd, piece[written:], at + written)
        at += len(piece)


def _beside(path: Path, what: str = "") -> Path:
    return path.with_name(f"{path.name}{what}.tmp")


def _create_beside(path: Path) -> tuple[int, Path]:
    """A new file with a name that nobody else uses: one that can be found again, if that is free."""
    temporary = _beside(path)
    while True:
        try:
            # Created anew each time, so that no link that stands there is followed.
            return system.open_file(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY), temporary
        except FileExistsError:
            temporary = _beside(path, f".{os.urandom(4).hex()}")
