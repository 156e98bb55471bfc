"""Ports for programs that cannot choose a free port themselves."""

import contextlib
import itertools
import random
import socket
from collections.abc import Iterator

__all__ = ["PORTS"]


def _ports() -> Iterator[int]:
    for port in itertools.count(random.randrange(10_000, 28_000, 5), 5):
        with contextlib.ExitStack() as held:
            try:
                for each in range(port, port + 5):
                    held.enter_context(socket.create_server(("127.0.0.1", each)))
            except OSError:
                continue
        yield port


PORTS = _ports()
"""Each with the four after it: apart from each other, from other test runs, and from the ports that the system gives
away, so that a test which wants one finds it free."""
