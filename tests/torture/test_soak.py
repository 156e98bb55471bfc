"""A long life: memory and descriptors after many transfers are what they were after a few.

Some thousand transfers here; ``make torture`` has 100,000 (``RANGEFETCH_TORTURE=1``). ``pytest -rP`` shows the figures.
"""

from __future__ import annotations

import gc
import os
import shutil
from pathlib import Path
from typing import Any

import psutil
import pytest

import rangefetch
from rangefetch import DownloadManager
from servers.misbehaving import MisbehavingServer, content
from servers.tls import Certificates

ROUNDS = 500 if os.environ.get("RANGEFETCH_TORTURE") else 12  # for each scheme
BATCH = 98  # small ones in a round, with two that are larger
LARGE = (1 << 20) + 7
MOST_GROWTH_BYTES = 16 << 20
MOST_MORE_DESCRIPTORS = 16


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.timeout(4 * 3600)
def test_memory_and_descriptors_stay_flat(
    server: MisbehavingServer, tls_server: MisbehavingServer, certificates: Certificates, tmp_path: Path, scheme: str
) -> None:
    source = server if scheme == "http" else tls_server
    options: dict[str, Any] = {"ca_file": certificates.ca} if scheme == "https" else {}
    process = psutil.Process()
    figures: list[tuple[int, int]] = []
    # It remembers what has ended: some 20 KiB of each, a thousand of them as a rule.
    with DownloadManager(max_download_results=20) as manager:
        for turn in range(ROUNDS):
            place = tmp_path / "round"
            place.mkdir()
            urls = [source.url(f"/good/{i}", size=100 + i) for i in range(BATCH)]
            assert len(rangefetch.fetch_many(urls, place, **options)) == BATCH
            for i in range(2):
                into = {"save_dir": place, "filename": f"large{i}", "min_split_size": "256K", **options}
                result = manager.wait(manager.download(source.url("/good/l", size=LARGE, seed=i), into))
                assert result.path.read_bytes() == content(LARGE, i)
            shutil.rmtree(place)
            source.clear()
            if turn >= 3:
                gc.collect()
                figures.append((process.memory_info().rss, process.num_fds()))
    # By the middle there were as many idle connections as there will be, on both sides, for the server is here, too.
    (memory, descriptors), last = map(max, zip(*figures[: len(figures) // 2], strict=True)), figures[-1]
    for at in range(0, len(figures), max(1, len(figures) // 10)):
        print(f"after {(at + 4) * (BATCH + 2)} transfers: {figures[at][0] >> 10} KiB, {figures[at][1]} descriptors")
    print(f"after {ROUNDS * (BATCH + 2)} transfers: {last[0] >> 10} KiB, {last[1]} descriptors")
    assert last[0] - memory < MOST_GROWTH_BYTES, figures
    assert last[1] - descriptors <= MOST_MORE_DESCRIPTORS, figures
