"""Files written without leaving them in the page cache have the same content as others."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from pathlib import Path

import pytest

from engine.driving import Driver
from servers.misbehaving import MisbehavingServer, content
from servers.nginx import Nginx
from support import children
from support.faults import with_faults
from support.files import MIB

pytestmark = pytest.mark.usefixtures("no_leaks")


def _cached_pages(fd: int, size: int) -> int:
    """The number of cached pages, from mincore(2), which needs the file mapped."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    pages = ctypes.create_string_buffer(-(-size // mmap.PAGESIZE))
    with mmap.mmap(fd, size) as mapped:
        first = ctypes.c_char.from_buffer(mapped)
        try:
            failed = libc.mincore(ctypes.addressof(first), size, pages)
        finally:
            del first
    assert failed == 0, os.strerror(ctypes.get_errno())
    return sum(page & 1 for page in pages.raw)


def _can_be_uncached(directory: Path) -> bool:
    """Whether the kernel and this filesystem can write without caching."""
    with (directory / "tried").open("wb") as file:
        try:
            os.pwritev(file.fileno(), [b"x"], 0, 0x80)
        except (OSError, AttributeError):
            return False
    return True


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("lanes", [1, 8])
def test_an_uncached_file_has_every_byte_and_leaves_few_pages(
    driver: Driver, nginx: Nginx, tmp_path: Path, scheme: str, lanes: int
) -> None:
    octets = content(48 * MIB + 12_345)
    path = nginx.write("/large.bin", octets)
    cached = {}
    try:
        for uncached in (False, True):
            url = nginx.url("/large.bin") if scheme == "http" else nginx.https_url("/large.bin")
            file = driver.file(url, lanes=lanes, first_bytes=1 << 16, least_bytes=1)
            file.uncached = uncached
            assert file.uncached is uncached
            driver.engine.add(file)
            assert driver.end(file).name == "DONE"
            os.fsync(file.tag.fd)
            cached[uncached] = _cached_pages(file.tag.fd, len(octets))
            assert file.tag.octets == octets
    finally:
        path.unlink()
    assert cached[False] == -(-len(octets) // mmap.PAGESIZE)
    if _can_be_uncached(tmp_path):
        assert cached[True] < cached[False] // 4


UNCACHED = """
    import sys
    from engine.driving import Driver
    from support.faults import fail, happened
    from rangefetch import _engine
    from servers.misbehaving import content

    url, size, directory = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    failure, times, is_told = int(sys.argv[4]), int(sys.argv[5]), sys.argv[6] == "True"
    with Driver(directory) as driver:
        file = driver.file(url, lanes=1)
        file.uncached = True
        fail("pwritev2", failure, times)
        driver.engine.add(file)
        driver.until(lambda: driver.names(file)[-1:] in (["FAILED"], ["DONE"]))
        assert happened("pwritev2") >= 1
        if is_told:
            failed = driver.log[-1]
            assert (failed.name, failed.fault, failed.errno) == ("FAILED", _engine.FAULTS["DISK"], failure), failed
            file.release()
        assert driver.end(file).name == "DONE"
        assert driver.names(file).count("FAILED") == is_told
        assert file.tag.octets == content(size)
    print("right")
"""


@pytest.mark.parametrize(
    ("failure", "times", "is_told"),
    [
        # The kernel, a sandbox or the filesystem does not support it.
        *((each, 1 << 30, False) for each in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM)),
        (errno.EINTR, 3, False),
        *((each, 1, True) for each in (errno.EIO, errno.ENOSPC, errno.EDQUOT)),
    ],
)
def test_where_it_cannot_be_done_the_cache_is_used_and_what_the_disk_refuses_is_told(
    server: MisbehavingServer, tmp_path: Path, failure: int, times: int, is_told: bool
) -> None:
    size = 3 * MIB + 7
    given = (server.url("/good", size=size), size, tmp_path, failure, times, is_told)
    done = children.run(UNCACHED, *given, env=with_faults(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "right\n", "")
