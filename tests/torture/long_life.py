"""Rounds of transfers in a separate process, for ``test_soak``: prints the resources that it holds after each round.

    python -m torture.long_life ROUNDS DIRECTORY URL [CA]

A round has ``BATCH`` small files and two larger ones. The server runs in another process, so that it does not count.
"""

from __future__ import annotations

import ctypes
import gc
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

import psutil

import rangefetch
from rangefetch import DownloadManager

__all__ = ["BATCH", "LARGE_BYTES", "TRANSFERS", "Held", "held"]

BATCH = 98
LARGE_BYTES = (1 << 20) + 7
TRANSFERS = BATCH + 2
"""In a round."""


class Held(NamedTuple):
    """The resources that the process holds at one moment."""

    resident_kib: int
    used_kib: int
    """Of malloc's memory, without what is free in it."""
    blocks: int
    """Of Python's allocator."""
    descriptors: int


class _Mallinfo2(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks"),
            "keepcost",
        )
    ]


def held() -> Held:
    """The resources held now. mallinfo2(3) needs glibc 2.33; without it ``used_kib`` is 0."""
    gc.collect()
    process = psutil.Process()
    used_bytes = 0
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        pass
    else:
        mallinfo2.restype = _Mallinfo2
        info = mallinfo2()
        used_bytes = info.uordblks + info.hblkhd
    return Held(process.memory_info().rss >> 10, used_bytes >> 10, sys.getallocatedblocks(), process.num_fds())


def main(rounds: int, directory: Path, url: str, ca: str) -> None:
    options: dict[str, Any] = {"ca_file": ca} if ca else {}
    # A manager remembers ended downloads, by default a thousand, at some 20 KiB each.
    with DownloadManager(max_download_results=20) as manager:
        for _ in range(rounds):
            place = directory / "round"
            place.mkdir()
            urls = [f"{url}/{i}?size={100 + i}" for i in range(BATCH)]
            assert len(rangefetch.fetch_many(urls, place, **options)) == BATCH
            for i in range(2):
                into = {"save_dir": place, "filename": f"large{i}", "min_split_size": "256K", **options}
                result = manager.wait(manager.download(f"{url}/large?size={LARGE_BYTES}", into))
                assert result.path.stat().st_size == LARGE_BYTES
            shutil.rmtree(place)
            print(*held(), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], *sys.argv[4:] or [""])
