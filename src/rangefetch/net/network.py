"""Is there a network? Told by who answers."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from rangefetch.importing import no_fork

__all__ = ["Network"]

_CONNECT_S = 3.0


Place = tuple[str, int]


class Network:
    """Whether this machine has one, told by who answers: the servers that are wanted, and ``hosts`` (``host:port``)."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self._hosts = [(name, int(port)) for name, _, port in (host.rpartition(":") for host in hosts)]
        self._heard: set[Place] = set()

    def heard(self, url: str) -> None:
        """The server of ``url`` has answered."""
        place = _place_of(url)
        if place is not None:
            self._heard.add(place)

    def is_there(self, urls: Sequence[str], *, told: bool) -> bool:
        """Whether there is a network. May take seconds, so not on a thread that others wait for.

        An interface beyond loopback must be up. Then one TCP connection is enough, to the server of one of ``urls``
        (those that are wanted, or the proxy) or to one of the hosts, which are all asked at once; a refusal is an
        answer, too. Silence means that there is no network where the system said so before (``told``), or where one
        of them has ever answered. Otherwise it may as well be a dead server in a closed network.
        """
        wanted = [place for place in map(_place_of, urls) if place is not None]
        if not any(_is_loopback(host) for host, _ in wanted) and not _has_interface():
            return False
        places = list(dict.fromkeys((*wanted, *self._hosts)))
        answering = _first_to_answer(places)
        if answering is not None:
            self._heard.add(answering)
            return True
        return not told and self._heard.isdisjoint(places)


def _place_of(url: str) -> Place | None:
    parts = urlsplit(url)
    if not parts.hostname:
        return None
    return parts.hostname, parts.port or (443 if parts.scheme.lower() == "https" else 80)


def _first_to_answer(places: Sequence[Place]) -> Place | None:
    """Ask all of them at once; None where all keep silent."""
    with no_fork:  # few downloads ever ask
        import queue
        import socket  # noqa: F401 - for the threads, which must not import

    answers: queue.SimpleQueue[Place | None] = queue.SimpleQueue()

    def ask(place: Place) -> None:
        answers.put(place if _answers(*place) else None)

    for place in places:
        try:
            threading.Thread(target=ask, args=(place,), name="rangefetch-probe", daemon=True).start()
        except RuntimeError:  # no thread is to be had
            answers.put(None)
    deadline_s = time.monotonic() + _CONNECT_S + 1.0  # names may take longer than that, and are not waited for
    with contextlib.suppress(queue.Empty):
        for _ in places:
            answering = answers.get(timeout=max(0.0, deadline_s - time.monotonic()))
            if answering is not None:
                return answering
    return None


def _is_loopback(host: str) -> bool:
    return host == "localhost" or host.startswith("127.") or host == "::1"


def _has_interface() -> bool:
    with no_fork:
        import psutil

    return any(
        stats.isup and not all(_is_loopback(address.address) for address in addresses)
        for name, addresses in psutil.net_if_addrs().items()
        if (stats := psutil.net_if_stats().get(name)) is not None and not name.startswith("lo")
    )


def _answers(host: str, port: int) -> bool:
    with no_fork:
        import socket

    try:
        with socket.create_connection((host, port), timeout=_CONNECT_S):
            return True
    except ConnectionRefusedError:
        return True
    except socket.gaierror as error:
        # "There is no such name" is the word of a name server. macOS says it without any, too.
        return sys.platform == "linux" and error.errno in (socket.EAI_NONAME, socket.EAI_NODATA)
    except OSError:
        return False
