"""The functions and the manager for asyncio, without a thread for each download.

Methods that may block run in this package's own threads, never on the event loop or in its default executor. They
complete even if the task that called them is cancelled.

Cancelling a task that awaits ``fetch``, ``fetch_many`` or ``download_and_wait`` stops its downloads and saves their
states, so that the same call resumes them. After ``download_and_wait``, the manager lists the download as paused; the
process's manager forgets the downloads of ``fetch`` and ``fetch_many``. Cancelling a task that awaits ``wait`` or
iterates over ``progress`` does not affect the download.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, Unpack, overload

from rangefetch import bulk, shared
from rangefetch import manager as blocking
from rangefetch.api import options_of
from rangefetch.asking import Question
from rangefetch.bulk import OnResult
from rangefetch.checks import Url, check_function
from rangefetch.downloads import destination_of
from rangefetch.errors import DownloadError, WaitTimeout
from rangefetch.eventloops import audience_of, in_thread, in_thread_or_undone
from rangefetch.flowing import Flowing, Stop
from rangefetch.items import Item
from rangefetch.iterating import WINDOW, Fetched
from rangefetch.logs import log as _log
from rangefetch.options import AllOptions, CommonOptions, DownloadOptions, FetchOptions
from rangefetch.progress import DownloadProgress, DownloadResult, DownloadStatus, FileInfo
from rangefetch.register import FINISHED
from rangefetch.transfer.download import Download
from rangefetch.waiting import STOP_WITHIN_S

__all__ = ["DownloadManager", "fetch", "fetch_iter", "fetch_many", "head"]

_PROGRESS_EVERY_S = 0.1
# Paused downloads are polled, since a manager that stops does not notify them. Active ones are polled because a
# notebook's kernel notices Ctrl-C only when its event loop has something to do.
_LOOK_AGAIN_S = 1.0


class DownloadManager:
    """``rangefetch.DownloadManager`` for asyncio, with the same keywords, methods and errors. An async context manager.

    It may be used from several event loops at once. ``async for progress in manager.progress(gid)`` follows a download.
    What happens to a download when its task is cancelled is described at the top of ``rangefetch.aio``.
    """

    def __init__(
        self, backend: str = "auto", *, prefer: str = "native", **config: Unpack[blocking.ManagerOptions]
    ) -> None:
        self._manager = blocking.DownloadManager(backend, prefer=prefer, **config)
        self._downloads = blocking.downloads_of(self._manager)

    @classmethod
    def of(cls, manager: blocking.DownloadManager) -> Self:
        """Wrap an existing ``rangefetch.DownloadManager``."""
        self = cls.__new__(cls)
        self._manager = manager
        self._downloads = blocking.downloads_of(manager)
        return self

    def __repr__(self) -> str:
        return repr(self._manager).replace("<DownloadManager", "<aio.DownloadManager", 1)

    # -- starting and stopping --------------------------------------------------------------------------------

    @property
    def is_started(self) -> bool:
        """Whether a backend is running."""
        return self._manager.is_started

    @property
    def backend(self) -> str:
        """The running backend, ``native`` or ``aria2``; the requested one if none is running."""
        return self._manager.backend

    @property
    def fallback_reason(self) -> str:
        """Why the manager is not using its first choice of backend; empty if it is."""
        return self._manager.fallback_reason

    async def start(self) -> None:
        """Start the backend. The first download also does this. Raises a ``LocalError`` if no backend can run."""
        await in_thread(self._manager.start)

    async def _start_by_itself(self) -> None:
        if not self._manager.is_started:
            await in_thread(self._downloads.start_by_itself)

    async def stop(self) -> None:
        """Stop all transfers, save their states, and end the threads. Unfinished downloads become paused."""
        await in_thread(self._manager.stop)

    async def __aenter__(self) -> Self:
        if not self.is_started:
            # After a cancellation, nobody would call __aexit__.
            await in_thread_or_undone(self._manager.start, lambda _: self._manager.stop())
        else:
            await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await in_thread(self._manager.__exit__, kind, value, traceback)

    # -- downloads --------------------------------------------------------------------------------------------

    async def download(self, url: Url, options: DownloadOptions | Mapping[str, Any] | None = None) -> str:
        """Add a URL to the queue; returns its gid. Raises ``ValueError`` or ``TypeError`` for bad options."""
        return (await self._submit(url, options)).gid

    async def wait(self, gid: str, timeout: float | None = None) -> DownloadResult:
        """Wait until a download has ended and return its result. Raises what ``rangefetch.DownloadManager.wait`` does.

        If the waiting task is cancelled, the download continues.
        """
        download = self._downloads.find(gid)
        try:
            async with asyncio.timeout(timeout):
                async for _ in self._moves(download, None):
                    pass
        except TimeoutError:
            if not self._is_over(download):
                raise WaitTimeout(gid, timeout or 0.0) from None
        return self._outcome(download)

    async def download_and_wait(
        self,
        url: Url,
        options: DownloadOptions | Mapping[str, Any] | None = None,
        on_progress: Callable[[DownloadProgress], object] | None = None,
    ) -> DownloadResult:
        """``download`` and ``wait`` in one call. ``on_progress`` is called on the event loop, at most every 100 ms.

        If the task is cancelled, or ``on_progress`` raises, the download is paused and its state saved before the
        exception propagates.
        """

        check_function(on_progress, "on_progress")

        def pause(download: Download) -> None:
            with contextlib.suppress(KeyError):
                self._manager.pause(download.gid)

        return await self._own(url, options, on_progress, pause)

    def progress(self, gid: str, every: float = 0.1) -> AsyncIterator[DownloadProgress]:
        """Yield snapshots of a download: now, every ``every`` seconds while it is active, and after each state change.

        Nothing is yielded while a download stays waiting or paused. The iteration ends when ``wait`` would return or
        raise, and never raises the download's error.
        """
        if not every > 0:
            raise ValueError("every: expected a number of seconds greater than 0")
        download = self._downloads.find(gid)

        async def follow() -> AsyncIterator[DownloadProgress]:
            async for _ in self._moves(download, every):
                yield download.progress()

        return follow()

    async def pause(self, gid: str) -> None:
        """Stop the transfers of a download and save its state. Returns when it has stopped; ``resume`` continues it."""
        await self._end(gid, DownloadStatus.PAUSED)

    async def pause_all(self) -> None:
        """Pause all waiting and active downloads."""
        await in_thread(self._manager.pause_all)

    async def resume(self, gid: str) -> None:
        """Put a paused download back into the queue."""
        await in_thread(self._manager.resume, gid)

    async def resume_all(self) -> None:
        """Resume all paused downloads."""
        await in_thread(self._manager.resume_all)

    async def retry(self, gid: str) -> None:
        """Put a failed download back into the queue; it keeps the data it has."""
        await in_thread(self._manager.retry, gid)

    async def cancel(self, gid: str, remove_files: bool = False) -> Path | None:
        """Stop a download for good. ``remove_files`` deletes its partial files; a finished file is never touched.

        Returns the path that the file would have had, or None if its name was not known yet.
        """
        if remove_files:
            return await in_thread(self._manager.cancel, gid, remove_files)
        return await self._end(gid, DownloadStatus.REMOVED)

    async def cancel_all(self, remove_files: bool = False) -> Path | None:
        """Cancel all unfinished downloads. Returns the first of their paths that is known, or None."""
        return await in_thread(self._manager.cancel_all, remove_files)

    async def remove(self, gid: str) -> None:
        """Forget a finished download. Raises ``ValueError`` if it is not finished."""
        if self._manager.is_started:
            self._manager.remove(gid)
        else:  # this saves the session, which may block
            await in_thread(self._manager.remove, gid)

    async def change_options(self, gid: str, **options: Unpack[AllOptions]) -> None:
        """Change the options of an unfinished download, as ``rangefetch.DownloadManager.change_options`` does."""
        await in_thread(functools.partial(self._manager.change_options, gid, **options))

    async def limit(self, bytes_per_s: int | str) -> None:
        """Limit all downloads together to this many bytes per second, from now on (0: no limit)."""
        self._manager.limit(bytes_per_s)

    async def get_download_progress(self, gid: str) -> DownloadProgress:
        """A snapshot of a download."""
        return self._manager.get_download_progress(gid)

    async def list_downloads(self, status: DownloadStatus | str | None = None) -> list[DownloadProgress]:
        """Snapshots of all downloads, or of those with one ``status``, in the order in which they were added."""
        return await in_thread(self._manager.list_downloads, status)

    # -- internals --------------------------------------------------------------------------------------------

    async def _end(self, gid: str, status: DownloadStatus) -> Path | None:
        """Pause or end a download, and wait, without using a thread, until it has stopped."""
        downloads = self._downloads
        download = downloads.find(gid)
        if not downloads.is_started:  # this saves the session, which may block
            await in_thread(downloads.end, status, [download])
        elif downloads.tell_to_end(status, [download]):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_WITHIN_S):
                    await self._rests(download)
        return destination_of(download)

    async def _submit(
        self,
        url: Url,
        options: DownloadOptions | Mapping[str, Any] | None,
        leave: Callable[[Download], object] = lambda _: None,
    ) -> Download:
        """Add a URL to the queue. If the task is cancelled meanwhile, call ``leave`` in a thread."""
        _, checked = self._downloads.defaults.check(url, options)
        await self._start_by_itself()
        submit = functools.partial(self._downloads.submit, url, options)
        if checked.expected_size:  # this asks the file system for free space, which may block
            return await in_thread_or_undone(submit, leave)
        return submit()

    async def _rests(self, download: Download) -> None:
        async for _ in self._moves(download, None):
            if download.status is not DownloadStatus.ACTIVE:
                return

    async def _own(
        self,
        url: Url,
        options: DownloadOptions | Mapping[str, Any] | None,
        on_progress: Callable[[DownloadProgress], object] | None,
        leave: Callable[[Download], None],
    ) -> DownloadResult:
        """Submit a URL and wait for it. If the task is cancelled or a callback raises, call ``leave`` in a thread."""
        download = await self._submit(url, options, leave)
        loop = asyncio.get_running_loop()
        # If the event loop is closed without cancelling its tasks, nobody waits for the download any more.
        download.is_wanted = lambda: not loop.is_closed()
        try:
            async for _ in self._moves(download, _PROGRESS_EVERY_S if on_progress else None):
                if on_progress is not None:
                    on_progress(download.progress())
        except GeneratorExit:  # the loop was closed, so nothing can be awaited
            raise
        except BaseException:  # the task was cancelled, or on_progress raised
            await in_thread(leave, download)
            raise
        return self._outcome(download)

    def _outcome(self, download: Download) -> DownloadResult:
        """Return the result of a download or raise its error; raises ``WaitTimeout`` if it has not ended."""
        return self._downloads.wait_for(download, 0)

    def _is_over(self, download: Download) -> bool:
        """Whether ``wait`` can return or raise now."""
        status = download.status
        if status is DownloadStatus.PAUSED:
            return download.cut_short or not self._manager.is_started
        return status in FINISHED

    async def _moves(self, download: Download, every_s: float | None) -> AsyncIterator[None]:
        """Yield now, after each state change, every ``every_s`` seconds while active, and once more when it is over."""
        audience = audience_of(download)
        while True:
            # Subscribe before looking at the state, or a change in between would be missed.
            seat = audience.take_seat()
            try:
                over = self._is_over(download)
                yield
                while not over:
                    active = download.status is DownloadStatus.ACTIVE
                    await asyncio.wait((seat,), timeout=every_s if active and every_s else _LOOK_AGAIN_S)
                    if active or seat.done() or self._is_over(download):
                        break
            finally:
                audience.leave(seat)
            if over:
                return


def _call_back(on_result: OnResult, number: int, outcome: DownloadResult | DownloadError) -> None:
    """Call ``on_result``. Its exceptions are only logged, so that they do not end the other downloads."""
    try:
        on_result(number, outcome)
    except Exception:
        _log.exception("on_result failed")


async def fetch(
    url: Url,
    path: str | os.PathLike[str] | None = None,
    *,
    mirrors: Sequence[Url] = (),
    checksum: str | None = None,
    on_progress: Callable[[DownloadProgress], object] | None = None,
    **options: Unpack[FetchOptions],
) -> DownloadResult:
    """``rangefetch.fetch`` as a coroutine, on the same manager. ``on_progress`` is called on the event loop.

    If the task is cancelled, the download is stopped and its state saved; the same call resumes it.
    """
    check_function(on_progress, "on_progress")
    merged = options_of(path, mirrors, checksum, options)
    ours = DownloadManager.of(shared.get_download_manager())
    return await ours._own(url, merged, on_progress, lambda download: ours._downloads.let_go([download]))


async def head(url: Url, **options: Unpack[CommonOptions]) -> FileInfo:
    """``rangefetch.head`` as a coroutine. If the task is cancelled, the request is stopped."""
    question = await in_thread_or_undone(functools.partial(Question, url, options), Question.close)
    try:
        async for _ in DownloadManager.of(shared.get_download_manager())._moves(question.download, None):
            pass
        return question.answer(0)
    finally:
        await in_thread(question.close)


@overload
async def fetch_many(
    items: Iterable[Item],
    directory: str | os.PathLike[str] | None = None,
    *,
    max_concurrent_downloads: int | None = None,
    on_error: Literal["raise"] = "raise",
    on_progress: Callable[[DownloadProgress], object] | None = None,
    on_result: OnResult | None = None,
    **options: Unpack[CommonOptions],
) -> list[DownloadResult]: ...
@overload
async def fetch_many(
    items: Iterable[Item],
    directory: str | os.PathLike[str] | None = None,
    *,
    max_concurrent_downloads: int | None = None,
    on_error: Literal["return"],
    on_progress: Callable[[DownloadProgress], object] | None = None,
    on_result: OnResult | None = None,
    **options: Unpack[CommonOptions],
) -> list[DownloadResult | DownloadError]: ...
async def fetch_many(
    items: Iterable[Item],
    directory: str | os.PathLike[str] | None = None,
    *,
    max_concurrent_downloads: int | None = None,
    on_error: str = "raise",
    on_progress: Callable[[DownloadProgress], object] | None = None,
    on_result: OnResult | None = None,
    **options: Unpack[CommonOptions],
) -> Any:
    """``rangefetch.fetch_many`` as a coroutine, which uses one thread. The callbacks are called on the event loop.

    If the task is cancelled, unfinished downloads are stopped and their states saved; the same call resumes them.
    """
    check_function(on_progress, "on_progress")
    check_function(on_result, "on_result")
    loop = asyncio.get_running_loop()
    stopped = threading.Event()
    mistakes: list[BaseException] = []  # exceptions raised by on_progress

    def report(progress: DownloadProgress) -> None:
        if stopped.is_set() or loop.is_closed():
            raise Stop
        loop.call_soon_threadsafe(show, progress)  # even without a callback: see _LOOK_AGAIN_S

    def show(progress: DownloadProgress) -> None:
        if on_progress is not None and not stopped.is_set():
            try:
                on_progress(progress)
            except (Exception, asyncio.CancelledError) as error:
                mistakes.append(error)
                stopped.set()

    def tell(number: int, outcome: DownloadResult | DownloadError) -> None:
        if on_result is not None and not stopped.is_set():
            loop.call_soon_threadsafe(_call_back, on_result, number, outcome)

    def fetch_all() -> list[DownloadResult | DownloadError]:
        limits: dict[str, Any] = {"max_concurrent_downloads": max_concurrent_downloads, "on_error": on_error}
        outcomes: list[DownloadResult | DownloadError] = []
        outcomes += bulk.fetch_many(items, directory, on_progress=report, on_result=tell, **limits, **options)
        return outcomes

    # A separate thread, since the event loop has few and this call may take hours.
    pool = ThreadPoolExecutor(1, thread_name_prefix="fetch-many")
    call = loop.run_in_executor(pool, fetch_all)
    try:
        outcomes = await asyncio.shield(call)
        if not mistakes:
            return outcomes
    except Stop:
        pass
    except asyncio.CancelledError:
        stopped.set()
        with contextlib.suppress(Stop, Exception):
            await asyncio.shield(call)
        raise
    finally:
        pool.shutdown(wait=False)
    raise mistakes[0]


def fetch_iter(
    items: Iterable[Item] | AsyncIterable[Item],
    directory: str | os.PathLike[str] | None = None,
    *,
    max_concurrent_downloads: int | None = None,
    window: int = WINDOW,
    on_progress: Callable[[DownloadProgress], object] | None = None,
    **options: Unpack[CommonOptions],
) -> AsyncGenerator[Fetched]:
    """``rangefetch.fetch_iter`` as an asynchronous iterator, which uses one thread. ``items`` may also be asynchronous.

    An asynchronous iterable is advanced on the event loop, any other in the thread. If the iterator is closed, or the
    task that waits for it is cancelled, unfinished downloads are stopped and their states saved. If you leave the loop
    early, close the iterator with ``aclose`` or ``contextlib.aclosing``.
    """
    check_function(on_progress, "on_progress")
    return Flowing(items, directory, max_concurrent_downloads, window, on_progress, options).run()
