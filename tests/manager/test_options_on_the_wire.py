"""Options that affect requests and timeouts, checked at the server, at the proxy and by the clock."""

import base64
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import rangefetch
from rangefetch import DownloadManager, DownloadOptions
from rangefetch.errors import ConnectionFailed, DownloadError, HttpStatusError, LocalError, NetworkError, TimedOut
from rangefetch.options import DEFAULT_USER_AGENT
from servers.misbehaving import MisbehavingServer, content
from servers.nginx import Nginx
from servers.programs import require
from servers.proxies import Socks5, Squid
from servers.tls import Certificates
from support.downloads import QUICK, SIZE, SMALL, fails, fetch, into
from support.files import MIB
from support.waiting import AT_ONCE, until

USER, PASSWORD = "user", "s3cr:et"
ACCOUNT = f"{USER}:s3cr%3Aet"
BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@pytest.fixture(autouse=True)
def _no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def _seen(server: MisbehavingServer, header: str) -> set[str | None]:
    return {request.headers.get(header) for request in server.requests}


# -- headers -------------------------------------------------------------------------------------------------------


def test_each_request_says_who_asks(server: MisbehavingServer, target: Path) -> None:
    fetch(server.url("/good/x", size=SIZE), target)
    assert _seen(server, "user-agent") == {DEFAULT_USER_AGENT}
    server.clear()
    fetch(server.url("/good/x", size=SIZE), target.with_name("2"), user_agent="Mozilla/5.0 (like everyone)")
    assert _seen(server, "user-agent") == {"Mozilla/5.0 (like everyone)"}


def test_headers_go_with_each_request(server: MisbehavingServer, target: Path) -> None:
    headers = {"X-Api-Key": "k", "Accept": "application/octet-stream", "Referer": "http://a/"}
    fetch(server.url("/good/x", size=SIZE), target, headers=headers)
    for name, value in headers.items():
        assert _seen(server, name.lower()) == {value}


def test_headers_may_be_lines_and_may_replace_the_user_agent(server: MisbehavingServer, target: Path) -> None:
    fetch(server.url("/good/x", size=SMALL), target, headers=["X-A: b: c", "User-Agent: mine"])
    assert _seen(server, "x-a") == {"b: c"}
    assert _seen(server, "user-agent") == {"mine"}


def test_a_users_password_in_the_url_is_basic_authorization(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/needs/x", size=SIZE, value=BASIC)
    fetch(url.replace("http://", f"http://{ACCOUNT}@"), target)
    assert target.read_bytes() == content(SIZE)
    assert _seen(server, "authorization") == {BASIC}


# -- netrc ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ``~/.netrc`` with an account for 127.0.0.1."""
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / ".netrc"
    path.write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
    path.chmod(0o600)
    return path


@pytest.mark.usefixtures("netrc")
def test_netrc_gives_the_account_where_it_is_asked_for(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/needs/x", size=SIZE, value=BASIC)
    fetch(url, target, netrc=True)
    assert target.read_bytes() == content(SIZE)
    error = fails(HttpStatusError, url, target.with_name("2"))
    assert error.status == 401


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_netrc_that_others_may_read_is_refused(
    server: MisbehavingServer, target: Path, netrc: Path, mode: int
) -> None:
    netrc.chmod(mode)
    with pytest.raises((LocalError, ValueError), match="netrc"):
        fetch(server.url("/needs/x", size=SMALL, value=BASIC), target, netrc=True)
    assert BASIC not in _seen(server, "authorization")


def test_the_file_may_be_another_one(
    server: MisbehavingServer, target: Path, netrc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = netrc.rename(netrc.with_name("accounts"))
    url = server.url("/needs/x", size=SMALL, value=BASIC)
    fetch(url, target, netrc=other)
    monkeypatch.setenv("NETRC", str(other))
    fetch(url, target.with_name("2"), netrc=True)
    other.chmod(0o644)
    fails(LocalError, url, target.with_name("3"), netrc=other)
    with pytest.raises(ValueError, match="netrc"):
        fetch(url, target.with_name("4"), netrc=netrc)
    assert _seen(server, "authorization") == {BASIC}


@pytest.mark.usefixtures("netrc")
def test_netrc_is_not_for_another_host_that_a_redirect_leads_to(server: MisbehavingServer, target: Path) -> None:
    elsewhere = server.url("/good/x", size=SMALL).replace("127.0.0.1", "localhost")
    fetch(server.url("/redirect/x", to=elsewhere), target, netrc=True)
    assert [request.headers.get("authorization") for request in server.requests] == [BASIC, None]


# -- proxies -------------------------------------------------------------------------------------------------------

AWAY = "http://file.example/good/x?size=9M"
"""A URL that only a proxy can answer."""


def _is_by_proxy(server: MisbehavingServer) -> bool:
    assert server.requests
    return all(request.path.startswith("http://") for request in server.requests)


def test_an_http_proxy_is_asked_for_everything(server: MisbehavingServer, target: Path) -> None:
    fetch(AWAY, target, proxy=f"http://127.0.0.1:{server.port}")
    assert target.read_bytes() == content(9 * MIB)
    assert _is_by_proxy(server)
    assert _seen(server, "proxy-authorization") == {None}


def test_an_http_proxy_gets_its_password_and_the_origin_does_not(server: MisbehavingServer, target: Path) -> None:
    result = fetch(AWAY, target, proxy=f"http://{ACCOUNT}@127.0.0.1:{server.port}", headers={"X-Key": "k"})
    assert _seen(server, "proxy-authorization") == {BASIC}
    assert _seen(server, "authorization") == {None}
    assert result.sources == (AWAY,)


def test_the_environments_proxy_is_used_and_the_options_go_before(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.port}")
    fetch(AWAY, target)
    assert _is_by_proxy(server)
    server.clear()
    fetch(AWAY, target.with_name("2"), proxy=f"http://127.0.0.1:{other_server.port}")
    assert _is_by_proxy(other_server)
    assert server.requests == []


@pytest.mark.parametrize("no_proxy", ["127.0.0.1", "example.org,127.0.0.1", "*"])
def test_what_no_proxy_names_is_asked_directly(
    server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch, no_proxy: str
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", no_proxy)
    fetch(server.url("/good/x", size=SIZE), target)
    assert target.read_bytes() == content(SIZE)


def test_a_proxy_that_is_not_there_is_named_in_the_error(target: Path) -> None:
    error = fails(ConnectionFailed, AWAY, target, proxy="http://127.0.0.1:1", max_tries=2)
    assert "127.0.0.1" in error.reason


@pytest.mark.parametrize("proxy", ["nonsense://h:1", "http://", "http://h:port", "http://h:1/ x"])
def test_a_proxy_that_cannot_be_one_is_refused_before_anything_is_opened(proxy: str) -> None:
    with pytest.raises(ValueError, match="proxy"):
        DownloadOptions(proxy=proxy)


@pytest.mark.parametrize("account", ["", f"{ACCOUNT}@"])
@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_a_socks_proxy_is_used(server: MisbehavingServer, target: Path, scheme: str, account: str) -> None:
    with Socks5(*((USER, PASSWORD) if account else ())) as proxy:
        # localhost is resolved by the proxy with socks5h, and here with socks5.
        url = server.url("/good/x", size=SIZE).replace("127.0.0.1", "localhost")
        fetch(url, target, proxy=f"{scheme}://{account}127.0.0.1:{proxy.port}", split=2)
    assert target.read_bytes() == content(SIZE)
    assert set(proxy.asked) <= ({"localhost"} if scheme == "socks5h" else {"127.0.0.1", "::1"})
    assert proxy.asked


def test_a_socks_proxy_that_refuses_the_account_is_an_error(server: MisbehavingServer, target: Path) -> None:
    with Socks5(USER, PASSWORD) as proxy, pytest.raises(NetworkError):
        fetch(server.url("/good/x"), target, proxy=f"socks5h://who:ever@127.0.0.1:{proxy.port}", max_tries=2)
    assert server.requests == []


@pytest.fixture(scope="module")
def squid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Squid]:
    require(Squid.available(), "squid", "RANGEFETCH_REQUIRE_SQUID")
    directory = tmp_path_factory.mktemp("squid")
    for above in list(directory.parents)[:3]:
        above.chmod(above.stat().st_mode | 0o055)  # squid drops root privileges
    with Squid(directory, USER, PASSWORD) as running:
        yield running


def test_https_goes_through_a_real_proxy_with_an_account(
    squid: Squid, tls_server: MisbehavingServer, target: Path, certificates: Certificates
) -> None:
    proxy = f"http://{ACCOUNT}@127.0.0.1:{squid.port}"
    with DownloadManager() as manager:
        options = into(target, proxy=proxy, ca_file=certificates.ca)
        manager.download_and_wait(tls_server.url("/good/x", size=SIZE), options)
    assert target.read_bytes() == content(SIZE)
    assert _seen(tls_server, "proxy-authorization") == {None}
    # squid logs a tunnel when it ends.
    until(lambda: set(squid.tunnels()) == {f"127.0.0.1:{tls_server.port}"})


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_real_proxy_that_refuses_the_account_is_an_error_at_once(
    squid: Squid, server: MisbehavingServer, target: Path, scheme: str
) -> None:
    started = time.monotonic()
    url = server.url("/good/x").replace("http", scheme, 1)
    with pytest.raises(DownloadError) as caught:
        fetch(url, target, proxy=f"http://{USER}:wrong@127.0.0.1:{squid.port}", retry_wait=60.0)
    assert time.monotonic() - started < AT_ONCE
    assert "407" in str(caught.value)
    assert server.requests == []


# -- times ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port to which no connection can be made, because its listen queue is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield int(listener.getsockname()[1])
        for sock in waiting:
            sock.close()


def test_a_connection_that_is_not_made_ends_in_time(
    deaf_port: int, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rangefetch.net.network.Network.is_there", lambda self, urls, told: True)
    started = time.monotonic()
    fails(TimedOut, f"http://127.0.0.1:{deaf_port}/x", target, connect_timeout=0.3, max_tries=2)
    assert 0.5 < time.monotonic() - started < AT_ONCE


@pytest.mark.parametrize("where", ["headers", "body"])
def test_a_server_that_falls_silent_ends_in_time(server: MisbehavingServer, target: Path, where: str) -> None:
    url = server.url("/stall/x", size=SIZE, headers=int(where == "body"))
    started = time.monotonic()
    fails(TimedOut, url, target, read_timeout=0.5, connect_timeout=0.5, max_tries=1, split=1)
    assert 0.4 < time.monotonic() - started < AT_ONCE


def test_a_server_that_is_slow_but_not_silent_is_waited_for(server: MisbehavingServer, target: Path) -> None:
    result = fetch(server.url("/slow/x", size="300K", rate="200K"), target, read_timeout=0.5)
    assert result.size == 300 << 10
    assert result.retries == 0


def test_the_whole_may_be_given_a_time(server: MisbehavingServer, target: Path) -> None:
    started = time.monotonic()
    error = fails(TimedOut, server.url("/slow/x", size=SIZE, rate="300K"), target, total_timeout=1.0)
    assert 0.9 < time.monotonic() - started < AT_ONCE
    assert "1 seconds" in str(error)


@pytest.mark.parametrize(
    "path", ["/status/x?code=429&retry_after=60", "/slow-headers/x?seconds=60", "/status/x?code=503"]
)
def test_the_time_for_the_whole_counts_waits_too(server: MisbehavingServer, target: Path, path: str) -> None:
    started = time.monotonic()
    fails(TimedOut, server.url(path), target, total_timeout=1.0, retry_wait=60.0)
    assert time.monotonic() - started < AT_ONCE


# -- TLS and versions ----------------------------------------------------------------------------------------------


def test_a_ca_file_is_what_trust_comes_from(
    tls_server: MisbehavingServer, target: Path, certificates: Certificates, unrelated_certificates: Certificates
) -> None:
    url = tls_server.url("/good/x", size=SMALL)
    fetch(url, target, ca_file=certificates.ca)
    started = time.monotonic()
    with pytest.raises(rangefetch.errors.TlsError):
        fetch(url, target.with_name("2"), ca_file=unrelated_certificates.ca, retry_wait=60.0)
    assert time.monotonic() - started < AT_ONCE
    fetch(url, target.with_name("3"), verify_tls=False)


@pytest.mark.parametrize("version", ["1.1", "2"])
def test_the_version_of_http_can_be_chosen(
    nginx: Nginx, target: Path, certificates: Certificates, version: str
) -> None:
    nginx.write("file.bin", content(SIZE))
    nginx.clear_log()
    # A separate manager, since another one could reuse an open connection.
    with DownloadManager() as manager:
        options = into(target, ca_file=certificates.ca, http_version=version)
        manager.download_and_wait(nginx.http2_url("/file.bin"), options)
    assert target.read_bytes() == content(SIZE)
    assert {line.protocol for line in nginx.log(at_least=1)} == {"HTTP/1.1" if version == "1.1" else "HTTP/2.0"}


@pytest.mark.parametrize("version", ["3.5", "h2", ""])
def test_another_version_is_refused(version: str) -> None:
    with pytest.raises(ValueError, match="http_version"):
        DownloadOptions(http_version=version)


def test_the_hosts_that_need_no_proxy_can_be_named(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/good/x", size=SIZE)
    fetch(url, target, proxy="http://127.0.0.1:1", no_proxy="example.org,127.0.0.1")
    assert target.read_bytes() == content(SIZE)
    fails(ConnectionFailed, url, target.with_name("2"), proxy="http://127.0.0.1:1", no_proxy="example.org", max_tries=2)


def test_the_version_of_ip_can_be_chosen(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/good/x", size=SIZE).replace("127.0.0.1", "localhost")
    fetch(url, target, ip_version="4")
    assert target.read_bytes() == content(SIZE)
    fails(ConnectionFailed, url, target.with_name("2"), ip_version="6", max_tries=2)


def test_the_local_address_can_be_chosen(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/good/x", size=SIZE)
    fetch(url, target, bind_address="127.0.0.2" if sys.platform == "linux" else "127.0.0.1")
    assert target.read_bytes() == content(SIZE)
    # An address reserved for documentation, which no machine has.
    fails(ConnectionFailed, url, target.with_name("2"), bind_address="192.0.2.1", max_tries=2)


def test_options_that_are_the_managers_defaults_count_for_every_download(
    server: MisbehavingServer, target: Path
) -> None:
    with DownloadManager(defaults=QUICK | {"user_agent": "default/1", "headers": {"X-A": "default"}}) as manager:
        url = server.url("/good/x", size=SMALL)
        manager.download_and_wait(url, {"save_dir": target.parent, "filename": "1"})
        manager.download_and_wait(url, into(target, 2, user_agent="own/2"))
    assert [request.headers["user-agent"] for request in server.requests] == ["default/1", "own/2"]
    assert _seen(server, "x-a") == {"default"}
