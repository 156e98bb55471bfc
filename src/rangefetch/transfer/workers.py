"""Threads for what may take long: opening, syncing, hashing and naming files.

A file system that does not answer (a dead NFS server) may block a thread indefinitely. The threads are therefore
daemons, which the interpreter does not wait for at exit, and another one is added whenever no job was taken for a
second.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

__all__ = ["Outcome", "Workers", "outcome"]

_LEAST = 4
_MOST = 64
_STALLED_S = 1.0
_STOP_S = 1.0
_CANNOT_START = (RuntimeError, MemoryError)


T = TypeVar("T")


class Outcome(Generic[T]):
    """The outcome of a job: a ``concurrent.futures.Future`` without the lock, and without the imports."""

    __slots__ = ("_error", "_result")

    def __init__(self, result: T, error: BaseException | None = None) -> None:
        self._result = result
        self._error = error

    def exception(self) -> BaseException | None:
        """What the job raised, or None."""
        return self._error

    def result(self) -> T:
        """What the job returned; raises what it raised."""
        if self._error is None:
            return self._result
        try:
            raise self._error
        finally:
            del self  # otherwise the traceback would keep this object alive


class Workers:
    """Runs jobs on threads named ``name``, in the order in which they are submitted.

    ``start`` starts one thread, and raises ``RuntimeError`` or ``MemoryError`` if that fails; ``grow`` adds the others,
    as far as the system allows.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Callable[[Outcome[Any]], None]] | None]
        self._jobs = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._taken = 0  # jobs taken; only its changes matter
        self._seen = 0
        self._seen_s = 0.0

    def start(self) -> None:
        self._add_thread()

    def grow(self) -> None:
        with contextlib.suppress(*_CANNOT_START):
            while len(self._threads) < _LEAST:
                self._add_thread()

    def submit(self, job: Callable[[], Any], done: Callable[[Outcome[Any]], None]) -> None:
        """Run ``job`` on a worker, and call ``done`` there with its outcome."""
        self._jobs.put((job, done))

    def tend(self, now_s: float) -> None:
        """Add a thread if all are stuck, or have died for lack of memory; called periodically."""
        if self._jobs.empty() or self._taken != self._seen:
            self._seen, self._seen_s = self._taken, now_s
        elif now_s - self._seen_s >= _STALLED_S:
            self._seen_s = now_s
            for dead in [thread for thread in self._threads if not thread.is_alive()]:
                self._threads.remove(dead)
            with contextlib.suppress(*_CANNOT_START):
                if len(self._threads) < _MOST:
                    self._add_thread()

    def stop(self) -> None:
        """End the threads once the jobs are done; one that is stuck is left behind."""
        for _ in self._threads:
            self._jobs.put(None)
        deadline_s = time.monotonic() + _STOP_S
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))
        self._threads = []

    def _add_thread(self) -> None:
        thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            self._taken += 1
            job, done = item
            done(outcome(job))
            # Drop all references to the job while waiting for the next.
            del item, job, done


def outcome(job: Callable[[], T]) -> Outcome[Any]:
    """Run ``job`` here and now, and return its outcome."""
    try:
        return Outcome(job())
    except BaseException as error:
        return Outcome(None, error)
