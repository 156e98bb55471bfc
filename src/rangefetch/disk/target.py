"""The place on disk that one download writes, from its part file to its final name.

While it is unfinished a download is ``NAME.part`` (``parts``), locked by whoever writes it, with its state beside it in
``NAME.part.json``; while aria2 is at it, ``NAME.part.aria2`` says what is there. The final name appears in one step,
after the last byte (``publishing``). What the bytes are is not known here: the engine writes them through
:attr:`Target.fd`.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, Self

from rangefetch import records
from rangefetch.disk import beside, locks, publishing, state, system
from rangefetch.disk.names import is_filename
from rangefetch.disk.ownership import is_marked_file, unmark
from rangefetch.disk.parts import (
    Part,
    claim,
    control_path_of,
    create_part,
    find_part,
    free_part_path,
    is_open_on,
    open_part,
    part_path,
    state_path_of,
    stem_of,
    take_part,
)
from rangefetch.disk.replacing import copy_content
from rangefetch.errors import DiskError, DownloadError, TargetExists, TargetLocked
from rangefetch.importing import no_fork

__all__ = ["Place", "Target", "disk_errors", "free_space", "part_path"]


class Place(Protocol):
    """What a download has on disk while it is at work."""

    fd: int
    """-1: it was given up."""

    @property
    def has_lost_writes(self) -> bool: ...
    def discard(self) -> None: ...
    def close(self) -> None: ...


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

    _lost: DiskError | None = None  # the first error of a sync

    def __init__(self, part: Part, path: Path | None, url: str = "") -> None:
        """Use :meth:`open`. Owns the descriptor of ``part``."""
        self.fd = part.fd
        self.fresh = os.fstat(part.fd).st_size == 0
        self.part_path = part.path
        self.state_path = state_path_of(part.path)
        self.directory = part.path.parent
        self.path = path
        self._url = url
        self._needs_state = not part.marked  # or nothing would tell that the part file is ours

    @classmethod
    def open(cls, directory: str | os.PathLike[str], filename: str, url: str, *, adopt: bool = False) -> Self:
        """Open and lock the part file of ``filename`` in ``directory``. What is missing is made, the file mode 0600.

        Without a ``filename`` the part file is named after a hash (``parts``), and :meth:`name` gives the
        final name later. ``filename`` is the user's; a server's goes through ``rangefetch.disk.names`` first. What has
        the name of the part file or its state and is not ours is left alone, and another name is taken. ``adopt``
        counts as ours what has aria2's control file beside it. The state of a fresh part file is removed: it speaks
        of bytes that are gone.

        Raises ``TargetLocked`` if another download is writing the part file, and ``DiskError`` if the directory or
        the file cannot be, or if what has the final name is no plain file.
        """
        folder = Path(directory).absolute()
        with disk_errors("use the directory", folder):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except FileExistsError:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
        path = _final_path(folder, filename) if filename else None
        with disk_errors("open", part_path(folder, filename, url)):
            return cls(open_part(folder, filename, url, adopt=adopt), path, url)

    @classmethod
    def find(cls, directory: str | os.PathLike[str], filename: str, url: str) -> Self | None:
        """Open and lock the part file that a download of ``url`` has left, if there is one; nothing is created.

        Raises ``TargetLocked``, ``DiskError``.
        """
        folder = Path(directory).absolute()
        with disk_errors("open", part_path(folder, filename, url)):
            part = find_part(folder, filename, url)
            return cls(part, folder / filename if filename else None, url) if part is not None else None

    @classmethod
    def take(cls, part_path: Path, url: str) -> Self | None:
        """Open and lock the part file that a download of another URL has left; it is of ``url`` from now on. None: it
        is not there any more, or that download has it. Raises ``DiskError``.
        """
        with disk_errors("open", part_path), contextlib.suppress(TargetLocked):
            part = take_part(part_path, url)
            return cls(part, None, url) if part is not None else None
        return None

    @property
    def control_path(self) -> Path:
        """Where aria2 notes what is there."""
        return control_path_of(self.part_path)

    def name(self, filename: str) -> Path:
        """Choose the final name, one path component, and return the path. Nothing is created yet.

        Raises ``DiskError`` if it is not a plain file name, the file system refuses it, or what has it is no plain
        file.
        """
        self.path = _final_path(self.directory, filename)
        return self.path

    def save_state(self, saved: state.State) -> None:
        """Save the state, with a sample of the part file. What it calls written must have been synced before.

        Raises ``DiskError``, and ``ValueError`` for a state that makes no sense.
        """
        with disk_errors("read", self.part_path):
            sample = state.sample_of(self.fd, saved)
        state.save(self.state_path, records.replace(saved, sample=sample))

    def truncate(self, size_bytes: int = 0) -> None:
        """Drop what lies beyond ``size_bytes`` and, before it, the state that may speak of it."""
        with disk_errors("truncate", self.part_path):
            self._forget()
            os.ftruncate(self.fd, size_bytes)

    @property
    def has_lost_writes(self) -> bool:
        """Whether something that was written may never have reached the disk, so that only what had been synced
        before counts.
        """
        return self._lost is not None

    def sync(self) -> None:
        """Return when all that was written so far would survive a power failure.

        Once that has failed it fails for good. Linux tells of an error once, and drops what could not be written: the
        next fsync succeeds (fsync(2), "ERRORS").
        """
        self._check_writes(system.sync)

    def _check_writes(self, check: Callable[[int], object]) -> None:
        """Have ``check`` say what became of earlier writes. Raises ``DiskError``, and ever after the first time."""
        if self._lost is not None:
            raise DiskError(self._lost.reason, errno=self._lost.errno or 0, filename=self.part_path)
        try:
            with disk_errors("sync", self.part_path):
                check(self.fd)
        except DiskError as error:
            self._lost = error
            raise

    def end_at(self, size_bytes: int) -> None:
        """Drop what another program has put beyond the end of a file that is whole. Raises ``DiskError``, also where
        one has cut the file: bytes that were written are gone then.
        """
        with disk_errors("set the length", self.part_path):
            found = os.fstat(self.fd).st_size
            if found > size_bytes:
                os.ftruncate(self.fd, size_bytes)
        if found < size_bytes:
            words = f"{self.part_path}: another program has shortened it"
            raise DiskError(words, errno=errno.EIO, filename=self.part_path)

    def publish(self, *, overwrite: bool, modified_time: float | None, durable: bool) -> Path:
        """Give the part file its final name in one step, remove the state, close, and return the path.

        The file gets ``modified_time`` (seconds since the epoch; None: left as it is) and the mode that the
        umask gives a new file, as far as the file system holds them. ``durable`` syncs file and directory. A
        symbolic link that has the final name is replaced itself, not what it points to.

        Raises ``TargetExists`` if the name is taken and ``overwrite`` is off, even if it was taken a moment
        ago, ``DiskError``, also for what is no plain file, and ``ValueError`` if the target was never named. Then
        the data is still there, for this user alone to read.
        """
        if self.path is None:
            raise ValueError(f"{self.part_path}: it has no final name yet")
        with disk_errors("publish", self.path):
            self._check_still_ours()
            publishing.set_time(self.fd, modified_time)
            publishing.set_mode(self.fd, private=False)
            try:
                self._check_writes(system.sync if durable else _report_delayed_errors)
                rename = publishing.replace if overwrite else publishing.rename_free
                rename(self.part_path, self.path)
            except BaseException:
                publishing.set_mode(self.fd, private=True)
                raise
        # From here on the file has its name, whatever becomes of what is beside it.
        with contextlib.suppress(OSError):
            unmark(self.fd)
        with contextlib.suppress(OSError):
            self._remove_beside()
        with contextlib.suppress(OSError):
            self.close()
        if durable:
            with disk_errors("make sure that it keeps its name", self.path):
                system.sync_directory(self.directory)
        return self.path

    def set_aside(self, reason: str) -> Path:
        """Rename a part file that proved wrong to ``NAME.bad``, remove the state, close.

        One that was set aside before is replaced; where something else has that name, the next one is taken
        (``NAME.bad.1`` ...). Logs ``reason`` and returns the new path.
        """
        with no_fork:
            from rangefetch.logs import log

        stem = stem_of(self.path.name, "") if self.path else self.part_path.stem
        bad_path = self.directory / f"{stem}.bad"
        with disk_errors("set aside", self.part_path):
            self._check_still_ours()
            for number in itertools.count(1):
                if is_marked_file(bad_path):
                    system.replace(self.part_path, bad_path)
                    break
                with contextlib.suppress(TargetExists):
                    publishing.rename_free(self.part_path, bad_path)
                    break
                bad_path = self.directory / f"{stem}.bad.{number}"
            self._remove_beside()
        self.close()
        log.info("%s: %s; kept as %s", self.part_path, reason, bad_path)
        return bad_path

    def move(self, directory: str | os.PathLike[str], filename: str) -> None:
        """Move part file and state to where :meth:`open` looks for them by this directory and name, and close.

        On another file system they are copied, and deleted here when all is there. Raises ``TargetExists`` if an
        unfinished download is there, and ``DiskError``; then all is where it was.
        """
        folder = Path(directory).absolute()
        with disk_errors("use the directory", folder):
            folder.mkdir(parents=True, exist_ok=True)
        if filename:
            _final_path(folder, filename)
        with disk_errors("move", self.part_path):
            self._check_still_ours()
            new_path = free_part_path(folder, filename, self._url)
            try:
                saved: state.State | None = state.load(self.state_path)
            except (FileNotFoundError, state.StateDamaged):
                saved = None
            if saved is not None and filename:
                saved = records.replace(saved, filename=filename)
            if folder.stat().st_dev == os.fstat(self.fd).st_dev:
                self._move_by_rename(new_path, saved)
            else:
                self._move_by_copy(new_path, saved)
        self.close()

    def _move_by_rename(self, new_path: Path, saved: state.State | None) -> None:
        # The state first: at no moment is the data where no state speaks of it.
        if saved is not None:
            state.save(state_path_of(new_path), saved)
        try:
            publishing.rename_free(self.part_path, new_path)
        except BaseException:
            state_path_of(new_path).unlink(missing_ok=True)
            raise
        if beside.is_ours(self.control_path):
            system.replace(self.control_path, control_path_of(new_path))
        self._remove_beside()

    def _move_by_copy(self, new_path: Path, saved: state.State | None) -> None:
        copy = type(self)(create_part(new_path, self._url), None, self._url)
        try:
            copy_content(self.fd, copy.fd)
            copy.sync()
            if saved is not None:
                copy.save_state(saved)
        except BaseException:
            copy.discard()
            raise
        copy.close()
        self.part_path.unlink()
        self._remove_beside()

    def discard(self) -> None:
        """Delete part file and state, and close. What another program has put in their place stays."""
        with disk_errors("remove", self.part_path):
            if self.fd >= 0 and is_open_on(self.fd, self.part_path):
                self.part_path.unlink()
                self._remove_beside()
        self.close()

    def close(self) -> None:
        """Release the lock and keep the files. Closing twice is fine."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            locks.unlock_and_close(fd)

    def _forget(self) -> None:
        """Remove what speaks of the bytes."""
        if self._needs_state:
            state.save(self.state_path, claim(self._url))
        else:
            self.state_path.unlink(missing_ok=True)
        beside.remove_control(self.part_path)

    def _remove_beside(self) -> None:
        """The part file is not there any more: what is beside it has no use."""
        self.state_path.unlink(missing_ok=True)
        beside.remove_control(self.part_path)

    def _check_still_ours(self) -> None:
        if not is_open_on(self.fd, self.part_path):
            reason = "another program removed or replaced it while it was being written"
            raise DiskError(f"{self.part_path}: {reason}", errno=errno.ENOENT, filename=self.part_path)


def free_space(directory: str | os.PathLike[str]) -> int:
    """The bytes this user may still write on the file system of ``directory``. Raises ``DiskError``.

    One that does not count its blocks (ramfs) has all there could be.
    """
    with disk_errors("ask for the free space", Path(directory)):
        return system.free_bytes(directory)


@contextlib.contextmanager
def disk_errors(action: str, path: Path) -> Iterator[None]:
    """Let an ``OSError`` of the body out as a ``DiskError`` with the same ``errno``, naming ``path``, or what the
    system has refused where that is another file: the state beside a part file, say."""
    try:
        yield
    except DownloadError:  # some of these are OSErrors as well
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        if isinstance(error.filename, str) and error.filename2 is None and Path(error.filename).is_absolute():
            path = Path(error.filename)
        raise DiskError(f"{path}: cannot {action}: {reason}", errno=error.errno or 0, filename=path) from error


def _final_path(directory: Path, filename: str) -> Path:
    if not is_filename(filename):
        words = f"{directory}: {filename!r} is not a plain file name"
        raise DiskError(words, errno=errno.EINVAL, filename=directory)
    path = directory / filename
    with disk_errors("use the name", path):
        publishing.check_name(path)
    publishing.check_place(path)
    return path


def _report_delayed_errors(fd: int) -> None:
    """Raise what a file system that writes later (NFS, FUSE) has to say of earlier writes: it does so at any close.

    On local file systems this neither writes nor waits (close(2), "Dealing with error returns from close()").
    """
    os.close(os.dup(fd))
