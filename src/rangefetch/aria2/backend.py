"""The aria2 backend: one thread that polls aria2 and drives the downloads.

Everything that happens to an ``Aria2Task`` happens on that thread, in order. It asks aria2 for the status of its
downloads a few times a second, and at once when aria2 sends a notification. Slow work (files, servers) is done by other
threads, which pass their results back to this one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from rangefetch.aria2.abilities import ARIA2
from rangefetch.aria2.client import RpcError
from rangefetch.aria2.config import DaemonConfig
from rangefetch.aria2.daemon import Aria2Daemon
from rangefetch.aria2.elsewhere import PausedElsewhere
from rangefetch.aria2.entry import STATUS_KEYS, Status
from rangefetch.aria2.file import FileTask
from rangefetch.aria2.folder import FolderTask
from rangefetch.aria2.landing import FolderLanding
from rangefetch.aria2.shares import Grants
from rangefetch.aria2.task import Aria2Task
from rangefetch.checks import is_metadata_url
from rangefetch.errors import DaemonUnavailable
from rangefetch.logs import log as _log
from rangefetch.net.certificates import find_ca_file
from rangefetch.net.jar import SessionCookies
from rangefetch.net.manners import Manners
from rangefetch.net.network import Network
from rangefetch.options import DownloadOptions
from rangefetch.transfer import leftovers
from rangefetch.transfer.backend import Listener
from rangefetch.transfer.dispatching import Dispatcher
from rangefetch.transfer.download import Download
from rangefetch.transfer.guarding import guarded, safely
from rangefetch.transfer.lifecycle import LET_GO_S
from rangefetch.transfer.retry import RetryPolicy
from rangefetch.transfer.workers import Workers

__all__ = ["Aria2Backend", "move_leftovers", "remove_leftovers"]

_ALL = 1 << 20
_MOST_JARS = 256
_LOOK_ELSEWHERE_S = 1.0  # how often to poll stand-ins, in case no notification comes

Credentials = tuple[object, ...]
"""Everything by which a server can tell one user from another."""

Trust = tuple[str, bool]
"""The CA file, and whether certificates are verified: aria2 has one such setting for all its downloads."""


class Aria2Backend(Dispatcher[Aria2Task]):
    """Runs downloads in a supervised aria2c.

    ``start`` raises a ``LocalError`` if no usable aria2c can be started. ``begin`` and ``halt`` may be called from any
    thread; the listener is told how each download ends. When aria2c dies for good, its downloads fail with
    ``DaemonUnavailable``, and their partial data is kept.

    aria2 has one certificate setting for all its downloads. Downloads whose setting differs from that of ``config``
    are run by another aria2c, which is started when the first of them arrives. Cookies that servers set on the way to
    a file are kept here, separately for each set of credentials; cookies that come with the file itself are kept by
    aria2 for as long as it runs.
    """

    name = "aria2"
    thread_name = "rangefetch-aria2"

    def __init__(
        self, listener: Listener, config: DaemonConfig | None = None, policy: RetryPolicy | None = None
    ) -> None:
        super().__init__(listener, policy or RetryPolicy())
        self.config = config or DaemonConfig()
        self.manners = Manners()
        self.network = Network(self.policy.network_hosts)
        self._jars: dict[Credentials, SessionCookies] = {}
        self.answered: set[int] = set()
        """The governor's numbers of the hosts that have answered since the backend was started."""
        self.grants: Grants[Aria2Task] = Grants(self)
        self._elsewhere = PausedElsewhere(listener.directed)
        self._looking_elsewhere = False
        self._wake = threading.Event()
        self._starting = threading.Lock()
        self._daemons: dict[Trust, Aria2Daemon] = {}
        self._loaded: set[str] = set()  # gids from the user's session file, for which there is no task here
        self._limit = 0

    # -- the interface ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        if self._thread is not None:
            return
        try:
            self._loaded = self._sort_out_session(self._start_daemon(self._own_trust))
        except BaseException:
            self._stop_daemons()
            raise
        workers = Workers("rangefetch-aria2-worker")
        workers.start()
        self.start_thread(workers)

    def stop(self) -> None:
        """Halt every download, wait until all of them are saved and released by aria2, and end aria2c."""
        if self._thread is None:
            return
        self.call(self.halt_all)
        self._thread.join(self.config.stop_timeout)
        try:
            if self._thread.is_alive():
                # aria2c did not release its downloads in time: end it first, so that they can finish.
                self._stop_daemons()
                self._wake.set()
                self._thread.join(LET_GO_S + self.config.stop_timeout)
            self.end_thread()
        finally:
            self._stop_daemons()
            self._daemons.clear()
            self._elsewhere.clear()
            self._looking_elsewhere = False

    def _stop_daemons(self) -> None:
        with contextlib.ExitStack() as each_at_any_rate:
            for daemon in list(self._daemons.values()):
                each_at_any_rate.callback(daemon.stop)

    def serves(self, url: str) -> bool:
        """Whether aria2 can fetch the URL: http, https, ftp, sftp (if built in), magnet (likewise), and ``file:`` for
        torrents and Metalinks."""
        daemon = self._daemons.get(self._own_trust)
        features = daemon.binary.features if daemon is not None and daemon.binary is not None else None
        scheme = urlsplit(url).scheme.lower()
        if features is not None and scheme in ("magnet", "sftp"):
            return {"magnet": "BitTorrent", "sftp": "SFTP"}[scheme] in features
        return scheme in ARIA2.schemes and (scheme != "file" or is_metadata_url(url))

    def has_notifications(self) -> bool:
        """Whether aria2 sends notifications over a WebSocket; otherwise it is only polled, four times a second."""
        return all(daemon.client.can_listen() for daemon in list(self._daemons.values()))

    def limit(self, bytes_per_s: int) -> None:
        """Limit the total speed of all downloads; 0 means no limit."""
        self._limit = bytes_per_s
        self.call(lambda: self._limit_all(self._daemons.values()))

    # -- for tasks ----------------------------------------------------------------------------------------------------

    def make_task(self, download: Download) -> Aria2Task:
        """Make the task that will run this download."""
        task = FolderTask(self, download) if is_metadata_url(download.url) else FileTask(self, download)
        if self._elsewhere.drop(download):
            task.entry.may_be_known()
        return task

    def tasks_changed(self, task: Aria2Task) -> None:
        """Divide a host's connections among the downloads from it."""
        host = task.host()
        if self.tasks.get(task.download.gid) is task:
            task.join_host()
        else:
            self.grants.leave(task)
        self._share_again(host)

    def shares_changed(self, host: int) -> None:
        """Another backend has started or ended downloads from this host."""
        self.call(lambda: self._share_again(host))

    def _share_again(self, host: int) -> None:
        for each in self.grants.unfair(host):
            guarded(each, each.share_again)

    def task_ended(self, task: Aria2Task) -> None:
        """The task is finished. If another program paused it, put a stand-in into aria2."""
        super().task_ended(task)
        if task.paused_elsewhere and task.entry.daemon is not None and not self.stopping:
            self._elsewhere.add(task.download, task.entry.daemon, task.paused_elsewhere)
            self._look_elsewhere()

    def ring(self) -> None:
        """Wake the backend's thread. May be called from any thread."""
        self._wake.set()

    def jar_for(self, options: DownloadOptions, authorization: str) -> SessionCookies:
        """The cookies shared by all downloads with the same credentials. Call it on the backend's thread."""
        known = (tuple(options.header_items), authorization, str(options.cookies), str(options.netrc))
        if known not in self._jars and len(self._jars) >= _MOST_JARS:
            self._jars.pop(next(iter(self._jars)))
        return self._jars.setdefault(known, SessionCookies())

    def daemon_for(self, options: DownloadOptions) -> Aria2Daemon:
        """The aria2c for a download with these options, started if necessary, which may take seconds.

        Raises a ``LocalError`` if it does not start.
        """
        verify_tls = options.verify_tls
        return self._start_daemon((find_ca_file(str(options.ca_file)) if verify_tls else "", verify_tls))

    # -- daemons ------------------------------------------------------------------------------------------------------

    @property
    def _own_trust(self) -> Trust:
        verify_tls = self.config.verify_tls
        return (find_ca_file(str(self.config.ca_file)) if verify_tls else "", verify_tls)

    def _start_daemon(self, trust: Trust) -> Aria2Daemon:
        with self._starting:
            if trust in self._daemons:
                return self._daemons[trust]
            config = self.config
            if trust != self._own_trust:
                config = dataclasses.replace(config, ca_file=trust[0], verify_tls=trust[1], session_file="")
            daemon = Aria2Daemon(
                config,
                on_restart=lambda: self.call(lambda: self._is_back(daemon)),
                on_death=lambda error: self.call(lambda: self._is_lost(daemon, error)),
            )
            daemon.start()
            daemon.client.listen(self._wake.set)
            self._limit_all([daemon])
            self._daemons[trust] = daemon
            return daemon

    @staticmethod
    def _sort_out_session(daemon: Aria2Daemon) -> set[str]:
        """Let the user's own downloads from the session file continue, and return their gids.

        Downloads of an earlier backend are removed: they resume from the files they have left, when they are asked for
        again.
        """
        loaded = set()
        calls: list[tuple[str, list[Any]]] = []
        for status in daemon.client.call("tellWaiting", 0, _ALL, ["gid", "dir", "files"]):
            gid, paths = status["gid"], [status["dir"], *(file["path"] for file in status["files"])]
            if any(path.endswith(".part") for path in paths):
                calls += [("forceRemove", [gid]), ("removeDownloadResult", [gid])]
            else:
                calls.append(("unpause", [gid]))
                loaded.add(gid)
        daemon.client.call_all(calls)
        return loaded

    def _limit_all(self, daemons: Iterable[Aria2Daemon]) -> None:
        for daemon in list(daemons):
            try:
                daemon.client.call("changeGlobalOption", {"max-overall-download-limit": str(self._limit)})
            except (DaemonUnavailable, RpcError) as error:
                _log.debug("the speed limit will be set once aria2c is back: %s", error)

    def _is_back(self, daemon: Aria2Daemon) -> None:
        """A restarted aria2c has loaded its session file, with everything paused: unpause what is still wanted, and
        remove the rest."""
        self._limit_all([daemon])
        try:
            known = _gids(daemon)
            wanted = self._loaded & known
            for task in self._tasks_of(daemon):
                if task.daemon_is_back(known):
                    wanted.update(task.entry.gids)
            calls: list[tuple[str, list[Any]]] = [("unpause", [gid]) for gid in wanted]
            for gid in known - wanted - self._elsewhere.gids_in(daemon):
                calls += [("forceRemove", [gid]), ("removeDownloadResult", [gid])]
            daemon.client.call_all(calls)
        except DaemonUnavailable as error:
            _log.debug("aria2c has stopped again: %s", error)  # this method runs again after the next restart

    def _is_lost(self, daemon: Aria2Daemon, error: DaemonUnavailable) -> None:
        for task in self._tasks_of(daemon):
            guarded(task, task.daemon_is_lost, error)

    def _tasks_of(self, daemon: Aria2Daemon) -> list[Aria2Task]:
        return [task for task in self.tasks.values() if task.entry.daemon is daemon]

    # -- the thread ---------------------------------------------------------------------------------------------------

    def wait(self, seconds: float | None) -> None:
        """Sleep until woken, at most ``seconds``, then poll aria2 for the status of its downloads."""
        self._wake.wait(seconds)
        self._wake.clear()
        for daemon in list(self._daemons.values()):
            safely(self._look_after, daemon)
        if self._elsewhere and not self.stopping:
            safely(self._elsewhere.look)

    def _look_elsewhere(self) -> None:
        """While there are downloads that other programs have paused, check regularly what those programs want."""
        if self._elsewhere and not self._looking_elsewhere:
            self._looking_elsewhere = True
            self._timers.later(_LOOK_ELSEWHERE_S, self._look_elsewhere_again)

    def _look_elsewhere_again(self) -> None:
        self._looking_elsewhere = False
        self._elsewhere.look()
        self._look_elsewhere()

    def _look_after(self, daemon: Aria2Daemon) -> None:
        """Ask aria2 for the status of its downloads, and pass it to their tasks."""
        tasks = [task for task in self._tasks_of(daemon) if task.is_in_aria2]
        if not tasks:
            return
        if daemon.hangs and any(task.is_leaving for task in tasks):
            # Do not keep a caller waiting who wants a download stopped. The others continue in the next aria2c.
            daemon.kill()
            return
        if not daemon.is_alive():
            for task in tasks:
                guarded(task, task.daemon_is_away)
            return
        try:
            statuses = _statuses(daemon, {gid for task in tasks for gid in task.entry.gids})
        except (DaemonUnavailable, RpcError) as error:
            _log.debug("cannot get the status of the downloads from aria2: %s", error)
            return
        for task in tasks:
            guarded(task, task.update, statuses)


def remove_leftovers(download: Download) -> None:
    """Delete the partial files of a download that is not running, whichever backend made them.

    Raises ``TargetLocked`` if the download is running, and ``DiskError``.
    """
    if download.has_begun and is_metadata_url(download.url):
        FolderLanding(download).clear()
    leftovers.remove(download)  # also for a torrent: it is a plain file unless it was followed


def move_leftovers(download: Download, options: DownloadOptions) -> None:
    """Move the partial files of a download that is not running to where a task with these options looks for them.

    Raises ``TargetLocked`` if the download is running, ``TargetExists`` if something else is there, and ``DiskError``.
    """
    if download.has_begun and is_metadata_url(download.url):
        FolderLanding(download).move(options)
    leftovers.move(download, options)


def _statuses(daemon: Aria2Daemon, gids: set[str]) -> Mapping[str, Status]:
    """The statuses of these downloads by gid; gids that aria2 does not know are missing."""
    if not gids:
        return {}
    found: dict[str, Status] = {status["gid"]: status for status in daemon.client.call("tellActive", STATUS_KEYS)}
    others = [gid for gid in gids if gid not in found]
    for answer in daemon.client.call_all([("tellStatus", [gid, STATUS_KEYS]) for gid in others]):
        if not isinstance(answer, RpcError):
            found[answer["gid"]] = answer
    return found


def _gids(daemon: Aria2Daemon) -> set[str]:
    """The gids of all downloads that are active or waiting in aria2."""
    waiting = daemon.client.call("tellWaiting", 0, _ALL, ["gid"])
    return {status["gid"] for status in [*daemon.client.call("tellActive", ["gid"]), *waiting]}
