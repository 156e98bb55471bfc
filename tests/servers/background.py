"""Servers of the standard library that work beside a test."""

import http.server
import socketserver
import threading
from typing import Self

__all__ = ["Background", "Handler"]


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
