"""Redirects are followed once, and what the user entrusted to one origin stays there."""

import contextlib
import re
import socket
import socketserver
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

import rangefetch
from rangefetch.errors import BadAnswer, HttpStatusError, TlsError
from servers.background import Background
from servers.misbehaving import MisbehavingServer, content, refused_port
from servers.tls import Certificates
from support.downloads import QUICK, fails, fetch, interrupt
from support.files import MIB, begun, names
from support.requests import paths

SMALL = 100_001
LARGE = 9 * MIB + 5

SECRETS = {"Authorization": "Bearer s3cret", "Cookie": "session=s3cret", "X-Api-Key": "s3cret"}


def _secrets_seen(server: MisbehavingServer) -> list[str]:
    """The header values that no origin but the first may see."""
    return [
        f"{name}: {value}"
        for request in server.requests
        for name, value in request.headers.items()
        if "s3cret" in value
    ]


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_ranges_go_to_the_final_url_at_once(server: MisbehavingServer, target: Path, code: int) -> None:
    result = fetch(server.url("/redirect/x", size=LARGE, code=code), target, split=3)
    assert target.read_bytes() == content(LARGE)
    assert paths(server)[0] == "redirect"
    assert set(paths(server)[1:]) == {"good"}
    assert len(server.requests) > 3
    assert result.sources == (server.url("/good", size=LARGE, seed=0),)


@pytest.mark.parametrize("hops", [2, 20])
def test_a_chain_is_followed_to_its_end_once(server: MisbehavingServer, target: Path, hops: int) -> None:
    fetch(server.url("/redirect/x", size=LARGE, hops=hops), target)
    assert target.read_bytes() == content(LARGE)
    assert paths(server).count("redirect") == hops


def test_a_chain_that_is_too_long_is_given_up(server: MisbehavingServer, target: Path) -> None:
    fails(BadAnswer, server.url("/redirect/x", size=SMALL, hops=21), target)
    assert names(target.parent) == []


def test_a_relative_location_is_understood(server: MisbehavingServer, target: Path) -> None:
    fetch(server.url("/redirect/a/b/x", to=f"../../../good/y?size={SMALL}"), target)
    assert target.read_bytes() == content(SMALL)


@pytest.mark.parametrize("name", ["a b.bin", "naïve.bin", "a%20b.bin"])
def test_a_location_that_should_have_been_escaped_is_understood(
    server: MisbehavingServer, target: Path, name: str
) -> None:
    fetch(server.url("/redirect/x", to=f"/good/{name}?size={SMALL}"), target.parent)
    assert names(target.parent) == [name.replace("%20", " ")]
    assert (target.parent / names(target.parent)[0]).read_bytes() == content(SMALL)


def test_a_redirect_to_nothing_leaves_nothing(server: MisbehavingServer, target: Path) -> None:
    error = fails(HttpStatusError, server.url("/redirect/x", to="/status/x?code=404"), target)
    assert error.status == 404
    assert names(target.parent) == []


def test_a_redirect_to_another_scheme_is_named_and_not_followed(server: MisbehavingServer, target: Path) -> None:
    error = fails(BadAnswer, server.url("/redirect-to-file-scheme/x"), target)
    assert "file:///etc/passwd" in error.reason


LANES: list[dict[str, Any]] = [{"split": 1}, {"split": 8, "min_split_size": "1M"}]
BAD_TARGETS: list[str | int] = ["closed", "unknown", "silent", 400, 401, 403, 404, 410, 500, 502, 503]


def _bad_target(bad: str | int, other_server: MisbehavingServer) -> str:
    match bad:
        case "closed":
            return f"http://127.0.0.1:{refused_port()}/x"
        case "unknown":
            return "http://no-such-host.invalid/x"
        case "silent":
            return other_server.url("/stall/x", after=0, headers=0)
        case _:
            return other_server.url("/status/x", code=bad)


@pytest.mark.parametrize("options", LANES, ids=["one lane", "eight"])
@pytest.mark.parametrize("bad", BAD_TARGETS)
def test_a_target_that_fails_has_the_original_url_asked_again(
    server: MisbehavingServer,
    other_server: MisbehavingServer,
    target: Path,
    bad: str | int,
    options: dict[str, Any],
) -> None:
    to = f"{_bad_target(bad, other_server)}|{server.url('/good/x', size=LARGE)}"
    fetch(server.url("/redirect-in-turn/x", to=to), target, read_timeout=1.0, **options)
    assert target.read_bytes() == content(LARGE)
    assert paths(server).count("redirect-in-turn") == 2


def test_small_files_whose_first_target_fails_come(
    server: MisbehavingServer, other_server: MisbehavingServer, tmp_path: Path
) -> None:
    urls = []
    for number, bad in enumerate(BAD_TARGETS):
        to = f"{_bad_target(bad, other_server)}|{server.url(f'/good/{number}', size=SMALL, seed=number)}"
        urls.append(server.url(f"/redirect-in-turn/{number}", to=to))
    results = rangefetch.fetch_many(urls, tmp_path, read_timeout=1.0, **QUICK)
    assert [Path(result.path).read_bytes() == content(SMALL, n) for n, result in enumerate(results)] == [True] * 11


def test_a_target_whose_certificate_is_not_trusted_is_left_for_another(
    server: MisbehavingServer, tls_server: MisbehavingServer, target: Path
) -> None:
    to = f"{tls_server.url('/good/x', size=LARGE, seed=1)}|{server.url('/good/x', size=LARGE)}"
    fetch(server.url("/redirect-in-turn/x", to=to), target)
    assert target.read_bytes() == content(LARGE)
    assert tls_server.requests == []


def test_a_target_whose_certificate_is_not_trusted_is_never_used(
    server: MisbehavingServer, tls_server: MisbehavingServer, target: Path
) -> None:
    url = server.url("/redirect/x", to=tls_server.url("/good/x", size=LARGE))
    fails(TlsError, url, target)
    assert tls_server.requests == []
    assert paths(server).count("redirect") == 2


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_what_the_same_target_says_again_is_final(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path, code: int
) -> None:
    error = fails(HttpStatusError, server.url("/redirect/x", to=other_server.url("/status/x", code=code)), target)
    assert error.status == code
    assert paths(server).count("redirect") == 2
    # If the range may be the reason, the target is also asked without one.
    assert len(other_server.requests) == (3 if code in (403, 404) else 2)


def test_the_original_url_is_asked_three_times_in_a_row_at_most(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    to = "|".join(other_server.url("/status/x", code=410, id=number) for number in range(9))
    fails(HttpStatusError, server.url("/redirect-in-turn/x", to=to), target)
    assert paths(server).count("redirect-in-turn") == 4


@pytest.mark.parametrize("options", LANES, ids=["one lane", "eight"])
@pytest.mark.parametrize("code", [400, 401, 403, 404, 410])
def test_a_signed_link_that_expires_is_renewed(
    server: MisbehavingServer, target: Path, code: int, options: dict[str, Any]
) -> None:
    fetch(server.url("/redirect-signed/x", size=LARGE, uses=1, expired=code), target, **options)
    assert target.read_bytes() == content(LARGE)
    assert paths(server).count("redirect-signed") > 1


@pytest.mark.parametrize("options", LANES, ids=["one lane", "eight"])
@pytest.mark.parametrize("code", [300, 301, 302, 303, 307, 308])
def test_a_redirect_with_a_long_page_is_followed(
    server: MisbehavingServer, target: Path, code: int, options: dict[str, Any]
) -> None:
    to = f"../good/a b?size={LARGE}"
    fetch(server.url("/redirect/x", to=to, code=code, body=1_000_000), target, **options)
    assert target.read_bytes() == content(LARGE)
    assert paths(server).count("redirect") == 1


@pytest.mark.parametrize("options", LANES, ids=["one lane", "eight"])
@pytest.mark.parametrize("page", ["close", "reset", "stall", "more", "locations"])
def test_a_redirect_is_followed_whatever_becomes_of_its_page(
    server: MisbehavingServer, target: Path, page: str, options: dict[str, Any]
) -> None:
    to = f"/good/x?size={LARGE}"
    fetch(server.url("/redirect-breaks/x", to=to, page=page), target, read_timeout=60, **options)
    assert target.read_bytes() == content(LARGE)
    urls = [server.url(f"/redirect-breaks/{n}", to=f"/good/{n}?size={SMALL}", page=page) for n in range(3)]
    rangefetch.fetch_many(urls, target.parent, **QUICK)
    assert {(target.parent / str(n)).read_bytes() for n in range(3)} == {content(SMALL)}


def test_small_files_behind_long_pages_come(server: MisbehavingServer, tmp_path: Path) -> None:
    urls = [
        server.url(f"/redirect/{number}", to=f"/good/{number}?size={SMALL}&seed={number}", body=200_000, code=300 + n)
        for number, n in enumerate((0, 1, 2, 7))
    ]
    rangefetch.fetch_many(urls, tmp_path, **QUICK)
    assert [(tmp_path / str(number)).read_bytes() == content(SMALL, number) for number in range(4)] == [True] * 4


def test_a_choice_that_does_not_say_which_is_an_error(server: MisbehavingServer, target: Path) -> None:
    assert fails(HttpStatusError, server.url("/status/x", code=300), target).status == 300


@pytest.mark.parametrize("code", [305, 306, 400, 404, 410])
def test_where_any_other_answer_leads_nobody_goes(server: MisbehavingServer, target: Path, code: int) -> None:
    url = server.url("/redirect/x", to=server.url("/good", size=SMALL), code=code)
    assert fails(HttpStatusError, url, target, max_tries=1).status == code
    assert set(paths(server)) == {"redirect"}


def test_a_resumed_download_asks_the_original_url_again(server: MisbehavingServer, target: Path) -> None:
    to = server.url("/script/x", size=LARGE, steps="slow:rate=512K")
    url = server.url("/redirect/x", to=to)
    kept = interrupt(url, target, 200_000, split=1)
    server.clear()
    result = fetch(url, target, split=1)
    assert target.read_bytes() == content(LARGE)
    assert paths(server)[:2] == ["redirect", "script"]
    assert paths(server).count("redirect") == 1
    assert server.bytes_sent == LARGE - kept + len(b"elsewhere\n")
    assert result.resumed == kept


def test_user_headers_stay_with_an_origin_that_redirects_to_itself(server: MisbehavingServer, target: Path) -> None:
    fetch(server.url("/redirect/x", size=LARGE), target, headers=SECRETS)
    assert len(_secrets_seen(server)) == len(SECRETS) * len(server.requests)


def test_no_user_header_reaches_another_origin(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    url = server.url("/redirect/x", to=other_server.url("/good/x", size=LARGE))
    fetch(url, target, headers=SECRETS)
    assert target.read_bytes() == content(LARGE)
    assert len(_secrets_seen(server)) == len(SECRETS)
    assert len(other_server.requests) > 1
    assert _secrets_seen(other_server) == []


def test_no_user_header_reaches_an_origin_beyond_another(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    last = other_server.url("/good/x", size=LARGE)
    fetch(server.url("/redirect/x", to=other_server.url("/redirect/y", to=last, hops=3)), target, headers=SECRETS)
    assert target.read_bytes() == content(LARGE)
    assert _secrets_seen(other_server) == []


@pytest.mark.parametrize("other", ["a.example.evil", "a.exampl", "b.example", "a.example:81", "a.example@b.example"])
def test_a_host_whose_name_looks_alike_is_another_origin(server: MisbehavingServer, target: Path, other: str) -> None:
    # A proxy answers for hosts that do not exist.
    url = f"http://a.example/redirect/x?{urlencode({'to': f'http://{other}/good/y?size={LARGE}'})}"
    fetch(url, target, headers=SECRETS, proxy=f"http://127.0.0.1:{server.port}", split=3)
    assert target.read_bytes() == content(LARGE)
    assert len(server.requests) > 2
    assert {request.path for request in server.requests if "s3cret" in str(request.headers)} == {url}


def test_an_origin_in_capitals_is_the_same(server: MisbehavingServer, target: Path) -> None:
    url = f"http://a.example/redirect/x?{urlencode({'to': f'http://A.EXAMPLE/good/y?size={LARGE}'})}"
    fetch(url, target, headers=SECRETS, proxy=f"http://127.0.0.1:{server.port}", split=3)
    assert target.read_bytes() == content(LARGE)
    assert len(_secrets_seen(server)) == len(server.requests) * len(SECRETS)


def test_no_user_header_reaches_another_origin_when_a_download_goes_on(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    url = server.url("/redirect/x", to=other_server.url("/script/x", size=LARGE, steps="slow:rate=512K"))
    interrupt(url, target, 100_000, split=1, headers=SECRETS)
    fetch(url, target, headers=SECRETS)
    assert target.read_bytes() == content(LARGE)
    assert len(_secrets_seen(server)) == 2 * len(SECRETS)
    assert _secrets_seen(other_server) == []


def test_the_password_in_a_url_is_sent_to_its_origin_alone_and_shown_to_nobody(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    to = other_server.url("/script/x", size=LARGE, steps="slow:rate=512K")
    url = server.url("/redirect/x", to=to).replace("http://", "http://me:s%33cret@")
    interrupt(url, target, 100_000, split=1)
    for name in begun(target):
        assert b"cret@" not in target.with_name(name).read_bytes()
    result = fetch(url, target)
    assert target.read_bytes() == content(LARGE)
    assert [request.headers["authorization"] for request in server.requests] == ["Basic bWU6czNjcmV0"] * 2
    assert all("authorization" not in request.headers for request in other_server.requests)
    assert "cret" not in repr(result)


def test_the_password_in_a_url_is_not_in_the_error(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/status/x", code=404).replace("http://", "http://me:s3cret@")
    with pytest.raises(HttpStatusError) as caught:
        fetch(url, target)
    assert "s3cret" not in str(caught.value) + repr(caught.value) + caught.value.url
    assert "***@127.0.0.1" in str(caught.value)


def test_https_does_not_lead_to_http(
    server: MisbehavingServer, tls_server: MisbehavingServer, certificates: Certificates, target: Path
) -> None:
    url = tls_server.url("/redirect/x", to=server.url("/good/x", size=SMALL))
    error = fails(BadAnswer, url, target, ca_file=certificates.ca)
    assert server.url("/good/x", size=SMALL) in error.reason
    assert server.requests == []
    assert names(target.parent) == []


def test_https_leads_to_http_where_that_is_allowed(
    server: MisbehavingServer, tls_server: MisbehavingServer, certificates: Certificates, target: Path
) -> None:
    url = tls_server.url("/redirect/x", to=server.url("/good/x", size=LARGE))
    fetch(url, target, ca_file=certificates.ca, allow_downgrade=True, headers=SECRETS)
    assert target.read_bytes() == content(LARGE)
    assert _secrets_seen(server) == []


def test_http_leads_to_https(
    server: MisbehavingServer, tls_server: MisbehavingServer, certificates: Certificates, target: Path
) -> None:
    url = server.url("/redirect/x", to=tls_server.url("/good/x", size=LARGE))
    fetch(url, target, ca_file=certificates.ca, headers=SECRETS)
    assert target.read_bytes() == content(LARGE)
    assert _secrets_seen(tls_server) == []


class _Both(socketserver.ThreadingTCPServer):
    tls: ssl.SSLContext
    heads: dict[bool, str]


class _BothWays(socketserver.BaseRequestHandler):
    """Answers http with a redirect to https on the same port, and https with the file. Keeps the request headers."""

    server: _Both

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            line = self.request
            if secure := line.recv(1, socket.MSG_PEEK) == b"\x16":
                line = self.server.tls.wrap_socket(line, server_side=True)
            with line, line.makefile("rb") as stream:
                self.server.heads[secure] = b"".join(iter(stream.readline, b"\r\n")).decode()
                host = re.search(r"(?i)host: *(\S+)", self.server.heads[secure])
                location = f"Location: https://{host and host[1]}/x\r\n"
                status = "200 OK\r\n" if secure else f"302 Found\r\n{location}"
                line.sendall(f"HTTP/1.1 {status}Content-Length: 4\r\nConnection: close\r\n\r\nfile".encode())


def test_another_scheme_on_the_same_port_is_another_origin(certificates: Certificates, target: Path) -> None:
    running = _Both(("127.0.0.1", 0), _BothWays)
    running.tls, running.heads = certificates.server_context(), {}
    with Background(running) as background:
        fetch(f"http://127.0.0.1:{background.port}/x", target, headers=SECRETS, ca_file=certificates.ca)
    assert target.read_bytes() == b"file"
    heads = running.heads
    assert [(secure, "s3cret" in head) for secure, head in sorted(heads.items())] == [(False, True), (True, False)]
