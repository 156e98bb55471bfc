"""The downloads that a manager knows, by gid: those that have not ended, and those whose outcome may be asked for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from rangefetch.progress import DownloadStatus
from rangefetch.transfer.download import Download, Entry, Queued

__all__ = ["FINISHED", "Register"]

FINISHED = frozenset({DownloadStatus.COMPLETE, DownloadStatus.ERROR, DownloadStatus.REMOVED})
_MOST_UNCOLLECTED = 100_000


class Register:
    """Guarded by the lock of the queue that has it. ``most_finished`` are remembered whose outcome was told."""

    def __init__(self, most_finished: int) -> None:
        self.entries: dict[str, Entry] = {}
        """In the order in which they were asked for."""
        self.note: Callable[[str], object] | None = None
        """Called with the gid of a download of which something has changed that is saved, perhaps under the lock."""
        self._uncollected: OrderedDict[str, None] = OrderedDict()  # whose outcome nobody was told
        self._collected: OrderedDict[str, None] = OrderedDict()  # whose outcome somebody was told
        self._most_collected = most_finished
        self._most_uncollected = max(most_finished, _MOST_UNCOLLECTED)

    def find(self, gid: str) -> Entry:
        """Raises ``KeyError``."""
        entry = self.entries.get(gid)
        if entry is None:
            raise KeyError(f"there is no download {gid!r}")
        return entry

    def whole(self, entry: Entry) -> Download:
        """The download, of which so far perhaps only an entry was queued."""
        if isinstance(entry, Queued):
            entry = self.entries[entry.gid] = Download.of(entry)
        return entry

    def have_finished(self, gids: Iterable[str]) -> None:
        """Remember these until their outcome is collected."""
        uncollected = self._uncollected
        for gid in gids:
            uncollected[gid] = None
            uncollected.move_to_end(gid)
        while len(uncollected) > self._most_uncollected:
            self.forget(next(iter(uncollected)))

    def collect(self, download: Download) -> None:
        """Somebody is told its outcome: now it is one of those of which only the last are remembered."""
        gid = download.gid
        if gid in self.entries and download.status in FINISHED:
            self.go_on(gid)
            self._collected[gid] = None
            while len(self._collected) > self._most_collected:
                self.forget(next(iter(self._collected)))

    def go_on(self, gid: str) -> None:
        """It has no outcome yet, after all."""
        self._uncollected.pop(gid, None)
        self._collected.pop(gid, None)

    def forget(self, gid: str) -> None:
        """Know no more of it."""
        self.entries.pop(gid, None)
        self.go_on(gid)
        if self.note is not None:
            self.note(gid)
