"""Tells our files in a directory from other programs'.

A name proves nothing: ``x.part`` may be a browser's. A file that we have created has a mark, an extended attribute,
which no server can set and which survives renaming. On file systems without extended attributes, the saved state beside
a part file must vouch for it. A file that another user owns or could have written is never trusted, even with a mark,
as far as the file system records owners and modes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from rangefetch.disk import system
from rangefetch.importing import no_fork

__all__ = [
    "NotOurs",
    "hold",
    "holder_of",
    "is_marked",
    "is_marked_file",
    "is_of",
    "is_trusted",
    "mark",
    "may_be_ours",
    "opened_regular",
    "read_own",
    "unmark",
]

_MARK = "user.rangefetch.unfinished"
_HOLDER = "user.rangefetch.holder"
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
_PLAINLY = os.O_RDONLY | system.NO_LINK


class NotOurs(ValueError):
    """The file may have been written by another user or program; the message says why."""


def mark(fd: int, url: str) -> bool:
    """Mark an open file or directory as created by us for ``url``. Returns False if the file system has no extended
    attributes."""
    try:
        system.set_attribute(fd, _MARK, _value(url))
    except OSError:
        return False
    return True


def unmark(fd: int) -> None:
    """Remove the mark from a file that is the user's now."""
    for name in (_MARK, _HOLDER):
        with contextlib.suppress(OSError):
            system.remove_attribute(fd, name)


def hold(fd: int) -> None:
    """Record in an attribute of an open file that this process has locked it."""
    with contextlib.suppress(OSError):
        system.set_attribute(fd, _HOLDER, f"{os.getpid()} {system.host_name()}".encode())


def holder_of(fd: int) -> str:
    """A description of the holder of a locked file."""
    pid, host = "", ""
    with contextlib.suppress(OSError):
        pid, _, host = system.attribute(fd, _HOLDER).decode(errors="replace").partition(" ")
    if not (pid.isascii() and pid.isdecimal()):
        return "another download"
    if host != system.host_name():
        return f"a download of process {pid} on {host if host.isprintable() and host else 'another machine'}"
    return "another download of this process" if int(pid) == os.getpid() else f"a download of process {pid}"


def is_marked(fd: int) -> bool:
    """Whether the open file or directory was created by us."""
    return _mark_of(fd) != b""


@contextlib.contextmanager
def opened_regular(path: Path) -> Iterator[tuple[int, os.stat_result] | None]:
    """Open a regular file for reading, and yield its descriptor and status; yield None for a symbolic link, for
    anything else that is not a regular file, and for a file that cannot be opened.
    """
    try:
        fd = system.open_file(path, _PLAINLY)
    except OSError:
        yield None
        return
    try:
        status = os.fstat(fd)
        yield (fd, status) if stat.S_ISREG(status.st_mode) else None
    finally:
        os.close(fd)


def is_marked_file(path: Path) -> bool:
    """Whether the path is a regular file of this user's that was created by us."""
    with opened_regular(path) as found:
        return found is not None and is_marked(found[0]) and is_trusted(found[1], path.parent)


def may_be_ours(path: Path) -> bool:
    """Whether the path may be a regular file that we have created: it is this user's, and has a mark if the file system
    supports marks. For callers that remember having created it.
    """
    with opened_regular(path) as found:
        return found is not None and is_trusted(found[1], path.parent) and _lacks_no_mark(found[0])


def is_of(fd: int, url: str) -> bool:
    """Whether the open file or directory was created by us for ``url``."""
    return _mark_of(fd) == _value(url)


def is_trusted(status: os.stat_result, directory: Path) -> bool:
    """Whether only this user could have written a file in ``directory``, as far as the file system tells.

    File systems without owners and modes (FAT, exFAT, some network file systems) show the same ones for all files. So
    if a newly created file has the same owner and mode, the file is trusted.
    """
    if system.is_safe_from_others(status):
        return True
    name = directory / f".rangefetch-{os.urandom(8).hex()}.tmp"
    try:
        fd = system.open_file(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except OSError:
        return False
    try:
        new = os.fstat(fd)
    finally:
        os.close(fd)
        with contextlib.suppress(OSError):
            name.unlink()
    return (new.st_uid, new.st_mode & _OTHERS_MAY_WRITE) == (status.st_uid, status.st_mode & _OTHERS_MAY_WRITE)


def read_own(path: Path, most_bytes: int, *, trusted: bool = False) -> tuple[bytes, bool]:
    """Read a small file. Returns its content, and whether it is marked.

    Raises ``NotOurs`` if it is not a regular file, is longer than ``most_bytes``, or is not trusted; with ``trusted``
    the last check is skipped. Raises ``OSError``.
    """
    fd = system.open_file(path, _PLAINLY)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise NotOurs("it is not a regular file")
        if not trusted and not is_trusted(status, path.parent):
            raise NotOurs("another user owns it or can write to it")
        with os.fdopen(fd, "rb", closefd=False) as file:
            octets = file.read(most_bytes + 1)
        if len(octets) > most_bytes:
            raise NotOurs(f"it has more than {most_bytes} bytes")
        return octets, is_marked(fd)
    finally:
        os.close(fd)


def _value(url: str) -> bytes:
    with no_fork:
        import hashlib

    return hashlib.sha256(url.encode(errors="surrogateescape")).hexdigest()[:16].encode()


def _mark_of(fd: int) -> bytes:
    with contextlib.suppress(OSError):
        return system.attribute(fd, _MARK)
    return b""


def _lacks_no_mark(fd: int) -> bool:
    try:
        return system.attribute(fd, _MARK) != b""
    except OSError as error:
        return error.errno in (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
