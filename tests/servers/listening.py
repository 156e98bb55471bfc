"""Ports for servers of tests.

What a process knows of a host, such as for how long it is to be left alone, it must not know of the next server, which
might get the port of one that is gone.
"""

import contextlib
import socket

__all__ = ["free_ports", "listen", "refused_port"]

_used: set[int] = set()  # by servers of this process
_refusing: list[socket.socket] = []


def listen(backlog: int = 128) -> socket.socket:
    """A listener on a port of 127.0.0.1 that no server of this process has had."""
    with contextlib.ExitStack() as others:  # open until another one is found, or the system would name it again
        while True:
            listener = socket.create_server(("127.0.0.1", 0), backlog=backlog)
            port = listener.getsockname()[1]
            if port not in _used:
                _used.add(port)
                return listener
            others.enter_context(listener)


def free_ports(count: int) -> list[int]:
    """Ports on which nothing listens, for a program that is to be told one."""
    with contextlib.ExitStack() as stack:
        return [stack.enter_context(listen()).getsockname()[1] for _ in range(count)]


def refused_port() -> int:
    """A port of 127.0.0.1 on which nothing listens. Nobody is given it by chance while this process runs, but a server
    that is told to use it may."""
    while True:
        holder = socket.socket()
        _refusing.append(holder)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        port: int = holder.getsockname()[1]
        if port not in _used:
            _used.add(port)
            return port
