"""Calls that are due later, for a thread that looks after them between other things. No thread or wait of their own."""

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
        """Never make it."""
        self.call = None


class Timers:
    """Calls by when they are due."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, DueCall]] = []
        self._order = itertools.count()

    def later(self, delay_s: float, call: Callable[[], None]) -> DueCall:
        """``call`` is due ``delay_s`` seconds from now."""
        timer = DueCall(call)
        heapq.heappush(self._heap, (time.monotonic() + delay_s, next(self._order), timer))
        return timer

    def due(self, now_s: float) -> list[Callable[[], None]]:
        """What is due, in order, once."""
        calls = []
        while self._heap and self._heap[0][0] <= now_s:
            timer = heapq.heappop(self._heap)[2]
            if timer.call is not None:
                calls.append(timer.call)
        return calls

    def next_s(self) -> float | None:
        """In how many seconds the next one is due; None: there is none."""
        return max(0.0, self._heap[0][0] - time.monotonic()) if self._heap else None

    def clear(self) -> None:
        """Forget them all."""
        self._heap.clear()
