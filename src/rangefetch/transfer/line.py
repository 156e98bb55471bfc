"""The line of downloads that wait for their turn: in order, but those of hosts that hold up others come last."""

from __future__ import annotations

from collections import OrderedDict

from rangefetch.transfer.download import Download

__all__ = ["Line"]


class Line:
    """Downloads that wait, by gid. Not safe by itself: its owner's lock is held."""

    def __init__(self) -> None:
        self._first: OrderedDict[str, Download] = OrderedDict()
        self._late: OrderedDict[str, Download] = OrderedDict()
        self._late_origins: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._first or self._late)

    def __len__(self) -> int:
        return len(self._first) + len(self._late)

    def add(self, download: Download) -> None:
        """It waits behind the others."""
        if self._late_origins and _origin_of(download) in self._late_origins:
            download.was_put_off = True
        (self._late if download.was_put_off else self._first)[download.gid] = download

    def discard(self, download: Download) -> None:
        """It waits no more."""
        if self._first.pop(download.gid, None) is None:
            self._late.pop(download.gid, None)

    @property
    def next(self) -> Download | None:
        """Whose turn it is."""
        line = self._first or self._late
        return next(iter(line.values())) if line else None

    def drain(self) -> list[Download]:
        """Nobody waits any more."""
        downloads = [*self._first.values(), *self._late.values()]
        self._first.clear()
        self._late.clear()
        self._late_origins.clear()
        return downloads

    def put_off(self, download: Download) -> bool:
        """Its host holds up others: what waits for the same one comes last from now on. False: nobody else waits."""
        origin = _origin_of(download)
        if all(_origin_of(each) == origin for each in self._first.values()):
            return False
        self._late_origins.add(origin)
        for gid in [gid for gid, each in self._first.items() if _origin_of(each) == origin]:
            each = self._first.pop(gid)
            each.was_put_off = True
            self._late[gid] = each
        return True

    def is_back(self, download: Download) -> None:
        """Its host answers."""
        if self._late_origins:
            self._late_origins.discard(_origin_of(download))


def _origin_of(download: Download) -> str:
    url = download.url
    end = url.find("/", 8)
    return url if end < 0 else url[:end]
