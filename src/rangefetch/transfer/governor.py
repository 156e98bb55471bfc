"""The governor of hosts: for how long each is to be left alone, and how its connections are divided.

A host is where a connection goes: behind redirects, and at the proxy where one is used. The engine knows each by a
number; it counts their connections, sees to it that there are no more than were granted, and sends nothing to one that
rests (``ext/rangefetch/host.pxd``). Here is what Python has to say to that. It holds for the whole process, whatever
manager, download or batch a request belongs to.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

from rangefetch.net.proxies import proxy_for, with_port
from rangefetch.options import DownloadOptions

__all__ = ["HURRY_S", "divide", "has_answered", "host_of_connection", "loop_of", "rest", "rests_for"]

HURRY_S = 2.0
"""How long a host that has not answered yet may hold up others that wait."""

K = TypeVar("K", bound=Hashable)


def host_of_connection(url: str, options: DownloadOptions) -> int:
    """The number of the host to which a request for ``url`` goes."""
    from rangefetch import _engine

    proxy = proxy_for(url, options)
    return _engine.host_number(with_port(proxy) if proxy else url)


def rest(host: int, seconds: float, *, at_work: bool = True) -> None:
    """Nobody asks the host for so long. Without ``at_work``, what is at work there may go on, and nothing else begins.

    A longer rest that the host has already stays as it is.
    """
    from rangefetch import _engine

    _engine.rest_host(host, seconds, for_all=at_work)


def rests_for(host: int) -> float:
    """Seconds for which the host is still to be left alone."""
    from rangefetch import _engine

    return _engine.host_rests_for(host)


def has_answered(host: int) -> bool:
    """Whether the host has answered anything in this process."""
    from rangefetch import _engine

    return _engine.host_has_answered(host)


def loop_of(host: int, most: int, loops: int) -> int | None:
    """Which loop has a host to which there may be so few connections that loops would take them from each other all
    the time; None: any may have it."""
    return host % loops if most < 2 * loops else None


def divide(wanted: Mapping[K, int]) -> dict[K, int]:
    """How many connections each of the downloads from one host may have, by how many each would have alone.

    What the one that wants the most may have alone, all have together; each has one at least, and where that is more
    than there may be, the engine has them wait for each other.
    """
    most = max(wanted.values(), default=0)
    return {each: min(alone, max(1, most // len(wanted))) for each, alone in wanted.items()}
