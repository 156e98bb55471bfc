"""Just enough HTTP/2 (RFC 9113) to send a complete body and leave its stream open."""

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from servers.listening import listen

__all__ = ["OpenStreams"]

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING = 0, 1, 4, 6
_ACK, _END_HEADERS = 1, 4
_FRAME_BYTES = 16 << 10


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _literal(name: str, value: str) -> bytes:
    """A header field without indexing or Huffman coding (RFC 7541, section 6.2.2); both strings are short."""
    return b"".join([b"\0", bytes([len(name)]), name.encode(), bytes([len(value)]), value.encode()])


class OpenStreams:
    """Answers every request with all of ``body``, as a range that covers the whole file, and never ends the stream.

    A context manager. ``body`` must fit into the client's first window (64 KiB).
    """

    def __init__(self, tls: ssl.SSLContext, body: bytes) -> None:
        tls.set_alpn_protocols(["h2"])
        self._tls = tls
        self._body = body
        self._listener = listen()
        self._sockets: list[socket.socket] = [self._listener]
        self._threads: list[threading.Thread] = []
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}/file.bin"
        self.requests = 0

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in list(self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in list(self._threads):
            thread.join()

    def _start(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = self._listener.accept()
                self._sockets.append(accepted)
                self._start(self._serve, accepted)

    def _serve(self, accepted: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), self._tls.wrap_socket(accepted, server_side=True) as line:
            self._sockets.append(line)
            stream = line.makefile("rb")
            _exactly(stream.read, len(_PREFACE))
            line.sendall(_frame(_SETTINGS, 0, 0))
            while True:
                head = _exactly(stream.read, 9)
                payload = _exactly(stream.read, int.from_bytes(head[:3], "big"))
                kind, flags, number = struct.unpack(">BBI", head[3:])
                if kind == _HEADERS:
                    self.requests += 1
                    line.sendall(self._answer(number))
                elif kind in (_SETTINGS, _PING) and not flags & _ACK:
                    line.sendall(_frame(kind, _ACK, 0, payload if kind == _PING else b""))

    def _answer(self, stream: int) -> bytes:
        size = len(self._body)
        headers = [(":status", "206"), ("content-range", f"bytes 0-{size - 1}/{size}"), ("etag", '"x"')]
        frames = [_frame(_HEADERS, _END_HEADERS, stream, b"".join(_literal(*each) for each in headers))]
        frames += [_frame(_DATA, 0, stream, self._body[at : at + _FRAME_BYTES]) for at in range(0, size, _FRAME_BYTES)]
        return b"".join(frames)


def _exactly(read: Callable[[int], bytes], size: int) -> bytes:
    data = read(size)
    if len(data) < size:
        raise EOFError
    return data
