"""The native backend: one thread that turns the engine's events into steps of downloads.

Everything that happens to a ``Run`` happens on that thread, in order: events, timers, and what others ask for
through ``call``. What may block (opening, hashing, syncing and naming files) goes to workers, and functions of the
user's to threads of their own; the results come back the same way. Whatever raises there ends one download at most:
the thread goes on.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rangefetch import governor, libcurl
from rangefetch.backend import Listener
from rangefetch.download import Download
from rangefetch.errors import Cancelled, EngineUnavailable
from rangefetch.events import Event
from rangefetch.guarding import guarded, internal_error, safely
from rangefetch.logs import log as _log
from rangefetch.manners import Manners
from rangefetch.network import Network, find_ca_file, make_profile, mask_url, netrc_path, secret_headers
from rangefetch.options import DownloadOptions
from rangefetch.proxies import proxies_of
from rangefetch.retry import RetryPolicy
from rangefetch.run import Run
from rangefetch.sources import Source
from rangefetch.space import lacking_on
from rangefetch.timers import DueCall, Timers
from rangefetch.workers import Workers, outcome

if TYPE_CHECKING:
    from rangefetch._engine import Batch, Engine, File, Profile

__all__ = ["NativeBackend"]

_TICK_S = 0.25
_MOST_LOOPS = 4
_MOST_PROFILES = 64


class NativeBackend:
    """Runs downloads on the engine.

    ``start`` raises ``EngineUnavailable`` where the engine cannot run. ``begin`` and ``halt`` may be called from any
    thread; what became of a download is told to the listener.
    """

    name = "native"

    def __init__(self, listener: Listener, policy: RetryPolicy | None = None) -> None:
        self.listener = listener
        self.policy = policy or RetryPolicy()
        self.network = Network(self.policy.network_hosts)
        self.manners = Manners()
        self._calls: deque[Callable[[], None]] = deque()
        self._calls_lock = threading.Lock()
        self._hears_calls = False
        self._timers = Timers()
        self._runs: dict[str, Run] = {}
        self._profiles: dict[tuple[Any, ...], Profile] = {}
        self._engine: Engine | None = None
        self._loads: list[int] = []
        self._thread: threading.Thread | None = None
        self._workers: Workers | None = None
        self._stopping = False
        self._ticking = False
        self._process_id = 0
        self._limit = 0
        self._batches: dict[Batch, Callable[[Batch], None]] = {}  # with who hears of the end

    def start(self) -> None:
        libcurl.load()
        from rangefetch import _engine

        loops = max(1, min(_MOST_LOOPS, os.cpu_count() or 1))
        workers = Workers("rangefetch-worker")
        try:
            workers.start()
        except RuntimeError as error:
            raise EngineUnavailable(f"no thread can be started: {error}") from error
        self._workers = workers
        self._engine = _engine.Engine(loops)
        self._engine.limit = self._limit
        self._loads = [0] * loops
        self._process_id = os.getpid()
        self._stopping = self._ticking = False
        self._calls.clear()
        self._timers.clear()
        self._hears_calls = True
        self._thread = threading.Thread(target=self._work, name="rangefetch-dispatcher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Halt every download, wait until all of them are saved and let go of, and end the threads."""
        if self._thread is None or self._engine is None or self._workers is None or self._process_id != os.getpid():
            return

        def halt_all() -> None:
            self._stopping = True
            for batch in list(self._batches):
                safely(batch.remove)
            for run in list(self._runs.values()):
                guarded(run, run.halt)

        self.call(halt_all)
        self._thread.join()
        self._answer_late_calls()
        self._workers.stop()
        self._engine.close()
        self._thread = self._engine = self._workers = None

    def _answer_late_calls(self) -> None:
        """What was asked for while the thread ended is refused; what comes now is, by ``call`` itself."""
        while True:
            with self._calls_lock:
                if not self._calls:
                    self._hears_calls = False
                    return
                function = self._calls.popleft()
            safely(function)

    def begin(self, download: Download) -> None:
        """Start or resume the download; it is active already."""

        def begin() -> None:
            if self._stopping:
                self.listener.halted(download)
                return
            try:
                run = Run(self, download)
            except Exception as error:
                _log.exception("%s: internal error", download.gid)
                self.listener.failed(download, internal_error(error, mask_url(download.url)))
                return
            if not self._ticking:
                self._ticking = True
                self._timers.later(_TICK_S, self._tick)
            self._runs[download.gid] = run
            guarded(run, lambda: self._share_lanes(run.sources[0].host))
            guarded(run, run.begin)

        if not self.call(begin):
            self.listener.halted(download)

    def halt(self, download: Download, *, remove_files: bool = False) -> None:
        """Stop its transfers, and save what there is or remove it; ``halted`` follows, unless it ended before."""

        def halt() -> None:
            run = self._runs.get(download.gid)
            if run is not None:
                guarded(run, functools.partial(run.halt, remove_files=remove_files))

        self.call(halt)

    def change(self, download: Download) -> None:
        """Apply the download's new options: limit, lanes."""

        def change() -> None:
            run = self._runs.get(download.gid)
            if run is not None:
                guarded(run, functools.partial(run.change, download.options))
                guarded(run, lambda: self._share_lanes(run.sources[0].host))

        self.call(change)

    def serves(self, url: str) -> bool:
        """http and https."""
        return urlsplit(url).scheme.lower() in ("http", "https")

    def hears(self) -> bool:
        """The engine rings."""
        return True

    def limit(self, bytes_per_s: int) -> None:
        """Limit all downloads together; 0: no limit."""
        self._limit = bytes_per_s
        if self._engine is not None:
            self._engine.limit = bytes_per_s

    # -- for runs, on the backend's thread --------------------------------------------------------------------

    def call(self, function: Callable[[], None]) -> bool:
        """Have the backend's thread call ``function``; from any thread. False: it is stopped, and never will."""
        with self._calls_lock:
            if not self._hears_calls:
                return False
            self._calls.append(function)
        engine = self._engine
        if engine is not None:
            with contextlib.suppress(RuntimeError):  # it was closed a moment ago
                engine.ring()
        return True

    def call_later(self, run: Run, delay_s: float, function: Callable[[], None]) -> DueCall:
        """Have ``function`` called as a step of ``run``, ``delay_s`` seconds from now."""
        return self._timers.later(delay_s, lambda: guarded(run, function))

    def work(self, run: Run, job: Callable[[], Any], then: Callable[[Future[Any]], None]) -> None:
        """Do ``job`` on a worker, and then ``then`` with its outcome as a step of ``run``."""
        assert self._workers is not None

        def done(future: Future[Any]) -> None:
            self.call(lambda: guarded(run, lambda: then(future)))

        self._workers.submit(job, done)

    def look(self, run: Run, job: Callable[[], Any], then: Callable[[Future[Any]], None]) -> None:
        """``work`` for what may never return (a function of the user's, a name server): on a thread of its own, for
        which neither a pause nor ``stop`` nor the end of the interpreter waits.
        """

        def do() -> None:
            future = outcome(job)
            self.call(lambda: guarded(run, lambda: then(future)))

        # Not one of the backend's names: the user's function may wait for other downloads.
        threading.Thread(target=do, name="asking-for-rangefetch", daemon=True).start()

    def lacking_beside(self, download: Download, device: int) -> int:
        """What the downloads at work but this one still need of a filesystem."""
        return lacking_on(device, [run.download for run in list(self._runs.values()) if run.download is not download])

    def _share_lanes(self, host: str) -> None:
        """Divide a host's lanes among the downloads from it."""
        runs = {run.download.gid: run for run in self._runs.values() if run.sources[0].host == host}
        shares = governor.divide({gid: run.options.max_connection_per_server for gid, run in runs.items()})
        for gid, lanes in shares.items():
            runs[gid].share_lanes(lanes)

    def begin_batch(
        self,
        directory_fd: int,
        items: Sequence[tuple[str, str]],
        options: DownloadOptions,
        ended: Callable[[Batch], None],
        *,
        loop: int,
        lanes: int,
        named_by_url: bool,
    ) -> Batch:
        """Fetch small files into a directory, from any thread; ``ended`` hears the end on the backend's. It is given to
        that loop, and has so many of them at work, if there are as many places.

        The end comes when the engine does not touch the directory any more, and also where the backend is stopped.
        Raises ``Cancelled`` when it is stopped already.
        """
        from rangefetch import _engine

        batch = _engine.Batch(
            directory_fd,
            items,
            self.profile(options, Source(items[0][0])),
            tag=self._batch_ended,
            lanes=lanes,
            hurries=True,
            overwrite=options.overwrite,
            named_by_url=named_by_url,
            host_lanes=options.max_connection_per_server,
            retry_wait_s=options.retry_wait,
            longest_rest_s=self.policy.longest_retry_after,
        )

        def add() -> None:
            self._batches[batch] = ended
            if (
                self._stopping
                or self._engine is None
                or not safely(functools.partial(self._engine.add_batch, batch, loop))
            ):
                self._batch_ended(batch)

        if not self.call(add):
            raise Cancelled("the manager was stopped")
        return batch

    @property
    def loops(self) -> int:
        """How many loops the engine has."""
        return max(1, len(self._loads))

    def set_places(self, most: int) -> int:
        """Have no more than so many small files at work at a time, from any thread; returns how many are."""
        engine = self._engine
        if engine is None or engine.closed:
            return 0
        each, further = divmod(most, self.loops)
        for loop in range(self.loops):
            engine.set_places(loop, each + (loop < further))
        return engine.items_running

    def _batch_ended(self, batch: Batch) -> None:
        self._batches.pop(batch)(batch)

    def add_file(self, file: File) -> int:
        """Give the file to the loop with the fewest; returns which, for ``file_gone``."""
        assert self._engine is not None
        loop = self._loads.index(min(self._loads))
        self._loads[loop] += 1
        self._engine.add(file, loop)
        return loop

    def file_gone(self, loop: int) -> None:
        self._loads[loop] -= 1

    def run_ended(self, run: Run) -> None:
        if self._runs.get(run.download.gid) is run:
            del self._runs[run.download.gid]
        self._share_lanes(run.sources[0].host)

    def profile(self, options: DownloadOptions, source: Source) -> Profile:
        """The profile for these options; downloads that ask alike share one."""
        secrets = secret_headers(source.url, source.authorization, options)
        headers = options.header_items if source.is_own else ()
        key = (
            options.user_agent, headers, secrets, options.proxy, options.no_proxy, options.bind_address,
            options.ip_version, netrc_path(options) if options.netrc else None,
            find_ca_file(os.fspath(options.ca_file)), options.verify_tls, options.http_version,
            options.allow_downgrade, options.connect_timeout, options.read_timeout, proxies_of(options),
        )  # fmt: skip
        profile = self._profiles.get(key)
        if profile is None:
            if len(self._profiles) >= _MOST_PROFILES:
                self._profiles.clear()
            profile = self._profiles[key] = make_profile(options, headers, secrets)
        return profile

    # -- the thread -------------------------------------------------------------------------------------------

    def _work(self) -> None:
        engine = self._engine
        assert engine is not None
        poll = select.poll()
        poll.register(engine.fileno(), select.POLLIN)
        while not (self._stopping and not self._runs and not self._batches and not self._calls):
            if not safely(lambda: self._round(engine, poll)):
                time.sleep(_TICK_S)  # whatever it was, it may be there the next time

    def _round(self, engine: Engine, poll: select.poll) -> None:
        poll.poll(self._sleep_ms())
        for fields in engine.events():
            event = Event(*fields)
            owner = event.file.tag
            if isinstance(owner, Run):
                guarded(owner, functools.partial(owner.handle, event))
            else:
                safely(functools.partial(owner, event.file))
        while self._calls:
            safely(self._calls.popleft())
        for call in self._timers.due(time.monotonic()):
            safely(call)

    def _sleep_ms(self) -> float:
        if self._calls:
            return 0
        next_s = self._timers.next_s()
        # poll(2) takes whole milliseconds; a little late is better than once too often.
        return 60_000 if next_s is None else next_s * 1000 + 1

    def _tick(self) -> None:
        self._ticking = bool(self._runs)
        if not self._ticking:
            return
        self._timers.later(_TICK_S, self._tick)
        now_s = time.monotonic()
        for run in list(self._runs.values()):
            guarded(run, functools.partial(run.tick, now_s))
        if self._workers is not None:
            self._workers.tend(now_s)
