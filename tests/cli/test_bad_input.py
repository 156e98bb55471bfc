"""Each error is one line that names the URL and the problem, and leaves no file that looks finished."""

import os
import subprocess
from pathlib import Path

import pytest

from servers.misbehaving import MisbehavingServer, content, refused_port
from servers.tls import Certificates
from support.command_line import errors, run
from support.files import names

QUICK = ("--max-tries", "2", "--retry-wait", "0.01", "--total-timeout", "15")
SIZE = 1 << 20


def fails(said: subprocess.CompletedProcess[str], status: int, *words: str) -> str:
    """Check that the command failed with a single error line that contains ``words``, and return the line."""
    assert said.returncode == status, said.stderr
    assert said.stdout == ""
    [line] = errors(said)
    for word in words:
        assert word in line
    return line


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("gopher://127.0.0.1/file.bin", "'gopher'"),
        ("file:///etc/passwd", "torrents"),
        ("magnet:?dn=name", "no torrent"),
        ("127.0.0.1/file.bin", "no URL scheme"),
        ("http://", "no host"),
        ("http://[::1/file.bin", "malformed"),
        ("http://127.0.0.1:99999/", "malformed"),
        ("http://127.0.0.1/a\r\nHost: evil", "control character"),
        ("http://127.0.0.1/a\x1b[2J", "control character"),
        ("http://127.0.0.1/a b", "space"),
    ],
)
def test_a_url_that_cannot_be_fetched(place: Path, url: str, what: str) -> None:
    shown = ascii(url)[1:-1].replace("\\", "")
    assert shown in fails(run(place, url), 2, what).replace("\\", "")
    assert names(place) == []


def test_a_header_that_would_be_two(server: MisbehavingServer, place: Path) -> None:
    fails(run(place, "--header", "A: 1\r\nB: 2", server.url("/good/file.bin")), 2, "--header", "control character")
    assert server.requests == []


def test_a_directory_that_cannot_be_made(server: MisbehavingServer, place: Path) -> None:
    (place / "file").touch()
    url = server.url("/good/file.bin")
    fails(run(place, "-d", "file/in", url), 1, url, "file/in")
    fails(run(place, "-d", "file/in", "-i", "-", stdin=url), 1, url, "file/in")
    assert names(place) == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_must_not_be_written(server: MisbehavingServer, place: Path) -> None:
    url = server.url("/good/file.bin")
    (place / "locked").mkdir(mode=0o500)
    fails(run(place, "-d", "locked", url), 1, url, "locked")


def test_a_directory_that_is_a_file(server: MisbehavingServer, place: Path) -> None:
    url = server.url("/good/file.bin")
    (place / "file").write_text("")
    fails(run(place, "-d", "file", url), 1, url, "file")


def test_a_target_that_is_a_directory(server: MisbehavingServer, place: Path) -> None:
    url = server.url("/good/file.bin")
    (place / "file.bin").mkdir()
    fails(run(place, url), 1, url, "file.bin", "directory")
    assert names(place) == ["file.bin"]


def test_a_target_that_is_another_file(server: MisbehavingServer, place: Path) -> None:
    url = server.url("/good/file.bin", size=SIZE)
    (place / "file.bin").write_text("mine")
    for more in ((), ("--no-clobber",)):
        fails(run(place, *more, url), 1, url, "file.bin")
        assert (place / "file.bin").read_text() == "mine"
    assert run(place, "--allow-overwrite", url).returncode == 0
    assert (place / "file.bin").read_bytes() == content(SIZE)
    assert names(place) == ["file.bin"]


def test_a_wrong_checksum(server: MisbehavingServer, place: Path) -> None:
    url = server.url("/good/file.bin", size=SIZE)
    line = fails(run(place, "--checksum", "sha-256=" + "0" * 64, url), 1, url, "0" * 64)
    [kept] = names(place)
    assert kept != "file.bin"
    assert kept in line
    assert (place / kept).read_bytes() == content(SIZE)


def test_a_size_that_is_not_the_expected(server: MisbehavingServer, place: Path) -> None:
    url = server.url("/good/file.bin", size=SIZE)
    fails(run(place, "--expected-size", "2M", url, *QUICK), 1, url)
    assert "file.bin" not in names(place)


def test_a_name_that_does_not_resolve(place: Path) -> None:
    url = "http://no-such-host.invalid/file.bin"
    fails(run(place, url, "--max-tries", 1, "--total-timeout", 8), 1, url)
    assert names(place) == []


def test_a_refused_connection(place: Path) -> None:
    url = f"http://127.0.0.1:{refused_port()}/file.bin"
    fails(run(place, url, *QUICK), 1, url, "connect")
    assert names(place) == []


def test_a_certificate_by_somebody_else(tls_server: MisbehavingServer, place: Path, certificates: Certificates) -> None:
    url = tls_server.url("/good/file.bin", size=SIZE)
    fails(run(place, url), 1, url, "certificate")
    assert names(place) == []
    assert run(place, "--insecure", url).returncode == 0


@pytest.mark.parametrize("code", [401, 403, 404, 410, 500])
def test_an_answer_that_is_an_error(server: MisbehavingServer, place: Path, code: int) -> None:
    url = server.url("/status/file.bin", code=code)
    fails(run(place, url, *QUICK), 1, url, str(code))
    assert names(place) == []


@pytest.mark.parametrize("route", ["cut", "no-ranges", "chunked"])
def test_a_body_that_is_shorter_than_promised(server: MisbehavingServer, place: Path, route: str) -> None:
    if route == "cut":
        url = server.url("/cut/file.bin", size=SIZE, after=0)
    else:
        url = server.url("/short-body/file.bin", size=SIZE, ranges=0, missing=7)
        server_url = server.url("/cut/file.bin", size=SIZE, after=1000, ranges=0)
        url = server_url if route == "chunked" else url
    said = run(place, url, *QUICK)
    if said.returncode == 0:  # complete by its own Content-Length, so it is the file
        assert route == "no-ranges"
        assert (place / "file.bin").read_bytes() == content(SIZE)[:-7]
    else:
        fails(said, 1, url)
        assert "file.bin" not in names(place)


def test_one_failure_does_not_stop_the_others(server: MisbehavingServer, place: Path) -> None:
    bad, good = server.url("/status/bad.bin", code=404), server.url("/good/good.bin", size=SIZE)
    said = run(place, bad, good)
    assert (said.returncode, said.stdout) == (1, f"{place / 'good.bin'}\n")
    assert [line for line in errors(said) if bad in line and "404" in line]
    assert names(place) == ["good.bin"]
