"""The line of downloads that wait for their turn, in order, except that a host that cannot serve its own delays no
others.

Downloads from a host that has not answered in time are *late*: they come after all others. A host that rests is passed
over until its rest is over. Finding the next download, and every change, take a number of steps that does not depend on
how many wait: each host has its own queue, and a heap orders the hosts by the first in their queues.
"""

from __future__ import annotations

import heapq
import itertools
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from rangefetch.transfer import governor

__all__ = ["Line"]

_SOON_S = 0.25  # a download begins this long before its first request is due
_MOST_SPACED = 4096  # with more hosts than this remembered, those that may be asked again are forgotten


class _Key(NamedTuple):
    """Identifies a queue: its host, whether it is late, and whether its downloads space their requests."""

    host: int
    late: bool
    spaced: bool


class _Queue:
    """The downloads that wait for one host, by number.

    ``at`` is the number under which the heap has the queue. ``until_s`` is when the queue is looked at again, if it is
    set aside because its host rests, or has had its requests for now; otherwise 0.
    """

    __slots__ = ("_in_order", "_returned", "_returned_heap", "at", "until_s")

    def __init__(self) -> None:
        self._in_order: OrderedDict[str, int] = OrderedDict()
        self._returned: dict[str, int] = {}  # had begun before, and keep their old numbers
        self._returned_heap: list[tuple[int, str]] = []
        self.at = 0
        self.until_s = 0.0

    def __bool__(self) -> bool:
        return bool(self._in_order or self._returned)

    def __iter__(self) -> Iterator[str]:
        return itertools.chain(self._returned, self._in_order)

    def append(self, gid: str, number: int) -> None:
        """Add at the end; ``number`` is the largest so far."""
        self._in_order[gid] = number

    def give_back(self, gid: str, number: int) -> None:
        """Put back where its number belongs."""
        self._returned[gid] = number
        heapq.heappush(self._returned_heap, (number, gid))

    def pop(self, gid: str) -> int:
        """Remove a download; returns its number."""
        return self._returned.pop(gid, 0) or self._in_order.pop(gid)

    def first(self) -> tuple[int, str]:
        """The number and the gid of the first."""
        heap = self._returned_heap
        while heap and self._returned.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        for gid, number in self._in_order.items():
            return (number, gid) if not heap or number < heap[0][0] else heap[0]
        return heap[0]

    def first_few(self, most: int, before: int) -> list[str]:
        """The first, and those that follow with numbers below ``before``, ``most`` at most."""
        if self._returned:
            return [self.first()[1]]
        few: list[str] = []
        for gid, number in self._in_order.items():
            if few and (number >= before or len(few) == most):
                break
            few.append(gid)
        return few

    def take_in(self, other: _Queue) -> None:
        """Add the downloads of another queue, keeping their numbers."""
        for number, gid in other._returned_heap:
            if other._returned.get(gid) == number:
                self.give_back(gid, number)
        self._in_order.update(other._in_order)
        self._in_order = OrderedDict(sorted(self._in_order.items(), key=lambda item: item[1]))


class Line:
    """Waiting downloads, by gid, and their hosts, by number. Not thread-safe: its owner's lock is held.

    ``rests_for`` gives the seconds for which a host is still to be left alone. ``steps`` counts how often a queue was
    looked at.
    """

    def __init__(
        self,
        rests_for: Callable[[int], float] = governor.rests_for,
        next_slot: Callable[[int], float] = governor.next_slot,
    ) -> None:
        self._rests_for = rests_for
        self._next_slot = next_slot
        self._numbers = itertools.count(1)
        self._key_of: dict[str, _Key] = {}
        self._queues: dict[_Key, _Queue] = {}
        self._heaps: dict[bool, list[tuple[int, _Key]]] = {False: [], True: []}  # by whether they are late
        self._aside: list[tuple[float, _Key]] = []  # a heap of queues whose host rests
        self._spaced: list[tuple[float, _Key]] = []  # a heap of queues whose host has had its requests for now
        self._begins_s: dict[int, float] = {}  # for hosts with spaced requests: when another download may begin
        self._late_hosts: set[int] = set()
        self._rests: dict[int, float] = {}  # hosts that lead to one that rests, and until when
        self.steps = 0

    def __bool__(self) -> bool:
        return bool(self._key_of)

    def __len__(self) -> int:
        return len(self._key_of)

    def __contains__(self, gid: str) -> bool:
        return gid in self._key_of

    def __iter__(self) -> Iterator[str]:
        return iter(self._key_of)

    def add(self, gid: str, host: int, *, late: bool = False, spaced: bool = False, number: int = 0) -> None:
        """Add a download at the end, or where its earlier ``number`` belongs. ``spaced``: it begins only when its host
        may get another request (``begins``).
        """
        key = _Key(host, late or host in self._late_hosts, spaced)
        self._key_of[gid] = key
        queue = self._queues.get(key)
        if queue is not None and not number:
            queue.append(gid, next(self._numbers))
            return  # the first has not changed
        if queue is None:
            queue = self._queues[key] = _Queue()
        if number:
            queue.give_back(gid, number)
        else:
            queue.append(gid, next(self._numbers))
        if not queue.until_s and queue.first()[0] != queue.at:
            self._enter(key, queue)

    def discard(self, gid: str) -> int:
        """Remove a download. Returns its number, 0 if it did not wait."""
        key = self._key_of.pop(gid, None)
        if key is None:
            return 0
        queue = self._queues[key]
        number = queue.pop(gid)
        if not queue:
            del self._queues[key]
        return number

    def take(self, gid: str) -> tuple[int, bool]:
        """Remove a download because it has its turn. Returns its number, and whether it is late."""
        key = self._key_of.pop(gid)
        queue = self._queues[key]
        number = queue._in_order.pop(gid, 0) or queue.pop(gid)
        if not queue._in_order and not queue:
            del self._queues[key]
        return number, key.late

    def next(self, now_s: float) -> str | None:
        """The download whose turn it is. If all wait for hosts that rest, the one whose rest ends first. Downloads
        whose host has had its requests for now have no turn before ``looks_again_s``.
        """
        key = self._next_key(now_s)
        return self._queues[key].first()[1] if key is not None else None

    def next_few(self, now_s: float, most: int) -> list[str]:
        """``next``, and those that follow it from the same host before any other's turn, ``most`` in all."""
        key = self._next_key(now_s)
        if key is None:
            return []
        queue = self._queues[key]
        if key.spaced or queue.until_s:
            return [queue.first()[1]]
        # The smaller of these is the next number in the heap, or below that of a queue that has moved on.
        others = self._heaps[key.late][1:3]
        return queue.first_few(most, min(others)[0] if others else sys.maxsize)

    def _next_key(self, now_s: float) -> _Key | None:
        self._look_at_rested(now_s)
        key = self._first_key(late=False, now_s=now_s) or self._first_key(late=True, now_s=now_s)
        while key is None and self._aside:
            until_s, aside = self._aside[0]
            queue = self._queues.get(aside)
            if queue is not None and queue.until_s == until_s:
                key = aside
            else:
                heapq.heappop(self._aside)
        return key

    def is_late(self, gid: str) -> bool:
        """Whether it comes after all others."""
        return self._key_of[gid].late

    def passed_over(self, gids: Iterable[str]) -> int:
        """How many of these wait for hosts that rest, or that kept others waiting."""
        if not (self._aside or self._spaced or self._late_hosts):
            return 0
        keys = [self._key_of[gid] for gid in gids if gid in self._key_of]
        return sum(key.late or self._queues[key].until_s > 0 for key in keys)

    def has_another(self, host: int, now_s: float) -> bool:
        """Whether a download waits for another host, which neither rests nor has kept others waiting."""
        self._look_at_rested(now_s)
        heap, own = self._heaps[False], None
        while (first := self._first_key(late=False, now_s=now_s)) is not None and first.host == host:
            own = heapq.heappop(heap)
        if own is not None:
            heapq.heappush(heap, own)
        return first is not None

    @property
    def has_late_hosts(self) -> bool:
        """Whether some hosts have kept others waiting."""
        return bool(self._late_hosts)

    def put_off(self, host: int) -> None:
        """The host does not answer: its downloads come last from now on."""
        self._late_hosts.add(host)
        self._move(host, late=True)

    def is_back(self, host: int) -> None:
        """The host answers: its downloads get their old places back."""
        if host in self._late_hosts:
            self._late_hosts.discard(host)
            self._move(host, late=False)

    def rest(self, host: int, until_s: float) -> None:
        """Pass over the downloads from ``host``, which leads to a host that rests, until ``until_s``."""
        self._rests[host] = until_s

    def begins(self, host: int, every_s: float, now_s: float) -> None:
        """Record that a download begins that spaces its requests to the host by ``every_s``.

        The next one begins shortly before its own first request is due. If it began earlier, it would only occupy a
        place that others could use.
        """
        begins_s = self._begins_s
        if len(begins_s) > _MOST_SPACED:
            self._begins_s = begins_s = {each: at_s for each, at_s in begins_s.items() if at_s > now_s}
        begins_s[host] = max(begins_s.get(host, 0.0), now_s) + every_s

    @property
    def looks_again_s(self) -> float:
        """When a download may begin that waits for its host's next request; 0 if there is none."""
        return self._spaced[0][0] if self._spaced else 0.0

    # -- inside -----------------------------------------------------------------------------------------------

    def _enter(self, key: _Key, queue: _Queue) -> None:
        """Enter the queue in the heap by its first number."""
        queue.at = queue.first()[0]
        heapq.heappush(self._heaps[key.late], (queue.at, key))

    def _first_key(self, *, late: bool, now_s: float) -> _Key | None:
        """The queue with the lowest first number, among those whose hosts do not rest."""
        heap = self._heaps[late]
        while heap:
            self.steps += 1
            at, key = heap[0]
            queue = self._queues.get(key)
            if queue is None or queue.at != at or queue.until_s:
                heapq.heappop(heap)  # it is gone, or elsewhere
                continue
            if queue.first()[0] != at:
                heapq.heappop(heap)
                self._enter(key, queue)
                continue
            rest_s = max(self._rests_for(key.host), self._rests.get(key.host, 0.0) - now_s)
            slot_s = self._slot_of(key.host, now_s) if key.spaced else 0.0
            if rest_s <= 0 and slot_s <= 0:
                return key
            heapq.heappop(heap)
            queue.at, queue.until_s = 0, now_s + max(rest_s, slot_s)
            heapq.heappush(self._aside if rest_s > slot_s else self._spaced, (queue.until_s, key))
        return None

    def _slot_of(self, host: int, now_s: float) -> float:
        """Seconds until one more download may begin at a host whose requests are spaced."""
        begins_s = self._begins_s.get(host)
        if begins_s is None:
            return 0.0
        # The downloads at work there may have many more requests to make.
        return max(begins_s - now_s, self._next_slot(host)) - _SOON_S

    def _look_at_rested(self, now_s: float) -> None:
        """Bring back the queues whose wait is over."""
        for heap in (self._aside, self._spaced):
            while heap and heap[0][0] <= now_s:
                self.steps += 1
                until_s, key = heapq.heappop(heap)
                queue = self._queues.get(key)
                if queue is not None and queue.until_s == until_s:
                    queue.until_s = 0.0
                    self._rests.pop(key.host, None)
                    self._enter(key, queue)

    def _move(self, host: int, *, late: bool) -> None:
        """Merge a host's queues into its late, or no longer late, ones."""
        for spaced in (False, True):
            moved = self._queues.pop(_Key(host, not late, spaced), None)
            if moved is None:
                continue
            to = _Key(host, late, spaced)
            queue = self._queues.setdefault(to, _Queue())
            queue.take_in(moved)
            self._key_of.update(dict.fromkeys(moved, to))
            if not queue.until_s:
                self._enter(to, queue)
