"""The place on disk that one download writes: its names, its lock, and the step by which it becomes a file.

While it is unfinished a download is ``NAME.part``, locked by whoever writes it, with its state beside it in
``NAME.part.json``; while aria2 is at it, ``NAME.part.aria2`` says what is there. The final name appears in one step,
after the last byte. What the bytes are is not known here: the engine writes them through :attr:`Target.fd`.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import os
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

if sys.platform != "win32":
    import fcntl

from rangefetch.errors import DiskError, DownloadError, LocalError, TargetExists, TargetLocked
from rangefetch.names import MAX_NAME_BYTES

__all__ = ["Target", "free_space", "part_path", "umask"]

_NO_LOCKS_HERE = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
_umask_lock = threading.Lock()


class Target:
    """A part file that this download alone writes, until it is published, set aside, discarded or closed.

    ``fd`` is open for reading and writing (-1: closed); ``fresh``: the part file was missing or empty;
    ``path`` is the final path once named. Paths are absolute, since the working directory may change.

    Methods raise ``DiskError`` with the ``errno`` where the disk refuses. After a publish that was refused
    the target is still open and its files are there.
    """

    keeps_state = True
    """Whether an unfinished download is worth saving."""
    window_bytes = 0
    """How far ahead of the contiguous frontier bytes may come; 0: no limit."""
    read_bytes = 0
    """How far somebody has read already, so that other bytes cannot take the place of those."""

    def __init__(self, fd: int, part_path: Path, state_path: Path, path: Path | None) -> None:
        """Use :meth:`open`. Owns ``fd``, which is locked and open on ``part_path``."""
        self.fd = fd
        self.fresh = os.fstat(fd).st_size == 0
        self.part_path = part_path
        self.state_path = state_path
        self.directory = part_path.parent
        self.path = path

    @classmethod
    def open(cls, directory: str | os.PathLike[str], filename: str, url: str) -> Self:
        """Open and lock the part file of ``filename`` in ``directory``. What is missing is made, the file mode 0600.

        Without a ``filename`` the part file is named after a hash of ``url``, and :meth:`name` gives the
        final name later. ``filename`` is the user's; a server's goes through ``rangefetch.names`` first. The
        state of a fresh part file is removed: it speaks of bytes that are gone.

        Raises ``TargetLocked`` if another download is writing the part file, and ``DiskError`` if the directory
        cannot be, the final name is a directory, or the part file is a link or otherwise no plain file.
        """
        if sys.platform == "win32":
            raise LocalError(
                "on Windows files cannot be opened and locked as safely as they must be; that is not built"
            )
        folder = Path(directory).absolute()
        with _disk_errors("use the directory", folder):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except FileExistsError:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
        path = _final_path(folder, filename) if filename else None
        part = part_path(folder, filename, url)
        state_path = part.with_name(part.name + ".json")
        with _disk_errors("open", part):
            return cls(_open_locked(part, state_path), part, state_path, path)

    @property
    def control_path(self) -> Path:
        """Where aria2 notes what is there."""
        return _control_path(self.part_path)

    def name(self, filename: str) -> Path:
        """Choose the final name, one path component, and return the path. Nothing is created yet.

        Raises ``DiskError`` if a directory has that name, or if it is not a plain file name.
        """
        self.path = _final_path(self.directory, filename)
        return self.path

    def truncate(self, size_bytes: int = 0) -> None:
        """Drop what lies beyond ``size_bytes`` and, before it, the state that may speak of it."""
        with _disk_errors("truncate", self.part_path):
            self._forget()
            os.ftruncate(self.fd, size_bytes)

    def sync(self) -> None:
        """Return when all that was written so far would survive a power failure."""
        with _disk_errors("sync", self.part_path):
            _sync(self.fd)

    def publish(self, *, overwrite: bool, modified_time: float | None, durable: bool) -> Path:
        """Give the part file its final name in one step, remove the state, close, and return the path.

        The file gets ``modified_time`` (seconds since the epoch; None: left as it is) and the mode that the
        umask gives a new file, as far as the file system holds them. ``durable`` syncs file and directory. A
        symbolic link that has the final name is replaced itself, not what it points to.

        Raises ``TargetExists`` if the name is taken and ``overwrite`` is off, even if it was taken a moment
        ago, and ``ValueError`` if the target was never named.
        """
        if self.path is None:
            raise ValueError(f"{self.part_path}: it has no final name yet")
        with _disk_errors("publish", self.path):
            self._check_still_ours()
            _set_time_and_mode(self.fd, modified_time)
            if durable:
                _sync(self.fd)
            if overwrite:
                self.part_path.replace(self.path)
            else:
                _rename_without_replacing(self.part_path, self.path)
            self._forget()
            self.close()
            if durable:
                _sync_directory(self.directory)
        return self.path

    def set_aside(self, reason: str) -> Path:
        """Rename a part file that proved wrong to ``NAME.bad`` (``NAME.bad.1`` ...), remove the state, close.

        Logs ``reason`` and returns the new path. No file is replaced.
        """
        from rangefetch.logs import log

        stem = _stem(self.path.name, "") if self.path else self.part_path.stem
        bad_path = self.directory / f"{stem}.bad"
        with _disk_errors("set aside", self.part_path):
            self._check_still_ours()
            for number in itertools.count(1):
                with contextlib.suppress(TargetExists):
                    _rename_without_replacing(self.part_path, bad_path)
                    break
                bad_path = self.directory / f"{stem}.bad.{number}"
            self._forget()
        self.close()
        log.info("%s: %s; kept as %s", self.part_path, reason, bad_path)
        return bad_path

    def discard(self) -> None:
        """Delete part file and state, and close. What another program has put in their place stays."""
        with _disk_errors("remove", self.part_path):
            if self.fd >= 0 and _is_open_on(self.fd, self.part_path):
                self._forget()
                self.part_path.unlink()
        self.close()

    def close(self) -> None:
        """Release the lock and keep the files. Closing twice is fine."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            _unlock_and_close(fd)

    def _forget(self) -> None:
        """Remove what speaks of the bytes."""
        self.state_path.unlink(missing_ok=True)
        self.control_path.unlink(missing_ok=True)

    def _check_still_ours(self) -> None:
        if not _is_open_on(self.fd, self.part_path):
            reason = "another program removed or replaced it while it was being written"
            raise DiskError(f"{self.part_path}: {reason}", errno=errno.ENOENT)


def part_path(directory: str | os.PathLike[str], filename: str, url: str) -> Path:
    """Where the part file of a download is, as :meth:`Target.open` names it."""
    return Path(directory) / f"{_stem(filename, url)}.part"


def free_space(directory: str | os.PathLike[str]) -> int:
    """The bytes this user may still write on the file system of ``directory``. Raises ``DiskError``.

    One that does not count its blocks (ramfs) has all there could be.
    """
    with _disk_errors("ask for the free space", Path(directory)):
        figures = os.statvfs(directory)
    return figures.f_bavail * figures.f_frsize if figures.f_blocks else sys.maxsize


@contextlib.contextmanager
def _disk_errors(action: str, path: Path) -> Iterator[None]:
    """Let an ``OSError`` of the body out as a ``DiskError`` with the same ``errno``, naming ``path``."""
    try:
        yield
    except DownloadError:  # some of these are OSErrors as well
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise DiskError(f"{path}: cannot {action}: {reason}", errno=error.errno or 0) from error


def _final_path(directory: Path, filename: str) -> Path:
    if filename in ("", ".", "..") or "/" in filename or "\0" in filename:
        raise DiskError(f"{directory}: {filename!r} is not a plain file name", errno=errno.EINVAL)
    path = directory / filename
    # A link to a directory counts as one: nobody means to put a file in its place.
    if path.is_dir():
        raise DiskError(f"{path}: it is a directory", errno=errno.EISDIR)
    return path


def _stem(filename: str, url: str) -> str:
    """``filename``; a name made of a hash where there is none, or where it leaves no room for suffixes."""
    if filename and len(os.fsencode(filename)) <= MAX_NAME_BYTES:
        return filename
    import hashlib

    digest = hashlib.sha256((filename or url).encode(errors="surrogateescape")).hexdigest()
    return f"rangefetch-{digest[:16]}"


def _control_path(part_path: Path) -> Path:
    return part_path.with_name(part_path.name + ".aria2")


def _open_locked(part_path: Path, state_path: Path) -> int:
    """A descriptor of the regular file that is at ``part_path`` now, locked by it alone."""
    for _ in range(32):
        fd = _open_regular(part_path)
        try:
            _lock(fd, part_path)
            # Whoever had the lock may have renamed the file away between our open and our lock.
            if _is_open_on(fd, part_path):
                status = os.fstat(fd)
                if status.st_size == 0:
                    state_path.unlink(missing_ok=True)
                    _control_path(part_path).unlink(missing_ok=True)
                if status.st_nlink == 1:
                    return fd
                # A publish that was cut between its link and its unlink, or a copy made of links: under their
                # other name these bytes must not change.
                part_path.unlink()
        except BaseException:
            os.close(fd)
            raise
        _unlock_and_close(fd)
    raise TargetLocked(f"{part_path}: other downloads keep taking it")


def _open_regular(part_path: Path) -> int:
    if part_path.is_symlink():  # O_NOFOLLOW is for one that appears just now
        raise DiskError(f"{part_path}: it is a symbolic link, and those are not followed", errno=errno.ELOOP)
    fd = os.open(part_path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise DiskError(f"{part_path}: it is not a regular file", errno=errno.EINVAL)
    return fd


def _lock(fd: int, part_path: Path) -> None:
    """Lock the open file, or raise ``TargetLocked``. Where there are no locks, warn and go on."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise TargetLocked(f"{part_path}: another download is writing it") from None
    except OSError as error:
        if error.errno not in _NO_LOCKS_HERE:
            raise
        from rangefetch.logs import log

        log.warning("%s: no locks on this file system; beware", part_path)


def _unlock_and_close(fd: int) -> None:
    # A child forked meanwhile shares the open file: with close alone the lock would live on in it.
    with contextlib.suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


def _is_open_on(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        return False


def _rename_without_replacing(source: Path, destination: Path) -> None:
    """Rename in one step, or raise ``TargetExists`` if anything, even a broken link, has the name."""
    try:
        try:
            destination.hardlink_to(source)
        except FileExistsError:
            raise
        except OSError:
            # No hard links here (FAT, some network file systems). Hold the name with an empty file, so that
            # what gets replaced is our own; where something else is wrong, this says it too.
            os.close(os.open(destination, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            try:
                source.replace(destination)
            except OSError:
                destination.unlink()
                raise
        else:
            source.unlink()
    except FileExistsError:
        raise TargetExists(f"{destination}: it exists, and overwriting was not asked for") from None


def _set_time_and_mode(fd: int, modified_time: float | None) -> None:
    # A file system without modes, or a time beyond what it can hold, is no reason to lose a finished file.
    with contextlib.suppress(OSError):
        os.fchmod(fd, 0o666 & ~umask())
    if modified_time is not None:
        with contextlib.suppress(OSError, OverflowError, ValueError):
            os.utime(fd, (os.fstat(fd).st_atime, modified_time))


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


def _sync(fd: int) -> None:
    if sys.platform == "darwin":
        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # fsync stops at the drive's cache there
            return
    os.fsync(fd)


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot
            raise
    finally:
        os.close(fd)
