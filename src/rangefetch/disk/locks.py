"""File locks that a forked child does not keep alive.

A lock belongs to the open file, which a forked child shares. If the parent died, the lock would last as long as the
child, and nobody could use the locked target. So a child closes all locked files.
"""

from __future__ import annotations

import contextlib
import os

from rangefetch.disk import system
from rangefetch.importing import after_fork

__all__ = ["is_first_without", "take", "unlock_and_close"]

_held: dict[int, tuple[int, int]] = {}  # descriptors of locked files: device and inode

_without: set[int] = set()  # devices whose file system has no locks


def take(fd: int) -> None:
    """Lock the open file exclusively. Raises ``BlockingIOError`` if it is locked elsewhere, and ``OSError``."""
    system.lock(fd)
    status = os.fstat(fd)
    _held[fd] = (status.st_dev, status.st_ino)


def unlock_and_close(fd: int) -> None:
    """Unlock and close. The explicit unlock works even if a forked child still shares the open file."""
    _held.pop(fd, None)
    with contextlib.suppress(OSError):
        system.unlock(fd)
    os.close(fd)


def is_first_without(fd: int) -> bool:
    """Whether this is the first file that this process could not lock on that file system."""
    device = os.fstat(fd).st_dev
    is_first = device not in _without
    _without.add(device)
    return is_first


def _let_go() -> None:
    """In a forked child: close the locked files. The descriptors then refer to the null device instead, so that their
    numbers are not reused: objects copied from the parent still have them."""
    held = dict(_held)
    _held.clear()
    if not held:
        return
    nowhere = system.open_file(os.devnull, os.O_RDWR)
    for fd, file in held.items():
        with contextlib.suppress(OSError):
            status = os.fstat(fd)
            if (status.st_dev, status.st_ino) == file:
                os.dup2(nowhere, fd, inheritable=False)
    os.close(nowhere)


after_fork(_let_go)
