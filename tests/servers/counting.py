"""A server that counts its simultaneous connections and requests, and records when requests arrived."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from types import TracebackType
from typing import NamedTuple, Self

from servers.listening import listen

__all__ = ["CountingServer", "Seen"]

_RANGE = re.compile(rb"\r\nrange: *bytes=(\d+)-(\d+)", re.IGNORECASE)


class Seen(NamedTuple):
    """A request: when it arrived, its path, and the status that it got."""

    time_s: float
    path: str
    status: int


class CountingServer:
    """Answers every path with ``size`` bytes, after ``delay_s``; keeps connections open, and counts exactly.

    A connection counts until its client has closed it: before counting a new one, the server checks which are closed.
    After ``refuse``, requests are answered with a status and Retry-After for some time.
    """

    def __init__(self, *, size: int = 1000, delay_s: float = 0.0) -> None:
        self.size = size
        self.delay_s = delay_s
        self.most_connections = 0
        self.most_requests = 0
        self.connections = 0
        self.seen: list[Seen] = []
        self._refusal = (0.0, 0, "")
        self._refuse_at = -1
        self._refuse_for_s = 0.0
        self._at_work = 0
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._listener = listen(512)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="counting-server", daemon=True).start()

    def url(self, path: object) -> str:
        """The URL of a file."""
        return f"http://127.0.0.1:{self.port}/{path}"

    def refuse(self, status: int, seconds: float, *, after: int = 0) -> None:
        """Once the server has had ``after`` requests in all, refuse requests for ``seconds``, stated in Retry-After."""
        self._refusal = (0.0, status, str(round(seconds)))
        self._refuse_at, self._refuse_for_s = after, seconds

    @property
    def requests_now(self) -> int:
        """How many requests it is answering."""
        return self._at_work

    @property
    def refused(self) -> int:
        """How many requests were refused."""
        return sum(each.status >= 400 for each in self.seen)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        with self._lock:
            for each in self._open:
                each.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._open = [each for each in self._open if _is_open(each)]
                self._open.append(connection)
                self.connections += 1
                self.most_connections = max(self.most_connections, len(self._open))
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        received = b""
        with connection, contextlib.suppress(OSError):
            while True:
                while b"\r\n\r\n" not in received:
                    piece = connection.recv(1 << 16)
                    if not piece:
                        return
                    received += piece
                head, _, received = received.partition(b"\r\n\r\n")
                answer = self._answer(head)
                # Before sending, because the client may send its next request as soon as it has the reply.
                with self._lock:
                    self._at_work -= 1
                connection.sendall(answer)

    def _answer(self, head: bytes) -> bytes:
        now_s = time.monotonic()
        with self._lock:
            self._at_work += 1
            self.most_requests = max(self.most_requests, self._at_work)
            until_s, status, retry_after = self._refusal
            if len(self.seen) == self._refuse_at:
                until_s = now_s + self._refuse_for_s
                self._refusal = (until_s, status, retry_after)
            refused = now_s < until_s
            self.seen.append(Seen(now_s, head.split()[1].decode(), status if refused else 206))
        if self.delay_s:
            time.sleep(self.delay_s)
        if refused:
            return f"HTTP/1.1 {status} No\r\nRetry-After: {retry_after}\r\nContent-Length: 0\r\n\r\n".encode()
        found = _RANGE.search(head)
        start, last = (int(found[1]), min(int(found[2]), self.size - 1)) if found else (0, self.size - 1)
        lines = ["HTTP/1.1 206 Partial Content" if found else "HTTP/1.1 200 OK", 'ETag: "1"']
        if found:
            lines.append(f"Content-Range: bytes {start}-{last}/{self.size}")
        lines.append(f"Content-Length: {last - start + 1}")
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + b"x" * (last - start + 1)


def _is_open(connection: socket.socket) -> bool:
    """Whether the client still has the connection open."""
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
