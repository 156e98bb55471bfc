"""Cookies that servers set along the way, logins at other hosts, and which hosts receive the user's credentials."""

import os
from pathlib import Path
from typing import Any

import pytest

import rangefetch
from rangefetch import DownloadManager
from rangefetch.errors import DownloadError, HttpStatusError
from servers.misbehaving import MisbehavingServer, content
from support.downloads import QUICK, SIZE, SMALL, fails, fetch, into
from support.requests import paths

LANES: list[dict[str, Any]] = [{"split": 1}, {"split": 8, "min_split_size": "1M"}]
LOCALHOST = {"proxy": "", "no_proxy": "*"}


def at_localhost(url: str) -> str:
    """The same server by another name."""
    return url.replace("127.0.0.1", "localhost")


def netrc(directory: Path, text: str) -> Path:
    path = directory / "netrc"
    path.write_text(text)
    path.chmod(0o600)
    return path


def seen(server: MisbehavingServer, header: str) -> list[str]:
    return [request.headers[header] for request in server.requests if header in request.headers]


# ---- Cookies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", LANES, ids=["one lane", "eight"])
def test_a_cookie_wall_is_passed(server: MisbehavingServer, target: Path, options: dict[str, Any]) -> None:
    fetch(server.url("/cookie-wall/x", size=SIZE), target, **options)
    assert target.read_bytes() == content(SIZE)
    assert len(seen(server, "cookie")) >= len(server.requests) - 1


def test_small_files_pass_a_cookie_wall_together(server: MisbehavingServer, tmp_path: Path) -> None:
    urls = [server.url(f"/cookie-wall/{number}", size=SMALL, seed=number) for number in range(8)]
    with DownloadManager() as manager:
        # One first, and then all at once.
        manager.download_and_wait(urls[0], into(tmp_path / "x", 0))
        server.clear()
        gids = [manager.download(url, into(tmp_path / "x", number)) for number, url in enumerate(urls) if number]
        for gid in gids:
            manager.wait(gid, timeout=20)
    assert {request.status for request in server.requests} == {206}
    rangefetch.fetch_many(urls, tmp_path / "many", **QUICK)
    assert [(tmp_path / "many" / str(n)).read_bytes() == content(SMALL, n) for n in range(8)] == [True] * 8


def test_cookies_are_a_managers_own_and_are_not_saved(server: MisbehavingServer, target: Path) -> None:
    for number in range(2):
        with DownloadManager() as manager:
            manager.download_and_wait(server.url("/cookie-wall/x", size=SMALL), into(target, number))
    assert len(seen(server, "cookie")) == 2
    assert len(server.requests) == 4


def test_cookies_belong_to_the_credentials_with_which_they_came(server: MisbehavingServer, target: Path) -> None:
    with DownloadManager() as manager:
        for number, user in enumerate(("one", "two", "one")):
            options = into(target, number, headers={"X-User": user})
            manager.download_and_wait(server.url("/cookie-wall/x", size=SMALL, id=number), options)
    assert [request.status for request in server.requests] == [302, 206, 302, 206, 206]


@pytest.mark.parametrize("attributes", ["; Path=/; Domain=localhost", "; Path=/"])
def test_a_cookie_stays_with_its_host(server: MisbehavingServer, target: Path, attributes: str) -> None:
    with DownloadManager() as manager:
        url = at_localhost(server.url("/cookie-wall/x", size=SMALL, attributes=attributes))
        manager.download_and_wait(url, into(target, 1, **LOCALHOST))
        server.clear()
        manager.download_and_wait(server.url("/good/y", size=SMALL), into(target, 2))
    assert seen(server, "cookie") == []


def test_a_cookie_of_a_public_suffix_is_not_taken(server: MisbehavingServer, target: Path) -> None:
    # A proxy answers for hosts that do not exist.
    options = {"proxy": f"http://127.0.0.1:{server.port}"}
    wall = "cookie-wall/x?size=1000&attributes=%3B+Path%3D%2F%3B+Domain%3Dco.uk"
    with DownloadManager() as manager:
        with pytest.raises(DownloadError):
            manager.download_and_wait(f"http://one.co.uk/{wall}", into(target, 1, **options))
        manager.download_and_wait("http://two.co.uk/good/x?size=1000", into(target, 2, **options))
    assert seen(server, "cookie") == []


def test_the_users_cookies_and_the_servers_are_in_one_header(server: MisbehavingServer, target: Path) -> None:
    fetch(server.url("/cookie-wall/x", size=SMALL), target, headers={"Cookie": "mine=1"})
    assert [set(cookie.split("; ")) for cookie in seen(server, "cookie")] == [{"mine=1"}, {"mine=1", "seen=1"}]


# ---- Logins ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", LANES, ids=["one lane", "eight"])
def test_a_login_at_another_host_is_done_once_for_a_list(
    server: MisbehavingServer, other_server: MisbehavingServer, tmp_path: Path, options: dict[str, Any]
) -> None:
    login = at_localhost(other_server.url("/login/x", user="me", password="s3cret"))
    known: dict[str, Any] = {"netrc": netrc(tmp_path, "machine localhost login me password s3cret\n"), **LOCALHOST}
    with DownloadManager() as manager:
        for number in range(5):
            url = server.url(f"/behind-login/{number}", size=SIZE, seed=number, at=login)
            result = manager.download_and_wait(url, into(tmp_path / "x", number, **known, **options))
            assert result.path.read_bytes() == content(SIZE, number)
    assert paths(other_server) == ["login"]
    assert seen(server, "authorization") == []


def test_small_files_behind_a_login_come(
    server: MisbehavingServer, other_server: MisbehavingServer, tmp_path: Path
) -> None:
    login = at_localhost(other_server.url("/login/x", user="me", password="s3cret"))
    known: dict[str, Any] = {"netrc": netrc(tmp_path, "machine localhost login me password s3cret\n"), **LOCALHOST}
    urls = [server.url(f"/behind-login/{number}", size=SMALL, at=login) for number in range(5)]
    results = rangefetch.fetch_many(urls, tmp_path / "many", **QUICK, **known)
    assert {Path(result.path).read_bytes() for result in results} == {content(SMALL)}


def test_the_netrc_entry_for_any_host_is_not_for_hosts_that_a_redirect_names(
    server: MisbehavingServer, other_server: MisbehavingServer, tmp_path: Path
) -> None:
    path = netrc(tmp_path, "machine elsewhere.example login x password y\ndefault login me password s3cret\n")
    url = server.url("/redirect/x", to=at_localhost(other_server.url("/good/x", size=SMALL)))
    fetch(url, tmp_path / "a", netrc=path, **LOCALHOST)
    assert len(seen(server, "authorization")) == 1
    assert seen(other_server, "authorization") == []


def test_a_netrc_entry_is_for_exactly_its_host(server: MisbehavingServer, tmp_path: Path) -> None:
    path = netrc(tmp_path, "machine host login me password s3cret\nmachine 27.0.0.1 login me password s3cret\n")
    fetch(at_localhost(server.url("/good/x", size=SMALL)), tmp_path / "a", netrc=path, **LOCALHOST)
    fetch(server.url("/good/y", size=SMALL), tmp_path / "b", netrc=path)
    assert seen(server, "authorization") == []


# ---- Credentials -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", LANES, ids=["one lane", "eight"])
@pytest.mark.parametrize("scheme", ["basic", "digest"])
def test_the_server_chooses_between_basic_and_digest(
    server: MisbehavingServer, target: Path, scheme: str, options: dict[str, Any]
) -> None:
    fetch(server.url(f"/{scheme}/x", size=SIZE), target, auth=("me", "s3cret"), **options)
    assert target.read_bytes() == content(SIZE)
    assert "authorization" not in server.requests[0].headers


@pytest.mark.parametrize("scheme", ["basic", "digest"])
def test_small_files_come_with_a_password(server: MisbehavingServer, tmp_path: Path, scheme: str) -> None:
    urls = [server.url(f"/{scheme}/{number}", size=SMALL) for number in range(4)]
    rangefetch.fetch_many(urls, tmp_path, auth=("me", "s3cret"), **QUICK)
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {content(SMALL)}


@pytest.mark.parametrize("scheme", ["basic", "digest"])
def test_a_wrong_password_is_final(server: MisbehavingServer, target: Path, scheme: str) -> None:
    error = fails(HttpStatusError, server.url(f"/{scheme}/x", size=SIZE), target, auth=("me", "wrong"))
    assert error.status == 401
    assert "wrong" not in str(error)


@pytest.mark.parametrize("auth", [{"auth": ("me", "s3cret")}, {"headers": {"Authorization": "Bearer s3cret"}}])
def test_credentials_follow_redirects_to_trusted_hosts_alone(
    server: MisbehavingServer, other_server: MisbehavingServer, tmp_path: Path, auth: dict[str, Any]
) -> None:
    route = "/basic/x" if "auth" in auth else "/needs/x?value=Bearer%20s3cret"
    url = server.url("/redirect/x", to=at_localhost(other_server.url(route, size=SMALL)))
    for trusted in ((), ("ocalhost",), ("localhost:1",), ("example.org",)):
        with pytest.raises(HttpStatusError):
            fetch(url, tmp_path / "no", location_trusted=trusted, **auth, **LOCALHOST)
    assert not any(seen(other_server, "authorization"))
    for number, hosts in enumerate((["localhost"], [f"localhost:{other_server.port}"], ["x.org", "LOCALHOST"])):
        fetch(url, tmp_path / str(number), location_trusted=hosts, **auth, **LOCALHOST)
        assert (tmp_path / str(number)).read_bytes() == content(SMALL)


def test_a_token_comes_from_a_file(server: MisbehavingServer, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("t0ken\n")
    fetch(server.url("/needs/x", size=SMALL, value="Bearer t0ken"), tmp_path / "x", bearer_file=token)
    assert (tmp_path / "x").read_bytes() == content(SMALL)
    token.write_text("two words")
    error = fails(rangefetch.errors.LocalError, server.url("/good/x"), tmp_path / "y", bearer_file=token)
    assert os.fspath(token) in error.reason
