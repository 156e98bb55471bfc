"""A permanent fault of a server fails at once, and a server that has never answered is given up soon."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rangefetch import DownloadManager
from rangefetch.errors import BadAnswer, ConnectionFailed, DownloadError, TlsError
from servers.listening import listen
from servers.misbehaving import MisbehavingServer, refused_port
from servers.tls import Certificates
from support.downloads import SMALL, clear, into


def _fails(
    manager: DownloadManager, kind: type[DownloadError], url: str, target: Path, **options: Any
) -> DownloadError:
    """Fetch, expect exactly this type of error with a one-line message that names the URL, and return the error."""
    with pytest.raises(DownloadError) as caught:
        manager.download_and_wait(url, into(target, **options))
    return clear(caught.value, kind, url)


def test_one_that_never_answered_is_given_up_after_the_tries(manager: DownloadManager, target: Path) -> None:
    error = _fails(manager, ConnectionFailed, f"http://127.0.0.1:{refused_port()}/x", target, retry_wait=0.01)
    assert len(error.tried) == 5


# ---- For good ----------------------------------------------------------------------------------------------------


class Blunt:
    """Sends the same octets to every client, and closes the connection."""

    def __init__(self) -> None:
        self.octets = b""
        self.connections = 0
        self._listener = listen()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/x"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with connection:
                try:
                    connection.recv(1 << 16)
                    connection.sendall(self.octets)
                    connection.shutdown(socket.SHUT_WR)
                    # Closing with unread octets would reset the connection; and a client may keep its side open.
                    connection.settimeout(0.2)
                    while connection.recv(1 << 16):
                        pass
                except OSError:
                    pass


@pytest.fixture
def blunt() -> Iterator[Blunt]:
    server = Blunt()
    yield server
    server.close()


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("octets", "words"),
    [
        (OK + b"Transfer-Encoding: gzip\r\n\r\nxxxx", "encoded"),
        (OK + b"Transfer-Encoding: foo, chunked\r\n\r\n4\r\nxxxx\r\n0\r\n\r\n", "encoded"),
        (OK + b"X: " + b"y" * 200_000 + b"\r\nContent-Length: 1\r\n\r\nx", "header lines"),
        (OK + b"X: y\r\n" * 3000 + b"Content-Length: 1\r\n\r\nx", "header lines"),
        (
            OK + b"".join(b"X: %s\r\n" % (b"y" * 1000) for _ in range(500)) + b"Content-Length: 1\r\n\r\nx",
            "header lines",
        ),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nzzzz\r\nxxxx\r\n0\r\n\r\n", "chunk"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nxxxx\r\n0\r\n\r\n", "chunk"),
        (b"HTTP/1.1 302 F\r\nLocation: http://[bad/x\r\nContent-Length: 0\r\n\r\n", "malformed URL"),
        (b"HTTP/1.1 302 F\r\nLocation: http://h:99999/\r\nContent-Length: 0\r\n\r\n", "malformed URL"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "HTTP/0.9"),
    ],
    ids=["gzip", "foo", "line", "lines", "bytes", "words", "negative", "host", "port", "ssh"],
)
def test_what_a_server_gets_wrong_from_the_start_is_its_fault_at_once(
    manager: DownloadManager, backend: str, blunt: Blunt, target: Path, octets: bytes, words: str
) -> None:
    blunt.octets = octets
    error = _fails(manager, BadAnswer, blunt.url, target, retry_wait=60.0)
    assert words in error.reason
    # aria2 is given the file only after its server has answered our own request; chunks come after that.
    assert blunt.connections == (2 if backend == "aria2" and words == "chunk" else 1)


def test_a_certificate_that_is_refused_is_told_with_what_was_trusted(
    manager: DownloadManager, tls_server: MisbehavingServer, unrelated_certificates: Certificates, target: Path
) -> None:
    ca = unrelated_certificates.ca
    error = _fails(manager, TlsError, tls_server.url("/good/x", size=SMALL), target, ca_file=ca)
    assert f"(verified with the certificates in {ca})" in error.reason
