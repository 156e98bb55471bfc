"""The native backend: one thread that turns the engine's events into steps of downloads.

Everything that happens to a download at work (``Small``, ``NativeTask``) happens on that thread, in order: events,
timers, and calls from other threads. Whatever may block (opening, hashing, syncing and naming files) runs on workers,
and user code on threads of its own; their results come back through ``call``. An exception ends at most one download,
never the thread.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from rangefetch.errors import EngineUnavailable
from rangefetch.importing import no_fork
from rangefetch.native.loads import Loads
from rangefetch.native.machine import processors
from rangefetch.native.preparing import Preparing
from rangefetch.native.small import Small, come_whole, fetch_alike
from rangefetch.net import libcurl
from rangefetch.net.manners import Manners
from rangefetch.net.network import Network
from rangefetch.net.profiles import Private, ProfileSettings, make_profile, profile_settings
from rangefetch.net.sources import Source, host_of
from rangefetch.options import DownloadOptions
from rangefetch.progress import DownloadResult
from rangefetch.transfer.backend import Listener
from rangefetch.transfer.capabilities import NATIVE
from rangefetch.transfer.dispatching import Dispatcher
from rangefetch.transfer.download import Download
from rangefetch.transfer.events import EngineEvent
from rangefetch.transfer.guarding import guarded, safely
from rangefetch.transfer.retry import RetryPolicy
from rangefetch.transfer.shares import SHARES
from rangefetch.transfer.workers import Workers

if TYPE_CHECKING:
    from rangefetch._engine import Engine, File, Jar, Profile
    from rangefetch.native.task import NativeTask

__all__ = ["NativeBackend"]

# By default a host may have 16 connections, two for each of these loops. With fewer than two for each, it is left to
# one loop (governor.loop_of).
_MOST_LOOPS = 8
_MOST_PROFILES = 64


class NativeBackend(Dispatcher["NativeTask | Small"]):
    """Runs downloads on the engine.

    ``start`` raises ``EngineUnavailable`` if the engine cannot run. ``begin`` and ``halt`` may be called from any
    thread; the listener is told how each download ended.
    """

    name = "native"
    thread_name = "rangefetch-dispatcher"

    def __init__(self, listener: Listener, policy: RetryPolicy | None = None) -> None:
        super().__init__(listener, policy or RetryPolicy())
        self.network = Network(self.policy.network_hosts)
        self.manners = Manners()
        self._profiles: dict[ProfileSettings, Profile] = {}
        self._jars: dict[Private, Jar] = {}
        self._engine: Engine | None = None
        self._loads = Loads(1)
        self._wait_for_ring: Callable[[float | None], object] = lambda _: None
        self._process_id = 0
        self._limit = 0
        self.preparing = Preparing(self, functools.partial(fetch_alike, self))
        self._heard = ""  # the origin of the last small file
        self._dropped: set[Small] = set()

    def start(self) -> None:
        libcurl.load()
        workers = Workers("rangefetch-worker")
        try:
            workers.start()
            self._engine, loops = self._make_engine(min(_MOST_LOOPS, processors()))
            self._loads = Loads(loops)
            self._engine.limit = self._limit
            self._process_id = os.getpid()
            self._wait_for_ring = _waiting_for(self._engine.fileno())
            self.start_thread(workers)
        except (RuntimeError, MemoryError, OSError) as error:
            workers.stop()
            self._thread = None
            if self._engine is not None:
                self._engine.close()
                self._engine = None
            reason = str(error) or "out of memory"
            raise EngineUnavailable(f"not enough threads or open files: {reason}; see ulimit -a") from error
        workers.grow()

    @staticmethod
    def _make_engine(loops: int) -> tuple[Engine, int]:
        """Create the engine. Returns it and its number of loops, which is lower if the system lacks threads."""
        with no_fork:
            from rangefetch._engine import Engine

        while True:
            try:
                return Engine(loops), loops
            except BlockingIOError:
                if loops == 1:
                    raise
                loops //= 2

    def stop(self) -> None:
        """Halt every download, wait until all are saved and closed, and end the threads."""
        if self._thread is None or self._engine is None or self._process_id != os.getpid():
            return
        self.call(self.halt_all)
        self._thread.join()
        self.end_thread()
        self._engine.close()
        self._engine = None
        self.preparing.clear()

    def make_task(self, download: Download) -> NativeTask | Small:
        """Create the task of a download that is starting: small if it may be a small file."""
        if download.options.wait_for_other:
            # Import the task's modules now: others may be about to start the same file, and the first must soon open
            # its place.
            _task_class()
        return Small(self, download) if download.is_small else self._made(download)

    def _made(self, download: Download, small: Small | None = None) -> NativeTask:
        return _task_class()(self, download, small)

    def is_idle(self) -> bool:
        """Whether no downloads are at work, and the engine has let go of all dropped files."""
        return not self.tasks and not self._dropped

    def serves(self, url: str) -> bool:
        """Whether the URL is http or https."""
        return urlsplit(url).scheme.lower() in NATIVE.schemes

    def has_notifications(self) -> bool:
        """True: the engine reports at once."""
        return True

    def limit(self, bytes_per_s: int) -> None:
        """Limit the speed of all downloads together, in bytes per second; 0: no limit."""
        self._limit = bytes_per_s
        if self._engine is not None:
            self._engine.limit = bytes_per_s

    # -- for tasks, on the backend's thread -------------------------------------------------------------------

    def ring(self) -> None:
        """Wake the thread; called from other threads."""
        engine = self._engine
        if engine is not None:
            with contextlib.suppress(RuntimeError):  # it was just closed
                engine.ring()

    def tasks_changed(self, task: NativeTask | Small) -> None:
        """Divide a host's lanes among its downloads. Small files use one each and are not counted."""
        if isinstance(task, Small):
            return
        if self.tasks.get(task.download.gid) is task:
            SHARES.join(task, task.host(), task.options.max_connection_per_server, self)
        else:
            SHARES.leave(task)
        self._share_again(task.host())

    def shares_changed(self, host: int) -> None:
        """Called when downloads of another backend have joined or left the host."""
        self.call(lambda: self._share_again(host))

    def _share_again(self, host: int) -> None:
        for each, lanes in SHARES.fair(host).items():
            if getattr(each, "backend", None) is self:  # others belong to aria2
                cast("NativeTask", each).share_lanes(lanes)

    def lacks_connections(self, host: str) -> bool:
        """Whether an active download is stuck because its host has all the connections it may have."""
        for task in self.tasks.values():
            if not isinstance(task, Small) and task.sources[0].host == host:
                file = task.engine_file
                if file is not None and file.waiting_for == "host":
                    return True
        return False

    def task_ended(self, task: NativeTask | Small) -> None:
        """Forget a task that has ended."""
        if not isinstance(task, Small):
            task.drop_tried()
        super().task_ended(task)

    def are_whole(self, whole: Sequence[tuple[Small, DownloadResult]]) -> None:
        """Report small files that now have their names."""
        tasks = self.tasks
        told: list[tuple[Download, DownloadResult]] = []
        for small, result in whole:
            download = small.download
            if tasks.get(download.gid) is small:
                del tasks[download.gid]
            told.append((download, result))
        self.sizes.drop(*[download.gid for download, _ in told])
        if told:
            self.listener.completed_together(told)

    def _begin_all(self, downloads: Iterable[Download]) -> None:
        """Small files start together, since most of what they need is the same."""
        smalls: list[Small] = []
        for download in downloads:
            if download.is_small and not self.stopping and not download.options.wait_for_other:
                small = self.tasks[download.gid] = Small(self, download)
                if download.was_put_off and (size := download.size):  # the size of any other is not known yet
                    self.sizes.put(download.gid, size)
                download.waits = small.waits
                smalls.append(small)
            else:
                safely(self._begin, download)
        if smalls:
            self.begin_to_tick()
            self.preparing.prepare(smalls)

    def heard(self, url: str, options: DownloadOptions, *, ranged: bool) -> None:
        """Note that an origin has sent a whole small file."""
        origin = url[: url.find("/", 8)]
        if self._heard != origin:
            self._heard = origin
            self.network.heard(options.proxy or url)
            self.manners.answered(host_of(url), status=HTTPStatus.PARTIAL_CONTENT if ranged else HTTPStatus.OK)

    def task_instead(self, small: Small) -> None:
        """Have a task take over a download that is not small, or not plain."""
        download = small.download
        if self.tasks.get(download.gid) is not small:
            return
        task = self._made(download, small)
        self.tasks[download.gid] = task
        # Its figures stay those of the small file until the task has its own, or its bytes would vanish for a moment.
        download.waits = lambda: task.waiting_for
        guarded(task, self.tasks_changed, task)
        guarded(task, task.begin)

    def drops(self, small: Small) -> None:
        """Remember a small download that nobody wants, until the engine has let go of its file."""
        self._dropped.add(small)

    def dropped(self, small: Small) -> None:
        self._dropped.discard(small)

    def add_file(self, file: File) -> int:
        """Give the file to the loop that has its host, otherwise to the one with the fewest files.

        Returns the loop, for ``file_gone``.
        """
        loop = self._loads.begin(file.host, file.host_lanes)
        self.engine.add(file, loop)
        return loop

    def add_smalls(self, files: list[File]) -> list[int]:
        """Give small files from one host to loops. Returns the loop of each, for ``files_gone``."""
        loops = self._loads.begin_all(files[0].host, files[0].host_lanes, len(files))
        self.engine.add_all(files, loops)
        return loops

    @property
    def engine(self) -> Engine:
        assert self._engine is not None
        return self._engine

    def file_gone(self, file: File, loop: int) -> None:
        self.files_gone(file.host, loop, 1)

    def files_gone(self, host: int, loop: int, count: int) -> None:
        """Record that a loop has let go of ``count`` files of a host."""
        self._loads.end(host, loop, count)

    def profile(self, options: DownloadOptions, source: Source, *, head: bool = False) -> Profile:
        """The profile for these options, for HEAD or GET requests; equal settings share one profile."""
        wanted = profile_settings(options, source, head=head)
        profile = self._profiles.get(wanted)
        if profile is None:
            if len(self._profiles) >= _MOST_PROFILES:
                self._profiles.clear()
            profile = self._profiles[wanted] = make_profile(wanted, self._jar_for(wanted.private))
        return profile

    def _jar_for(self, private: Private) -> Jar:
        """The cookies set by servers, shared by downloads with the same headers and credentials."""
        with no_fork:
            from rangefetch._engine import Jar

        jar = self._jars.get(private)
        if jar is None:
            if len(self._jars) >= _MOST_PROFILES:
                del self._jars[next(iter(self._jars))]
            jar = self._jars.setdefault(private, Jar())
        return jar

    # -- the thread -------------------------------------------------------------------------------------------

    def wait(self, seconds: float | None) -> None:
        """Sleep for at most ``seconds``, then pass on the engine's events."""
        engine = self._engine
        assert engine is not None
        self._wait_for_ring(seconds)
        self.preparing.round_begins()
        whole: list[File] = []
        for fields in engine.events(whole):
            event = EngineEvent(*fields)
            owner = event.file.tag
            guarded(owner, owner.handle, event)
        if whole:
            safely(come_whole, self, whole)

    def tend(self, now_s: float) -> None:
        """Close unused directories; called periodically."""
        self.preparing.tend(now_s)


def _waiting_for(fd: int) -> Callable[[float | None], object]:
    """Returns a function that waits until ``fd`` is readable, for at most the given seconds (None: about a minute)."""
    if not (
        hasattr(select, "poll") and hasattr(select, "POLLIN")
    ):  # eventlet removes poll(), and its own select() lets other green threads run
        return lambda seconds: select.select([fd], [], [], 60.0 if seconds is None else seconds)
    poll = select.poll()
    poll.register(fd, getattr(select, "POLLIN", 1))
    # poll(2) takes whole milliseconds; waking slightly late is better than waking once too often.
    return lambda seconds: poll.poll(seconds * 1000 + 1 if seconds else 60_000 if seconds is None else 0)


def _task_class() -> type[NativeTask]:
    """Imported late: no small file needs these modules, and loading them takes as long as fetching a small file."""
    with no_fork:
        from rangefetch.native.task import NativeTask
    return NativeTask
