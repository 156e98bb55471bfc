"""How the downloads at aria2 share the connections that a host may have.

aria2 counts the connections of each download alone, and a user's number is for all downloads at a host together. So
each download is given a share before it asks or fetches anything, and where there is none left it waits. Pure: no
clock, thread or socket.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

from rangefetch.transfer.governor import divide

__all__ = ["Shares"]

K = TypeVar("K", bound=Hashable)


class _Member(NamedTuple):
    host: int
    wanted: int
    granted: int = 0


class Shares(Generic[K]):
    """The shares of one backend's downloads, which are members from their beginning to their end."""

    def __init__(self) -> None:
        self._members: dict[K, _Member] = {}

    def join(self, member: K, host: int, wanted: int) -> None:
        """It is at the host, and would have so many connections alone."""
        self._members[member] = _Member(host, wanted, self.granted(member))

    def leave(self, member: K) -> None:
        """It is at an end."""
        self._members.pop(member, None)

    def granted(self, member: K) -> int:
        """How many connections it has leave for."""
        return self._members[member].granted if member in self._members else 0

    def take(self, member: K, most: int) -> int:
        """Give it ``most`` connections, or as many as there are for it; 0: it has to wait for others."""
        mine = self._members[member]
        at_host = {each: other for each, other in self._members.items() if other.host == mine.host}
        free = max(each.wanted for each in at_host.values())
        free -= sum(each.granted for other, each in at_host.items() if other != member)
        granted = max(0, min(most, self._fair(mine.host)[member], free))
        self._members[member] = mine._replace(granted=granted)
        return granted

    def give_back(self, member: K) -> None:
        """It has no connection any more."""
        if member in self._members:
            self._members[member] = self._members[member]._replace(granted=0)

    def unfair(self, host: int) -> list[K]:
        """Those that have more than their share while others wait, or less than half of what they could have."""
        fair = self._fair(host)
        at_work = {each: self.granted(each) for each in fair if self.granted(each)}
        others_wait = len(at_work) < len(fair)
        return [
            each
            for each, granted in at_work.items()
            if (granted > fair[each] and others_wait) or 2 * granted <= fair[each]
        ]

    def _fair(self, host: int) -> dict[K, int]:
        return divide({each: other.wanted for each, other in self._members.items() if other.host == host})
