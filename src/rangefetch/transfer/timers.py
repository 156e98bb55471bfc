"""Calls that are due later, for a thread that runs them between other work. Starts no thread, and never waits."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable

__all__ = ["DueCall", "Timers"]


class DueCall:
    """A call that is due later, unless it is cancelled."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Never make the call."""
        self.call = None


class Timers:
    """Calls, ordered by when they are due."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, DueCall]] = []
        self._order = itertools.count()

    def later(self, delay_s: float, call: Callable[[], None]) -> DueCall:
        """Schedule ``call`` for ``delay_s`` seconds from now."""
        timer = DueCall(call)
        heapq.heappush(self._heap, (time.monotonic() + delay_s, next(self._order), timer))
        return timer

    def due(self, now_s: float) -> list[Callable[[], None]]:
        """Remove and return the calls that are due, in order."""
        calls = []
        while self._heap and self._heap[0][0] <= now_s:
            timer = heapq.heappop(self._heap)[2]
            if timer.call is not None:
                calls.append(timer.call)
        return calls

    def next_s(self) -> float | None:
        """Seconds until the next call is due; None if there is none."""
        return max(0.0, self._heap[0][0] - time.monotonic()) if self._heap else None

    def clear(self) -> None:
        """Forget all calls."""
        self._heap.clear()
