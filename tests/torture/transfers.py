"""Transfers that exercise each part of the engine once, for a memory checker, under which everything is slow.

PYTHONPATH=tests python -m torture.transfers
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import rangefetch
from rangefetch import DownloadManager
from servers.misbehaving import MisbehavingServer, content
from servers.tls import make_certificates

MIB = 1 << 20
# Reading and writing this much under a memory checker takes minutes.
LARGE = 5 * MIB + 3
SMALL = 10_001
ROUTES = ["good", "no-ranges", "chunked", "chunked-ranges", "short-range", "weak-etag", "odd-headers", "redirect"]
FAILING = ["overflow", "garbage", "wrong-total", "no-content-range", "encoded", "huge-headers", "cut", "etag-changes"]


def transfers(server: MisbehavingServer, directory: Path, **options: Any) -> None:
    common: dict[str, Any] = {
        "retry_wait": 0.001,
        "max_tries": 2,
        "total_timeout": 600,
        "connect_timeout": 120,
        **options,
    }
    for route in ROUTES:
        for size in (SMALL, LARGE):
            path = directory / f"{route}-{size}"
            rangefetch.fetch(server.url(f"/{route}/x", size=size), path, **common)
            assert path.read_bytes() == content(size), path
    for route in FAILING:
        with contextlib.suppress(rangefetch.DownloadError):
            rangefetch.fetch(server.url(f"/{route}/x", size=LARGE), directory / route, **common)
    urls = [server.url(f"/good/{i}", size=1000 + i, seed=i) for i in range(40)]
    rangefetch.fetch_many(urls, directory / "many", **common)
    with rangefetch.stream(server.url("/good/x", size=LARGE), **common) as stream:
        assert len(stream.read()) == LARGE
    with DownloadManager() as manager:
        # Stop in the middle, and resume.
        target = {"save_dir": directory, "filename": "halved", **common}
        manager.download(server.url("/good/y", size=LARGE, rate=MIB), target)
    rangefetch.fetch(server.url("/good/y", size=LARGE), directory / "halved", **common)


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        (directory / "many").mkdir()
        with MisbehavingServer() as server:
            transfers(server, directory)
        certificates = make_certificates(directory)
        secure = directory / "tls"
        (secure / "many").mkdir(parents=True)
        with MisbehavingServer(tls=certificates.server_context()) as server:
            transfers(server, secure, ca_file=str(certificates.ca))
    print("all transfers done")


if __name__ == "__main__":
    main()
