"""How long each host is left alone, and how its connections are shared out.

A host is where a connection goes: behind redirects, or a proxy where one is used. The engine identifies each host by a
number. It counts the connections, never opens more than were granted, and sends nothing to a host that rests
(``ext/rangefetch/host.pxd``). This module is the Python side of that. Its state is shared by the whole process,
whichever manager or download a request belongs to.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import Counter
from collections.abc import Hashable, Mapping
from typing import Protocol, TypeVar

from rangefetch.importing import no_fork
from rangefetch.net.proxies import proxy_for, with_port
from rangefetch.net.sources import host_of
from rangefetch.options import DownloadOptions

__all__ = [
    "HURRY_S",
    "WORTH_A_TURN_S",
    "HostsOfOrigins",
    "count_request",
    "divide",
    "give_back_connections",
    "has_answered",
    "has_sent",
    "host_of_connection",
    "loop_of",
    "next_slot",
    "rest",
    "rests_for",
    "take_connections",
    "wait_before_asking",
    "wait_for_slot",
    "was_asked",
]

HURRY_S = 2.0
"""How long a download whose host has not answered yet may hold up others that wait."""

WORTH_A_TURN_S = 1.0
"""A download sits out a rest shorter than this; during a longer one, downloads from other hosts go first."""

_TURN_S = 30.0  # how long the others wait for the one request that finds out whether a host is back
_LOOK_AGAIN_S = 0.25
_ORIGINS_FRESH_S, _MOST_ORIGINS = 1.0, 4096

K = TypeVar("K", bound=Hashable)


class _Hosts(Protocol):
    """The table of hosts: the engine's, or ``_Table``."""

    def host_number(self, url: str) -> int: ...
    def rest_host(self, host: int, seconds: float, *, for_all: bool = True) -> None: ...
    def host_rests_for(self, host: int) -> float: ...
    def host_has_answered(self, host: int) -> bool: ...
    def host_has_sent(self, host: int) -> bool: ...
    def take_slot(self, host: int, every_us: int) -> float: ...
    def next_slot(self, host: int) -> float: ...
    def take_connections(self, host: int, wanted: int, most: int) -> int: ...
    def give_back_connections(self, host: int, count: int) -> None: ...


class _Table:
    """Replaces the engine's table on systems without the engine, where only aria2 contacts hosts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: dict[str, int] = {}
        self._until_s: dict[int, float] = {}
        self._slots_s: dict[int, float] = {}
        self._taken: Counter[int] = Counter()

    def host_number(self, url: str) -> int:
        with self._lock:
            return self._numbers.setdefault(host_of(url), len(self._numbers) + 1)

    def rest_host(self, host: int, seconds: float, *, for_all: bool = True) -> None:
        with self._lock:
            self._until_s[host] = max(self._until_s.get(host, 0.0), time.monotonic() + seconds)

    def host_rests_for(self, host: int) -> float:
        with self._lock:
            return max(0.0, self._until_s.get(host, 0.0) - time.monotonic())

    def host_has_answered(self, host: int) -> bool:
        return False

    def host_has_sent(self, host: int) -> bool:
        return False

    def take_slot(self, host: int, every_us: int) -> float:
        now_s = time.monotonic()
        with self._lock:
            slot_s = max(self._slots_s.get(host, 0.0), now_s)
            self._slots_s[host] = slot_s + every_us / 1e6
            return slot_s - now_s

    def next_slot(self, host: int) -> float:
        with self._lock:
            return max(0.0, self._slots_s.get(host, 0.0) - time.monotonic())

    def take_connections(self, host: int, wanted: int, most: int) -> int:
        with self._lock:
            granted = max(0, min(wanted, most - self._taken[host]))
            self._taken[host] += granted
            return granted

    def give_back_connections(self, host: int, count: int) -> None:
        with self._lock:
            self._taken[host] -= count


@functools.cache
def _hosts() -> _Hosts:
    try:
        with no_fork:
            import rangefetch._engine as engine
    except ImportError:
        return _Table()
    return engine


def host_of_connection(url: str, options: DownloadOptions) -> int:
    """The number of the host that a request for ``url`` connects to."""
    proxy = proxy_for(url, options)
    return _hosts().host_number(with_port(proxy) if proxy else url)


class HostsOfOrigins:
    """``host_of_connection`` with a cache, for many downloads from a few origins. Not thread-safe."""

    def __init__(self) -> None:
        self._hosts: dict[tuple[str, str, str], int] = {}  # by origin and proxy settings
        self._since_s = 0.0

    def of(self, url: str, options: DownloadOptions) -> int:
        """The number of the host that a request for ``url`` connects to."""
        end = url.find("/", 8)
        key = (url if end < 0 else url[:end], options.proxy, options.no_proxy)
        host = self._hosts.get(key)
        now_s = time.monotonic()
        is_old = now_s - self._since_s > _ORIGINS_FRESH_S
        if host is None or is_old:
            if is_old or len(self._hosts) > _MOST_ORIGINS:
                # The environment's proxy settings may have changed.
                self._hosts.clear()
                self._since_s = now_s
            host = self._hosts[key] = host_of_connection(url, options)
        return host


def rest(host: int, seconds: float, *, at_work: bool = True) -> None:
    """Have nobody contact the host for ``seconds``. Without ``at_work``, transfers under way may continue, but no new
    ones start.

    A longer rest that is already set is kept.
    """
    _hosts().rest_host(host, seconds, for_all=at_work)
    if at_work:
        _turns.begin(host)


def rests_for(host: int) -> float:
    """Seconds for which the host must still be left alone."""
    return _hosts().host_rests_for(host)


def wait_before_asking(host: int) -> float:
    """Seconds until a request outside the engine may be sent to the host. After 0 the caller sends it, and calls
    :func:`was_asked` when it has ended.

    After a rest, one request finds out whether the host is back; the others wait for its result.
    """
    return rests_for(host) or _turns.take(host)


def was_asked(host: int, *, is_back: bool) -> None:
    """Report that a request permitted by :func:`wait_before_asking` was answered, or failed."""
    _turns.end(host, is_back=is_back)


class _Turns:
    """Hosts that have rested and not answered since; for each, until when one request has the turn to try it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until_s: dict[int, float] = {}

    def begin(self, host: int) -> None:
        with self._lock:
            self._until_s[host] = 0.0

    def take(self, host: int) -> float:
        now_s = time.monotonic()
        with self._lock:
            until_s = self._until_s.get(host)
            if until_s is None:
                return 0.0
            if until_s > now_s:
                return _LOOK_AGAIN_S
            self._until_s[host] = now_s + _TURN_S
            return 0.0

    def end(self, host: int, *, is_back: bool) -> None:
        with self._lock:
            if is_back:
                self._until_s.pop(host, None)
            elif host in self._until_s:
                self._until_s[host] = 0.0


_turns = _Turns()


def has_answered(host: int) -> bool:
    """Whether the host has answered any request of this process."""
    return _hosts().host_has_answered(host)


def has_sent(host: int) -> bool:
    """Whether the host has sent a file, or a part of one, to this process."""
    return _hosts().host_has_sent(host)


def wait_for_slot(host: int, options: DownloadOptions, slots: dict[int, float]) -> float:
    """Seconds until ``host_rate`` lets a request outside the engine be sent to the host; 0: now.

    The first call reserves the caller's slot in ``slots``; the call that returns 0 uses it up.
    """
    every_us = options.request_every_us
    if not every_us:
        return 0.0
    now_s = time.monotonic()
    at_s = slots.get(host, 0.0)
    if not at_s:
        at_s = slots[host] = now_s + _hosts().take_slot(host, every_us)
    if at_s > now_s:
        return at_s - now_s
    del slots[host]
    return 0.0


def count_request(host: int, options: DownloadOptions) -> None:
    """Count a request outside the engine that was sent without a slot: it delays the next one by one interval."""
    if every_us := options.request_every_us:
        _hosts().take_slot(host, every_us)


def next_slot(host: int) -> float:
    """Seconds until a request without a slot could be sent to the host."""
    return _hosts().next_slot(host)


def take_connections(host: int, wanted: int, most: int) -> int:
    """Take up to ``wanted`` connections to the host for requests outside the engine, and return how many were granted:
    the host has no more than ``most`` in all. Return them with :func:`give_back_connections` once they are closed.
    """
    return _hosts().take_connections(host, wanted, most)


def give_back_connections(host: int, count: int) -> None:
    """Return ``count`` connections that are now closed."""
    _hosts().give_back_connections(host, count)


def loop_of(host: int, most: int, files: int, loops: int) -> int | None:
    """The loop to which all files of a host should go; None: any loop. A host gets one loop if ``most``, the number of
    connections it may have, is so small for its ``files`` that the loops would keep taking them from each other.
    """
    return host % loops if most < 2 * loops or most <= files else None


def divide(wanted: Mapping[K, int]) -> dict[K, int]:
    """How many connections each download from one host may have, given how many each would have alone.

    Together they get as many as the largest would have alone. Each gets at least one; where that adds up to more than
    the host allows, the engine makes them wait for each other.
    """
    most = max(wanted.values(), default=0)
    return {each: min(alone, max(1, most // len(wanted))) for each, alone in wanted.items()}
