"""Trials of very long lists: their cost before, during and after the downloads. They are listed in scenarios.py."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["again", "first_request", "ledger", "ten_million"]

_COMMAND = [sys.executable, "-m", "rangefetch", "-q"]
_FILES = 100_000
_LINKS = 30_000  # to one file; ext4 allows 65,000
_OCTETS = 1000
_MOST_S = 1800.0


def _place(work: Path) -> Path:
    """An empty directory where many files are cheap."""
    place = Path("/dev/shm" if os.access("/dev/shm", os.W_OK) else work) / f"rangefetch-lists-{os.getpid()}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    return place


def _write(path: Path, base: str, count: int) -> None:
    """Write a list of URLs or, for ``.csv``, a table of four columns."""
    is_table = path.suffix == ".csv"
    with path.open("w") as file:
        if is_table:
            file.write("url,path,size_class,title\n")
        for number in range(count):
            name = f"{number:08}.bin"
            file.write(f"{base}/{name},{number % 100}/{name},small,a title\n" if is_table else f"{base}/{name}\n")


def _served(root: Path) -> None:
    """Create 100,000 names of small files."""
    folder = root / "listed"
    folder.mkdir(exist_ok=True)
    for number in range(_FILES):
        path, source = folder / f"{number:08}.bin", root / f"small-{number // _LINKS}"
        if not source.exists():
            source.write_bytes(os.urandom(_OCTETS))
        if not path.exists():
            path.hardlink_to(source)


class _Cost:
    """What one command cost, its start and end included."""

    def __init__(self, *words: object) -> None:
        before, begun_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [*_COMMAND, *map(str, words)]
        done = subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=_MOST_S, check=False
        )
        self.s = time.perf_counter() - begun_s
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        if done.returncode:
            raise RuntimeError(f"status {done.returncode}: {done.stderr.strip()[-300:]}")


def _in_turns(rounds: int, *ways: Callable[[], _Cost]) -> list[list[_Cost]]:
    runs: list[list[_Cost]] = [[] for _ in ways]
    for number in range(rounds):
        for way in range(len(ways)):
            turn = (way + number) % len(ways)
            runs[turn].append(ways[turn]())
    return runs


def first_request(work: Path) -> Iterator[str]:
    """Time from process start to the first connection, for lists of two lengths in two formats."""
    place = _place(work)
    try:
        for count in (1_000_000, 10_000_000):
            for suffix in (".txt", ".csv"):
                with socket.create_server(("127.0.0.1", 0)) as server:
                    path = place / f"list{suffix}"
                    _write(path, f"http://127.0.0.1:{server.getsockname()[1]}/d", count)
                    seconds = [_until_asked(server, path, place / "out") for _ in range(3)]
                    path.unlink()
                least, median = min(seconds), statistics.median(seconds)
                yield f"{count:,} lines of {suffix[1:]}: {least:.2f} s, median {median:.2f} s"
    finally:
        shutil.rmtree(place)


def _until_asked(server: socket.socket, path: Path, out: Path) -> float:
    begun_s = time.perf_counter()
    words = ["-i", str(path), "-d", str(out)]
    with subprocess.Popen([*_COMMAND, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        connection, _ = server.accept()
        seconds = time.perf_counter() - begun_s
        process.kill()
        connection.close()
    # Drop other connections that it had begun, so that they are not taken for the next process's.
    server.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            server.accept()[0].close()
    server.setblocking(True)
    return seconds


def ledger(root: Path, url: str, work: Path, rounds: int) -> Iterator[str]:
    """100,000 small files with a ledger and without."""
    _served(root)
    place = _place(work)

    def once(*words: object) -> _Cost:
        shutil.rmtree(place)
        place.mkdir()
        _write(place / "list", f"{url}/listed", _FILES)
        return _Cost("-i", place / "list", "-d", place / "out", *words)

    try:
        without, with_ = _in_turns(rounds, once, lambda: once("--run", place / "run.db"))
        for what, of in (("seconds", lambda cost: cost.s), ("processor time", lambda cost: cost.cpu_s)):
            least = [min(map(of, runs)) for runs in (with_, without)]
            yield f"{what}: {least[0] / least[1]:.2f} ({least[0]:.2f} / {least[1]:.2f})"
    finally:
        shutil.rmtree(place)


def again(root: Path, url: str, work: Path, rounds: int) -> Iterator[str]:
    """A second run over 100,000 finished files."""
    _served(root)
    place = _place(work)
    try:
        for suffix in (".txt", ".csv"):
            path, run = place / f"list{suffix}", place / f"run{suffix}"
            _write(path, f"{url}/listed", _FILES)
            words = ("-i", path, "-d", place / f"out{suffix}", "--run", run)
            _Cost(*words)
            [runs] = _in_turns(rounds, lambda words=words: _Cost(*words))  # type: ignore[misc]  # not inferred
            least, cpu = min(cost.s for cost in runs), min(cost.cpu_s for cost in runs)
            yield f"{suffix[1:]}: {_FILES / least:,.0f} items a second, {_FILES / cpu:,.0f} for each of processor time"
    finally:
        shutil.rmtree(place)


def ten_million(root: Path, url: str, work: Path) -> Iterator[str]:
    """Resident memory with 10 million lines: all of them in the ledger, and while the first 100,000 are fetched."""
    place = _place(work)
    try:
        path = place / "list"
        count = 10_000_000
        _write(path, f"{url}/none", count)
        _fill(place / "run.db", f"{url}/none", count)
        words = ["-i", str(path), "-d", str(place / "out"), "--run", str(place / "run.db"), "--retry-failed", "none"]
        begun_s = time.perf_counter()
        with subprocess.Popen([*_COMMAND, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            most = _most_rss(process)
        yield f"all passed over: {most >> 20} MB, {count / (time.perf_counter() - begun_s):,.0f} lines a second"
        _served(root)
        _write(path, f"{url}/listed", count)
        for most_files in (_FILES // 2, _FILES):
            shutil.rmtree(place / "out", ignore_errors=True)
            words = ["-i", str(path), "-d", str(place / "out")]
            with subprocess.Popen([*_COMMAND, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                last = place / "out" / f"{most_files - 1:08}.bin"
                most = _most_rss(process, last.exists)
                process.kill()
            yield f"after {most_files:,} files of it: {most >> 20} MB"
    finally:
        shutil.rmtree(place)


def _fill(path: Path, url: str, count: int) -> None:
    """Create a ledger in which every line has failed."""
    import sqlite3

    from rangefetch.ledger import Ledger, Row

    with Ledger(path, writes=True):
        pass
    columns = ", ".join(Row._fields)
    rows = (
        Row(n, n + 1, f"{url}/{n:08}.bin", "127.0.0.1", "", "failed", 0, "", 0.1, 1, "HttpStatusError", 404, "", 1.0)
        for n in range(count)
    )
    database = sqlite3.connect(path)
    database.executemany(f"INSERT INTO item ({columns}) VALUES ({', '.join('?' * len(Row._fields))})", rows)
    database.commit()
    database.close()


def _most_rss(process: subprocess.Popen[bytes], enough: Callable[[], bool] = bool) -> int:
    most = 0
    while process.poll() is None and not enough():
        try:
            most = max(most, int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE"))
        except (OSError, IndexError):
            break
        time.sleep(0.1)
    return most
