"""The step by which a whole file gets its final name.

Nothing incomplete ever has that name, whenever the process is killed. Nothing but a plain file is replaced, and only
where that was asked for.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from rangefetch.disk import system
from rangefetch.disk.names import is_plain_filename
from rangefetch.errors import HOW_TO_REPLACE, DiskError, TargetExists

__all__ = ["check_name", "check_place", "rename_free", "replace", "set_mode", "set_time"]

_CANNOT = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})


def check_name(path: Path) -> None:
    """Raises the ``OSError`` with which the file system refuses the name: it is too long, or has a character that this
    one does not take (``:`` on FAT).
    """
    system.check_path(path)
    if is_plain_filename(path.name):
        return
    # Only who creates a file is told of characters. It must not be the final name, not even for a moment.
    trial = path.with_name(path.name + ".tmp")
    try:
        os.close(system.open_file(trial, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EILSEQ):
            raise
    else:
        trial.unlink()


def check_place(path: Path) -> None:
    """Raises ``DiskError`` if what has the name is no plain file: a directory, a device, a FIFO, a socket, or a link
    to one of these. Nobody means to put a file in its place.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # nothing, or a link that leads nowhere
    if stat.S_ISDIR(mode):
        raise DiskError(f"{path}: it is a directory", errno=errno.EISDIR, filename=path)
    if not stat.S_ISREG(mode):
        raise DiskError(f"{path}: it is not a regular file", errno=errno.EINVAL, filename=path)


def rename_free(source: Path, destination: Path) -> None:
    """Rename in one step. Raises ``TargetExists`` if anything, even a broken link, has the name, and ``OSError``.

    Where the file system can neither do that in one step nor make hard links, the name is looked at first: a file that
    gets it between the look and the rename, microseconds later, is replaced.
    """
    failed = system.rename_free(source, destination)
    if failed in _CANNOT:
        failed = _link_and_unlink(source, destination)
    if failed == errno.EEXIST:
        raise TargetExists(f"{destination}: it exists; {HOW_TO_REPLACE}", filename=destination)
    if failed:
        raise OSError(failed, os.strerror(failed))


def _link_and_unlink(source: Path, destination: Path) -> int:
    try:
        destination.hardlink_to(source)
    except FileExistsError:
        return errno.EEXIST
    except OSError:
        if os.path.lexists(destination):
            return errno.EEXIST
        system.replace(source, destination)
    else:
        source.unlink()
    return 0


def replace(source: Path, destination: Path) -> None:
    """Rename in one step, in the place of a plain file or a link to one. Raises ``DiskError`` for anything else that
    has the name, and ``OSError``.
    """
    check_place(destination)
    system.replace(source, destination)


def set_mode(fd: int, *, private: bool) -> None:
    """The mode of a file that only this user may read, or that of any new file."""
    # A file system without modes is no reason to lose a finished file.
    with contextlib.suppress(OSError):
        system.set_mode(fd, private=private)


def set_time(fd: int, modified_time: float | None) -> None:
    """The time of the last change, in seconds since the epoch, where the file system can hold it. None: as it is."""
    if modified_time is not None:
        with contextlib.suppress(OSError, OverflowError, ValueError):
            system.set_time(fd, modified_time)
