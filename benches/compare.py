"""rangefetch beside the other downloaders: the same files, the same server, interleaved rounds.

    python benches/compare.py                                   # http-1g, https-1g, small-5000
    python benches/compare.py --scenario http-1g --rounds 8 --json results.json --plots docs/plots
    python benches/compare.py --minutes 10 --page build/bench   # as "make bench" does: a page with plots and JSON
    python benches/compare.py --compare OLD.json                # also print what got slower

How it measures, and what the figures are worth: benches/README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import re
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import machine
import page
import plots
from contest import Contest
from peers import PEERS, Peer
from report import Result, table
from scenarios import DEFAULT, SCENARIOS, TRIALS, Scenario, Trial
from server import Server, ServerError
from trials import hold_trials

Named = TypeVar("Named", Scenario, Peer, Trial)
_MEMORY = Path("/dev/shm")
_MOST_ROUNDS = 20
_SHOWN = ("cpu", "cores", "loadAverage", "kernel", "fileSystem", "python", "nginx")


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d+)([KMG]?)(i?B)?", text.strip(), re.IGNORECASE)
    if match is None or not int(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write 128M, 1G or a number of bytes")
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2].upper()]


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _parser() -> argparse.ArgumentParser:
    found = [(each.name, each.about) for each in SCENARIOS] + [(each.name, each.about) for each in TRIALS]
    scenarios = "\n".join(f"  {name:22} {about}" for name, about in found)
    parser = argparse.ArgumentParser(
        description="Compare rangefetch with the downloaders that are installed.",
        epilog=f"scenarios:\n{scenarios}\n\npeers:\n  {' '.join(peer.name for peer in PEERS)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    default = ",".join(DEFAULT)
    add("--scenario", type=_names, default=default, metavar="NAME,...", help=f"or all; default: {default}")
    add("--peers", type=_names, metavar="NAME,...", help="default: everything that is installed")
    add("--rounds", type=int, default=5, metavar="N", help="counted rounds, after a warm-up; default: 5")
    add("--size", type=_size, default="1G", help="of the file in the scenarios of one file; default: 1G")
    add("--connections", type=int, metavar="N", help="instead of what the scenario says")
    add("--timeout", type=float, default=120, metavar="SECONDS", help="for one download; default: 120")
    add("--workdir", type=Path, metavar="DIR", help="for files; default: $TMPDIR, many small ones in /dev/shm")
    add("--minutes", type=float, metavar="N", help="for all scenarios together: as many rounds as that allows")
    add("--page", type=Path, metavar="DIR", help="write a page, its plots and results.json")
    add("--compare", type=Path, metavar="FILE", help="say what got slower since that JSON was written")
    add("--json", type=Path, metavar="FILE", help="write everything measured")
    add("--plots", type=Path, metavar="DIR", help="write PNG and SVG plots (needs matplotlib)")
    return parser


def _chosen(names: Collection[str] | None, entries: Sequence[Named], what: str) -> list[Named]:
    """The entries of these names, or all of them; always in the order of ``entries``."""
    unknown = sorted(set(names or ()) - {entry.name for entry in entries})
    if unknown:
        raise SystemExit(f"compare.py: no {what} is named {', '.join(unknown)}; see --help")
    return [entry for entry in entries if names is None or entry.name in names]


def _installed(peers: Sequence[Peer]) -> list[Peer]:
    """The peers that are installed; prints the names of the others, and how to get them."""
    for peer in peers:
        if not peer.version():
            print(f"missing: {peer.name} (to get it: {peer.get})")
    return [peer for peer in peers if peer.version()]


def _place_for_small_files(otherwise: Path) -> Path:
    """In memory, if there is room: creating files on disk can cost more than fetching them, and more every time."""
    if _MEMORY.is_dir() and machine.file_system(_MEMORY) == "tmpfs":
        with contextlib.suppress(OSError):
            if shutil.disk_usage(_MEMORY).free > 1 << 30:
                return _MEMORY
    return otherwise


def _stop(number: int, frame: FrameType | None) -> None:
    # As Ctrl-C does: stop the server and the current peer, and delete the files.
    raise KeyboardInterrupt


def _report(
    facts: dict[str, object], peers: Sequence[Peer], results: Sequence[Result], arguments: Sequence[str] | None
) -> dict[str, object]:
    """Everything measured, for JSON."""
    return {
        "command": shlex.join(["python", "benches/compare.py", *(sys.argv[1:] if arguments is None else arguments)]),
        "machine": facts,
        "versions": {peer.name: peer.version() for peer in peers},
        "results": [result.to_dict() for result in results],
    }


def _results(report: dict[str, Any]) -> list[Result]:
    return [Result.from_dict(each) for each in report["results"]]


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    named = None if options.scenario == ["all"] else set(options.scenario)
    trials = _chosen(named and named & {trial.name for trial in TRIALS}, TRIALS, "trial")
    scenarios = _chosen(named and named - {trial.name for trial in trials}, SCENARIOS, "scenario")
    wanted = _chosen(options.peers, PEERS, "peer")
    peers = _installed(wanted)
    missing = [peer.name for peer in wanted if peer not in peers]
    earlier = _results(json.loads(options.compare.read_text())) if options.compare else []
    begun_s = time.monotonic()
    signal.signal(signal.SIGTERM, _stop)

    results = []
    with contextlib.ExitStack() as stack:

        def scratch(place: Path) -> Path:
            return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rangefetch-bench-", dir=place)))

        general = options.workdir or Path(tempfile.gettempdir())
        work = scratch(general)
        small = work if options.workdir else scratch(_place_for_small_files(general))
        facts = machine.describe(work) | {"smallFileSystem": machine.file_system(small)}
        print(" · ".join(f"{name} {facts[name]}" for name in _SHOWN))
        (work / "served").mkdir()
        server = stack.enter_context(Server(work / "served", work / "nginx"))
        for line in hold_trials(trials, server, work, rounds=options.rounds, size=options.size):
            print(line, flush=True)
        for number, scenario in enumerate(scenarios):
            able = [peer for peer in peers if scenario.takes(peer)]
            if not able:
                print(f"\n{scenario.name}: no peer for it is installed")
                continue
            many = scenario.files > 1
            contest = Contest(
                scenario,
                server,
                place=small if many else work,
                size=scenario.size if many else min(options.size, scenario.largest),
                connections=options.connections or scenario.connections,
                timeout=options.timeout,
            )
            print(f"\n{scenario.name}: {scenario.about}; at most {contest.connections} connections", flush=True)
            rounds, until_s = options.rounds, math.inf
            if options.minutes:
                # Each scenario gets its share of the time left, and may finish its current round.
                rounds, now_s = _MOST_ROUNDS, time.monotonic()
                until_s = now_s + (begun_s + 60 * options.minutes - now_s) / (len(scenarios) - number) * 0.8
            results.append(contest.hold(able, rounds, until_s))
            print(table(results[-1]), flush=True)
            if options.json:
                options.json.write_text(json.dumps(_report(facts, peers, results, arguments), indent=2) + "\n")
            if options.page:  # after each scenario, in case the run is interrupted
                report = _report(facts, peers, results, arguments)
                options.page.mkdir(parents=True, exist_ok=True)
                (options.page / "results.json").write_text(json.dumps(report) + "\n")
                plots.draw(results, options.page)
                page.write(options.page, report, results, missing)
    if options.plots:
        plots.draw(results, options.plots)
    for line in page.changes(earlier, results) if options.compare else ():
        print(line)
    ours = [c for result in results for c in result.contenders if c.name.startswith("rangefetch")]
    return 1 if any(contender.wrong or contender.failure for contender in ours) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ServerError as error:
        sys.exit(f"compare.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
