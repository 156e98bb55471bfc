"""A fast server for one file on 127.0.0.1, with ranges: for the demo and for quick trials.

``sendfile`` copies from the page cache to the socket, in one thread per connection, so that the client is what is
measured.
"""

from __future__ import annotations

import email.utils
import http.server
import json
import os
import re
import sys
import threading
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_PIECE = 8 << 20


class LoopbackServer:
    """A context manager that serves ``path`` at ``url``, and counts.

    ``connections`` were accepted, ``requests`` were answered, and ``bytes_sent`` counts the bytes of bodies.
    """

    def __init__(self, path: str | os.PathLike[str], handler: type[Handler] | None = None, *, port: int = 0) -> None:
        self.path = Path(path)
        self.connections = 0
        self.requests = 0
        self.bytes_sent = 0
        self.size = self.path.stat().st_size
        modified = self.path.stat().st_mtime_ns
        self.etag = f'"{modified:x}-{self.size:x}"'
        self.last_modified = email.utils.formatdate(modified // 10**9, usegmt=True)
        self.target = f"/{quote(self.path.name)}"
        self._lock = threading.Lock()
        self.handler: Any = type("Handler", (handler or Handler,), {"loopback": self})
        self._server = _Server(("127.0.0.1", port), self.handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="loopback", daemon=True)

    @property
    def url(self) -> str:
        """The URL of the file."""
        return f"http://127.0.0.1:{self._server.server_address[1]}{self.target}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def count(self, *, connections: int = 0, requests: int = 0, bytes_sent: int = 0) -> None:
        """Add to the counters; called by the handlers' threads."""
        with self._lock:
            self.connections += connections
            self.requests += requests
            self.bytes_sent += bytes_sent

    def counters(self) -> dict[str, int]:
        """All counters, read at once."""
        with self._lock:
            return {
                "connections": self.connections,
                "requests": self.requests,
                "bytesSent": self.bytes_sent,
            }


class _Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1024

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect early: they may cut a range short."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    loopback: LoopbackServer

    def setup(self) -> None:
        super().setup()
        self.loopback.count(connections=1)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def _answer(self, *, with_body: bool) -> None:
        served = self.loopback
        served.count(requests=1)
        if self.path.partition("?")[0] != served.target:
            self._say(HTTPStatus.NOT_FOUND, 0)
            return
        asked = self._asked_range()
        if asked is None:
            start, end = 0, served.size
            self._say(HTTPStatus.OK, served.size)
        else:
            start, end = asked
            if start >= end:
                refusal = f"bytes */{served.size}"
                self._say(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, 0, content_range=refusal)
                return
            content_range = f"bytes {start}-{end - 1}/{served.size}"
            self._say(HTTPStatus.PARTIAL_CONTENT, end - start, content_range=content_range)
        if with_body:
            self._send(start, end)

    def _asked_range(self) -> tuple[int, int] | None:
        """The half-open range to send; None: the whole file; an empty range: it is beyond the end."""
        served = self.loopback
        match = _RANGE.fullmatch(self.headers.get("Range", ""))
        if match is None or self.headers.get("If-Range", served.etag) not in (
            served.etag,
            served.last_modified,
        ):
            return None
        first, last = match.groups()
        if first:
            return int(first), min(int(last) + 1, served.size) if last else served.size
        return (max(served.size - int(last), 0), served.size) if last else None

    def _say(self, status: HTTPStatus, length: int, *, content_range: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("Accept-Ranges", "bytes")
        if status != HTTPStatus.NOT_FOUND:
            self.send_header("ETag", self.loopback.etag)
            self.send_header("Last-Modified", self.loopback.last_modified)
            self.send_header("Content-Type", "application/octet-stream")
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()

    def _send(self, start: int, end: int) -> None:
        with self.loopback.path.open("rb") as file:
            while start < end:
                sent = os.sendfile(self.connection.fileno(), file.fileno(), start, min(end - start, _PIECE))
                if sent == 0:  # the file has shrunk: closing the connection makes the short body visible
                    self.close_connection = True
                    return
                start += sent
                self.loopback.count(bytes_sent=sent)


class Liar(Handler):
    """While ``lying``, every second response to a range has another range, ends early, or is a 503."""

    lying = False
    told = 0

    def _answer(self, *, with_body: bool) -> None:
        asked = self._asked_range()
        if not type(self).lying or asked is None or self.loopback.requests % 2:
            super()._answer(with_body=with_body)
            return
        served, (start, end) = self.loopback, asked
        served.count(requests=1)
        lie = type(self).told % 3
        type(self).told += 1
        if lie == 0:  # a range that was not asked for
            other = (start + served.size // 2) % max(served.size - (end - start), 1)
            stated = f"bytes {other}-{other + end - start - 1}/{served.size}"
            self._say(HTTPStatus.PARTIAL_CONTENT, end - start, content_range=stated)
            self._send(other, other + end - start)
        elif lie == 1:  # fewer bytes than announced
            self._say(HTTPStatus.PARTIAL_CONTENT, end - start, content_range=f"bytes {start}-{end - 1}/{served.size}")
            self._send(start, start + (end - start) // 3)
            self.close_connection = True
        else:
            self._say(HTTPStatus.SERVICE_UNAVAILABLE, 0)


def main() -> None:
    """Serve the file given on the command line, at the port given after it, until stdin ends.

    Prints the URL first and the counters last. The lines ``lie`` and ``be honest`` on stdin turn lying on and off.
    """
    port = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    with LoopbackServer(sys.argv[1], Liar, port=port) as server:
        print(server.url, flush=True)
        kind = server.handler
        for line in sys.stdin:
            kind.lying = line.strip() == "lie"
        print(json.dumps(server.counters() | {"lies": kind.told}), flush=True)


if __name__ == "__main__":
    main()
