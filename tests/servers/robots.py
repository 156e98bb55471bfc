"""A server with a robots.txt."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

__all__ = ["RobotsServer"]

BODY = b"what may be fetched, or may not"


class RobotsServer:
    """Answers every path with ``BODY``, and ``/robots.txt`` with ``rules`` and ``status``, after ``delay_s``."""

    def __init__(self, rules: str = "# none\n", *, status: int = 200, delay_s: float = 0.0) -> None:
        self.seen: list[tuple[float, str]] = []
        """When each request came, and for what."""
        self.agents: set[str] = set()
        seen, agents = self.seen, self.agents

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                seen.append((time.monotonic(), self.path))
                agents.add(self.headers["User-Agent"])
                body, code = BODY, 200
                if self.path == "/robots.txt":
                    time.sleep(delay_s)
                    body, code = rules.encode(), status
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # the client has gone

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def paths(self) -> list[str]:
        """What was asked for, in order."""
        return [path for _, path in self.seen]

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
