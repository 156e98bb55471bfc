"""FTP, which the native engine leaves to aria2."""

import hashlib
from pathlib import Path

import pytest

from aria2.driving import Desk, downloaded
from rangefetch.errors import DownloadError
from servers.ftp import FtpServer
from servers.misbehaving import content
from support.files import MIB, names
from support.waiting import until

SIZE = 3 * MIB + 7


def test_a_file_comes_with_its_name_and_time(desk: Desk, target: Path) -> None:
    with FtpServer(content(SIZE)) as server:
        result = desk.fetch(f"ftp://127.0.0.1:{server.port}/some/file.iso", target.parent)
    assert result.path == target.with_name("file.iso")
    assert result.path.read_bytes() == content(SIZE)
    assert result.path.stat().st_mtime == 1_577_836_800
    assert names(target.parent) == ["file.iso"]


def test_a_password_travels(desk: Desk, target: Path) -> None:
    with FtpServer(content(SIZE), user="me", password="hu sh") as server:
        result = desk.fetch(f"ftp://me:hu%20sh@127.0.0.1:{server.port}/x", target)
        assert result.size == SIZE
        assert "sh" not in str(result.sources)
        with pytest.raises(DownloadError) as caught:
            desk.fetch(f"ftp://other:wrong@127.0.0.1:{server.port}/x", target.with_name("b"), max_tries=1)
        assert "wrong" not in str(caught.value)


def test_it_goes_on_where_it_was_if_a_checksum_proves_it(desk: Desk, target: Path) -> None:
    checksum = f"sha-256={hashlib.sha256(content(SIZE)).hexdigest()}"
    with FtpServer(content(SIZE)) as server:
        server.rate = 4 * MIB
        url = f"ftp://127.0.0.1:{server.port}/x"
        download = desk.begin(url, target, checksum=checksum, split=1)
        until(lambda: downloaded(download) > MIB)
        desk.halt(download)
        assert names(target.parent) == ["file.bin.part", "file.bin.part.json"]
        server.rate = 0
        result = desk.wait(desk.begin_again(download))
    assert result.resumed >= MIB // 2
    assert max(server.offsets) > 0
    assert target.read_bytes() == content(SIZE)
