"""What may take long for a run, one thing after the other on a worker."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

__all__ = ["Jobs"]

Work = Callable[[Callable[[], Any], Callable[[Future[Any]], None]], None]


class Jobs:
    """A queue of jobs, each with the step that follows it. ``work`` does one on a worker, and then its step."""

    def __init__(self, work: Work) -> None:
        self.busy = False
        self._work = work
        self._waiting: deque[tuple[Callable[[], Any], Callable[[Any], None]]] = deque()

    def do(self, job: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Do ``job`` when those before it are done, and ``then`` go on with what it returned."""
        self._waiting.append((job, then))
        self._next()

    def _next(self) -> None:
        if self.busy or not self._waiting:
            return
        job, then = self._waiting.popleft()

        def done(future: Future[Any]) -> None:
            self.busy = False
            try:
                then(future.result())
            finally:
                self._next()

        self.busy = True
        self._work(job, done)
