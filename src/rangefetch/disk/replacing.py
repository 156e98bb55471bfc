"""Replaces small files atomically: whatever happens, the file has either the old content or the new."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from rangefetch.disk import system

__all__ = ["copy_content", "remove_what_was_cut_short", "replace_file"]

_COPY_BYTES = 1 << 20


def replace_file(path: Path, octets: bytes, *, prepare: Callable[[int], object] | None = None) -> None:
    """Write ``octets`` to the file at ``path``, mode 0600, replacing any older one. ``prepare`` is called with the
    descriptor of the new file.

    The content is synced to disk before the file gets its name. Several threads or processes may do this at the same
    time; the last one wins. Raises ``OSError``; then the old file is unchanged.
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
    """Remove the temporary file of an interrupted ``replace_file``. Call it only if no replacement is in progress."""
    with contextlib.suppress(OSError):
        _beside(path).unlink()


def copy_content(source_fd: int, fd: int) -> None:
    """Copy the content of an open file to another one; zeros become holes. Raises ``OSError``."""
    size = os.fstat(source_fd).st_size
    os.ftruncate(fd, size)
    at = 0
    while at < size:
        piece = system.pread(source_fd, min(_COPY_BYTES, size - at), at)
        if not piece:
            break  # the source was shortened meanwhile
        if piece.strip(b"\0"):
            written = 0
            while written < len(piece):
                written += system.pwrite(fd, piece[written:], at + written)
        at += len(piece)


def _beside(path: Path, what: str = "") -> Path:
    return path.with_name(f"{path.name}{what}.tmp")


def _create_beside(path: Path) -> tuple[int, Path]:
    """Create a temporary file: under a predictable name, by which a leftover can be found, or else a random one."""
    temporary = _beside(path)
    while True:
        try:
            # O_EXCL, so that an existing symbolic link is never followed.
            return system.open_file(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY), temporary
        except FileExistsError:
            temporary = _beside(path, f".{os.urandom(4).hex()}")
