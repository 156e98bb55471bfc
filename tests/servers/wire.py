"""HTTP/1.1 on a socket, for a server that must be able to break its rules: reads requests, writes replies."""

import contextlib
import re
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Literal, TypeVar

__all__ = ["Break", "Hangup", "Line", "Pace", "Reply", "Request", "asked_range", "parse_head"]

_PIECE = 256 << 10  # bytes handed to the socket at once
# One TLS record. For a larger piece, send() would not report the part that was sent before the client hung up.
_TLS_PIECE = 16 << 10
_HEAD_LIMIT = 64 << 10
_MAX_LATENESS = 0.05  # seconds that a paced sender may catch up
T = TypeVar("T")

_NO_LINGER = struct.pack("ii", 1, 0)
# Set when the client has hung up, even if bytes that it sent before are unread. macOS lacks it and sets POLLHUP.
_HANGUP = getattr(select, "POLLRDHUP", 0)


class Hangup(Exception):
    """This connection is over: the client left, the server stops, or the reply ended it."""


@dataclass
class Request:
    """One request, as received and as answered. The counts change while the answer is being sent."""

    method: str
    path: str
    """The request target, with its query."""
    headers: dict[str, str]
    """By lower-case name."""
    range: tuple[int, int] | None
    """Half-open, as asked for: the end may lie beyond the file. None: no Range header, or no single range."""
    connection: int
    """Connections are numbered from 1 as they are accepted."""
    time: float
    """``time.monotonic()`` when the head had arrived."""
    status: int = 0
    """0: no status line was sent."""
    finished: bool = False
    """The server is through with it, in whichever way it ended."""
    _bytes_sent: int = 0
    # Held from before the bytes are sent until they are counted, so that whoever received them finds them counted.
    _counting: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def bytes_sent(self) -> int:
        """Body bytes handed to the socket; neither headers nor chunk framing."""
        with self._counting:
            return self._bytes_sent

    def count(self, send: Callable[[memoryview], int], data: memoryview) -> int:
        """Calls ``send`` and counts what it returns."""
        with self._counting:
            sent = send(data)
            self._bytes_sent += sent
            return sent


class Pace:
    """A rate in bytes per second, for one reply or shared by several."""

    def __init__(self, bytes_per_second: int) -> None:
        self.bytes_per_second = bytes_per_second
        self._due = 0.0
        self._lock = threading.Lock()

    def reserve(self, size: int) -> float:
        """The seconds to wait before ``size`` more bytes may be sent."""
        with self._lock:
            now = time.monotonic()
            self._due = max(self._due, now - _MAX_LATENESS) + size / self.bytes_per_second
            return self._due - now


@dataclass(frozen=True)
class Break:
    """Where and how a reply stops short."""

    how: Literal["close", "reset", "stall"]
    after: int
    """Body bytes sent before; a shorter body is sent whole and nothing breaks."""
    seconds: float = 0.0
    """How long a stall lasts before the rest follows."""
    headers: bool = True
    """False: it breaks before the status line."""


@dataclass
class Reply:
    """A reply to send. Faults change the reply that a good server would give."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: memoryview = field(default_factory=lambda: memoryview(b""))
    start: int = 0
    """Where in the file ``body`` begins."""
    tail: bytes = b""
    """Body bytes beyond what the headers promise of the file."""
    framing: Literal["length", "chunked", "close"] = "length"
    length: int | None = None
    """The Content-Length, where it is not the body's real length."""
    trailer: str = ""
    """A header line after the last chunk."""
    close: bool = False
    version: str = "HTTP/1.1"
    extra: list[str] = field(default_factory=list)
    """More header lines, as they are."""
    odd: bool = False
    """Header lines in the strangest form that HTTP allows."""
    preface: bytes = b""
    """Sent before the status line."""
    raw: bytes | None = None
    """Sent in place of everything else, then the connection is closed."""
    delay: float = 0.0
    """Seconds before the status line."""
    pace: Pace | None = None
    broken: Break | None = None
    lingers: float = 0.0
    """Seconds between the last byte and what ends the reply: its last chunk, the end of the connection, or, where more
    was promised, nothing."""
    on_end: Callable[[], None] | None = None
    """Called when the reply is over, in whichever way."""

    def head(self) -> bytes:
        """The status line and the headers, with the empty line after them."""
        headers = dict(self.headers)
        if self.framing == "length":
            promised = len(self.body) + len(self.tail) if self.length is None else self.length
            headers["Content-Length"] = str(promised)
        elif self.framing == "chunked":
            headers["Transfer-Encoding"] = "chunked"
        if self.close:
            headers["Connection"] = "close"
        phrase = HTTPStatus(self.status).phrase if self.status in list(HTTPStatus) else "Unknown"
        lines = [f"{self.version} {self.status} {phrase}"]
        for name, value in headers.items():
            lines.append(f"{name.lower()}:{value}  \t" if self.odd else f"{name}: {value}")
        lines += self.extra
        return self.preface + "\r\n".join([*lines, "", ""]).encode("latin-1")


def parse_head(head: bytes) -> tuple[str, str, dict[str, str]]:
    """Method, target and headers (lower-case names) of a request; ``ValueError`` for anything else."""
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _version = first.split(" ")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise ValueError(f"not a header: {line!r}")
        name, value = name.lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return method, target, headers


def asked_range(header: str, size: int) -> tuple[int, int] | None:
    """The half-open range that a Range header asks of a file of ``size`` bytes.

    The end of ``bytes=A-B`` is not limited to the file. None means that there is no single range (several, malformed,
    or no header); a server then sends the whole file.
    """
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", header.replace(" ", ""))
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        return max(0, size - int(last)), size
    start = int(first)
    end = int(last) + 1 if last else max(start, size)
    return (start, end) if not last or end > start else None


class Line:
    """One accepted connection: reads heads, sends replies, and counts the body bytes handed to the socket.

    ``sock`` must be non-blocking: every wait is a poll that also watches ``stopping``, a socket that becomes readable
    when the server stops.
    """

    def __init__(self, sock: socket.socket, stopping: socket.socket) -> None:
        self._sock = sock
        self._stopping = stopping
        self._received = b""
        self._piece = _TLS_PIECE if isinstance(sock, ssl.SSLSocket) else _PIECE

    def handshake(self) -> None:
        """Do the TLS handshake, if there is one."""
        if isinstance(self._sock, ssl.SSLSocket):
            self._when_ready(self._sock.do_handshake, select.POLLIN)

    def read_head(self) -> bytes:
        """The next request's head, without the empty line. Raises ``Hangup`` if the client sends no more requests."""
        while b"\r\n\r\n" not in self._received:
            more = self._when_ready(lambda: self._sock.recv(16 << 10), select.POLLIN)
            if not more or len(self._received) > _HEAD_LIMIT:
                raise Hangup
            self._received += more
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        return head

    def send(self, reply: Reply, request: Request) -> None:
        """Sends the reply, breaking off where it says so. Raises ``Hangup`` if no further request can be read."""
        self.pause(reply.delay)
        if reply.raw is not None:
            self._write(reply.raw)
            raise Hangup
        broken = reply.broken
        if broken and not broken.headers:
            self._break(broken)
        request.status = reply.status
        self._write(reply.head())
        if request.method != "HEAD":
            body = reply.body
            if broken and broken.after < len(body) + len(reply.tail):
                self._send_body(body[: broken.after], reply, request)
                self._break(broken)
                body = body[broken.after :]
            self._send_body(body, reply, request)
            self._send_body(memoryview(reply.tail), reply, request)
            self.pause(reply.lingers)
            if reply.framing == "chunked":
                trailers = [reply.trailer] if reply.trailer else []
                self._write("\r\n".join(["0", *trailers, "", ""]).encode("latin-1"))
        if reply.close or reply.framing == "close":
            raise Hangup

    def pause(self, seconds: float) -> None:
        """Waits. Raises ``Hangup`` if the client leaves or the server stops meanwhile."""
        if seconds > 0 and self._poll(_HANGUP, seconds):
            raise Hangup

    def close(self) -> None:
        """Closes so that a client can tell it from a broken connection: over TLS, with a close_notify."""
        with contextlib.suppress(OSError, ValueError), self._sock:
            if isinstance(self._sock, ssl.SSLSocket) and self._sock.fileno() >= 0:
                self._poll(select.POLLOUT, 1.0)
                # Sends our close_notify, and raises instead of waiting for the client's.
                self._sock.unwrap()

    def _break(self, broken: Break) -> None:
        if broken.how == "stall":
            self.pause(broken.seconds)
            return
        if broken.how == "reset":
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._sock.close()
        raise Hangup

    def _send_body(self, body: memoryview, reply: Reply, request: Request) -> None:
        piece = self._piece
        if reply.pace:
            piece = max(1, min(piece, reply.pace.bytes_per_second // 20))
        for at in range(0, len(body), piece):
            part = body[at : at + piece]
            if reply.pace:
                self.pause(reply.pace.reserve(len(part)))
            if reply.framing == "chunked":
                self._write(f"{len(part):x}\r\n".encode())
            self._write(part, request)
            if reply.framing == "chunked":
                self._write(b"\r\n")

    def _write(self, data: bytes | memoryview, request: Request | None = None) -> None:
        """Sends all of ``data``, and counts it as body bytes of ``request`` if that is given."""
        send: Callable[[memoryview], int] = self._sock.send
        if request:
            send = partial(request.count, send)
        left = memoryview(data)
        while left:
            left = left[self._when_ready(partial(send, left), select.POLLOUT) :]

    def _when_ready(self, act: Callable[[], T], event: int) -> T:
        """Calls ``act`` until the socket is ready for it, and returns its result."""
        while True:
            try:
                return act()
            except ssl.SSLWantReadError:
                event = select.POLLIN
            except ssl.SSLWantWriteError:
                event = select.POLLOUT
            except BlockingIOError:
                pass
            if self._stopping.fileno() in self._poll(event):
                raise Hangup

    def _poll(self, event: int, seconds: float | None = None) -> list[int]:
        """The ready descriptors: the connection's (``event``, or its end), or ``stopping``'s (the server stops)."""
        poller = select.poll()
        poller.register(self._sock, event)
        poller.register(self._stopping, select.POLLIN)
        return [fd for fd, _ in poller.poll(None if seconds is None else seconds * 1000)]
