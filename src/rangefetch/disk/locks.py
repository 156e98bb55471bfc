"""Locks on files, which a forked child must not keep for its parent.

A lock belongs to the open file, which the child of a fork shares: were the parent to die, the lock would last as long
as the child, and its target could not be used.
"""

from __future__ import annotations

import contextlib
import os

from rangefetch.disk import system
from rangefetch.importing import after_fork

__all__ = ["is_first_without", "take", "unlock_and_close"]

_held: dict[int, tuple[int, int]] = {}  # open files that are locked: their device and inode

_without: set[int] = set()  # devices that have no locks


def take(fd: int) -> None:
    """Lock the open file for this process alone. Raises ``BlockingIOError`` if another has it, and ``OSError``."""
    system.lock(fd)
    status = os.fstat(fd)
    _held[fd] = (status.st_dev, status.st_ino)


def unlock_and_close(fd: int) -> None:
    """Release the lock, too, if a child that was forked meanwhile shares the open file."""
    _held.pop(fd, None)
    with contextlib.suppress(OSError):
        system.unlock(fd)
    os.close(fd)


def is_first_without(fd: int) -> bool:
    """Whether this process has not met another file on that file system that cannot be locked."""
    device = os.fstat(fd).st_dev
    is_first = device not in _without
    _without.add(device)
    return is_first


def _let_go() -> None:
    """In a forked child: close what is locked. The numbers stay taken, since objects of the parent have them."""
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
