"""Fetches a list of files, perhaps a very long one, while reading it, and shows its overall progress."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from rangefetch.cli.arguments import USAGE_ERROR, Request
from rangefetch.cli.display import Quiet, amount, counted, how_many
from rangefetch.cli.lists import Listing
from rangefetch.cli.report import Report
from rangefetch.cli.signals import SIGNALLED, Signals
from rangefetch.errors import DiskFull, DownloadError, HostUnreachable, TargetExists
from rangefetch.iterating import WINDOW, Fetched, fetch_from
from rangefetch.manager import DownloadManager
from rangefetch.manifests.opening import ManifestError
from rangefetch.progress import DownloadProgress, DownloadStatus

if TYPE_CHECKING:
    from rangefetch.running import Run
    from rangefetch.shards import Shards

__all__ = ["fetch_list"]

FAILED = 1
SECONDS_BETWEEN_LOOKS = 0.2


def fetch_list(manager: DownloadManager, request: Request, display: Quiet, report: Report, signals: Signals) -> int:
    """Fetch the whole list on ``manager``, which must be the process's one, report each item, and return the exit
    status.
    """
    try:
        with contextlib.closing(Listing(request, display)) as listing:
            if request.ledger:
                return _fetch_in_run(manager, request, listing, display, report, signals)
            return _List(manager, request, listing, None, display, report, signals).fetch()
    except (ManifestError, ValueError) as error:
        display.error(f"-i/--input-file: {error}")
        return USAGE_ERROR


def _fetch_in_run(
    manager: DownloadManager,
    request: Request,
    listing: Listing,
    display: Quiet,
    report: Report,
    signals: Signals,
) -> int:
    from rangefetch.ledger import LedgerError, LedgerLost
    from rangefetch.running import Run

    try:
        with Run(
            request.ledger,
            verify=request.verify,
            retry_failed=request.retry_failed,
            list_id=listing.identify(),
            shards=_shards(request),
        ) as run:
            return _List(manager, request, listing, run, display, report, signals).fetch()
    except LedgerLost as error:
        display.error(f"--run: {error}; stopped; run the same command again once the ledger can be written")
        return FAILED
    except LedgerError as error:
        display.error(f"--run: {error}")
        return USAGE_ERROR


def _shards(request: Request) -> Shards | None:
    from rangefetch.shards import Shards

    if not request.into_tar:
        return None
    return Shards(request.into_tar, **request.tar_limits, describes=request.tar_json)


class _List:
    """Fetches one list: counts outcomes, reports them and shows progress."""

    def __init__(
        self,
        manager: DownloadManager,
        request: Request,
        listing: Listing,
        run: Run | None,
        display: Quiet,
        report: Report,
        signals: Signals,
    ) -> None:
        self._manager = manager
        self._request = request
        self._listing = listing
        self._run = run
        self._display = display
        self._report = report
        self._signals = signals
        self._fetched = self._already = self._failed = 0
        self._not_tried: Counter[str] = Counter()  # by host
        self._bytes = 0
        self._next_look_s = 0.0
        self._last: DownloadProgress | None = None

    def fetch(self) -> int:
        """Fetch the list and return the exit status."""
        options: dict[str, Any] = self._request.options.given
        directory = options.pop("save_dir", None)
        begun_s = time.monotonic()
        options.pop("filename", None)  # the list's only item has it already
        items = self._listing.items()
        if self._run is not None:
            if self._listing.count is not None:
                self._run.expect(self._listing.count)
            results = self._run.fetch(items, directory, on_progress=self._look, **options)
        else:
            results = fetch_from(
                items,
                directory,
                max_concurrent_downloads=None,
                window=WINDOW,
                on_progress=self._look,
                options=options,  # type: ignore[arg-type] # they are all known
            )
        try:
            with self._display, contextlib.closing(results):
                for fetched in results:
                    self._tell(fetched)
        except KeyboardInterrupt:
            if not self._signals.number:
                raise
            self._manager.stop()
            word = self._signals.word
            self._display.error(f"{word}; run the same command again to continue: {self._stands()}")
            return SIGNALLED + self._signals.number
        except DiskFull as error:
            self._display.error(f"{error}; free space and run the same command again to continue: {self._stands()}")
            return FAILED
        for host, count in self._not_tried.items():
            self._display.error(f"{host}: could not be reached; {counted(count, 'file')} not tried")
        self._display.note(self._in_all(time.monotonic() - begun_s))
        failed = self._failed or (self._run is not None and self._run.failed_before)
        return int(bool(failed or self._listing.mistakes or self._display.lost_results))

    def _tell(self, fetched: Fetched) -> None:
        """Count and report an item that has ended."""
        url, line, outcome = fetched.item.url, fetched.item.line, fetched.outcome
        if isinstance(outcome, DownloadError):
            self._failed += 1
            if isinstance(outcome, HostUnreachable):
                self._not_tried[outcome.host] += 1
            # Two items with one name are a mistake in the list, so the message gives the line.
            place = f"{self._listing.shown}:{line}: " if line and isinstance(outcome, TargetExists) else ""
            self._report.error(url, outcome, line=line, place=place)
            return
        if outcome.already_complete:
            self._already += 1
        else:
            self._fetched += 1
            self._bytes += outcome.size - outcome.resumed
        self._report.done(url, outcome, line=line)

    def _look(self, whole: DownloadProgress) -> None:
        """``on_progress``: show overall progress, and stop after a signal."""
        if self._signals.number:
            # Pause all at once: if they were paused one by one, the end of each would start another.
            self._manager.pause_all()
            self._last = whole
            raise KeyboardInterrupt
        now_s = time.monotonic()
        if now_s < self._next_look_s and whole.status is not DownloadStatus.COMPLETE:
            return
        self._next_look_s = now_s + SECONDS_BETWEEN_LOOKS
        self._last = whole
        self._display.update_whole(self._counts(), whole, lambda: self._manager.list_downloads(DownloadStatus.ACTIVE))

    def _counts(self) -> str:
        skipped = self._run.skipped + self._run.failed_before if self._run is not None else 0
        done, count = self._fetched + self._already + skipped, self._listing.count
        if count is not None:
            return how_many(done, self._failed, count)
        return f"{counted(done, 'file')} done" + (f", {self._failed} failed" if self._failed else "")

    def _stands(self) -> str:
        """How much has been done so far."""
        if self._last is None:
            return self._counts()
        return f"{self._counts()}, {amount(self._last.downloaded)} fetched"

    def _in_all(self, seconds: float) -> str:
        line = f"{counted(self._fetched, 'file')} fetched, {amount(self._bytes)} in {seconds:.1f} s"
        if seconds > 0 and self._bytes:
            line += f", {amount(self._bytes / seconds)}/s"
        if self._already:
            line += f"; {self._already} already complete"
        if self._run is not None and self._run.skipped:
            line += f"; {self._run.skipped} complete before"
        if self._failed:
            line += f"; {self._failed} failed"
        if self._run is not None and self._run.failed_before:
            line += f"; {self._run.failed_before} failed before and not tried again (--retry-failed)"
        if self._listing.mistakes:
            line += f"; {counted(self._listing.mistakes, 'line')} could not be used"
        return line
