"""Support for asyncio: threads for blocking calls, and notifying event loops of downloads' state changes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import weakref
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from rangefetch.importing import after_fork
from rangefetch.transfer.download import Download

__all__ = ["audience_of", "in_thread", "in_thread_or_undone", "threads"]

_MOST_THREADS = 8

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function that may block in a thread. The call completes even if the awaiting task is cancelled.

    Not ``asyncio.to_thread``: ``asyncio.run`` cancels all remaining tasks at its end, including one for such a call
    that has not started yet.
    """
    call = functools.partial(function, *args, **kwargs)
    return await asyncio.shield(asyncio.get_running_loop().run_in_executor(await threads(), call))


async def in_thread_or_undone(function: Callable[[], T], undo: Callable[[T], object]) -> T:
    """``in_thread`` for a call whose result somebody must look after: if the awaiting task is cancelled, nobody has it,
    so ``undo`` is called with it, in a thread, before the cancellation goes on.
    """
    pool = await threads()
    call = pool.submit(function)
    try:
        return await asyncio.shield(asyncio.wrap_future(call))
    except asyncio.CancelledError:
        # At once, so that a second cancellation does not prevent it.
        if not call.cancel():
            await asyncio.shield(asyncio.wrap_future(pool.submit(_undo, call, undo)))
        raise


def _undo(call: Future[T], undo: Callable[[T], object]) -> None:
    if call.exception() is None:
        undo(call.result())


async def threads() -> ThreadPoolExecutor:
    """This package's threads for the running event loop; the loop's default executor is left to the program."""
    loop = asyncio.get_running_loop()
    if loop not in _pools:
        keeping = _keep_threads(weakref.ref(loop))
        _pools[loop] = await anext(keeping), keeping
    return _pools[loop][0]


async def _keep_threads(loop: weakref.ref[asyncio.AbstractEventLoop]) -> AsyncGenerator[ThreadPoolExecutor]:
    """Keep a thread pool until the event loop ends: ``asyncio.run`` closes any asynchronous generators left open."""
    with ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="aio-of-rangefetch") as pool:
        try:
            yield pool
        finally:
            if (ending := loop()) is not None:
                del _pools[ending]


# If a loop is closed in another way, its threads end when it is garbage-collected.
_pools: weakref.WeakKeyDictionary[
    asyncio.AbstractEventLoop, tuple[ThreadPoolExecutor, AsyncGenerator[ThreadPoolExecutor]]
] = weakref.WeakKeyDictionary()
after_fork(_pools.clear)


class Audience:
    """The futures, on any event loops, that wait for a download's next state change. Registered as one watcher."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seats: set[asyncio.Future[None]] = set()

    def take_seat(self) -> asyncio.Future[None]:
        """Return a future that is done after the next state change."""
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
            # The loop is closed, so nobody waits on it.
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
