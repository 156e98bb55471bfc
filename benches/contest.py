"""The rounds of one scenario: every peer in turn, each download into a fresh directory, checked and deleted."""

from __future__ import annotations

import itertools
import math
import os
import shutil
import site
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from measure import compare_files, last_line, run, warm
from peers import ManyFiles, OneFile, Peer
from report import Contender, Result
from scenarios import Scenario
from server import Server

__all__ = ["Contest", "make_random_file"]

_PIECE = 1 << 20
_FEWEST_ROUNDS = 2
_LONG_S = 10.0
_PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@dataclass(frozen=True)
class Contest:
    """Runs a scenario with some peers against ``server``; downloads are saved below ``place``."""

    scenario: Scenario
    server: Server
    place: Path
    size: int  # of each file
    connections: int
    timeout: float

    def hold(self, peers: Sequence[Peer], rounds: int, until_s: float = math.inf) -> Result:
        """Run a warm-up round, then ``rounds`` that count, each starting with another peer.

        After ``until_s`` (``time.monotonic``) no further round begins, unless fewer than two have been counted. With
        such a limit, a peer that is slow in the warm-up round is not run again, and that round counts for it.

        A peer that fails is not run again; the runs that it has finished still count.
        """
        names = self._serve()
        entries = [(peer, Contender(peer.name, peer.version(), self._connections(peer))) for peer in peers]
        for number in range(rounds + 1):
            if number > _FEWEST_ROUNDS and time.monotonic() >= until_s:
                break
            print(f"  round {number} of {rounds}" if number else "  warming up", file=sys.stderr)
            turn = number % len(entries)
            for peer, contender in entries[turn:] + entries[:turn]:
                if not contender.failure and not (number and contender.is_slow):
                    self._take_turn(peer, contender, names, counted=number > 0, hurries=until_s < math.inf)
        contenders = [contender for _, contender in entries]
        return Result(self.scenario.name, self.scenario.about, self.size, self.scenario.files, contenders)

    def _connections(self, peer: Peer) -> int:
        return min(self.connections, peer.max_connections)

    def _serve(self) -> list[str]:
        """Create missing files below the server's root, and read all into the page cache; returns their paths."""
        if self.scenario.files == 1:
            names = [f"{self.size}.bin"]
        else:
            directory = f"{self.scenario.files}-{self.size}"
            names = [f"{directory}/{number:06}.bin" for number in range(self.scenario.files)]
        sizes = itertools.cycle(self.scenario.mixed or (self.size,))
        for name, size in zip(names, sizes, strict=False):
            path = self.server.root / name
            if path.exists():
                warm(path)
            else:
                make_random_file(path, size)
        return names

    def _take_turn(self, peer: Peer, contender: Contender, names: list[str], *, counted: bool, hurries: bool) -> None:
        fresh = Path(tempfile.mkdtemp(prefix=f"{peer.name}-", dir=self.place))
        target, log = fresh / "target", fresh / "log"
        target.mkdir()
        try:
            command = self._command(peer, names, fresh, target)
            usage = run(command, log=log, directory=target, env=self._environment(), timeout=self.timeout)
            if usage.exit_code:
                contender.failure = f"exit code {usage.exit_code}: {last_line(log)}"
            else:
                contender.is_slow = hurries and not counted and usage.wall > _LONG_S
                if counted or contender.is_slow:
                    contender.runs.append(usage)
                if wrong := self._what_is_wrong(names, target):
                    contender.wrong.append(wrong)
        except TimeoutError as error:
            contender.failure = str(error)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        if contender.failure:
            print(f"  {peer.name} is out: {contender.failure}", file=sys.stderr)

    def _command(self, peer: Peer, names: list[str], fresh: Path, target: Path) -> list[str]:
        urls = tuple(self.server.url(self.scenario.port, name) for name in names)
        connections = self._connections(peer)
        if self.scenario.files == 1:
            assert peer.one is not None
            return peer.one(OneFile(urls[0], target / names[0], self.size, connections, self._ca_file))
        assert peer.many is not None
        list_file = fresh / "urls.txt"
        list_file.write_text("".join(f"{url}\n" for url in urls))
        return peer.many(ManyFiles(urls, list_file, target, connections, self._ca_file))

    @property
    def _ca_file(self) -> str:
        return str(self.server.ca_file) if self.scenario.port.startswith("https") else ""

    def _environment(self) -> dict[str, str]:
        """The environment of every peer: no proxies, none of the user's configuration, the temporary CA."""
        home = self.place / "home"
        home.mkdir(exist_ok=True)
        env = {
            name: value
            for name, value in os.environ.items()
            if name.lower() not in _PROXY_VARIABLES
            and not name.startswith("XDG_")
            # An installed program has its bytecode, whatever the settings of the user who runs this.
            and name != "PYTHONDONTWRITEBYTECODE"
        }
        # Only HOME changes: packages installed with pip --user must stay importable.
        env |= {"HOME": str(home), "PYTHONUSERBASE": site.getuserbase(), "LC_ALL": "C.UTF-8"}
        if self._ca_file:
            env |= dict.fromkeys(("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"), self._ca_file)
        return env

    def _what_is_wrong(self, names: list[str], target: Path) -> str:
        faults = [
            f"{Path(name).name}: {fault}"
            for name in names
            if (fault := compare_files(target / Path(name).name, self.server.root / name))
        ]
        if len(faults) > 1:
            return f"{faults[0]} (and {len(faults) - 1} more files)"
        return faults[0] if faults else ""


def make_random_file(path: Path, size: int) -> None:
    """Write random bytes, so that neither compression nor a wrong offset can go unnoticed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for start in range(0, size, _PIECE):
            file.write(os.urandom(min(_PIECE, size - start)))
