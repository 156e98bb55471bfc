"""What asyncio needs: threads for what may block, and a way for moves of downloads to reach event loops."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import weakref
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from rangefetch.importing import after_fork
from rangefetch.transfer.download import Download

__all__ = ["audience_of", "in_thread", "threads"]

_MOST_THREADS = 8

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What may block, in a thread; it is done even when this is cancelled.

    Not ``asyncio.to_thread``: its task is among those that ``asyncio.run`` cancels at its end, before it has begun.
    """
    call = functools.partial(function, *args, **kwargs)
    return await asyncio.shield(asyncio.get_running_loop().run_in_executor(await threads(), call))


async def threads() -> ThreadPoolExecutor:
    """Those of this package for the event loop: its own are few, and for whatever the program does."""
    loop = asyncio.get_running_loop()
    if loop not in _pools:
        keeping = _keep_threads(weakref.ref(loop))
        _pools[loop] = await anext(keeping), keeping
    return _pools[loop][0]


async def _keep_threads(loop: weakref.ref[asyncio.AbstractEventLoop]) -> AsyncGenerator[ThreadPoolExecutor]:
    """Threads until the event loop ends: ``asyncio.run`` closes asynchronous generators that are left."""
    with ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="aio-of-rangefetch") as pool:
        try:
            yield pool
        finally:
            if (ending := loop()) is not None:
                del _pools[ending]


# A loop that is closed in another way takes its threads along when it is collected.
_pools: weakref.WeakKeyDictionary[
    asyncio.AbstractEventLoop, tuple[ThreadPoolExecutor, AsyncGenerator[ThreadPoolExecutor]]
] = weakref.WeakKeyDictionary()
after_fork(_pools.clear)


class Audience:
    """Those who wait for a download's next move, on whichever loops: all of them behind one watcher."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seats: set[asyncio.Future[None]] = set()

    def take_seat(self) -> asyncio.Future[None]:
        """A future that is done after the next move."""
        seat: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._lock:
            self._seats.add(seat)
        return seat

    def leave(self, seat: asyncio.Future[None]) -> None:
        with self._lock:
            self._seats.discard(seat)

    def __call__(self, _: Download) -> None:
        with self._lock:
            seats, self._seats = self._seats, set()
        for seat in seats:
            # A loop that is closed has nobody who waits.
            with contextlib.suppress(RuntimeError):
                seat.get_loop().call_soon_threadsafe(_wake, seat)


def _wake(seat: asyncio.Future[None]) -> None:
    if not seat.done():
        seat.set_result(None)


_audiences: weakref.WeakKeyDictionary[Download, Audience] = weakref.WeakKeyDictionary()
_audiences_lock = threading.Lock()


def audience_of(download: Download) -> Audience:
    with _audiences_lock:
        audience = _audiences.get(download)
        if audience is None:
            audience = _audiences[download] = Audience()
            download.watch(audience)
        return audience
