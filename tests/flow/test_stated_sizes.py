"""Whole downloads from servers that state impossible sizes: one clear error, or the file by another request."""

import pathlib

import pytest

import rangefetch
from rangefetch.errors import BadAnswer
from servers.misbehaving import MisbehavingServer, content
from support.downloads import QUICK, fetch
from support.files import MIB, names

SIZE = 2 * MIB + 5
ABSURD = str((1 << 63) - 1)


@pytest.mark.parametrize("length", [ABSURD, f"{SIZE}|{SIZE - 1}"])
@pytest.mark.parametrize("ranges", [0, 1])
def test_an_absurd_length_ends_a_download_with_one_error(
    server: MisbehavingServer, target: pathlib.Path, length: str, ranges: int
) -> None:
    with pytest.raises(rangefetch.DownloadError):
        fetch(server.url("/stated", size=SIZE, ranges=ranges, length=length), target)
    assert names(target.parent) == []


def test_and_a_stream(server: MisbehavingServer) -> None:
    with (
        pytest.raises(BadAnswer, match="a size that no file can have"),
        rangefetch.stream(server.url("/stated", size=SIZE, ranges=0, length=ABSURD), **QUICK) as opened,
    ):
        opened.read()


def test_and_one_of_many(server: MisbehavingServer, tmp_path: pathlib.Path) -> None:
    urls = [server.url("/stated/a.bin", size=SIZE, ranges=0, length=ABSURD), server.url("/good/b.bin", size=SIZE)]
    wrong, right = rangefetch.fetch_many(urls, tmp_path, on_error="return", **QUICK)
    assert isinstance(wrong, BadAnswer)
    assert isinstance(right, rangefetch.DownloadResult)
    assert pathlib.Path(right.path).read_bytes() == content(SIZE)
    assert names(tmp_path) == ["b.bin"]


def test_an_absurd_range_is_asked_for_once_more_without(server: MisbehavingServer, target: pathlib.Path) -> None:
    fetch(server.url("/stated", size=SIZE, total=ABSURD), target)
    assert target.read_bytes() == content(SIZE)
    assert len(server.requests) == 2
