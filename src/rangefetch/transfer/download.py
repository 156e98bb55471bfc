"""A download: what was asked for, its state, and its outcome.

The table ``MOVES`` lists the allowed changes of state. A download that has not begun is a ``Queued`` until somebody
needs the ``Download``, since most of a long queue only waits.
"""

from __future__ import annotations

import contextlib
import copy
import random
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Self

from rangefetch.errors import DownloadError
from rangefetch.importing import after_fork
from rangefetch.logs import log as _log
from rangefetch.options import DownloadOptions
from rangefetch.progress import DownloadProgress, DownloadResult, DownloadStatus, FileInfo

if TYPE_CHECKING:
    from pathlib import Path

    from rangefetch._engine import File
    from rangefetch.transfer.sink import Sink

__all__ = ["MOVES", "Download", "Entry", "Figures", "Queued", "new_gid"]

_W, _A, _P = DownloadStatus.WAITING, DownloadStatus.ACTIVE, DownloadStatus.PAUSED
_C, _E, _R = DownloadStatus.COMPLETE, DownloadStatus.ERROR, DownloadStatus.REMOVED

MOVES: dict[DownloadStatus, frozenset[DownloadStatus]] = {
    _W: frozenset({_A, _E, _P, _R}),
    _A: frozenset({_C, _E, _P, _R}),
    _P: frozenset({_W, _R}),
    _C: frozenset(),
    _E: frozenset({_W, _R}),
    _R: frozenset(),
}
"""For each state, the states that may follow."""


class Figures(NamedTuple):
    """A download's progress as its backend sees it: bytes, total bytes (0: unknown), bytes per second, transfers."""

    downloaded: int = 0
    total: int = 0
    speed: float = 0.0
    connections: int = 0


_gids = random.Random()  # not the module's own generator, which a program may seed
after_fork(_gids.seed)


def new_gid() -> str:
    """A new download ID of 16 hexadecimal digits, like aria2's."""
    return f"{_gids.getrandbits(64):016x}"


class Queued:
    """A download that has not begun and that nobody watches: its URL, its options, and whether it waits or is paused.

    It can be read like a ``Download``. Its manager's lock guards it.
    """

    __slots__ = ("_status", "cut_short", "gid", "options", "url")

    # The same for every download that has not begun.
    asks = has_begun = False
    error = intent = kept_aside = result = sink = None

    def __init__(self, url: str, options: DownloadOptions, *, gid: str = "") -> None:
        self.gid = gid or new_gid()
        self.url = url
        self.options = options
        self.cut_short = False
        self._status = DownloadStatus.WAITING

    @property
    def status(self) -> DownloadStatus:
        return self._status

    @property
    def filename(self) -> str:
        return self.options.filename

    def move(self, status: DownloadStatus, *, cut_short: bool = False) -> None:
        """Change the state to ``status``. Raises ``ValueError`` if ``MOVES`` does not allow it."""
        _check_move(self.gid, self._status, status)
        self._status = status
        self.cut_short = cut_short

    def progress(self) -> DownloadProgress:
        """The download at this moment."""
        return DownloadProgress(
            self.gid, 0, 0, 0.0, 0.0, None, self.filename, self._status, waiting_for=_WAITS_FOR.get(self._status, "")
        )


_WAITS_FOR = {DownloadStatus.WAITING: "its turn", DownloadStatus.PAUSED: "resume()"}


def _check_move(gid: str, status: DownloadStatus, following: DownloadStatus) -> None:
    if following not in MOVES[status]:
        raise ValueError(f"{gid}: a download that is {status} cannot become {following}")


class Download:
    """One download, changed by its manager and its backend; ``lock`` guards the state and the outcome.

    While it is active, ``figures`` asks its backend for its progress; callable from any thread.
    """

    # Initial values are class attributes: most are never changed, and thousands of objects are made in a second.
    note = ""
    figures: Callable[[], Figures] | None = None
    waits: Callable[[], str] | None = None
    """While it is active, asks its backend what it waits for; callable from any thread."""
    sink: Sink | None = None
    """Where the bytes go, if not into a named file."""
    file: File | None = None
    """The engine's file, for the reader of a sink."""
    asks = False
    """Whether only ``info`` is wanted, and nothing is to be fetched."""
    info: FileInfo | None = None
    """What the server says of the file, if it was asked."""
    result: DownloadResult | None = None
    error: DownloadError | None = None
    started_s = 0.0
    is_small = False
    """Whether it counts as a small file, which it does until something shows otherwise."""
    has_begun = False
    """Whether it was ever active, and so may have files."""
    kept_aside: Path | None = None
    """The file with its data that had the wrong checksum."""
    intent: DownloadStatus | None = None
    """What it becomes once its backend has let go of it: paused, removed, or waiting again.

    The router and both backends read it here, and are only told that it has changed.
    """
    remove_files = False
    """Whether nothing may be left on disk then, except a file that has its final name."""
    is_wanted: Callable[[], bool] | None = None
    """Asks whether anybody can still be waiting for it, from any thread; None: it continues in any case."""
    was_put_off = False
    """Whether it was put off because its host did not answer at once."""
    turn = 0
    """The number under which it waited for its turn; 0: it did not wait."""
    cut_short = False
    """Whether it is paused only because its manager was stopped."""
    _status = DownloadStatus.WAITING
    _last = Figures()
    _watchers: tuple[Callable[[Download], object], ...] = ()
    _of_stops: tuple[Callable[[Download], object], ...] = ()
    _moved: threading.Condition | None = None  # uses ``lock``; made when somebody first waits

    def __init__(self, url: str, options: DownloadOptions, *, gid: str = "") -> None:
        self.gid = gid or new_gid()
        self.url = url
        self.options = options
        self.filename = options.filename
        self.lock = threading.RLock()

    @classmethod
    def of(cls, queued: Queued) -> Self:
        """Create the download for a queued entry."""
        self = cls(queued.url, queued.options, gid=queued.gid)
        self._status, self.cut_short = queued.status, queued.cut_short
        return self

    @property
    def status(self) -> DownloadStatus:
        return self._status

    def move(
        self,
        status: DownloadStatus,
        *,
        result: DownloadResult | None = None,
        error: DownloadError | None = None,
        cut_short: bool = False,
    ) -> None:
        """Change the state to ``status``, store the outcome, and wake all waiters.

        Raises ``ValueError`` if ``MOVES`` does not allow it.
        """
        with self.lock:
            if status not in MOVES[self._status]:
                _check_move(self.gid, self._status, status)
            self._status = status
            self.note = ""
            self.result = result
            self.error = error
            self.intent = None
            self.remove_files = self.remove_files and status is DownloadStatus.REMOVED
            self.cut_short = cut_short
            figures, self.figures, self.waits = self.figures, None, None
            if status is _A:
                self.started_s = time.monotonic()
                self.has_begun = True
            elif result is not None:
                self._last = Figures(result.size, result.size)
                self.filename = result.filename
            elif figures is not None:
                # The backend may be the very thing that failed.
                with contextlib.suppress(Exception):
                    self._last = figures()._replace(speed=0.0, connections=0)
            if self._moved is not None:
                self._moved.notify_all()
            watchers = self._watchers
            if status is not _A and status is not _W:
                watchers += self._of_stops
        for watcher in watchers:
            try:
                watcher(self)
            except Exception:
                _log.exception("%s: a callback for its status failed", self.gid)

    def want(self, status: DownloadStatus, *, remove_files: bool = False) -> None:
        """Set what it becomes once its backend has let go of it; ``Backend.halt`` follows."""
        with self.lock:
            self.intent = status
            self.remove_files = self.remove_files or remove_files

    def notify(self) -> None:
        """Wake the threads in ``wait``."""
        with self.lock:
            if self._moved is not None:
                self._moved.notify_all()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the next move or ``notify``, for at most ``timeout_s``; False on timeout. The caller holds ``lock``,
        which is released while waiting.
        """
        if self._moved is None:
            self._moved = threading.Condition(self.lock)
        return self._moved.wait(timeout_s)

    def watch(self, watcher: Callable[[Download], object], *, stops: bool = False) -> None:
        """Call ``watcher`` after each move, or with ``stops`` only when the download is paused or has ended.

        It is called on the thread that made the move, which may hold the manager's lock, so it must not wait for
        anything.
        """
        with self.lock:
            if stops:
                self._of_stops += (watcher,)
            else:
                self._watchers += (watcher,)

    @property
    def waiting_for(self) -> str:
        """What the download waits for, in words; empty if it has ended."""
        if self._status is not DownloadStatus.ACTIVE:
            return _WAITS_FOR.get(self._status, "")
        waits = self.waits
        return (waits() if waits is not None else "") or "its backend"

    def __repr__(self) -> str:
        figures = self.figures
        downloaded, total, *_ = figures() if figures is not None else self._last
        waiting = f", waiting for {self.waiting_for}" if self.waiting_for else ""
        name = f" {self.filename!r}" if self.filename else ""
        return f"<Download {self.gid}{name}: {self._status}, {downloaded} of {total or 'unknown'} bytes{waiting}>"

    def failure(self) -> DownloadError | None:
        """A copy of ``error`` to raise: a single object would collect the traceback of each raise."""
        if self.error is None:
            return None
        again = copy.copy(self.error)
        again.__cause__ = self.error.__cause__
        return again

    @property
    def size(self) -> int:
        """In bytes; 0 if not known."""
        figures = self.figures
        _, total, *_ = figures() if figures is not None else self._last
        return total or int(self.options.expected_size)

    def traffic(self) -> tuple[int, int]:
        """Bytes downloaded and connections in use: the parts of ``progress`` that can be added up."""
        figures = self.figures
        downloaded, _, _, connections = figures() if figures is not None else self._last
        return downloaded, connections

    def progress(self) -> DownloadProgress:
        """The download at this moment."""
        figures = self.figures
        downloaded, total, speed, connections = figures() if figures is not None else self._last
        eta = 0.0 if total and downloaded >= total else (total - downloaded) / speed if total and speed else None
        return DownloadProgress(
            gid=self.gid,
            downloaded=downloaded,
            total=total,
            speed=speed,
            percentage=100.0 * downloaded / total if total else 0.0,
            eta=eta,
            filename=self.filename,
            status=self._status,
            connections=connections,
            note=self.note,
            waiting_for=self.waiting_for,
        )


Entry = Queued | Download
"""What a queue holds for each download."""
