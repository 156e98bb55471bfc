"""Many runs: starts and watches a process that runs schedules, minimises its findings, and keeps the counts.

    python -m simulator.campaign SEEDS FIRST_SEED

``SIMULATED_ENGINE`` names another build of the engine, such as one with ``-DRF_CHECKS``, which checks its own
invariants in every round. Findings are written to ``build/simulator`` as schedules, which can be kept in
``tests/simulator/found``.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from simulator.world import FAULTS, SOURCES
from support.compiling import compile_library

__all__ = ["Finding", "Process", "build", "explore", "kind_of", "shrink"]

_TESTS = Path(__file__).parents[1]
_PIECE = 500
_LONGEST_S = 300.0
"""For a schedule: it takes milliseconds, but the machine may be busy."""

Finding = dict[str, Any]


def build(directory: Path) -> Path:
    """Build the library that replaces both libcurl and the system for the engine."""
    first, *others = SOURCES
    return compile_library(first, directory / "simulated.so", "-O2", *others, "-ldl", "-lpthread")


class Process:
    """A process that runs schedules; a context manager."""

    def __init__(self, library: Path, **environment: str) -> None:
        # Before a sanitizer's library, or the calls would seem to come from the sanitizer and not from the engine.
        preload = f"{library} {os.environ.get('LD_PRELOAD', '')}".strip()
        sanitizer = f"{os.environ.get('ASAN_OPTIONS', '')}:verify_asan_link_order=0".lstrip(":")
        self._trail = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "simulator.run"],
            cwd=_TESTS,
            env={
                **os.environ,
                "LD_PRELOAD": preload,
                "ASAN_OPTIONS": sanitizer,
                "RANGEFETCH_LIBCURL": str(library),
                **environment,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._trail,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate(timeout=20)
        self._trail.close()

    def ask(self, wanted: dict[str, Any]) -> None:
        """Run a schedule, or seeds."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(wanted) + "\n")
            self._process.stdin.flush()

    def answer(self) -> dict[str, Any] | None:
        """The process's next line; None if it died, or was killed because one schedule took too long."""
        assert self._process.stdout is not None
        over = threading.Event()
        watchdog = threading.Thread(target=self._watch, args=(over,), daemon=True)
        watchdog.start()
        try:
            line = self._process.stdout.readline()
        finally:
            over.set()
            watchdog.join()
        return json.loads(line) if line else None

    def _watch(self, over: threading.Event) -> None:
        """Kill the process if its trail, which names each schedule that it starts, has not grown for too long."""
        begun = -1
        while begun != (begun := os.fstat(self._trail.fileno()).st_size):
            if over.wait(_LONGEST_S):
                return
        self._process.kill()

    def last_words(self) -> str:
        """The process's last output before it died."""
        self._process.wait(20)
        self._trail.seek(0)
        return self._trail.read().decode(errors="replace")[-3000:]

    def status(self) -> int:
        """The process's exit status."""
        return self._process.wait(20)


def _how_it_died(process: Process) -> tuple[int | None, str]:
    """The seed at which the process died, and why."""
    words = process.last_words()
    lines = words.splitlines()
    seeds = [int(line) for line in lines if line.isdigit()]
    why = "; ".join(line for line in lines if line and not line.isdigit())[-1500:]
    return (seeds[-1] if seeds else None), f"the process died ({process.status()}): {why}"


def explore(library: Path, first: int, count: int, **environment: str) -> Iterator[dict[str, Any]]:
    """Run seeds. Yields findings, which have the key ``broken``, and counts for each piece, which have ``count``."""
    end = first + count
    while first < end:
        with Process(library, **environment) as process:
            for start in range(first, end, _PIECE):
                process.ask({"first": start, "count": min(_PIECE, end - start)})
                while True:
                    answer = process.answer()
                    if answer is None:
                        seed, why = _how_it_died(process)
                        yield {"seed": seed, "broken": why}
                        first = start if seed is None else seed
                        break
                    yield answer
                    if "count" in answer:
                        break
                first = start + _PIECE if answer is not None else first + 1
                if answer is None:
                    break


def run_one(library: Path, schedule: dict[str, Any], **environment: str) -> Finding:
    """Run one schedule in a separate process."""
    with Process(library, **environment) as process:
        process.ask(schedule)
        answer = process.answer()
        return answer if answer is not None else {"broken": _how_it_died(process)[1], "log": []}


# ---- Making small --------------------------------------------------------------------------------------------------


def kind_of(broken: str) -> str:
    """The message of what was broken, without its numbers."""
    return re.sub(r"file\d+|\d+", "#", broken)[:60]


_PLAIN_SERVER: dict[str, Any] = {
    "rtt_us": 5000,
    "bytes_per_s": 3_000_000,
    "total_bytes_per_s": 0,
    "burst_bytes": 16_384,
    "piece_bytes": 16_384,
    "most_served": 0,
    "idle_us": 60_000_000,
    "secure": 0,
    "http2": 0,
    "ranges": 1,
    "chunked": 0,
    "states_length": 1,
    "closes_each": 0,
    "etag": 1,
    "dates": 0,
    "two_addresses": 0,
}
_PLAIN_FILE: dict[str, Any] = {
    "at_ms": 0,
    "server": 0,
    "mirrors": [],
    "lanes": 1,
    "source_lanes": 1024,
    "host_lanes": 1024,
    "insists": 0,
    "request_every_us": 0,
    "first_bytes": 4 << 20,
    "least_bytes": 4 << 20,
    "window_bytes": 0,
    "limit": 0,
    "allocation": "none",
    "ranged": 1,
    "small": 0,
    "saved": 0,
    "reads": 0,
    "loops": 0,
    "lease_bytes": 256 << 20,
    "gives_up_after": 8,
}
_PLAIN = {
    "loops": 1,
    "closes_ms": 0,
    "old_curl": 0,
    "pauses_at_once": 0,
    "late_us": 0,
    "cpu_percent": 5,
    "decides_ms": 0,
}


def _smaller(schedule: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Schedules with one thing removed, the largest steps first."""

    def without(key: str, start: int, end: int) -> dict[str, Any]:
        return {**schedule, key: schedule[key][:start] + schedule[key][end:]}

    def replaced(key: str, i: int, value: Any) -> dict[str, Any]:
        return {**schedule, key: [*schedule[key][:i], value, *schedule[key][i + 1 :]]}

    for key in ("faults", "operations", "changes"):
        length = len(schedule[key])
        if length > 1:
            yield without(key, 0, length // 2)
            yield without(key, length // 2, length)
        for i in range(length):
            yield without(key, i, i + 1)
    if len(schedule["files"]) > 1:
        for number in range(len(schedule["files"])):
            yield _without_file(schedule, number)
    for name, plain in _PLAIN.items():
        if schedule.get(name, plain) != plain:
            yield {**schedule, name: plain}
    for key, plains in (("files", _PLAIN_FILE), ("servers", _PLAIN_SERVER)):
        for i, one in enumerate(schedule[key]):
            for name, value in plains.items():
                if one.get(name, value) != value:
                    yield replaced(key, i, {**one, name: value})
    for i, fault in enumerate(schedule["faults"]):
        for at, value in ((4, fault[4] // 2), (5, 0), (3, 1), (2, 0)):
            # An errno or a status keeps its value.
            if fault[at] != value and (at != 4 or (FAULTS[fault[0]] < 80 and fault[0] != "status")):
                yield replaced("faults", i, [*fault[:at], value, *fault[at + 1 :]])
    for i, sizes in enumerate(schedule["resources"]):
        if max(sizes) > 1:
            yield replaced("resources", i, [size // 2 for size in sizes])


def _without_file(schedule: dict[str, Any], number: int) -> dict[str, Any]:
    """The schedule without this file and everything that refers to it."""
    return {
        **schedule,
        "files": schedule["files"][:number] + schedule["files"][number + 1 :],
        "operations": [
            [at, name, file - (file > number), value]
            for at, name, file, value in schedule["operations"]
            if file != number
        ],
    }


def shrink(schedule: dict[str, Any], runs: Callable[[dict[str, Any]], Finding], most_runs: int = 600) -> dict[str, Any]:
    """The smallest schedule found that breaks in the same way."""
    wanted = kind_of(runs(schedule)["broken"])
    tried = 0
    again = True
    while again and tried < most_runs:
        again = False
        for smaller in _smaller(schedule):
            tried += 1
            if kind_of(runs(smaller)["broken"]) == wanted:
                schedule, again = smaller, True
                break
            if tried >= most_runs:
                break
    return schedule


# ---- From the command line -----------------------------------------------------------------------------------------


def _main() -> None:
    seeds, first = int(sys.argv[1]), int(sys.argv[2])
    kept = _TESTS.parent / "build" / "simulator"
    kept.mkdir(parents=True, exist_ok=True)
    engine = os.environ.get("SIMULATED_ENGINE", "the installed one")
    with tempfile.TemporaryDirectory() as directory:
        library = build(Path(directory))
        found = done = 0
        real_s = simulated_s = 0.0
        results: dict[str, int] = {}
        guests = leases = 0
        for answer in explore(library, first, seeds):
            if "count" in answer:
                done += answer["count"]
                real_s += answer["real_seconds"]
                simulated_s += answer["simulated_seconds"]
                guests += answer["guests"]
                leases += answer["leases"]
                for word, times in answer["results"].items():
                    results[word] = results.get(word, 0) + times
                with (kept / "counts.txt").open("a") as counts:
                    counts.write(f"{answer['first']} {answer['count']} {found} {engine}\n")
                continue
            found += 1
            print(f"seed {answer['seed']}: {answer['broken']}", flush=True)
            if answer["seed"] is not None:
                from simulator.schedule import draw

                small = shrink(draw(answer["seed"]), lambda schedule: run_one(library, schedule))
                path = kept / f"{answer['seed']}.json"
                path.write_text(json.dumps(small, indent=1))
                print(f"    made small: {path}", flush=True)
        print(
            f"{done} runs from seed {first} on, {simulated_s / 3600:.1f} hours of simulated time in {real_s:.0f} s; "
            f"{found} broke something; {guests} guests with {leases} leases; "
            f"files ended so: {dict(sorted(results.items()))}"
        )
    sys.exit(found > 0)


if __name__ == "__main__":
    _main()
