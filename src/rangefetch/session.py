"""The session file: lists a manager's unfinished downloads, so that a new manager can continue them.

The file has a line of JSON for each change: a download in its current state, or a note that it is gone. The last line
of a download counts, so a change costs one line, however many downloads there are. The mode is 0600, since URLs and
headers may be secrets. Only one manager can use the file at a time. A file that cannot be parsed is set aside with a
warning; it is never fatal. docs/state.md has the format.
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
_TOGETHER = 1000  # entries written at a time
_SPARE_LINES = 1000  # the file is rewritten when it has more lines than this plus twice the number of downloads
_HEADER = b'{"version": 2}\n'
_DOCUMENT = (b'{"version": 1, "downloads": [', b", ", b"]}")
_OVER = (DownloadStatus.COMPLETE, DownloadStatus.REMOVED)


def check_path(session_file: str | os.PathLike[str]) -> Path:
    """Return the absolute path of a session file. Raises ``TypeError`` or ``ValueError`` if it is not a path, or is the
    path of a directory, a device or a FIFO.
    """
    text = check_any_path(session_file, "session_file")
    if not text:
        raise ValueError("session_file: '' is not a path")
    path = absolute_path(text)
    with contextlib.suppress(OSError):
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError(f"session_file: {text!r} is not a regular file")
    return path


class Session:
    """The session file of one manager. Methods may be called from any thread.

    ``peek`` returns a download by its gid, or None if it is no longer known.
    """

    def __init__(self, path: Path, peek: Callable[[str], Entry | None]) -> None:
        self._path = path
        self._peek = peek
        self._hold = Hold(path)
        self._journal = Journal(path)
        self._writer = Writer()
        self._saving = threading.Lock()  # guards the file, _is_taken and _listed
        self._is_taken = False
        self._listed: dict[str, None] = {}  # the downloads in the file, in order
        self._lock = threading.Lock()  # guards what follows; held only briefly
        self._changed: dict[str, None] = {}  # gids, in the order of their changes
        self._timer: threading.Timer | None = None

    def take(self) -> list[Entry]:
        """Acquire the file and return the downloads in it; an empty list if it is acquired already. Raises
        ``LocalError`` if another manager has it, if it cannot be read, or if another user could have written it.
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
        """Release the file. May be called twice."""
        with self._saving:
            self._is_taken = False
            self._journal.close()
            self._hold.release()

    def orphan(self) -> None:
        """In a forked child: the file belongs to the parent."""
        self._saving, self._lock, self._timer = threading.Lock(), threading.Lock(), None
        self._journal.close()

    def note(self, gid: str) -> None:
        """Note that a download has changed; it is saved within a second. Does not block, so it may be called with locks
        held.
        """
        with self._lock:
            self._changed[gid] = None
            if self._timer is None:
                save = weakref.WeakMethod(self.save)  # weak, so that the timer does not keep an unused session alive
                timer = threading.Timer(_SAVE_EVERY_S, lambda: (now := save()) and now())
                timer.daemon = True
                timer.name = "rangefetch-session"
                with contextlib.suppress(RuntimeError):  # no thread can be started now
                    timer.start()
                    self._timer = timer

    def save(self) -> None:
        """Save all changes. If that fails, a warning is logged, and they are saved with the next change."""
        with self._saving:
            with self._lock:
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
                changed, self._changed = list(self._changed), {}
            if not changed:
                return
            # A stopped manager has released its session file, and another one may have acquired it.
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

    # -- internals; ``_saving`` must be held ----------------------------------------------------------------------

    def _save(self, changed: list[str]) -> None:
        """Append the changes, or rewrite the file if that is necessary."""
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
        """Rewrite the file with the downloads that it lists and the ``new`` ones."""
        lines, listed = [_HEADER], []
        for gid in (*self._listed, *new):
            entry = self._peek(gid)
            if entry is not None and entry.status not in _OVER:
                lines.append(self._writer.line_of(entry))
                listed.append(gid)
        self._journal.rewrite(lines)
        self._listed = dict.fromkeys(listed)

    def _load(self) -> list[Entry]:
        """Read the downloads in the file, and remove what an interrupted save left. An entry that cannot be used is
        skipped and set aside; the others are still read.
        """
        self._listed = {}
        remove_what_was_cut_short(self._path)
        try:
            with self._path.open("rb") as file:
                if not is_trusted(os.fstat(file.fileno()), self._path.parent):
                    # The session decides which files are written, and what is sent where.
                    raise LocalError(
                        f"{self._path}: refused as a session file: another user owns it or can write to it"
                    )
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
            self._journal.close()  # so that the next save rewrites the file without these entries
            start, between, end = (_HEADER, b"", b"") if is_lines else _DOCUMENT
            with contextlib.suppress(OSError):
                replace_file(self._bad_path, start + between.join(senseless) + end)
        self._listed = dict.fromkeys(entry.gid for entry in found)
        return found

    def _read_lines(self) -> tuple[list[Any], list[bytes]]:
        """The entries, each from its last line, and the lines that cannot be parsed."""
        latest: dict[str, Any] = {}
        senseless: list[bytes] = []
        count = end = 0
        for line in read_lines(self._path):
            if not line.endswith(b"\n") and len(line) < LONGEST_LINE_BYTES:
                break  # incomplete, because the writer was killed
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
        """The entries of a file of version 1, which was a single JSON document."""
        document = json.loads(self._path.read_bytes())
        if document.get("version") != 1:
            raise ValueError(f"its version is {document.get('version')!r}, not 1 or 2")
        return list(document["downloads"]), []

    @property
    def _bad_path(self) -> Path:
        return self._path.with_name(self._path.name + ".bad")
