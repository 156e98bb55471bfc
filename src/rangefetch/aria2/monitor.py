"""The watch over a daemon: checks now and then, starts it again when it died, and gives up in the end."""

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
    """What is watched over."""

    def is_alive(self) -> bool:
        """Whether there is a process."""
        ...

    def is_healthy(self) -> bool:
        """Whether it answers."""
        ...

    def start_again(self) -> None:
        """End what is left of it, and start it. Raises a ``LocalError``."""

    def give_up(self, reason: str) -> None:
        """It will not be started again."""


def restart_wait_s(attempt: int, first_s: float) -> float:
    """How long to wait before the ``attempt``-th start in a row.

    For ``first_s=1``: 1, 2, 4, 8, 16, 32, 60, 60 … seconds.
    """
    return min(first_s * 2.0 ** min(attempt - 1, 30), _MOST_WAIT_S)


class Monitor:
    """A thread that watches over a daemon until :meth:`stop`, or until the daemon is dropped.

    A process that is gone is started again; one that is there must fail to answer three times in a row, since aria2c
    answers late while its disk is busy. A good check makes the count of restarts begin anew.
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
        """End the watch soon, without waiting for it."""
        self._stopping.set()
        self._wake.set()

    def stop(self) -> None:
        """End the watch; when this returns, nothing is started any more. Twice is fine."""
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
            del watched  # so that it can be dropped while this waits

    def _restart(self, watched: Watched, restarts: int) -> int:
        """Start it again; how many times in a row that was, -1 when it is over."""
        reason = "it ended"
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
        watched.give_up(f"aria2c was restarted {restarts} times without success: {reason}")
        return -1
