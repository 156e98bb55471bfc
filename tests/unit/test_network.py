"""URLs without credentials, and headers and cookies that are sent to one origin only."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rangefetch.errors import LocalError
from rangefetch.masking import mask_url
from rangefetch.net import libcurl
from rangefetch.net.credentials import netrc_path, split_userinfo
from rangefetch.net.profiles import make_profile, profile_settings, secret_headers
from rangefetch.net.sources import Source
from rangefetch.options import DownloadOptions
from rangefetch.transfer.tracing import write_trace

words = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://h/a?b=c#d", "http://h/a?b=c#d"),
        ("http://token@h/a", "http://***@h/a"),
        ("http://h/a@b", "http://h/a@b"),
        ("http://user:secret@h/a", "http://***@h/a"),
        ("https://user:secret@h:8080/a?b#c", "https://***@h:8080/a?b#c"),
        ("http://:secret@h/", "http://***@h/"),
        ("http://user:sec:ret@h/", "http://***@h/"),
        ("http://user:sec@ret@h/", "http://***@h/"),
        ("http://user:%73ecret@[::1]:80/", "http://***@[::1]:80/"),
        ("http://h/user:secret@h/", "http://h/user:secret@h/"),
    ],
)
def test_user_and_password_are_masked_and_nothing_else(url: str, shown: str) -> None:
    assert mask_url(url) == shown


@given(words, words)
def test_no_user_and_no_password_is_shown(user: str, password: str) -> None:
    secrets = [f"-secret-{quote(word, safe='')}" for word in (user, password)]
    for userinfo in (":".join(secrets), secrets[0], f"{secrets[0]}:", f":{secrets[1]}"):
        assert mask_url(f"http://{userinfo}@host/path") == "http://***@host/path"


def basic(userinfo: bytes) -> str:
    return "Basic " + base64.b64encode(userinfo).decode()


@pytest.mark.parametrize(
    ("url", "bare", "authorization"),
    [
        ("http://h/a?b=c", "http://h/a?b=c", ""),
        ("http://h/a?b=c#d", "http://h/a?b=c", ""),
        ("http://user:secret@h:81/a#b", "http://h:81/a", basic(b"user:secret")),
        ("https://user:@[::1]/", "https://[::1]/", basic(b"user:")),
        ("http://:secret@h/", "http://h/", basic(b":secret")),
        ("http://user:sec%40re%3At@h/", "http://h/", basic(b"user:sec@re:t")),
        ("http://user:sec@ret@h/", "http://h/", basic(b"user:sec@ret")),
        ("http://user:p%C3%A4ss@h/", "http://h/", basic("user:päss".encode())),
        ("http://h/a@b:c@d", "http://h/a@b:c@d", ""),
    ],
)
def test_userinfo_becomes_an_authorization(url: str, bare: str, authorization: str) -> None:
    assert split_userinfo(url) == (bare, authorization)


def test_a_user_without_a_password_has_an_empty_one() -> None:
    # RFC 7617, section 2: user-id and password are one string with a colon between them.
    assert split_userinfo("http://user@h/") == ("http://h/", basic(b"user:"))


def test_escaped_octets_are_sent_as_they_are() -> None:
    assert split_userinfo("http://user:p%E4ss@h/") == ("http://h/", basic(b"user:p\xe4ss"))


@given(words, words)
def test_any_credentials_come_through_their_escapes(user: str, password: str) -> None:
    user = user.replace(":", "")
    userinfo = f"{quote(user, safe='')}:{quote(password, safe='')}"
    assert split_userinfo(f"http://{userinfo}@h/a") == ("http://h/a", basic(f"{user}:{password}".encode()))


# For one origin only.

# An expiry of 0, or an empty one, marks a session cookie: curl, wget and browser extensions write one or the other.
COOKIES = """# Netscape HTTP Cookie File
one.example\tFALSE\t/\tFALSE\t0\tplain\t1
one.example\tFALSE\t/\tTRUE\t0\tsecure\t2
one.example\tFALSE\t/deep\tFALSE\t\tdeep\t3
.two.example\tTRUE\t/\tFALSE\t0\twide\t4
one.example\tFALSE\t/\tFALSE\t1\tbygone\t5
#HttpOnly_one.example\tFALSE\t/\tFALSE\t4102444800\tlasting\t6
nas\tFALSE\t/\tFALSE\t4102444800\tshort\t7
127.0.0.1\tFALSE\t/\tFALSE\t4102444800\taddress\t8
"""


@pytest.fixture
def cookies(tmp_path: Path) -> Path:
    path = tmp_path / "cookies.txt"
    path.write_text(COOKIES)
    return path


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("http://one.example/", {"plain=1", "lasting=6"}),
        ("https://one.example/", {"plain=1", "secure=2", "lasting=6"}),
        ("http://one.example/deep/a", {"plain=1", "deep=3", "lasting=6"}),
        ("http://sub.two.example/", {"wide=4"}),
        ("http://nas/", {"short=7"}),
        ("http://127.0.0.1:8080/", {"address=8"}),
        ("http://sub.one.example/", set()),
        ("http://three.example/", set()),
    ],
)
def test_a_cookie_goes_where_it_belongs(cookies: Path, url: str, sent: set[str]) -> None:
    headers = dict(secret_headers(url, "", DownloadOptions(cookies=cookies)))
    assert headers.keys() == ({"Cookie"} if sent else set())
    assert set(headers.get("Cookie", "").split("; ")) - {""} == sent


def test_a_domain_with_all_hosts_below_it_may_lack_its_dot(tmp_path: Path) -> None:
    path = tmp_path / "cookies.txt"
    path.write_text("# Netscape HTTP Cookie File\none.example\tTRUE\t/\tFALSE\t0\tname\tvalue\n")
    headers = secret_headers("http://sub.one.example/", "", DownloadOptions(cookies=path))
    assert headers == (("Cookie", "name=value"),)


def test_the_authorization_is_kept_beside_the_cookies(cookies: Path) -> None:
    headers = secret_headers("http://127.0.0.1/", "Basic AAAA", DownloadOptions(cookies=cookies))
    assert headers == (("Authorization", "Basic AAAA"), ("Cookie", "address=8"))
    assert secret_headers("http://one.example/", "", DownloadOptions()) == ()


EXPORTED = """\ufeff# Netscape HTTP Cookie File\r
one.example\tFALSE\t/\tFALSE\t4102444800.123456\tfraction\t1\r
one.example\tFALSE\t/\tFALSE\t99999999999999999999\thuge\t2\r
one.example\tFALSE\t/\tFALSE\t1e3\tbygone\t3\r
#HttpOnly_.one.example\tTRUE\t/\tFALSE\t0\thidden\t4\r
one.example\tfalse\t/\tfalse\t0\tlower\t5\r
one.example FALSE / FALSE 0 spaces secret\r
one.example\tFALSE\t/\tFALSE\tsoon\tnever\tsecret\r
one.example\tFALSE\t/\tFALSE\t0\ttoo\tmany\tsecret\r
one.example\tFALSE\t/\tFALSE\t0\tinjected\tsecret\rX-A: b\r
one.example\tFALSE\t/\tFALSE\t-1\tnegative\tsecret\r
one.example\tFALSE\t/\tFALSE\t0\tno value\r
"""


def test_a_file_as_browsers_extensions_write_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "cookies.txt"
    path.write_bytes(EXPORTED.encode())
    for _ in range(2):
        headers = dict(secret_headers("http://one.example/", "", DownloadOptions(cookies=path)))
        assert headers["Cookie"] == "fraction=1; huge=2; hidden=4; lower=5; no value="
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "lines 7, 8, 9, 10: " in warning
    assert str(path) in warning
    assert "secret" not in warning


def test_a_cookie_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cookies.txt"
    path.write_text("not a cookie file")
    with pytest.raises(LocalError, match=r"cookies\.txt: cannot read cookies from it"):
        secret_headers("http://one.example/", "", DownloadOptions(cookies=path))


# The engine accepts whatever the options accept.


@given(st.text(st.characters(), max_size=20), st.text(st.characters(), max_size=20))
def test_whatever_text_the_options_accept_makes_a_profile(agent: str, value: str) -> None:
    libcurl.load()
    try:
        options = DownloadOptions(user_agent=agent, headers={"X-A": value})
    except ValueError:
        return
    make_profile(profile_settings(options, Source("http://h/", "Basic AAAA")))


def test_a_pipe_in_the_place_of_a_file_with_secrets_is_refused_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.touch()
    options = DownloadOptions(cookies=path)
    path.unlink()
    os.mkfifo(path, 0o600)
    with pytest.raises(LocalError, match="not a regular file"):
        secret_headers("http://h/", "", options)
    monkeypatch.setenv("NETRC", os.fspath(path))
    with pytest.raises(LocalError, match="not a regular file"):
        netrc_path(DownloadOptions(netrc=True))
    libcurl.load()
    monkeypatch.setenv("SSL_CERT_FILE", os.fspath(path))
    with pytest.raises(LocalError, match="a pipe"):
        profile_settings(DownloadOptions(), Source("http://h/"))


def test_a_trace_that_nobody_reads_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "trace")
    write_trace(os.fspath(tmp_path / "trace"), "gid", [("http://h/", {"start": 0})])
