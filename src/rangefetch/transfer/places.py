"""The places at work: how many downloads may be active at a time, and which of them need no place."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator

__all__ = ["Places"]


class Places:
    """The downloads at work, by gid: at most ``most``, plus small files up to ``most_with_small`` in all. Not
    thread-safe: its owner's lock is held.

    Streams are not counted, as they last for as long as their readers please. A download that is *aside* can do nothing
    for now, and another may have its place; it comes back when there is one again. At most ``most_aside`` are aside at
    a time, since each keeps its files and connections open.
    """

    def __init__(self, most: int, most_with_small: int, most_aside: int) -> None:
        self.most = most
        self._most_with_small = most_with_small
        self._most_aside = most_aside
        self._at_work: set[str] = set()
        self._small: set[str] = set()
        self._streams: set[str] = set()
        self._aside: set[str] = set()
        self._returning: OrderedDict[str, None] = OrderedDict()

    def __contains__(self, gid: str) -> bool:
        return gid in self._at_work

    def __iter__(self) -> Iterator[str]:
        return iter(self._at_work)

    @property
    def _taken(self) -> int:
        return len(self._at_work) - len(self._streams) - len(self._aside)

    @property
    def free(self) -> int:
        """How many more may be at work if they are small."""
        return self._most_with_small - self._taken

    def is_full(self) -> bool:
        """Whether nothing more may be at work."""
        return self._taken >= self._most_with_small

    def has_one_for_any(self) -> bool:
        """Whether one more that is not small may be at work."""
        return not self.is_full() and self._taken - len(self._small) < self.most

    def take(self, gid: str, *, small: bool = False, stream: bool = False) -> None:
        """Add a download that is at work."""
        self._at_work.add(gid)
        if small:
            self._small.add(gid)
        if stream:
            self._streams.add(gid)

    def leave(self, *gids: str) -> None:
        """Remove downloads that are no longer at work."""
        for each in (self._at_work, self._small, self._streams, self._aside):
            each.difference_update(gids)
        if self._returning:
            for gid in gids:
                self._returning.pop(gid, None)

    def grow(self, gid: str) -> bool:
        """Count a download as not small. Returns whether it has a place as such."""
        if gid in self._small and self._taken - len(self._small) >= self.most:
            return False
        self._small.discard(gid)
        return True

    def step_aside(self, gid: str) -> bool:
        """Set aside a download that can do nothing for now. Returns whether another may have its place."""
        if gid not in self._at_work or gid in self._streams or len(self._aside) >= self._most_aside:
            return False
        self._small.discard(gid)
        self._aside.add(gid)
        return True

    def come_back(self, gid: str) -> bool:
        """Called if a download could continue. Returns whether it has a place; if not, ``return_next`` names it."""
        if gid in self._aside:
            self._returning[gid] = None
            if not self.has_one_for_any() or next(iter(self._returning)) != gid:
                return False
            del self._returning[gid]
            self._aside.discard(gid)
        return True

    def count_aside(self, gids: Collection[str]) -> int:
        """How many of these are aside."""
        return sum(gid in self._aside for gid in gids) if self._aside else 0

    def wait_to_return(self, gid: str) -> None:
        """Queue a download that could continue as one that is not small once it has a place."""
        self._returning[gid] = None

    def return_next(self) -> str | None:
        """Give a place to the next download that waits to return. Returns its gid; None if there is no place."""
        gid = next(iter(self._returning), None)
        if gid is None:
            return None
        if gid in self._small:
            has_one = self.grow(gid)
        elif has_one := self.has_one_for_any():
            self._aside.discard(gid)
        if not has_one:
            return None
        del self._returning[gid]
        return gid
