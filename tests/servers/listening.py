"""Ports for the test servers.

A process remembers things about a host and port, such as how long to leave it alone. So that this does not apply to
another server, a port is not used twice in a process.
"""

import contextlib
import socket

__all__ = ["free_ports", "listen", "refused_port"]

_used: set[int] = set()  # by servers of this process
_refusing: list[socket.socket] = []


def listen(backlog: int = 128) -> socket.socket:
    """A listening socket on a port of 127.0.0.1 that no server of this process has had."""
    with contextlib.ExitStack() as others:  # keeps rejected ports open, or the system would choose them again
        while True:
            listener = socket.create_server(("127.0.0.1", 0), backlog=backlog)
            port = listener.getsockname()[1]
            if port not in _used:
                _used.add(port)
                return listener
            others.enter_context(listener)


def free_ports(count: int) -> list[int]:
    """Ports on which nothing listens, for programs that are told which port to use."""
    with contextlib.ExitStack() as stack:
        return [stack.enter_context(listen()).getsockname()[1] for _ in range(count)]


def refused_port() -> int:
    """A port of 127.0.0.1 on which nothing listens. While this process runs the system gives it to nobody, but a server
    that is told to use it can."""
    while True:
        holder = socket.socket()
        _refusing.append(holder)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        port: int = holder.getsockname()[1]
        if port not in _used:
            _used.add(port)
            return port
