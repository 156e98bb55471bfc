"""The ledger of a run: the outcome of each item, in one SQLite file.

A separate thread writes rows in batches, so that downloads do not wait for the disk. If the process is killed, the last
moment's rows are missing; the next run finds those files on the disk. Write-ahead logging lets other processes read the
file at the same time.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

from rangefetch.disk import locks, system

__all__ = ["COMPLETE", "FAILED", "VERSION", "Ledger", "LedgerError", "LedgerLost", "Row"]

VERSION = 2
"""The version of the tables (``user_version``)."""
COMPLETE, FAILED = "complete", "failed"

_APPLICATION = 0x52464C47  # "RFLG" (``application_id``)
_HEADER = b"SQLite format 3\0"
_PAGE_ROWS = 4096
_BATCH_ROWS, _BATCH_S, _MOST_WAITING = 2000, 0.25, 20_000

_TABLES = f"""
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {VERSION};
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE item (
    number INTEGER PRIMARY KEY, line INTEGER NOT NULL, url TEXT NOT NULL, host TEXT NOT NULL, path TEXT NOT NULL,
    state TEXT NOT NULL, size INTEGER NOT NULL, checksum TEXT NOT NULL, seconds REAL NOT NULL, tries INTEGER NOT NULL,
    error TEXT NOT NULL, status INTEGER NOT NULL, reason TEXT NOT NULL, ended REAL NOT NULL, member TEXT NOT NULL,
    "offset" INTEGER NOT NULL
);
"""


class LedgerError(ValueError):
    """The file is not a ledger, is of another version or another list, is in use, or cannot be read or written."""


class LedgerLost(LedgerError):
    """An open ledger can no longer be read or written: the disk is full or gone."""


class Row(NamedTuple):
    """An item that has ended.

    ``number`` is its position among the items, from 0, and ``line`` its line in the list (0: none). ``state`` is
    ``complete`` or ``failed``. ``path`` is its file, ``size`` is in bytes, and ``checksum`` is the digest that was
    verified or, of a failed item, expected (empty: none). ``error`` is the class name of the error, ``status`` the HTTP
    status (0: none) and ``reason`` the message. ``ended`` is in seconds since 1970.

    For a file in a shard (a tar file), ``path`` is the shard, ``member`` the name inside it, ``offset`` where the
    file's bytes start, and ``checksum`` the digest of those bytes.
    """

    number: int
    line: int
    url: str
    host: str
    path: str
    state: str
    size: int
    checksum: str
    seconds: float
    tries: int
    error: str
    status: int
    reason: str
    ended: float
    member: str = ""
    offset: int = 0


_COLUMNS = ", ".join(f'"{name}"' for name in Row._fields)
_TOGETHER = 250  # rows per statement: 4,000 values, where SQLite allows 32,766


def _put(count: int) -> str:
    """The statement that inserts ``count`` rows at once. ``executemany`` would release and reacquire the GIL for each
    row.
    """
    row = f"({', '.join('?' * len(Row._fields))})"
    return f"INSERT OR REPLACE INTO item ({_COLUMNS}) VALUES {', '.join([row] * count)}"


_PUT_TOGETHER = _put(_TOGETHER)


class Ledger:
    """An open ledger; a context manager. With ``writes``, it is created if missing, and no other process may write it.
    ``put_rows`` counts the rows passed to ``put``, and ``written_rows`` those of them that are in the file.

    Raises ``LedgerError``; a file that is not a ledger is left as it is.
    """

    def __init__(self, path: str | os.PathLike[str], *, writes: bool) -> None:
        self.path = os.fspath(path)
        self._closing = contextlib.ExitStack()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._waiting: deque[Row] = deque()
        self.put_rows = self.written_rows = 0
        self._bell = threading.Event()  # there are rows to write
        self._hurry = threading.Event()  # write them at once
        self._moved = threading.Condition()  # notified when rows were written, or writing failed
        self._error = ""
        self._done = False
        try:
            self.is_new = not self._is_one()
            if writes:
                self._take()
                self.is_new = not self._is_one()
            if self.is_new and not writes:
                raise LedgerError(f"{self.path}: it is missing or empty")
            self._database = self._open()
            if writes:
                self._thread = self._started()
        except BaseException:
            self._closing.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write the remaining rows and close the file. Raises ``LedgerError`` if they could not be written."""
        if self._done:
            return
        self._done = True
        if self._thread is not None:
            self._hurry.set()
            self._bell.set()
            self._thread.join()
        self._database.close()
        self._closing.close()
        self._must_be_written()

    # -- reading and writing --------------------------------------------------------------------------------------

    def about(self, key: str) -> str:
        """A value about the whole run: ``list``, ``directory``, ``created``, ``count``, ...; "" if it is not known."""
        with self._reading() as database:
            found = database.execute("SELECT value FROM about WHERE key = ?", (key,)).fetchone()
        return str(found[0]) if found else ""

    def note(self, key: str, value: object) -> None:
        """Store a value about the whole run."""
        with self._reading() as database:
            database.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (key, str(value)))

    def rows(self, *, state: str = "") -> Iterator[Row]:
        """Yield the rows in the order of the items. They are read in pages, so that nothing is locked for long."""
        after = -1
        while True:
            with self._reading() as database:
                page = database.execute(
                    f"SELECT {_COLUMNS} FROM item WHERE number > ? AND (? = '' OR state = ?) ORDER BY number LIMIT ?",
                    (after, state, state, _PAGE_ROWS),
                ).fetchall()
            if not page:
                return
            for found in page:
                yield Row(*found)
            after = page[-1][0]

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """Run a query and return its rows."""
        with self._reading() as database:
            return database.execute(query).fetchall()

    def put(self, row: Row) -> None:
        """Queue a row to be written soon. Raises ``LedgerError`` if an earlier row could not be written."""
        self._must_be_written()
        self._waiting.append(row)
        self.put_rows += 1
        if not self._bell.is_set():
            self._bell.set()
        if len(self._waiting) >= _BATCH_ROWS:
            self._hurry.set()
            if len(self._waiting) >= _MOST_WAITING:
                self._wait_for(self.put_rows - _MOST_WAITING // 2)

    def members_of(self, shard: str) -> list[tuple[str, int, int, str]]:
        """The files in a shard, in the order in which they are in it: name, offset, size and checksum."""
        with self._reading() as database:
            query = "SELECT member, \"offset\", size, checksum FROM item WHERE path = ? AND member != ''"
            return database.execute(f'{query} ORDER BY "offset"', (shard,)).fetchall()

    def forget_beyond(self, shard: str, size_bytes: int) -> None:
        """Delete the rows of files that end beyond ``size_bytes``, the size of their shard."""
        with self._reading() as database:
            query = "DELETE FROM item WHERE path = ? AND member != '' AND \"offset\" + size > ?"
            database.execute(query, (shard, size_bytes))

    def flush(self) -> None:
        """Wait until all rows are in the file. Raises ``LedgerError`` if they cannot be written."""
        self._hurry.set()
        self._wait_for(self.put_rows)

    # -- internals ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._database
            except sqlite3.Error as error:
                raise LedgerLost(f"{self.path}: {error}") from None

    def _must_be_written(self) -> None:
        if self._error:
            raise LedgerLost(f"{self.path}: {self._error}")

    def _take(self) -> None:
        """Keep other processes from writing. Locks a file beside the ledger, since SQLite puts its own locks on it."""
        lock = f"{self.path}-lock"
        try:
            fd = system.open_file(lock, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise LedgerError(f"{self.path}: {error.strerror}") from None
        try:
            locks.take(fd)
        except BlockingIOError:
            os.close(fd)
            raise LedgerError(f"{self.path}: another process is using it") from None
        except OSError:  # the file system has no locks
            os.close(fd)
        else:
            self._closing.callback(locks.unlock_and_close, fd)

    def _is_one(self) -> bool:
        """Whether the file is a ledger of this version; False if it is missing or empty. Raises ``LedgerError``."""
        try:
            with Path(self.path).open("rb") as file:
                header = file.read(100)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise LedgerError(f"{self.path}: {error.strerror}") from None
        if not header:
            return False
        # SQLite's documentation, "Database File Format", section 1.3.
        if len(header) < 100 or not header.startswith(_HEADER) or struct.unpack(">I", header[68:72])[0] != _APPLICATION:
            raise LedgerError(f"{self.path}: it is not the ledger of a run (--run)")
        version = struct.unpack(">I", header[60:64])[0]
        if version != VERSION:
            raise LedgerError(f"{self.path}: it has the ledger version {version}; only version {VERSION} is supported")
        return True

    def _open(self) -> sqlite3.Connection:
        try:
            if self.is_new:
                self._make()
            database = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
            try:
                database.execute("PRAGMA synchronous = NORMAL")
                database.execute("SELECT count(*) FROM about").fetchone()
            except BaseException:
                database.close()
                raise
        except OSError as error:
            raise LedgerError(f"{self.path}: {error.strerror}") from None
        except sqlite3.Error as error:
            raise LedgerError(f"{self.path}: {error}") from None
        return database

    def _make(self) -> None:
        """Create an empty ledger under another name, and rename it once it is complete."""
        making = f"{self.path}-new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(making)  # noqa: PTH108 - a string; left by a process that was killed
        os.close(system.open_file(making, os.O_RDWR | os.O_CREAT | os.O_EXCL))  # private: URLs may be secrets
        with contextlib.closing(sqlite3.connect(making, isolation_level=None)) as database:
            database.executescript(f"BEGIN;{_TABLES}COMMIT;")
            database.execute("INSERT INTO about VALUES ('created', ?)", (repr(time.time()),))
            database.execute("PRAGMA journal_mode = WAL")
        system.replace(making, self.path)

    def _started(self) -> threading.Thread:
        thread = threading.Thread(target=self._write, name="rangefetch-ledger", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self._database.close()
            raise LedgerError(f"{self.path}: cannot start a thread to write it: {error}; see ulimit -u") from error
        return thread

    def _wait_for(self, count: int) -> None:
        with self._moved:
            self._moved.wait_for(lambda: self.written_rows >= count or self._error)
        self._must_be_written()

    def _write(self) -> None:
        """The body of the writing thread."""
        try:
            database = sqlite3.connect(self.path, timeout=30, isolation_level=None)
            with contextlib.closing(database):
                database.execute("PRAGMA synchronous = NORMAL")
                while True:
                    self._bell.wait()
                    # Wait a moment, to write further rows together with the first.
                    self._hurry.wait(_BATCH_S)
                    self._hurry.clear()
                    self._bell.clear()
                    is_last = self._done
                    self._write_all(database)
                    if is_last:
                        break
        except sqlite3.Error as error:
            with self._moved:
                self._error = str(error)
                self._moved.notify_all()

    def _write_all(self, database: sqlite3.Connection) -> None:
        """Write all waiting rows, in batches."""
        while self._waiting:
            rows = [self._waiting.popleft() for _ in range(min(len(self._waiting), _BATCH_ROWS))]
            database.execute("BEGIN IMMEDIATE")
            for start in range(0, len(rows), _TOGETHER):
                some = rows[start : start + _TOGETHER]
                statement = _PUT_TOGETHER if len(some) == _TOGETHER else _put(len(some))
                database.execute(statement, tuple(itertools.chain.from_iterable(some)))
            database.execute("COMMIT")
            with self._moved:
                self.written_rows += len(rows)
                self._moved.notify_all()
