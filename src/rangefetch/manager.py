"""``DownloadManager``: a queue of downloads, several of which run at once, and the operations on them."""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

from rangefetch.aria2.config import DaemonOptions
from rangefetch.checks import Url, check_function
from rangefetch.downloads import Downloads, destination_of
from rangefetch.options import AllOptions, DownloadOptions
from rangefetch.progress import DownloadProgress, DownloadResult, DownloadStatus
from rangefetch.transfer.retry import RetryPolicy

__all__ = ["DownloadManager", "ManagerOptions", "downloads_of"]


class ManagerOptions(DaemonOptions, total=False):
    """The keywords of ``DownloadManager`` except ``backend`` and ``prefer``; all are optional."""

    max_concurrent_downloads: int | None
    max_overall_download_limit: int | str
    defaults: DownloadOptions | Mapping[str, Any] | None
    retry_policy: RetryPolicy | None
    session_file: str | os.PathLike[str] | None
    max_download_results: int


class DownloadManager:
    """A queue of downloads that run concurrently. Thread-safe; a context manager.

    ``backend`` is ``"native"``, ``"aria2"``, or ``"auto"``: the first of the two that can run, starting with
    ``prefer``.

    At most ``max_concurrent_downloads`` are active at a time; the others wait in order. By default 16 are active, plus
    up to 128 small files, which spend most of their time waiting for responses. A number that you give is never
    exceeded. If the system allows few open files (``ulimit -n``), no more downloads are active than an eighth of that
    limit. Streams (``stream``) start at once and are not counted.

    ``max_overall_download_limit`` is in bytes per second for all downloads together (0: no limit). ``defaults`` are
    options for every download, and ``retry_policy`` decides what is retried.

    With ``session_file``, unfinished downloads are recorded, and a new manager with the same file lists them again.
    Only one manager can use the file at a time: a second one raises a ``LocalError`` that names the process using it.

    A finished download is remembered until its outcome has been returned or raised (at least the last 100,000 such
    downloads), and after that while it is among the last ``max_download_results``.

    All other keywords are those of the aria2 backend (``rangefetch.aria2.config``); of these, ``download_dir``,
    ``ca_file`` and ``verify_tls`` are defaults for both backends.

    ``stop`` stops unfinished downloads and saves their states, so that they can be resumed. It is also called on
    leaving the ``with`` block and when the interpreter exits. A manager that is garbage-collected while it runs is
    stopped, with a ``ResourceWarning``. After its ``with`` block a manager refuses downloads (``RuntimeError``) until
    ``start`` is called; the process's own manager always accepts them.

    Methods raise ``KeyError`` for an unknown gid. They can be called in any state of a download, and have no effect
    when there is nothing to do. They can be called from any thread, but not in a signal handler or a ``__del__``, which
    may have interrupted another of them in the same thread and would wait for it: raise an exception there, or let a
    new thread call them.
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
        self._downloads = Downloads(
            backend,
            prefer,
            config,
            max_concurrent_downloads=max_concurrent_downloads,
            max_overall_download_limit=max_overall_download_limit,
            defaults=defaults,
            retry_policy=retry_policy,
            session_file=session_file,
            max_download_results=max_download_results,
        )

    # -- starting and stopping --------------------------------------------------------------------------------

    @property
    def is_started(self) -> bool:
        """Whether a backend is running."""
        return self._downloads.is_started

    @property
    def backend(self) -> str:
        """The running backend, ``native`` or ``aria2``; the requested one if none is running."""
        return self._downloads.router.name

    @property
    def fallback_reason(self) -> str:
        """Why the manager is not using its first choice of backend; empty if it is."""
        return self._downloads.router.reason

    def start(self) -> None:
        """Start the backend. The first download also does this. Raises a ``LocalError`` if no backend can run."""
        self._downloads.start()

    def stop(self) -> None:
        """Stop all transfers, save their states, and end the threads. Unfinished downloads become paused."""
        self._downloads.stop()

    def __repr__(self) -> str:
        count = Counter(entry.status.value for entry in self._downloads.entries())
        downloads = ", ".join(f"{number} {status}" for status, number in count.items()) or "no downloads"
        return f"<DownloadManager {self.backend}, {'started' if self.is_started else 'stopped'}: {downloads}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._downloads.leave()

    def __del__(self) -> None:
        downloads = getattr(self, "_downloads", None)
        if downloads is not None and downloads.is_started:
            shown = repr(self)
            # On a new thread: the current one may hold any lock, or be one of the threads that stop() ends.
            with contextlib.suppress(RuntimeError):  # the interpreter is exiting
                threading.Thread(target=downloads.stop, name="rangefetch-closer").start()
            warnings.warn(f"{shown} was never stopped; call stop()", ResourceWarning, source=self, stacklevel=2)

    # -- downloads --------------------------------------------------------------------------------------------

    def download(self, url: Url, options: DownloadOptions | Mapping[str, Any] | None = None) -> str:
        """Add a URL to the queue; returns its gid. Raises ``ValueError`` or ``TypeError`` for bad options."""
        return self._downloads.queue(url, options)

    def wait(self, gid: str, timeout: float | None = None) -> DownloadResult:
        """Wait until a download has ended and return its result.

        Raises the ``DownloadError`` that ended it, ``Cancelled`` if it was cancelled or was paused because the manager
        stopped, and ``WaitTimeout`` (a ``TimeoutError``) if it is still not finished after ``timeout`` seconds; the
        download continues.
        """
        return self._downloads.wait_for(self._downloads.find(gid), timeout)

    def download_and_wait(
        self,
        url: Url,
        options: DownloadOptions | Mapping[str, Any] | None = None,
        on_progress: Callable[[DownloadProgress], object] | None = None,
    ) -> DownloadResult:
        """``download`` and ``wait`` in one call. ``on_progress`` is called in this thread, at most every 100 ms.

        If the wait is interrupted, by Ctrl-C or by an exception in ``on_progress``, the download is paused, its state
        is saved, and the exception propagates.
        """
        check_function(on_progress, "on_progress")
        download = self._downloads.submit(url, options)
        with self._downloads.unless_interrupted(download, lambda: self.pause(download.gid)):
            return self._downloads.wait_for(download, None, on_progress)

    def pause(self, gid: str) -> None:
        """Stop the transfers of a download and save its state. Returns when it has stopped."""
        self._downloads.end(DownloadStatus.PAUSED, [self._downloads.find(gid)])

    def pause_all(self) -> None:
        """Pause all waiting and active downloads."""
        self._downloads.end(DownloadStatus.PAUSED)

    def resume(self, gid: str) -> None:
        """Put a paused download back into the queue."""
        self._downloads.queue_again([self._downloads.find(gid)], DownloadStatus.PAUSED)

    def resume_all(self) -> None:
        """Resume all paused downloads."""
        paused = [each for each in self._downloads.entries() if each.status is DownloadStatus.PAUSED]
        self._downloads.queue_again(paused, DownloadStatus.PAUSED)

    def retry(self, gid: str) -> None:
        """Put a failed download back into the queue; it keeps the data it has."""
        self._downloads.queue_again([self._downloads.find(gid)], DownloadStatus.ERROR)

    def cancel(self, gid: str, remove_files: bool = False) -> Path | None:
        """Stop a download for good. ``remove_files`` deletes its partial files; a finished file is never touched.

        Returns the path that the file would have had, or None if its name was not known yet.
        """
        download = self._downloads.find(gid)
        self._downloads.end(DownloadStatus.REMOVED, [download], remove_files=remove_files)
        return destination_of(download)

    def cancel_all(self, remove_files: bool = False) -> Path | None:
        """Cancel all unfinished downloads. Returns the first of their paths that is known, or None."""
        cancelled = self._downloads.end(DownloadStatus.REMOVED, remove_files=remove_files)
        return next((path for path in map(destination_of, cancelled) if path is not None), None)

    def remove(self, gid: str) -> None:
        """Forget a finished download. Raises ``ValueError`` if it is not finished."""
        self._downloads.remove(gid)

    def change_options(self, gid: str, **options: Unpack[AllOptions]) -> None:
        """Change the options of an unfinished download.

        A new ``filename`` or ``save_dir`` moves the downloaded data, which can take long between file systems. Raises
        ``TargetExists`` if another unfinished download has that path, ``DiskError`` if the data cannot be moved, and
        ``ValueError`` for options that the download cannot take (any more); then nothing is changed.

        While a download is active, only limits (``max_download_limit``, ``host_rate``), connections (``split``,
        ``max_connection_per_server``), ``headers`` and ``user_agent`` (for its next requests), and ``mirrors`` can be
        changed; other options raise ``ValueError``.
        """
        self._downloads.change(self._downloads.find(gid), options)

    def limit(self, bytes_per_s: int | str) -> None:
        """Limit all downloads together to this many bytes per second, from now on (0: no limit)."""
        self._downloads.limit(bytes_per_s)

    def get_download_progress(self, gid: str) -> DownloadProgress:
        """A snapshot of a download."""
        return self._downloads.find(gid).progress()

    def list_downloads(self, status: DownloadStatus | str | None = None) -> list[DownloadProgress]:
        """Snapshots of all downloads, or of those with one ``status``, in the order in which they were added."""
        self._downloads.must_be_ours()
        return [each.progress() for each in self._downloads.entries() if status is None or each.status == status]


def downloads_of(manager: DownloadManager) -> Downloads:
    """The ``Downloads`` object of a manager, for other modules of this package."""
    return manager._downloads
