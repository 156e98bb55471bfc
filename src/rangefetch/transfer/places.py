"""The places at work: how many downloads may be active at a time, and which of them need none."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator

__all__ = ["Places"]


class Places:
    """Who is at work, by gid: at most ``most`` downloads, and so many that are taken for small files that all together
    are ``most_with_small``. Not safe by itself: its owner's lock is held.

    Streams have no turn, and are not counted: they last for as long as their readers please. One that is *aside* can do
    nothing for now, and another may have its place; it comes back when there is one again. At most ``most_aside`` are
    at a time, since each keeps what it has open.
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
        """Whether one more may be at work that is not taken for a small file."""
        return not self.is_full() and self._taken - len(self._small) < self.most

    def take(self, gid: str, *, small: bool = False, stream: bool = False) -> None:
        """It is at work."""
        self._at_work.add(gid)
        if small:
            self._small.add(gid)
        if stream:
            self._streams.add(gid)

    def leave(self, *gids: str) -> None:
        """These are not at work any more."""
        for each in (self._at_work, self._small, self._streams, self._aside):
            each.difference_update(gids)
        if self._returning:
            for gid in gids:
                self._returning.pop(gid, None)

    def grow(self, gid: str) -> bool:
        """It is not as small as it was taken for. Whether it has a place as any other."""
        if gid in self._small and self._taken - len(self._small) >= self.most:
            return False
        self._small.discard(gid)
        return True

    def step_aside(self, gid: str) -> bool:
        """It can do nothing for now. Whether another one may have its place."""
        if gid not in self._at_work or gid in self._streams or len(self._aside) >= self._most_aside:
            return False
        self._small.discard(gid)
        self._aside.add(gid)
        return True

    def come_back(self, gid: str) -> bool:
        """It could go on. Whether it has a place; otherwise ``return_next`` names it when it has."""
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
        """It could go on, as any other download, when it has a place."""
        self._returning[gid] = None

    def return_next(self) -> str | None:
        """One more has a place again, if there is one for it."""
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
