"""Submits the downloads of one call to a manager: which come next, and how many at a time.

``fetch_many`` and ``fetch_iter`` have subclasses of ``Batch`` that supply the items and receive their outcomes.
"""

from __future__ import annotations

import abc
import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from rangefetch.downloads import Downloads
from rangefetch.errors import Cancelled, DiskError, DiskFull, DownloadError
from rangefetch.items import Wanted
from rangefetch.logs import log as _log
from rangefetch.masking import mask_url
from rangefetch.options import DownloadOptions
from rangefetch.progress import (
    REPORT_EVERY_S,
    DownloadProgress,
    DownloadResult,
    DownloadStatus,
    ReportTimes,
    SpeedMeter,
)
from rangefetch.transfer.download import Download
from rangefetch.transfer.space import as_full, is_full
from rangefetch.unreachable import FAILURES_IN_A_ROW, Change, Unreachable

__all__ = ["MOST_KEPT", "Batch", "Standing", "Turns"]

_AHEAD = 256  # submitted items that may be unfinished at a time; more if many downloads may be active
_TOGETHER = 32  # items submitted in one go
MOST_KEPT = 8192
"""How many items of unreachable hosts are kept for the end while there are still more items to read."""
_STOPPED = frozenset({DownloadStatus.PAUSED, DownloadStatus.COMPLETE, DownloadStatus.ERROR, DownloadStatus.REMOVED})


class Turns:
    """Items that are still to be submitted, by number and host. The hosts take turns."""

    def __init__(self) -> None:
        self._by_host: dict[str, deque[int]] = {}
        self._turns: deque[str] = deque()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, number: int, host: str) -> None:
        """Queue an item, behind the others from its host."""
        numbers = self._by_host.get(host)
        if numbers is None:
            numbers = self._by_host[host] = deque()
            self._turns.append(host)
        numbers.append(number)
        self._count += 1

    def drop(self, host: str) -> list[int]:
        """Remove all items of a host and return them."""
        numbers = self._by_host.pop(host, None)
        if numbers is None:
            return []
        self._turns.remove(host)
        self._count -= len(numbers)
        return list(numbers)

    def take(self) -> int:
        """Remove the next item and return it."""
        host = self._turns.popleft()
        numbers = self._by_host[host]
        number = numbers.popleft()
        if numbers:
            self._turns.append(host)
        else:
            del self._by_host[host]
        self._count -= 1
        return number


class Standing(NamedTuple):
    """How many items have ended, how many there are (None: not known yet), and whether all have ended."""

    done: int
    known_count: int | None
    is_over: bool


class Batch(abc.ABC):
    """One call over many items. ``turns`` holds the items still to be submitted, and ``unreachable`` at most
    ``most_kept`` items of hosts that are set aside. ``common`` are the options that all items share.
    """

    def __init__(
        self,
        common: DownloadOptions,
        on_progress: Callable[[DownloadProgress], object] | None,
        most_kept: int | None = None,
    ) -> None:
        self.common = common
        self.turns = Turns()
        self.unreachable = Unreachable(most_kept)
        self._not_tried: deque[int] = deque()  # items that are to fail without being submitted
        self._not_tried_at: Counter[str] = Counter()
        self._on_progress = on_progress
        self._asked: dict[str, tuple[int, Download]] = {}  # submitted and not ended, by gid
        self._moved: deque[Download] = deque()
        self._wake = threading.Event()
        self._bytes = 0  # the bytes of items that have ended
        self._meter = SpeedMeter()
        self._reports = ReportTimes()
        self._downloads: Downloads
        self._starts = 0  # the manager's count of starts; if it differs later, the manager was stopped
        self._most_asked = _AHEAD
        self.stopped_by: DiskError | None = None
        """The error because of which nothing more is submitted: the disk is full. Items that failed with it are treated
        like those that were not tried.
        """

    # -- supplied by subclasses -----------------------------------------------------------------------------------

    @abc.abstractmethod
    def wanted(self, number: int) -> Wanted:
        """Return an item."""

    @abc.abstractmethod
    def ended(self, number: int, outcome: DownloadResult | DownloadError) -> None:
        """Receive the outcome of an item."""

    @abc.abstractmethod
    def standing(self) -> Standing:
        """Return how many items have ended."""

    # -- submitting and following downloads -----------------------------------------------------------------------

    @contextlib.contextmanager
    def at_work_on(self, downloads: Downloads) -> Iterator[None]:
        """A context in which items may be submitted. An exception that leaves it stops and saves the active downloads
        and reports those that had ended by then.
        """
        self._downloads = downloads
        downloads.start()
        self._starts = downloads.starts
        self._most_asked = max(_AHEAD, 4 * downloads.most_active)
        try:
            yield
        except BaseException:
            self.break_off()
            raise

    def break_off(self) -> None:
        """Stop the active downloads and save their states. Those that had ended by then are reported."""
        asked = list(self._asked.values())
        self._asked.clear()
        self._downloads.let_go(download for _, download in asked)
        for number, download in asked:
            if download.result is not None:
                self.ended(number, download.result)

    def not_tried(self, url: str = "") -> DiskFull:
        """The error of an item that was not tried because the disk is full; without a URL, that of the whole call."""
        assert self.stopped_by is not None
        return as_full(self.stopped_by, url)

    @property
    def is_idle(self) -> bool:
        """Whether no submitted item is unfinished."""
        return not self._asked

    def wake(self) -> None:
        """End the wait in ``look``. May be called from any thread."""
        self._wake.set()

    def enter(self, number: int) -> None:
        """Queue an item to be submitted in its turn."""
        wanted = self.wanted(number)
        if not self.unreachable.has(wanted.host) or self._has_mirrors(wanted):
            self.turns.add(number, wanted.host)
        elif not self.unreachable.keep(wanted.host, number):
            self._not_tried.append(number)

    def _has_mirrors(self, wanted: Wanted) -> bool:
        """Whether an item may also come from another host."""
        own, common = wanted.own or {}, self.common
        return bool(own.get("mirrors", common.mirrors) or own.get("use_github_mirror", common.use_github_mirror))

    def ask(self, *, is_all: bool = True) -> None:
        """Submit the next items: as many as keep the manager busy, but no more, so that other calls get their turn as
        well. ``is_all``: no further items will be entered, except those that wait for others to end.
        """
        self._ask_in_turn()
        self._end_not_tried()
        if is_all and not self._asked and not self.turns and self.unreachable.kept_count:
            for number in self.unreachable.try_again():
                self.turns.add(number, self.wanted(number).host)
            self._ask_in_turn()

    def _end_not_tried(self) -> None:
        while self._not_tried:
            number = self._not_tried.popleft()
            wanted = self.wanted(number)
            self._not_tried_at[wanted.host] += 1
            self.ended(number, self.unreachable.error(wanted.host, mask_url(wanted.url)))

    def _ask_in_turn(self) -> None:
        most = self._most_asked
        if self.turns:
            # Items that wait for a host that does not answer do not keep the manager busy.
            most += self._downloads.passed_over(self._asked)
        while self.turns and len(self._asked) < most:
            numbers = [self.turns.take() for _ in range(min(len(self.turns), most - len(self._asked), _TOGETHER))]
            wanted = [self.wanted(number) for number in numbers]
            common = self.common
            items = [(each.url, each.options(common) if each.own else common) for each in wanted]
            downloads = self._downloads.submit_all(items, self._starts, self._has_stopped)
            for number, download in zip(numbers, downloads, strict=True):
                self._asked[download.gid] = (number, download)
                if download.status in _STOPPED:
                    # It stopped before it was in self._asked.
                    self._has_stopped(download)

    def ask_early(self) -> None:
        """Submit items while others are still being read, if enough are queued to make it worthwhile."""
        if len(self.turns) >= _TOGETHER and len(self._asked) < self._most_asked:
            self._ask_in_turn()

    def _has_stopped(self, download: Download) -> None:
        self._moved.append(download)
        if (len(self._moved) >= _TOGETHER or len(self._asked) <= _TOGETHER) and not self._wake.is_set():
            self._wake.set()

    def look(self, *, waits: bool = False) -> None:
        """Wait briefly, handle the downloads that have ended, and report progress. ``waits``: wait even if no download
        is unfinished, for ``wake``.
        """
        if self._asked or waits:
            self._wake.wait(REPORT_EVERY_S)
        self._wake.clear()
        over = []
        while self._moved:
            download = self._moved.popleft()
            number, _ = self._asked.get(download.gid, (None, None))
            if number is not None and self._end(number, download):
                over.append(download)
        self._downloads.forget(*over)
        if self._asked:
            # A paused download is not notified when the manager stops.
            self._must_go_on()
        if self._reports.is_due(time.monotonic()):
            self.report()

    def _must_go_on(self) -> None:
        """Raise ``Cancelled`` if the manager was stopped, even if it was started again."""
        if not self._downloads.is_started or self._downloads.starts != self._starts:
            raise Cancelled("the manager was stopped")

    def _end(self, number: int, download: Download) -> bool:
        """Handle a download that has stopped. Returns whether it has ended, rather than being paused."""
        outcome: DownloadResult | DownloadError | None = download.result
        if outcome is None:
            try:
                outcome = self._downloads.wait_for(download, 0)
            except DownloadError as error:
                if isinstance(error, Cancelled):
                    self._must_go_on()
                outcome = error
            except TimeoutError:
                return False
        del self._asked[download.gid]
        if isinstance(outcome, DownloadError) and is_full(outcome, download.options.save_dir):
            self.stopped_by = self.stopped_by or outcome
            return True
        self._bytes += outcome.size if isinstance(outcome, DownloadResult) else download.progress().downloaded
        wanted = self.wanted(number)
        change = Change.NONE
        # While no host has failed, a success changes nothing.
        if (self.unreachable or isinstance(outcome, DownloadError)) and not self._has_mirrors(wanted):
            change = self.unreachable.note(wanted.host, outcome)
        self.ended(number, outcome)
        if change is not Change.NONE:
            self._host_changes(wanted.host, change, outcome)
        return True

    def _host_changes(self, host: str, change: Change, outcome: DownloadResult | DownloadError) -> None:
        """Handle a host that is set aside, answers again, or is given up."""
        shown = host.partition("://")[2] or host
        reason = outcome.reason if isinstance(outcome, DownloadError) else ""
        if change is Change.SET_ASIDE:
            count = FAILURES_IN_A_ROW
            _log.warning("%s: %d downloads in a row have failed (%s); its other files come last", shown, count, reason)
            for number in self.turns.drop(host) + self._taken_back(host):
                self.enter(number)
        elif change is Change.BACK:
            _log.info("%s answers again", shown)
            for number in self.unreachable.release(host):
                self.turns.add(number, host)
        else:
            self._not_tried += self.unreachable.release(host)
            self._end_not_tried()
            count = self._not_tried_at[host]
            _log.info("%s: it still fails (%s); %d of its files were not tried", shown, reason, count)

    def _taken_back(self, host: str) -> list[int]:
        """Take back the submitted items of a host that have not started, and return them."""
        waiting = [
            (number, download)
            for number, download in self._asked.values()
            if download.status is DownloadStatus.WAITING and self.wanted(number).host == host
        ]
        for _, download in waiting:
            del self._asked[download.gid]
        self._downloads.let_go(download for _, download in waiting)
        back: list[int] = []
        for number, download in waiting:
            if download.result is not None:
                self.ended(number, download.result)
            else:
                back.append(number)
        return back

    def report(self) -> None:
        """Call ``on_progress``."""
        if self._on_progress is None:
            return
        now_s = time.monotonic()
        # Those that wait or have just ended, too, or their bytes would vanish for a moment.
        traffic = [download.traffic() for _, download in self._asked.values()]
        standing = self.standing()
        downloaded = self._bytes + sum(each for each, _ in traffic)
        self._meter.sample(now_s, downloaded)
        of, percentage = "", 0.0
        if standing.known_count is not None:
            of = f" of {standing.known_count}"
            percentage = 100.0 * standing.done / standing.known_count if standing.known_count else 100.0
        progress = DownloadProgress(
            gid="",
            downloaded=downloaded,
            total=0,
            speed=0.0 if standing.is_over else self._meter.speed(),
            percentage=percentage,
            eta=None,
            filename=f"{standing.done}{of} files",
            status=DownloadStatus.COMPLETE if standing.is_over else DownloadStatus.ACTIVE,
            connections=sum(each for _, each in traffic),
        )
        self._on_progress(progress)
        self._reports.reported(now_s, time.monotonic())
