"""The place on disk that one download writes to, from its part file to its final name.

An unfinished download is ``NAME.part`` (``parts``), locked by its writer, with its state beside it in
``NAME.part.json``; while aria2 is fetching, ``NAME.part.aria2`` lists the written bytes. The final name appears in one
step, after the last byte (``publishing``). This module does not see the bytes: the engine writes them through
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
    """What a running download has on disk."""

    fd: int
    """-1 once it was released."""

    @property
    def has_lost_writes(self) -> bool: ...
    def discard(self) -> None: ...
    def close(self) -> None: ...


class Target:
    """A part file, exclusively this download's until it is published, set aside, discarded or closed.

    ``fd`` is open for reading and writing (-1: closed). ``fresh`` means that the part file was missing or empty.
    ``path`` is the final path once the target is named. Paths are absolute, since the working directory may change.

    Methods raise ``DiskError`` with the ``errno`` of a failed operation. After a failed publish the target is still
    open and its files are still there.
    """

    keeps_state = True
    """Whether an unfinished download is worth saving."""
    window_bytes = 0
    """How far ahead of the contiguous frontier bytes may be fetched; 0 means no limit."""
    read_bytes = 0
    """How many bytes a reader has already consumed, which therefore cannot be replaced by others."""

    _lost: DiskError | None = None  # the first failure of a sync

    def __init__(self, part: Part, path: Path | None, url: str = "") -> None:
        """Use :meth:`open` instead. Takes ownership of the descriptor of ``part``."""
        self.fd = part.fd
        self.fresh = os.fstat(part.fd).st_size == 0
        self.part_path = part.path
        self.state_path = state_path_of(part.path)
        self.directory = part.path.parent
        self.path = path
        self._url = url
        self._needs_state = not part.marked  # without a mark, only the state shows that the part file is ours

    @classmethod
    def open(cls, directory: str | os.PathLike[str], filename: str, url: str, *, adopt: bool = False) -> Self:
        """Open and lock the part file of ``filename`` in ``directory``. Both are created if missing, the file with mode
        0600.

        Without a ``filename`` the part file is named after a hash (``parts``), and :meth:`name` sets the final name
        later. ``filename`` is the user's; a server's must go through ``rangefetch.disk.names`` first. If a file that is
        not ours has the name of the part file or its state, it is left alone and another name is used. With ``adopt``,
        a file with aria2's control file beside it counts as ours. The state of a fresh part file is removed, since it
        describes bytes that are gone.

        Raises ``TargetLocked`` if another download is writing the part file, and ``DiskError`` if the directory or the
        file cannot be used, or if something other than a plain file has the final name.
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
        """Open and lock the part file that a download of ``url`` has left, if there is one. Creates nothing.

        Raises ``TargetLocked``, ``DiskError``.
        """
        folder = Path(directory).absolute()
        with disk_errors("open", part_path(folder, filename, url)):
            part = find_part(folder, filename, url)
            return cls(part, folder / filename if filename else None, url) if part is not None else None

    @classmethod
    def take(cls, part_path: Path, url: str) -> Self | None:
        """Take over the part file that a download of another URL has left: open and lock it, and mark it as ``url``'s.

        Returns None if it no longer exists or the other download is using it. Raises ``DiskError``.
        """
        with disk_errors("open", part_path), contextlib.suppress(TargetLocked):
            part = take_part(part_path, url)
            return cls(part, None, url) if part is not None else None
        return None

    @property
    def control_path(self) -> Path:
        """The path of aria2's control file."""
        return control_path_of(self.part_path)

    def name(self, filename: str) -> Path:
        """Set the final name, one path component, and return the path. Creates nothing yet.

        Raises ``DiskError`` if it is not a plain file name, if the file system refuses it, or if something other than a
        plain file has it.
        """
        self.path = _final_path(self.directory, filename)
        return self.path

    def save_state(self, saved: state.State) -> None:
        """Save the state, with a sample of the part file. The bytes that it lists as written must have been synced.

        Raises ``DiskError``, also if the part file is not ours any more, and ``ValueError`` for an inconsistent state.
        """
        with disk_errors("read", self.part_path):
            self._check_still_ours()
            sample = state.sample_of(self.fd, saved)
        state.save(self.state_path, records.replace(saved, sample=sample))

    def truncate(self, size_bytes: int = 0) -> None:
        """Cut the part file to ``size_bytes``, after removing the state, which may describe the dropped bytes."""
        with disk_errors("truncate", self.part_path):
            self._forget()
            os.ftruncate(self.fd, size_bytes)

    @property
    def has_lost_writes(self) -> bool:
        """Whether written bytes may be lost, so that only those synced before the error can be relied on."""
        return self._lost is not None

    def sync(self) -> None:
        """Sync everything written so far to disk, so that it would survive a power failure.

        After one failure it always fails: Linux reports an error only once and drops the data that it could not write,
        so that the next fsync succeeds (fsync(2), "ERRORS").
        """
        self._check_writes(system.sync)

    def _check_writes(self, check: Callable[[int], object]) -> None:
        """Call ``check``, which raises ``OSError`` if earlier writes failed. Raises ``DiskError`` then, and in every
        later call."""
        if self._lost is not None:
            raise DiskError(self._lost.reason, errno=self._lost.errno or 0, filename=self.part_path)
        try:
            with disk_errors("sync", self.part_path):
                check(self.fd)
        except DiskError as error:
            self._lost = error
            raise

    def end_at(self, size_bytes: int) -> None:
        """Cut off anything that another program has appended to a complete file.

        Raises ``DiskError``, also if another program has shortened the file, which has lost bytes then.
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

        The file gets ``modified_time`` (seconds since the epoch; None leaves it) and the mode that the umask gives a
        new file, as far as the file system supports them. ``durable`` syncs file and directory. If a symbolic link has
        the final name, the link itself is replaced, not the file it points to.

        Raises ``TargetExists`` if the name is taken, even since a moment ago, and ``overwrite`` is off; ``DiskError``,
        also if something other than a plain file has the name; and ``ValueError`` if the target was never named. The
        data is then still there, readable by this user only.
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
        # The file has its final name now, so errors in cleaning up beside it do not matter.
        with contextlib.suppress(OSError):
            unmark(self.fd)
        with contextlib.suppress(OSError):
            self._remove_beside()
        with contextlib.suppress(OSError):
            self.close()
        if durable:
            with disk_errors("sync its directory", self.path):
                system.sync_directory(self.directory)
        return self.path

    def set_aside(self, reason: str) -> Path:
        """Rename a part file whose content is wrong to ``NAME.bad``, remove the state, and close.

        A file that was set aside earlier is replaced. If something else has that name, the next one is used
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
        """Move part file and state to where :meth:`open` would look for them with these arguments, and close.

        To another file system they are copied, and the originals deleted when the copies are complete. Raises
        ``TargetExists`` if an unfinished download is there, and ``DiskError``; nothing has moved then.
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
        # The state first, so that the data is never at a path without its state.
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
        """Delete part file and state, and close. Files that another program has put in their place stay."""
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
        """Remove the state and control file, or replace the state by a claim if there is no mark."""
        if self._needs_state:
            state.save(self.state_path, claim(self._url))
        else:
            self.state_path.unlink(missing_ok=True)
        beside.remove_control(self.part_path)

    def _remove_beside(self) -> None:
        """Remove the files beside the part file, once that is gone."""
        self.state_path.unlink(missing_ok=True)
        beside.remove_control(self.part_path)

    def _check_still_ours(self) -> None:
        if not is_open_on(self.fd, self.part_path):
            reason = "another program removed or replaced it while it was being written"
            raise DiskError(f"{self.part_path}: {reason}", errno=errno.ENOENT, filename=self.part_path)


def free_space(directory: str | os.PathLike[str]) -> int:
    """The number of bytes that this user may still write on the file system of ``directory``. Raises ``DiskError``.

    A file system that does not count its blocks (ramfs) is taken to be unlimited.
    """
    with disk_errors("determine the free space", Path(directory)):
        return system.free_bytes(directory)


@contextlib.contextmanager
def disk_errors(action: str, path: Path) -> Iterator[None]:
    """Turn an ``OSError`` of the body into a ``DiskError`` with the same ``errno``. It names ``path``, or the file in
    the ``OSError`` if that is another one, such as the state beside a part file."""
    try:
        yield
    except DownloadError:  # some of these are also OSErrors
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
    """Raise the write errors that file systems with delayed writes (NFS, FUSE) report on every close.

    On local file systems this neither writes nor waits (close(2), "Dealing with error returns from close()").
    """
    os.close(os.dup(fd))
