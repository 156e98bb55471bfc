"""A server whose answers come from a function in the test."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import NamedTuple, Self

__all__ = ["Answer", "Asked", "ScriptedServer"]


class Asked(NamedTuple):
    """A request: its target, its headers by lower-case name, and when it arrived."""

    path: str
    headers: Mapping[str, str]
    at_s: float


class Answer(NamedTuple):
    body: bytes = b""
    headers: Mapping[str, str] = {}
    status: int = 200


class ScriptedServer:
    """Answers each GET with what ``script`` returns; plain answers are cut to the requested range."""

    def __init__(self, script: Callable[[Asked], Answer]) -> None:
        self.seen: list[Asked] = []
        seen = self.seen

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                asked = Asked(
                    self.path, {name.lower(): value for name, value in self.headers.items()}, time.monotonic()
                )
                seen.append(asked)
                answer = script(asked)
                body, status, headers = answer.body, answer.status, dict(answer.headers)
                start, _, end = asked.headers.get("range", "").removeprefix("bytes=").partition("-")
                if status == 200 and start and int(start) < len(body):
                    last = min(int(end), len(body) - 1)
                    headers["Content-Range"] = f"bytes {start}-{last}/{len(body)}"
                    body, status = body[int(start) : last + 1], 206
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body))}.items() | headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False
            request_queue_size = 128

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # the client has left

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def paths(self) -> list[str]:
        """The requested paths, in order."""
        return [asked.path for asked in self.seen]

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
