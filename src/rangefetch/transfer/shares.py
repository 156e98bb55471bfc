"""How the downloads from one host share the connections that it may have, whichever backend they are at.

A user's number is for all downloads at a host together. What the one that wants the most would have alone, all of them
have together, each its share. The engine counts connections, and grants no more of them than that (``governor``).
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import NamedTuple, Protocol

from rangefetch.importing import after_fork
from rangefetch.transfer.governor import divide

__all__ = ["SHARES", "Owner", "Shares"]


class Owner(Protocol):
    """Whose downloads are members."""

    def shares_changed(self, host: int) -> object:
        """Those of others have come to the host, or left it; from any thread."""


class _Member(NamedTuple):
    host: int
    wanted: int
    owner: Owner


class Shares:
    """The downloads at work, but for small ones, which have one connection each. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._members: dict[Hashable, _Member] = {}
        self._at_host: dict[int, dict[Hashable, int]] = {}

    def join(self, member: Hashable, host: int, wanted: int, owner: Owner) -> None:
        """It is at the host, and would have so many connections alone."""
        self._put(member, _Member(host, wanted, owner))

    def leave(self, member: Hashable) -> None:
        """It is at an end."""
        self._put(member, None)

    def _put(self, member: Hashable, new: _Member | None) -> None:
        with self._lock:
            old = self._members.pop(member, None)
            if new is not None:
                self._members[member] = new
            if old == new:
                return
            if old is not None:
                there = self._at_host[old.host]
                del there[member]
                if not there:
                    del self._at_host[old.host]
            if new is not None:
                self._at_host.setdefault(new.host, {})[member] = new.wanted
            heard = {
                (self._members[other].owner, each.host)
                for each in (old, new)
                if each is not None
                for other in self._at_host.get(each.host, ())
                if self._members[other].owner is not each.owner
            }
        for owner, host in heard:
            owner.shares_changed(host)

    def fair(self, host: int) -> dict[Hashable, int]:
        """How many connections each of those at the host is due."""
        with self._lock:
            return divide(self._at_host.get(host, {}))

    def most(self, host: int) -> int:
        """How many there may be for all of them together."""
        with self._lock:
            return max(self._at_host.get(host, {}).values(), default=0)

    def forget_all(self) -> None:
        """In a forked child: they are the parent's."""
        self._lock = threading.Lock()
        self._members.clear()
        self._at_host.clear()


SHARES = Shares()
"""Those of the process."""

after_fork(SHARES.forget_all)
