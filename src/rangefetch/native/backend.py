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
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rangefetch.errors import Cancelled, EngineUnavailable
from rangefetch.native.run import Run
from rangefetch.net import libcurl
from rangefetch.net.certificates import find_trust
from rangefetch.net.credentials import logins
from rangefetch.net.manners import Manners
from rangefetch.net.network import Network, make_profile, secret_headers
from rangefetch.net.proxies import proxies_of
from rangefetch.net.sources import Source
from rangefetch.options import DownloadOptions
from rangefetch.transfer import governor
from rangefetch.transfer.backend import Listener
from rangefetch.transfer.capabilities import NATIVE
from rangefetch.transfer.dispatching import Dispatcher
from rangefetch.transfer.download import Download
from rangefetch.transfer.events import Event
from rangefetch.transfer.guarding import guarded, safely
from rangefetch.transfer.retry import RetryPolicy
from rangefetch.transfer.workers import Workers

if TYPE_CHECKING:
    from rangefetch._engine import Batch, Engine, File, Jar, Profile

__all__ = ["NativeBackend"]

_MOST_LOOPS = 4
_MOST_PROFILES = 64


class NativeBackend(Dispatcher[Run]):
    """Runs downloads on the engine.

    ``start`` raises ``EngineUnavailable`` where the engine cannot run. ``begin`` and ``halt`` may be called from any
    thread; what became of a download is told to the listener.
    """

    name = "native"
    thread_name = "rangefetch-dispatcher"

    def __init__(self, listener: Listener, policy: RetryPolicy | None = None) -> None:
        super().__init__(listener, policy or RetryPolicy())
        self.network = Network(self.policy.network_hosts)
        self.manners = Manners()
        self._profiles: dict[tuple[Any, ...], Profile] = {}
        self._jars: dict[tuple[Any, ...], Jar] = {}
        self._engine: Engine | None = None
        self._loads: list[int] = []
        self._poll: select.poll | None = None
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
        self._engine = _engine.Engine(loops)
        self._engine.limit = self._limit
        self._loads = [0] * loops
        self._process_id = os.getpid()
        self._poll = select.poll()
        self._poll.register(self._engine.fileno(), select.POLLIN)
        self.start_thread(workers)

    def stop(self) -> None:
        """Halt every download, wait until all of them are saved and let go of, and end the threads."""
        if self._thread is None or self._engine is None or self._process_id != os.getpid():
            return
        self.call(self.halt_all)
        self._thread.join()
        self.end_thread()
        self._engine.close()
        self._engine = None

    def halt_all(self) -> None:
        """On the thread: halt every download and every batch."""
        for batch in list(self._batches):
            safely(batch.remove)
        super().halt_all()

    def make_run(self, download: Download) -> Run:
        """A download is to be at work."""
        return Run(self, download)

    def is_idle(self) -> bool:
        """Whether nothing is at work any more."""
        return not self.runs and not self._batches

    def serves(self, url: str) -> bool:
        """http and https."""
        return urlsplit(url).scheme.lower() in NATIVE.schemes

    def has_notifications(self) -> bool:
        """The engine rings."""
        return True

    def limit(self, bytes_per_s: int) -> None:
        """Limit all downloads together; 0: no limit."""
        self._limit = bytes_per_s
        if self._engine is not None:
            self._engine.limit = bytes_per_s

    # -- for runs, on the backend's thread --------------------------------------------------------------------

    def ring(self) -> None:
        """Wake the thread; from any other."""
        engine = self._engine
        if engine is not None:
            with contextlib.suppress(RuntimeError):  # it was closed a moment ago
                engine.ring()

    def runs_changed(self, run: Run) -> None:
        """Divide a host's lanes among the downloads from it."""
        host = run.sources[0].host
        runs = {each.download.gid: each for each in self.runs.values() if each.sources[0].host == host}
        shares = governor.divide({gid: each.options.max_connection_per_server for gid, each in runs.items()})
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
            if self.stopping or self._engine is None or not safely(functools.partial(self._add_batch, batch, loop)):
                self._batch_ended(batch)

        if not self.call(add):
            raise Cancelled("the manager was stopped")
        return batch

    def _add_batch(self, batch: Batch, loop: int) -> None:
        assert self._engine is not None
        self._engine.add_batch(batch, loop)

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
        """Give the file to the loop that has its host, else to the one with the fewest; returns which, for
        ``file_gone``."""
        assert self._engine is not None
        loop = governor.loop_of(file.host, file.host_lanes, len(self._loads))
        if loop is None:
            loop = self._loads.index(min(self._loads))
        self._loads[loop] += 1
        self._engine.add(file, loop)
        return loop

    def file_gone(self, loop: int) -> None:
        self._loads[loop] -= 1

    def profile(self, options: DownloadOptions, source: Source, *, head: bool = False) -> Profile:
        """The profile for these options, by HEAD or by GET; downloads that ask alike share one."""
        secrets = secret_headers(source.url, source.authorization, options)
        headers = options.header_items if source.is_own else ()
        authorized = any(name.lower() == "authorization" for name, _ in (*headers, *secrets))
        credentials = logins(source.url, options, is_own=source.is_own, authorized=authorized)
        known = (headers, secrets, credentials)
        key = (
            head,
            options.user_agent, known, options.location_trusted, options.proxy, options.no_proxy, options.bind_address,
            options.ip_version,
            find_trust(os.fspath(options.ca_file)), options.proxy_ca_file, options.certificate, options.private_key,
            options.verify_tls, options.http_version,
            options.allow_downgrade, options.connect_timeout, options.read_timeout, proxies_of(options),
        )  # fmt: skip
        profile = self._profiles.get(key)
        if profile is None:
            if len(self._profiles) >= _MOST_PROFILES:
                self._profiles.clear()
            jar = self._jar_for(known)
            profile = self._profiles[key] = make_profile(options, headers, secrets, credentials, jar, head=head)
        return profile

    def _jar_for(self, known: tuple[Any, ...]) -> Jar:
        """The cookies that servers have set for those who come with the same headers and credentials."""
        from rangefetch import _engine

        jar = self._jars.get(known)
        if jar is None:
            if len(self._jars) >= _MOST_PROFILES:
                del self._jars[next(iter(self._jars))]
            jar = self._jars.setdefault(known, _engine.Jar())
        return jar

    # -- the thread -------------------------------------------------------------------------------------------

    def wait(self, seconds: float | None) -> None:
        """Sleep so long at most, and hand out the engine's events."""
        engine, poll = self._engine, self._poll
        assert engine is not None
        assert poll is not None
        # poll(2) takes whole milliseconds; a little late is better than once too often.
        poll.poll(seconds * 1000 + 1 if seconds else 60_000 if seconds is None else 0)
        for fields in engine.events():
            event = Event(*fields)
            owner = event.file.tag
            if isinstance(owner, Run):
                guarded(owner, functools.partial(owner.handle, event))
            else:
                safely(functools.partial(owner, event.file))
