"""The part of ``system`` for Linux, macOS and similar systems.

All functions raise ``OSError`` with the system's ``errno``.
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
"""A flag for ``open_file`` and ``open_directory``: fail if the name is a symbolic link."""

NOT_IN_NAMES = frozenset("/\0")
"""Characters that no file name can contain."""

RESERVES_NAMES = False
"""Whether some names are reserved for devices, and trailing dots and spaces of a name are dropped."""

CREATES_IN_DIRECTORIES = True
"""Whether files can be created and named relative to a directory descriptor, as the engine does with small files."""

PROGRAM_SUFFIX = ""
"""The suffix of program names."""

REUSES_PORTS = True
"""Whether SO_REUSEADDR does no more than ignore recently closed connections."""

TERMINATION_IS_GENTLE = True
"""Whether a terminated process has a chance to save its state."""

# O_NONBLOCK, so that opening a named pipe does not wait for its other end. It makes no difference to regular files.
_ALWAYS = os.O_NONBLOCK | os.O_CLOEXEC
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
_umask_lock = threading.Lock()

# -- files that are open -----------------------------------------------------------------------------------------------

pread = os.pread
pwrite = os.pwrite


def open_file(path: str | os.PathLike[str], flags: int, mode: int = 0o600) -> int:
    """Open a file. ``flags`` are those of ``os.open``, and ``NO_LINK``. Children do not inherit the descriptor.

    While it is open, the file can be renamed, replaced and deleted. Never blocks.
    """
    return os.open(path, flags | _ALWAYS, mode)


def open_directory(path: str | os.PathLike[str], flags: int = 0) -> int:
    """A descriptor of the directory, for locking and comparing; it is not for listing the directory."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | flags)


def create_unseen(path: Path, prepare: Callable[[int], bool]) -> int:
    """Create a file and call ``prepare`` with its descriptor before the file gets its name.

    Returns the descriptor, or -1 if ``prepare`` returns False or the system cannot do this.
    """
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
    """A temporary file in TMPDIR, which disappears when it is closed. Returns its descriptor and path."""
    ready_tempfile()
    with no_fork:
        import tempfile

    fd, name = tempfile.mkstemp(prefix="rangefetch-")
    path = Path(name)
    path.unlink()
    return fd, path


def open_scratch() -> int:
    """A temporary file in memory if possible, else on disk."""
    if hasattr(os, "memfd_create"):
        with contextlib.suppress(OSError):
            return int(os.memfd_create("rangefetch-scratch", os.MFD_CLOEXEC))
    return open_temporary()[0]


def read_into(fd: int, buffer: memoryview, at: int) -> int:
    """Read at offset ``at`` into ``buffer``. Returns the number of bytes, 0 at the end of the file."""
    if hasattr(os, "preadv"):
        return int(os.preadv(fd, [buffer], at))
    octets = os.pread(fd, len(buffer), at)  # macOS before 11
    buffer[: len(octets)] = octets
    return len(octets)


def lock(fd: int) -> None:
    """Lock the open file (flock(2)). Raises ``BlockingIOError`` if it is locked through another ``open``."""
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def unlock(fd: int) -> None:
    """Release the lock. Closing the file also does, unless a forked child shares the open file."""
    fcntl.flock(fd, fcntl.LOCK_UN)


def sync(fd: int) -> None:
    """Sync the file's data to disk, so that it would survive a power failure."""
    if sys.platform == "darwin":
        try:
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # on macOS, fsync does not flush the drive's cache
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOTTY):
                raise
        else:
            return
    os.fsync(fd)


def set_mode(fd: int, *, private: bool) -> None:
    """Set the mode to 0600 (``private``), or to that of an ordinary new file."""
    os.fchmod(fd, 0o600 if private else 0o666 & ~umask())


def set_time(fd: int, modified_s: float) -> None:
    """Set the modification time, in seconds since the epoch. Also raises ``OverflowError``."""
    os.utime(fd, (os.fstat(fd).st_atime, modified_s))


def set_attribute(fd: int, name: str, octets: bytes) -> None:
    """Set an extended attribute of the file (xattr(7)). ``name`` must begin with ``user.``."""
    if not hasattr(os, "setxattr"):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    os.setxattr(fd, name, octets)


def attribute(file: int | str, name: str) -> bytes:
    """The value of an extended attribute of an open file, or of the file at a path that is not a symbolic link."""
    if not hasattr(os, "getxattr"):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    return bytes(os.getxattr(file, name) if isinstance(file, int) else os.getxattr(file, name, follow_symlinks=False))


def remove_attribute(fd: int, name: str) -> None:
    """Remove an extended attribute."""
    if hasattr(os, "removexattr"):
        os.removexattr(fd, name)


# -- names -------------------------------------------------------------------------------------------------------------

replace = os.replace


def rename_free(source: Path, destination: Path) -> int:
    """Rename in one step, without replacing anything. Returns 0 or the ``errno``.

    It is ENOSYS if this takes the engine and the engine is not available.
    """
    try:
        with no_fork:
            import rangefetch._engine as engine
    except ImportError:
        return errno.ENOSYS
    return engine.rename_free(os.fsencode(source), os.fsencode(destination))


def check_path(path: Path) -> None:
    """Raises the system's ``OSError`` for a name that is too long."""
    with contextlib.suppress(FileNotFoundError):
        path.lstat()


def sync_directory(directory: Path) -> None:
    """Sync the directory, so that the names in it would survive a power failure."""
    fd = open_directory(directory)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot sync directories
            raise
    finally:
        os.close(fd)


def sync_file(path: Path) -> None:
    """Sync the file to disk. Raises ``OSError``, also for a symbolic link."""
    fd = open_file(path, os.O_RDONLY | NO_LINK)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def free_bytes(directory: str | os.PathLike[str]) -> int:
    """The bytes that this user may still write there; ``sys.maxsize`` if the file system does not say (ramfs)."""
    figures = os.statvfs(directory)
    return figures.f_bavail * figures.f_frsize if figures.f_blocks else sys.maxsize


# -- whose they are ----------------------------------------------------------------------------------------------------


def is_own(status: os.stat_result) -> bool:
    """Whether this user owns the file."""
    return status.st_uid == os.geteuid()


def is_safe_from_others(status: os.stat_result) -> bool:
    """Whether this user owns the file, and nobody else may write to it."""
    return status.st_uid == os.geteuid() and not status.st_mode & _OTHERS_MAY_WRITE


def is_private(status: os.stat_result) -> bool:
    """Whether only its owner has access to the file."""
    return not status.st_mode & 0o077


def allocated_bytes(status: os.stat_result) -> int:
    """The space that the file occupies on disk."""
    return status.st_blocks * 512


def umask() -> int:
    """The process's current umask."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        # On Linux it can be read without changing it, which would affect other threads.
        return int(Path("/proc/self/status").read_bytes().partition(b"Umask:")[2].split(None, 1)[0], 8)
    return _asked_umask()


@functools.cache
def _asked_umask() -> int:
    """The process's umask when this was first called."""
    # It can be read only by setting it: to 077, so that a file that another thread creates meanwhile is not too open.
    with _umask_lock:
        mask = os.umask(0o077)
        os.umask(mask)
    return mask


# -- the process, and others -------------------------------------------------------------------------------------------


def host_name() -> str:
    """The name of this machine."""
    return os.uname().nodename


def linux_release() -> str:
    """The kernel release on Linux; "" on other systems."""
    return os.uname().release if sys.platform == "linux" else ""


def physical_bytes() -> int:
    """The size of this machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def most_open_files() -> int:
    """How many files this process may have open."""
    with no_fork:
        import resource

    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if most == resource.RLIM_INFINITY else most


def apart() -> dict[str, Any]:
    """Arguments of ``subprocess.Popen`` for a process that the terminal's Ctrl-C does not reach, and whose files only
    this user may access."""
    return {"start_new_session": True, "umask": 0o077}
