"""Servers that work beside a test: those of the standard library, and how those of asyncio end."""

import asyncio
import http.server
import socketserver
import threading
from typing import Self

__all__ = ["Background", "Handler", "all_ended"]


async def all_ended() -> None:
    """Cancel all other tasks of this loop, and have the transports that they close be closed."""
    while True:
        await asyncio.sleep(0)  # what was accepted last has begun, and closes what it was given
        if not (others := asyncio.all_tasks() - {asyncio.current_task()}):
            break
        for task in others:
            task.cancel()
        await asyncio.wait(others)
    await asyncio.sleep(0)


class Handler(http.server.BaseHTTPRequestHandler):
    """Says nothing on the test's stderr."""

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class Background:
    """A server at work in threads of its own while the block lasts. Replies that nobody reads outlive it."""

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
