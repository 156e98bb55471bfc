"""Mirrors that a server names in its response (RFC 6249): they are used only if a digest ties them to the file, and get
none of the user's headers or credentials."""

import base64
import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rangefetch
from rangefetch import DownloadManager
from rangefetch.net.offers import MOST_OFFERED, as_offered, offered_in
from rangefetch.options import DownloadOptions
from servers.misbehaving import MisbehavingServer, content
from servers.routing import ROUTES, Ask, Route
from servers.tls import Certificates
from servers.wire import Reply
from support.downloads import fetch, into
from support.files import MIB, names, saved_bytes
from support.requests import sent
from support.waiting import until

SIZE = 24 * MIB + 12_345
LANES: dict[str, Any] = {"max_connection_per_server": 4, "min_split_size": "1M"}
_AT = 13 * MIB + 5  # the position of the byte that a lying mirror changes


def _sha256(size: int) -> str:
    return base64.b64encode(hashlib.sha256(content(size)).digest()).decode()


def _offering(ask: Ask, reply: Reply, *, to: str = "", field: str = "repr", dies: int = 0) -> Reply:
    """A server that names mirrors, with a digest in ``field``. After ``dies`` requests (0: never) it only sends 404."""
    if to:
        reply.headers["Link"] = ", ".join(f"<{url}>; rel=duplicate; pri={i + 1}" for i, url in enumerate(to.split()))
    digest = _sha256(ask.common.size)
    if field == "repr":
        reply.headers["Repr-Digest"] = f"sha-256=:{digest}:"
    elif field == "digest":
        reply.headers["Digest"] = f"SHA-256={digest}"
    if dies and ask.turn >= dies:
        return Reply(status=404, body=memoryview(b""))
    return reply


def _lying(ask: Ask, reply: Reply) -> Reply:
    """A mirror that changes one byte of the file."""
    if reply.start <= _AT < reply.start + len(reply.body):
        octets = bytearray(reply.body)
        octets[_AT - reply.start] ^= 1
        reply.body = memoryview(bytes(octets))
    return reply


@pytest.fixture(autouse=True)
def _routes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROUTES, "offering", Route("offering", _offering, {}))
    monkeypatch.setitem(ROUTES, "lying", Route("lying", _lying, {}))


@pytest.fixture
def mirror(other_server: MisbehavingServer) -> MisbehavingServer:
    return other_server


@pytest.fixture
def third() -> Iterator[MisbehavingServer]:
    with MisbehavingServer() as running:
        yield running


def _offer(server: MisbehavingServer, *mirrors: str, size: int = SIZE, **parameters: Any) -> str:
    return server.url("/offering/x", size=size, to=" ".join(mirrors), **({"rate": "500K"} | parameters))


@pytest.mark.parametrize("field", ["repr", "digest"])
@pytest.mark.parametrize("split", [1, 8])
def test_a_mirror_that_the_server_names_takes_part(
    server: MisbehavingServer, mirror: MisbehavingServer, target: Path, field: str, split: int
) -> None:
    there = mirror.url("/good/x", size=SIZE, rate="24M")
    url = _offer(server, there, field=field, rate="500K" if split > 1 else "20M")
    result = fetch(url, target, split=split, **LANES)
    assert target.read_bytes() == content(SIZE)
    assert result.identity == "checksum"
    if split > 1:
        assert set(result.sources) == {url, there}
        assert sent(mirror.requests) > 4 * MIB


def test_a_checksum_of_the_users_ties_them_to_the_file(
    server: MisbehavingServer, mirror: MisbehavingServer, target: Path
) -> None:
    checksum = f"sha-256={hashlib.sha256(content(SIZE)).hexdigest()}"
    url = _offer(server, mirror.url("/good/x", size=SIZE), field="none")
    fetch(url, target, checksum=checksum, **LANES)
    assert target.read_bytes() == content(SIZE)
    assert sent(mirror.requests) > 4 * MIB


@pytest.mark.parametrize("checksum", ["", f"md5={hashlib.md5(content(SIZE)).hexdigest()}"])
def test_without_a_digest_that_proves_it_nothing_is_asked_elsewhere(
    server: MisbehavingServer, mirror: MisbehavingServer, target: Path, checksum: str
) -> None:
    url = _offer(server, mirror.url("/good/x", size=SIZE), field="none", rate="20M")
    assert fetch(url, target, checksum=checksum, **LANES).sources == (url,)
    assert mirror.connections == 0


def test_it_gets_nothing_of_the_users(
    server: MisbehavingServer, mirror: MisbehavingServer, target: Path, tmp_path: Path
) -> None:
    cookies, token = tmp_path / "cookies", tmp_path / "token"
    cookies.write_text("127.0.0.1\tFALSE\t/\tFALSE\t0\tname\tvalue\n")
    token.write_text("secret")
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    there = mirror.url("/good/x", size=SIZE).replace("http://", "http://user:pass@")
    options: dict[str, Any] = {
        "headers": {"X-Token": "s", "Cookie": "own=1"},
        "cookies": cookies,
        "bearer_file": token,
        "netrc": netrc,
        "location_trusted": ["127.0.0.1"],
    }
    fetch(_offer(server, there), target, **options, **LANES)
    assert target.read_bytes() == content(SIZE)
    assert {request.headers.get("x-token") for request in server.requests} == {"s"}
    assert sent(mirror.requests) > 4 * MIB
    for name in ("x-token", "cookie", "authorization"):
        assert {request.headers.get(name) for request in mirror.requests} == {None}, name


def test_it_sees_no_certificate_either(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.touch()
    given = DownloadOptions(certificate=key, private_key=key, auth=("me", "secret"), private_addresses="named")
    asked = as_offered(given)
    assert (asked.certificate, asked.private_key, asked.auth, asked.private_addresses) == ("", "", None, "refuse")


def test_https_does_not_lead_to_http(
    tls_server: MisbehavingServer, mirror: MisbehavingServer, certificates: Certificates, target: Path
) -> None:
    url = _offer(tls_server, mirror.url("/good/x", size=SIZE), rate="2M")
    fetch(url, target, ca_file=certificates.ca, **LANES)
    assert mirror.connections == 0
    fetch(url, target, ca_file=certificates.ca, overwrite=True, allow_downgrade=True, **LANES)
    assert mirror.connections > 0


def test_private_addresses_are_not_where_a_server_may_lead(
    server: MisbehavingServer, mirror: MisbehavingServer, target: Path
) -> None:
    fetch(_offer(server, mirror.url("/good/x", size=SIZE), rate="4M"), target, private_addresses="named", **LANES)
    assert target.read_bytes() == content(SIZE)
    assert mirror.connections == 0


def test_a_dead_mirror_and_one_of_another_file_cost_nothing(
    server: MisbehavingServer, mirror: MisbehavingServer, third: MisbehavingServer, target: Path
) -> None:
    url = _offer(
        server, "http://127.0.0.1:1/x", mirror.url("/good/x", size=SIZE, seed=1), third.url("/good/x", size=SIZE)
    )
    result = fetch(url, target, **LANES)
    assert target.read_bytes() == content(SIZE)
    assert set(result.sources) == {url, third.url("/good/x", size=SIZE)}


def test_one_that_lies_in_a_byte_is_found_out_and_done_without(
    server: MisbehavingServer, mirror: MisbehavingServer, target: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = _offer(server, mirror.url("/lying/x", size=SIZE), rate="500K")
    with caplog.at_level(logging.WARNING):
        fetch(url, target, split=8, max_connection_per_server=4, min_split_size="1M")
    assert target.read_bytes() == content(SIZE)
    assert "starting over without" in caplog.text
    assert names(target.parent) == [target.name]


def test_one_that_redirects_is_followed(
    server: MisbehavingServer, mirror: MisbehavingServer, third: MisbehavingServer, target: Path
) -> None:
    url = _offer(server, mirror.url("/redirect/x", to=third.url("/good/x", size=SIZE)))
    fetch(url, target, headers={"X-Token": "s"}, **LANES)
    assert target.read_bytes() == content(SIZE)
    assert sent(third.requests) > 4 * MIB
    assert {request.headers.get("x-token") for request in third.requests} == {None}


def test_a_mirror_goes_on_where_the_url_is_gone(
    server: MisbehavingServer, mirror: MisbehavingServer, target: Path
) -> None:
    url = _offer(server, mirror.url("/good/x", size=SIZE), dies=4, rate="2M")
    result = fetch(url, target, **LANES)
    assert target.read_bytes() == content(SIZE)
    assert result.identity == "checksum"


@pytest.mark.parametrize("route", ["good", "lying"])
def test_what_they_brought_is_continued(
    server: MisbehavingServer, mirror: MisbehavingServer, target: Path, route: str
) -> None:
    there = mirror.url(f"/{route}/x", size=SIZE, rate="20M")
    url = _offer(server, there)
    with DownloadManager() as manager:
        gid = manager.download(url, into(target, **LANES))
        until(lambda: manager.get_download_progress(gid).downloaded > 16 * MIB)
        manager.pause(gid)
    kept = saved_bytes(target)
    assert kept > 8 * MIB
    server.clear()
    mirror.clear()
    fetch(url, target, **LANES)
    assert target.read_bytes() == content(SIZE)
    if route == "good":
        assert sent(server.requests) + sent(mirror.requests) < SIZE - kept + 4 * MIB


def test_small_files_do_not_pay_for_it(server: MisbehavingServer, mirror: MisbehavingServer, target: Path) -> None:
    there = mirror.url("/good/x", size=1000)
    urls = [_offer(server, there, size=1000, id=str(i), field="none") for i in range(50)]
    rangefetch.fetch_many([(url, f"{i}.bin") for i, url in enumerate(urls)], target.parent)
    assert len(server.requests) == 50
    assert mirror.connections == 0
    urls = [_offer(server, there, size=1000, id=str(i), rate=0) for i in range(50)]
    rangefetch.fetch_many([(url, f"d{i}.bin") for i, url in enumerate(urls)], target.parent)
    assert len(server.requests) == 100
    assert mirror.connections == 0


def test_a_stream_has_none(server: MisbehavingServer, mirror: MisbehavingServer) -> None:
    with rangefetch.stream(_offer(server, mirror.url("/good/x", size=SIZE), rate=0)) as stream:
        assert stream.read() == content(SIZE)
    assert mirror.connections == 0


def test_few_are_taken_by_their_priority_one_at_each_server() -> None:
    links = [
        "<http://last.example/x>; rel=duplicate",
        "<http://c.example/x>; rel=duplicate; pri=30; geo=de",
        '<http://a.example/x>; rel="alternate duplicate"; pri=10',
        "<http://a.example/y>; rel=duplicate; pri=5",
        "<http://b.example/x>; rel=duplicate; pri=20; pref",
        "<http://self.example/other>; rel=duplicate; pri=1",
        "<ftp://f.example/x>; rel=duplicate; pri=1",
        "<file:///etc/passwd>; rel=duplicate; pri=1",
        "<http://[bad/x>; rel=duplicate; pri=1",
        "<http://d.example/x.meta4>; rel=describedby; pri=1",
        *(f"<http://m{i}.example/x>; rel=duplicate; pri=99" for i in range(9)),
    ]
    taken = offered_in({"link": ", ".join(links)}, "http://self.example/x", DownloadOptions())
    assert taken[:3] == ["http://a.example/y", "http://b.example/x", "http://c.example/x"]
    assert len(taken) == MOST_OFFERED
    assert offered_in({}, "http://self.example/x", DownloadOptions()) == []
