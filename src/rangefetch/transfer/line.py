"""The line of downloads that wait for their turn: in order, except that hosts that cannot serve them hold up no others.

What waits for a host that has not answered in time is *late*: it comes after all others. A host that rests is passed
over until its rest is over. Whose turn it is, and each change, takes a number of steps that does not depend on how many
wait: each host has a queue of its own, and a heap has the hosts by who of theirs was there first.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator

from rangefetch.transfer import governor

__all__ = ["Line"]

_Key = tuple[int, bool]  # a host, and whether its queue is a late one


class _Queue:
    """Those that wait for one host, by number.

    ``at`` is the number under which a heap has the queue, and ``until_s`` when it is looked at again; 0: it is not set
    aside.
    """

    __slots__ = ("_in_order", "_returned", "_returned_heap", "at", "until_s")

    def __init__(self) -> None:
        self._in_order: OrderedDict[str, int] = OrderedDict()
        self._returned: dict[str, int] = {}  # that had begun, and have their old numbers
        self._returned_heap: list[tuple[int, str]] = []
        self.at = 0
        self.until_s = 0.0

    def __bool__(self) -> bool:
        return bool(self._in_order or self._returned)

    def __iter__(self) -> Iterator[str]:
        return itertools.chain(self._returned, self._in_order)

    def append(self, gid: str, number: int) -> None:
        """``number`` is the largest so far."""
        self._in_order[gid] = number

    def give_back(self, gid: str, number: int) -> None:
        """It has the place that its number says."""
        self._returned[gid] = number
        heapq.heappush(self._returned_heap, (number, gid))

    def pop(self, gid: str) -> int:
        """It waits no more; returns its number."""
        return self._returned.pop(gid, 0) or self._in_order.pop(gid)

    def first(self) -> tuple[int, str]:
        """The number and the gid of who was there first."""
        heap = self._returned_heap
        while heap and self._returned.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        for gid, number in self._in_order.items():
            return (number, gid) if not heap or number < heap[0][0] else heap[0]
        return heap[0]

    def take_in(self, other: _Queue) -> None:
        """Those of another one join, each with its number."""
        for number, gid in other._returned_heap:
            if other._returned.get(gid) == number:
                self.give_back(gid, number)
        self._in_order.update(other._in_order)
        self._in_order = OrderedDict(sorted(self._in_order.items(), key=lambda item: item[1]))


class Line:
    """Downloads that wait, by gid, and their hosts by number. Not safe by itself: its owner's lock is held.

    ``rests_for`` says for how many seconds a host is still to be left alone. ``steps`` counts how often a queue was
    looked at.
    """

    def __init__(self, rests_for: Callable[[int], float] = governor.rests_for) -> None:
        self._rests_for = rests_for
        self._numbers = itertools.count(1)
        self._key_of: dict[str, _Key] = {}
        self._queues: dict[_Key, _Queue] = {}
        self._heaps: dict[bool, list[tuple[int, _Key]]] = {False: [], True: []}  # by whether they are late
        self._aside: list[tuple[float, _Key]] = []  # a heap of those whose host rests
        self._late_hosts: set[int] = set()
        self._rests: dict[int, float] = {}  # what leads to a host that rests, and until when
        self.steps = 0

    def __bool__(self) -> bool:
        return bool(self._key_of)

    def __len__(self) -> int:
        return len(self._key_of)

    def __iter__(self) -> Iterator[str]:
        return iter(self._key_of)

    def add(self, gid: str, host: int, *, late: bool = False, number: int = 0) -> None:
        """It waits behind the others, or where the ``number`` that it had before says."""
        key = (host, late or host in self._late_hosts)
        self._key_of[gid] = key
        queue = self._queues.get(key)
        if queue is not None and not number:
            queue.append(gid, next(self._numbers))
            return  # who is its first has not changed
        if queue is None:
            queue = self._queues[key] = _Queue()
        if number:
            queue.give_back(gid, number)
        else:
            queue.append(gid, next(self._numbers))
        if not queue.until_s and queue.first()[0] != queue.at:
            self._enter(key, queue)

    def discard(self, gid: str) -> int:
        """It waits no more; returns its number, 0 where it did not wait."""
        key = self._key_of.pop(gid, None)
        if key is None:
            return 0
        queue = self._queues[key]
        number = queue.pop(gid)
        if not queue:
            del self._queues[key]
        return number

    def next(self, now_s: float) -> str | None:
        """Whose turn it is. Where all that wait do so for hosts that rest: the one whose rest ends first."""
        self._look_at_rested(now_s)
        key = self._first_key(late=False, now_s=now_s) or self._first_key(late=True, now_s=now_s)
        while key is None and self._aside:
            until_s, aside = self._aside[0]
            queue = self._queues.get(aside)
            if queue is not None and queue.until_s == until_s:
                key = aside
            else:
                heapq.heappop(self._aside)
        return self._queues[key].first()[1] if key is not None else None

    def is_late(self, gid: str) -> bool:
        """Whether it comes after all others."""
        return self._key_of[gid][1]

    def passed_over(self, gids: Iterable[str]) -> int:
        """How many of these wait for hosts that rest, or that kept others waiting."""
        if not (self._aside or self._late_hosts):
            return 0
        keys = [self._key_of[gid] for gid in gids if gid in self._key_of]
        return sum(key[1] or self._queues[key].until_s > 0 for key in keys)

    def has_another(self, host: int, now_s: float) -> bool:
        """Whether somebody waits for another host, which neither rests nor has kept others waiting."""
        self._look_at_rested(now_s)
        heap, own = self._heaps[False], None
        while (first := self._first_key(late=False, now_s=now_s)) is not None and first[0] == host:
            own = heapq.heappop(heap)
        if own is not None:
            heapq.heappush(heap, own)
        return first is not None

    @property
    def has_late_hosts(self) -> bool:
        """Whether some hosts have kept others waiting."""
        return bool(self._late_hosts)

    def put_off(self, host: int) -> None:
        """The host does not answer: what waits for it comes last from now on."""
        self._late_hosts.add(host)
        self._move((host, False), (host, True))

    def is_back(self, host: int) -> None:
        """The host answers: what waits for it is in its old places."""
        if host in self._late_hosts:
            self._late_hosts.discard(host)
            self._move((host, True), (host, False))

    def rest(self, host: int, until_s: float) -> None:
        """Pass over what waits for a host that leads to one that rests."""
        self._rests[host] = until_s

    # -- inside -----------------------------------------------------------------------------------------------

    def _enter(self, key: _Key, queue: _Queue) -> None:
        """Have the heap know it by who is its first."""
        queue.at = queue.first()[0]
        heapq.heappush(self._heaps[key[1]], (queue.at, key))

    def _first_key(self, *, late: bool, now_s: float) -> _Key | None:
        """The queue whose first was there first, among those whose hosts do not rest."""
        heap = self._heaps[late]
        while heap:
            self.steps += 1
            at, key = heap[0]
            queue = self._queues.get(key)
            if queue is None or queue.at != at or queue.until_s:
                heapq.heappop(heap)  # it has gone, or is elsewhere
                continue
            if queue.first()[0] != at:
                heapq.heappop(heap)
                self._enter(key, queue)
                continue
            rest_s = max(self._rests_for(key[0]), self._rests.get(key[0], 0.0) - now_s)
            if rest_s <= 0:
                return key
            heapq.heappop(heap)
            queue.at, queue.until_s = 0, now_s + rest_s
            heapq.heappush(self._aside, (queue.until_s, key))
        return None

    def _look_at_rested(self, now_s: float) -> None:
        """Have those back whose hosts have rested."""
        while self._aside and self._aside[0][0] <= now_s:
            self.steps += 1
            until_s, key = heapq.heappop(self._aside)
            queue = self._queues.get(key)
            if queue is not None and queue.until_s == until_s:
                queue.until_s = 0.0
                self._rests.pop(key[0], None)
                self._enter(key, queue)

    def _move(self, key: _Key, to: _Key) -> None:
        """Have one queue join another one."""
        moved = self._queues.pop(key, None)
        if moved is None:
            return
        queue = self._queues.setdefault(to, _Queue())
        queue.take_in(moved)
        self._key_of.update(dict.fromkeys(moved, to))
        if not queue.until_s:
            self._enter(to, queue)
