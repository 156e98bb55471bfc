"""The governor of hosts: for how long each is to be left alone, and how its connections are divided.

A host is where a connection goes: behind redirects, and at the proxy where one is used. The engine knows each by a
number; it counts their connections, sees to it that there are no more than were granted, and sends nothing to one that
rests (``ext/rangefetch/host.pxd``). Here is what Python has to say to that. It holds for the whole process, whatever
manager or download a request belongs to.
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
"""How long a host that has not answered yet may hold up others that wait."""

WORTH_A_TURN_S = 1.0
"""A rest that is shorter is waited for; during a longer one what waits for other hosts comes first."""

_TURN_S = 30.0  # for which the one that asks whether a host is back is waited for
_LOOK_AGAIN_S = 0.25
_ORIGINS_FRESH_S, _MOST_ORIGINS = 1.0, 4096

K = TypeVar("K", bound=Hashable)


class _Hosts(Protocol):
    """Who keeps the table of hosts."""

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
    """The table on systems for which there is no engine, where aria2 alone asks hosts."""

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
    """The number of the host to which a request for ``url`` goes."""
    proxy = proxy_for(url, options)
    return _hosts().host_number(with_port(proxy) if proxy else url)


class HostsOfOrigins:
    """``host_of_connection`` for many downloads, which come from a few origins. For one thread at a time."""

    def __init__(self) -> None:
        self._hosts: dict[tuple[str, str, str], int] = {}  # where requests for an origin go
        self._since_s = 0.0

    def of(self, url: str, options: DownloadOptions) -> int:
        """The number of the host."""
        end = url.find("/", 8)
        key = (url if end < 0 else url[:end], options.proxy, options.no_proxy)
        host = self._hosts.get(key)
        now_s = time.monotonic()
        is_old = now_s - self._since_s > _ORIGINS_FRESH_S
        if host is None or is_old:
            if is_old or len(self._hosts) > _MOST_ORIGINS:
                # The proxies of the environment may be others.
                self._hosts.clear()
                self._since_s = now_s
            host = self._hosts[key] = host_of_connection(url, options)
        return host


def rest(host: int, seconds: float, *, at_work: bool = True) -> None:
    """Nobody asks the host for so long. Without ``at_work``, what is at work there may go on, and nothing else begins.

    A longer rest that the host has already stays as it is.
    """
    _hosts().rest_host(host, seconds, for_all=at_work)
    if at_work:
        _turns.begin(host)


def rests_for(host: int) -> float:
    """Seconds for which the host is still to be left alone."""
    return _hosts().host_rests_for(host)


def wait_before_asking(host: int) -> float:
    """Seconds until a request outside the engine may be sent to the host; 0: now, and then :func:`was_asked` follows.

    When a rest is over, one request finds out whether the host is back; the others wait for its answer.
    """
    return rests_for(host) or _turns.take(host)


def was_asked(host: int, *, is_back: bool) -> None:
    """A request for which :func:`wait_before_asking` gave leave was answered, or failed."""
    _turns.end(host, is_back=is_back)


class _Turns:
    """The hosts that have rested and not answered since, and until when somebody has the turn to ask them."""

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
    """Whether the host has answered anything in this process."""
    return _hosts().host_has_answered(host)


def has_sent(host: int) -> bool:
    """Whether the host has sent a file, or a part of one, in this process."""
    return _hosts().host_has_sent(host)


def wait_for_slot(host: int, options: DownloadOptions, slots: dict[int, float]) -> float:
    """Seconds until a request outside the engine may be sent to the host, as ``host_rate`` has it; 0: now. Whoever is
    to send it has its slot from the first time on that this is asked, in ``slots``, and not any more after 0."""
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
    """A request outside the engine is sent without a slot: the next one waits for that much longer."""
    if every_us := options.request_every_us:
        _hosts().take_slot(host, every_us)


def next_slot(host: int) -> float:
    """Seconds until a request that has no leave yet might be sent to the host."""
    return _hosts().next_slot(host)


def take_connections(host: int, wanted: int, most: int) -> int:
    """So many connections to the host for requests outside the engine, or as many as there are left of ``most``; they
    are given back (:func:`give_back_connections`) when they are closed."""
    return _hosts().take_connections(host, wanted, most)


def give_back_connections(host: int, count: int) -> None:
    """So many of them are closed."""
    _hosts().give_back_connections(host, count)


def loop_of(host: int, most: int, files: int, loops: int) -> int | None:
    """Which loop has a host with so few connections (``most``) for its ``files`` that loops would take them from each
    other all the time; None: any may have it."""
    return host % loops if most < 2 * loops or most <= files else None


def divide(wanted: Mapping[K, int]) -> dict[K, int]:
    """How many connections each of the downloads from one host may have, by how many each would have alone.

    What the one that wants the most may have alone, all have together; each has one at least, and where that is more
    than there may be, the engine has them wait for each other.
    """
    most = max(wanted.values(), default=0)
    return {each: min(alone, max(1, most // len(wanted))) for each, alone in wanted.items()}
