"""The implementation behind ``DownloadManager``: its downloads, and starting and stopping.

Users of the package have gids and the manager's methods. ``fetch``, ``fetch_many``, ``stream`` and asyncio use this
class directly: they hold the ``Download`` objects and are notified of their state changes.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rangefetch.checks import Url, check_count, parse_size
from rangefetch.defaults import Defaults, Given
from rangefetch.errors import Cancelled, DownloadError, LocalError, TargetLocked
from rangefetch.importing import after_fork, no_fork
from rangefetch.masking import mask_url
from rangefetch.options import DownloadOptions
from rangefetch.progress import DownloadProgress, DownloadResult, DownloadStatus
from rangefetch.queueing import Left, Queue
from rangefetch.selection import BackendRouter
from rangefetch.transfer import leftovers
from rangefetch.transfer.descriptors import most_at_once
from rangefetch.transfer.download import Download, Entry, Queued
from rangefetch.transfer.retry import RetryPolicy
from rangefetch.waiting import outcome_of, wait_until_stopped

if TYPE_CHECKING:
    from rangefetch import session
    from rangefetch.aria2.config import DaemonOptions

__all__ = ["Downloads", "destination_of"]

_MOST_ACTIVE, _MOST_SMALL = 16, 128  # if the user gives no number
_MOST_ASIDE = 256  # downloads that wait for their next try and do not count as active

_CHANGEABLE = frozenset(
    {"headers", "host_rate", "max_connection_per_server", "max_download_limit", "mirrors", "split", "user_agent"}
)


class Downloads:
    """The downloads of one manager, created with the manager's keywords. Thread-safe."""

    def __init__(
        self,
        backend: str,
        prefer: str,
        config: DaemonOptions,
        *,
        max_concurrent_downloads: int | None,
        max_overall_download_limit: int | str,
        defaults: DownloadOptions | Mapping[str, Any] | None,
        retry_policy: RetryPolicy | None,
        session_file: str | os.PathLike[str] | None,
        max_download_results: int,
    ) -> None:
        if max_concurrent_downloads is not None:
            check_count(max_concurrent_downloads, "max_concurrent_downloads", 1, 1_000_000)
        check_count(max_download_results, "max_download_results", 0, 1_000_000)
        if retry_policy is not None and not isinstance(retry_policy, RetryPolicy):
            raise TypeError(f"retry_policy: expected a RetryPolicy, not {type(retry_policy).__name__}")
        self.most_active = most_at_once(max_concurrent_downloads or _MOST_ACTIVE)
        """How many downloads may be active at a time."""
        self.is_shared = False
        """Whether this belongs to the process's manager, which other code uses as well."""
        most_small = most_at_once(max_concurrent_downloads or _MOST_SMALL)
        self._queue = Queue(self.most_active, most_small, most_at_once(_MOST_ASIDE), max_download_results)
        self.router = BackendRouter(self._queue, backend, prefer, retry_policy or RetryPolicy(), config)
        self._queue.router = self.router
        self._limit = parse_size(max_overall_download_limit, "max_overall_download_limit")
        self.defaults = Defaults(defaults, config)
        self._lifting = threading.RLock()  # one start or stop at a time; each may take seconds
        self._forked = False
        self._left = False  # the manager's with block has ended, so it starts only when start() is called
        self._session: session.Session | None = None
        if session_file is not None:
            with no_fork:
                from rangefetch import session

            self._session = session.Session(session.check_path(session_file), self._queue.peek)
            self._queue.register.note = self._session.note
        self._take_session()

    # -- starting and stopping --------------------------------------------------------------------------------

    @property
    def is_started(self) -> bool:
        """Whether a backend is running."""
        return self._queue.is_started

    @property
    def starts(self) -> int:
        """How often the manager was started. If the number has changed, earlier downloads were cut short by a stop."""
        return self._queue.starts

    def start(self) -> None:
        """Start the backend. Raises a ``LocalError`` if none can run."""
        self._left = False
        self.start_by_itself()

    def start_by_itself(self) -> None:
        """Start the backend because a download needs it. Raises ``RuntimeError`` after the manager's ``with`` block."""
        self.must_be_ours()
        if not self.is_started:
            with self._lifting:
                if self._left:
                    raise RuntimeError("the manager's with block has ended; call start() to use it again")
                self._start()

    def _start(self) -> None:
        if self.is_started:
            return
        self._take_session()
        self.router.start()
        self.router.limit(self._limit)
        _living.add(self)
        # Register again: the engine also stops itself when the interpreter exits, and the last registered runs first.
        atexit.unregister(_stop_all)
        atexit.register(_stop_all)
        self._queue.start()

    def leave(self) -> None:
        """``stop`` at the end of the manager's ``with`` block."""
        self._left = not self.is_shared
        self.stop()

    def stop(self) -> None:
        """Stop all transfers, save their states, and end the threads. Unfinished downloads become paused."""
        if self._forked:
            return
        with self._lifting:
            if self.is_started:
                self._queue.stop()
                self.router.stop()
                _living.discard(self)
            # The next manager with this session continues what this one did not finish.
            if self._session is not None:
                self._session.save()
                self._session.leave()

    def _take_session(self) -> None:
        """Acquire the session file, if there is one, and list its downloads. Raises ``LocalError`` if it is in use."""
        if self._session is not None:
            self._queue.take_in(self._session.take())

    def _save_while_stopped(self) -> None:
        """Save changes to the session file while the manager is stopped, since nothing else would save them."""
        if self._session is not None and not self.is_started:
            self._session.save()

    def orphan(self) -> None:
        """In a forked child: stop using what belongs to the parent."""
        self._lifting = threading.RLock()
        self._forked = True
        self._queue.orphan()
        if self._session is not None:
            self._session.orphan()

    def must_be_ours(self) -> None:
        """Raise ``RuntimeError`` in a forked child."""
        if self._forked:
            raise RuntimeError("this DownloadManager was created before the fork; create a new one in this process")

    def limit(self, bytes_per_s: int | str) -> None:
        """Limit all downloads together to this many bytes per second, from now on (0: no limit)."""
        self.must_be_ours()
        self._limit = parse_size(bytes_per_s, "max_overall_download_limit")
        if self.is_started:
            self.router.limit(self._limit)

    # -- looking up -------------------------------------------------------------------------------------------

    def find(self, gid: str) -> Download:
        """Return a download by its gid. Raises ``KeyError``, and ``RuntimeError`` in a forked child."""
        self.must_be_ours()
        return self._queue.find(gid)

    def entries(self) -> list[Entry]:
        """All downloads, in the order in which they were added."""
        return self._queue.entries()

    def passed_over(self, gids: Collection[str]) -> int:
        """How many of these do not keep the manager busy, because their host is passed over or they are aside."""
        return self._queue.passed_over(gids)

    def can_stream(self) -> bool:
        """Whether a backend that delivers bytes in order may be used."""
        self.start_by_itself()
        return self.router.can_stream

    # -- into the queue ---------------------------------------------------------------------------------------

    def queue(self, url: Url, options: Given = None) -> str:
        """Put a URL into the queue and return its gid, without making a ``Download`` yet."""
        text, checked = self.defaults.check(url, options)
        queued = Queued(text, self.defaults.in_this_directory(checked))
        self._add([queued])
        return queued.gid

    def submit(self, url: Url, options: Given = None) -> Download:
        """Put a URL into the queue and return the ``Download``."""
        text, checked = self.defaults.check(url, options)
        download = Download(text, self.defaults.in_this_directory(checked))
        self._add([download])
        return download

    def submit_all(
        self, items: Iterable[tuple[str, DownloadOptions]], starts: int, watcher: Callable[[Download], object]
    ) -> list[Download]:
        """``submit`` for several; ``watcher`` is called when one stops. The URLs must have been checked, and the
        options merged with the defaults.

        Raises ``Cancelled`` if the manager was stopped since :attr:`starts` had this value.
        """
        downloads = []
        given = absolute = None
        for url, options in items:
            if options is not given:
                given, absolute = options, self.defaults.in_this_directory(options)
            assert absolute is not None
            download = Download(url, absolute)
            download.watch(watcher, stops=True)
            downloads.append(download)
        self._add(downloads, starts)
        return downloads

    def begin(self, download: Download) -> None:
        """Add the download of a stream, which starts at once."""
        with self._queue.running(self.start_by_itself):
            self._queue.add_stream(download)

    def _add(self, entries: Sequence[Entry], starts: int | None = None) -> None:
        """Put new downloads into the queue."""
        if starts is not None and not (self.is_started and starts == self.starts):
            raise Cancelled("the manager was stopped", url=mask_url(entries[0].url))
        refused = self._queue.claim_room(entries)
        with self._queue.running(self.start_by_itself):
            if starts not in (None, self.starts):
                for entry in entries:
                    self._queue.release_room(entry)
                raise Cancelled("the manager was stopped", url=mask_url(entries[0].url))
            self._queue.add(entries, refused)

    def queue_again(self, entries: list[Entry], was: DownloadStatus) -> None:
        """Put those of these downloads that are still in the state ``was`` (paused or failed) back into the queue."""
        refused = self._queue.claim_room(each for each in entries if each.status is was)
        with self._queue.running(self.start_by_itself):
            self._queue.queue_again(entries, was, refused)

    # -- out of the queue -------------------------------------------------------------------------------------

    def tell_to_end(
        self, status: DownloadStatus, among: Iterable[Download] | None = None, *, remove_files: bool = False
    ) -> list[Left]:
        """Tell some downloads, or all, to pause or end; returns those that had not done so already. It does not block
        unless files are to be removed. Raises ``RuntimeError`` in a forked child.
        """
        self.must_be_ours()
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
        """Pause or end some downloads, or all, and wait until they have stopped. Returns those that had not done so."""
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
            self.router.remove_leftovers(download)
        except TargetLocked as error:
            raise LocalError(f"its files cannot be removed: {error}", url=mask_url(download.url)) from None

    def let_go(self, downloads: Iterable[Download]) -> None:
        """Stop some downloads together, save their states and forget them, because their caller is gone."""
        if self._forked:
            return  # they are the parent's, which goes on with them
        downloads = list(downloads)
        self.end(DownloadStatus.REMOVED, downloads)
        self.forget(*downloads)

    def forget(self, *downloads: Download) -> None:
        """Forget those of these downloads that have ended."""
        self._queue.forget_all(downloads)

    def remove(self, gid: str) -> None:
        """Forget a finished download. Raises ``KeyError``, and ``ValueError`` if it is not finished."""
        download = self.find(gid)
        if not self._queue.forget(gid):
            raise ValueError(f"{gid}: a download that is {download.status} cannot be removed; cancel it first")
        self._save_while_stopped()

    # -- changing and waiting ---------------------------------------------------------------------------------

    def change(self, download: Download, options: Mapping[str, Any]) -> None:
        """Change the options of a download. Raises ``ValueError`` for options that it cannot take any more,
        ``TargetExists`` and ``DiskError``.
        """
        is_active: bool | None = None
        moved_to = None
        while is_active is None:
            before = download.options
            changed = DownloadOptions.of(before, **options)
            if download.status is DownloadStatus.ACTIVE:
                for name in options:
                    if name not in _CHANGEABLE:
                        raise ValueError(f"{name}: cannot change while the download is active; pause it first")
            elif download.status not in (DownloadStatus.WAITING, DownloadStatus.PAUSED):
                raise ValueError(f"{download.gid}: a download that is {download.status} cannot take new options")
            place = (os.fspath(changed.save_dir), changed.filename)
            elsewhere = place != (os.fspath(before.save_dir), before.filename)
            if elsewhere and place != moved_to:
                # Not under the lock, since moving may take long.
                self.router.move_leftovers(download, changed)
                moved_to = place
            is_active = self._queue.change(download, before, changed, elsewhere=elsewhere)
        if is_active:
            self.router.change(download)
        self._save_while_stopped()

    def wait_for(
        self,
        download: Download,
        timeout: float | None = None,
        on_progress: Callable[[DownloadProgress], object] | None = None,
    ) -> DownloadResult:
        """Wait until a download has ended and return its result. It need not be known by its gid any more.

        Raises the ``DownloadError`` that ended it, ``Cancelled`` or ``WaitTimeout``.
        """

        def is_running() -> bool:
            self.must_be_ours()
            return self.is_started

        try:
            result = outcome_of(download, timeout, on_progress, is_running)
        except DownloadError:
            self._queue.collect(download)
            raise
        self._queue.collect(download)
        return result

    @contextlib.contextmanager
    def unless_interrupted(self, download: Download, leave: Callable[[], object]) -> Iterator[None]:
        """Call ``leave`` if an exception leaves the body while the download is still active or waiting."""
        try:
            yield
        except BaseException:
            if download.status in (DownloadStatus.ACTIVE, DownloadStatus.WAITING):
                with contextlib.suppress(KeyError, RuntimeError):  # it was forgotten, or this is a forked child
                    leave()
            raise


def destination_of(entry: Entry) -> Path | None:
    """The path that a download's file has or would get, or None if its name is not known."""
    if entry.result is not None:
        return entry.result.path
    return Path(entry.options.save_dir).absolute() / entry.filename if entry.filename else None


_living: weakref.WeakSet[Downloads] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """Stop all managers and save their states when the interpreter exits."""
    for downloads in list(_living):
        downloads.stop()


def _forget_parent() -> None:
    """In a forked child: the threads do not exist here, and the sockets belong to the parent."""
    for downloads in list(_living):
        downloads.orphan()
    _living.clear()


after_fork(_forget_parent)
