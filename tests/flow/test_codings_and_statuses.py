"""Responses that bring the whole file, but with an unusual status or Content-Encoding."""

import contextlib
import errno
import gzip
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rangefetch
from rangefetch.errors import BadAnswer, DiskError, DownloadError, HttpStatusError, TargetExists
from servers.misbehaving import MisbehavingServer, content
from servers.routing import ROUTES, Ask, Route, content_range
from servers.wire import Reply, asked_range
from support.downloads import QUICK, SIZE, SMALL, fails, fetch
from support.files import MIB, names, saved_bytes

LANES: list[dict[str, Any]] = [{"split": 1}, {"split": 8, "min_split_size": "1M"}]


@pytest.mark.parametrize("options", LANES, ids=["one lane", "eight"])
@pytest.mark.parametrize("size", [SMALL, SIZE])
@pytest.mark.parametrize("code", [201, 203, 206, 218, 226, 299])
def test_the_whole_file_under_another_success_is_the_file(
    server: MisbehavingServer, target: Path, code: int, size: int, options: dict[str, Any]
) -> None:
    fetch(server.url("/success/x", size=size, code=code), target, **options)
    assert target.read_bytes() == content(size)


@pytest.mark.parametrize("code", [201, 203, 206, 218, 226, 299])
def test_small_files_under_another_success_are_files(server: MisbehavingServer, tmp_path: Path, code: int) -> None:
    urls = [server.url(f"/success/{number}", size=SMALL, seed=number, code=code) for number in range(4)]
    rangefetch.fetch_many(urls, tmp_path, **QUICK)
    assert [(tmp_path / str(number)).read_bytes() == content(SMALL, number) for number in range(4)] == [True] * 4


@pytest.mark.parametrize("code", [201, 203, 206, 218, 226, 299])
def test_a_stream_under_another_success_is_the_file(server: MisbehavingServer, code: int) -> None:
    with rangefetch.stream(server.url("/success/x", size=SIZE, code=code), **QUICK) as stream:
        assert stream.read() == content(SIZE)


@pytest.mark.parametrize("code", [202, 205, 207, 208])
def test_a_success_that_is_not_the_files_is_an_error(server: MisbehavingServer, target: Path, code: int) -> None:
    assert fails(HttpStatusError, server.url("/success/x", size=SIZE, code=code), target).status == code


@pytest.mark.parametrize("options", LANES, ids=["one lane", "eight"])
@pytest.mark.parametrize("size", [SMALL, SIZE])
def test_a_206_that_names_no_part_is_the_file_if_none_was_asked_for(
    server: MisbehavingServer, target: Path, size: int, options: dict[str, Any]
) -> None:
    fetch(server.url("/success/x", size=size, code=206, said=0), target, **options)
    assert target.read_bytes() == content(size)


def test_unless_it_has_several_or_is_what_the_first_range_asked_for(server: MisbehavingServer, target: Path) -> None:
    several = server.url("/success/x", size=SIZE, code=206, said=0, media="multipart/byteranges; boundary=x")
    fails(BadAnswer, several, target)
    fails(BadAnswer, server.url("/success/x", size=4 * MIB, code=206, said=0), target)
    assert not target.exists()


def test_the_first_part_that_a_cache_repeats_without_saying_so_is_not_the_file(
    server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the first request asks for, which is little if a file with that name exists."""
    answers: list[Reply] = []

    def repeated(ask: Ask, reply: Reply) -> Reply:
        start, end = asked_range(ask.headers.get("range", ""), SIZE) or (0, SIZE)
        answers.append(Reply(206, {}, memoryview(content(SIZE))[start:end], start))
        return answers[0]

    monkeypatch.setitem(ROUTES, "repeated", Route("repeated", repeated, {}))
    target.write_bytes(b"another")
    url = server.url("/repeated/file.bin")
    for path in (target, f"{target.parent}/"):
        fails(BadAnswer, url, path, auto_file_renaming=True)
        answers.clear()
    (outcome,) = rangefetch.fetch_many([url], target.parent, on_error="return", auto_file_renaming=True, **QUICK)
    assert isinstance(outcome, BadAnswer)
    assert names(target.parent) == ["file.bin"]


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


@pytest.mark.parametrize(
    ("name", "coding"), [("x", "gzip"), ("x.tar.gz", "br"), ("x.gz", "gzip, deflate"), ("x", "br")]
)
def test_a_coding_that_nobody_asked_for_is_refused_and_the_message_says_what_to_do(
    server: MisbehavingServer, target: Path, name: str, coding: str
) -> None:
    error = fails(BadAnswer, server.url(f"/encoded/{name}", size=SIZE, coding=coding), target)
    assert "--decode" in error.reason
    assert coding in error.reason
    assert names(target.parent) == []


# ---- Decoding ----------------------------------------------------------------------------------------------------

PLAIN = content(3 * MIB + 17)


def _encoded(coding: str) -> bytes:
    match coding:
        case "gzip" | "x-gzip":
            return gzip.compress(PLAIN, 1, mtime=0)
        case "members":
            return gzip.compress(PLAIN[:MIB], 1, mtime=0) + gzip.compress(PLAIN[MIB:], 1, mtime=0)
        case "deflate":
            return zlib.compress(PLAIN, 1)
        case _:
            raise ValueError(coding)


@pytest.fixture
def encoding(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, bytes], None]:
    """Sets the body and the Content-Encoding of the route ``/coded``."""

    def serve(coding: str, body: bytes) -> None:
        def coded(ask: Ask, reply: Reply) -> Reply:
            wanted = asked_range(ask.headers.get("range", ""), len(body))
            start, end = (wanted[0], min(wanted[1], len(body))) if wanted else (0, len(body))
            headers = {"Content-Encoding": coding, "ETag": '"coded"'}
            if wanted:
                headers["Content-Range"] = content_range(start, end, len(body))
            return Reply(206 if wanted else 200, headers, memoryview(body)[start:end], start)

        monkeypatch.setitem(ROUTES, "coded", Route("coded", coded, {}))

    return serve


@pytest.mark.parametrize("options", LANES, ids=["one lane", "eight"])
@pytest.mark.parametrize(
    ("said", "coding"), [("gzip", "gzip"), ("X-GZIP", "gzip"), ("gzip", "members"), ("deflate", "deflate")]
)
def test_a_coding_is_undone_where_that_is_wanted(
    server: MisbehavingServer,
    target: Path,
    encoding: Callable[[str, bytes], None],
    said: str,
    coding: str,
    options: dict[str, Any],
) -> None:
    encoding(said, _encoded(coding))
    result = fetch(server.url("/coded/x"), target, decode=True, **options)
    assert target.read_bytes() == PLAIN
    assert result.size == len(PLAIN)
    assert names(target.parent) == ["file.bin"]


@pytest.mark.parametrize("length", ["stated", "not stated"])
@pytest.mark.parametrize("etag", ["", '"coded"', 'W/"coded"'])
@pytest.mark.parametrize("recorded", [True, False])
def test_the_second_time_a_decoded_file_is_already_complete(
    server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch, length: str, etag: str, recorded: bool
) -> None:
    body = [b"".join(b"%d\n" % number for number in range(100_000))]

    def coded(ask: Ask, reply: Reply) -> Reply:
        headers = {"Content-Encoding": "gzip"} | ({"ETag": etag} if etag else {})
        encoded = gzip.compress(body[0], 1, mtime=0)
        return Reply(200, headers, memoryview(encoded), framing="length" if length == "stated" else "chunked")

    monkeypatch.setitem(ROUTES, "coded", Route("coded", coded, {}))
    url = server.url("/coded/x")
    fetch(url, target, decode=True)
    if not recorded:
        for name in os.listxattr(target):
            os.removexattr(target, name)
    assert fetch(url, target, decode=True).already_complete
    assert target.read_bytes() == body[0]
    assert names(target.parent) == ["file.bin"]
    body[0] += b"more"
    etag += "2" if etag else ""
    fails(TargetExists, url, target, decode=True)
    assert names(target.parent) == ["file.bin"]


def test_small_files_are_decoded(
    server: MisbehavingServer, tmp_path: Path, encoding: Callable[[str, bytes], None]
) -> None:
    encoding("gzip", gzip.compress(b"small", 1, mtime=0))
    rangefetch.fetch_many([server.url(f"/coded/{number}") for number in range(3)], tmp_path, decode=True, **QUICK)
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"small"}


def test_a_coding_that_the_name_says_is_not_undone(
    server: MisbehavingServer, target: Path, encoding: Callable[[str, bytes], None]
) -> None:
    encoding("gzip", _encoded("gzip"))
    fetch(server.url("/coded/x.tar.gz"), target.parent, decode=True)
    fetch(server.url("/coded/x"), target.with_name("y.tgz"), decode=True)
    assert target.with_name("x.tar.gz").read_bytes() == target.with_name("y.tgz").read_bytes() == _encoded("gzip")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (gzip.compress(bytes(5 * MIB)), "larger than"),
        (gzip.compress(bytes(1000), mtime=0)[:-9], "too early"),
        (b"no gzip at all", "cannot be decoded"),
    ],
    ids=["too long", "cut", "garbage"],
)
def test_what_cannot_be_decoded_or_is_too_long_is_an_error_and_not_the_file(
    server: MisbehavingServer, target: Path, encoding: Callable[[str, bytes], None], body: bytes, words: str
) -> None:
    encoding("gzip", body)
    error = fails(BadAnswer, server.url("/coded/x"), target, decode=True, decode_limit="4M")
    assert words in error.reason
    assert not target.exists()


@pytest.mark.parametrize("code", [200, 204, 416])
@pytest.mark.parametrize("times", [1, 1000])
def test_what_is_said_of_a_range_alone_makes_no_empty_file(
    server: MisbehavingServer, tmp_path: Path, code: int, times: int
) -> None:
    """Servers may say so while the file is still being made, or if its length is not known."""
    url = server.url("/range-of-nothing/x.bin", size=SMALL, code=code, times=times)
    fetch(url, tmp_path / "one")
    rangefetch.fetch_many([url + "&id=2"], tmp_path, **QUICK)
    with rangefetch.stream(url + "&id=3", **QUICK) as stream:
        assert stream.read() == content(SMALL)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "x.bin").read_bytes() == content(SMALL)
    assert len(server.requests) == 6


@pytest.mark.parametrize("code", [200, 204, 416])
def test_what_is_said_of_a_range_alone_does_not_make_an_empty_file_complete(
    server: MisbehavingServer, target: Path, code: int
) -> None:
    url = server.url("/range-of-nothing/x.bin", size=SMALL, code=code, times=1000)
    assert rangefetch.head(url).size == SMALL
    target.touch()
    fails(TargetExists, url, target)


def test_no_content_that_is_said_only_once_is_no_empty_file(server: MisbehavingServer, target: Path) -> None:
    # The range is refused with another status, and a plain request follows.
    url = server.url("/script/x", size=SMALL, steps="status:code=400|status:code=204")
    with contextlib.suppress(DownloadError):
        fetch(url, target, max_tries=2)
    assert [request.headers.get("range") is None for request in server.requests[:2]] == [False, True]
    assert not target.exists() or target.read_bytes() == content(SMALL)


def test_a_disk_on_which_there_is_no_room_to_decode_keeps_what_came(
    server: MisbehavingServer, small_disk: Path, encoding: Callable[[str, bytes], None]
) -> None:
    # The 8 MiB have room for one decoded copy but not for two.
    body = gzip.compress(bytes(5 * MIB), mtime=0)
    encoding("gzip", body)
    error = fails(DiskError, server.url("/coded/x"), small_disk / "x", decode=True)
    assert error.errno == errno.ENOSPC
    assert (small_disk / "x.part").read_bytes() == body
    assert saved_bytes(small_disk / "x") == len(body)


def test_a_coding_for_which_there_is_no_decoder_is_refused(server: MisbehavingServer, target: Path) -> None:
    error = fails(BadAnswer, server.url("/encoded/x", size=SIZE, coding="br"), target, decode=True)
    assert "br" in error.reason
    assert names(target.parent) == []
