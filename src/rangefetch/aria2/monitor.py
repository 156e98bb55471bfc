"""Watches a daemon: checks it regularly, restarts it when it has died, and gives up after too many failed restarts."""

from __future__ import annotations

import threading
import weakref
from typing import Protocol

from rangefetch.errors import DownloadError
from rangefetch.logs import log as _log

__all__ = ["Monitor", "Watched", "restart_wait_s"]

_MOST_WAIT_S = 60.0
_MOST_MISSES = 3


class Watched(Protocol):
    """The daemon that a monitor watches."""

    def is_alive(self) -> bool:
        """Whether the process runs."""
        ...

    def is_healthy(self) -> bool:
        """Whether it answers."""
        ...

    def start_again(self) -> None:
        """End whatever is left of the process, and start a new one. Raises a ``LocalError``."""

    def give_up(self, reason: str) -> None:
        """Called when there will be no further restart."""


def restart_wait_s(attempt: int, first_s: float) -> float:
    """How long to wait before the ``attempt``-th start in a row.

    For ``first_s=1``: 1, 2, 4, 8, 16, 32, 60, 60 … seconds.
    """
    return min(first_s * 2.0 ** min(attempt - 1, 30), _MOST_WAIT_S)


class Monitor:
    """A thread that watches a daemon until :meth:`stop`, or until the daemon is dropped.

    A process that has exited is restarted. A running one is restarted only after three failed checks in a row, since
    aria2c answers late while its disk is busy. A successful check resets the count of restarts.
    """

    def __init__(self, watched: Watched, *, interval_s: float, most_restarts: int, restart_wait_s: float) -> None:
        self._watched = weakref.ref(watched)
        self._interval_s = interval_s
        self._most_restarts = most_restarts
        self._first_wait_s = restart_wait_s
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="rangefetch-aria2-monitor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def look(self) -> None:
        """Check now; from any thread."""
        self._wake.set()

    def dismiss(self) -> None:
        """Make the thread end soon, without waiting for it."""
        self._stopping.set()
        self._wake.set()

    def stop(self) -> None:
        """End the thread; after this returns nothing is restarted any more. Stopping twice is fine."""
        self.dismiss()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def _watch(self) -> None:
        restarts = misses = 0
        while True:
            self._wake.wait(self._interval_s)
            self._wake.clear()
            watched = self._watched()
            if watched is None or self._stopping.is_set():
                return
            if watched.is_healthy():
                restarts = misses = 0
            elif self._stopping.is_set():
                return
            elif watched.is_alive() and misses + 1 < _MOST_MISSES:
                misses += 1
            else:
                misses = 0
                restarts = self._restart(watched, restarts)
                if restarts < 0:
                    return
            del watched  # so that the daemon can be dropped while this thread waits

    def _restart(self, watched: Watched, restarts: int) -> int:
        """Restart the process. Returns the number of restarts in a row, or -1 if the monitor is to end."""
        reason = "it exited"
        while restarts < self._most_restarts:
            restarts += 1
            wait_s = restart_wait_s(restarts, self._first_wait_s)
            _log.warning("aria2c has died; restarting it in %.3g s (%d of %d)", wait_s, restarts, self._most_restarts)
            if self._stopping.wait(wait_s):
                return -1
            try:
                watched.start_again()
            except DownloadError as error:
                reason = str(error)
                _log.warning("aria2c could not be restarted: %s", error)
            else:
                return restarts
        times = "once" if restarts == 1 else f"{restarts} times"
        tried = f"was restarted {times} without success" if restarts else "is not restarted"
        watched.give_up(f"aria2c {tried}: {reason}")
        return -1
