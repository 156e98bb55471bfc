"""The download manager: several downloads at once, a queue, and the states that they go through."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
import warnings
import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

from rangefetch import session
from rangefetch.checks import Url, check_count, check_function, check_url, parse_size
from rangefetch.errors import (
    Cancelled,
    ChecksumMismatch,
    DiskError,
    DownloadError,
    LocalError,
    TargetLocked,
    WaitTimeout,
)
from rangefetch.logs import log as _log
from rangefetch.masking import mask_url
from rangefetch.options import AllOptions, DownloadOptions
from rangefetch.progress import DownloadProgress, DownloadResult, DownloadStatus
from rangefetch.selection import BackendRouter
from rangefetch.transfer import leftovers
from rangefetch.transfer.backend import Growth
from rangefetch.transfer.descriptors import most_at_once
from rangefetch.transfer.download import Download
from rangefetch.transfer.line import Line
from rangefetch.transfer.retry import RetryPolicy
from rangefetch.transfer.space import Room

__all__ = ["DownloadManager", "get_download_manager", "init_download_manager"]

_PROGRESS_EVERY_S = 0.1
_SESSION_EVERY_S = 1.0
_SETTLE_S = 30.0
_MOST_UNCOLLECTED = 100_000
_MOST_ACTIVE, _MOST_SMALL = 16, 128  # where the user has given no number
_FINISHED = (DownloadStatus.COMPLETE, DownloadStatus.ERROR, DownloadStatus.REMOVED)


class DownloadManager:
    """A queue of downloads that run concurrently. Thread-safe; a context manager.

    ``backend`` is ``"native"``, ``"aria2"``, or ``"auto"``: the first of the two that can run, starting with
    ``prefer``. At most ``max_concurrent_downloads`` are active at a time, the others wait in order; streams
    (``stream``) start at once and are not counted. None is 16, and up to 128 small files:
    with many hosts the time goes by waiting for answers. A number is never exceeded; where the system allows few open
    files (``ulimit -n``) it is an eighth of those at most.
    ``max_overall_download_limit`` is in bytes per second for all downloads together (0: no limit), ``defaults`` are
    options for every download, ``retry_policy`` decides what is retried. With ``session_file``, unfinished downloads
    are recorded, and a new manager with the same file lists them again. Only one manager can use the file at a time: a
    second one raises a ``LocalError`` that names the process. A finished download is
    remembered until its outcome was returned or raised (100,000 of them at least), and from then on while it is among
    the last ``max_download_results``. Other keywords are those of the aria2 backend (``rangefetch.aria2.config``), of
    which ``download_dir`` applies to both backends.

    ``stop`` (also called by leaving the ``with`` block, and when the interpreter exits) stops unfinished downloads and
    saves their states, so that they can be resumed. A manager that is dropped while it runs is stopped, with a
    ``ResourceWarning``. After its ``with`` block a manager takes no downloads (``RuntimeError``) until ``start`` is
    called; the process's own always does. Methods raise ``KeyError`` for an unknown gid. They are safe in
    every state of a download, and do nothing where there is nothing to do.
    """

    def __init__(
        self,
        backend: str = "auto",
        *,
        prefer: str = "native",
        max_concurrent_downloads: int | None = None,
        max_overall_download_limit: int | str = 0,
        defaults: DownloadOptions | Mapping[str, Any] | None = None,
        retry_policy: RetryPolicy | None = None,
        session_file: str | os.PathLike[str] | None = None,
        max_download_results: int = 1000,
        **config: Any,
    ) -> None:
        if max_concurrent_downloads is not None:
            check_count(max_concurrent_downloads, "max_concurrent_downloads", 1, 1_000_000)
        check_count(max_download_results, "max_download_results", 0, 1_000_000)
        if retry_policy is not None and not isinstance(retry_policy, RetryPolicy):
            raise TypeError(f"retry_policy: expected a RetryPolicy, not {type(retry_policy).__name__}")
        self._hearing = _Hearing(self)
        self._router = BackendRouter(self._hearing, backend, prefer, retry_policy or RetryPolicy(), config)
        self._most_active = most_at_once(max_concurrent_downloads or _MOST_ACTIVE)
        self._most_small = most_at_once(max_concurrent_downloads or _MOST_SMALL)
        self._most_finished = max_download_results
        self._limit = parse_size(max_overall_download_limit, "max_overall_download_limit")
        if defaults is not None and not isinstance(defaults, DownloadOptions | Mapping):
            raise TypeError(f"defaults: expected DownloadOptions or a mapping, not {type(defaults).__name__}")
        self._defaults = DownloadOptions.of(defaults)
        if config.get("download_dir") and os.fspath(self._defaults.save_dir) == ".":
            self._defaults = DownloadOptions.of(self._defaults, save_dir=config["download_dir"])
        self._last_options: tuple[object, DownloadOptions] = (None, self._defaults)
        # Where the last was submitted, its options, and the same with absolute paths.
        self._last_absolute = ("", self._defaults, self._defaults)
        self._session_file = session.check_path(session_file) if session_file is not None else None
        self._session_hold = session.Hold(self._session_file) if self._session_file is not None else None
        self._session_timer: threading.Timer | None = None
        self._session_looks = 0
        self._session_saved_look = 0
        self._session_saving = threading.Lock()  # nobody takes the manager's lock under it
        self._lifting = threading.RLock()  # one start or stop at a time; these may take seconds
        self._lock = threading.RLock()  # guards what follows; nothing that may block is done under it
        self._downloads: dict[str, Download] = {}
        self._waiting = Line()
        self._room = Room()
        self._active: set[str] = set()
        self._small: set[str] = set()  # of them, those that are taken for small files
        self._held: OrderedDict[str, Download] = OrderedDict()  # of these, those that are not, and have no place yet
        self._asking: set[str] = set()  # of them, those that wait for a function of the user's
        self._streams: set[str] = set()  # of them, those that are read while they come
        self._finished: OrderedDict[str, None] = OrderedDict()  # whose outcome nobody was told
        self._collected: OrderedDict[str, None] = OrderedDict()  # whose outcome somebody was told
        self._started = False
        self._starts = 0
        self._forked = False
        self._left = False  # its block has ended: it starts when it is told to, and not by itself
        self._take_session()

    # -- life -------------------------------------------------------------------------------------------------

    @property
    def is_started(self) -> bool:
        """Whether a backend runs."""
        return self._started

    @property
    def backend(self) -> str:
        """``native`` or ``aria2``: the backend that runs, or the requested one."""
        return self._router.name

    @property
    def fallback_reason(self) -> str:
        """Why another backend than the first choice is used; otherwise empty."""
        return self._router.reason

    @property
    def starts(self) -> int:
        """How often it was started. Another number than before: what was asked for in between was cut short."""
        return self._starts

    @property
    def most_active(self) -> int:
        """How many downloads are active at a time (``max_concurrent_downloads``)."""
        return self._most_active

    def start(self) -> None:
        """Start the backend; the first download does it, too. Raises a ``LocalError`` where none can run."""
        self._left = False
        self.start_by_itself()

    def start_by_itself(self) -> None:
        """Start the backend because it is needed. Raises ``RuntimeError`` after the manager's ``with`` block."""
        self._must_be_ours()
        if not self._started:
            with self._lifting:
                if self._left:
                    raise RuntimeError("the manager's with block has ended; call start() to use it again")
                self._start()

    def _start(self) -> None:
        if self._started:
            return
        self._take_session()
        self._router.start()
        self._router.limit(self._limit)
        _living.add(self)
        # The engine stops itself at the interpreter's end, too. What is registered last is called first.
        atexit.unregister(_stop_all)
        atexit.register(_stop_all)
        with self._lock:
            self._started = True
            self._starts += 1
            self._begin_next()

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        """The manager started, and the lock held."""
        while True:
            self.start_by_itself()
            with self._lock:
                if self._started:  # nobody has stopped it meanwhile
                    yield
                    return

    def stop(self) -> None:
        """Stop all transfers, save the states, and end the threads. Unfinished downloads are paused."""
        if self._forked:
            return
        with self._lifting:
            self._stop()

    def _stop(self) -> None:
        if not self._started:
            self._leave_session()
            return
        with self._lock:
            self._started = False
            waiting = self._waiting.drain()
            cut_short = {*self._active, *(download.gid for download in waiting)}
            for download in waiting:
                self._room.release(download)
                download.move(DownloadStatus.PAUSED, cut_short=True)
        # Outside the lock, which the backend takes to tell of each end.
        self._router.stop()
        _living.discard(self)
        # The next manager with this session goes on with what this one did not finish.
        self._save_session(cut_short)
        self._leave_session()

    def __repr__(self) -> str:
        with self._lock:
            count = Counter(download.status.value for download in self._downloads.values())
        downloads = ", ".join(f"{number} {status}" for status, number in count.items()) or "no downloads"
        return f"<DownloadManager {self.backend}, {'started' if self._started else 'stopped'}: {downloads}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._left = self is not _global  # which others use, too
        self.stop()

    def __del__(self) -> None:
        if getattr(self, "_started", False):
            shown = repr(self)
            # On a thread of its own: this one may hold anything, or be one of those that are to end.
            self._hearing.keep(self)
            with contextlib.suppress(RuntimeError):  # at the interpreter's end
                threading.Thread(target=self._stop_dropped, name="rangefetch-closer").start()
            warnings.warn(f"{shown} was dropped without stop()", ResourceWarning, source=self, stacklevel=2)

    def _stop_dropped(self) -> None:
        self.stop()
        self._hearing.keep(None)

    # -- verbs ------------------------------------------------------------------------------------------------

    def download(self, url: Url, options: DownloadOptions | Mapping[str, Any] | None = None) -> str:
        """Add a URL to the queue; returns its gid. Raises ``ValueError`` or ``TypeError`` for bad options."""
        return self.submit(url, options).gid

    def wait(self, gid: str, timeout: float | None = None) -> DownloadResult:
        """Wait until a download has ended and return its result.

        Raises the ``DownloadError`` that ended it, ``Cancelled`` if it was removed or is paused because the manager
        stopped, and ``WaitTimeout`` (a ``TimeoutError``) when ``timeout`` seconds pass first: the download goes on.
        """
        return self.wait_for(self._find(gid), timeout)

    def download_and_wait(
        self,
        url: Url,
        options: DownloadOptions | Mapping[str, Any] | None = None,
        on_progress: Callable[[DownloadProgress], object] | None = None,
    ) -> DownloadResult:
        """``download`` and ``wait``. ``on_progress`` is called in this thread, at most every 100 ms.

        When the wait is interrupted (Ctrl-C, or an exception in ``on_progress``, which reaches the caller), the
        download is paused and its state is saved.
        """
        check_function(on_progress, "on_progress")
        download = self.submit(url, options)
        with self.unless_interrupted(download, lambda: self.pause(download.gid)):
            return self.wait_for(download, None, on_progress)

    @contextlib.contextmanager
    def unless_interrupted(self, download: Download, leave: Callable[[], object]) -> Iterator[None]:
        """Have ``leave`` called where the body is left by an exception that is not how the download ended."""
        try:
            yield
        except BaseException:
            if download.status in (DownloadStatus.ACTIVE, DownloadStatus.WAITING):
                with contextlib.suppress(KeyError, RuntimeError):  # it was forgotten, or this is a forked child
                    leave()
            raise

    def pause(self, gid: str) -> None:
        """Stop the transfers of a download and save its state. Returns when it has stopped."""
        self._end(self._find(gid), DownloadStatus.PAUSED)

    def pause_all(self) -> None:
        """Pause everything that waits or is active."""
        self._end_all(DownloadStatus.PAUSED)

    def resume(self, gid: str) -> None:
        """Put a paused download into the queue again."""
        self._queue(self._find(gid), DownloadStatus.PAUSED)

    def resume_all(self) -> None:
        """Resume everything that is paused."""
        self._must_be_ours()
        with self._lock:
            downloads = list(self._downloads.values())
        for each in downloads:
            if each.status is DownloadStatus.PAUSED:
                self._queue(each, DownloadStatus.PAUSED)

    def retry(self, gid: str) -> None:
        """Put a failed download into the queue again; downloaded data is kept."""
        self._queue(self._find(gid), DownloadStatus.ERROR)

    def cancel(self, gid: str, remove_files: bool = False) -> Path | None:
        """Stop a download for good; ``remove_files`` deletes its files. A finished file is never touched.

        Returns the path that it would have had, or None if that was not known yet.
        """
        download = self._find(gid)
        self._end(download, DownloadStatus.REMOVED, remove_files=remove_files)
        return _path_of(download)

    def cancel_all(self, remove_files: bool = False) -> Path | None:
        """Cancel everything that is not finished. Returns the first of their paths, None where there is none."""
        cancelled = self._end_all(DownloadStatus.REMOVED, remove_files=remove_files)
        return next((path for path in map(_path_of, cancelled) if path is not None), None)

    def remove(self, gid: str) -> None:
        """Forget a finished download. ``ValueError`` for one that is not finished."""
        download = self._find(gid)
        with self._lock:
            if download.status not in _FINISHED:
                raise ValueError(f"{gid}: a download that is {download.status} cannot be removed; cancel it first")
            self._forget(gid)
        self._changed()

    def change_options(self, gid: str, **options: Unpack[AllOptions]) -> None:
        """Change the options of a download that is not finished.

        With another ``filename`` or ``save_dir``, downloaded data is moved, which can take long if it is to another
        file system. Raises ``TargetExists`` if another unfinished download has that place, ``DiskError`` or
        ``ValueError``; then nothing has changed.

        While a download is active, only limits, connections (``split``, ``max_connection_per_server``), ``headers``
        and ``user_agent`` (for its next requests) and ``mirrors`` can change; other options raise ``ValueError``.
        """
        download = self._find(gid)
        with self._lock:
            changed = DownloadOptions.of(download.options, **options)
            if download.status is DownloadStatus.ACTIVE:
                for name in options:
                    if name not in _CHANGEABLE:
                        raise ValueError(f"{name}: cannot change while the download is active; pause it first")
            elif download.status not in (DownloadStatus.WAITING, DownloadStatus.PAUSED):
                raise ValueError(f"{gid}: a download that is {download.status} cannot take new options")
            place = (os.fspath(changed.save_dir), changed.filename)
            is_elsewhere = place != (os.fspath(download.options.save_dir), download.options.filename)
        if is_elsewhere:
            # Not under the lock, since it may take long.
            self._router.move_leftovers(download, changed)
        with self._lock:
            if is_elsewhere and download.status is DownloadStatus.ACTIVE:
                raise ValueError(f"{gid}: it has started in the meantime; pause it first")
            download.options = changed
            download.filename = changed.filename or download.filename
            is_active = gid in self._active
        if is_active:
            self._router.change(download)
        self._changed()

    def limit(self, bytes_per_s: int | str) -> None:
        """Limit all downloads together, from now on; 0: no limit."""
        self._limit = parse_size(bytes_per_s, "max_overall_download_limit")
        if self._started:
            self._router.limit(self._limit)

    def get_download_progress(self, gid: str) -> DownloadProgress:
        """The download at this moment."""
        return self._find(gid).progress()

    def list_downloads(self, status: DownloadStatus | str | None = None) -> list[DownloadProgress]:
        """All downloads, or those in one state, in the order in which they were asked for."""
        self._must_be_ours()
        with self._lock:
            downloads = list(self._downloads.values())
        return [each.progress() for each in downloads if status is None or each.status == status]

    def begin(self, download: Download) -> None:
        """Take on a stream's download, which starts at once."""
        with self._running():
            self._downloads[download.gid] = download
            self._put_in_queue(download, None)

    def is_native(self) -> bool:
        """Whether the native backend is the one in use; for streams."""
        self.start_by_itself()
        return self._router.name == "native"

    def forget(self, download: Download) -> None:
        """``remove``, for who has the download itself; one that has not ended stays."""
        with self._lock:
            if download.status in _FINISHED and self._downloads.get(download.gid) is download:
                self._forget(download.gid)
        self._changed()

    # -- what the backend tells ---------------------------------------------------------------------------------

    def completed(self, download: Download, result: DownloadResult) -> None:
        with self._lock:
            self._waiting.is_back(download)
        self._ended(download, DownloadStatus.COMPLETE, result=result)

    def failed(self, download: Download, error: DownloadError) -> None:
        intent = download.intent
        if isinstance(error, ChecksumMismatch) and error.kept is not None:
            download.kept_aside = error.kept
        if intent is DownloadStatus.REMOVED:
            self._ended(download, intent)
        else:
            self._ended(download, DownloadStatus.ERROR, error=error)

    def halted(self, download: Download) -> None:
        with self._lock:
            intent, goes_on = download.intent, self._started
        if intent is DownloadStatus.REMOVED:
            self._ended(download, intent)
            return
        goes_on = goes_on and intent is DownloadStatus.WAITING
        # Nobody has asked for it where the backend was stopped.
        self._ended(download, DownloadStatus.PAUSED, cut_short=intent is not DownloadStatus.PAUSED and not goes_on)
        if goes_on:
            self._wait_again(download)

    def _ended(
        self,
        download: Download,
        status: DownloadStatus,
        *,
        result: DownloadResult | None = None,
        error: DownloadError | None = None,
        cut_short: bool = False,
    ) -> None:
        try:
            with self._lock:
                self._leave_place(download)
                self._note_end(download, status)
                self._begin_next()
        finally:
            # Whoever waits for it hears of it, whatever else went wrong.
            download.move(status, result=result, error=error, cut_short=cut_short)
        self._changed()

    def _wait_again(self, download: Download) -> None:
        """It was resumed before it had come to rest. On the backend's thread, so no file system is asked."""
        with self._lock:
            if download.status is DownloadStatus.PAUSED:
                download.move(DownloadStatus.WAITING)
                self._put_in_queue(download, None)
        self._changed()

    def asks(self, download: Download, *, asking: bool) -> None:
        with self._lock:
            if asking and download.gid in self._active:
                self._asking.add(download.gid)
                self._begin_next()
            else:
                self._asking.discard(download.gid)

    def directed(self, download: Download, status: DownloadStatus) -> None:
        if status is DownloadStatus.WAITING:
            self._wait_again(download)
            self._changed()
        else:
            self._end(download, status)

    def grows(self, download: Download, *, answered: bool) -> Growth:
        with self._lock:
            if download.gid not in self._small or download.intent is not None:
                return Growth.NOW
            if self._may_be_more_than_small():
                self._small.discard(download.gid)
                return Growth.NOW
            if answered:
                self._held[download.gid] = download
                return Growth.SOON
            # Whatever it is that fails, it may take its time.
            download.was_put_off = True
            download.intent = DownloadStatus.WAITING
            return Growth.LATER

    def puts_off(self, download: Download) -> bool:
        with self._lock:
            may_wait = download.gid in self._active and download.intent is None and not download.was_put_off
            if may_wait and self._waiting.put_off(download):
                download.was_put_off = True
                download.intent = DownloadStatus.WAITING
                return True
        return False

    # -- inside -----------------------------------------------------------------------------------------------

    def _must_be_ours(self) -> None:
        if self._forked:
            raise RuntimeError("this DownloadManager belongs to the process before the fork; make a new one")

    def _orphan(self) -> None:
        self._lock = threading.RLock()
        self._lifting = threading.RLock()
        self._session_saving = threading.Lock()
        self._forked = True
        self._started = False

    def _find(self, gid: str) -> Download:
        self._must_be_ours()
        with self._lock:
            if gid not in self._downloads:
                raise KeyError(f"there is no download {gid!r}")
            return self._downloads[gid]

    def check(
        self, url: Url, options: DownloadOptions | Mapping[str, Any] | None = None
    ) -> tuple[str, DownloadOptions]:
        """The URL, and all options with the manager's defaults. Raises ``ValueError``, ``TypeError``."""
        if options is None:
            return check_url(url), self._defaults
        if isinstance(options, Mapping):
            # A loop gives the same ones again and again.
            key = _key_of(options)
            known, checked = self._last_options
            if key is None or key != known:
                checked = DownloadOptions.of(self._defaults, **options)
                self._last_options = (key, checked)
            return check_url(url), checked
        return check_url(url), DownloadOptions.of(options).over(self._defaults)

    def _in_this_directory(self, options: DownloadOptions) -> DownloadOptions:
        """The options with paths that stay what they are, wherever the process goes later."""
        known, last, absolute = self._last_absolute
        if options is absolute:
            return options  # wherever this is
        try:
            directory = os.getcwd()  # noqa: PTH109 - it is a string that is compared
        except OSError:  # it is gone
            return options.absolute()
        if known != directory or last is not options:
            absolute = options.absolute()
            self._last_absolute = (directory, options, absolute)
        return absolute

    @property
    def defaults(self) -> DownloadOptions:
        """The options of every download, unless it has its own."""
        return self._defaults

    def submit(
        self,
        url: Url,
        options: DownloadOptions | Mapping[str, Any] | None = None,
        *,
        starts: int | None = None,
        watcher: Callable[[Download], object] | None = None,
    ) -> Download:
        """``download``, for who wants the download itself, and to be called after each of its moves.

        Raises ``Cancelled`` if the manager was stopped since :attr:`starts` had this value.
        """
        text, checked = self.check(url, options)
        download = Download(text, self._in_this_directory(checked))
        if watcher is not None:
            download.watch(watcher)
        if starts is not None and not (self._started and starts == self._starts):
            raise Cancelled("the manager was stopped", url=mask_url(text))
        no_room = self._claim_room(download)
        with self._running():
            if starts not in (None, self._starts):
                self._room.release(download)
                raise Cancelled("the manager was stopped", url=mask_url(text))
            self._downloads[download.gid] = download
            self._put_in_queue(download, no_room)
        self._changed()
        return download

    def _active_downloads(self) -> list[Download]:
        with self._lock:
            return [self._downloads[gid] for gid in self._active if gid in self._downloads]

    def _claim_room(self, download: Download) -> DiskError | None:
        """Hold the space that it lacks, or say that there is not as much. Asks the file system, so without the lock."""
        try:
            self._room.claim(download, self._active_downloads)
        except DiskError as error:
            return error
        return None

    def _put_in_queue(self, download: Download, no_room: DiskError | None) -> None:
        """Have a download wait, or refuse it where there is no room for it; the lock is held."""
        if download.sink is not None and self._started:
            # It has no turn: it lasts for as long as its reader pleases, who may be waiting for another stream.
            self._streams.add(download.gid)
            self._start_one(download)
            return
        if no_room is not None:
            self._note_end(download, DownloadStatus.ERROR)
            download.move(DownloadStatus.ERROR, error=no_room)
            return
        self._waiting.add(download)
        self._begin_next()

    def _begin_next(self) -> None:
        """Start waiting downloads while there is room; the lock is held."""
        while self._held and self._may_be_more_than_small():
            gid, held = self._held.popitem(last=False)
            self._small.discard(gid)
            self._router.go_on(held)
        while self._started and (download := self._waiting.next) is not None:
            download.is_small = self._router.takes_as_small(download)
            if not self._has_place(small=download.is_small):
                break
            self._waiting.discard(download)
            if download.is_small:
                self._small.add(download.gid)
            self._start_one(download)

    def _has_place(self, *, small: bool) -> bool:
        """Whether one more download may be active. The lock is held."""
        taken = len(self._active) - len(self._asking | self._streams)
        return taken < self._most_small and (small or self._may_be_more_than_small())

    def _may_be_more_than_small(self) -> bool:
        """Whether one more of the active downloads may be other than a small file. The lock is held."""
        return len(self._active) - len(self._asking | self._streams) - len(self._small) < self._most_active

    def _leave_place(self, download: Download) -> None:
        """It is not active any more; the lock is held."""
        for each in (self._active, self._streams, self._asking, self._small):
            each.discard(download.gid)
        self._held.pop(download.gid, None)

    def _start_one(self, download: Download) -> None:
        self._room.release(download)
        self._active.add(download.gid)
        download.move(DownloadStatus.ACTIVE)
        try:
            self._router.begin(download)
        except Exception as error:
            _log.exception("%s: internal error", download.gid)
            self._leave_place(download)
            self._note_end(download, DownloadStatus.ERROR)
            shown_url = mask_url(download.url)
            download.move(DownloadStatus.ERROR, error=LocalError(f"internal error: {error!r}", url=shown_url))

    def _queue(self, download: Download, from_status: DownloadStatus) -> None:
        """Have a download that rests wait for its turn again."""
        no_room = self._claim_room(download) if download.status is from_status else None
        with self._running():
            if download.status is DownloadStatus.ACTIVE and download.intent is DownloadStatus.PAUSED:
                # It is on its way to rest: back from there.
                download.intent = DownloadStatus.WAITING
            elif download.status is from_status:
                self._finished.pop(download.gid, None)
                self._collected.pop(download.gid, None)
                download.move(DownloadStatus.WAITING)
                self._put_in_queue(download, no_room)
            else:
                self._room.release(download)
        self._changed()

    def _end(self, download: Download, status: DownloadStatus, *, remove_files: bool = False) -> None:
        """Bring a download to rest or to its end, unless it had got there already."""
        was = self._direct(download, status, remove_files=remove_files)
        if was is None:
            return
        self._let_go(download, was, remove_files=remove_files)
        if was is DownloadStatus.ACTIVE:
            self._settle(download)
        if remove_files:
            leftovers.remove_kept_aside(download)
        self._changed()

    def _direct(
        self, download: Download, status: DownloadStatus, *, remove_files: bool = False
    ) -> DownloadStatus | None:
        """Note where a download is to go; what rests is there at once. Returns where it was, None: there already."""
        with self._lock:
            was = download.status
            if was is DownloadStatus.ACTIVE:
                download.want(status, remove_files=remove_files)
            elif was is DownloadStatus.WAITING:
                self._waiting.discard(download)
                self._room.release(download)
                download.move(status)
            elif status is DownloadStatus.REMOVED and was in (DownloadStatus.PAUSED, DownloadStatus.ERROR):
                download.move(status)
            else:
                return None
            if was is not DownloadStatus.ACTIVE:
                self._note_end(download, status)
            return was

    def _let_go(self, download: Download, was: DownloadStatus, *, remove_files: bool) -> None:
        """What follows for the backend and the files, without the lock."""
        if was is DownloadStatus.ACTIVE:
            self._router.halt(download)
        elif remove_files:
            self._remove_leftovers(download)

    def _remove_leftovers(self, download: Download) -> None:
        try:
            self._router.remove_leftovers(download)
        except TargetLocked as error:
            raise LocalError(f"its files cannot be removed: {error}", url=mask_url(download.url)) from None

    def let_go(self, downloads: Iterable[Download]) -> None:
        """Stop some downloads as one, save their states, and forget them: whoever asked for them is gone."""
        downloads = list(downloads)
        self._end_all(DownloadStatus.REMOVED, among=downloads)
        for download in downloads:
            with contextlib.suppress(KeyError, ValueError):
                self.remove(download.gid)

    def _end_all(
        self, status: DownloadStatus, *, remove_files: bool = False, among: Iterable[Download] | None = None
    ) -> list[Download]:
        with self._lock:
            asked = list(self._downloads.values() if among is None else among)
            # The queue first, so that nothing takes the place of what ends.
            in_order = sorted(asked, key=lambda download: download.status is DownloadStatus.ACTIVE)
            directed = [
                (each, was)
                for each in in_order
                if (was := self._direct(each, status, remove_files=remove_files)) is not None
            ]
        with contextlib.ExitStack() as each_at_any_rate:
            for download, was in directed:
                if remove_files or was is DownloadStatus.ACTIVE:
                    each_at_any_rate.callback(self._let_go, download, was, remove_files=remove_files)
        for download, was in directed:
            if was is DownloadStatus.ACTIVE:
                self._settle(download)
            if remove_files:
                leftovers.remove_kept_aside(download)
        if directed:
            self._changed()
        ended = {download.gid for download, _ in directed}
        return [download for download in asked if download.gid in ended]

    def _settle(self, download: Download) -> None:
        """Wait until a download that was told to stop has stopped; the backend's own threads do not wait."""
        if threading.current_thread().name.startswith("rangefetch-"):
            return
        deadline_s = time.monotonic() + _SETTLE_S
        with download.lock:
            while download.status is DownloadStatus.ACTIVE and time.monotonic() < deadline_s:
                download.lock.wait(1.0)

    def _note_end(self, download: Download, status: DownloadStatus) -> None:
        """Remember a download that has finished until its outcome is collected; the lock is held."""
        if status in _FINISHED:
            self._finished.pop(download.gid, None)
            self._finished[download.gid] = None
            while len(self._finished) > max(self._most_finished, _MOST_UNCOLLECTED):
                self._forget(next(iter(self._finished)))

    def _collect(self, download: Download) -> None:
        """Somebody is told the outcome: now it is one of those of which only the last are remembered."""
        with self._lock:
            if download.gid not in self._downloads or download.status not in _FINISHED:
                return
            self._finished.pop(download.gid, None)
            self._collected.pop(download.gid, None)
            self._collected[download.gid] = None
            while len(self._collected) > self._most_finished:
                self._forget(next(iter(self._collected)))

    def _forget(self, gid: str) -> None:
        self._downloads.pop(gid, None)
        self._finished.pop(gid, None)
        self._collected.pop(gid, None)

    def wait_for(
        self,
        download: Download,
        timeout: float | None = None,
        on_progress: Callable[[DownloadProgress], object] | None = None,
    ) -> DownloadResult:
        """``wait``, for who has the download itself: it may have been forgotten by its gid."""
        try:
            result = self._outcome(download, timeout, on_progress)
        except DownloadError:
            self._collect(download)
            raise
        self._collect(download)
        return result

    def _outcome(
        self,
        download: Download,
        timeout: float | None,
        on_progress: Callable[[DownloadProgress], object] | None,
    ) -> DownloadResult:
        deadline_s = None if timeout is None else time.monotonic() + timeout
        due_s = time.monotonic() + _PROGRESS_EVERY_S
        while True:
            self._must_be_ours()
            with download.lock:
                if download.result is not None:
                    result = download.result
                    break
                if (error := download.failure()) is not None:
                    raise error from error.__cause__
                if download.status is DownloadStatus.REMOVED:
                    raise Cancelled("it was removed", url=mask_url(download.url))
                if download.status is DownloadStatus.PAUSED and (download.cut_short or not self.is_started):
                    raise Cancelled("the manager was stopped", url=mask_url(download.url))
                left_s = None if deadline_s is None else deadline_s - time.monotonic()
                if left_s is not None and left_s <= 0:
                    raise WaitTimeout(download.gid, timeout or 0.0)
                pause_s = max(0.0, due_s - time.monotonic()) if on_progress else 1.0
                if download.lock.wait(pause_s if left_s is None else min(pause_s, left_s)):
                    continue
            if time.monotonic() >= due_s:
                progress = download.progress()
                if on_progress is not None and progress.status not in _FINISHED:  # how it ended is told once, below
                    on_progress(progress)
                due_s = time.monotonic() + _PROGRESS_EVERY_S
        if on_progress is not None:
            on_progress(download.progress())
        return result

    # -- the session --------------------------------------------------------------------------------------------

    def _changed(self) -> None:
        """Something that the session knows of has changed: it is saved within a second."""
        if self._session_file is None:
            return
        if not self._started:
            self._save_session()
            return
        with self._lock:
            if self._session_timer is None:
                save = weakref.WeakMethod(self._save_session)  # or the timer would keep a manager alive
                self._session_timer = threading.Timer(_SESSION_EVERY_S, lambda: (now := save()) and now())
                self._session_timer.daemon = True
                self._session_timer.name = "rangefetch-session"
                self._session_timer.start()

    def _take_session(self) -> None:
        """Take the session, if there is one, and list what is in it. Raises ``LocalError`` if another has it."""
        if self._session_file is None or self._session_hold is None:
            return
        with self._session_saving:
            if self._session_hold.is_held:
                return
            self._session_hold.acquire()
            found = session.load(self._session_file)
        with self._lock:
            for download in found:
                if download.gid not in self._downloads:
                    self._downloads[download.gid] = download
                    if download.status is DownloadStatus.WAITING:
                        self._waiting.add(download)

    def _leave_session(self) -> None:
        if self._session_hold is not None:
            with self._session_saving:
                self._session_hold.release()

    def _save_session(self, cut_short: Collection[str] = ()) -> None:
        if self._session_file is None or self._session_hold is None:
            return
        with self._lock:
            if self._session_timer is not None:
                self._session_timer.cancel()
                self._session_timer = None
            downloads = list(self._downloads.values())
            self._session_looks += 1
            look = self._session_looks
        with self._session_saving:
            if look < self._session_saved_look:
                return  # a later look was saved meanwhile
            # A manager that was stopped has let go of its session, and somebody else may have it.
            is_borrowed = not self._session_hold.is_held
            try:
                self._session_hold.acquire()
                session.save(self._session_file, downloads, cut_short)
                self._session_saved_look = look
            except LocalError as error:
                _log.warning("%s", error)
            finally:
                if is_borrowed:
                    self._session_hold.release()


_CHANGEABLE = frozenset(
    {"headers", "max_connection_per_server", "max_download_limit", "mirrors", "split", "user_agent"}
)


def _key_of(options: Mapping[str, Any]) -> tuple[object, ...] | None:
    """By which the same options are known again; None where a value may change meanwhile."""
    if not all(type(value) in (str, int, float, bool) or isinstance(value, Path) for value in options.values()):
        return None
    return tuple((name, type(value), value) for name, value in options.items())


def _path_of(download: Download) -> Path | None:
    if download.result is not None:
        return download.result.path
    return Path(download.options.save_dir).absolute() / download.filename if download.filename else None


class _Hearing:
    """The ``Listener`` of a manager's backends, whose threads do not keep a manager alive that nobody uses."""

    def __init__(self, manager: DownloadManager) -> None:
        self._manager = weakref.ref(manager)
        self._kept: DownloadManager | None = None

    def keep(self, manager: DownloadManager | None) -> None:
        """Hear for one that is going; None: it is gone."""
        self._kept = manager

    def _who(self) -> DownloadManager | None:
        return self._kept or self._manager()

    def completed(self, download: Download, result: DownloadResult) -> None:
        if (manager := self._who()) is not None:
            manager.completed(download, result)

    def failed(self, download: Download, error: DownloadError) -> None:
        if (manager := self._who()) is not None:
            manager.failed(download, error)

    def halted(self, download: Download) -> None:
        if (manager := self._who()) is not None:
            manager.halted(download)

    def grows(self, download: Download, *, answered: bool) -> Growth:
        manager = self._who()
        return manager.grows(download, answered=answered) if manager is not None else Growth.NOW

    def directed(self, download: Download, status: DownloadStatus) -> None:
        if (manager := self._who()) is not None:
            manager.directed(download, status)

    def asks(self, download: Download, *, asking: bool) -> None:
        if (manager := self._who()) is not None:
            manager.asks(download, asking=asking)

    def puts_off(self, download: Download) -> bool:
        manager = self._who()
        return manager is not None and manager.puts_off(download)


# -- the process's own manager ------------------------------------------------------------------------------------

_living: weakref.WeakSet[DownloadManager] = weakref.WeakSet()
_global: DownloadManager | None = None
_global_config: dict[str, Any] = {}
_global_lock = threading.RLock()


def init_download_manager(backend: str = "auto", *, prefer: str = "native", **config: Any) -> DownloadManager:
    """Create the process's manager, which ``fetch`` uses, or return the existing one if the arguments are the same.

    ``RANGEFETCH_BACKEND`` in the environment applies when the backend is ``"auto"``. A manager with other arguments is
    replaced, unless it has active or waiting downloads: that raises ``RuntimeError``. ``config`` are keywords of
    ``DownloadManager``.
    """
    global _global, _global_config
    wanted = {"backend": backend, "prefer": prefer, **config}
    with _global_lock:
        if _global is not None:
            if wanted == _global_config:
                return _global
            for status in (DownloadStatus.ACTIVE, DownloadStatus.WAITING):
                if _global.list_downloads(status):
                    raise RuntimeError("the download manager cannot be replaced while it has downloads")
            _global.stop()
        _global = DownloadManager(**wanted)
        _global_config = wanted
        return _global


def get_download_manager() -> DownloadManager:
    """The process's manager; created with the defaults unless ``init_download_manager`` was called."""
    with _global_lock:
        return _global if _global is not None else init_download_manager()


@atexit.register
def _stop_all() -> None:
    """Save what is unfinished when the interpreter ends."""
    for manager in list(_living):
        manager.stop()


def _forget_parent() -> None:
    """In a forked child: the threads are not here, and the sockets are the parent's."""
    global _global, _global_lock
    for manager in list(_living):
        manager._orphan()
    _living.clear()
    _global_lock = threading.RLock()
    _global = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)
