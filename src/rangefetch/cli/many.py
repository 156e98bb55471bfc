"""A list of URLs, perhaps a very long one: fetched by ``fetch_many``, shown as a whole."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rangefetch.bulk import fetch_many
from rangefetch.cli.display import Quiet, amount, counted, how_many
from rangefetch.cli.report import Report
from rangefetch.cli.signals import Signals
from rangefetch.errors import DownloadError
from rangefetch.manager import DownloadManager
from rangefetch.options import DownloadOptions
from rangefetch.progress import DownloadProgress, DownloadResult, DownloadStatus

__all__ = ["fetch_list"]

SECONDS_BETWEEN_LOOKS = 0.2


def fetch_list(
    manager: DownloadManager,
    urls: Sequence[str],
    options: DownloadOptions,
    display: Quiet,
    report: Report,
    signals: Signals,
) -> bool:
    """Fetch all of them on ``manager``, which must be the process's own, and report each; False: a signal came."""
    watch = _Watch(len(urls), manager, display, signals)
    begun_s = time.monotonic()
    own = options.given
    directory = own.pop("save_dir", None)

    def tell(number: int, outcome: DownloadResult | DownloadError) -> None:
        if isinstance(outcome, DownloadError):
            watch.failed += 1
            report.error(urls[number], outcome)
        else:
            report.done(urls[number], outcome)

    try:
        with display:
            outcomes = fetch_many(urls, directory, on_error="return", on_progress=watch.look, on_result=tell, **own)
    except KeyboardInterrupt:
        if not signals.number:
            raise
        manager.stop()
        display.error(f"{signals.word}; run the same command again to continue: {watch.stands()}")
        return False
    display.note(_in_all(outcomes, time.monotonic() - begun_s))
    return True


class _Watch:
    """Shows the progress of the whole, and breaks it off after a signal."""

    def __init__(self, count: int, manager: DownloadManager, display: Quiet, signals: Signals) -> None:
        self.failed = 0
        self._count = count
        self._manager = manager
        self._display = display
        self._signals = signals
        self._next_look_s = 0.0
        self._last: DownloadProgress | None = None

    def look(self, whole: DownloadProgress) -> None:
        """``on_progress`` of ``fetch_many``."""
        if self._signals.number:
            # All at once: one after the other, the end of each would begin another.
            self._manager.pause_all()
            self._last = whole
            raise KeyboardInterrupt
        now_s = time.monotonic()
        if now_s < self._next_look_s and whole.status is not DownloadStatus.COMPLETE:
            return
        self._next_look_s = now_s + SECONDS_BETWEEN_LOOKS
        self._last = whole
        self._display.update_whole(self._counts(whole), whole, self._manager.list_downloads(DownloadStatus.ACTIVE))

    def _counts(self, whole: DownloadProgress) -> str:
        ended = round(whole.percentage * self._count / 100)
        return how_many(ended - self.failed, self.failed, self._count)

    def stands(self) -> str:
        """How far it has come."""
        if self._last is None:
            return how_many(0, 0, self._count)
        return f"{self._counts(self._last)}, {amount(self._last.downloaded)} fetched"


def _in_all(outcomes: Sequence[DownloadResult | DownloadError], seconds: float) -> str:
    results = [outcome for outcome in outcomes if isinstance(outcome, DownloadResult)]
    already = sum(result.already_complete for result in results)
    fetched = [result for result in results if not result.already_complete]
    size = sum(result.size - result.resumed for result in fetched)
    line = f"{counted(len(fetched), 'file')} fetched, {amount(size)} in {seconds:.1f} s"
    if seconds > 0 and size:
        line += f", {amount(size / seconds)}/s"
    if already:
        line += f"; {already} already complete"
    failed = len(outcomes) - len(results)
    return f"{line}; {failed} failed" if failed else line
