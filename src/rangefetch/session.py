"""The session: which downloads a manager had, so that a new one can list them and go on.

The file is JSON, mode 0600 since URLs and headers may be secrets, and is replaced in one step. A file that cannot be
read is set aside with a warning, never trusted and never fatal. One manager has it at a time: it holds a lock on
``NAME.lock`` beside it, which the system releases with the process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import os
import re
import stat
import sys
import weakref
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

if sys.platform != "win32":
    pass

from rangefetch.checks import check_path as check_any_path
from rangefetch.checks import check_url
from rangefetch.disk import locks
from rangefetch.disk.parts import is_open_on
from rangefetch.disk.replacing import remove_what_was_cut_short, replace_file
from rangefetch.errors import DiskError, DownloadError, LocalError
from rangefetch.logs import log as _log
from rangefetch.masking import mask_url
from rangefetch.options import DownloadOptions, absolute_path
from rangefetch.progress import DownloadStatus
from rangefetch.transfer.download import Download

__all__ = ["Hold", "check_path", "load", "save"]

_VERSION = 1
_SENSELESS = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
_DEFAULTS = {
    field.name: getattr(DownloadOptions(), field.name)
    for field in dataclasses.fields(DownloadOptions)
    if field.name != "refresh_url"
}


def check_path(session_file: str | os.PathLike[str]) -> Path:
    """The absolute path of a session file. Raises ``TypeError`` or ``ValueError`` for what cannot be one: no path, or
    that of a directory, a device or a FIFO.
    """
    text = check_any_path(session_file, "session_file")
    if not text:
        raise ValueError("session_file: '' is no path")
    path = absolute_path(text)
    with contextlib.suppress(OSError):
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError(f"session_file: {text!r} is not a regular file")
    return path


def save(path: Path, downloads: Iterable[Download], waiting: Collection[str] = ()) -> None:
    """Write down those that are not finished, those with a gid in ``waiting`` as waiting. Raises ``DiskError``.

    Whenever this is cut short, the old session is there or the new one.
    """
    listed = list(downloads)
    # Many have the same options, and those take the longest to write down. All are held here, so that no id is reused.
    held = {id(each.options): each.options for each in listed}
    changed = {number: _changed(options) for number, options in held.items()}
    document = {
        "version": _VERSION,
        "downloads": [
            {
                "gid": download.gid,
                "url": download.url,
                "status": (DownloadStatus.WAITING if download.gid in waiting else download.status).value,
                "filename": download.filename,
                "options": changed.get(id(download.options)) or _changed(download.options),
                "begun": download.has_begun,
                "kept_aside": os.fspath(download.kept_aside or ""),
                "error": download.error.reason if download.status is DownloadStatus.ERROR and download.error else "",
            }
            for download in listed
            if download.status not in (DownloadStatus.COMPLETE, DownloadStatus.REMOVED)
        ],
    }
    try:
        replace_file(path, json.dumps(document).encode())
    except OSError as error:
        words = f"{path}: the session cannot be saved: {error.strerror}"
        raise DiskError(words, errno=error.errno or 0, filename=path) from error


def load(path: Path) -> list[Download]:
    """The downloads that were saved, in their order; those that were at work are waiting again.

    What a killed save has left is removed: only who holds the session may load it. An entry that makes no sense here (a
    file that is gone, an option of a newer version) costs itself only, and is kept aside. Raises ``LocalError`` for a
    file that cannot be read now, and leaves it alone.
    """
    remove_what_was_cut_short(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LocalError(f"{path}: the session cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        return _give_up(path, error)
    try:
        document = json.loads(text)
        if document.get("version") != _VERSION:
            raise ValueError(f"its version is {document.get('version')!r}, not {_VERSION}")
        entries = list(document["downloads"])
    except _SENSELESS as error:
        return _give_up(path, error)
    found, senseless = [], []
    for entry in entries:
        try:
            found.append(_download(entry))
        except _SENSELESS as error:
            url = entry.get("url") if isinstance(entry, dict) else None
            _log.warning("%s: %s: this download makes no sense here (%s); set aside", path, mask_url(str(url)), error)
            senseless.append(entry)
    if senseless:
        with contextlib.suppress(OSError):
            replace_file(_beside(path), json.dumps({"version": _VERSION, "downloads": senseless}).encode())
    return found


def _give_up(path: Path, error: Exception) -> list[Download]:
    _log.warning("%s: the session cannot be read (%s); set aside", path, error)
    with contextlib.suppress(OSError):
        path.replace(_beside(path))
    return []


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".bad")


def _changed(options: DownloadOptions) -> dict[str, Any]:
    """The options that are not the default's, as JSON values; a function cannot be kept."""
    values = {}
    for name, default in _DEFAULTS.items():
        value = getattr(options, name)
        if value != default or (name == "max_tries" and options.bounds_tries):
            if isinstance(value, Mapping):
                value = dict(value)
            values[name] = os.fspath(value) if isinstance(value, os.PathLike) else value
    return values


def _download(entry: dict[str, Any]) -> Download:
    if not re.fullmatch("[0-9a-f]{16}", entry["gid"]) or not isinstance(entry["filename"], str):
        raise ValueError(f"{entry['gid']!r}: not a download")
    download = Download(check_url(entry["url"]), DownloadOptions.of(entry["options"]), gid=entry["gid"])
    download.filename = entry["filename"]
    download.has_begun = bool(entry.get("begun", True))
    download.kept_aside = Path(str(entry["kept_aside"])) if entry.get("kept_aside") else None
    status = DownloadStatus(entry["status"])
    if status is DownloadStatus.PAUSED:
        download.move(DownloadStatus.PAUSED)
    elif status is DownloadStatus.ERROR:
        # It failed, and stays so until somebody wants it to be tried again.
        words = str(entry.get("error") or "it failed in an earlier run")
        download.error = DownloadError(words, url=mask_url(download.url))
        download.move(DownloadStatus.ERROR)
    return download


class Hold:
    """A manager's right to a session file; nobody else has it until :meth:`release`, or the end of the process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock_path = path.with_name(path.name + ".lock")
        self._fd = -1
        self._has_warned = False
        _holds.add(self)

    @property
    def is_held(self) -> bool:
        return self._fd >= 0

    def acquire(self) -> None:
        """Raises ``LocalError``, which names the holder. Where no lock can be made that is a warning."""
        if self.is_held or sys.platform == "win32":
            return
        try:
            try:
                self._take()
            except LocalError:
                # It may be one that was forgotten, and not collected yet.
                gc.collect()
                self._take()
        except OSError as error:
            if not self._has_warned:
                self._has_warned = True
                _log.warning("%s: it cannot be locked (%s); use it for one manager only", self._path, error.strerror)

    def _take(self) -> None:
        while not self.is_held:
            self._try()

    def _try(self) -> None:
        """One try; without success where the holder took the file away meanwhile."""
        fd = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        try:
            locks.take(fd)
            if is_open_on(fd, self._lock_path):
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"{os.getpid()} {os.uname().nodename}\n".encode(), 0)
                self._fd, fd = fd, -1
        except BlockingIOError:
            raise LocalError(f"{self._path}: {_describe(os.pread(fd, 256, 0))} has it") from None
        finally:
            if fd >= 0:
                os.close(fd)

    def release(self) -> None:
        """Let others have it. Doing so twice is fine."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                self._lock_path.unlink()
            locks.unlock_and_close(fd)

    def _abandon(self) -> None:
        """In a forked child: the right stays with the parent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.release()


_holds: weakref.WeakSet[Hold] = weakref.WeakSet()


def _describe(holder: bytes) -> str:
    pid, _, host = holder.decode(errors="replace").strip().partition(" ")
    if not pid.isdigit():
        return "another DownloadManager"
    if host != os.uname().nodename:
        return f"a DownloadManager of process {pid} on {host if host.isprintable() else 'another machine'}"
    if int(pid) == os.getpid():
        return "another DownloadManager of this process"
    return f"a DownloadManager of process {pid}"


def _abandon_all() -> None:
    for hold in list(_holds):
        hold._abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
