"""Downloads one file on one loop of the engine, on two, and on as many as pay off. Measures the time, and the processor
time of the process.

The server is a single nginx process pinned to the first core; the client may use all cores. The variants take turns.

    python benches/several_loops.py [--rounds 7] [--mib 1024] [--directory /dev/shm]
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from engine.driving import Driver
from per_core import _MIB, _profile
from rangefetch.net import libcurl
from servers.nginx import Nginx
from servers.tls import make_certificates

_WAYS = {"one": 1, "two": 2, "as many as pay": 0}
_LONGEST_S = 600
_Figures = tuple[float, float, int]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--mib", type=int, default=1024)
    arguments.add_argument("--directory", type=Path, help="where the files go, such as /dev/shm (else a temporary one)")
    asked = arguments.parse_args()
    libcurl.load()
    cores = os.sched_getaffinity(0)
    found: dict[tuple[str, str], list[_Figures]] = {}
    with tempfile.TemporaryDirectory() as name:
        os.sched_setaffinity(0, {min(cores)})
        with Nginx(certificates=make_certificates(Path(name)), workers=1) as server:
            os.sched_setaffinity(0, cores)
            server.write("/file.bin", os.urandom(_MIB) * asked.mib)
            for _ in range(asked.rounds):
                for scheme, url in (("http", server.url("/file.bin")), ("https", server.https_url("/file.bin"))):
                    for way, loops in _WAYS.items():
                        figures = _fetch(asked.directory or Path(name), url, loops)
                        found.setdefault((scheme, way), []).append(figures)
                        print(scheme, way, *figures, file=sys.stderr)
    _print(found)


def _fetch(directory: Path, url: str, loops: int) -> _Figures:
    """Seconds, seconds of processor time, and the number of guests."""
    with Driver(directory, loops=max(2, len(os.sched_getaffinity(0)))) as driver:
        before, began_s = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        file = driver.add(url, profile=_profile(), lanes=16, loops=loops)
        if driver.end(file, _LONGEST_S).name != "DONE":
            raise RuntimeError(f"{url}: {driver.log}")
        took_s, after = time.monotonic() - began_s, resource.getrusage(resource.RUSAGE_SELF)
        file.tag.path.unlink()
        processor_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return took_s, processor_s, file.guests


def _print(found: dict[tuple[str, str], list[_Figures]]) -> None:
    """The ratio of each round to the same round on one loop: median (least, most)."""
    print("| | loops | seconds: median (least, most) | times as fast as one | processor seconds | guests |")
    print("|---|---|---:|---:|---:|---:|")
    for (scheme, way), rounds in found.items():
        took, processor, guests = zip(*rounds, strict=True)
        ratios = [one[0] / each for one, each in zip(found[scheme, "one"], took, strict=True)]
        print(
            f"| {scheme} | {way} | {_spread(took)} | {_spread(ratios)} "
            f"| {statistics.median(processor):.2f} | {min(guests)}-{max(guests)} |"
        )


def _spread(figures: tuple[float, ...] | list[float]) -> str:
    return f"{statistics.median(figures):.2f} ({min(figures):.2f}, {max(figures):.2f})"


if __name__ == "__main__":
    main()
