"""Responses that say something odd of a file that is all there: another status, or a coding that is none."""

from pathlib import Path
from typing import Any

import pytest

import rangefetch
from rangefetch.errors import BadAnswer, DownloadError
from servers.misbehaving import MisbehavingServer, content
from support.downloads import QUICK, SIZE, SMALL, fails, fetch

LANES: list[dict[str, Any]] = [{"split": 1}, {"split": 8, "min_split_size": "1M"}]


@pytest.mark.parametrize("options", LANES, ids=["one lane", "eight"])
@pytest.mark.parametrize("size", [SMALL, SIZE])
@pytest.mark.parametrize("code", [201, 203, 206, 226])
def test_the_whole_file_under_another_success_is_the_file(
    server: MisbehavingServer, target: Path, code: int, size: int, options: dict[str, Any]
) -> None:
    fetch(server.url("/success/x", size=size, code=code), target, **options)
    assert target.read_bytes() == content(size)


@pytest.mark.parametrize("code", [201, 203, 206, 226])
def test_small_files_under_another_success_are_files(server: MisbehavingServer, tmp_path: Path, code: int) -> None:
    urls = [server.url(f"/success/{number}", size=SMALL, seed=number, code=code) for number in range(4)]
    rangefetch.fetch_many(urls, tmp_path, **QUICK)
    assert [(tmp_path / str(number)).read_bytes() == content(SMALL, number) for number in range(4)] == [True] * 4


@pytest.mark.parametrize("code", [201, 203, 206, 226])
def test_a_stream_under_another_success_is_the_file(server: MisbehavingServer, code: int) -> None:
    with rangefetch.stream(server.url("/success/x", size=SIZE, code=code), **QUICK) as stream:
        assert stream.read() == content(SIZE)


def test_a_part_in_reply_to_a_plain_request_is_not_the_file(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/status/x", size=SIZE, code=206, header=f"Content-Range: bytes 0-24/{SIZE}")
    fails(BadAnswer, url, target)
    assert not target.exists()


def test_no_content_is_an_empty_file(server: MisbehavingServer, tmp_path: Path) -> None:
    fetch(server.url("/status/x", code=204), tmp_path / "one")
    rangefetch.fetch_many([server.url(f"/status/{name}", code=204) for name in ("two", "three")], tmp_path, **QUICK)
    with rangefetch.stream(server.url("/status/four", code=204), **QUICK) as stream:
        assert stream.read() == b""
    assert sorted((path.name, path.stat().st_size) for path in tmp_path.iterdir()) == [
        ("one", 0),
        ("three", 0),
        ("two", 0),
    ]


@pytest.mark.parametrize("expected", [{"expected_size": SMALL}, {"checksum": "md5=" + "1" * 32}])
def test_no_content_is_not_the_file_that_was_expected(
    server: MisbehavingServer, target: Path, expected: dict[str, Any]
) -> None:
    with pytest.raises(DownloadError):
        fetch(server.url("/status/x", code=204), target, **expected)
    assert not target.exists()


@pytest.mark.parametrize("options", LANES, ids=["one lane", "eight"])
@pytest.mark.parametrize(
    "coding",
    ["none", "binary", "utf-8", "UTF-8", "aws-chunked", "aws-chunked, identity", "8bit", "base64,none", "", "*"],
)
def test_what_is_no_coding_means_nothing(
    server: MisbehavingServer, target: Path, coding: str, options: dict[str, Any]
) -> None:
    fetch(server.url("/encoded/x", size=SIZE, coding=coding), target, **options)
    assert target.read_bytes() == content(SIZE)


@pytest.mark.parametrize("options", LANES, ids=["one lane", "eight"])
@pytest.mark.parametrize(
    ("name", "coding"),
    [
        ("x.tar.gz", "x-gzip"),
        ("x.tar.gz", "gzip"),
        ("X.TGZ", "gzip"),
        ("x.svgz", "gzip"),
        ("x.gz", "GZIP"),
        ("x.tar.gz", "aws-chunked, gzip"),
        ("x.Z", "x-compress"),
        ("x.tar.bz2", "x-bzip2"),
        ("x.tar.zst", "zstd"),
        ("x.br", "br"),
    ],
)
def test_a_coding_that_the_name_says_is_the_files_own(
    server: MisbehavingServer, target: Path, name: str, coding: str, options: dict[str, Any]
) -> None:
    result = fetch(server.url(f"/encoded/{name}", size=SIZE, coding=coding), target.parent, **options)
    assert (result.filename, target.with_name(name).read_bytes()) == (name, content(SIZE))


def test_small_files_that_say_their_coding_come(server: MisbehavingServer, tmp_path: Path) -> None:
    urls = [server.url(f"/encoded/{n}.tar.gz", size=SMALL, coding="x-gzip") for n in range(4)]
    rangefetch.fetch_many(urls, tmp_path, **QUICK)
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {content(SMALL)}


def test_a_name_that_says_the_coding_may_come_from_elsewhere(server: MisbehavingServer, target: Path) -> None:
    # From a redirect, the server, or the user.
    fetch(server.url("/redirect/x", to=f"/encoded/y.tgz?size={SIZE}&coding=gzip"), target.with_name("one"))
    fetch(server.url("/encoded/get", size=SIZE, coding="gzip"), target.with_name("two.tar.gz"))
    header = 'Content-Disposition: attachment; filename="three.tar.gz"'
    fetch(server.url("/encoded/get", size=SIZE, coding="gzip", header=header), target.parent)
    for name in ("one", "two.tar.gz", "three.tar.gz"):
        assert target.with_name(name).read_bytes() == content(SIZE)
