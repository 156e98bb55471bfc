"""rangefetch beside the other downloaders: the same files, the same server, interleaved rounds.

    python benches/compare.py                                   # http-1g, https-1g, small-5000
    python benches/compare.py --scenario http-1g --rounds 8 --json results.json --plots docs/plots

How it measures, and what the figures are worth: benches/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import site
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TypeVar

import machine
import plots
from measure import compare_files, last_line, run, warm
from peers import PEERS, ManyFiles, OneFile, Peer
from report import Contender, Result, table
from scenarios import DEFAULT, SCENARIOS, Scenario
from server import Server, ServerError

_PIECE = 1 << 20
Named = TypeVar("Named", Scenario, Peer)
_PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d+)([KMG]?)(i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write 128M, 1G or a number of bytes")
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2].upper()]


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _parser() -> argparse.ArgumentParser:
    scenarios = "\n".join(f"  {scenario.name:22} {scenario.about}" for scenario in SCENARIOS)
    parser = argparse.ArgumentParser(
        description="Compare rangefetch with the downloaders that are installed.",
        epilog=f"scenarios:\n{scenarios}\n\npeers:\n  {' '.join(peer.name for peer in PEERS)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--scenario",
        type=_names,
        default=list(DEFAULT),
        metavar="NAME,...",
        help=f"or all; default: {','.join(DEFAULT)}",
    )
    add("--peers", type=_names, metavar="NAME,...", help="default: everything that is installed")
    add("--rounds", type=int, default=5, metavar="N", help="counted rounds, after a warm-up; default: 5")
    add("--size", type=_size, default=1 << 30, help="of the file in the scenarios of one file; default: 1G")
    add("--connections", type=int, metavar="N", help="instead of what the scenario says")
    add("--timeout", type=float, default=300, metavar="SECONDS", help="for one run; default: 300")
    add(
        "--workdir",
        type=Path,
        help="for the served files and the downloads; default: the temporary directory",
    )
    add("--json", type=Path, metavar="FILE", help="write everything measured")
    add("--plots", type=Path, metavar="DIR", help="write PNG and SVG plots (needs matplotlib)")
    return parser


def _chosen(names: Sequence[str] | None, table: Sequence[Named], what: str) -> list[Named]:
    """The entries of ``table`` that are named, in the order of the table."""
    unknown = sorted(set(names or ()) - {entry.name for entry in table})
    if unknown:
        raise SystemExit(f"compare.py: no {what} is named {', '.join(unknown)}; see --help")
    return [entry for entry in table if names is None or entry.name in names]


def _make_random_file(path: Path, size: int) -> None:
    """Random, so that neither compression nor a wrong offset can go unnoticed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for start in range(0, size, _PIECE):
            file.write(os.urandom(min(_PIECE, size - start)))


def _environment(home: Path, ca_file: str) -> dict[str, str]:
    """What every peer is given: no proxies, no configuration of the user's, the throw-away CA."""
    env = {name: value for name, value in os.environ.items() if name.lower() not in _PROXY_VARIABLES}
    # Only the home moves: packages installed with pip --user stay importable.
    env |= {"HOME": str(home), "PYTHONUSERBASE": site.getuserbase(), "LC_ALL": "C.UTF-8"}
    for variable in [name for name in env if name.startswith("XDG_")]:
        del env[variable]
    if ca_file:
        env |= dict.fromkeys(("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"), ca_file)
    return env


class Comparison:
    """Runs one scenario after another against one server, in one work directory."""

    def __init__(self, work: Path, server: Server, *, rounds: int, timeout: float) -> None:
        self.work = work
        self.server = server
        self.rounds = rounds
        self.timeout = timeout
        self.home = work / "home"
        self.home.mkdir(exist_ok=True)

    def run(self, scenario: Scenario, peers: Sequence[Peer], size: int, connections: int) -> Result:
        """One round that is not counted, then ``rounds`` that are, each starting with another peer."""
        size = size if scenario.files == 1 else scenario.size
        names = self._serve(scenario.files, size)
        contenders = [Contender(peer.name, peer.version(), min(connections, peer.max_connections)) for peer in peers]
        entries = list(zip(peers, contenders, strict=True))
        for number in range(self.rounds + 1):
            turn = number % len(entries)
            for peer, contender in entries[turn:] + entries[:turn]:
                if not contender.failure:
                    self._one_run(scenario, peer, contender, names, size, counted=number > 0)
            print(f"  round {number} of {self.rounds}" if number else "  warm-up", file=sys.stderr)
        return Result(scenario.name, scenario.about, size, scenario.files, contenders)

    def _serve(self, files: int, size: int) -> list[str]:
        """Make what is missing under the server's root; the paths below it, all of them in the page cache."""
        names = [f"{size}.bin"] if files == 1 else [f"{files}-{size}/{number:06}.bin" for number in range(files)]
        for path in (self.server.root / name for name in names):
            if path.exists():
                warm(path)
            else:
                _make_random_file(path, size)
        return names

    def _one_run(
        self,
        scenario: Scenario,
        peer: Peer,
        contender: Contender,
        names: list[str],
        size: int,
        *,
        counted: bool,
    ) -> None:
        urls = [self.server.url(scenario.port, name) for name in names]
        ca_file = str(self.server.ca_file) if scenario.port.startswith("https") else ""
        place = Path(tempfile.mkdtemp(prefix=f"{peer.name}-", dir=self.work))
        target, log = place / "target", place / "log"
        target.mkdir()
        try:
            if scenario.files == 1:
                assert peer.one is not None
                path = target / Path(names[0]).name
                command = peer.one(OneFile(urls[0], path, size, contender.connections, ca_file))
            else:
                assert peer.many is not None
                (place / "list.txt").write_text("".join(f"{url}\n" for url in urls))
                many = ManyFiles(place / "list.txt", target, contender.connections, ca_file, tuple(urls))
                command = peer.many(many)
            usage = run(command, log=log, directory=target, env=_environment(self.home, ca_file), timeout=self.timeout)
            if usage.exit_code:
                contender.failure = f"exit code {usage.exit_code}: {last_line(log)}"
                return
            if counted:
                contender.runs.append(usage)
            wrong = self._what_is_wrong(names, target)
            if wrong:
                contender.wrong.append(wrong)
        except TimeoutError as error:
            contender.failure = str(error)
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def _what_is_wrong(self, names: list[str], target: Path) -> str:
        faults = [
            f"{Path(name).name}: {fault}"
            for name in names
            if (fault := compare_files(target / Path(name).name, self.server.root / name))
        ]
        if len(faults) > 1:
            return f"{faults[0]} (and {len(faults) - 1} more files)"
        return faults[0] if faults else ""


def _stop(number: int, frame: FrameType | None) -> None:
    # As Ctrl-C does: so that the server, the peer of the moment and the files go away.
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    names = None if options.scenario == ["all"] else options.scenario
    scenarios = _chosen(names, SCENARIOS, "scenario")
    peers = _chosen(options.peers, PEERS, "peer")
    signal.signal(signal.SIGTERM, _stop)

    for peer in peers:
        if not peer.version():
            print(f"missing: {peer.name} ({peer.get})")
    peers = [peer for peer in peers if peer.version()]

    results = []
    with tempfile.TemporaryDirectory(prefix="rangefetch-bench-", dir=options.workdir) as directory:
        work = Path(directory)
        facts = machine.describe(work)
        shown = ("cpu", "cores", "kernel", "fileSystem", "python", "nginx")
        print(" · ".join(f"{name} {facts[name]}" for name in shown))
        (work / "served").mkdir()
        with Server(work / "served", work / "nginx") as server:
            comparison = Comparison(work, server, rounds=options.rounds, timeout=options.timeout)
            for scenario in scenarios:
                able = [peer for peer in peers if scenario.takes(peer)]
                if not able:
                    continue
                size = min(options.size, scenario.largest)
                connections = options.connections or scenario.connections
                print(f"\n{scenario.name}: {scenario.about}; at most {connections} connections", flush=True)
                result = comparison.run(scenario, able, size, connections)
                results.append(result)
                print(table(result), flush=True)

    if options.json:
        versions = {peer.name: peer.version() for peer in peers}
        report = {"machine": facts, "versions": versions, "results": [result.to_dict() for result in results]}
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    if options.plots:
        plots.draw(results, options.plots)
    return 1 if any(contender.wrong for result in results for contender in result.contenders) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ServerError as error:
        sys.exit(f"compare.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
