"""A run that is killed repeatedly, at any moment, loses no item and fetches no complete item again.

The server counts the requests: if a file had its final name when the process was killed, no later process requests any
of it, whether or not the ledger had its row by then. ``make test`` tries some moments, ``make torture``
(``RANGEFETCH_TORTURE=1``) fifty, drawn by ``RANGEFETCH_SEED`` independently of the machine's speed.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from rangefetch.ledger import Ledger
from servers.misbehaving import MisbehavingServer, content
from support.command_line import command, environment, run
from support.files import MIB
from support.waiting import until

MOMENTS = 50 if os.environ.get("RANGEFETCH_TORTURE") == "1" else 6
SEED = int(os.environ.get("RANGEFETCH_SEED", "1"))
COUNT = 300
SMALL, LARGE = 3000, 3 * MIB
IN_VAIN = 4 * MIB
"""What is sent of a large file in one life, at most, and is not saved: it lies in buffers, or is of a block begun."""


@dataclass(frozen=True)
class File:
    """One line of the list, and where its file belongs."""

    url: str
    line: str
    path: str
    octets: bytes


def file_of(server: MisbehavingServer, number: int, life: int) -> File:
    """A file of the list. Most are small; some are large, named by the server, or have directories and digests."""
    seed = 1000 * life + number
    size = LARGE if number % 40 == 7 else SMALL
    octets = content(size, seed % 7)
    route, path = ("good", f"{number}.bin")
    more: dict[str, str] = {}
    if number % 10 == 3:
        # The server gives the name, whatever the URL ends in.
        path = f"named-{number}.bin"
        more = {"value": f'attachment; filename="{path}"'}
        route = "disposition"
    rate = {"rate": "4M"} if size == LARGE else {}
    end = "download" if route == "disposition" else path
    url = server.url(f"/{route}/{end}", size=size, seed=seed % 7, id=str(seed), **rate, **more)
    told = {"url": url}
    if number % 3 == 1 and route == "good":
        path = f"{number % 5}/{number}.dat"
        told |= {"path": path, "sha256": hashlib.sha256(octets).hexdigest()}
    return File(url, json.dumps(told), path, octets)


class Killed:
    """A list, and the run over it that gets killed."""

    words: tuple[str, ...] = ("-i", "list", "-d", "out", "--run", "run.db")

    def __init__(self, server: MisbehavingServer, place: Path, life: int) -> None:
        self.server = server
        self.place = place
        self.files = [file_of(server, number, life) for number in range(COUNT)]
        (place / "list").write_text("".join(f"{each.line}\n" for each in self.files))
        self.out = place / "out"

    def complete(self) -> dict[str, File]:
        """The files that have their final names, by their names on the server."""
        return {self.asks(each): each for each in self.files if (self.out / each.path).exists()}

    def asks(self, file: File) -> str:
        """The name under which the server sees requests for the file."""
        return file.url.partition(f":{self.server.port}")[2]

    def is_complete(self) -> bool:
        return len(self.complete()) == COUNT

    def kill(self, rng: random.Random) -> bool:
        """Run the process up to a random moment. Returns whether it was killed before it ended by itself.

        Checks that files which were complete before are not requested, and that little of the others is sent twice.
        """
        had = self.complete()
        asked = len(self.server.requests)
        moment = self._moment(rng)
        with subprocess.Popen(
            command(*self.words),
            cwd=self.place,
            env=environment(self.place),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            begun_s = time.monotonic()
            until(lambda: process.poll() is not None or moment(time.monotonic() - begun_s))
            process.kill()
        self.server.wait_idle()
        again = [request.path for request in self.server.requests[asked:] if request.path in had]
        assert again == []
        return process.returncode < 0

    def _moment(self, rng: random.Random) -> Callable[[float], bool]:
        """Choose when to kill: some time after the start, after a request, or after a file got its name."""
        kind = rng.choice(["time", "request", "file"])
        if kind == "time":
            after_s = rng.uniform(0, 1.5)
            return lambda elapsed_s: elapsed_s >= after_s
        more = rng.randrange(1, COUNT // 4)
        if kind == "request":
            requests = len(self.server.requests) + more
            return lambda _: len(self.server.requests) >= requests
        files = len(self.complete()) + more
        return lambda _: len(self.complete()) >= files

    def ends(self) -> None:
        """Check that the run ends if not killed, requests only what is missing, and lists each item once."""
        had = self.complete()
        asked = len(self.server.requests)
        said = run(self.place, *self.words)
        assert said.returncode == 0, said.stderr
        assert [request.path for request in self.server.requests[asked:] if request.path in had] == []
        asked = len(self.server.requests)
        said = run(self.place, *self.words)
        assert (said.returncode, len(self.server.requests)) == (0, asked), said.stderr
        self.has_all()
        with Ledger(self.place / "run.db", writes=False) as ledger:
            rows = list(ledger.rows())
        assert [(row.number, row.url) for row in rows] == [(n, each.url) for n, each in enumerate(self.files)]
        assert {row.state for row in rows} == {"complete"}

    def has_all(self) -> None:
        """Check that each file is there once and complete, and that there is nothing else."""
        for each in self.files:
            assert (self.out / each.path).read_bytes() == each.octets, each
        there = sorted(str(path.relative_to(self.out)) for path in self.out.rglob("*") if path.is_file())
        assert there == sorted(each.path for each in self.files)


class KilledIntoShards(Killed):
    """The same into tar files. Complete are whole files not yet in a shard, and those that the ledger has in one."""

    words = (*Killed.words, "--into-tar", "shard-{:02d}.tar", "--tar-count", "37", "--tar-json")

    def complete(self) -> dict[str, File]:
        staged = self.out / "shard-shards.parts"
        found = {self.asks(each): each for each in self.files if (staged / each.path).exists()}
        if (self.place / "run.db").exists():
            with Ledger(self.place / "run.db", writes=False) as ledger:
                recorded = {row.url for row in ledger.rows(state="complete")}
            found |= {self.asks(each): each for each in self.files if each.url in recorded}
        return found

    def has_all(self) -> None:
        octets: dict[str, bytes] = {}
        shards = sorted(self.out.iterdir())
        assert [path.name for path in shards] == [f"shard-{number:02}.tar" for number in range(-(-COUNT // 37))]
        for path in shards:
            with tarfile.open(path, "r:") as tar:
                for info in tar:
                    file = tar.extractfile(info)
                    assert file is not None
                    assert info.name not in octets
                    octets[info.name] = file.read()
        rows = [octets.pop(name) for name in list(octets) if name.endswith(".json")]
        assert {json.loads(row)["url"] for row in rows} == {each.url for each in self.files}
        assert octets == {each.path: each.octets for each in self.files}


@pytest.mark.parametrize("kind", [Killed, KilledIntoShards])
def test_no_item_is_lost_and_none_that_was_complete_is_fetched_twice(
    server: MisbehavingServer, tmp_path: Path, kind: type[Killed]
) -> None:
    rng = random.Random(SEED)
    killed = life = kills = 0
    while killed < MOMENTS:
        place = tmp_path / str(life)
        place.mkdir()
        running = kind(server, place, life)
        server.clear()
        kills = 0
        while killed < MOMENTS and not running.is_complete():
            kills += running.kill(rng)
            killed += 1
        running.ends()
        sent: dict[str, int] = {}
        for request in server.requests:
            sent[request.path] = sent.get(request.path, 0) + request.bytes_sent
        for each in running.files:
            octets = sent[running.asks(each)]
            if len(each.octets) == SMALL:
                # It was being fetched at most once in each life of the process.
                assert octets <= SMALL * (kills + 1)
            else:
                assert octets <= LARGE + IN_VAIN * kills
        life += 1
