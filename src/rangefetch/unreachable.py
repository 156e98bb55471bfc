"""Hosts from which one download after another fails, in a call over many files.

Each of these downloads has used up its tries, and thousands more would do the same. Further items from such a host are
kept until everything else is done. Then one of them is tried, and its outcome decides for all.
"""

from __future__ import annotations

import enum
from collections import Counter, deque

from rangefetch.errors import DownloadError, HostUnreachable, NetworkError, SourceError
from rangefetch.progress import DownloadResult

__all__ = ["FAILURES_IN_A_ROW", "Change", "Unreachable"]

FAILURES_IN_A_ROW = 10
"""How many downloads in a row must fail because a host cannot be reached, before the host is set aside."""


class _State(enum.Enum):
    SET_ASIDE = "it is tried again when everything else is done"
    TRIED = "one of its files is being tried"
    GIVEN_UP = "that has failed too"


class Change(enum.Enum):
    """What an outcome means for a host."""

    NONE = "nothing new"
    SET_ASIDE = "nothing more is requested from it for now"
    BACK = "the items kept for later may be requested"
    GIVEN_UP = "the items kept for later have failed"


class Unreachable:
    """The hosts of one call, and the items kept for them, by number; at most ``most_kept`` items (None: no limit)."""

    def __init__(self, most_kept: int | None) -> None:
        self.kept_count = 0
        self._most_kept = most_kept
        self._failures: Counter[str] = Counter()  # failures in a row, by host
        self._states: dict[str, _State] = {}
        self._reasons: dict[str, str] = {}
        self._kept: dict[str, deque[int]] = {}

    def __bool__(self) -> bool:
        """Whether any host has failed."""
        return bool(self._failures or self._states)

    def note(self, host: str, outcome: DownloadResult | DownloadError) -> Change:
        """Record the outcome of a download from the host, and return what changes for the host. Any response, even an
        error, shows that the host is there. An error on this machine shows nothing about the host.
        """
        state = self._states.get(host)
        if isinstance(outcome, DownloadResult | SourceError):
            self._failures.pop(host, None)
            if state in (_State.SET_ASIDE, _State.TRIED):
                del self._states[host]
                return Change.BACK
            return Change.NONE
        if not isinstance(outcome, NetworkError) or isinstance(outcome, HostUnreachable):
            if state is _State.TRIED:
                self._states[host] = _State.SET_ASIDE  # so that the next item is tried
            return Change.NONE
        self._reasons[host] = outcome.reason
        if state is _State.TRIED:
            self._states[host] = _State.GIVEN_UP
            return Change.GIVEN_UP
        if state is None:
            self._failures[host] += 1
            if self._failures[host] >= FAILURES_IN_A_ROW:
                del self._failures[host]
                self._states[host] = _State.SET_ASIDE
                self._kept[host] = deque()
                return Change.SET_ASIDE
        return Change.NONE

    def has(self, host: str) -> bool:
        """Whether nothing may be submitted for the host now."""
        return host in self._states

    def keep(self, host: str, number: int) -> bool:
        """Keep an item of such a host for later. Returns False if the host is given up, or too many items are kept."""
        if self._states[host] is _State.GIVEN_UP or (
            self._most_kept is not None and self.kept_count >= self._most_kept
        ):
            return False
        self._kept[host].append(number)
        self.kept_count += 1
        return True

    def release(self, host: str) -> list[int]:
        """Remove the items kept for a host and return them."""
        numbers = list(self._kept.pop(host, ()))
        self.kept_count -= len(numbers)
        return numbers

    def try_again(self) -> list[int]:
        """Return one item of each host that is set aside, to be tried now that everything else is done."""
        numbers: list[int] = []
        for host, state in list(self._states.items()):
            if state is _State.SET_ASIDE and self._kept[host]:
                self._states[host] = _State.TRIED
                numbers.append(self._kept[host].popleft())
        self.kept_count -= len(numbers)
        return numbers

    def error(self, host: str, shown_url: str) -> HostUnreachable:
        """The error for an item that is not tried."""
        name = host.partition("://")[2] or host
        words = f"not tried, since other downloads from {name} failed in a row: {self._reasons[host]}"
        return HostUnreachable(words, host=name, url=shown_url)
