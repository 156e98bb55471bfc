"""``head`` describes the file at a URL without downloading it."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hashlib
import json
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rangefetch
from rangefetch import FileInfo, aio
from rangefetch.errors import ConnectionFailed, HttpStatusError, LocalError, TimedOut
from rangefetch.shared import our_downloads
from servers.content import content, etag, http_date, modified
from servers.misbehaving import MisbehavingServer, refused_port
from servers.nginx import Nginx
from servers.routing import ROUTES, Ask, Route, message
from servers.tls import Certificates
from servers.wire import Reply

SIZE = 1 << 20


def _blocking(url: Any, **options: Any) -> FileInfo:
    return rangefetch.head(url, **options)


def _awaited(url: Any, **options: Any) -> FileInfo:
    return asyncio.run(aio.head(url, **options))


WAYS = pytest.mark.parametrize("head", [_blocking, _awaited], ids=["blocking", "awaited"])
Head = Callable[..., FileInfo]


def _methods(server: MisbehavingServer) -> list[tuple[str, str]]:
    return [(request.method, request.headers.get("range", "")) for request in server.requests]


@WAYS
def test_it_says_what_there_is_and_fetches_one_byte(server: MisbehavingServer, head: Head) -> None:
    url = server.url("/good/dir/model.bin")
    assert head(url) == FileInfo(
        url=url,
        final_url=url,
        filename="model.bin",
        size=SIZE,
        etag=etag(SIZE),
        last_modified=http_date(modified(0)),
        supports_ranges=True,
        content_type="application/octet-stream",
    )
    assert _methods(server) == [("GET", "bytes=0-0")]
    server.wait_idle()
    assert server.bytes_sent == 1


def test_nothing_is_written_anywhere(
    server: MisbehavingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    rangefetch.head(server.url("/good/a.bin"))
    assert list(tmp_path.iterdir()) == []


@WAYS
def test_a_redirect_is_followed_and_its_end_told(server: MisbehavingServer, head: Head) -> None:
    end = server.url("/good/named.bin?id=1")
    found = head(server.url("/redirect/a", to=end, hops=1))
    assert (found.final_url, found.size) == (end, SIZE)
    assert found.url.startswith(server.url("/redirect/a"))


def test_the_name_is_the_one_that_a_download_gets(server: MisbehavingServer, tmp_path: Path) -> None:
    url = server.url("/disposition/a.bin")
    assert rangefetch.head(url).filename == "disposed.bin"
    assert rangefetch.fetch(url, f"{tmp_path}/").filename == "disposed.bin"


def test_a_server_without_ranges_is_told_and_not_read_to_the_end(server: MisbehavingServer) -> None:
    found = rangefetch.head(server.url("/no-ranges/a.bin", size="64M"))
    assert (found.size, found.supports_ranges) == (64 << 20, False)
    assert [method for method, _ in _methods(server)] == ["GET"]
    server.wait_idle()
    assert server.bytes_sent < 32 << 20


def test_a_size_that_the_server_does_not_say_is_none(server: MisbehavingServer) -> None:
    assert rangefetch.head(server.url("/no-length/a.bin")).size is None


@pytest.mark.parametrize("route", ["empty", "empty-200"])
def test_an_empty_file_has_no_bytes(server: MisbehavingServer, route: str) -> None:
    assert rangefetch.head(server.url(f"/{route}/a.bin")).size == 0


def _only(condition: Callable[[Ask], bool], refusal: int) -> Callable[..., Reply]:
    """A route that serves the file where the condition holds, and refuses everything else."""

    def fault(ask: Ask, reply: Reply) -> Reply:
        if condition(ask):
            return ask.good() if "range" in ask.headers else reply
        return message(refusal, "no")

    return fault


@pytest.fixture
def routes(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[..., Reply]], None]:
    def add(name: str, fault: Callable[..., Reply]) -> None:
        monkeypatch.setitem(ROUTES, name, Route(name, fault, {}))

    return add


@WAYS
def test_a_link_that_was_signed_for_get_needs_no_head(server: MisbehavingServer, routes: Any, head: Head) -> None:
    routes("signed", _only(lambda ask: ask.method == "GET", 403))
    found = head(server.url("/signed/a.bin"))
    assert (found.size, found.supports_ranges) == (SIZE, True)
    assert [method for method, _ in _methods(server)] == ["GET"]


@pytest.mark.parametrize("version", ["1.1", "2"])
def test_over_https(nginx: Nginx, certificates: Certificates, version: str) -> None:
    nginx.write("/head.bin", content(SIZE))
    url = nginx.https_url("/head.bin") if version == "1.1" else nginx.http2_url("/head.bin")
    found = rangefetch.head(url, ca_file=certificates.ca, http_version=version)
    assert (found.size, found.supports_ranges, found.final_url) == (SIZE, True, url)
    assert found.etag
    assert found.last_modified


@WAYS
@pytest.mark.parametrize("refusal", [400, 403, 404, 405, 416, 500, 501])
def test_where_a_range_is_refused_head_is_asked(
    server: MisbehavingServer, routes: Any, head: Head, refusal: int
) -> None:
    routes("only_head", _only(lambda ask: ask.method == "HEAD", refusal))
    found = head(server.url("/only_head/a.bin"), retry_wait=0.01)
    assert (found.size, found.etag) == (SIZE, etag(SIZE))
    assert found.supports_ranges  # the server says so (Accept-Ranges)
    assert [method for method, _ in _methods(server)] == ["GET", "HEAD"]
    server.wait_idle()
    assert server.requests[-1].bytes_sent == 0


@WAYS
@pytest.mark.parametrize("refusal", [403, 405, 501])
def test_head_is_asked_where_the_host_is_known_to_send_ranges_too(
    server: MisbehavingServer, routes: Any, head: Head, refusal: int
) -> None:
    routes("only_head", _only(lambda ask: ask.method == "HEAD", refusal))
    assert head(server.url("/good/b.bin")).supports_ranges
    assert head(server.url("/only_head/a.bin"), retry_wait=0.01).size == SIZE


@WAYS
@pytest.mark.parametrize("option", ["save_dir", "filename"])
def test_where_to_save_is_no_option_of_it(server: MisbehavingServer, head: Head, option: str) -> None:
    with pytest.raises(ValueError, match=f"{option}: head saves no file"):
        head(server.url("/good/a.bin"), **{option: "x"})
    assert server.requests == []


@pytest.mark.parametrize(("range_says", "head_says"), [(403, 403), (400, 405), (404, 501), (416, 403)])
def test_where_head_is_refused_too_a_plain_request_is_asked(
    server: MisbehavingServer, routes: Any, range_says: int, head_says: int
) -> None:
    def fault(ask: Ask, reply: Reply) -> Reply:
        if ask.method == "HEAD":
            return message(head_says, "no")
        return message(range_says, "no") if "range" in ask.headers else reply

    routes("only_plain", fault)
    found = rangefetch.head(server.url("/only_plain/a.bin"))
    assert found.size == SIZE
    assert [(method, bool(range_)) for method, range_ in _methods(server)] == [
        ("GET", True),
        ("HEAD", False),
        ("GET", False),
    ]


def test_a_server_that_takes_the_first_byte_for_no_bound_is_understood(server: MisbehavingServer) -> None:
    assert rangefetch.head(server.url("/first-byte-is-all/a.bin")).size == SIZE


@WAYS
@pytest.mark.parametrize("code", [401, 404, 410])
def test_what_is_not_there_is_an_error_with_its_status(server: MisbehavingServer, head: Head, code: int) -> None:
    with pytest.raises(HttpStatusError) as caught:
        head(server.url("/status/a.bin", code=code))
    assert caught.value.status == code
    assert len(server.requests) <= 2


def test_a_host_that_has_sent_ranges_is_believed(server: MisbehavingServer) -> None:
    rangefetch.head(server.url("/good/a.bin"))
    with pytest.raises(HttpStatusError):
        rangefetch.head(server.url("/status/a.bin", code=404))
    assert [method for method, _ in _methods(server)] == ["GET", "GET"]


def test_after_head_the_same_connection_serves_downloads(
    server: MisbehavingServer, routes: Any, tmp_path: Path
) -> None:
    routes("only-head", _only(lambda ask: ask.method == "HEAD", 403))
    rangefetch.head(server.url("/only-head/a.bin"))
    result = rangefetch.fetch(server.url("/good/a.bin"), tmp_path / "a.bin")
    assert result.path.read_bytes() == content(SIZE)
    assert [method for method, _ in _methods(server)] == ["GET", "HEAD", "GET"]


def test_a_failure_that_passes_is_tried_again(server: MisbehavingServer) -> None:
    found = rangefetch.head(server.url("/status/a.bin", code=503, times=2), retry_wait=0.01)
    assert found.size == SIZE


@WAYS
def test_a_host_that_refuses_connections_is_an_error(head: Head) -> None:
    with pytest.raises(ConnectionFailed):
        head(f"http://127.0.0.1:{refused_port()}/a", max_tries=1)


@WAYS
def test_time_is_limited(server: MisbehavingServer, head: Head) -> None:
    with pytest.raises(TimedOut):
        head(server.url("/slow-headers/a.bin", seconds=60), total_timeout=0.2)


def _stated(line: str) -> FileInfo:
    with MisbehavingServer() as server:
        return rangefetch.head(server.url("/good/a.bin", header=line))


def test_digests_that_the_server_states_can_be_given_as_checksums(tmp_path: Path) -> None:
    data = content(SIZE)
    sha256, sha512 = hashlib.sha256(data), hashlib.sha512(data)
    lines = ", ".join(
        f"{name}=:{base64.b64encode(it.digest()).decode()}:" for name, it in (("sha-256", sha256), ("sha-512", sha512))
    )
    with MisbehavingServer() as server:
        url = server.url("/good/a.bin", header=f"Repr-Digest: {lines}")
        found = rangefetch.head(url)
        assert found.digests == {"sha-512": sha512.hexdigest(), "sha-256": sha256.hexdigest()}
        for algorithm, digest in found.digests.items():
            assert rangefetch.fetch(url, tmp_path / algorithm, checksum=f"{algorithm}={digest}").checksum


def test_a_digest_of_a_part_says_nothing_of_the_file() -> None:
    digest = base64.b64encode(hashlib.sha256(b"x").digest()).decode()
    assert _stated(f"Content-Digest: sha-256=:{digest}:").digests == {}
    assert _stated(f"Digest: sha-256={digest}").digests == {}


def test_a_coding_is_told_and_no_error(server: MisbehavingServer) -> None:
    assert rangefetch.head(server.url("/encoded/a.bin")).content_encoding == "gzip"


def test_credentials_are_sent_and_not_told(server: MisbehavingServer) -> None:
    value = "Basic " + base64.b64encode(b"me:secret").decode()
    url = server.url("/needs/a.bin", value=value)
    found = rangefetch.head(url.replace("http://", "http://me:secret@"))
    assert found.size == SIZE
    assert "secret" not in f"{found}".replace(value, "").replace(url, "")
    assert found.final_url == url


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("ftp://127.0.0.1/a", {}, "url: "),
        ("magnet:?xt=urn:btih:0123456789abcdef0123456789abcdef01234567", {}, "url: "),
        ("nothing", {}, "url: "),
        (None, {}, "url: "),
        ("http://127.0.0.1/a", {"splitt": 1}, "splitt: "),
        ("http://127.0.0.1/a", {"max_tries": -1}, "max_tries: "),
    ],
)
@WAYS
def test_what_is_wrong_is_refused_by_name(head: Head, url: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"^{words}"):
        head(url, **options)


def test_what_is_found_is_frozen_and_crosses_processes(server: MisbehavingServer) -> None:
    found = rangefetch.head(server.url("/good/a.bin"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.size = 1  # type: ignore[misc]  # wrong on purpose
    assert pickle.loads(pickle.dumps(found)) == found
    told = json.loads(json.dumps(found.to_dict()))
    assert (told["finalUrl"], told["supportsRanges"]) == (found.final_url, True)


def test_many_are_asked_at_once_and_none_is_left(server: MisbehavingServer) -> None:
    manager = rangefetch.get_download_manager()
    before = len(manager.list_downloads())

    async def ask() -> list[FileInfo]:
        urls = [server.url("/good/a.bin", id=number) for number in range(100)]
        return list(await asyncio.gather(*map(aio.head, urls)))

    assert {found.size for found in asyncio.run(ask())} == {SIZE}
    assert len(manager.list_downloads()) == before


def test_a_cancelled_task_gives_up_the_request(server: MisbehavingServer) -> None:
    async def ask() -> None:
        task = asyncio.create_task(aio.head(server.url("/slow-headers/a.bin", seconds=60)))
        while not server.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(ask())
    server.wait_idle()


def test_a_task_that_is_cancelled_at_any_moment_leaves_no_request(server: MisbehavingServer) -> None:
    manager = rangefetch.get_download_manager()
    before = len(manager.list_downloads())

    async def ask() -> None:
        for steps in range(12):
            task = asyncio.create_task(aio.head(server.url("/slow-headers/a.bin", seconds=60, id=steps)))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(ask())
    assert len(manager.list_downloads()) == before
    server.wait_idle()


@pytest.mark.usefixtures("no_leaks")
def test_nothing_is_left_open(server: MisbehavingServer) -> None:
    threads = set(threading.enumerate())
    manager = rangefetch.get_download_manager()
    for _ in range(3):
        rangefetch.head(server.url("/good/a.bin"))
        with pytest.raises(HttpStatusError):
            rangefetch.head(server.url("/status/a.bin", code=410))
    manager.stop()
    assert threads  # no_leaks compares them


def test_without_the_engine_it_says_so(monkeypatch: pytest.MonkeyPatch, server: MisbehavingServer) -> None:
    monkeypatch.setattr(our_downloads(), "can_stream", lambda: False)
    with pytest.raises(LocalError, match="requires the native engine"):
        rangefetch.head(server.url("/good/a.bin"))
