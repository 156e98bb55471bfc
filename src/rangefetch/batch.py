"""Many downloads at a manager: which are asked for next, and how many at a time.

``fetch_many`` and ``fetch_iter`` derive from ``Batch``: what their items are, and what is done with what came of them,
is theirs.
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

_AHEAD = 256  # items that the manager is asked for before earlier ones have ended
_TOGETHER = 32  # that are asked for in one go
MOST_KEPT = 8192
"""Items of hosts that cannot be reached that are kept for the end, where more are still to be read."""
_STOPPED = frozenset({DownloadStatus.PAUSED, DownloadStatus.COMPLETE, DownloadStatus.ERROR, DownloadStatus.REMOVED})


class Turns:
    """Items that are still to be asked for, by number and host; the hosts take turns."""

    def __init__(self) -> None:
        self._by_host: dict[str, deque[int]] = {}
        self._turns: deque[str] = deque()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, number: int, host: str) -> None:
        """An item is to be asked for, after the others from its host."""
        numbers = self._by_host.get(host)
        if numbers is None:
            numbers = self._by_host[host] = deque()
            self._turns.append(host)
        numbers.append(number)
        self._count += 1

    def drop(self, host: str) -> list[int]:
        """Those of a host, which have no turn any more."""
        numbers = self._by_host.pop(host, None)
        if numbers is None:
            return []
        self._turns.remove(host)
        self._count -= len(numbers)
        return list(numbers)

    def take(self) -> int:
        """The next of them."""
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
    """How many items have ended, of how many (None: nobody knows yet), and whether that is all."""

    done: int
    known_count: int | None
    is_over: bool


class Batch(abc.ABC):
    """One call over many items. ``turns`` has those that are to be asked for, ``unreachable`` those of hosts that are
    set aside, ``most_kept`` of them at most; ``common`` are the options of all.
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
        self._not_tried: deque[int] = deque()  # items that end without having been asked for
        self._not_tried_at: Counter[str] = Counter()
        self._on_progress = on_progress
        self._asked: dict[str, tuple[int, Download]] = {}  # that have not ended, by gid
        self._moved: deque[Download] = deque()
        self._wake = threading.Event()
        self._bytes = 0  # of items that have ended
        self._meter = SpeedMeter()
        self._reports = ReportTimes()
        self._downloads: Downloads
        self._starts = 0  # of the manager: another number, and it was stopped
        self._most_asked = _AHEAD
        self.stopped_by: DiskError | None = None
        """Why no more is asked for: nothing can be written. What has failed with that is left as what was not tried."""

    # -- what derives from it says --------------------------------------------------------------------------------

    @abc.abstractmethod
    def wanted(self, number: int) -> Wanted:
        """An item."""

    @abc.abstractmethod
    def ended(self, number: int, outcome: DownloadResult | DownloadError) -> None:
        """What came of an item."""

    @abc.abstractmethod
    def standing(self) -> Standing:
        """How far it has come."""

    # -- at work --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def at_work_on(self, downloads: Downloads) -> Iterator[None]:
        """Items are asked for within. Where it is left by an exception, what is under way is stopped and saved, and
        what had ended by then is told."""
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
        """Stop what is under way, and save it; what had ended by then is told."""
        asked = list(self._asked.values())
        self._asked.clear()
        self._downloads.let_go(download for _, download in asked)
        for number, download in asked:
            if download.result is not None:
                self.ended(number, download.result)

    def not_tried(self, url: str = "") -> DiskFull:
        """What an item has failed with that was not tried, since nothing can be written; without a URL, the whole."""
        assert self.stopped_by is not None
        return as_full(self.stopped_by, url)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._asked

    def wake(self) -> None:
        """End the wait of ``look``; from any thread."""
        self._wake.set()

    def enter(self, number: int) -> None:
        """An item is to be asked for, in its turn."""
        wanted = self.wanted(number)
        if not self.unreachable.has(wanted.host) or self._has_mirrors(wanted):
            self.turns.add(number, wanted.host)
        elif not self.unreachable.keep(wanted.host, number):
            self._not_tried.append(number)

    def _has_mirrors(self, wanted: Wanted) -> bool:
        """Whether it may come from another host, too."""
        own, common = wanted.own or {}, self.common
        return bool(own.get("mirrors", common.mirrors) or own.get("use_github_mirror", common.use_github_mirror))

    def ask(self, *, is_all: bool = True) -> None:
        """Have the manager fetch the next items: as many as keep it busy, and no more, so that others have their turn
        as well. ``is_all``: no further items will be entered, but for those that wait for others to end."""
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
            # What waits for a host that does not answer keeps nobody busy.
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
                    # It was told before it was known.
                    self._has_stopped(download)

    def ask_early(self) -> None:
        """The same, where there are many to be asked for while others are still being read."""
        if len(self.turns) >= _TOGETHER and len(self._asked) < self._most_asked:
            self._ask_in_turn()

    def _has_stopped(self, download: Download) -> None:
        self._moved.append(download)
        if (len(self._moved) >= _TOGETHER or len(self._asked) <= _TOGETHER) and not self._wake.is_set():
            self._wake.set()

    def look(self, *, waits: bool = False) -> None:
        """Wait a little, see which downloads have ended, and report. ``waits``: for something else, too."""
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
            # A download that was paused hears nothing of a stop.
            self._must_go_on()
        if self._reports.is_due(time.monotonic()):
            self.report()

    def _must_go_on(self) -> None:
        """Raises ``Cancelled`` if the manager was stopped, even if it was started again."""
        if not self._downloads.is_started or self._downloads.starts != self._starts:
            raise Cancelled("the manager was stopped")

    def _end(self, number: int, download: Download) -> bool:
        """A download has stopped. Whether nothing more comes of it."""
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
        # Where no host has failed, one that serves shows nothing new.
        if (self.unreachable or isinstance(outcome, DownloadError)) and not self._has_mirrors(wanted):
            change = self.unreachable.note(wanted.host, outcome)
        self.ended(number, outcome)
        if change is not Change.NONE:
            self._host_changes(wanted.host, change, outcome)
        return True

    def _host_changes(self, host: str, change: Change, outcome: DownloadResult | DownloadError) -> None:
        """One cannot be reached, or answers again."""
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
        """The items from a host that the manager was asked for, and that have not begun."""
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
        at_work = [
            download.traffic() for _, download in self._asked.values() if download.status is DownloadStatus.ACTIVE
        ]
        standing = self.standing()
        downloaded = self._bytes + sum(each for each, _ in at_work)
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
            connections=sum(each for _, each in at_work),
        )
        self._on_progress(progress)
        self._reports.reported(now_s, time.monotonic())
