"""A full disk stops a list with one clear error, and the same call continues it once there is room."""

from __future__ import annotations

import asyncio
import errno
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rangefetch
from rangefetch import aio, fetch_iter, fetch_many
from rangefetch.errors import DiskError, DiskFull
from servers.misbehaving import MisbehavingServer, content
from support.files import MIB, names

SMALL = 100_000
COUNT = 2000
FIT = 8 * MIB // SMALL
AT_WORK = 512
"""The most requests made for downloads that were already started when the first one failed: 256, perhaps two each."""


def urls_of(server: MisbehavingServer, count: int = COUNT) -> list[str]:
    return [server.url(f"/good/{number:04}.bin", size=SMALL, seed=number % 7) for number in range(count)]


def whole(directory: Path) -> list[str]:
    """The names of the files with a final name, after checking their content."""
    found = [name for name in names(directory) if name.endswith(".bin")]
    for name in found:
        assert (directory / name).read_bytes() == content(SMALL, int(name[:4]) % 7)
    return found


def test_fetch_many_tries_no_further_ones(server: MisbehavingServer, small_disk: Path) -> None:
    urls = urls_of(server)
    told: dict[int, Any] = {}
    outcomes = fetch_many(urls, small_disk, on_error="return", on_result=told.__setitem__)
    failed = [outcome for outcome in outcomes if isinstance(outcome, rangefetch.DownloadError)]
    assert {type(error) for error in failed} == {DiskFull}
    assert {error.errno for error in failed if isinstance(error, DiskFull)} == {errno.ENOSPC}
    assert [error.url for error in failed] == [url for url, one in zip(urls, outcomes, strict=True) if one in failed]
    assert len(outcomes) - len(failed) == len(whole(small_disk)) > FIT // 2
    assert [told[number] for number in range(COUNT)] == outcomes
    assert len(server.requests) <= FIT + AT_WORK
    assert [name for name in names(small_disk) if not name.endswith(".bin")] == []


def test_fetch_iter_ends_with_one_error_and_goes_on_later(server: MisbehavingServer, small_disk: Path) -> None:
    def endless() -> Iterator[str]:
        for number in itertools.count():
            yield server.url(f"/good/{number:04}.bin", size=SMALL, seed=number % 7)

    came: list[str] = []
    names_of_results = (fetched.result.path.name for fetched in fetch_iter(endless(), small_disk))
    with pytest.raises(DiskFull, match=r"^stopped, since the disk is full: .*No space left on device"):
        came.extend(names_of_results)
    assert sorted(came) == whole(small_disk)
    assert len(server.requests) <= FIT + AT_WORK
    for name in came:
        (small_disk / name).unlink()
    again = urls_of(server, FIT - 10)
    assert all(fetched.error is None for fetched in fetch_iter(again, small_disk))


def test_so_does_that_of_asyncio(server: MisbehavingServer, small_disk: Path) -> None:
    async def fetch_all() -> list[str]:
        came: list[str] = []

        async def take() -> None:
            async for fetched in aio.fetch_iter(urls_of(server), small_disk):
                came.append(fetched.result.path.name)

        with pytest.raises(DiskFull):
            await take()
        return came

    assert sorted(asyncio.run(fetch_all())) == whole(small_disk)
    assert len(server.requests) <= FIT + AT_WORK


def test_a_file_that_is_larger_than_what_is_free_stops_nothing(server: MisbehavingServer, small_disk: Path) -> None:
    items = [server.url("/good/large", size=64 * MIB), *urls_of(server, 20)]
    outcomes = fetch_many(items, small_disk, on_error="return")
    assert type(outcomes[0]) is DiskError
    assert outcomes[0].errno == errno.ENOSPC
    assert len(whole(small_disk)) == 20
