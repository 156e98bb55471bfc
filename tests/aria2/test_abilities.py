"""How the aria2 backend treats each option: it silently ignores none that it cannot honour."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aria2.driving import Desk
from rangefetch.aria2.abilities import ABILITIES, Treatment, confinement, proxy_options, refusal
from rangefetch.errors import DownloadError, LocalError
from rangefetch.net.proxies import VARIABLES, proxy_for
from rangefetch.options import DownloadOptions
from servers.misbehaving import MisbehavingServer, content
from servers.swarm import Tracker
from support.files import MIB

URL = "http://example.org/x"
MAGNET = f"magnet:?xt=urn:btih:{'0' * 40}"
REFUSED: dict[str, Any] = {
    "decode": True,
    "bind_address": "127.0.0.1",
    "ip_version": "4",
    "auth": ("me", "s3cret"),
    "robots": True,
    "bearer_file": __file__,
    "location_trusted": ("example.org",),
    "proxy_ca_file": __file__,
    "certificate": __file__,
    "http_version": "2",
    "private_addresses": "refuse",
    "trace": "t",
}


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_every_option_has_its_treatment() -> None:
    assert set(ABILITIES) == {field.name for field in dataclasses.fields(DownloadOptions)}
    assert {name for name, ability in ABILITIES.items() if ability.treatment is Treatment.REFUSED} == set(REFUSED)
    assert all(ability.reason for ability in ABILITIES.values() if ability.treatment is not Treatment.HONOURED)


@pytest.mark.parametrize("url", [URL, "ftp://example.org/x", MAGNET, "http://example.org/x.torrent"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_it_cannot_honour_is_refused_by_name(url: str, name: str) -> None:
    assert refusal(url, DownloadOptions()) == ""
    assert refusal(url, DownloadOptions(**{name: REFUSED[name]})).startswith(name)


@pytest.mark.parametrize("scheme", ["socks4", "socks4a", "socks5", "socks5h", "https"])
@pytest.mark.parametrize("place", ["option", "http_proxy", "all_proxy", "ALL_PROXY"])
def test_proxies_that_it_cannot_use_are_refused(monkeypatch: pytest.MonkeyPatch, scheme: str, place: str) -> None:
    options = DownloadOptions(proxy=f"{scheme}://proxy:1080" if place == "option" else "")
    if place != "option":
        monkeypatch.setenv(place, f"{scheme}://user:word@proxy:1080")
    reason = refusal(URL, options)
    assert reason.startswith("proxy")
    assert "word" not in reason
    assert refusal("https://example.org/x", options).startswith("proxy") == (place != "http_proxy")
    assert refusal(URL, DownloadOptions.of(options, no_proxy="example.org")) == ""
    monkeypatch.setenv("NO_PROXY", ".org")
    assert refusal(URL, options) == ""
    assert refusal(URL, DownloadOptions.of(options, mirrors=["http://example.com/x"])).startswith("proxy")


def test_no_proxy_is_between_peers() -> None:
    options = DownloadOptions(proxy="http://proxy:8080")
    assert refusal(URL, options) == ""
    assert refusal(MAGNET, options).startswith("proxy")
    assert refusal("http://example.org/x.torrent", options).startswith("proxy")
    assert refusal("http://example.org/x.meta4", options) == ""


@pytest.mark.parametrize(
    ("environment", "url", "expected"),
    [
        ({}, URL, ""),
        ({"http_proxy": "p:1"}, URL, "p:1"),
        ({"HTTP_PROXY": "p:1"}, URL, ""),  # in a CGI program, a client can set it with a header
        ({"http_proxy": "p:1"}, "https://example.org/x", ""),
        ({"https_proxy": "p:1", "HTTPS_PROXY": "p:2"}, "https://example.org/x", "p:1"),
        ({"HTTPS_PROXY": "p:2"}, "https://example.org/x", "p:2"),
        ({"http_proxy": "", "all_proxy": "p:1"}, URL, "p:1"),
        ({"FTP_PROXY": "p:1"}, "ftp://example.org/x", "p:1"),
        ({"ALL_PROXY": "p:1", "no_proxy": "*"}, URL, ""),
        ({"ALL_PROXY": "p:1", "no_proxy": "example.org"}, "http://www.example.org/x", ""),
        ({"ALL_PROXY": "p:1", "no_proxy": "other.org, .example.org"}, URL, ""),
        ({"ALL_PROXY": "p:1", "no_proxy": "ample.org"}, URL, "p:1"),
        ({"ALL_PROXY": "p:1", "NO_PROXY": "10.0.0.0/8"}, "http://10.1.2.3/x", ""),
        ({"ALL_PROXY": "p:1", "NO_PROXY": "10.0.0.0/8"}, "http://11.1.2.3/x", "p:1"),
        ({"ALL_PROXY": "p:1", "NO_PROXY": "::1"}, "http://[::1]:80/x", ""),
    ],
)
def test_the_proxy_is_the_one_that_libcurl_would_take(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], url: str, expected: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(url, DownloadOptions()) == expected


def test_aria2_is_told_of_every_proxy_and_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "proxy")
    monkeypatch.setenv("all_proxy", "socks5://other:1")
    monkeypatch.setenv("NO_PROXY", ".example.org,10.0.0.0/8")
    told = proxy_options(DownloadOptions())
    assert told["https-proxy"] == "http://proxy:1080"
    assert told["http-proxy"] == "http://127.0.0.1:1"  # refuses connections
    assert told["no-proxy"] == "example.org,.example.org,10.0.0.0/8"
    assert set(proxy_options(DownloadOptions(no_proxy="*")).values()) == {"", "*,.*"}


def test_with_headers_aria2_reaches_their_host_alone() -> None:
    kept = confinement(["https://example.org:8/x"], DownloadOptions(), only_host=True)
    assert kept == {"http-proxy": "http://127.0.0.1:1", "https-proxy": "http://127.0.0.1:1", "no-proxy": "example.org"}
    assert confinement(["https://e.org/x"], DownloadOptions(), only_host=False) == {"http-proxy": "http://127.0.0.1:1"}
    assert confinement(["https://e.org/x"], DownloadOptions(allow_downgrade=True), only_host=False) == {}
    assert confinement([URL], DownloadOptions(), only_host=False) == {}


@pytest.mark.parametrize("name", REFUSED)
def test_a_download_that_it_cannot_do_as_asked_fails_before_a_request(
    desk: Desk, server: MisbehavingServer, target: Path, name: str
) -> None:
    url = server.url("/good/x")
    error = desk.fails(LocalError, url, target, **{name: REFUSED[name]})
    assert f"cannot honour {name}" in str(error)
    assert server.connections == 0


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy", "ALL_PROXY"])
def test_a_socks_proxy_of_the_environment_is_not_gone_past(
    desk: Desk, server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "socks5h://127.0.0.1:1")
    desk.fails(LocalError, server.url("/good/x"), target)
    assert server.connections == 0


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy", "ALL_PROXY"])
def test_an_http_proxy_of_the_environment_is_used_by_aria2_whenever_it_was_started(
    desk: Desk, server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, f"http://127.0.0.1:{server.port}")
    url = server.url("/good/x", size=3 * MIB).replace("127.0.0.1", "nowhere.invalid")
    assert desk.fetch(url, target).path.read_bytes() == content(3 * MIB)


def test_an_environment_with_exceptions_is_honoured(
    desk: Desk, server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.0/8")
    assert desk.fetch(server.url("/good/x", size=3 * MIB), target).size == 3 * MIB


def test_options_that_become_impossible_end_a_download_that_runs(
    desk: Desk, server: MisbehavingServer, target: Path
) -> None:
    download = desk.begin(server.url("/slow/x", size=8 * MIB, rate="256K"), target)
    download.options = DownloadOptions.of(download.options, proxy="socks5://127.0.0.1:1")
    assert desk.backend is not None
    desk.backend.change(download)
    with pytest.raises(LocalError, match="proxy"):
        desk.wait(download)


# ---- Headers, and the hosts to which aria2 would send them ---------------------------------------------------------


def test_a_server_that_redirects_aria2_after_the_first_answer_does_not_leak_headers(
    desk: Desk, server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    away = other_server.url("/good/x", size=3 * MIB).replace("127.0.0.1", "localhost")
    url = server.url("/redirect/x", size=3 * MIB, skip=1, to=away)
    try:
        desk.fetch(url, target, headers={"X-Token": "secret"}, max_tries=2)
    except DownloadError:
        pass
    else:
        assert target.read_bytes() == content(3 * MIB)
    assert {request.headers.get("x-token") for request in other_server.requests} <= {None}


@pytest.fixture
def tracker() -> Iterator[Tracker]:
    with Tracker(0) as running:
        yield running


def test_the_servers_of_a_metalink_do_not_see_the_users_headers(
    desk: Desk, tracker: Tracker, server: MisbehavingServer, target: Path
) -> None:
    url = server.url("/good/x", size=MIB).replace("&", "&amp;")
    octets = (
        f'<?xml version="1.0"?><metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="a.bin">'
        f"<size>{MIB}</size><url>{url}</url></file></metalink>"
    )
    tracker.documents["/it.meta4"] = ("application/metalink4+xml", octets.encode())
    desk.fetch(f"{tracker.url}/it.meta4", target.parent, headers={"Authorization": "Bearer secret"})
    assert target.with_name("a.bin").read_bytes() == content(MIB)
    assert {request.headers.get("authorization") for request in server.requests} == {None}
