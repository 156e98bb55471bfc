"""A file of 200 GiB with all but two blocks present: memory and time that depend on the size stay small."""

import contextlib
import http.server
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.driving import Driver
from rangefetch.disk import ownership, state
from servers.background import Background, Handler
from support import children

pytestmark = pytest.mark.usefixtures("no_leaks")

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SIZE = 200 * GIB
BLOCK_SIZE = 4 * MIB
BLOCKS = SIZE // BLOCK_SIZE
ETAG = '"sparse"'
RESIDENT_LIMIT_MIB = 90


def made_up(start: int, end: int) -> bytes:
    """The bytes ``[start, end)`` of the file; each group of eight encodes its position."""
    first, last = start // 8, -(-end // 8)
    return np.arange(first, last, dtype=">u8").tobytes()[start - first * 8 : end - first * 8]


class _Handler(Handler):
    protocol_version = "HTTP/1.1"
    asked: list[tuple[int, int]]

    def do_GET(self) -> None:
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"])
        assert match is not None
        start, end = int(match[1]), min(int(match[2]) + 1, SIZE)
        self.asked.append((start, end))
        self.send_response(206)
        self.send_header("Content-Length", str(end - start))
        self.send_header("Content-Range", f"bytes {start}-{end - 1}/{SIZE}")
        self.send_header("ETag", ETAG)
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            for at in range(start, end, MIB):
                self.wfile.write(made_up(at, min(at + MIB, end)))


class Server(Background):
    """Generates the requested bytes, and stores none."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        handler = type("Handler", (_Handler,), {"asked": self.asked})
        super().__init__(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        self.url = f"http://127.0.0.1:{self.port}/huge.bin"


@pytest.fixture
def sparse_server() -> Iterator[Server]:
    with Server() as running:
        yield running


def all_but_the_ends() -> bytes:
    return b"\0" + b"\2" * (BLOCKS - 2) + b"\0"


def known() -> dict[str, Any]:
    return {"size": SIZE, "block_size": BLOCK_SIZE, "blocks": all_but_the_ends(), "etag": ETAG, "allocation": "none"}


def held(path: Path) -> int:
    """The bytes that the file occupies on the disk."""
    return path.stat().st_blocks * 512


def test_only_the_blocks_that_lack_are_asked_for(driver: Driver, sparse_server: Server) -> None:
    file = driver.fill(sparse_server.url, lanes=4, least_bytes=1, **known())
    assert sorted(sparse_server.asked) == [(0, BLOCK_SIZE), (SIZE - BLOCK_SIZE, SIZE)]
    assert (file.downloaded, file.contiguous) == (SIZE, SIZE)
    assert file.received_bytes == 2 * BLOCK_SIZE
    with file.tag.path.open("rb") as opened:
        assert opened.read(BLOCK_SIZE) == made_up(0, BLOCK_SIZE)
        opened.seek(SIZE - BLOCK_SIZE)
        assert opened.read() == made_up(SIZE - BLOCK_SIZE, SIZE)


def test_the_file_takes_no_more_of_the_disk_than_came(driver: Driver, sparse_server: Server) -> None:
    file = driver.fill(sparse_server.url, **known())
    assert file.tag.path.stat().st_size == SIZE
    assert held(file.tag.path) <= 2 * BLOCK_SIZE + MIB


def test_a_new_file_has_a_map_of_bounded_size(driver: Driver, sparse_server: Server) -> None:
    file = driver.add(sparse_server.url, lanes=2, allocation="none")
    driver.until(lambda: file.answered and file.block_size)
    assert (file.block_size, len(file.blocks), len(file.partial)) == (BLOCK_SIZE, BLOCKS, BLOCKS)
    file.remove()
    driver.end(file)
    assert file.downloaded < SIZE


def test_ranges_stay_bounded_however_large_the_file(driver: Driver, sparse_server: Server) -> None:
    file = driver.add(sparse_server.url, lanes=4, allocation="none")
    driver.until(lambda: len(sparse_server.asked) > 8)
    file.remove()
    driver.end(file)
    assert max(end - start for start, end in sparse_server.asked) <= 64 * MIB


def saved(url: str, partial: dict[int, int] | None = None) -> state.State:
    return state.State(
        url=url,
        resolved_url=url,
        total_size=SIZE,
        supports_range=True,
        sources=[state.SourceState(url, etag=ETAG)],
        block_size=BLOCK_SIZE,
        blocks=all_but_the_ends(),
        partial=partial or {},
        filename="huge.bin",
    )


def test_its_state_is_small(tmp_path: Path) -> None:
    state.save(tmp_path / "state", saved("http://example.com/huge.bin"))
    assert (tmp_path / "state").stat().st_size < 16 * KIB
    assert state.load(tmp_path / "state").blocks.count(2) == BLOCKS - 2


def test_a_prepared_download_ends_after_two_blocks_in_little_memory(sparse_server: Server, tmp_path: Path) -> None:
    part = tmp_path / "huge.bin.part"
    with part.open("wb") as file:
        file.truncate(SIZE - BLOCK_SIZE)
        ownership.mark(file.fileno(), sparse_server.url)
    part.chmod(0o600)
    state.save(tmp_path / "huge.bin.part.json", saved(sparse_server.url))
    done = children.run(
        """
        import json, re, sys
        from pathlib import Path
        import rangefetch
        url, path = sys.argv[1:]
        result = rangefetch.fetch(url, path, file_allocation="none")
        resident = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]
        print(json.dumps({"resumed": result.resumed, "size": result.size, "resident": int(resident) / 1024}))
        """,
        sparse_server.url,
        tmp_path / "huge.bin",
    )
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told["size"] == SIZE
    assert told["resumed"] == SIZE - 2 * BLOCK_SIZE
    assert told["resident"] < RESIDENT_LIMIT_MIB
    assert sum(end - start for start, end in sparse_server.asked) == 2 * BLOCK_SIZE
    target = tmp_path / "huge.bin"
    assert [path.name for path in tmp_path.iterdir()] == ["huge.bin"]
    assert target.stat().st_size == SIZE
    assert held(target) <= 2 * BLOCK_SIZE + MIB
    with target.open("rb") as opened:
        assert opened.read(BLOCK_SIZE) == made_up(0, BLOCK_SIZE)
        opened.seek(SIZE - BLOCK_SIZE)
        assert opened.read() == made_up(SIZE - BLOCK_SIZE, SIZE)
