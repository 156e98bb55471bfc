"""A download that is killed at any moment resumes from what it had saved, and never yields a wrong file."""

import random
import signal
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen

import pytest

from flow.children import as_json, child, run_child
from servers.directed import Valve
from servers.misbehaving import MisbehavingServer, content
from servers.routing import ROUTES, Route
from support.downloads import QUICK, fetch
from support.files import MIB, begun, names, saved_bytes
from support.requests import sent
from support.waiting import AT_ONCE, until

SIZE = 12 * MIB + 12_345


@dataclass
class Victim:
    """A download to be killed, ``after_s`` seconds after it has saved its state ``saves`` times."""

    saves: int
    after_s: float
    url: str
    target: Path
    process: Popen[str]
    kept: list[int] = field(default_factory=list)
    """How many bytes are there, according to each save that was seen."""
    last: tuple[int, int] = (0, 0)
    """The inode and time of the last save, which tell the next save from it."""
    due_s: float = 0.0
    """When to kill it; 0 until it has saved that often."""

    def look(self, now_s: float) -> bool:
        """Note any new save, and return whether it is time to kill the download."""
        if not self.due_s and len(self.kept) == self.saves:
            self.due_s = now_s + self.after_s
        with suppress(FileNotFoundError):
            status = self.target.with_name("file.bin.part.json").stat()
            if (status.st_ino, status.st_mtime_ns) != self.last:
                self.last = (status.st_ino, status.st_mtime_ns)
                self.kept.append(saved_bytes(self.target))
        return bool(self.due_s) and now_s >= self.due_s


def _path(url: str) -> str:
    return "/" + url.split("/", 3)[3]


@pytest.fixture
def valves(monkeypatch: pytest.MonkeyPatch) -> list[Valve]:
    """One for each victim, of 1 MiB/s: the routes ``/valve0``, ``/valve1`` ..."""
    made = [Valve(MIB) for _ in range(10)]
    for number, valve in enumerate(made):
        monkeypatch.setitem(ROUTES, f"valve{number}", Route(f"valve{number}", valve, {}))
    return made


def test_killed_at_any_moment_only_what_was_not_saved_is_fetched_again(
    server: MisbehavingServer, tmp_path: Path, valves: list[Valve]
) -> None:
    chosen = random.Random(2)
    moments = [(0, 0.05), *((0, chosen.uniform(0.1, 2.0)) for _ in range(3)), (1, 0.0), (2, 0.0)]
    moments += [(number, chosen.uniform(0.0, 1.5)) for number in (1, 1, 2, 2)]
    options = as_json(split=4, min_split_size=1)

    def bytes_sent(victim: Victim) -> int:
        return sent(request for request in server.requests if request.path == _path(victim.url))

    with ExitStack() as stack:
        victims = []
        for number, (saves, after_s) in enumerate(moments):
            directory = tmp_path / f"{number}"
            directory.mkdir()
            url, target = server.url(f"/valve{number}/x", size=SIZE, seed=number), directory / "file.bin"
            process = stack.enter_context(child("fetch", url, target, options))
            victims.append(Victim(saves, after_s, url, target, process))
        asked = set[str]()
        alive = list(victims)
        while alive:
            asked |= {request.path for request in server.requests}
            for victim in list(alive):
                assert victim.process.poll() is None, victim.process.communicate()
                if _path(victim.url) in asked and victim.look(time.monotonic()):
                    victim.process.send_signal(signal.SIGKILL)
                    victim.process.wait()
                    alive.remove(victim)
            time.sleep(0.005)
    server.wait_idle()
    for number, victim in enumerate(victims):
        # The ``.tmp`` file is from a save that was interrupted.
        assert set(names(victim.target.parent)) <= {*begun(victim.target), "file.bin.part.json.tmp"}
        kept = saved_bytes(victim.target)
        seen = [*victim.kept, kept]
        assert seen == sorted(seen), "a later save says of less that it is there"
        assert all(victim.kept), "a save says of nothing that it is there"
        valves[number].open()
        before = bytes_sent(victim)
        result = fetch(victim.url, victim.target, split=1)
        assert victim.target.read_bytes() == content(SIZE, number)
        assert names(victim.target.parent) == ["file.bin"]
        assert result.resumed == kept
        assert bytes_sent(victim) - before == SIZE - kept


def test_killed_again_and_again_it_still_ends_right(server: MisbehavingServer, valve: Valve, target: Path) -> None:
    url, chosen = server.url("/valve/x", size=SIZE), random.Random(3)
    for _ in range(5):
        server.clear()
        with child("fetch", url, target, as_json(min_split_size=1)) as process:
            until(lambda: server.bytes_sent > chosen.randrange(1, MIB))
            process.kill()
            process.wait()
        assert not target.exists()
    valve.open()
    fetch(url, target)
    assert target.read_bytes() == content(SIZE)
    assert names(target.parent) == ["file.bin"]


@pytest.mark.parametrize("stop", [signal.SIGINT])
def test_ctrl_c_stops_at_once_and_saves_all_that_had_come(
    server: MisbehavingServer, valve: Valve, target: Path, stop: signal.Signals
) -> None:
    url = server.url("/valve/x", size=SIZE)
    with child("fetch", url, target) as process:
        until(lambda: server.bytes_sent > 3 * MIB)
        process.send_signal(stop)
        started = time.monotonic()
        _, errors = process.communicate(timeout=2 * AT_ONCE)
        assert time.monotonic() - started < AT_ONCE
    assert process.returncode == 130
    assert errors == ""
    assert names(target.parent) == begun(target)
    kept = saved_bytes(target)
    assert kept > 2 * MIB
    valve.open()
    server.wait_idle()
    before = server.bytes_sent
    second = run_child("fetch", url, target, as_json(split=1))
    assert (second.returncode, second.stdout) == (0, f"{kept}\n")
    assert target.read_bytes() == content(SIZE)
    assert server.bytes_sent - before == SIZE - kept


def test_ctrl_c_of_a_download_that_cannot_be_resumed_leaves_nothing(server: MisbehavingServer, target: Path) -> None:
    with child("fetch", server.url("/chunked/x", size=SIZE, rate="4M"), target, as_json(**QUICK)) as process:
        until(lambda: server.bytes_sent > MIB)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=2 * AT_ONCE)
    assert process.returncode == 130
    assert names(target.parent) == []


@pytest.mark.parametrize("route", ["stall", "slow-headers", "status"])
def test_ctrl_c_stops_at_once_whatever_it_waits_for(server: MisbehavingServer, target: Path, route: str) -> None:
    parameters = {
        "stall": {"headers": 0},
        "slow-headers": {"seconds": 100},
        "status": {"code": 503, "retry_after": 100},
    }[route]
    with child("fetch", server.url(f"/{route}/x", size=SIZE, **parameters), target) as process:
        until(lambda: server.requests)
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        process.communicate(timeout=2 * AT_ONCE)
        assert time.monotonic() - started < AT_ONCE
    assert process.returncode == 130
    assert names(target.parent) == []
