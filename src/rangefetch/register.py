"""The downloads that a manager knows, by gid: the unfinished ones, and finished ones that may still be asked about."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from rangefetch.progress import DownloadStatus
from rangefetch.transfer.download import Download, Entry, Queued

__all__ = ["FINISHED", "Register"]

FINISHED = frozenset({DownloadStatus.COMPLETE, DownloadStatus.ERROR, DownloadStatus.REMOVED})
_MOST_UNCOLLECTED = 100_000


class Register:
    """The known downloads. Guarded by the lock of the queue that owns it. Of the downloads whose outcome has been
    returned or raised, the last ``most_finished`` are remembered.
    """

    def __init__(self, most_finished: int) -> None:
        self.entries: dict[str, Entry] = {}
        """By gid, in the order in which they were added."""
        self.note: Callable[[str], object] | None = None
        """Called with the gid of a download whose saved state has changed, perhaps with the lock held."""
        self._uncollected: OrderedDict[str, None] = OrderedDict()  # finished, outcome not yet returned to anybody
        self._collected: OrderedDict[str, None] = OrderedDict()  # finished, outcome already returned
        self._most_collected = most_finished
        self._most_uncollected = max(most_finished, _MOST_UNCOLLECTED)

    def find(self, gid: str) -> Entry:
        """Return a download by its gid. Raises ``KeyError``."""
        entry = self.entries.get(gid)
        if entry is None:
            raise KeyError(f"there is no download {gid!r}")
        return entry

    def whole(self, entry: Entry) -> Download:
        """Return the ``Download`` of an entry; one that is still a ``Queued`` is replaced by a ``Download``."""
        if isinstance(entry, Queued):
            entry = self.entries[entry.gid] = Download.of(entry)
        return entry

    def have_finished(self, gids: Iterable[str]) -> None:
        """Remember these finished downloads until their outcome is collected, or too many are remembered."""
        uncollected = self._uncollected
        for gid in gids:
            uncollected[gid] = None
            uncollected.move_to_end(gid)
        while len(uncollected) > self._most_uncollected:
            self.forget(next(iter(uncollected)))

    def collect(self, download: Download) -> None:
        """Note that the outcome of a download has been returned, so that it may be forgotten after some others."""
        gid = download.gid
        if gid in self.entries and download.status in FINISHED:
            self.go_on(gid)
            self._collected[gid] = None
            while len(self._collected) > self._most_collected:
                self.forget(next(iter(self._collected)))

    def go_on(self, gid: str) -> None:
        """Note that a finished download is fetched again, so it has no outcome now."""
        self._uncollected.pop(gid, None)
        self._collected.pop(gid, None)

    def forget(self, gid: str) -> None:
        """Forget a download."""
        self.entries.pop(gid, None)
        self.go_on(gid)
        if self.note is not None:
            self.note(gid)
