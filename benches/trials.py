"""Trials: rangefetch compared with itself, and the ratio for which there is a target. See the table in scenarios.py."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lists
from contest import make_random_file
from measure import warm
from scenarios import Trial
from server import Server

__all__ = ["hold_trials"]

_HERE = Path(__file__).parent
_MIB = 1 << 20
_TIMEOUT_S = 90.0
_SMALL_FILES, _SMALL_BYTES = 4000, 16 << 10


@dataclass(frozen=True)
class _Bench:
    """What a trial needs."""

    server: Server
    work: Path
    rounds: int
    size: int

    def file(self, size: int) -> Path:
        """Create a file of random bytes for the server to serve, in the page cache."""
        path = self.server.root / f"{size}.bin"
        if path.exists():
            warm(path)
        else:
            make_random_file(path, size)
        return path

    def inside(self, measurement: str, **keywords: Any) -> dict[str, float]:
        """Take one measurement with ``inside.py``."""
        command = [sys.executable, str(_HERE / "inside.py"), measurement, json.dumps(keywords)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        if done.returncode:
            raise RuntimeError(f"{measurement}: {done.stderr.strip()[-500:]}")
        told: dict[str, float] = json.loads(done.stdout)
        return told

    def best(self, *ways: Callable[[], dict[str, float]]) -> list[dict[str, float]]:
        """The fastest round of each way; the ways take turns."""
        runs: list[list[dict[str, float]]] = [[] for _ in ways]
        for number in range(self.rounds):
            for way in range(len(ways)):
                turn = (way + number) % len(ways)
                runs[turn].append(ways[turn]())
        return [min(each, key=lambda run: run["seconds"]) for each in runs]


@contextlib.contextmanager
def _unfair(path: Path, **rules: int) -> Iterator[str]:
    """Serve ``path`` from a separate server (``unfair.py``); yields its URL."""
    command = [sys.executable, str(_HERE / "unfair.py"), str(path), json.dumps(rules)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
    finally:
        # Connections that stall forever would keep it from ending.
        server.kill()
        server.communicate()


def _with_and_without(bench: _Bench, odd: dict[str, int]) -> str:
    path, rate = bench.file(min(bench.size, 512 * _MIB)), 32 * _MIB

    def once(**rules: int) -> dict[str, float]:
        # Each run needs a new server, which counts connections from its start.
        with _unfair(path, rate=rate, **rules) as url:
            return bench.inside("fetch", url=url, directory=str(bench.work), split=8, max_connection_per_server=8)

    without, with_ = bench.best(once, lambda: once(odd=3, **odd))
    ratio = with_["seconds"] / without["seconds"]
    return f"{ratio:.2f} ({with_['seconds']:.2f} s / {without['seconds']:.2f} s)"


def one_slow_of_8(bench: _Bench) -> str:
    return _with_and_without(bench, {"odd_rate": 32 * _MIB // 50})


def one_stalls(bench: _Bench) -> str:
    return _with_and_without(bench, {"odd_stalls": 10 * _MIB})


def fast_lan(bench: _Bench) -> str:
    url = bench.server.url("http", bench.file(bench.size).name)

    def once(lanes: int) -> dict[str, float]:
        keywords = {"split": lanes, "max_connection_per_server": lanes}
        return bench.inside("fetch", url=url, directory=str(bench.work), **keywords)

    many, eight = bench.best(lambda: once(64), lambda: once(8))
    ratio = many["seconds"] / eight["seconds"]
    return f"{ratio:.2f} ({many['seconds']:.2f} s / {eight['seconds']:.2f} s; {many['connections']:.0f} connections)"


def gil(bench: _Bench) -> str:
    url = bench.server.url("http", bench.file(bench.size).name)

    def once(where: str) -> dict[str, float]:
        return bench.inside("beside_a_busy_loop", url=url, directory=str(bench.work), where=where)

    thread, process = bench.best(lambda: once("thread"), lambda: once("process"))
    ratio = process["seconds"] / thread["seconds"]
    return f"{ratio:.2f} (thread {thread['seconds']:.2f} s, process {process['seconds']:.2f} s)"


def limit_1m(bench: _Bench) -> str:
    limit, lanes = 1_000_000, (1, 4, 16)
    url = bench.server.url("http", bench.file(64 * _MIB).name)

    def once(count: int) -> float:
        options = {"split": count, "max_connection_per_server": count, "min_split_size": "1M"}
        told = bench.inside("limited", url=url, directory=str(bench.work), limit=limit, seconds=10, **options)
        return told["rate"] / limit

    with ThreadPoolExecutor() as pool:
        ratios = list(pool.map(once, lanes))
    return ", ".join(f"{ratio:.3f} at {count}" for count, ratio in zip(lanes, ratios, strict=True))


def two_files_two_loops(bench: _Bench) -> str:
    url = bench.server.url("http", bench.file(bench.size).name)

    def once(loops: int) -> dict[str, float]:
        return bench.inside("on_loops", urls=[url, url], directory=str(bench.work), loops=loops)

    one, two = bench.best(lambda: once(1), lambda: once(2))
    ratio = one["seconds"] / two["seconds"]
    return f"{ratio:.2f} ({one['seconds']:.2f} s / {two['seconds']:.2f} s, {os.cpu_count()} cores)"


def small_ways(bench: _Bench) -> str:
    source, folder = bench.file(_SMALL_BYTES), bench.server.root / "ways"
    folder.mkdir(exist_ok=True)
    for number in range(_SMALL_FILES):
        path = folder / f"{number}.bin"
        if not path.exists():
            path.hardlink_to(source)
    url = bench.server.url("http", "ways")
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else str(bench.work)

    def once(way: str) -> Callable[[], dict[str, float]]:
        return lambda: bench.inside("small_files", folder_url=url, count=_SMALL_FILES, directory=place, way=way)

    ways = ("fetch_many", "named", "manager", "fetch")
    best = bench.best(*map(once, ways))
    return ", ".join(
        f"{way} {_SMALL_FILES / run['seconds']:.0f} ({run['busy'] / _SMALL_FILES * 1e6:.0f} us of CPU each)"
        for way, run in zip(ways, best, strict=True)
    )


def sha256_behind(bench: _Bench) -> str:
    path = bench.file(bench.size)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    runs = []
    for _ in range(bench.rounds):
        with _unfair(path, rate=300_000_000 // 8) as url:
            options = {"split": 8, "max_connection_per_server": 8, "checksum": f"sha-256={digest}"}
            runs.append(bench.inside("after_the_last_byte", url=url, directory=str(bench.work), **options))
    best = min(runs, key=lambda run: run["after"])
    return f"{best['after']:.2f} s ({best['rate'] / 1e6:.0f} MB/s arrived)"


def start_up(bench: _Bench) -> str:
    """Milliseconds of processor time, which other work on the machine disturbs less than elapsed time."""

    def cpu_ms(*arguments: str) -> float:
        shutil.rmtree(bench.work / "start-up", ignore_errors=True)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, env=env)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    url = bench.server.url("http", bench.file(_SMALL_BYTES).name)
    listed = bench.work / "start-up-list"
    listed.write_text(f"{url}\n")
    into = ("-m", "rangefetch", "-q", "-d", str(bench.work / "start-up"))
    ways = {
        "bare": ("-c", "pass"),
        "import": ("-c", "import rangefetch"),
        "from rangefetch import fetch": ("-c", "from rangefetch import fetch"),
        "rangefetch --version": ("-m", "rangefetch", "--version"),
        "rangefetch URL of 16 KiB": (*into, url),
        "rangefetch -i LIST of it": (*into, "-i", str(listed)),
    }
    runs = [{name: cpu_ms(*way) for name, way in ways.items()} for _ in range(max(10, bench.rounds))]
    best = {name: min(run[name] for run in runs) for name in ways}
    bare = best.pop("bare")
    return "; ".join(f"{name} {ms - bare:.1f} ms" for name, ms in best.items()) + f"; Python itself {bare:.1f} ms"


def list_first_request(bench: _Bench) -> str:
    return "; ".join(lists.first_request(bench.work))


def list_ledger(bench: _Bench) -> str:
    return "; ".join(
        lists.ledger(bench.server.root, bench.server.url("http", "").rstrip("/"), bench.work, bench.rounds)
    )


def list_again(bench: _Bench) -> str:
    return "; ".join(lists.again(bench.server.root, bench.server.url("http", "").rstrip("/"), bench.work, bench.rounds))


def list_10m(bench: _Bench) -> str:
    return "; ".join(lists.ten_million(bench.server.root, bench.server.url("http", "").rstrip("/"), bench.work))


_RUN: dict[str, Callable[[_Bench], str]] = {
    "one-slow-of-8": one_slow_of_8,
    "one-stalls": one_stalls,
    "fast-lan": fast_lan,
    "gil": gil,
    "limit-1m": limit_1m,
    "two-files-two-loops": two_files_two_loops,
    "small-ways": small_ways,
    "sha256-behind": sha256_behind,
    "start-up": start_up,
    "list-first-request": list_first_request,
    "list-ledger": list_ledger,
    "list-again": list_again,
    "list-10m": list_10m,
}


def hold_trials(trials: Sequence[Trial], server: Server, work: Path, *, rounds: int, size: int) -> Iterator[str]:
    """Run the trials one after the other; yields a few lines about each."""
    for trial in trials:
        yield f"\n{trial.name}: {trial.about}; target {trial.target}"
        try:
            yield f"  {_RUN[trial.name](_Bench(server, work, rounds, size))}"
        except (RuntimeError, subprocess.SubprocessError) as error:
            yield f"  failed: {error}"
