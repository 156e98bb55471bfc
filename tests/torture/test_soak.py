"""A long life: from its middle to its end, neither memory nor descriptors become more.

Some thousand transfers here; ``make torture`` has 100,000 (``RANGEFETCH_TORTURE=1``). ``pytest -rP`` shows the figures.
What takes its share at first is the allocator's, and idle connections', of both sides, for the server is here, too.
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
MOST_GROWTH_BYTES = (3 << 20) if ROUNDS > 100 else (1 << 20)  # 250 bytes of a transfer where there are 50,000
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
            gc.collect()
            figures.append((process.memory_info().rss, process.num_fds()))
    for at in range(0, ROUNDS, max(1, ROUNDS // 10)):
        print(f"after {(at + 1) * (BATCH + 2)} transfers: {figures[at][0] >> 10} KiB, {figures[at][1]} descriptors")
    print(f"after {ROUNDS * (BATCH + 2)} transfers: {figures[-1][0] >> 10} KiB, {figures[-1][1]} descriptors")
    # By turns there is more and less of both: what is compared is the most of the third quarter and of the last one.
    quarter = ROUNDS // 4
    (memory, descriptors), last = (
        map(max, zip(*part, strict=True)) for part in (figures[-2 * quarter : -quarter], figures[-quarter:])
    )
    most_memory, most_descriptors = last
    assert most_memory - memory < MOST_GROWTH_BYTES, figures
    assert most_descriptors - descriptors <= MOST_MORE_DESCRIPTORS, figures
