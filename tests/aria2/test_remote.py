"""The first request: what the server says about a file, and what the request contains."""

import base64
from pathlib import Path
from typing import Any

import pytest

from rangefetch.aria2.remote import Remote, Unanswered, ask
from rangefetch.errors import BadAnswer, ConnectionFailed, HttpStatusError, TimedOut, TlsError
from rangefetch.identity import Strength
from rangefetch.net.sources import Sources
from rangefetch.options import DownloadOptions
from rangefetch.transfer.wording import explain
from servers.misbehaving import MisbehavingServer, etag, http_date, modified, refused_port
from servers.tls import Certificates

SIZE = 1 << 20


def _ask(url: str, **options: Any) -> Remote:
    return ask(Sources(url)[0], DownloadOptions.of(options))


def _fails(kind: type, url: str, **options: Any) -> Unanswered:
    with pytest.raises(Unanswered) as caught:
        _ask(url, **options)
    error_class, words = explain(caught.value.failure)
    assert error_class is kind
    assert words.isprintable()
    return caught.value


def test_a_file_is_described_by_the_answer_to_its_first_byte(server: MisbehavingServer) -> None:
    remote = _ask(server.url("/good/x", size=SIZE))
    assert (remote.size, remote.identity.etag, remote.identity.last_modified) == (
        SIZE,
        etag(SIZE),
        http_date(modified()),
    )
    assert remote.ranged
    server.wait_idle()
    assert server.bytes_sent == 1


@pytest.mark.parametrize(
    ("route", "size", "ranged"),
    [
        ("no-ranges", SIZE, False),
        ("no-length", -1, False),
        ("chunked", -1, False),
        ("chunked-ranges", SIZE, True),
        ("empty", 0, False),
        ("empty-200", 0, False),
        ("unknown-total", -1, False),
        ("short-body", SIZE, True),
        ("early-hints", SIZE, True),
        ("http10", SIZE, False),
        ("odd-headers", SIZE, True),
    ],
)
def test_servers_as_they_are(server: MisbehavingServer, route: str, size: int, ranged: bool) -> None:
    remote = _ask(server.url(f"/{route}/x"))
    assert (remote.size, remote.ranged) == (size, ranged)


def test_a_server_that_has_no_ranges_may_say_so(server: MisbehavingServer) -> None:
    remote = _ask(server.url("/status/x", code=416))
    assert (remote.size, remote.ranged) == (-1, False)


def test_a_url_beyond_ascii(server: MisbehavingServer) -> None:
    assert _ask(server.url("/good/na\u00efve", size=SIZE)).size == SIZE


def test_a_weak_etag_is_known_as_weak(server: MisbehavingServer) -> None:
    assert _ask(server.url("/weak-etag/x")).identity.strength == Strength.WEAK


def test_redirects_are_followed(server: MisbehavingServer, other_server: MisbehavingServer) -> None:
    away = other_server.url("/good/x", size=SIZE)
    remote = _ask(server.url("/redirect/x", to=away, hops=3), headers={"X-Token": "secret"})
    assert remote.url == away
    assert {request.headers.get("x-token") for request in server.requests} == {"secret"}
    assert "x-token" not in other_server.requests[0].headers


def test_what_is_known_travels(server: MisbehavingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cookies = tmp_path / "cookies.txt"
    cookies.write_text("# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tcolour\tgreen\n")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password mine\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    _ask(server.url("/good/x"), cookies=cookies, netrc=True, user_agent="tester/1")
    headers = server.requests[0].headers
    assert headers["cookie"] == "colour=green"
    assert headers["authorization"] == "Basic " + base64.b64encode(b"me:mine").decode()
    assert headers["user-agent"] == "tester/1"
    assert headers["accept-encoding"] == "identity"


def test_a_proxy_is_asked(server: MisbehavingServer) -> None:
    proxy = f"http://127.0.0.1:{server.port}"
    assert _ask(server.url("/good/x", size=SIZE).replace("127.0.0.1", "nowhere.invalid"), proxy=proxy).size == SIZE


def test_certificates(tls_server: MisbehavingServer, certificates: Certificates) -> None:
    url = tls_server.url("/good/x", size=SIZE)
    _fails(TlsError, url)
    assert _ask(url, ca_file=certificates.ca).size == SIZE
    assert _ask(url, verify_tls=False).size == SIZE


def test_from_https_to_http_only_where_that_is_allowed(
    server: MisbehavingServer, tls_server: MisbehavingServer, certificates: Certificates
) -> None:
    url = tls_server.url("/redirect/x", to=server.url("/good/x", size=SIZE))
    _fails(BadAnswer, url, ca_file=certificates.ca)
    assert server.requests == []
    assert _ask(url, ca_file=certificates.ca, allow_downgrade=True).size == SIZE


@pytest.mark.parametrize("code", [401, 403, 404, 429, 503])
def test_a_refusal_has_its_status(server: MisbehavingServer, code: int) -> None:
    unanswered = _fails(HttpStatusError, server.url("/status/x", code=code, retry_after="7"))
    assert unanswered.failure.status == code
    assert unanswered.failure.retry_after_s == 7
    assert len(server.requests) == 1


def test_other_failures(server: MisbehavingServer) -> None:
    _fails(BadAnswer, server.url("/redirect-loop/x"))
    _fails(BadAnswer, server.url("/redirect-to-file-scheme/x"))
    _fails(BadAnswer, server.url("/garbage/x"))
    _fails(BadAnswer, server.url("/encoded/x"))
    _fails(ConnectionFailed, f"http://127.0.0.1:{refused_port()}/x")
    _fails(ConnectionFailed, "http://nowhere.invalid/x")
    _fails(TimedOut, server.url("/slow-headers/x", seconds=20), read_timeout=0.2)
