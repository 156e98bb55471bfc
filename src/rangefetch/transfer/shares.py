"""Shares a host's connections among its downloads, across both backends.

The user's limit is for all downloads from a host together: together they get what the largest would have alone, each
its share. The engine counts the connections, and grants no more than that (``governor``).
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import NamedTuple, Protocol

from rangefetch.importing import after_fork
from rangefetch.transfer.governor import divide

__all__ = ["SHARES", "Owner", "Shares"]


class Owner(Protocol):
    """The backend that members belong to."""

    def shares_changed(self, host: int) -> object:
        """Called when downloads of other backends have joined or left the host; from any thread."""


class _Member(NamedTuple):
    host: int
    wanted: int
    owner: Owner


class Shares:
    """The downloads at work, except small ones, which have one connection each. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._members: dict[Hashable, _Member] = {}
        self._at_host: dict[int, dict[Hashable, int]] = {}

    def join(self, member: Hashable, host: int, wanted: int, owner: Owner) -> None:
        """Add a download at the host, which would have ``wanted`` connections alone."""
        self._put(member, _Member(host, wanted, owner))

    def leave(self, member: Hashable) -> None:
        """Remove a download that has ended."""
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
        """How many connections each download at the host is due."""
        with self._lock:
            return divide(self._at_host.get(host, {}))

    def most(self, host: int) -> int:
        """How many connections all of them may have together."""
        with self._lock:
            return max(self._at_host.get(host, {}).values(), default=0)

    def forget_all(self) -> None:
        """Forget everything in a forked child: the members are the parent's."""
        self._lock = threading.Lock()
        self._members.clear()
        self._at_host.clear()


SHARES = Shares()
"""The shares of this process."""

after_fork(SHARES.forget_all)
