"""The download manager: several downloads at once, a queue, and the states that they go through."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from rangefetch.aria2.config import DaemonOptions
from rangefetch.checks import Url, check_count, check_function, check_url, parse_size
from rangefetch.errors import Cancelled, DownloadError, LocalError, TargetLocked
from rangefetch.importing import after_fork, no_fork
from rangefetch.masking import mask_url
from rangefetch.options import AllOptions, DownloadOptions
from rangefetch.progress import DownloadProgress, DownloadResult, DownloadStatus
from rangefetch.queueing import Entry, Left, Queue
from rangefetch.selection import BackendRouter
from rangefetch.transfer import leftovers
from rangefetch.transfer.descriptors import most_at_once
from rangefetch.transfer.download import Download, Queued
from rangefetch.transfer.retry import RetryPolicy
from rangefetch.waiting import outcome_of, wait_until_stopped

if TYPE_CHECKING:
    from rangefetch import session

__all__ = ["DownloadManager", "ManagerOptions", "destination_of"]

_AS_DEFAULT = {"download_dir": "save_dir", "ca_file": "ca_file", "verify_tls": "verify_tls"}
"""Keywords that are given to aria2c, and are options of every download that has none of its own."""

_MOST_ACTIVE, _MOST_SMALL = 16, 128  # where the user has given no number
_MOST_ASIDE = 256  # beside those, that wait for their next try


class ManagerOptions(DaemonOptions, total=False):
    """The keywords of ``DownloadManager``, all optional, but for those that say which backend."""

    max_concurrent_downloads: int | None
    max_overall_download_limit: int | str
    defaults: DownloadOptions | Mapping[str, Any] | None
    retry_policy: RetryPolicy | None
    session_file: str | os.PathLike[str] | None
    max_download_results: int


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
    which ``download_dir``, ``ca_file`` and ``verify_tls`` apply to both backends: they are defaults, too.

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
        **config: Unpack[DaemonOptions],
    ) -> None:
        if max_concurrent_downloads is not None:
            check_count(max_concurrent_downloads, "max_concurrent_downloads", 1, 1_000_000)
        check_count(max_download_results, "max_download_results", 0, 1_000_000)
        if retry_policy is not None and not isinstance(retry_policy, RetryPolicy):
            raise TypeError(f"retry_policy: expected a RetryPolicy, not {type(retry_policy).__name__}")
        self._most_active = most_at_once(max_concurrent_downloads or _MOST_ACTIVE)
        most_small = most_at_once(max_concurrent_downloads or _MOST_SMALL)
        self._session: session.Session | None = None
        self._queue = Queue(self._most_active, most_small, most_at_once(_MOST_ASIDE), max_download_results)
        self._router = BackendRouter(self._queue, backend, prefer, retry_policy or RetryPolicy(), config)
        self._queue.router = self._router
        self._limit = parse_size(max_overall_download_limit, "max_overall_download_limit")
        if defaults is not None and not isinstance(defaults, DownloadOptions | Mapping):
            raise TypeError(f"defaults: expected DownloadOptions or a mapping, not {type(defaults).__name__}")
        keywords = ((_AS_DEFAULT.get(name), value) for name, value in config.items())
        of_keywords = {option: value for option, value in keywords if option is not None and value != ""}
        self._defaults = DownloadOptions.of(defaults).over(DownloadOptions.of(of_keywords))
        self._last_options: tuple[object, DownloadOptions] = (None, self._defaults)
        # Where the last was submitted, its options, and the same with absolute paths.
        self._last_absolute = ("", self._defaults, self._defaults)
        self._lifting = threading.RLock()  # one start or stop at a time; these may take seconds
        self._forked = False
        self._left = False  # its block has ended: it starts when it is told to, and not by itself
        self.is_shared = False
        """Whether it is the process's own, which others use, too."""
        if session_file is not None:
            with no_fork:
                from rangefetch import session

            self._session = session.Session(session.check_path(session_file), self._queue.peek)
            self._queue.note = self._session.note
        self._take_session()

    # -- life -------------------------------------------------------------------------------------------------

    @property
    def is_started(self) -> bool:
        """Whether a backend runs."""
        return self._queue.is_started

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
        return self._queue.starts

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
        if not self.is_started:
            with self._lifting:
                if self._left:
                    raise RuntimeError("the manager's with block has ended; call start() to use it again")
                self._start()

    def _start(self) -> None:
        if self.is_started:
            return
        self._take_session()
        self._router.start()
        self._router.limit(self._limit)
        _living.add(self)
        # The engine stops itself at the interpreter's end, too. What is registered last is called first.
        atexit.unregister(_stop_all)
        atexit.register(_stop_all)
        self._queue.start()

    def stop(self) -> None:
        """Stop all transfers, save the states, and end the threads. Unfinished downloads are paused."""
        if self._forked:
            return
        with self._lifting:
            if self.is_started:
                self._queue.stop()
                self._router.stop()
                _living.discard(self)
            # The next manager with this session goes on with what this one did not finish.
            if self._session is not None:
                self._session.save()
                self._session.leave()

    def _take_session(self) -> None:
        """Take the session, if there is one, and list what is in it. Raises ``LocalError`` if another has it."""
        if self._session is not None:
            self._queue.take_in(self._session.take())

    def _save_while_stopped(self) -> None:
        """Something was changed; while nothing runs, nobody else saves that."""
        if self._session is not None and not self.is_started:
            self._session.save()

    def __repr__(self) -> str:
        count = Counter(entry.status.value for entry in self._queue.entries())
        downloads = ", ".join(f"{number} {status}" for status, number in count.items()) or "no downloads"
        return f"<DownloadManager {self.backend}, {'started' if self.is_started else 'stopped'}: {downloads}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._left = not self.is_shared
        self.stop()

    def __del__(self) -> None:
        queue = getattr(self, "_queue", None)
        if queue is not None and queue.is_started:
            shown = repr(self)
            # On a thread of its own: this one may hold anything, or be one of those that are to end.
            with contextlib.suppress(RuntimeError):  # at the interpreter's end
                threading.Thread(target=self.stop, name="rangefetch-closer").start()
            warnings.warn(f"{shown} was dropped without stop()", ResourceWarning, source=self, stacklevel=2)

    # -- verbs ------------------------------------------------------------------------------------------------

    def download(self, url: Url, options: DownloadOptions | Mapping[str, Any] | None = None) -> str:
        """Add a URL to the queue; returns its gid. Raises ``ValueError`` or ``TypeError`` for bad options."""
        text, checked = self.check(url, options)
        queued = Queued(text, self._in_this_directory(checked))
        self._add([queued])
        return queued.gid

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

    def pause(self, gid: str) -> None:
        """Stop the transfers of a download and save its state. Returns when it has stopped."""
        self.end(DownloadStatus.PAUSED, [self._find(gid)])

    def pause_all(self) -> None:
        """Pause everything that waits or is active."""
        self.end(DownloadStatus.PAUSED)

    def resume(self, gid: str) -> None:
        """Put a paused download into the queue again."""
        self._queue_again([self._find(gid)], DownloadStatus.PAUSED)

    def resume_all(self) -> None:
        """Resume everything that is paused."""
        self._must_be_ours()
        paused = [each for each in self._queue.entries() if each.status is DownloadStatus.PAUSED]
        self._queue_again(paused, DownloadStatus.PAUSED)

    def retry(self, gid: str) -> None:
        """Put a failed download into the queue again; downloaded data is kept."""
        self._queue_again([self._find(gid)], DownloadStatus.ERROR)

    def cancel(self, gid: str, remove_files: bool = False) -> Path | None:
        """Stop a download for good; ``remove_files`` deletes its files. A finished file is never touched.

        Returns the path that it would have had, or None if that was not known yet.
        """
        download = self._find(gid)
        self.end(DownloadStatus.REMOVED, [download], remove_files=remove_files)
        return destination_of(download)

    def cancel_all(self, remove_files: bool = False) -> Path | None:
        """Cancel everything that is not finished. Returns the first of their paths, None where there is none."""
        cancelled = self.end(DownloadStatus.REMOVED, remove_files=remove_files)
        return next((path for path in map(destination_of, cancelled) if path is not None), None)

    def remove(self, gid: str) -> None:
        """Forget a finished download. ``ValueError`` for one that is not finished."""
        download = self._find(gid)
        if not self._queue.forget(gid):
            raise ValueError(f"{gid}: a download that is {download.status} cannot be removed; cancel it first")
        self._save_while_stopped()

    def change_options(self, gid: str, **options: Unpack[AllOptions]) -> None:
        """Change the options of a download that is not finished.

        With another ``filename`` or ``save_dir``, downloaded data is moved, which can take long if it is to another
        file system. Raises ``TargetExists`` if another unfinished download has that place, ``DiskError`` or
        ``ValueError``; then nothing has changed.

        While a download is active, only limits, connections (``split``, ``max_connection_per_server``), ``headers``
        and ``user_agent`` (for its next requests) and ``mirrors`` can change; other options raise ``ValueError``.
        """
        download = self._find(gid)
        before = download.options
        changed = DownloadOptions.of(before, **options)
        if download.status is DownloadStatus.ACTIVE:
            for name in options:
                if name not in _CHANGEABLE:
                    raise ValueError(f"{name}: cannot change while the download is active; pause it first")
        elif download.status not in (DownloadStatus.WAITING, DownloadStatus.PAUSED):
            raise ValueError(f"{gid}: a download that is {download.status} cannot take new options")
        elsewhere = (os.fspath(changed.save_dir), changed.filename) != (os.fspath(before.save_dir), before.filename)
        if elsewhere:
            # Not under a lock, since it may take long.
            self._router.move_leftovers(download, changed)
        if self._queue.change(download, changed, elsewhere=elsewhere):
            self._router.change(download)
        self._save_while_stopped()

    def limit(self, bytes_per_s: int | str) -> None:
        """Limit all downloads together, from now on; 0: no limit."""
        self._limit = parse_size(bytes_per_s, "max_overall_download_limit")
        if self.is_started:
            self._router.limit(self._limit)

    def get_download_progress(self, gid: str) -> DownloadProgress:
        """The download at this moment."""
        return self._find(gid).progress()

    def list_downloads(self, status: DownloadStatus | str | None = None) -> list[DownloadProgress]:
        """All downloads, or those in one state, in the order in which they were asked for."""
        self._must_be_ours()
        return [each.progress() for each in self._queue.entries() if status is None or each.status == status]

    # -- for those that have the download itself --------------------------------------------------------------

    @property
    def defaults(self) -> DownloadOptions:
        """The options of every download, unless it has its own."""
        return self._defaults

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
        self._add([download], starts)
        return download

    def submit_all(
        self, items: Iterable[tuple[str, DownloadOptions]], starts: int, watcher: Callable[[Download], object]
    ) -> list[Download]:
        """``submit`` for several, with a watcher of their stops. The URLs were checked, and the options have the
        manager's defaults."""
        downloads = []
        given = absolute = None
        for url, options in items:
            if options is not given:
                given, absolute = options, self._in_this_directory(options)
            assert absolute is not None
            download = Download(url, absolute)
            download.watch(watcher, stops=True)
            downloads.append(download)
        self._add(downloads, starts)
        return downloads

    def begin(self, download: Download) -> None:
        """Take on a stream's download, which starts at once."""
        with self._queue.running(self.start_by_itself):
            self._queue.add_stream(download)

    def can_stream(self) -> bool:
        """Whether a backend may be used that brings bytes in order."""
        self.start_by_itself()
        return self._router.can_stream

    def forget(self, *downloads: Download) -> None:
        """``remove``, for who has the downloads themselves; those that have not ended stay."""
        self._queue.forget_all(downloads)

    def passed_over(self, gids: Collection[str]) -> int:
        """How many of these downloads come after others, or are at work and can do nothing: they keep nobody busy."""
        return self._queue.passed_over(gids)

    def let_go(self, downloads: Iterable[Download]) -> None:
        """Stop some downloads as one, save their states, and forget them: whoever asked for them is gone."""
        downloads = list(downloads)
        self.end(DownloadStatus.REMOVED, downloads)
        self.forget(*downloads)

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

    def wait_for(
        self,
        download: Download,
        timeout: float | None = None,
        on_progress: Callable[[DownloadProgress], object] | None = None,
    ) -> DownloadResult:
        """``wait``, for who has the download itself: it may have been forgotten by its gid."""
        try:
            result = outcome_of(download, timeout, on_progress, self._check_that_it_runs)
        except DownloadError:
            self._queue.collect(download)
            raise
        self._queue.collect(download)
        return result

    # -- inside -----------------------------------------------------------------------------------------------

    def _must_be_ours(self) -> None:
        if self._forked:
            raise RuntimeError("this DownloadManager belongs to the process before the fork; make a new one")

    def _check_that_it_runs(self) -> bool:
        self._must_be_ours()
        return self.is_started

    def orphan(self) -> None:
        """In a forked child: what the parent has is not its own."""
        self._lifting = threading.RLock()
        self._forked = True
        self._queue.orphan()
        if self._session is not None:
            self._session.orphan()

    def _find(self, gid: str) -> Download:
        self._must_be_ours()
        return self._queue.find(gid)

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

    def _add(self, entries: Sequence[Entry], starts: int | None = None) -> None:
        """Put new ones into the queue."""
        if starts is not None and not (self.is_started and starts == self.starts):
            raise Cancelled("the manager was stopped", url=mask_url(entries[0].url))
        refused = self._queue.claim_room(entries)
        with self._queue.running(self.start_by_itself):
            if starts not in (None, self.starts):
                for entry in entries:
                    self._queue.release_room(entry)
                raise Cancelled("the manager was stopped", url=mask_url(entries[0].url))
            self._queue.add(entries, refused)

    def _queue_again(self, entries: list[Entry], was: DownloadStatus) -> None:
        """Have downloads that are paused or have failed wait for their turn again."""
        refused = self._queue.claim_room(each for each in entries if each.status is was)
        with self._queue.running(self.start_by_itself):
            self._queue.queue_again(entries, was, refused)

    def tell_to_end(
        self, status: DownloadStatus, among: Iterable[Download] | None = None, *, remove_files: bool = False
    ) -> list[Left]:
        """Tell downloads, or all, to pause or to end; returns those that had not done so already. Without files to be
        removed it waits for nothing.
        """
        ended = self._queue.direct(status, among=among, remove_files=remove_files)
        with contextlib.ExitStack() as each_at_any_rate:
            for left in ended:
                if left.was is DownloadStatus.ACTIVE:
                    each_at_any_rate.callback(self._queue.let_go, left)
                elif remove_files and isinstance(left.entry, Download):
                    each_at_any_rate.callback(self._remove_leftovers, left.entry)
        return ended

    def end(
        self, status: DownloadStatus, among: Iterable[Download] | None = None, *, remove_files: bool = False
    ) -> list[Entry]:
        """Pause or end downloads, or all; returns those that were neither paused nor ended already."""
        ended = self.tell_to_end(status, among, remove_files=remove_files)
        for left in ended:
            if isinstance(left.entry, Download):
                if left.was is DownloadStatus.ACTIVE:
                    wait_until_stopped(left.entry)
                if remove_files:
                    leftovers.remove_kept_aside(left.entry)
        self._save_while_stopped()
        return [left.entry for left in ended]

    def _remove_leftovers(self, download: Download) -> None:
        try:
            self._router.remove_leftovers(download)
        except TargetLocked as error:
            raise LocalError(f"its files cannot be removed: {error}", url=mask_url(download.url)) from None


_CHANGEABLE = frozenset(
    {"headers", "host_rate", "max_connection_per_server", "max_download_limit", "mirrors", "split", "user_agent"}
)


def _key_of(options: Mapping[str, Any]) -> tuple[object, ...] | None:
    """By which the same options are known again; None where a value may change meanwhile."""
    if not all(type(value) in (str, int, float, bool) or isinstance(value, Path) for value in options.values()):
        return None
    return tuple((name, type(value), value) for name, value in options.items())


def destination_of(entry: Entry) -> Path | None:
    """Where a download's file is, or would be; None: its name is not known."""
    if entry.result is not None:
        return entry.result.path
    return Path(entry.options.save_dir).absolute() / entry.filename if entry.filename else None


_living: weakref.WeakSet[DownloadManager] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """Save what is unfinished when the interpreter ends."""
    for manager in list(_living):
        manager.stop()


def _forget_parent() -> None:
    """In a forked child: the threads are not here, and the sockets are the parent's."""
    for manager in list(_living):
        manager.orphan()
    _living.clear()


after_fork(_forget_parent)
