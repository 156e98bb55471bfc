"""Fetch a generated file from a server of its own over several connections, and prove that it is the same.

``make run`` runs this. The server is a process of its own, and the command ``rangefetch`` does the fetching;
this script only makes the file, looks on, and compares.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rangefetch.checks import parse_size
from rangefetch.net import libcurl

_PIECE = 16 << 20
_MARGIN = 64 << 20


def main() -> int:
    """Run the demo; the exit status: 0 if the fetched file is the served one."""
    typed = _arguments()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt_once)
    try:
        with contextlib.ExitStack() as stack:
            served_in = Path(tempfile.mkdtemp(prefix="rangefetch-served-"))
            stack.callback(shutil.rmtree, served_in, ignore_errors=True)
            fetched_in = Path(tempfile.mkdtemp(prefix="rangefetch-fetched-"))
            if not typed.keep:
                stack.callback(shutil.rmtree, fetched_in, ignore_errors=True)
            return _run(typed, served_in / "demo.bin", fetched_in)
    except KeyboardInterrupt:
        return _complain("interrupted", status=130)
    except OSError as error:
        return _complain(str(error))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="1G", help="of the file, as 64M or 1G (1G)")
    parser.add_argument("--connections", type=int, default=8, metavar="N", help="(8)")
    parser.add_argument("--keep", action="store_true", help="keep the fetched file")
    typed = parser.parse_args()
    try:
        typed.size = parse_size(typed.size, "--size")
    except ValueError as error:
        parser.error(str(error))
    return typed


def _run(typed: argparse.Namespace, served: Path, fetched_in: Path) -> int:
    needed, free = 2 * typed.size + _MARGIN, shutil.disk_usage(fetched_in).free
    if needed > free:
        return _complain(
            f"{fetched_in.parent} has {free >> 20} MiB free and {needed >> 20} MiB are needed; "
            "point TMPDIR at a larger disk, or try --size 64M"
        )
    _say(f"making {typed.size >> 20} MiB of pseudo-random bytes")
    expected = _generate(served, typed.size)

    with _server(served) as (url, counters):
        _say(f"fetching {url} over {typed.connections} connections")
        status, result = _fetch(url, fetched_in, typed.connections)
        seen = counters()
    if status or result is None:
        return status or 1

    path = Path(result["path"])
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    loaded = libcurl.load()
    for name, value in {
        "path": path,
        "size": f"{result['size']} bytes",
        "seconds": f"{result['seconds']:.3f}",
        "speed": f"{result['size'] / max(result['seconds'], 1e-9) / 1e6:.0f} MB/s",
        "connections": f"{result['connections']} (the server saw {seen['connections']})",
        "SHA-256": f"{actual} ({'the same as' if actual == expected else 'NOT'} the server's)",
        "libcurl": f"{loaded.version} with {loaded.ssl_version}, from {loaded.origin}: {loaded.path}",
    }.items():
        print(f"{name + ':':<13}{value}")
    if not typed.keep:
        _say("the file was fetched into a temporary directory and is removed now (--keep keeps it)")
    return 0 if actual == expected else _complain(f"the SHA-256 differs: the server's is {expected}")


def _generate(path: Path, size: int) -> str:
    """Write so many pseudo-random bytes, different each time; their SHA-256."""
    generator = random.Random()
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for start in range(0, size, _PIECE):
            piece = generator.randbytes(min(_PIECE, size - start))
            file.write(piece)
            digest.update(piece)
    return digest.hexdigest()


@contextlib.contextmanager
def _server(served: Path) -> Iterator[tuple[str, Any]]:
    """The server's URL, and a function that ends it and returns its counters."""
    command = [sys.executable, str(Path(__file__).with_name("loopback.py")), str(served)]
    # A group of its own: Ctrl-C must reach it last, or the fetcher would see its connections cut.
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise OSError("the server did not start")

        def counters() -> dict[str, int]:
            said, _ = process.communicate(timeout=10)
            counted: dict[str, int] = json.loads(said)
            return counted

        try:
            yield url, counters
        finally:
            process.kill()


def _fetch(url: str, directory: Path, connections: int) -> tuple[int, dict[str, Any] | None]:
    """Run the command on the URL; its exit status, and what it says of the file."""
    command = [sys.executable, "-m", "rangefetch", "--json", f"--dir={directory}"]
    command += [f"--split={connections}", f"--max-connection-per-server={connections}", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            said, _ = process.communicate()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)  # a terminal has sent one already; two do no harm
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
            process.kill()
            raise
    return process.returncode, json.loads(said) if process.returncode == 0 else None


def _interrupt_once(_number: int, _frame: object) -> None:
    # Cleaning up must not be interrupted in its turn.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _say(line: str) -> None:
    print(line, flush=True)


def _complain(line: str, status: int = 1) -> int:
    print(f"demo: {line}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
