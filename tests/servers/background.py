"""Servers that run in the background of a test: the standard library's, and the shutdown of asyncio's."""

import asyncio
import http.server
import socketserver
import threading
from typing import Self

__all__ = ["Background", "Handler", "all_ended"]


async def all_ended() -> None:
    """Cancel all other tasks of this event loop, and wait until their transports are closed."""
    while True:
        await asyncio.sleep(0)  # lets the handler of the last connection start, so that it closes its transport
        if not (others := asyncio.all_tasks() - {asyncio.current_task()}):
            break
        for task in others:
            task.cancel()
        await asyncio.wait(others)
    await asyncio.sleep(0)


class Handler(http.server.BaseHTTPRequestHandler):
    """A handler that does not log to stderr."""

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class Background:
    """Runs a server in its own threads for the duration of a ``with`` block. Replies that nobody reads outlive it."""

    def __init__(self, server: socketserver.ThreadingTCPServer | http.server.ThreadingHTTPServer) -> None:
        self.server = server
        server.daemon_threads = True
        self._thread = threading.Thread(target=server.serve_forever, args=(0.01,))

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()
