"""Errors that are also ``OSError``s have the attributes of one, and say how to proceed if there is a way."""

from __future__ import annotations

import errno
import traceback
from pathlib import Path
from typing import Any

import pytest

import rangefetch
from rangefetch import DownloadManager, aio
from rangefetch.errors import (
    ConnectionFailed,
    DiskError,
    DownloadError,
    HttpStatusError,
    TargetExists,
    TimedOut,
    WaitTimeout,
)
from servers.misbehaving import MisbehavingServer, refused_port

QUICKLY: dict[str, Any] = {"max_tries": 1, "retry_wait": 0}


@pytest.mark.parametrize("checksum", ["", "sha-256=" + 64 * "0"])
def test_a_name_that_is_taken_is_named_with_the_way_to_replace_it(
    server: MisbehavingServer, target: Path, checksum: str
) -> None:
    target.write_bytes(b"another")
    with pytest.raises(FileExistsError, match=r"--allow-overwrite") as caught:
        rangefetch.fetch(server.url("/good/a.bin"), target, checksum=checksum)
    assert isinstance(caught.value, TargetExists)
    assert "overwrite=True" in str(caught.value)
    assert (caught.value.errno, caught.value.filename) == (errno.EEXIST, str(target))
    assert target.read_bytes() == b"another"


def test_a_directory_that_cannot_be_made_is_named(server: MisbehavingServer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file") as caught:
        rangefetch.fetch(server.url("/good/a.bin"), tmp_path / "file" / "a.bin")
    assert isinstance(caught.value, DiskError)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOTDIR, str(tmp_path / "file"))


def test_a_disk_without_room_is_named(server: MisbehavingServer, target: Path) -> None:
    with pytest.raises(DiskError) as caught:
        rangefetch.fetch(server.url("/good/a.bin"), target, expected_size="1000T")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(target.parent))


def test_a_refused_connection_has_its_number(target: Path) -> None:
    with pytest.raises(ConnectionError) as caught:
        rangefetch.fetch(f"http://127.0.0.1:{refused_port()}/a", target, **QUICKLY)
    assert isinstance(caught.value, ConnectionFailed)
    assert caught.value.errno == errno.ECONNREFUSED


def test_a_connection_that_breaks_has_a_number(server: MisbehavingServer, target: Path) -> None:
    with pytest.raises(ConnectionError) as caught:
        rangefetch.fetch(server.url("/reset/a.bin", after=1000), target, max_connection_per_server=1, **QUICKLY)
    assert caught.value.errno == errno.ECONNRESET


def test_a_wait_that_expires_is_told_from_a_download_that_timed_out(server: MisbehavingServer, tmp_path: Path) -> None:
    with DownloadManager(defaults={"save_dir": tmp_path, **QUICKLY}) as manager:
        gid = manager.download(server.url("/stall/a.bin", after=0))
        with pytest.raises(WaitTimeout) as waited:
            manager.wait(gid, timeout=0.05)
        assert (waited.value.gid, waited.value.seconds) == (gid, 0.05)
        assert not isinstance(waited.value, DownloadError)
        manager.cancel(gid)
        gid = manager.download(server.url("/stall/b.bin", after=0, id="b"), {"total_timeout": 0.1})
        with pytest.raises(TimedOut) as failed:
            manager.wait(gid, timeout=60)
        assert failed.value.errno == errno.ETIMEDOUT
        assert not isinstance(failed.value, WaitTimeout)


async def _wait_shortly(url: str, directory: Path) -> None:
    async with aio.DownloadManager() as manager:
        gid = await manager.download(url, {"save_dir": directory})
        with pytest.raises(WaitTimeout, match=gid):
            await manager.wait(gid, timeout=0.05)


def test_a_wait_that_expires_is_one_with_asyncio_too(server: MisbehavingServer, tmp_path: Path) -> None:
    import asyncio

    asyncio.run(_wait_shortly(server.url("/stall/a.bin", after=0), tmp_path))


def _frames(error: BaseException) -> int:
    return len(traceback.extract_tb(error.__traceback__))


def test_an_error_that_is_raised_again_is_another_object(server: MisbehavingServer, tmp_path: Path) -> None:
    caught: list[HttpStatusError] = []
    with DownloadManager() as manager:
        gid = manager.download(server.url("/status/a.bin", code=404), {"save_dir": tmp_path})
        for _ in range(3):
            with pytest.raises(HttpStatusError) as error:
                manager.wait(gid)
            caught.append(error.value)
    assert len(set(map(id, caught))) == 3
    assert len(set(map(_frames, caught))) == 1
    assert len({str(error) for error in caught}) == 1
    assert len({(type(error), error.status, error.url, error.tried) for error in caught}) == 1


def test_a_stream_that_has_failed_says_so_anew_each_time(server: MisbehavingServer) -> None:
    with rangefetch.stream(server.url("/status/a.bin", code=404)) as stream:
        caught: list[DownloadError] = []
        for _ in range(3):
            with pytest.raises(HttpStatusError) as error:
                stream.read(1)
            caught.append(error.value)
    assert len(set(map(id, caught))) == 3
    assert len(set(map(_frames, caught))) == 1
