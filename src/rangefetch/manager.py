"""The download manager: several downloads at once, a queue, and the states that they go through."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from rangefetch.download import Download
from rangefetch.errors import Cancelled, DownloadError
from rangefetch.native import NativeBackend
from rangefetch.network import mask_url
from rangefetch.options import DownloadOptions, check_url
from rangefetch.progress import DownloadProgress, DownloadResult, DownloadStatus

__all__ = ["DownloadManager"]

_log = logging.getLogger("rangefetch")
_PROGRESS_EVERY_S = 0.1


class DownloadManager:
    """Fetches several URLs at once. Thread-safe; a context manager.

    ``max_concurrent_downloads`` are active at a time, the others wait in order. ``stop`` (and the end of the
    ``with`` block, and of the interpreter) stops what is unfinished within a second and saves its state, so that
    the same download begun again goes on where it was.
    """

    def __init__(self, *, max_concurrent_downloads: int = 5) -> None:
        if not 1 <= max_concurrent_downloads <= 1_000_000:
            raise ValueError("max_concurrent_downloads: at least 1")
        self._most_active = max_concurrent_downloads
        self._lock = threading.RLock()
        self._downloads: dict[str, Download] = {}
        self._waiting: deque[Download] = deque()
        self._active: set[str] = set()
        self._backend: NativeBackend | None = None
        self._forked = False

    # -- life -------------------------------------------------------------------------------------------------

    @property
    def is_started(self) -> bool:
        return self._backend is not None

    def start(self) -> None:
        """Start the backend; the first download does it, too. Raises ``EngineUnavailable``."""
        with self._lock:
            self._must_be_ours()
            if self._backend is None:
                backend = NativeBackend(self)
                backend.start()
                self._backend = backend
                _living.add(self)

    def stop(self) -> None:
        """Stop all transfers, save the states, and end the threads. Unfinished downloads are paused."""
        with self._lock:
            backend, self._backend = self._backend, None
            while self._waiting:
                self._waiting.popleft().move(DownloadStatus.PAUSED)
        if backend is not None:
            backend.stop()
            _living.discard(self)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # -- verbs ------------------------------------------------------------------------------------------------

    def download(self, url: str, options: DownloadOptions | Mapping[str, Any] | None = None) -> str:
        """Ask for a URL; returns the gid by which everything else knows it. Raises ``ValueError``, ``TypeError``."""
        download = Download(check_url(url), DownloadOptions.of(options))
        with self._lock:
            self.start()
            self._downloads[download.gid] = download
            self._waiting.append(download)
            self._begin_next()
        return download.gid

    def wait(self, gid: str, timeout: float | None = None) -> DownloadResult:
        """Wait for the end of a download and return its result.

        Raises the ``DownloadError`` that ended it, ``Cancelled`` if it was removed or is paused because the manager
        stopped, and ``TimeoutError`` when ``timeout`` seconds pass first.
        """
        return self._wait(self._find(gid), timeout, None)

    def download_and_wait(
        self,
        url: str,
        options: DownloadOptions | Mapping[str, Any] | None = None,
        on_progress: Callable[[DownloadProgress], object] | None = None,
    ) -> DownloadResult:
        """``download`` and ``wait``. ``on_progress`` is called in this thread, at most every 100 ms.

        When the wait is interrupted (Ctrl-C), the download is stopped and its state is saved.
        """
        gid = self.download(url, options)
        try:
            return self._wait(self._find(gid), None, on_progress)
        except (KeyboardInterrupt, SystemExit):
            self.pause(gid)
            self._settle(gid)
            raise

    def pause(self, gid: str) -> None:
        """Stop the transfers of a download and save its state; ``resume`` goes on."""
        download = self._find(gid)
        with self._lock:
            if download.status is DownloadStatus.WAITING:
                self._waiting.remove(download)
                download.move(DownloadStatus.PAUSED)
            elif download.status is DownloadStatus.ACTIVE and self._backend is not None:
                self._backend.halt(download)

    def resume(self, gid: str) -> None:
        """Put a paused download into the queue again."""
        download = self._find(gid)
        with self._lock:
            self.start()
            download.move(DownloadStatus.WAITING)
            self._waiting.append(download)
            self._begin_next()

    def get_download_progress(self, gid: str) -> DownloadProgress:
        """The download at this moment. ``KeyError`` for an unknown gid."""
        return self._find(gid).progress()

    def list_downloads(self, status: DownloadStatus | str | None = None) -> list[DownloadProgress]:
        """All downloads, or those in one state, in the order in which they were asked for."""
        self._must_be_ours()
        with self._lock:
            downloads = list(self._downloads.values())
        return [each.progress() for each in downloads if status is None or each.status == status]

    # -- what the backend tells ---------------------------------------------------------------------------------

    def completed(self, download: Download, result: DownloadResult) -> None:
        self._ended(download, DownloadStatus.COMPLETE, result=result)

    def failed(self, download: Download, error: DownloadError) -> None:
        self._ended(download, DownloadStatus.ERROR, error=error)

    def halted(self, download: Download) -> None:
        self._ended(download, DownloadStatus.PAUSED)

    def _ended(
        self,
        download: Download,
        status: DownloadStatus,
        *,
        result: DownloadResult | None = None,
        error: DownloadError | None = None,
    ) -> None:
        with self._lock:
            self._active.discard(download.gid)
            download.move(status, result=result, error=error)
            self._begin_next()

    def _must_be_ours(self) -> None:
        if self._forked:
            raise RuntimeError("this DownloadManager belongs to the process before the fork; make a new one")

    def _orphan(self) -> None:
        self._lock = threading.RLock()
        self._backend = None
        self._forked = True

    # -- inside -----------------------------------------------------------------------------------------------

    def _find(self, gid: str) -> Download:
        self._must_be_ours()
        with self._lock:
            if gid not in self._downloads:
                raise KeyError(f"there is no download {gid!r}")
            return self._downloads[gid]

    def _begin_next(self) -> None:
        """Start waiting downloads while there is room; the lock is held."""
        while self._backend is not None and self._waiting and len(self._active) < self._most_active:
            download = self._waiting.popleft()
            self._active.add(download.gid)
            download.move(DownloadStatus.ACTIVE)
            self._backend.begin(download)

    def _wait(
        self, download: Download, timeout: float | None, on_progress: Callable[[DownloadProgress], object] | None
    ) -> DownloadResult:
        deadline_s = None if timeout is None else time.monotonic() + timeout
        while True:
            with download.lock:
                if download.result is not None:
                    result = download.result
                    break
                if download.error is not None:
                    raise download.error
                if download.status is DownloadStatus.REMOVED:
                    raise Cancelled("it was removed", url=mask_url(download.url))
                if download.status is DownloadStatus.PAUSED and not self.is_started:
                    raise Cancelled("the manager was stopped", url=mask_url(download.url))
                left_s = None if deadline_s is None else deadline_s - time.monotonic()
                if left_s is not None and left_s <= 0:
                    raise TimeoutError(f"{download.gid} is not finished after {timeout:g} seconds")
                pause_s = _PROGRESS_EVERY_S if on_progress else 1.0
                download.lock.wait(pause_s if left_s is None else min(pause_s, left_s))
            _report(on_progress, download)
        _report(on_progress, download)
        return result

    def _settle(self, gid: str) -> None:
        """Wait until a download that was told to stop has stopped."""
        download = self._find(gid)
        with download.lock:
            while download.status is DownloadStatus.ACTIVE:
                download.lock.wait(1.0)


def _report(on_progress: Callable[[DownloadProgress], object] | None, download: Download) -> None:
    """Call back; an error there is the caller's, and no reason to lose a download."""
    if on_progress is None:
        return
    try:
        on_progress(download.progress())
    except Exception:
        _log.exception("on_progress failed")


_living: weakref.WeakSet[DownloadManager] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """Save what is unfinished when the interpreter ends."""
    for manager in list(_living):
        manager.stop()


def _forget_parent() -> None:
    """In a forked child: the threads are not here, and the sockets are the parent's."""
    for manager in list(_living):
        manager._orphan()
    _living.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)
