"""A host that was there is given time to come back; one that never was is not. What is wrong for good fails at once."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rangefetch import DownloadManager, fetch_many
from rangefetch.errors import BadAnswer, ConnectionFailed, DownloadError
from servers.misbehaving import MisbehavingServer, content, refused_port
from support.downloads import SIZE, SMALL, downloaded, fails, into
from support.files import MIB
from support.waiting import until


def test_one_that_never_answered_is_given_up_after_the_tries(target: Path) -> None:
    error = fails(ConnectionFailed, f"http://127.0.0.1:{refused_port()}/x", target, retry_wait=0.01)
    assert len(error.tried) == 5


def test_the_defaults_number_of_tries_is_all_there_are_where_the_user_gave_it(
    server: MisbehavingServer, target: Path, tmp_path: Path
) -> None:
    url = server.url("/script/x", size=SIZE, steps="slow:rate=1M", then="status:code=503")
    options = into(target, max_tries=5, retry_wait=0.05, split=1)
    with DownloadManager(session_file=tmp_path / "session") as manager:
        gid = manager.download(url, options)
        until(lambda: downloaded(manager, gid) > MIB)
    for again in (False, True):
        server.clear()
        with DownloadManager(session_file=tmp_path / "session") as manager:
            manager.retry(gid) if again else manager.resume(gid)
            with pytest.raises(DownloadError):
                manager.wait(gid, timeout=60)
        # And one that is to find out whether it is the range that is refused.
        assert sum(request.range is not None for request in server.requests) == 5


def test_a_list_survives_the_restart_of_its_server(server: MisbehavingServer, target: Path) -> None:
    urls = [server.url(f"/slow/{n}", size=SIZE, rate="4M", seed=n) for n in range(2)]
    urls += [server.url(f"/slow/{n}", size=SMALL, rate="40K", seed=n) for n in range(2, 6)]

    def restart() -> None:
        until(lambda: len(server.requests) >= len(urls))
        server.stop()
        time.sleep(2.0)
        server.start()

    restarting = threading.Thread(target=restart)
    restarting.start()
    results = fetch_many(urls, target.parent, retry_wait=0.05, total_timeout=60.0)
    restarting.join()
    for number, result in enumerate(results):
        assert result.path.read_bytes() == content(SIZE if number < 2 else SMALL, number)


# ---- For good ----------------------------------------------------------------------------------------------------


class Blunt:
    """Sends the same octets to everybody, and hangs up."""

    def __init__(self) -> None:
        self.octets = b""
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
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
                    # Closed with octets unread, it would be reset; and a client may keep its side open.
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
    blunt: Blunt, target: Path, octets: bytes, words: str
) -> None:
    blunt.octets = octets
    error = fails(BadAnswer, blunt.url, target, retry_wait=60.0)
    assert words in error.reason
    assert blunt.connections == 1
