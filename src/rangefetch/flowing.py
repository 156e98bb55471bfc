"""``fetch_iter`` for asyncio: a thread fetches, and the event loop supplies its items and takes its results."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from rangefetch import iterating
from rangefetch.items import Item
from rangefetch.iterating import Fetched
from rangefetch.options import CommonOptions
from rangefetch.progress import DownloadProgress

__all__ = ["Flowing", "Stop"]

_LOOK_EVERY_S = 0.1


class Stop(BaseException):
    """Nobody waits for the results any more. Not an ``Exception``, so that code which catches a callback's exceptions
    lets it through.
    """


class Flowing:
    """One call of ``fetch_iter``: a thread fetches, and the event loop supplies its items and takes its results."""

    def __init__(
        self,
        items: Iterable[Item] | AsyncIterable[Item],
        directory: str | os.PathLike[str] | None,
        max_concurrent_downloads: int | None,
        window: int,
        on_progress: Callable[[DownloadProgress], object] | None,
        options: CommonOptions,
    ) -> None:
        self._given: deque[object] = deque()  # items from the asynchronous iterable that the thread has not taken yet
        self._wake: Callable[[], object] = lambda: None
        self._room = asyncio.Event()
        self._items = items if isinstance(items, AsyncIterable) else None
        self._window = window
        self._on_progress = on_progress
        self._stopped = threading.Event()
        self._slots = threading.Semaphore(window)
        self._results: asyncio.Queue[Fetched | BaseException | None] = asyncio.Queue()
        # This checks the arguments at once.
        self._fetching = iterating.fetch_from(
            self if isinstance(items, AsyncIterable) else items,
            directory,
            max_concurrent_downloads=max_concurrent_downloads,
            window=window,
            on_progress=self._report,
            options=options,
        )
        self._loop: asyncio.AbstractEventLoop

    # -- on the event loop ------------------------------------------------------------------------------------

    async def run(self) -> AsyncGenerator[Fetched]:
        self._loop = asyncio.get_running_loop()
        # A separate thread, since the event loop has few and this call may take hours.
        pool = ThreadPoolExecutor(1, thread_name_prefix="fetch-iter")
        call = self._loop.run_in_executor(pool, self._fetch)
        feeding = asyncio.ensure_future(self._feed(self._items)) if self._items is not None else None
        try:
            while (fetched := await self._results.get()) is not None:
                if isinstance(fetched, BaseException):
                    raise fetched
                yield fetched
                self._slots.release()
        finally:
            self._stopped.set()
            self._wake()
            if feeding is not None:
                feeding.cancel()
            await asyncio.shield(call)
            pool.shutdown(wait=False)

    async def _feed(self, items: AsyncIterable[Item]) -> None:
        """Advance the asynchronous iterable whenever there is room for another item."""
        try:
            async for item in items:
                self._given.append(item)
                self._wake()
                while len(self._given) >= self._window:
                    self._room.clear()
                    await self._room.wait()
        # Raised by the caller's iterable, as may be the cancellation of something that it has awaited; the iterator
        # passes it on to the caller.
        except (Exception, asyncio.CancelledError) as error:
            self._given.append(_Raised(error))
        else:
            self._given.append(iterating.NOTHING_MORE)
        self._wake()

    def _show(self, progress: DownloadProgress) -> None:
        if self._on_progress is not None and not self._stopped.is_set():
            try:
                self._on_progress(progress)
            except (Exception, asyncio.CancelledError) as error:
                self._results.put_nowait(error)

    # -- in the thread ------------------------------------------------------------------------------------------

    def take(self) -> object:
        """The next item (``iterating.Source``)."""
        if not self._given:
            return iterating.NOTHING_YET
        item = self._given.popleft()
        if len(self._given) < self._window // 2 + 1 and not self._room.is_set():
            self._loop.call_soon_threadsafe(self._room.set)
        if isinstance(item, _Raised):
            raise item.error
        return item

    def wake_with(self, wake: Callable[[], object]) -> None:
        """Set the function to call when there is another item (``iterating.Source``)."""
        self._wake = wake

    def _fetch(self) -> None:
        outcome: BaseException | None = None
        try:
            with contextlib.closing(self._fetching):
                for fetched in self._fetching:
                    while not self._slots.acquire(timeout=_LOOK_EVERY_S):
                        self._must_go_on()
                    self._tell(fetched)
        except Stop:
            pass
        except BaseException as error:
            outcome = error
        with contextlib.suppress(RuntimeError):  # the loop was closed
            self._tell(outcome)

    def _tell(self, what: Fetched | BaseException | None) -> None:
        self._loop.call_soon_threadsafe(self._results.put_nowait, what)

    def _report(self, progress: DownloadProgress) -> None:
        self._must_go_on()
        self._loop.call_soon_threadsafe(self._show, progress)  # even without a callback: see _LOOK_AGAIN_S in ``aio``

    def _must_go_on(self) -> None:
        if self._stopped.is_set() or self._loop.is_closed():
            raise Stop


class _Raised:
    """An exception raised by the asynchronous iterable, on its way to the fetching thread."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
