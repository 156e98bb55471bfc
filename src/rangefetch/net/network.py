"""Finds out whether this machine has a network, by connecting to servers."""

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
    """Whether this machine has a network: whether servers of downloads, or ``hosts`` (``host:port``), respond.

    It also counts the downloads that wait for the network, so that a loss is announced once and not by each of them.
    """

    def __init__(self, hosts: Sequence[str]) -> None:
        self._hosts = [(name, int(port)) for name, _, port in (host.rpartition(":") for host in hosts)]
        self._heard: set[Place] = set()
        self._waiting = 0
        self._is_known_lost = False

    def heard(self, url: str) -> None:
        """Note that the server of ``url`` has responded."""
        place = _place_of(url)
        if place is not None:
            self._heard.add(place)

    def note_lost(self) -> bool:
        """A download begins to wait for the network. Returns whether the loss is news."""
        self._waiting += 1
        is_news, self._is_known_lost = not self._is_known_lost, True
        return is_news

    def note_back(self) -> bool:
        """A download has found the network again. Returns whether that is news."""
        is_news, self._is_known_lost = self._is_known_lost, False
        return is_news

    def note_left(self) -> None:
        """A download no longer waits for the network, for whatever reason."""
        self._waiting -= 1
        if not self._waiting:
            self._is_known_lost = False

    def is_there(self, urls: Sequence[str], *, told: bool) -> bool:
        """Whether there is a network. May block for seconds, so do not call it on a thread that others wait for.

        An interface other than loopback must be up, unless a URL is on loopback. Then one TCP connection is enough, to
        the server of one of ``urls`` (those of the download, or the proxy) or to one of the hosts. All are tried at
        once, and a refused connection also counts as a response. If none responds, there is no network if the system
        reported that before (``told``), or if one of them has ever responded. Otherwise the server may just be down, in
        a network that does not reach the other hosts.
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
    """Connect to all places at once and return the first that responds, or None."""
    with no_fork:  # not at the top: few downloads need this
        import queue
        import socket  # noqa: F401 - for the threads, which must not import

    answers: queue.SimpleQueue[Place | None] = queue.SimpleQueue()

    def ask(place: Place) -> None:
        answers.put(place if _answers(*place) else None)

    for place in places:
        try:
            threading.Thread(target=ask, args=(place,), name="rangefetch-probe", daemon=True).start()
        except RuntimeError:  # no thread can be started
            answers.put(None)
    deadline_s = time.monotonic() + _CONNECT_S + 1.0  # name lookups may take longer, and are not waited for
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
        # "No such name" is the response of a name server. But macOS reports it without having reached one.
        return sys.platform == "linux" and error.errno in (socket.EAI_NONAME, socket.EAI_NODATA)
    except OSError:
        return False
