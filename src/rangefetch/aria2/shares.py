"""The connections that the downloads at aria2 have leave for.

aria2 counts the connections of each download alone, so each is granted some before it asks or fetches anything, out of
what the host may have from this process; where there is none left, it waits. Those that came first get theirs first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from rangefetch.transfer import governor
from rangefetch.transfer.shares import SHARES, Owner, Shares

__all__ = ["Grants"]

K = TypeVar("K", bound=Hashable)

_GONE_S = 1.0  # one that waits and has not asked for so long does something else


class Grants(Generic[K]):
    """Those of one backend's downloads, from their beginning to their end. All methods run on its thread."""

    def __init__(self, owner: Owner, shares: Shares = SHARES, now_s: Callable[[], float] = time.monotonic) -> None:
        self._owner = owner
        self._shares = shares
        self._now_s = now_s
        self._granted: dict[K, tuple[int, int]] = {}  # host, connections
        self._waiting: dict[K, float] = {}  # who waits, and when each has asked last

    def join(self, member: K, host: int, wanted: int) -> None:
        """It is at the host, and would have so many connections alone."""
        if member in self._granted and self._granted[member][0] != host:
            self.give_back(member)
        self._granted[member] = host, self.granted(member)
        self._shares.join(member, host, wanted, self._owner)

    def leave(self, member: K) -> None:
        """It is at an end."""
        self.give_back(member)
        self._granted.pop(member, None)
        self._shares.leave(member)

    def granted(self, member: K) -> int:
        """How many connections it has leave for."""
        return self._granted[member][1] if member in self._granted else 0

    def take(self, member: K, most: int) -> int:
        """Give it ``most`` connections, or as many as there are for it; 0: it has to wait for others."""
        host, granted = self._granted[member]
        due = min(most, int(self._shares.fair(host)[member]))
        if not granted and not self._is_next(member, host):
            return 0
        if due > granted:
            granted += governor.take_connections(host, due - granted, self._shares.most(host))
        elif due < granted:
            governor.give_back_connections(host, granted - due)
            granted = due
        self._granted[member] = host, granted
        if granted:
            self._waiting.pop(member, None)
        return granted

    def _is_next(self, member: K, host: int) -> bool:
        """Whether it came to the host before all others that wait there; it waits from now on."""
        now_s = self._now_s()
        self._waiting[member] = now_s
        for each, (at, _) in self._granted.items():
            if at == host and now_s - self._waiting.get(each, -_GONE_S) < _GONE_S:
                return each == member
        return True

    def give_back(self, member: K) -> None:
        """It has no connection any more, and waits for none."""
        self._waiting.pop(member, None)
        if member in self._granted:
            host, granted = self._granted[member]
            self._granted[member] = host, 0
            if granted:
                governor.give_back_connections(host, granted)

    def unfair(self, host: int) -> list[K]:
        """Those that have more than their share while others wait, or less than half of what they could have."""
        fair = self._shares.fair(host)
        mine = {each: granted for each, (at, granted) in self._granted.items() if at == host and granted}
        others_wait = len(mine) < len(fair)
        return [
            each
            for each, granted in mine.items()
            if (granted > fair[each] and others_wait) or 2 * granted <= fair[each]
        ]
