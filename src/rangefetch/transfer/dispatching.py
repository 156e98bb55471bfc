"""The one thread of a backend, which runs all steps of its downloads, in order.

Requests from other threads arrive through ``call``. So do the results of workers, which may block, and of separate
threads, which may never return; timers run here too. Nothing on this thread may block another backend's thread. No
exception ends the thread: every step is guarded, and an error ends at most one download.
"""

from __future__ import annotations

import abc
import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from rangefetch.errors import LocalError
from rangefetch.logs import log as _log
from rangefetch.masking import mask_url
from rangefetch.transfer.download import Download
from rangefetch.transfer.guarding import Work, guarded, internal_error, safely
from rangefetch.transfer.space import Sizes, lacking_on
from rangefetch.transfer.timers import DueCall, Timers
from rangefetch.transfer.workers import Workers, outcome

if TYPE_CHECKING:
    from rangefetch.transfer.backend import Listener
    from rangefetch.transfer.retry import RetryPolicy
    from rangefetch.transfer.workers import Outcome

__all__ = ["Dispatcher"]

R = TypeVar("R", bound=Work)

_TICK_S = 0.25


class Dispatcher(abc.ABC, Generic[R]):
    """The downloads at work of one backend, and the thread that runs them, called ``thread_name``."""

    thread_name: str

    def __init__(self, listener: Listener, policy: RetryPolicy) -> None:
        self.listener = listener
        self.policy = policy
        self.tasks: dict[str, R] = {}
        """The downloads at work, by gid."""
        self.sizes = Sizes()
        self.stopping = False
        self._calls: deque[Callable[[], None]] = deque()
        self._calls_lock = threading.Lock()
        self._takes_calls = False
        self._timers = Timers()
        self._ticking = False
        self._thread: threading.Thread | None = None
        self._workers: Workers | None = None

    # -- what differs ---------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def make_task(self, download: Download) -> R:
        """Create the task of a download that is starting."""

    @abc.abstractmethod
    def ring(self) -> None:
        """Wake the thread; called from other threads."""

    @abc.abstractmethod
    def wait(self, seconds: float | None) -> None:
        """Sleep for at most ``seconds`` (None: no limit), and handle what the backend reports meanwhile."""

    def is_idle(self) -> bool:
        """Whether no downloads are at work any more."""
        return not self.tasks

    def tend(self, now_s: float) -> None:
        """Called a few times a second while downloads are at work."""

    def tasks_changed(self, task: R) -> None:
        """Called when ``task`` has started, has ended, or has new options."""

    # -- the interface --------------------------------------------------------------------------------------------

    def begin(self, *downloads: Download) -> None:
        """Start or resume downloads that the manager has already marked as active."""
        if not self.call(functools.partial(self._begin_all, downloads)):
            for download in downloads:
                self.listener.halted(download)

    def _begin_all(self, downloads: Iterable[Download]) -> None:
        for download in downloads:
            safely(self._begin, download)

    def _begin(self, download: Download) -> None:
        if self.stopping:
            self.listener.halted(download)
            return
        try:
            task = self.make_task(download)
        except Exception as error:
            _log.exception("%s: internal error", download.gid)
            self.listener.failed(download, internal_error(error, mask_url(download.url)))
            return
        self.begin_to_tick()
        self.tasks[download.gid] = task
        if size := download.size:
            self.sizes.put(download.gid, size)
        # other threads may read it from here on, so the task must be complete
        download.waits = lambda: task.waiting_for
        guarded(task, self.tasks_changed, task)
        guarded(task, task.begin)

    def begin_to_tick(self) -> None:
        """Start the periodic tick, if it is not running."""
        if not self._ticking:
            self._ticking = True
            self._timers.later(_TICK_S, self._tick)

    def halt(self, download: Download) -> None:
        """Stop the transfers, and save or remove the data; ``halted`` follows unless the download had already ended."""
        self._step(download, lambda task: task.halt())

    def change(self, download: Download) -> None:
        """Apply the download's new options."""
        self._step(download, lambda task: task.change(download.options))
        self._step(download, self.tasks_changed)

    def go_on(self, download: Download) -> None:
        """Continue a download that got the turn it asked for with ``grows`` or ``comes_back``."""
        self._step(download, lambda task: task.go_on())

    def _step(self, download: Download, step: Callable[[R], None]) -> None:
        def take() -> None:
            task = self.tasks.get(download.gid)
            if task is not None:
                guarded(task, step, task)

        self.call(take)

    def call(self, function: Callable[[], None]) -> bool:
        """Have the backend's thread call ``function``; from any thread. Returns False if the thread is stopped."""
        with self._calls_lock:
            if not self._takes_calls:
                return False
            is_first = not self._calls
            self._calls.append(function)
        # The thread empties the queue before it sleeps, so only the first call has to wake it.
        if is_first:
            self.ring()
        return True

    def later(self, delay_s: float, function: Callable[[], None]) -> bool:
        """Call ``function`` on the backend's thread in ``delay_s`` seconds; from any thread. False: it is stopped."""
        return self.call(lambda: self._set_timer(delay_s, function))

    def _set_timer(self, delay_s: float, function: Callable[[], None]) -> None:
        self._timers.later(delay_s, function)

    # -- for what is at work --------------------------------------------------------------------------------------

    @staticmethod
    def now_s() -> float:
        return time.monotonic()

    def call_later(self, task: R, delay_s: float, function: Callable[[], None]) -> DueCall:
        """Call ``function`` as a step of ``task``, ``delay_s`` seconds from now."""
        return self._timers.later(delay_s, lambda: guarded(task, function))

    def work(self, task: R, job: Callable[[], Any], then: Callable[[Outcome[Any]], None]) -> None:
        """Run ``job`` on a worker, then call ``then`` with its outcome as a step of ``task``."""
        assert self._workers is not None
        self._workers.submit(job, lambda outcome: self._call_step(task, then, outcome))

    def look(self, task: R, job: Callable[[], Any], then: Callable[[Outcome[Any]], None]) -> None:
        """Like ``work``, for jobs that may never return (user code, a server).

        The job runs on a thread of its own; pauses, ``stop`` and interpreter exit do not wait for it.
        """
        # Not named "rangefetch-...": threads so named never wait for a download (``waiting``), but user code may.
        thread = threading.Thread(
            target=lambda: self._call_step(task, then, outcome(job)), name="asking-for-rangefetch", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:
            raise LocalError(f"cannot start a thread: {error}; see ulimit -u") from None

    def _call_step(self, task: R, then: Callable[[Outcome[Any]], None], outcome: Outcome[Any]) -> None:
        self.call(lambda: guarded(task, then, outcome))

    def lacking_beside(self, download: Download, device: int) -> int:
        """Bytes that the other downloads at work still need on a file system."""
        return lacking_on(
            device, [task.download for task in list(self.tasks.values()) if task.download is not download]
        )

    def task_ended(self, task: R) -> None:
        """Forget a task that has ended."""
        if self.tasks.get(task.download.gid) is task:
            del self.tasks[task.download.gid]
            self.sizes.drop(task.download.gid)
        self.tasks_changed(task)

    # -- the thread -----------------------------------------------------------------------------------------------

    def start_thread(self, workers: Workers) -> None:
        """Start the thread. ``workers`` must already run."""
        self._workers = workers
        self.stopping = self._ticking = False
        self._calls.clear()
        self._timers.clear()
        self._takes_calls = True
        self._thread = threading.Thread(target=self._work, name=self.thread_name, daemon=True)
        self._thread.start()

    def halt_all(self) -> None:
        """Halt every download, on the thread, which ends after the last of them."""
        self.stopping = True
        for task in list(self.tasks.values()):
            guarded(task, task.halt)

    def end_thread(self) -> None:
        """After the thread has ended: run the calls still queued, which refuse new downloads; ``call`` itself refuses
        later ones.
        """
        while True:
            with self._calls_lock:
                if not self._calls:
                    self._takes_calls = False
                    break
                function = self._calls.popleft()
            safely(function)
        if self._workers is not None:
            self._workers.stop()
        self._thread = self._workers = None

    def _work(self) -> None:
        while not (self.stopping and self.is_idle() and not self._calls):
            if not safely(self._round):
                time.sleep(_TICK_S)  # the cause may go away

    def _round(self) -> None:
        self.wait(0 if self._calls else self._timers.next_s())
        while self._calls:
            safely(self._calls.popleft())
        for call in self._timers.due(time.monotonic()):
            safely(call)

    def _tick(self) -> None:
        self._ticking = bool(self.tasks)
        if not self._ticking:
            return
        self._timers.later(_TICK_S, self._tick)
        now_s = time.monotonic()
        for task in list(self.tasks.values()):
            guarded(task, task.tick, now_s)
        self.tend(now_s)
        if self._workers is not None:
            self._workers.tend(now_s)
