"""A simple client on http.client, to check what the test servers send."""

import http.client
import socket
import ssl
import urllib.parse
from dataclasses import dataclass

from servers.misbehaving import MisbehavingServer

__all__ = ["Answer", "Client", "raw"]


@dataclass
class Answer:
    """The answer that a client got. ``body`` is what arrived, even if that is less than was promised."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    complete: bool = True


class Client:
    """Keeps one connection alive, and opens a new one after the server has closed it."""

    def __init__(self, server: MisbehavingServer, context: ssl.SSLContext | None = None) -> None:
        self._connection = (
            http.client.HTTPSConnection("127.0.0.1", server.port, timeout=10, context=context)
            if context
            else http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        )

    def get(self, url: str, start: int | None = None, end: int | None = None, **more: str) -> Answer:
        """Request the half-open range, or the whole file. ``more`` are headers, with underscores for hyphens."""
        headers = {name.replace("_", "-"): value for name, value in more.items()}
        if start is not None:
            headers["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        return self.request("GET", url, headers)

    def request(self, method: str, url: str, headers: dict[str, str] | None = None) -> Answer:
        parts = urllib.parse.urlsplit(url)
        self._connection.request(method, f"{parts.path}?{parts.query}", headers=headers or {})
        response = self._connection.getresponse()
        try:
            return Answer(response.status, response.headers, response.read())
        except http.client.IncompleteRead as error:
            self._connection.close()
            return Answer(response.status, response.headers, error.partial, complete=False)

    def close(self) -> None:
        self._connection.close()


def raw(server: MisbehavingServer, url: str, *, header: str = "") -> bytes:
    """Every byte that the server sends in reply to one request, until it closes the connection."""
    parts = urllib.parse.urlsplit(url)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        sock.sendall(f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: x\r\n{header}\r\n".encode())
        received = bytearray()
        while more := sock.recv(1 << 20):
            received += more
        return bytes(received)
