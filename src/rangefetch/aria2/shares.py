"""Grants connections to the downloads that aria2 fetches.

aria2 limits connections per download, not per host. So before a download sends any request, it is granted connections
out of those that this process may have to the host. If none is left, it waits; downloads are served in the order in
which they came to the host.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from rangefetch.transfer import governor
from rangefetch.transfer.shares import SHARES, Owner, Shares

__all__ = ["Grants"]

K = TypeVar("K", bound=Hashable)

_GONE_S = 1.0  # a waiting download that has not asked for this long is no longer considered waiting


class Grants(Generic[K]):
    """The grants of one backend's downloads. All methods run on the backend's thread."""

    def __init__(self, owner: Owner, shares: Shares = SHARES, now_s: Callable[[], float] = time.monotonic) -> None:
        self._owner = owner
        self._shares = shares
        self._now_s = now_s
        self._granted: dict[K, tuple[int, int]] = {}  # host, connections
        self._waiting: dict[K, float] = {}  # waiting members, and when each last asked

    def join(self, member: K, host: int, wanted: int) -> None:
        """Add ``member`` to a host, or move it there. Alone at the host it would use ``wanted`` connections."""
        if member in self._granted and self._granted[member][0] != host:
            self.give_back(member)
        self._granted[member] = host, self.granted(member)
        self._shares.join(member, host, wanted, self._owner)

    def leave(self, member: K) -> None:
        """Remove ``member``, whose download has ended."""
        self.give_back(member)
        self._granted.pop(member, None)
        self._shares.leave(member)

    def granted(self, member: K) -> int:
        """How many connections ``member`` has been granted."""
        return self._granted[member][1] if member in self._granted else 0

    def take(self, member: K, most: int) -> int:
        """Grant ``member`` its share of the host's connections, at most ``most``.

        Returns how many it has now, which may be fewer than before. 0 means that it must wait for others.
        """
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
        """Note that ``member`` is waiting, and return whether it is the first one waiting at the host."""
        now_s = self._now_s()
        self._waiting[member] = now_s
        for each, (at, _) in self._granted.items():
            if at == host and now_s - self._waiting.get(each, -_GONE_S) < _GONE_S:
                return each == member
        return True

    def give_back(self, member: K) -> None:
        """Give back all its connections; it is no longer waiting for any either."""
        self._waiting.pop(member, None)
        if member in self._granted:
            host, granted = self._granted[member]
            self._granted[member] = host, 0
            if granted:
                governor.give_back_connections(host, granted)

    def unfair(self, host: int) -> list[K]:
        """The members that have more than their share while others wait, or at most half of their share."""
        fair = self._shares.fair(host)
        mine = {each: granted for each, (at, granted) in self._granted.items() if at == host and granted}
        others_wait = len(mine) < len(fair)
        return [
            each
            for each, granted in mine.items()
            if (granted > fair[each] and others_wait) or 2 * granted <= fair[each]
        ]
