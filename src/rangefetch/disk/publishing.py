"""Giving a complete file its final name, in one step.

No incomplete file ever has that name, no matter when the process is killed. Only plain files are replaced, and only on
request.
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
    """Raises the file system's ``OSError`` if it refuses the name: because it is too long, or contains a character
    that this file system does not allow (``:`` on FAT).
    """
    system.check_path(path)
    if is_plain_filename(path.name):
        return
    # File systems reject characters only when a file is created. The trial file must not have the final name, not even
    # for a moment.
    trial = path.with_name(path.name + ".tmp")
    try:
        os.close(system.open_file(trial, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EILSEQ):
            raise
    else:
        trial.unlink()


def check_place(path: Path) -> None:
    """Raises ``DiskError`` if the name is taken by something other than a plain file: a directory, device, FIFO or
    socket, or a link to one of these. Nobody means to replace one of these by a file.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # nothing has the name, or a broken link
    if stat.S_ISDIR(mode):
        raise DiskError(f"{path}: it is a directory", errno=errno.EISDIR, filename=path)
    if not stat.S_ISREG(mode):
        raise DiskError(f"{path}: it is not a regular file", errno=errno.EINVAL, filename=path)


def rename_free(source: Path, destination: Path) -> None:
    """Rename in one step, without replacing. Raises ``TargetExists`` if anything, even a broken link, has the name, and
    ``OSError``.

    On file systems with neither such a rename nor hard links, the name is checked first: a file that gets it between
    the check and the rename, microseconds later, is replaced.
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
    """Rename in one step, replacing a plain file or a link to one. Raises ``DiskError`` if anything else has the name,
    and ``OSError``.
    """
    check_place(destination)
    system.replace(source, destination)


def set_mode(fd: int, *, private: bool) -> None:
    """Set the mode to 0600 (``private``), or to that of an ordinary new file. Errors are ignored."""
    # A file system without modes is no reason to lose a finished file.
    with contextlib.suppress(OSError):
        system.set_mode(fd, private=private)


def set_time(fd: int, modified_time: float | None) -> None:
    """Set the modification time, in seconds since the epoch; None leaves it. Errors are ignored."""
    if modified_time is not None:
        with contextlib.suppress(OSError, OverflowError, ValueError):
            system.set_time(fd, modified_time)
