"""Bad input is reported in one line, before anything is opened."""

from pathlib import Path
from typing import Any

import pytest

import rangefetch
from rangefetch import DownloadManager
from rangefetch.errors import DiskError
from servers.misbehaving import MisbehavingServer, content
from support.downloads import fails, fetch
from support.files import names

SIZE = 50_001


def _refused(kind: type[Exception], url: Any, path: Any, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        rangefetch.fetch(url, path, **options)
    assert type(caught.value) is kind
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    assert line.isprintable()
    return line


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("gopher://127.0.0.1/x", "gopher"),
        ("ftp:///x", "host"),
        ("file:///etc/passwd", "file"),
        ("magnet:?dn=name", "torrent"),
        ("file://elsewhere/x.torrent", "this machine"),
        ("javascript:alert(1)", "javascript"),
        ("127.0.0.1/x", "scheme"),
        ("//127.0.0.1/x", "scheme"),
        ("", "scheme"),
        ("http://", "host"),
        ("http:///x", "host"),
        ("http://:80/x", "host"),
        ("http://[::1/x", "malformed"),
        ("http://127.0.0.1:port/x", "malformed"),
        ("http://127.0.0.1:99999/x", "malformed"),
        ("http://127.0.0.1/a b", "space"),
        ("http://127.0.0.1/a\r\nHost: evil", "control"),
        ("http://127.0.0.1/a\x00b", "control"),
        ("http://127.0.0.1/a\tb", "control"),
        ("http://127.0.0.1/a\x7fb", "control"),
        (" http://127.0.0.1/x", "space"),
    ],
)
def test_a_url_that_cannot_be_fetched_is_refused_and_named(target: Path, url: str, what: str) -> None:
    line = _refused(ValueError, url, target)
    assert line.startswith("url: ")
    assert repr(url) in line
    assert what in line
    assert names(target.parent) == []


@pytest.mark.parametrize("url", [None, 5, b"http://127.0.0.1/x", Path("http://127.0.0.1/x"), ["http://127.0.0.1/x"]])
def test_a_url_that_is_no_string_is_a_type_error(target: Path, url: Any) -> None:
    assert _refused(TypeError, url, target).startswith("url: ")


@pytest.mark.parametrize("path", [5, b"bytes", ["list"]])
def test_a_path_that_is_none_is_a_type_error(path: Any) -> None:
    assert _refused(TypeError, "http://127.0.0.1/x", path)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"headers": {"X-A": "a\r\nX-B: b"}}, ValueError),
        ({"headers": {"X-A": "a\nb"}}, ValueError),
        ({"headers": {"X-A": "a\x00b"}}, ValueError),
        ({"headers": {"X-A\r\nX-B": "b"}}, ValueError),
        ({"headers": {"X A": "b"}}, ValueError),
        ({"headers": {"": "b"}}, ValueError),
        ({"headers": ["no colon"]}, ValueError),
        ({"headers": {"Range": "bytes=0-1"}}, ValueError),
        ({"headers": {"Accept-Encoding": "gzip"}}, ValueError),
        ({"headers": {"X-A": 5}}, TypeError),
        ({"headers": 5}, TypeError),
        ({"user_agent": "a\r\nX-B: b"}, ValueError),
        ({"split": 0}, ValueError),
        ({"split": "4"}, TypeError),
        ({"split": True}, TypeError),
        ({"max_connection_per_server": 100_000}, ValueError),
        ({"min_split_size": "4 parsecs"}, ValueError),
        ({"min_split_size": -1}, ValueError),
        ({"expected_size": 1.5}, TypeError),
        ({"max_tries": -1}, ValueError),
        ({"connect_timeout": -1}, ValueError),
        ({"read_timeout": float("nan")}, ValueError),
        ({"total_timeout": "1"}, TypeError),
        ({"checksum": "sha-256=abc"}, ValueError),
        ({"checksum": "crc=00"}, ValueError),
        ({"checksum": "0" * 64}, ValueError),
        ({"http_version": "0.9"}, ValueError),
        ({"file_allocation": "maybe"}, ValueError),
        ({"ca_file": "/no/such/file"}, ValueError),
        ({"cookies": "/no/such/file"}, ValueError),
        ({"overwrite": "yes"}, TypeError),
        ({"verify_tls": 0}, TypeError),
    ],
)
def test_a_wrong_option_is_named_before_anything_is_opened(
    server: MisbehavingServer, target: Path, options: dict[str, Any], kind: type[Exception]
) -> None:
    [name] = options
    assert _refused(kind, server.url("/good/x", size=SIZE), target, **options).startswith(f"{name}: ")
    assert names(target.parent) == []
    assert server.requests == []


def test_an_unknown_option_is_a_type_error(target: Path) -> None:
    assert "spilt" in _refused(TypeError, "http://127.0.0.1/x", target, spilt=4)


@pytest.mark.parametrize("name", ["..", "a\x00b", "a\nb"])
def test_a_name_that_is_none_is_refused(target: Path, name: str) -> None:
    with DownloadManager() as manager, pytest.raises(ValueError, match="filename"):
        manager.download("http://127.0.0.1/x", {"save_dir": target.parent, "filename": name})
    assert names(target.parent) == []


@pytest.mark.parametrize("name", ["a/b", "../b", "/etc/b", "a\\b"])
def test_a_file_name_with_a_directory_in_it_is_refused(target: Path, name: str) -> None:
    with DownloadManager() as manager, pytest.raises(ValueError, match="filename"):
        manager.download("http://127.0.0.1/x", {"save_dir": target.parent, "filename": name})


@pytest.mark.parametrize("into", ["missing/file.bin", "missing/"])
def test_a_missing_directory_is_made(server: MisbehavingServer, target: Path, into: str) -> None:
    result = fetch(server.url("/good/file.bin", size=SIZE), f"{target.parent}/{into}")
    assert result.path == target.parent / "missing" / "file.bin"
    assert result.path.read_bytes() == content(SIZE)


@pytest.mark.parametrize("into", ["x", "missing/x"])
def test_a_directory_that_is_a_file_is_named(server: MisbehavingServer, target: Path, into: str) -> None:
    target.write_bytes(b"precious")
    error = fails(DiskError, server.url("/good/x", size=SIZE), target / into)
    assert str(target) in error.reason
    assert isinstance(error, OSError)
    assert error.errno
    assert server.requests == []
    assert target.read_bytes() == b"precious"


def test_an_unwritable_directory_is_named(server: MisbehavingServer, unwritable_directory: Path) -> None:
    error = fails(DiskError, server.url("/good/x", size=SIZE), unwritable_directory / "x")
    assert str(unwritable_directory) in error.reason
    assert server.requests == []
    assert names(unwritable_directory) == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_target_that_is_a_directory_is_named(server: MisbehavingServer, target: Path, overwrite: bool) -> None:
    target.mkdir()
    options = {"save_dir": target.parent, "filename": target.name, "overwrite": overwrite}
    with DownloadManager() as manager, pytest.raises(DiskError) as caught:
        manager.download_and_wait(server.url("/good/x", size=SIZE), options)
    assert str(target) in str(caught.value)
    assert server.requests == []
    assert names(target.parent) == ["file.bin"]


def test_a_server_that_names_a_directory_is_refused(server: MisbehavingServer, target: Path) -> None:
    target.with_name("disposed.bin").mkdir()
    error = fails(DiskError, server.url("/disposition/x", size=SIZE), target.parent)
    assert str(target.with_name("disposed.bin")) in error.reason
    assert all(".part" in name for name in names(target.parent) if name != "disposed.bin")
    assert list(target.with_name("disposed.bin").iterdir()) == []


def test_sizes_may_be_words_and_headers_lines(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/needs/x", size=SIZE, name="X-Token", value="T")
    fetch(url, target, headers=["X-Token: T"], min_split_size="1.5M", expected_size=SIZE)
    assert target.read_bytes() == content(SIZE)


def test_another_size_than_the_expected_is_an_error(server: MisbehavingServer, target: Path) -> None:
    with pytest.raises(rangefetch.DownloadError, match=str(SIZE + 1)):
        fetch(server.url("/good/x", size=SIZE), target, expected_size=SIZE + 1)
    assert names(target.parent) == []


@pytest.mark.parametrize("route", ["no-length", "chunked"])
@pytest.mark.parametrize("rate", [0, 400_000])
def test_another_size_than_the_expected_is_an_error_where_only_the_end_tells(
    server: MisbehavingServer, target: Path, route: str, rate: int
) -> None:
    with pytest.raises(rangefetch.DownloadError, match=str(SIZE + 1)):
        fetch(server.url(f"/{route}/x", size=SIZE, rate=rate), target, expected_size=SIZE + 1)
    assert names(target.parent) == []


def test_a_url_beyond_ascii_is_taken_as_it_is(server: MisbehavingServer, target: Path) -> None:
    fetch(server.url("/good/naïve", size=SIZE), target.parent)
    assert names(target.parent) == ["naïve"]
