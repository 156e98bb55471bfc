"""``max_file_size``: a larger file is refused, by the size that the server states or by the bytes that it sends."""

from __future__ import annotations

from pathlib import Path

import pytest

import rangefetch
from rangefetch.errors import FileTooLarge
from servers.misbehaving import MisbehavingServer, content
from support.downloads import QUICK, fails, fetch, interrupt
from support.files import MIB, names

SMALL = 100_001
LARGE = 9 * MIB + 5


@pytest.mark.parametrize("route", ["good", "no-ranges", "no-length", "chunked"])
@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_file_of_just_that_size_comes(server: MisbehavingServer, target: Path, route: str, size: int) -> None:
    fetch(server.url(f"/{route}/x", size=size), target, max_file_size=size)
    assert target.read_bytes() == content(size)


@pytest.mark.parametrize("route", ["good", "no-ranges", "no-length", "chunked"])
@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_byte_more_is_refused_at_once_and_leaves_nothing(
    server: MisbehavingServer, target: Path, route: str, size: int
) -> None:
    error = fails(FileTooLarge, server.url(f"/{route}/x", size=size), target, max_file_size=size - 1)
    assert "--max-file-size" in str(error)
    assert len(server.requests) == 1
    assert names(target.parent) == []


def test_without_a_limit_any_size_comes(server: MisbehavingServer, target: Path) -> None:
    fetch(server.url("/good/x", size=LARGE), target, max_file_size=0)
    assert target.read_bytes() == content(LARGE)


def test_a_stream_ends_where_the_limit_is(server: MisbehavingServer) -> None:
    url = server.url("/chunked/x", size=LARGE)
    with rangefetch.stream(url, **QUICK, max_file_size=MIB) as stream:
        with pytest.raises(FileTooLarge):
            stream.read()
        assert stream.tell() <= MIB


def test_of_a_batch_only_the_large_ones_fail(server: MisbehavingServer, tmp_path: Path) -> None:
    urls = [server.url(f"/good/{i}", size=1000 * i, seed=i) for i in range(1, 9)]
    outcomes = rangefetch.fetch_many(urls, tmp_path, on_error="return", **QUICK, max_file_size=4000)
    assert [isinstance(each, FileTooLarge) for each in outcomes] == [False] * 4 + [True] * 4
    assert names(tmp_path) == ["1", "2", "3", "4"]


def test_a_server_that_announces_little_and_sends_much_is_cut_off(server: MisbehavingServer, target: Path) -> None:
    with pytest.raises(rangefetch.DownloadError):
        fetch(server.url("/overflow/x", size=SMALL), target, max_file_size=SMALL, max_tries=2)
    assert not target.exists()


def test_a_download_that_was_begun_without_a_limit_is_refused_under_one(
    server: MisbehavingServer, target: Path
) -> None:
    url = server.url("/good/x", size=LARGE, rate=4 * MIB)
    interrupt(url, target, MIB)
    before = names(target.parent)
    fails(FileTooLarge, url, target, max_file_size=LARGE - 1)
    assert names(target.parent) == before
    fetch(url, target)
    assert target.read_bytes() == content(LARGE)
