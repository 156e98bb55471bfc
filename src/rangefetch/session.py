"""The session: which downloads a manager has, so that a new one can list them and go on.

The file has a line of JSON for each change: a download as it is now, or that it is gone; the last line of a download
counts. So a change costs its line, however many downloads there are. Its mode is 0600, since URLs and headers may be
secrets. One manager has it at a time. A file that cannot be read is set aside with a warning, never trusted and never
fatal; docs/state.md has the format.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import threading
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rangefetch.checks import check_path as check_any_path
from rangefetch.disk import system
from rangefetch.disk.holding import Hold
from rangefetch.disk.journal import LONGEST_LINE_BYTES, Journal, read_lines
from rangefetch.disk.ownership import is_trusted
from rangefetch.disk.replacing import remove_what_was_cut_short, replace_file
from rangefetch.entries import SENSELESS, Reader, Writer
from rangefetch.errors import LocalError
from rangefetch.logs import log as _log
from rangefetch.masking import mask_url
from rangefetch.options import absolute_path
from rangefetch.progress import DownloadStatus
from rangefetch.transfer.download import Entry

__all__ = ["Session", "check_path"]


_SAVE_EVERY_S = 1.0
_TOGETHER = 1000  # entries that are written at a time
_SPARE_LINES = 1000  # that may be pointless before the file is written anew, beside as many as there are downloads
_HEADER = b'{"version": 2}\n'
_DOCUMENT = (b'{"version": 1, "downloads": [', b", ", b"]}")
_OVER = (DownloadStatus.COMPLETE, DownloadStatus.REMOVED)


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


class Session:
    """The session file of one manager. Methods may be called from any thread.

    ``peek`` gives a download by its gid, None for one that is not known any more.
    """

    def __init__(self, path: Path, peek: Callable[[str], Entry | None]) -> None:
        self._path = path
        self._peek = peek
        self._hold = Hold(path)
        self._journal = Journal(path)
        self._writer = Writer()
        self._saving = threading.Lock()  # guards the file, and what is known of it
        self._is_taken = False
        self._listed: dict[str, None] = {}  # the downloads in the file, in order
        self._lock = threading.Lock()  # guards what follows; held for a moment only
        self._changed: dict[str, None] = {}  # in the order of their changes
        self._timer: threading.Timer | None = None

    def take(self) -> list[Entry]:
        """Have the file, and list what is in it; nothing where this has it already. Raises ``LocalError`` if another
        manager has it, or it cannot be read now, or another user could have written it.
        """
        with self._saving:
            if self._is_taken:
                return []
            self._hold.acquire()
            try:
                found = self._load()
            except BaseException:
                self._hold.release()
                raise
            self._is_taken = True
            return found

    def leave(self) -> None:
        """Let others have the file. Doing so twice is fine."""
        with self._saving:
            self._is_taken = False
            self._journal.close()
            self._hold.release()

    def orphan(self) -> None:
        """In a forked child, where the file is the parent's."""
        self._saving, self._lock, self._timer = threading.Lock(), threading.Lock(), None
        self._journal.close()

    def note(self, gid: str) -> None:
        """Something of a download has changed: it is saved within a second. Takes a moment, under whatever lock."""
        with self._lock:
            self._changed[gid] = None
            if self._timer is None:
                save = weakref.WeakMethod(self.save)  # or the timer would keep alive what nobody uses
                timer = threading.Timer(_SAVE_EVERY_S, lambda: (now := save()) and now())
                timer.daemon = True
                timer.name = "rangefetch-session"
                with contextlib.suppress(RuntimeError):  # no thread can be had now
                    timer.start()
                    self._timer = timer

    def save(self) -> None:
        """Save what has changed. Where that is not possible it is a warning, and saved with the next change."""
        with self._saving:
            with self._lock:
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
                changed, self._changed = list(self._changed), {}
            if not changed:
                return
            # A manager that was stopped has let go of its session, and somebody else may have it.
            is_borrowed = not self._is_taken
            try:
                if is_borrowed:
                    self._hold.acquire()
                self._save(changed)
            except LocalError as error:
                _log.warning("%s", error)
            except OSError as error:
                _log.warning("%s: the session cannot be saved: %s", self._path, error.strerror)
                with self._lock:
                    self._changed = {**dict.fromkeys(changed), **self._changed}
            finally:
                if is_borrowed:
                    self._journal.close()
                    self._hold.release()

    # -- inside; ``_saving`` is held ------------------------------------------------------------------------------

    def _save(self, changed: list[str]) -> None:
        """Append what has changed, or write all of it where that is due."""
        for start in range(0, len(changed), _TOGETHER):
            lines, listed, gone = [], [], []
            for gid in changed[start : start + _TOGETHER]:
                entry = self._peek(gid)
                if entry is not None and entry.status not in _OVER:
                    lines.append(self._writer.line_of(entry))
                    listed.append(gid)
                elif gid in self._listed:
                    lines.append(self._writer.line_of_gone(gid))
                    gone.append(gid)
            if not self._journal.append(lines):
                self._rewrite(gid for gid in changed if gid not in self._listed)
                return
            self._listed.update(dict.fromkeys(listed))
            for gid in gone:
                del self._listed[gid]
        if self._journal.lines > 2 * len(self._listed) + _SPARE_LINES:
            self._rewrite()

    def _rewrite(self, new: Iterable[str] = ()) -> None:
        """Write the file anew: what it lists, and what is new."""
        lines, listed = [_HEADER], []
        for gid in (*self._listed, *new):
            entry = self._peek(gid)
            if entry is not None and entry.status not in _OVER:
                lines.append(self._writer.line_of(entry))
                listed.append(gid)
        self._journal.rewrite(lines)
        self._listed = dict.fromkeys(listed)

    def _load(self) -> list[Entry]:
        """The downloads in the file. What a killed save has left is removed. An entry that cannot be used here costs
        itself only, and is kept aside.
        """
        self._listed = {}
        remove_what_was_cut_short(self._path)
        try:
            with self._path.open("rb") as file:
                if not is_trusted(os.fstat(file.fileno()), self._path.parent):
                    # It says which files are to be written, and what is to be sent where.
                    raise LocalError(f"{self._path}: the session is not used: another user owns it or can write to it")
                is_lines = file.read(len(_HEADER)) == _HEADER
            entries, senseless = self._read_lines() if is_lines else self._read_document()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise LocalError(f"{self._path}: the session cannot be read: {error.strerror or error}") from error
        except SENSELESS as error:
            _log.warning("%s: the session cannot be read (%s); set aside", self._path, error)
            with contextlib.suppress(OSError):
                system.replace(self._path, self._bad_path)
            return []
        found, reader = [], Reader()
        for entry in entries:
            try:
                found.append(reader.read(entry))
            except SENSELESS as error:
                url = entry.get("url") if isinstance(entry, dict) else None
                words = "this download cannot be used here"
                _log.warning("%s: %s: %s (%s); set aside", self._path, mask_url(str(url)), words, error)
                senseless.append(json.dumps(entry).encode() + (b"\n" if is_lines else b""))
        if senseless:
            self._journal.close()  # they leave the file when it is next written
            start, between, end = (_HEADER, b"", b"") if is_lines else _DOCUMENT
            with contextlib.suppress(OSError):
                replace_file(self._bad_path, start + between.join(senseless) + end)
        self._listed = dict.fromkeys(entry.gid for entry in found)
        return found

    def _read_lines(self) -> tuple[list[Any], list[bytes]]:
        """The entries, each as its last line says, and the lines that say nothing."""
        latest: dict[str, Any] = {}
        senseless: list[bytes] = []
        count = end = 0
        for line in read_lines(self._path):
            if not line.endswith(b"\n") and len(line) < LONGEST_LINE_BYTES:
                break  # somebody was killed while it was written
            count, end = count + 1, end + len(line)
            try:
                entry = json.loads(line)
                if entry.get("gone"):
                    latest.pop(entry["gid"], None)
                elif count > 1:
                    latest[entry["gid"]] = entry
            except SENSELESS:
                senseless.append(line.removesuffix(b"\n") + b"\n")
        if senseless:
            _log.warning("%s: %d lines cannot be read; set aside", self._path, len(senseless))
        self._journal.go_on(count, end)
        return list(latest.values()), senseless

    def _read_document(self) -> tuple[list[Any], list[bytes]]:
        """The entries of version 1, which was one JSON document."""
        document = json.loads(self._path.read_bytes())
        if document.get("version") != 1:
            raise ValueError(f"its version is {document.get('version')!r}, not 1 or 2")
        return list(document["downloads"]), []

    @property
    def _bad_path(self) -> Path:
        return self._path.with_name(self._path.name + ".bad")
