"""Certificates are verified unless the user says otherwise."""

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flow.children import as_json, run_child
from rangefetch.errors import DownloadError, TlsError
from servers.misbehaving import MisbehavingServer, content
from servers.tls import Certificates, make_certificates
from support.downloads import fails, fetch
from support.files import MIB, names

LARGE = 9 * MIB + 5


@pytest.fixture(params=["expired", "wrong name"])
def wrong_tls_server(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[MisbehavingServer, Certificates]]:
    """A server whose certificate is from a trusted CA, but wrong."""
    names_in_it = ["example.org"] if request.param == "wrong name" else ["127.0.0.1"]
    certificates = make_certificates(tmp_path / "wrong", names=names_in_it, expired=request.param == "expired")
    with MisbehavingServer(tls=certificates.server_context()) as running:
        yield running, certificates


def test_a_ca_file_makes_its_servers_trusted(
    tls_server: MisbehavingServer, certificates: Certificates, target: Path
) -> None:
    size = 48 * MIB
    fetch(tls_server.url("/good/x", size=size), target, ca_file=certificates.ca, split=3)
    assert target.read_bytes() == content(size)
    assert tls_server.connections <= 3 < len(tls_server.requests)


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
def test_the_environment_may_name_the_ca_file(
    tls_server: MisbehavingServer, certificates: Certificates, target: Path, variable: str
) -> None:
    environment = {"SSL_CERT_FILE": "", "CURL_CA_BUNDLE": "", "REQUESTS_CA_BUNDLE": "", variable: str(certificates.ca)}
    done = run_child("fetch", tls_server.url("/good/x", size=LARGE), target, **environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")
    assert target.read_bytes() == content(LARGE)


@pytest.fixture
def hashed(certificates: Certificates, tmp_path: Path) -> Path:
    """A directory with the test servers' CA, as c_rehash makes it."""
    directory = tmp_path / "hashed"
    directory.mkdir()
    shutil.copy(certificates.ca, directory / "ca.pem")
    subprocess.run(["openssl", "rehash", directory], check=True, capture_output=True)
    return directory


@pytest.mark.parametrize("variable", ["SSL_CERT_DIR", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
def test_the_environment_may_name_a_directory(
    tls_server: MisbehavingServer, hashed: Path, target: Path, variable: str
) -> None:
    unset = dict.fromkeys(("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"), "")
    done = run_child("fetch", tls_server.url("/good/x", size=LARGE), target, **(unset | {variable: str(hashed)}))
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")
    assert target.read_bytes() == content(LARGE)


def test_a_variable_that_names_nothing_is_passed_over(
    tls_server: MisbehavingServer, certificates: Certificates, target: Path
) -> None:
    names = {"SSL_CERT_FILE": "/no/such/file", "REQUESTS_CA_BUNDLE": str(certificates.ca), "CURL_CA_BUNDLE": ""}
    done = run_child("fetch", tls_server.url("/good/x", size=LARGE), target, **names)
    assert done.returncode == 0, done.stderr
    assert target.read_bytes() == content(LARGE)


@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize("in_one", [False, True], ids=["key of its own", "in one file"])
def test_a_server_that_asks_for_a_certificate_gets_it(
    certificates: Certificates, unrelated_certificates: Certificates, target: Path, lanes: int, in_one: bool
) -> None:
    # The client's certificate is from the server's CA; any other CA would do.
    context = certificates.server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certificates.ca)
    mine: dict[str, Any] = {"certificate": certificates.certificate, "private_key": certificates.key}
    if in_one:
        both = target.parent.parent / "both.pem"
        both.write_bytes(certificates.certificate.read_bytes() + certificates.key.read_bytes())
        mine = {"certificate": both}
    with MisbehavingServer(tls=context) as server:
        url = server.url("/good/x", size=LARGE)
        trusted = {"ca_file": certificates.ca, "split": lanes, "min_split_size": "1M", "max_tries": 2}
        # OpenSSL's message may be lost when the connection is reset.
        with pytest.raises(DownloadError, match=r"--certificate|reset|closed"):
            fetch(url, target, **trusted)
        strangers = {"certificate": unrelated_certificates.certificate, "private_key": unrelated_certificates.key}
        with pytest.raises(DownloadError):
            fetch(url, target, **trusted, **strangers)
        fetch(url, target, **trusted, **mine)
    assert target.read_bytes() == content(LARGE)


def test_a_key_without_a_certificate_is_an_error(certificates: Certificates, target: Path) -> None:
    with pytest.raises(ValueError, match="private_key: needs a certificate"):
        fetch("https://127.0.0.1/x", target, private_key=certificates.key)


def test_the_environment_is_asked_anew_for_each_download(
    tls_server: MisbehavingServer,
    certificates: Certificates,
    unrelated_certificates: Certificates,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = tls_server.url("/good/x", size=1000)
    monkeypatch.setenv("SSL_CERT_FILE", str(unrelated_certificates.ca))
    fails(TlsError, url, target)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
    fetch(url, target)
    assert target.read_bytes() == content(1000)


def test_the_users_ca_file_goes_before_the_environments(
    tls_server: MisbehavingServer, certificates: Certificates, unrelated_certificates: Certificates, target: Path
) -> None:
    url, trusted = tls_server.url("/good/x", size=1000), str(certificates.ca)
    wrong = {"SSL_CERT_FILE": str(unrelated_certificates.ca)}
    assert run_child("fetch", url, target, as_json(ca_file=trusted), **wrong).returncode == 0
    assert target.read_bytes() == content(1000)


def test_a_server_of_an_unknown_ca_is_refused_at_once(
    tls_server: MisbehavingServer, unrelated_certificates: Certificates, target: Path
) -> None:
    error = fails(TlsError, tls_server.url("/good/x", size=1000), target, ca_file=unrelated_certificates.ca)
    assert "certificate" in error.reason
    assert f"(verified with the certificates in {unrelated_certificates.ca})" in error.reason
    assert tls_server.requests == []
    assert tls_server.connections == 1
    assert names(target.parent) == []


def test_a_wrong_certificate_is_refused_at_once(
    wrong_tls_server: tuple[MisbehavingServer, Certificates], target: Path
) -> None:
    server, certificates = wrong_tls_server
    fails(TlsError, server.url("/good/x", size=1000), target, ca_file=certificates.ca)
    assert server.requests == []
    assert server.connections == 1
    assert names(target.parent) == []


def test_a_wrong_certificate_is_taken_where_the_user_says_so(
    wrong_tls_server: tuple[MisbehavingServer, Certificates], target: Path
) -> None:
    server, _ = wrong_tls_server
    fetch(server.url("/good/x", size=LARGE), target, verify_tls=False)
    assert target.read_bytes() == content(LARGE)


def test_who_does_not_verify_leaves_no_connection_to_who_does(
    tls_server: MisbehavingServer, unrelated_certificates: Certificates, target: Path
) -> None:
    url = tls_server.url("/good/x", size=1000)
    fetch(url, target, verify_tls=False)
    fails(TlsError, url, target.with_name("other"), ca_file=unrelated_certificates.ca)
    assert len(tls_server.requests) == 1


def test_a_redirect_to_a_wrong_certificate_is_refused(
    server: MisbehavingServer, tls_server: MisbehavingServer, unrelated_certificates: Certificates, target: Path
) -> None:
    url = server.url("/redirect/x", to=tls_server.url("/good/x", size=1000))
    fails(TlsError, url, target, ca_file=unrelated_certificates.ca)
    assert tls_server.requests == []
    assert names(target.parent) == []


@pytest.mark.parametrize("route", ["no-ranges", "no-length", "chunked", "close-each", "short-range", "redirect"])
def test_servers_differ_over_tls_too(
    tls_server: MisbehavingServer, certificates: Certificates, target: Path, route: str
) -> None:
    fetch(tls_server.url(f"/{route}/x", size=LARGE), target, ca_file=certificates.ca)
    assert target.read_bytes() == content(LARGE)
    assert names(target.parent) == ["file.bin"]
