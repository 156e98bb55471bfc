"""Linux, macOS and their like: the half of ``system`` that most of it was written for.

All functions raise ``OSError``, with the ``errno`` of the system.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rangefetch.importing import no_fork, ready_tempfile

__all__ = [
    "CREATES_IN_DIRECTORIES",
    "NOT_IN_NAMES",
    "NO_LINK",
    "PROGRAM_SUFFIX",
    "RESERVES_NAMES",
    "REUSES_PORTS",
    "TERMINATION_IS_GENTLE",
    "allocated_bytes",
    "apart",
    "attribute",
    "check_path",
    "create_unseen",
    "free_bytes",
    "host_name",
    "is_own",
    "is_private",
    "is_safe_from_others",
    "linux_release",
    "lock",
    "most_open_files",
    "open_directory",
    "open_file",
    "open_scratch",
    "open_temporary",
    "physical_bytes",
    "pread",
    "pwrite",
    "read_into",
    "remove_attribute",
    "rename_free",
    "replace",
    "set_attribute",
    "set_mode",
    "set_time",
    "sync",
    "sync_directory",
    "sync_file",
    "umask",
    "unlock",
]

assert sys.platform != "win32"

NO_LINK = os.O_NOFOLLOW
"""For ``open_file`` and ``open_directory``: not where the name is a symbolic link."""

NOT_IN_NAMES = frozenset("/\0")
"""Characters that no name of a file has."""

RESERVES_NAMES = False
"""Whether some names are those of devices, and whether dots and spaces at the end of a name are lost."""

CREATES_IN_DIRECTORIES = True

"""Whether a file can be created and named by the descriptor of its directory, as the engine does with small ones."""

PROGRAM_SUFFIX = ""
"""What the names of programs end in."""

REUSES_PORTS = True
"""Whether SO_REUSEADDR means that connections which were closed a moment ago do not matter, and no more than that."""

TERMINATION_IS_GENTLE = True
"""Whether a process that is terminated can save what it has."""

# Opening a named pipe must not wait for its other end. For files it makes no difference.
_ALWAYS = os.O_NONBLOCK | os.O_CLOEXEC
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
_umask_lock = threading.Lock()

# -- files that are open -----------------------------------------------------------------------------------------------

pread = os.pread
pwrite = os.pwrite


def open_file(path: str | os.PathLike[str], flags: int, mode: int = 0o600) -> int:
    """A descriptor, which no child inherits. ``flags`` are those of ``os.open``, and ``NO_LINK``.

    While it is open the file can be renamed, replaced and deleted. Waits for nobody.
    """
    return os.open(path, flags | _ALWAYS, mode)


def open_directory(path: str | os.PathLike[str], flags: int = 0) -> int:
    """A descriptor of the directory itself, to be locked and compared; not to be read."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | flags)


def create_unseen(path: Path, prepare: Callable[[int], bool]) -> int:
    """A new file that ``prepare`` gets before it has its name; -1 where that cannot be, or ``prepare`` says False."""
    if not hasattr(os, "O_TMPFILE"):
        return -1
    directory_fd = open_directory(path.parent)
    fd = -1
    try:
        fd = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=directory_fd)
        if prepare(fd):
            os.link(f"/proc/self/fd/{fd}", path.name, dst_dir_fd=directory_fd, follow_symlinks=True)
            made, fd = fd, -1
            return made
    finally:
        if fd >= 0:
            os.close(fd)
        os.close(directory_fd)
    return -1


def open_temporary() -> tuple[int, Path]:
    """An empty file for reading and writing that is gone when it is closed, and where it is (TMPDIR)."""
    ready_tempfile()
    with no_fork:
        import tempfile

    fd, name = tempfile.mkstemp(prefix="rangefetch-")
    path = Path(name)
    path.unlink()
    return fd, path


def open_scratch() -> int:
    """The same in memory, where that can be."""
    if hasattr(os, "memfd_create"):
        with contextlib.suppress(OSError):
            return int(os.memfd_create("rangefetch-scratch", os.MFD_CLOEXEC))
    return open_temporary()[0]


def read_into(fd: int, buffer: memoryview, at: int) -> int:
    """Read at ``at`` into ``buffer``; the number of bytes, 0 at the end of the file."""
    if hasattr(os, "preadv"):
        return int(os.preadv(fd, [buffer], at))
    octets = os.pread(fd, len(buffer), at)  # macOS before 11
    buffer[: len(octets)] = octets
    return len(octets)


def lock(fd: int) -> None:
    """Lock the open file (flock(2)). Raises ``BlockingIOError`` if it is locked through another ``open``."""
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def unlock(fd: int) -> None:
    """Release the lock; closing does so, too, unless a child that was forked shares the open file."""
    fcntl.flock(fd, fcntl.LOCK_UN)


def sync(fd: int) -> None:
    """Return when what was written would survive a power failure."""
    if sys.platform == "darwin":
        try:
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # fsync stops at the drive's cache there
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOTTY):
                raise
        else:
            return
    os.fsync(fd)


def set_mode(fd: int, *, private: bool) -> None:
    """The mode of a file that only this user may read, or that of any new file."""
    os.fchmod(fd, 0o600 if private else 0o666 & ~umask())


def set_time(fd: int, modified_s: float) -> None:
    """The time of the last change, in seconds since the epoch. Raises ``OverflowError``, too."""
    os.utime(fd, (os.fstat(fd).st_atime, modified_s))


def set_attribute(fd: int, name: str, octets: bytes) -> None:
    """Keep something with the file, by a name that begins with ``user.`` (xattr(7))."""
    if not hasattr(os, "setxattr"):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    os.setxattr(fd, name, octets)


def attribute(file: int | str, name: str) -> bytes:
    """What is kept with a file that is open, or has that path and is no link."""
    if not hasattr(os, "getxattr"):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    return bytes(os.getxattr(file, name) if isinstance(file, int) else os.getxattr(file, name, follow_symlinks=False))


def remove_attribute(fd: int, name: str) -> None:
    """Keep it no more."""
    if hasattr(os, "removexattr"):
        os.removexattr(fd, name)


# -- names -------------------------------------------------------------------------------------------------------------

replace = os.replace


def rename_free(source: Path, destination: Path) -> int:
    """Rename in one step, where nothing has the new name; 0, or the ``errno``.

    ENOSYS where only the engine could do it, which is not there.
    """
    try:
        with no_fork:
            import rangefetch._engine as engine
    except ImportError:
        return errno.ENOSYS
    return engine.rename_free(os.fsencode(source), os.fsencode(destination))


def check_path(path: Path) -> None:
    """Raises the ``OSError`` with which the system refuses a name that is too long."""
    with contextlib.suppress(FileNotFoundError):
        path.lstat()


def sync_directory(directory: Path) -> None:
    """Return when the names in it would survive a power failure."""
    fd = open_directory(directory)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot
            raise
    finally:
        os.close(fd)


def sync_file(path: Path) -> None:
    """Return when the file, which no link leads to, would survive a power failure."""
    fd = open_file(path, os.O_RDONLY | NO_LINK)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def free_bytes(directory: str | os.PathLike[str]) -> int:
    """What this user may still write there. One that does not count its blocks (ramfs) has all there could be."""
    figures = os.statvfs(directory)
    return figures.f_bavail * figures.f_frsize if figures.f_blocks else sys.maxsize


# -- whose they are ----------------------------------------------------------------------------------------------------


def is_own(status: os.stat_result) -> bool:
    """Whether it is this user's."""
    return status.st_uid == os.geteuid()


def is_safe_from_others(status: os.stat_result) -> bool:
    """Whether it is this user's, and nobody else may write it."""
    return status.st_uid == os.geteuid() and not status.st_mode & _OTHERS_MAY_WRITE


def is_private(status: os.stat_result) -> bool:
    """Whether nobody but its owner may read it."""
    return not status.st_mode & 0o077


def allocated_bytes(status: os.stat_result) -> int:
    """What the file system has given to it."""
    return status.st_blocks * 512


def umask() -> int:
    """The process's umask now."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        # Linux tells without a change, which other threads could see.
        return int(Path("/proc/self/status").read_bytes().partition(b"Umask:")[2].split(None, 1)[0], 8)
    return _asked_umask()


@functools.cache
def _asked_umask() -> int:
    """The process's umask, asked for once."""
    # Asking means setting; to 077, so that no file that another thread creates just then is too open.
    with _umask_lock:
        mask = os.umask(0o077)
        os.umask(mask)
    return mask


# -- the process, and others -------------------------------------------------------------------------------------------


def host_name() -> str:
    """What this machine is called."""
    return os.uname().nodename


def linux_release() -> str:
    """The version of Linux; "" where that is not what runs."""
    return os.uname().release if sys.platform == "linux" else ""


def physical_bytes() -> int:
    """The memory of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def most_open_files() -> int:
    """How many files this process may have open."""
    with no_fork:
        import resource

    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if most == resource.RLIM_INFINITY else most


def apart() -> dict[str, Any]:
    """For ``subprocess.Popen``: away from the terminal's Ctrl-C, and what it writes is nobody else's."""
    return {"start_new_session": True, "umask": 0o077}
