"""The one thread of a backend, on which everything happens to its downloads, in order.

What others ask for comes to it through ``call``, and so do timers and the results of what is done elsewhere: by
workers, which may block, and on threads of their own, which may never return. Nothing on the thread itself may block
another backend's, and no exception ends it: each step is guarded, and an error ends one download at most.
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
    """The downloads at work of one backend, and their thread, which is called ``thread_name``."""

    thread_name: str

    def __init__(self, listener: Listener, policy: RetryPolicy) -> None:
        self.listener = listener
        self.policy = policy
        self.tasks: dict[str, R] = {}
        """What is at work, by gid."""
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
        """A download is to be at work."""

    @abc.abstractmethod
    def ring(self) -> None:
        """Wake the thread; from any other."""

    @abc.abstractmethod
    def wait(self, seconds: float | None) -> None:
        """Sleep so long at most (None: without end), and deal with what the backend tells meanwhile."""

    def is_idle(self) -> bool:
        """Whether nothing is at work any more."""
        return not self.tasks

    def tend(self, now_s: float) -> None:
        """A few times a second, while something is at work."""

    def tasks_changed(self, task: R) -> None:
        """It is at work from now on, is not any more, or has other options."""

    # -- the interface --------------------------------------------------------------------------------------------

    def begin(self, *downloads: Download) -> None:
        """Start them, or go on where they were; they are active already."""
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
        download.waits = lambda: task.waiting_for  # others may ask from here on, so that it must be whole
        guarded(task, self.tasks_changed, task)
        guarded(task, task.begin)

    def begin_to_tick(self) -> None:
        """Something is at work from now on."""
        if not self._ticking:
            self._ticking = True
            self._timers.later(_TICK_S, self._tick)

    def halt(self, download: Download) -> None:
        """Stop its transfers, and save what there is or remove it; ``halted`` follows, unless it ended before."""
        self._step(download, lambda task: task.halt())

    def change(self, download: Download) -> None:
        """Apply the download's new options."""
        self._step(download, lambda task: task.change(download.options))
        self._step(download, self.tasks_changed)

    def go_on(self, download: Download) -> None:
        """It has its turn, where ``grows`` or ``comes_back`` was asked for that."""
        self._step(download, lambda task: task.go_on())

    def _step(self, download: Download, step: Callable[[R], None]) -> None:
        def take() -> None:
            task = self.tasks.get(download.gid)
            if task is not None:
                guarded(task, step, task)

        self.call(take)

    def call(self, function: Callable[[], None]) -> bool:
        """Have the backend's thread call ``function``; from any thread. False: it is stopped, and never will."""
        with self._calls_lock:
            if not self._takes_calls:
                return False
            is_first = not self._calls
            self._calls.append(function)
        # The thread takes all that is there before it sleeps.
        if is_first:
            self.ring()
        return True

    def later(self, delay_s: float, function: Callable[[], None]) -> bool:
        """Have the backend's thread call ``function`` in so many seconds; from any thread. False: it is stopped."""
        return self.call(lambda: self._set_timer(delay_s, function))

    def _set_timer(self, delay_s: float, function: Callable[[], None]) -> None:
        self._timers.later(delay_s, function)

    # -- for what is at work --------------------------------------------------------------------------------------

    @staticmethod
    def now_s() -> float:
        return time.monotonic()

    def call_later(self, task: R, delay_s: float, function: Callable[[], None]) -> DueCall:
        """Have ``function`` called as a step of ``task``, ``delay_s`` seconds from now."""
        return self._timers.later(delay_s, lambda: guarded(task, function))

    def work(self, task: R, job: Callable[[], Any], then: Callable[[Outcome[Any]], None]) -> None:
        """Do ``job`` on a worker, and then ``then`` with its outcome as a step of ``task``."""
        assert self._workers is not None
        self._workers.submit(job, lambda outcome: self._call_step(task, then, outcome))

    def look(self, task: R, job: Callable[[], Any], then: Callable[[Outcome[Any]], None]) -> None:
        """``work`` for what may never return (a function of the user's, a server): on a thread of its own, for which
        neither a pause nor ``stop`` nor the end of the interpreter waits.
        """
        # Not one of the backend's names: the user's function may wait for other downloads.
        thread = threading.Thread(
            target=lambda: self._call_step(task, then, outcome(job)), name="asking-for-rangefetch", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:
            raise LocalError(f"{error}; see ulimit -u") from None

    def _call_step(self, task: R, then: Callable[[Outcome[Any]], None], outcome: Outcome[Any]) -> None:
        self.call(lambda: guarded(task, then, outcome))

    def lacking_beside(self, download: Download, device: int) -> int:
        """What the downloads at work but this one still need of a filesystem."""
        return lacking_on(
            device, [task.download for task in list(self.tasks.values()) if task.download is not download]
        )

    def task_ended(self, task: R) -> None:
        """Nothing more comes of it."""
        if self.tasks.get(task.download.gid) is task:
            del self.tasks[task.download.gid]
            self.sizes.drop(task.download.gid)
        self.tasks_changed(task)

    # -- the thread -----------------------------------------------------------------------------------------------

    def start_thread(self, workers: Workers) -> None:
        """Begin to hear calls. ``workers`` were started."""
        self._workers = workers
        self.stopping = self._ticking = False
        self._calls.clear()
        self._timers.clear()
        self._takes_calls = True
        self._thread = threading.Thread(target=self._work, name=self.thread_name, daemon=True)
        self._thread.start()

    def halt_all(self) -> None:
        """On the thread: halt every download; it ends with the last of them."""
        self.stopping = True
        for task in list(self.tasks.values()):
            guarded(task, task.halt)

    def end_thread(self) -> None:
        """The thread has ended: refuse what was asked for meanwhile. What comes now is, by ``call`` itself."""
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
                time.sleep(_TICK_S)  # whatever it was, it may be there the next time

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
