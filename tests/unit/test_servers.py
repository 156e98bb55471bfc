"""The test servers themselves: they serve the right content, start and stop, and count exactly."""

import contextlib
import http.client
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from servers.client import Client, raw
from servers.content import content, etag, http_date, modified, parse_size
from servers.misbehaving import MisbehavingServer, refused_port
from servers.nginx import Nginx
from servers.programs import require
from servers.tls import Certificates, make_certificates
from servers.wire import asked_range
from support.files import MIB
from support.waiting import AT_ONCE

KIB = 1 << 10


@pytest.fixture
def client(server: MisbehavingServer) -> Iterator[Client]:
    with contextlib.closing(Client(server)) as made:
        yield made


# Content.


def test_content_is_the_same_each_time_and_differs_by_seed_and_size() -> None:
    assert content("100K") == content(100 * KIB)
    assert len(content("3M")) == 3 * MIB
    assert content(0) == b""
    first_bytes = {content(MIB, 0)[:32], content(MIB, 1)[:32], content(MIB + 1, 0)[:32]}
    assert len(first_bytes) == 3


@pytest.mark.parametrize(("text", "size"), [("7", 7), ("8M", 8 * MIB), ("1.5k", 1536), ("2G", 2 << 30), (5, 5)])
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "1T", "1 M", "0x10"])
def test_what_is_not_a_size(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-99", (0, 100)),
        ("bytes=90-199", (90, 200)),
        ("bytes=40-", (40, 100)),
        ("bytes=400-", (400, 400)),
        ("bytes=-10", (90, 100)),
        ("bytes=-1000", (0, 100)),
        ("bytes=5-4", None),
        ("bytes=0-1,4-5", None),
        ("bytes=-", None),
        ("lines=0-1", None),
        ("", None),
    ],
)
def test_range_headers(header: str, expected: tuple[int, int] | None) -> None:
    assert asked_range(header, 100) == expected


# The good server.


def test_good_serves_the_file(server: MisbehavingServer, client: Client) -> None:
    answer = client.get(server.url("/good/name.bin?size=3M&seed=5"))
    assert (answer.status, answer.body) == (200, content("3M", 5))
    assert answer.headers["ETag"] == etag("3M", 5)
    assert answer.headers["Last-Modified"] == http_date(modified(5))
    assert answer.headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize(
    ("start", "end", "clipped"), [(0, 1, 1), (0, 4 * MIB, MIB), (1000, 5000, 5000), (7, None, MIB)]
)
def test_good_serves_ranges(
    server: MisbehavingServer, client: Client, start: int, end: int | None, clipped: int
) -> None:
    answer = client.get(server.url("/good", size="1M"), start, end)
    assert (answer.status, answer.body) == (206, content("1M")[start:clipped])
    assert answer.headers["Content-Range"] == f"bytes {start}-{clipped - 1}/{MIB}"
    assert server.requests[0].range == (start, MIB if end is None else end)


def test_good_answers_416_beyond_the_end(server: MisbehavingServer, client: Client) -> None:
    answer = client.get(server.url("/good", size=100), 100, 200)
    assert (answer.status, answer.body, answer.headers["Content-Range"]) == (416, b"", "bytes */100")


def test_good_answers_head_without_a_body(server: MisbehavingServer, client: Client) -> None:
    answer = client.request("HEAD", server.url("/good", size="2M"))
    assert (answer.status, answer.body, answer.headers["Content-Length"]) == (200, b"", str(2 * MIB))
    assert server.bytes_sent == 0


@pytest.mark.parametrize(
    ("route", "validator", "status"),
    [
        ("good", etag(1000), 206),
        ("good", etag(1001), 200),
        ("good", http_date(modified()), 206),
        ("good", http_date(modified(1)), 200),
        ("weak-etag", f"W/{etag(1000)}", 200),
        ("mtime-changes", http_date(modified()), 206),
    ],
)
def test_if_range(server: MisbehavingServer, client: Client, route: str, validator: str, status: int) -> None:
    assert client.get(server.url(f"/{route}", size=1000), 0, 10, If_Range=validator).status == status


def test_it_answers_as_a_proxy_is_asked(server: MisbehavingServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(b"GET http://example.invalid/good?size=10 HTTP/1.1\r\nConnection: close\r\n\r\n")
        received = b"".join(iter(lambda: sock.recv(4096), b""))
    assert received.endswith(b"\r\n\r\n" + content(10))
    assert server.requests[0].path == "http://example.invalid/good?size=10"


def test_what_it_does_not_know(server: MisbehavingServer, client: Client) -> None:
    assert client.get("/nowhere").status == 404
    assert client.get("/good?sise=10").status == 400
    assert client.get("/good?size=ten").status == 400
    assert client.request("POST", "/good").status == 405
    assert raw(server, "/good", header="no header\r\n").startswith(b"HTTP/1.1 4")


@pytest.mark.parametrize("path", ["/nowhere", "/good?sise=10", "/cut?after=soon", "good?/"])
def test_url_refuses_what_no_route_takes(server: MisbehavingServer, path: str) -> None:
    with pytest.raises(ValueError, match=r"no route|no parameter|not a size"):
        server.url(path)


def test_url_encodes_parameters(server: MisbehavingServer, client: Client) -> None:
    answer = client.get(server.url("/disposition/x?size=10", value='attachment; filename="a&b=ü.bin"'))
    assert answer.headers["Content-Disposition"].encode("latin-1").decode() == 'attachment; filename="a&b=ü.bin"'


# The server itself.


def test_the_log_and_clear(server: MisbehavingServer, client: Client) -> None:
    client.get(server.url("/good/a.bin?size=2M"), 10, 20, X_Mine="yes")
    [request] = server.requests
    assert (request.method, request.path) == ("GET", "/good/a.bin?size=2M")
    assert request.headers["x-mine"] == "yes"
    assert (request.range, request.status, request.bytes_sent, request.connection) == ((10, 20), 206, 10, 1)
    assert abs(request.time - time.monotonic()) < AT_ONCE
    server.clear()
    assert (server.requests, server.bytes_sent, server.connections) == ([], 0, 0)


def test_counts_stay_exact_when_the_client_does_not_read(server: MisbehavingServer) -> None:
    """Bytes that the socket's buffers took are counted, others are not, and nothing is counted after the end."""
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(b"GET /good?size=64M HTTP/1.1\r\n\r\n")
        while True:
            before = server.bytes_sent
            time.sleep(0.05)
            if before and server.bytes_sent == before:
                break
        assert before < 64 * MIB
        received = 0
        sock.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            while received < 10 * MIB:
                received += len(sock.recv(MIB))
        assert received <= server.bytes_sent + 1000  # the response header
    server.wait_idle()
    assert received - 1000 <= server.bytes_sent < 64 * MIB


def test_large_files_are_served_fast(server: MisbehavingServer, client: Client) -> None:
    expected = content("64M")
    started = time.monotonic()
    assert client.get(server.url("/good", size="64M")).body == expected
    assert time.monotonic() - started < AT_ONCE
    assert server.bytes_sent == 64 * MIB


@pytest.mark.usefixtures("no_leaks")
def test_it_stops_at_once_and_leaves_nothing() -> None:
    with MisbehavingServer() as server:
        clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(12)]
        paths = ["/stall?after=10", "/slow?rate=100", "/slow-headers?seconds=600", "/good?size=64M"]
        for number, sock in enumerate(clients[:-2]):  # two clients send nothing
            sock.sendall(f"GET {paths[number % 4]} HTTP/1.1\r\n\r\n".encode())
        while len(server.requests) < 10:
            time.sleep(0.001)
        started = time.monotonic()
        server.stop()
        assert time.monotonic() - started < AT_ONCE
        server.stop()
    for sock in clients:
        sock.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("misbehaving")]


@pytest.mark.usefixtures("no_leaks")
def test_it_starts_again_on_its_port() -> None:
    with MisbehavingServer() as server:
        url = server.url("/good", size=10)
        for _ in range(2):
            with contextlib.closing(Client(server)) as client:
                assert client.get(url).body == content(10)
            server.stop()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", server.port))
            server.start()
        with pytest.raises(RuntimeError, match="runs already"):
            server.start()


def test_refused_port() -> None:
    port = refused_port()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    with pytest.raises(OSError, match="in use"), socket.socket() as other:
        other.bind(("127.0.0.1", port))  # nothing listens there, and yet it cannot be taken
    with MisbehavingServer(port=port) as server:
        assert server.port == port
        socket.create_connection(("127.0.0.1", port)).close()


# TLS.


def test_the_routes_over_tls(tls_server: MisbehavingServer, certificates: Certificates) -> None:
    with contextlib.closing(Client(tls_server, certificates.client_context())) as client:
        url = tls_server.url("/good", size="5M")
        assert url.startswith("https://127.0.0.1:")
        assert client.get(url, 1000, 4_000_000).body == content("5M")[1000:4_000_000]
        answer = client.get(tls_server.url("/cut", after=1000))
        assert (answer.body, answer.complete) == (content(MIB)[:1000], False)
    assert tls_server.bytes_sent == 4_000_000


@pytest.mark.usefixtures("no_leaks")
def test_a_tls_server_stops_at_once(certificates: Certificates) -> None:
    with MisbehavingServer(tls=certificates.server_context()) as server:
        silent = socket.create_connection(("127.0.0.1", server.port))  # no handshake
        talker = certificates.client_context().wrap_socket(
            socket.create_connection(("127.0.0.1", server.port)), server_hostname="localhost"
        )
        talker.sendall(b"GET /good?size=64M HTTP/1.1\r\n\r\n")
        while not server.bytes_sent:
            time.sleep(0.001)
        started = time.monotonic()
        server.stop()
        assert time.monotonic() - started < AT_ONCE
    silent.close()
    talker.close()


def test_only_its_own_ca_is_trusted(
    tls_server: MisbehavingServer, unrelated_certificates: Certificates, tmp_path: Path
) -> None:
    with (
        contextlib.closing(Client(tls_server, unrelated_certificates.client_context())) as client,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        client.get(tls_server.url("/good"))

    for bad in ({"expired": True}, {"names": ["example.invalid"]}):
        made = make_certificates(tmp_path / next(iter(bad)), **bad)
        assert made.key.stat().st_mode & 0o777 == 0o600
        with (
            MisbehavingServer(tls=made.server_context()) as server,
            contextlib.closing(Client(server, made.client_context())) as client,
            pytest.raises(ssl.SSLCertVerificationError),
        ):
            client.get(server.url("/good"))


# nginx.


def test_nginx_serves_ranges_and_logs_them(nginx: Nginx) -> None:
    nginx.write("/some/file.bin", content("1M"))
    nginx.clear_log()
    connection = http.client.HTTPConnection("127.0.0.1", nginx.http_port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", "/some/file.bin", headers={"Range": "bytes=100-999", "User-Agent": 'a "b"'})
        response = connection.getresponse()
        assert (response.status, response.read()) == (206, content("1M")[100:1000])
        connection.request("GET", "/missing")
        assert connection.getresponse().status == 404
    first, second = nginx.log(at_least=2)
    assert (first.method, first.path, first.status, first.range) == (
        "GET",
        "/some/file.bin",
        206,
        "bytes=100-999",
    )
    assert (first.body_bytes_sent, first.protocol, first.port) == (900, "HTTP/1.1", nginx.http_port)
    assert first.bytes_sent > 900
    assert first.user_agent == 'a "b"'
    assert (second.status, second.range, second.connection) == (404, "", first.connection)
    nginx.clear_log()
    assert nginx.log() == []


@pytest.mark.parametrize("offers_http2", [False, True])
def test_nginx_speaks_tls_with_and_without_http2(nginx: Nginx, certificates: Certificates, offers_http2: bool) -> None:
    context = certificates.client_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    url = nginx.http2_url("/x") if offers_http2 else nginx.https_url("/x")
    port = urllib.parse.urlsplit(url).port
    with (
        socket.create_connection(("127.0.0.1", port)) as sock,
        context.wrap_socket(sock, server_hostname="localhost") as talker,
    ):
        assert talker.selected_alpn_protocol() == ("h2" if offers_http2 else "http/1.1")


@pytest.mark.usefixtures("nginx")  # skips if nginx is missing
def test_nginx_limits_and_leaves_nothing() -> None:
    before = set(psutil.Process().children())
    with Nginx(limit_rate="100k", limit_conn=1, sendfile=False, workers=1) as limited:
        limited.write("file.bin", content("1M"))
        root = limited.root
        (process,) = set(psutil.Process().children()) - before
        first, second = (http.client.HTTPConnection("127.0.0.1", limited.http_port, timeout=10) for _ in "ab")
        with contextlib.closing(first), contextlib.closing(second):
            first.request("GET", "/file.bin")
            response = first.getresponse()
            assert response.status == 200
            second.request("GET", "/file.bin")
            assert second.getresponse().status == 503
            response.close()
    limited.stop()
    assert not root.exists()
    assert not process.is_running()


@pytest.mark.usefixtures("nginx")
def test_nginx_says_why_it_does_not_start() -> None:
    with pytest.raises(RuntimeError, match="no_such_directive"):
        Nginx(options="no_such_directive on;").start()


@pytest.mark.parametrize(("value", "outcome"), [("", pytest.skip.Exception), ("1", pytest.fail.Exception)])
def test_a_missing_program_skips_or_fails(
    monkeypatch: pytest.MonkeyPatch, value: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("RANGEFETCH_REQUIRE_NGINX", value)
    require(True, "nginx", "RANGEFETCH_REQUIRE_NGINX")
    with pytest.raises(outcome, match=r"apt-get install nginx"):
        require(False, "nginx", "RANGEFETCH_REQUIRE_NGINX")
