"""The requests that a server has received."""

import itertools
from collections.abc import Iterable

from servers.misbehaving import MisbehavingServer, Request

__all__ = ["gaps", "paths", "sent"]


def sent(requests: Iterable[Request]) -> int:
    """The body bytes sent in reply to these requests."""
    return sum(request.bytes_sent for request in requests)


def paths(server: MisbehavingServer) -> list[str]:
    """The requested routes, in order."""
    return [request.path.split("/")[1].partition("?")[0] for request in server.requests]


def gaps(requests: list[Request]) -> list[float]:
    """The seconds between one request and the next."""
    return [after.time - before.time for before, after in itertools.pairwise(requests)]
