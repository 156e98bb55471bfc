"""Each route of the misbehaving server causes its fault, and no other."""

import contextlib
import http.client
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterator

import pytest

from servers.client import Client, raw
from servers.content import content, etag, http_date, modified
from servers.misbehaving import ROUTES, MisbehavingServer
from servers.tls import Certificates
from support.files import MIB

KIB = 1 << 10


@pytest.fixture
def client(server: MisbehavingServer) -> Iterator[Client]:
    with contextlib.closing(Client(server)) as made:
        yield made


@pytest.mark.parametrize("name", sorted(ROUTES.keys() - {"early-hints"}))  # http.client does not know 103
def test_every_route_answers_and_the_count_is_what_arrives(name: str) -> None:
    """Whatever a route does to two range requests, the server's counts and statuses are those that the client sees."""
    fast: dict[str, dict[str, str | float]] = {
        "lingers": {"seconds": 0.05},
        "stall": {"seconds": 0.05},
        "slow-headers": {"seconds": 0.05},
        "slow": {"rate": "10M"},
    }
    with MisbehavingServer() as server, contextlib.closing(Client(server)) as client:
        url = server.url(f"/{name}", **fast.get(name, {}))
        received = []
        for _ in range(2):
            try:
                received.append(client.get(url, 0, 200_000))
            except (http.client.HTTPException, ConnectionError):  # garbage, reset
                client.close()
        server.wait_idle()
        assert [request.range for request in server.requests] == [(0, 200_000)] * 2
        if name != "reset":  # a reset discards data that was not received yet
            assert sum(len(answer.body) for answer in received) == server.bytes_sent
            assert [answer.status for answer in received] == [r.status for r in server.requests if r.status]


def test_no_ranges(server: MisbehavingServer, client: Client) -> None:
    answer = client.get(server.url("/no-ranges", size=1000), 10, 20)
    assert (answer.status, answer.body, answer.headers["Content-Length"]) == (200, content(1000), "1000")
    assert answer.headers["Accept-Ranges"] is None


@pytest.mark.parametrize("tls", [False, True])
def test_no_length(
    server: MisbehavingServer, tls_server: MisbehavingServer, certificates: Certificates, tls: bool
) -> None:
    chosen, context = (tls_server, certificates.client_context()) if tls else (server, None)
    with contextlib.closing(Client(chosen, context)) as client:
        answer = client.get(chosen.url("/no-length", size="3M"), 10, 20)
    assert (answer.status, answer.body) == (200, content("3M"))
    assert answer.headers["Content-Length"] is answer.headers["Transfer-Encoding"] is None
    assert answer.headers["Connection"] == "close"


@pytest.mark.parametrize(("route", "status"), [("chunked", 200), ("chunked-ranges", 206)])
def test_chunks(server: MisbehavingServer, client: Client, route: str, status: int) -> None:
    url = server.url(f"/{route}", size="1M", trailer="ETag: none")
    answer = client.get(url, 10, 900_000)
    expected = content("1M") if status == 200 else content("1M")[10:900_000]
    assert (answer.status, answer.body, answer.headers["Transfer-Encoding"]) == (status, expected, "chunked")
    assert server.bytes_sent == len(expected)
    assert raw(server, url, header="Connection: close\r\n").endswith(b"\r\n0\r\nETag: none\r\n\r\n")


def test_empty(server: MisbehavingServer, client: Client) -> None:
    answer = client.get(server.url("/empty"), 0, 100)
    assert (answer.status, answer.headers["Content-Range"]) == (416, "bytes */0")
    assert client.get(server.url("/empty")).status == 200
    answer = client.get(server.url("/empty-200"), 0, 100)
    assert (answer.status, answer.headers["Content-Length"]) == (200, "0")


def test_connections_are_kept_or_closed(server: MisbehavingServer, client: Client) -> None:
    for _ in range(3):
        client.get(server.url("/good"), 0, 10)
    assert server.connections == 1
    assert {request.connection for request in server.requests} == {1}
    for _ in range(3):
        client.get(server.url("/close-each"), 0, 10)
    assert server.connections == 3  # the first of these requests used the open connection


def test_http10(server: MisbehavingServer) -> None:
    assert raw(server, server.url("/http10", size=10)).startswith(b"HTTP/1.0 200 OK\r\n")


def test_odd_headers_and_early_hints(server: MisbehavingServer) -> None:
    text = raw(server, server.url("/odd-headers", size=10), header="Connection: close\r\n")
    assert b"\r\ncontent-length:10  \t\r\n" in text
    text = raw(server, server.url("/early-hints", size=10), header="Connection: close\r\n")
    assert text.startswith(b"HTTP/1.1 103 ")
    assert b"\r\n\r\nHTTP/1.1 200 OK\r\n" in text
    assert text.endswith(b"\r\n\r\n" + content(10))


@pytest.mark.parametrize(
    ("query", "status", "said", "body"),
    [
        ("/short-range?most=100", 206, "bytes 500-599/1000", (500, 600)),
        ("/unknown-total", 206, "bytes 500-699/*", (500, 700)),
        ("/wrong-start?shift=3", 206, "bytes 503-702/1000", (503, 703)),
        ("/wrong-start?shift=-3", 206, "bytes 497-696/1000", (497, 697)),
        ("/wrong-total?skip=0", 206, "bytes 500-699/1001", (500, 700)),
        ("/no-content-range", 206, None, (500, 700)),
        ("/whole-206", 206, "bytes 0-999/1000", (0, 1000)),
        ("/short-body?missing=7", 206, "bytes 500-699/1000", (500, 693)),
        ("/encoded", 206, "bytes 500-699/1000", (500, 700)),
        ("/range-then-200?skip=0", 200, None, (0, 1000)),
        ("/no-validator", 206, "bytes 500-699/1000", (500, 700)),
    ],
)
def test_odd_and_false_ranges(
    server: MisbehavingServer,
    client: Client,
    query: str,
    status: int,
    said: str | None,
    body: tuple[int, int],
) -> None:
    answer = client.get(f"{server.url(query)}{'&' if '?' in query else '?'}size=1000", 500, 700)
    assert (answer.status, answer.headers["Content-Range"]) == (status, said)
    assert answer.body == content(1000)[slice(*body)]
    assert answer.complete


def test_encoded_says_so(server: MisbehavingServer, client: Client) -> None:
    assert client.get(server.url("/encoded")).headers["Content-Encoding"] == "gzip"


@pytest.mark.parametrize("framing", ["close", "length", "chunked"])
def test_overflow(server: MisbehavingServer, client: Client, framing: str) -> None:
    answer = client.get(server.url("/overflow", size=1000, extra=50, framing=framing), 100, 200)
    assert answer.headers["Content-Range"] == "bytes 100-199/1000"
    assert answer.body == content(1000)[100:200] + b"\xee" * 50


def test_overflow_beyond_the_content_length(server: MisbehavingServer) -> None:
    url = server.url("/overflow", size=100, extra=50, framing="excess")
    head, _, body = raw(server, url).partition(b"\r\n\r\n")
    assert b"Content-Length: 100\r\n" in head
    assert body == content(100) + b"\xee" * 50


def test_garbage(server: MisbehavingServer, client: Client) -> None:
    assert len(raw(server, server.url("/garbage", amount=77))) == 77
    with pytest.raises(http.client.BadStatusLine):
        client.get(server.url("/garbage"))
    assert [request.status for request in server.requests] == [0, 0]


def test_validators(server: MisbehavingServer, client: Client) -> None:
    def seen(path: str) -> tuple[str | None, str | None]:
        headers = client.get(server.url(path)).headers
        return headers["ETag"], headers["Last-Modified"]

    date = http_date(modified())
    assert seen("/no-validator") == (None, None)
    assert seen("/weak-etag") == (f"W/{etag(MIB)}", None)
    assert seen("/cut?times=0&etag=none") == (None, date)
    assert len({seen("/etag-flaps") for _ in range(3)}) == 3


def test_the_file_changes(server: MisbehavingServer, client: Client) -> None:
    url = server.url("/etag-changes", size=1000, skip=2, grow=10)
    for _ in range(2):
        assert client.get(url, 0, 100).body == content(1000)[:100]
    answer = client.get(url, 0, 100)
    assert (answer.body, answer.headers["ETag"]) == (content(1010, 1)[:100], etag(1010, 1))
    assert client.get(url, 0, 100, If_Range=etag(1000)).status == 200
    url = server.url("/mtime-changes", size=1000, if_range=0)
    assert client.get(url).headers["ETag"] is None
    answer = client.get(url, 0, 100, If_Range=http_date(modified()))
    assert (answer.status, answer.headers["Last-Modified"]) == (206, http_date(modified(1)))


def test_if_range_200(server: MisbehavingServer, client: Client) -> None:
    url = server.url("/if-range-200", size=1000)
    assert client.get(url, 0, 10).status == 206
    assert client.get(url, 0, 10, If_Range=etag(1000)).status == 200


def test_cut(server: MisbehavingServer, client: Client) -> None:
    url = server.url("/cut", size="1M", after=1000, times=2)
    for _ in range(2):
        answer = client.get(url, 500, 5000)
        assert (answer.status, answer.body, answer.complete) == (206, content("1M")[500:1500], False)
    assert client.get(url, 500, 5000).body == content("1M")[500:5000]
    assert [request.bytes_sent for request in server.requests] == [1000, 1000, 4500]
    assert server.bytes_sent == 6500
    assert client.get(server.url("/cut", after=1000), 0, 1000).complete


@pytest.mark.parametrize("route", ["cut", "reset", "stall"])
def test_broken_before_the_status_line(server: MisbehavingServer, client: Client, route: str) -> None:
    parameters = {"seconds": 0.1} if route == "stall" else {}
    url = server.url(f"/{route}", headers=0, times=1, **parameters)
    started = time.monotonic()
    if route == "stall":
        assert client.get(url).complete
        assert time.monotonic() - started >= 0.1
    else:
        expected = ConnectionResetError if route == "reset" else http.client.RemoteDisconnected
        with pytest.raises(expected):
            client.get(url)
        assert server.requests[0].status == 0


def test_reset(server: MisbehavingServer) -> None:
    with pytest.raises(ConnectionResetError):
        raw(server, server.url("/reset", size="8M", after=100))
    assert server.bytes_sent == 100


def test_stall(server: MisbehavingServer, client: Client) -> None:
    started = time.monotonic()
    assert client.get(server.url("/stall", size=1000, after=10, seconds=0.2)).body == content(1000)
    assert time.monotonic() - started >= 0.2


def test_a_stall_ends_when_the_client_leaves(server: MisbehavingServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(b"GET /stall?after=10 HTTP/1.1\r\n\r\n")
        while not server.bytes_sent:
            time.sleep(0.001)
        assert not server.requests[0].finished
    server.wait_idle(timeout=2)
    assert server.bytes_sent == 10


def test_wait_idle_gives_up(server: MisbehavingServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(b"GET /slow-headers?seconds=60 HTTP/1.1\r\n\r\n")
        while not server.requests:
            time.sleep(0.001)
        with pytest.raises(TimeoutError):
            server.wait_idle(timeout=0.05)


@pytest.mark.parametrize("path", ["/slow?rate=1M", "/good?rate=1M", "/shared-rate?rate=1M"])
def test_rates(server: MisbehavingServer, client: Client, path: str) -> None:
    started = time.monotonic()
    assert len(client.get(server.url(path), 0, 300 * KIB).body) == 300 * KIB
    assert time.monotonic() - started > 0.2


def test_a_shared_rate_is_shared(server: MisbehavingServer) -> None:
    url = server.url("/shared-rate", rate="1M", size="100K")
    threads = [
        threading.Thread(target=raw, args=(server, url), kwargs={"header": "Connection: close\r\n"}) for _ in range(4)
    ]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - started > 0.3
    assert server.bytes_sent == 400 * KIB


def test_slow_headers(server: MisbehavingServer, client: Client) -> None:
    started = time.monotonic()
    client.get(server.url("/slow-headers", seconds=0.2))
    assert time.monotonic() - started >= 0.2


def test_status(server: MisbehavingServer, client: Client) -> None:
    url = server.url("/status", code=429, times=2, retry_after=1, size=10)
    answers = [client.get(url) for _ in range(3)]
    assert [answer.status for answer in answers] == [429, 429, 200]
    assert answers[0].headers["Retry-After"] == "1"
    assert client.get(server.url("/status", code=599)).status == 599
    assert client.get(server.url("/status", code=204)).body == b""


def test_another_id_counts_afresh(server: MisbehavingServer, client: Client) -> None:
    for fresh in ("a", "b"):
        url = server.url("/status", times=1, id=fresh)
        assert [client.get(url).status for _ in range(2)] == [503, 200]


def test_a_fault_at_one_place(server: MisbehavingServer, client: Client) -> None:
    url = server.url("/status", code=500, at=700, times=1)
    assert client.get(url, 0, 700).status == 206
    assert client.get(url, 700, 800).status == 500
    assert client.get(url, 700, 800).status == 206


def test_head_requests_take_no_turn(server: MisbehavingServer, client: Client) -> None:
    url = server.url("/status", code=500, times=1)
    statuses = [client.request(method, url).status for method in ("HEAD", "GET", "HEAD", "GET")]
    assert statuses == [500, 500, 200, 200]


@pytest.mark.parametrize("code", [503, 0])
def test_limited_connections(server: MisbehavingServer, client: Client, code: int) -> None:
    url = server.url("/limited-connections", limit=2, code=code, rate="100K", size="1M", retry_after=7)
    path = url.removeprefix(f"http://127.0.0.1:{server.port}")
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            sock.sendall(f"GET {path} HTTP/1.1\r\n\r\n".encode())
        while [request.status for request in server.requests] != [200, 200]:
            time.sleep(0.001)
        if code:
            answer = client.get(url)
            assert (answer.status, answer.headers["Retry-After"]) == (503, "7")
        else:
            with pytest.raises(http.client.RemoteDisconnected):
                client.get(url)
    server.wait_idle()
    assert client.get(url, 0, 10).status == 206


def test_needs(server: MisbehavingServer, client: Client) -> None:
    url = server.url("/needs", name="Cookie", value="a=b", code=403)
    assert client.get(url, 0, 1).status == 403
    assert client.get(url, 0, 1, Cookie="a=c").status == 403
    assert client.get(url, 0, 1, Cookie="a=b").status == 206
    answer = client.get(server.url("/needs"))
    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, 'Basic realm="tests"')
    assert client.get(server.url("/needs"), Authorization="Basic eA==").status == 200


def test_redirects(server: MisbehavingServer, other_server: MisbehavingServer, client: Client) -> None:
    target = other_server.url("/good/file.bin", size=10)
    answer = client.get(server.url("/redirect", to=target, code=307))
    assert (answer.status, answer.headers["Location"]) == (307, target)

    url, seen = server.url("/redirect", hops=3, size=10), 0
    while (answer := client.get(url)).status == 302:
        url, seen = urllib.parse.urljoin(url, answer.headers["Location"]), seen + 1
    assert (seen, answer.body) == (3, content(10))

    url = server.url("/redirect-loop")
    assert urllib.parse.urljoin(url, client.get(url).headers["Location"]) == url
    assert client.get(server.url("/redirect-to-file-scheme")).headers["Location"].startswith("file:///")


def test_signed_links_expire(server: MisbehavingServer, client: Client) -> None:
    url = server.url("/redirect-signed", uses=2, size=10)
    first = client.get(url).headers["Location"]
    assert [client.get(first).status for _ in range(3)] == [200, 200, 403]
    second = client.get(url).headers["Location"]
    assert first != second
    assert client.get(second).body == content(10)


def test_more_headers(server: MisbehavingServer, client: Client) -> None:
    answer = client.get(server.url("/status", header="Set-Cookie: a=b; Path=/"))
    assert (answer.status, answer.headers["Set-Cookie"]) == (503, "a=b; Path=/")
    text = raw(server, server.url("/huge-headers", lines=200, width=1000), header="Connection: close\r\n")
    assert text.index(b"\r\n\r\n") > 200_000
