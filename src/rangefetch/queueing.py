"""The downloads of one manager: waiting, active and finished; everything that the manager's lock guards.

A download that only waits is kept as a ``Queued``; looking it up by its gid makes the ``Download``. The time of each
operation on one download does not depend on how many are waiting; operations on all take time for each.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import RLock
from typing import TYPE_CHECKING

from rangefetch import records
from rangefetch.errors import ChecksumMismatch, DiskError, DownloadError, LocalError
from rangefetch.importing import no_fork
from rangefetch.logs import log as _log
from rangefetch.masking import mask_url
from rangefetch.options import DownloadOptions
from rangefetch.progress import DownloadResult, DownloadStatus
from rangefetch.register import FINISHED, Register
from rangefetch.selection import BackendRouter
from rangefetch.transfer.backend import Growth
from rangefetch.transfer.download import Download, Entry
from rangefetch.transfer.governor import HostsOfOrigins
from rangefetch.transfer.line import Line
from rangefetch.transfer.places import Places
from rangefetch.transfer.space import Room

if TYPE_CHECKING:
    from rangefetch.transfer.robots import Robots

__all__ = ["Left", "Queue"]

_STOPPED = frozenset({DownloadStatus.PAUSED, DownloadStatus.ERROR})
_QUIET_S, _LONGEST_QUIET_S = 0.02, 0.25
_LEAST_LOOK_S = 0.005


@records.dataclass(frozen=True, slots=True)
class Left:
    """A download that was told to stop, and the state that it was in."""

    entry: Entry
    was: DownloadStatus


class Queue:
    """The downloads of a manager, and the ``Listener`` of its backends, whose threads refer to this object and thus do
    not keep the manager alive. Thread-safe.
    """

    def __init__(self, most_active: int, most_small: int, most_aside: int, most_finished: int) -> None:
        self.router: BackendRouter  # set by the creator
        self.is_started = False
        self.starts = 0
        """How often the manager was started."""
        self._lock = RLock()  # guards everything that follows; nothing that may block is done while it is held
        self.register = Register(most_finished)
        self._line = Line()
        self._places = Places(most_active, most_small, most_aside)
        self._room = Room()
        self._of_robots: set[str] = set()  # gids of downloads of robots.txt
        self._known_robots: Robots | None = None  # made for the first download with the ``robots`` option
        self._hosts = HostsOfOrigins()
        self._stops_since_s = 0.0  # since when nothing new starts, because more downloads may be stopped; 0: not now
        self._last_stop_s = 0.0
        self._looks_again_s = 0.0  # when downloads that wait for their host's next request slot are checked; 0: never

    def orphan(self) -> None:
        """In a forked child: replace the lock, which another thread of the parent may have held."""
        self._lock = RLock()
        self.is_started = False

    # -- looking up -------------------------------------------------------------------------------------------

    def find(self, gid: str) -> Download:
        """Return a download by its gid. Raises ``KeyError``."""
        with self._lock:
            return self.register.whole(self.register.find(gid))

    def peek(self, gid: str) -> Entry | None:
        """Return the entry as it is kept, or None if it is unknown or not a download of the user."""
        return self.register.entries.get(gid) if gid not in self._of_robots else None

    def entries(self) -> list[Entry]:
        """All downloads, in the order in which they were added."""
        with self._lock:
            if self._of_robots:
                return [entry for gid, entry in self.register.entries.items() if gid not in self._of_robots]
            return list(self.register.entries.values())

    def forget_all(self, downloads: Iterable[Download]) -> None:
        """Forget those of these downloads that have ended."""
        with self._lock:
            for download in downloads:
                if download.status in FINISHED and self.register.entries.get(download.gid) is download:
                    self.register.forget(download.gid)

    def forget(self, gid: str) -> bool:
        """Forget a download if it has ended, and return whether it has. Raises ``KeyError``."""
        with self._lock:
            if self.register.find(gid).status not in FINISHED:
                return False
            self.register.forget(gid)
            return True

    def collect(self, download: Download) -> None:
        """Note that the outcome of a download has been returned, so that it may be forgotten after some others."""
        with self._lock:
            self.register.collect(download)

    def passed_over(self, gids: Collection[str]) -> int:
        """How many of these do not keep the manager busy, because their host is passed over or they are aside."""
        with self._lock:
            return self._line.passed_over(gids) + self._places.count_aside(gids)

    # -- starting and stopping --------------------------------------------------------------------------------

    def start(self) -> None:
        """Start waiting downloads, now that the backend is running."""
        with self._lock:
            for gid in self._of_robots:  # cut short by the last stop
                self.register.forget(gid)
            self._of_robots.clear()
            self.is_started = True
            self.starts += 1
            self._stops_since_s = 0.0
            self._begin_next()

    def stop(self) -> None:
        """Pause the waiting downloads, because the backend is about to be stopped."""
        with self._lock:
            self.is_started = False
            waiting, self._line = [self.register.entries[gid] for gid in self._line], Line()
            for gid in self._known_robots.drop_all() if self._known_robots is not None else ():
                entry = self.register.entries.get(gid)
                if entry is not None and entry.status is DownloadStatus.WAITING and entry not in waiting:
                    waiting.append(entry)
            for entry in waiting:
                self._room.release(entry)
                entry.move(DownloadStatus.PAUSED, cut_short=True)

    @contextmanager
    def running(self, start: Callable[[], None]) -> Iterator[None]:
        """A context in which the manager is started (by ``start``, if it is not yet) and the lock is held."""
        while True:
            start()
            with self._lock:
                if self.is_started:  # it was not stopped in between
                    yield
                    return

    # -- into the queue ---------------------------------------------------------------------------------------

    def claim_room(self, entries: Iterable[Entry]) -> dict[str, DiskError]:
        """Reserve the disk space that downloads still need. Returns an error, by gid, for each that does not fit. Asks
        the file system, so it must not be called with the lock held.
        """
        return self._room.claim(entries, self._downloads_at_work)

    def release_room(self, entry: Entry) -> None:
        """Release the reserved space of a download that will not wait after all."""
        self._room.release(entry)

    def add(self, entries: Iterable[Entry], refused: dict[str, DiskError]) -> None:
        """Add new downloads, which wait for their turn. The lock must be held (``running``)."""
        for entry in entries:
            self.register.entries[entry.gid] = entry
            if refused:
                self._put_in_line(entry, refused.get(entry.gid))
            else:
                self._enter(entry)
            if self.register.note is not None:
                self.register.note(entry.gid)
        self._begin_next()

    def add_stream(self, download: Download) -> None:
        """Start a stream at once. It must not wait for a place, since streams last as long as their readers like, and a
        reader may be waiting for another stream. The lock must be held (``running``).
        """
        self.register.entries[download.gid] = download
        if download.options.robots and self.router.can_stream:
            rules = self._robots.rules_for(download.url)
            if rules is None:
                self._robots.wait(download.url, download.options, download.gid, stream=True)
                self._fetch_robots()
                return
            if refusal := rules.refusal(download.url, download.options):
                self._refuse(download, refusal)
                return
            download.options = rules.slowed(download.options)
        self._take_place(download, stream=True)
        self._begin([download])

    def take_in(self, entries: Iterable[Entry]) -> None:
        """Add downloads that an earlier manager left in the session."""
        with self._lock:
            for entry in entries:
                if entry.gid not in self.register.entries:
                    self.register.entries[entry.gid] = entry
                    if entry.status is DownloadStatus.WAITING:
                        self._enter(entry)

    def queue_again(self, entries: Iterable[Entry], was: DownloadStatus, refused: dict[str, DiskError]) -> None:
        """Put the downloads that are in the state ``was`` back into the queue. The lock must be held (``running``)."""
        for each in entries:
            entry = self.register.entries.get(each.gid, each)  # a Queued may have become a Download meanwhile
            if (
                isinstance(entry, Download)
                and entry.status is DownloadStatus.ACTIVE
                and entry.intent is DownloadStatus.PAUSED
            ):
                # It is still being paused; it will wait again once that is done.
                entry.intent = DownloadStatus.WAITING
            elif entry.status is was:
                self.register.go_on(entry.gid)
                entry.move(DownloadStatus.WAITING)
                self._put_in_line(entry, refused.get(entry.gid))
            else:
                self._room.release(entry)
            if self.register.note is not None:
                self.register.note(entry.gid)
        self._begin_next()

    def _enter(self, entry: Entry, *, late: bool = False, number: int = 0) -> None:
        """Have a download wait for its turn."""
        if entry.options.robots and (rules := self._robots.rules_for(entry.url)) is not None:
            entry.options = rules.slowed(entry.options)
        spaced = bool(entry.options.host_rate)
        self._line.add(entry.gid, self._hosts.of(entry.url, entry.options), late=late, spaced=spaced, number=number)

    def _put_in_line(self, entry: Entry, no_room: DiskError | None) -> None:
        """Have a download wait, or fail it if there is no room for it."""
        if no_room is not None:
            self._refuse(entry, no_room)
        else:
            self._enter(entry)

    # -- out of the queue -------------------------------------------------------------------------------------

    def direct(
        self, status: DownloadStatus, *, among: Iterable[Entry] | None = None, remove_files: bool = False
    ) -> list[Left]:
        """Note that some downloads, or all, are to be paused or removed. Inactive ones change their state at once.
        Returns those that were not paused or removed already.
        """
        with self._lock:
            if among is None:
                asked = list(self.register.entries.values())
            else:
                asked = [self.register.entries.get(each.gid, each) for each in among]
            if self._stops_since_s:
                self._last_stop_s = time.monotonic()
            return [
                Left(entry, was)
                for entry in asked
                if (was := self._direct(entry, status, remove_files=remove_files)) is not None
            ]

    def _direct(self, entry: Entry, status: DownloadStatus, *, remove_files: bool) -> DownloadStatus | None:
        was = entry.status
        if was is DownloadStatus.ACTIVE:
            assert isinstance(entry, Download)
            entry.want(status, remove_files=remove_files)
        elif was is DownloadStatus.WAITING:
            self._line.discard(entry.gid)
            self._room.release(entry)
            entry.move(status)
        elif status is DownloadStatus.REMOVED and was in _STOPPED:
            entry.move(status)
        else:
            return None
        if was is not DownloadStatus.ACTIVE:
            self._has_ended(entry.gid, status)
        if self.register.note is not None:
            self.register.note(entry.gid)
        return was

    def change(
        self, download: Download, before: DownloadOptions, options: DownloadOptions, *, elsewhere: bool
    ) -> bool | None:
        """Set the options of a download, which were ``before``; returns whether it is active. None, and nothing is
        set, if another thread has changed them meanwhile. Raises ``ValueError`` if its path was to change
        (``elsewhere``) and it has started meanwhile.
        """
        with self._lock:
            if download.options is not before:
                return None
            if elsewhere and download.status is DownloadStatus.ACTIVE:
                raise ValueError(f"{download.gid}: it has started in the meantime; pause it first")
            download.options = options
            download.filename = options.filename or download.filename
            if self.register.note is not None:
                self.register.note(download.gid)
            return download.gid in self._places

    # -- called by the backends -------------------------------------------------------------------------------

    def completed(self, download: Download, result: DownloadResult) -> None:
        self.completed_together([(download, result)])

    def completed_together(self, whole: Sequence[tuple[Download, DownloadResult]]) -> None:
        try:
            with self._lock:
                if self._line.has_late_hosts:
                    for download, _ in whole:
                        self._line.is_back(self._hosts.of(download.url, download.options))
                gids = [download.gid for download, _ in whole]
                self._places.leave(*gids)
                self.register.have_finished(gids)
                self._begin_next()
        finally:
            complete = DownloadStatus.COMPLETE
            for download, result in whole:
                try:
                    download.move(complete, result=result)
                except BaseException:  # the other downloads must still be notified
                    _log.exception("%s: internal error", download.gid)
                if self.register.note is not None:
                    self.register.note(download.gid)

    def failed(self, download: Download, error: DownloadError) -> None:
        if isinstance(error, ChecksumMismatch) and error.kept is not None:
            download.kept_aside = error.kept
        if download.intent is DownloadStatus.REMOVED:
            self._ended(download, DownloadStatus.REMOVED)
        else:
            self._ended(download, DownloadStatus.ERROR, error=error)

    def halted(self, download: Download) -> None:
        with self._lock:
            intent, goes_on = download.intent, self.is_started
        if intent is DownloadStatus.REMOVED:
            self._ended(download, intent)
            return
        goes_on = goes_on and intent is DownloadStatus.WAITING
        # A pause that nobody requested means that the manager was stopped.
        self._ended(download, DownloadStatus.PAUSED, cut_short=intent is not DownloadStatus.PAUSED and not goes_on)
        if goes_on:
            self._wait_again(download)

    def _ended(
        self,
        download: Download,
        status: DownloadStatus,
        *,
        error: DownloadError | None = None,
        cut_short: bool = False,
    ) -> None:
        was_told = download.intent in (DownloadStatus.PAUSED, DownloadStatus.REMOVED)
        try:
            with self._lock:
                self._places.leave(download.gid)
                self._has_ended(download.gid, status)
                if was_told:
                    self._begin_later()
                else:
                    self._begin_next()
        finally:
            # Those who wait for the download must be notified, whatever else went wrong.
            download.move(status, error=error, cut_short=cut_short)
            if self.register.note is not None:
                self.register.note(download.gid)

    def _wait_again(self, download: Download) -> None:
        """Put a halted download back into the line. Runs on the backend's thread, so it asks no file system."""
        with self._lock:
            if download.status is DownloadStatus.PAUSED:
                download.move(DownloadStatus.WAITING)
                late = download.was_put_off and not download.turn
                self._enter(download, late=late, number=download.turn)
                self._begin_next()
                if self.register.note is not None:
                    self.register.note(download.gid)

    def steps_aside(self, download: Download) -> bool:
        with self._lock:
            is_aside = self._places.step_aside(download.gid)
            if is_aside:
                self._begin_next()
            return is_aside

    def comes_back(self, download: Download) -> bool:
        with self._lock:
            return self._places.come_back(download.gid)

    def directed(self, download: Download, status: DownloadStatus) -> None:
        if status is DownloadStatus.WAITING:
            self._wait_again(download)
        else:
            for left in self.direct(status, among=[download]):
                self.let_go(left)

    def let_go(self, left: Left) -> None:
        """Have the backend halt a download that was told to stop while it was active."""
        if left.was is DownloadStatus.ACTIVE:
            assert isinstance(left.entry, Download)
            self.router.halt(left.entry)

    def grows(self, download: Download, *, answered: bool) -> Growth:
        with self._lock:
            if download.intent is not None or self._places.grow(download.gid):
                return Growth.NOW
            if answered:
                self._places.wait_to_return(download.gid)
                return Growth.SOON
            # There was no good answer yet, and retrying may take long: let others go first.
            download.was_put_off = True
            download.turn = 0
            download.intent = DownloadStatus.WAITING
            return Growth.LATER

    def makes_way(self, download: Download) -> bool:
        with self._lock:
            if download.intent is not None:
                return False
            download.intent = DownloadStatus.WAITING
            return True

    def puts_off(self, download: Download, rest_s: float = 0.0) -> bool:
        with self._lock:
            host, now_s = self._hosts.of(download.url, download.options), time.monotonic()
            may_wait = download.gid in self._places and download.intent is None
            if not may_wait or (download.was_put_off and not rest_s) or not self._line.has_another(host, now_s):
                return False
            if rest_s:
                self._line.rest(host, now_s + rest_s)
            else:
                self._line.put_off(host)
                download.was_put_off = True
                download.turn = 0
            download.intent = DownloadStatus.WAITING
            return True

    # -- internals; the lock must be held ---------------------------------------------------------------------

    def _begin_next(self) -> None:
        """Start waiting downloads while there is room."""
        while (gid := self._places.return_next()) is not None:
            self.router.go_on(self.register.whole(self.register.entries[gid]))
        begun: list[Download] = []
        now_s = time.monotonic()
        is_blocked = False
        while self.is_started and not is_blocked and not self._places.is_full():
            gids = self._line.next_few(now_s, self._places.free)
            if not gids:
                self._look_again_at_spaced(now_s)
                break
            for gid in gids:
                entry = self.register.entries[gid]
                options = entry.options
                if options.robots and self.router.can_stream and not self._may_fetch(entry):
                    break  # the line has changed
                is_small = self.router.takes_as_small(entry)
                if not is_small and not self._places.has_one_for_any():
                    is_blocked = True
                    break
                download = entry if isinstance(entry, Download) else self.register.whole(entry)
                download.is_small = is_small
                download.turn, is_late = self._line.take(gid)
                if is_late:
                    download.was_put_off = True
                if options.host_rate:
                    self._line.begins(self._hosts.of(download.url, options), options.request_every_us / 1e6, now_s)
                self._take_place(download)
                begun.append(download)
        if begun:
            self._begin(begun)

    def _look_again_at_spaced(self, now_s: float) -> None:
        """Schedule another look at the time when the next host may be sent a request again."""
        at_s = self._line.looks_again_s
        if at_s and not now_s < self._looks_again_s <= at_s:
            self._looks_again_s = at_s
            self.router.later(max(at_s - now_s, _LEAST_LOOK_S), self._look_at_spaced)

    def _look_at_spaced(self) -> None:
        with self._lock:
            self._looks_again_s = 0.0
            self._begin_next()

    @property
    def _robots(self) -> Robots:
        if self._known_robots is None:
            with no_fork:
                from rangefetch.transfer.robots import Robots

            self._known_robots = Robots()
        return self._known_robots

    def _may_fetch(self, entry: Entry) -> bool:
        """Whether robots.txt allows an entry whose turn it is. If it does not, the entry fails; if robots.txt is not
        known yet, the entry waits for it.
        """
        rules = self._robots.rules_for(entry.url)
        if rules is None:
            late = self._line.is_late(entry.gid)
            self._robots.wait(entry.url, entry.options, entry.gid, number=self._line.discard(entry.gid), late=late)
            self._fetch_robots()
            return False
        if refusal := rules.refusal(entry.url, entry.options):
            self._line.discard(entry.gid)
            self._refuse(entry, refusal)
            return False
        return True

    def _refuse(self, entry: Entry, refusal: DownloadError) -> None:
        """Fail a download before anything was requested."""
        self._room.release(entry)
        self._has_ended(entry.gid, DownloadStatus.ERROR)
        self.register.whole(entry).move(DownloadStatus.ERROR, error=refusal)
        if self.register.note is not None:
            self.register.note(entry.gid)

    def _fetch_robots(self) -> None:
        """Fetch the robots.txt files that downloads wait for, a few at a time."""
        while self.is_started and (found := self._robots.next_to_fetch()) is not None:
            origin, download = found
            self._of_robots.add(download.gid)
            download.watch(functools.partial(self._robots_move, origin))
            self.register.entries[download.gid] = download
            if download.status is DownloadStatus.ERROR:
                self._robots_move(origin, download)
                continue
            self._take_place(download, stream=True)
            self._begin([download])

    def _robots_move(self, origin: str, download: Download) -> None:
        """Called on any thread when a download of robots.txt changes its state; must not block."""
        if download.status in FINISHED or download.status is DownloadStatus.PAUSED:
            self.router.later(0.0, lambda: self._robots_have_come(origin, download))

    def _robots_have_come(self, origin: str, download: Download) -> None:
        with self._lock:
            if self.register.entries.get(download.gid) is not download:
                return
            self.register.forget(download.gid)
            self._of_robots.discard(download.gid)
            waiting = self._robots.has_come(origin, download)
            rules = self._robots.rules_of(origin)
            for gid, number, late, stream in waiting:
                entry = self.register.entries.get(gid)
                if entry is None or entry.status is not DownloadStatus.WAITING or gid in self._line:
                    continue
                if refusal := rules.refusal(entry.url, entry.options):
                    self._refuse(entry, refusal)
                elif stream:
                    whole = self.register.whole(entry)
                    whole.options = rules.slowed(whole.options)
                    self._take_place(whole, stream=True)
                    self._begin([whole])
                else:
                    self._enter(entry, late=late, number=number)
            self._fetch_robots()
            self._begin_next()

    def _take_place(self, download: Download, *, stream: bool = False) -> None:
        if self._room.claims:
            self._room.release(download)
        self._places.take(download.gid, small=download.is_small, stream=stream)
        download.move(DownloadStatus.ACTIVE)
        if self.register.note is not None:
            self.register.note(download.gid)

    def _begin(self, downloads: list[Download]) -> None:
        try:
            self.router.begin(*downloads)
        except Exception as error:
            _log.exception("internal error")
            for download in downloads:
                self._places.leave(download.gid)
                self._has_ended(download.gid, DownloadStatus.ERROR)
                words = f"internal error: {error!r}"
                download.move(DownloadStatus.ERROR, error=LocalError(words, url=mask_url(download.url)))

    def _begin_later(self) -> None:
        """Delay starting the next downloads briefly: whoever stopped one may be about to stop those as well."""
        self._last_stop_s = time.monotonic()
        if not self._stops_since_s:
            self._stops_since_s = self._last_stop_s
            self._look_again_whether_stops_go_on()

    def _look_whether_stops_go_on(self) -> None:
        with self._lock:
            now_s = time.monotonic()
            if now_s - self._last_stop_s < _QUIET_S and now_s - self._stops_since_s < _LONGEST_QUIET_S:
                self._look_again_whether_stops_go_on()
            else:
                self._stops_since_s = 0.0
                self._begin_next()

    def _look_again_whether_stops_go_on(self) -> None:
        if not self.router.later(_QUIET_S, self._look_whether_stops_go_on):
            self._stops_since_s = 0.0
            self._begin_next()

    def _has_ended(self, gid: str, status: DownloadStatus) -> None:
        """Remember a download that has finished until its outcome is collected."""
        if status in FINISHED:
            self.register.have_finished([gid])

    def _downloads_at_work(self) -> list[Download]:
        with self._lock:
            entries = [self.register.entries.get(gid) for gid in self._places]
        return [entry for entry in entries if isinstance(entry, Download)]
