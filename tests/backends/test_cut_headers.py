"""A response whose headers break off is incomplete, whatever they say so far (RFC 9112, section 8)."""

import dataclasses
from pathlib import Path

import pytest

import rangefetch
from rangefetch import DownloadManager
from rangefetch.errors import NetworkError
from servers.misbehaving import MisbehavingServer, content
from servers.routing import ROUTES, Ask, Route
from servers.tls import Certificates
from servers.wire import Reply
from support.downloads import QUICK, SIZE, SMALL, clear, fetch, interrupt, into
from support.files import names, saved_bytes

HEADS = {
    "a status line": b"HTTP/1.1 206 Partial Content\r\n",
    "half a header": b"HTTP/1.1 200 OK\r\nContent-Ty",
    "nothing of the length": b"HTTP/1.1 200 OK\r\nServer: x\r\n",
    "half of the length": b"HTTP/1.1 200 OK\r\nContent-Length: 1",
    "an empty file": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n",
    "no content": b"HTTP/1.1 204 No Content\r\n",
    "an empty range": b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */0\r\n",
    "after a hint": b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n",
}


@pytest.fixture(params=HEADS)
def head(request: pytest.FixtureRequest) -> bytes:
    return HEADS[request.param]


@pytest.fixture(params=["http", "https"])
def origin(
    request: pytest.FixtureRequest, server: MisbehavingServer, tls_server: MisbehavingServer
) -> MisbehavingServer:
    return server if request.param == "http" else tls_server


def _break_off(monkeypatch: pytest.MonkeyPatch, head: bytes, *, times: int) -> None:
    """Have the route ``/cut`` answer so many requests with this and nothing more, and the others well."""
    left = iter(range(times))

    def cut(ask: Ask, reply: Reply) -> Reply:
        if next(left, None) is not None:
            reply.raw = head
        return reply

    monkeypatch.setitem(ROUTES, "cut", Route("cut", cut, {}))


def test_it_is_no_file(
    manager: DownloadManager,
    origin: MisbehavingServer,
    certificates: Certificates,
    target: Path,
    head: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _break_off(monkeypatch, head, times=1000)
    url = origin.url("/cut/x", size=SIZE)
    with pytest.raises(NetworkError) as caught:
        manager.download_and_wait(url, into(target, max_tries=2, ca_file=certificates.ca))
    clear(caught.value, type(caught.value), url)
    assert names(target.parent) == []


def test_the_next_try_brings_the_file(
    manager: DownloadManager,
    origin: MisbehavingServer,
    certificates: Certificates,
    target: Path,
    head: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _break_off(monkeypatch, head, times=2)
    manager.download_and_wait(origin.url("/cut/x", size=SIZE), into(target, max_tries=5, ca_file=certificates.ca))
    assert target.read_bytes() == content(SIZE)


def test_what_was_fetched_before_is_kept(
    server: MisbehavingServer, target: Path, head: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.url("/cut/x", size=SIZE)
    monkeypatch.setitem(ROUTES, "cut", dataclasses.replace(ROUTES["slow"], name="cut"))
    saved = interrupt(url, target, 100_000)
    assert saved > 0
    _break_off(monkeypatch, head, times=1000)
    with pytest.raises(NetworkError):
        fetch(url, target, max_tries=2)
    assert saved_bytes(target) == saved
    assert not target.exists()


def test_small_files_and_streams_are_not_cut_short(
    origin: MisbehavingServer, certificates: Certificates, tmp_path: Path, head: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = QUICK | {"max_tries": 3, "ca_file": certificates.ca}
    _break_off(monkeypatch, head, times=2)
    urls = [origin.url(f"/cut/{number}", size=SMALL, seed=number) for number in range(6)]
    results = rangefetch.fetch_many(urls, tmp_path, **options)
    assert [each.path.read_bytes() == content(SMALL, number) for number, each in enumerate(results)] == [True] * 6
    _break_off(monkeypatch, head, times=1)
    with rangefetch.stream(origin.url("/cut/x", size=SMALL), **options) as stream:
        assert stream.read() == content(SMALL)
