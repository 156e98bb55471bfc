"""A file too large for the page cache: rangefetch, curl and aria2c take turns with a plain write to the disk.

The server sends the same 64 MiB over and over, so that only the client uses the disk. The time includes syncing the
file. Prints wall and processor seconds of each round.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PERIOD_BYTES = 64 << 20
UNCACHED = 0x80
"""RWF_DONTCACHE, which Python does not define."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gib", type=int, default=12, help="of the file (default: 12)")
    parser.add_argument("--into", type=Path, default=Path(), help="a directory on the disk (default: this one)")
    asked = parser.parse_args()
    size = asked.gib << 30
    with tempfile.TemporaryDirectory(dir=asked.into) as directory, _server(size) as url:
        path = Path(directory) / "file"
        aria2c = ["aria2c", "-q", "-x16", "-s16", "--file-allocation=falloc", "-d", directory, "-o", path.name, url]
        ways: dict[str, Callable[[], object]] = {
            "rangefetch": lambda: _run(
                [sys.executable, "-m", "rangefetch", "-q", "-d", directory, "-o", path.name, url]
            ),
            "curl": lambda: _run(["curl", "-s", "-o", str(path), url]),
            "aria2c": lambda: _run(aria2c),
            "the disk alone": lambda: _write(path, size, 0),
            "the same past the cache": lambda: _write(path, size, UNCACHED),
        }
        if shutil.which("aria2c") is None:
            del ways["aria2c"]
        rounds: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for _ in range(asked.rounds):
            for way, fill in ways.items():
                began, before = time.monotonic(), _processor_s()
                fill()
                with path.open("rb+") as file:
                    os.fsync(file.fileno())
                rounds[way].append((time.monotonic() - began, _processor_s() - before))
                path.unlink()
    print(f"{asked.gib} GiB: seconds (processor seconds) of each round, and the least of its rate")
    for way, each in rounds.items():
        words = "  ".join(f"{seconds:.1f} ({processor:.1f})" for seconds, processor in each)
        print(f"{way:24} {size / min(each)[0] / 1e6:6.0f} MB/s   {words}")


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _write(path: Path, size: int, flags: int) -> None:
    piece = os.urandom(1 << 20)
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
        for offset in range(0, size, len(piece)):
            os.pwritev(file.fileno(), [piece], offset, flags)


def _processor_s() -> float:
    each = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in each)


@contextlib.contextmanager
def _server(size: int) -> Iterator[str]:
    """Serve a file of that size from a separate process; yields its URL."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    child = os.fork()
    if child == 0:
        try:
            _serve(listener, size)
        finally:
            os._exit(1)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/file"
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def _serve(listener: socket.socket, size: int) -> None:
    content = os.memfd_create("content")
    os.write(content, os.urandom(PERIOD_BYTES))
    while True:
        threading.Thread(target=_answer, args=(listener.accept()[0], content, size), daemon=True).start()


def _answer(connection: socket.socket, content: int, size: int) -> None:
    with contextlib.suppress(OSError), connection, connection.makefile("rb") as requests:
        while requests.readline():
            head = b"".join(itertools.takewhile(lambda line: line != b"\r\n", iter(requests.readline, b"")))
            asked = re.search(rb"(?im)^range: *bytes=(\d+)-(\d*)", head)
            at, end = (int(asked[1]), min(int(asked[2] or size), size - 1) + 1) if asked else (0, size)
            words = f"206 Partial Content\r\nContent-Range: bytes {at}-{end - 1}/{size}" if asked else "200 OK"
            connection.sendall(f'HTTP/1.1 {words}\r\nContent-Length: {end - at}\r\nETag: "1"\r\n\r\n'.encode())
            while at < end:
                start = at % PERIOD_BYTES
                at += os.sendfile(connection.fileno(), content, start, min(PERIOD_BYTES - start, end - at, 1 << 20))


if __name__ == "__main__":
    main()
