"""The engine's decisions under random schedules: right bytes or a clear error, in bounded simulated time."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simulator.campaign import Process, build, explore, kind_of, run_one, shrink
from simulator.schedule import draw
from simulator.world import FAULTS

_SEEDS = 3000
_PIECES = 4
_FOUND = sorted(Path(__file__).with_name("found").glob("*.json"))
_GUARDS = sorted(Path(__file__).with_name("guards").glob("*.json"))

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulated libcurl and system."""
    return build(tmp_path_factory.mktemp("simulator"))


@pytest.fixture(scope="module")
def process(library: Path) -> Iterator[Process]:
    """A process that runs schedules."""
    with Process(library) as running:
        yield running


def _run(process: Process, schedule: dict[str, Any]) -> dict[str, Any]:
    process.ask(schedule)
    answer = process.answer()
    assert answer is not None, process.last_words()
    return answer


@pytest.mark.parametrize("piece", range(_PIECES))
def test_random_schedules_end_with_the_right_bytes_or_a_clear_error(library: Path, piece: int) -> None:
    size = _SEEDS // _PIECES
    for answer in explore(library, 1 + piece * size, size):
        assert "count" in answer, answer
        assert answer["results"]["done"] > answer["count"] // 2
        assert answer["longest"][0] < 20_000


def test_every_kind_of_fault_happens(library: Path) -> None:
    fired: set[str] = set()
    for answer in explore(library, 500_001, 1500):
        assert "count" in answer, answer
        fired |= answer["fired"].keys()
    assert fired >= FAULTS.keys() - {"other bytes", "no link", "no nameless", "no length set"}


def test_a_seed_happens_again_in_the_same_way(library: Path, process: Process) -> None:
    first = [_run(process, {"seed": seed}) for seed in range(40, 60)]
    again = [_run(process, {"seed": seed}) for seed in reversed(range(40, 60))]
    elsewhere = [run_one(library, {"seed": seed}) for seed in (40, 59)]
    assert first == again[::-1]
    assert elsewhere == [first[0], first[-1]]


def test_wrong_bytes_that_no_client_could_notice_are_noticed(process: Process) -> None:
    schedule = _with_other_bytes()
    assert "wrong bytes" in _run(process, schedule)["broken"]


def test_what_is_broken_is_shrunk_to_what_matters(process: Process) -> None:
    schedule = _with_other_bytes()
    small = shrink(schedule, lambda each: _run(process, each))
    assert [kind for kind, *_ in small["faults"]] == ["other bytes"]
    assert small["operations"] == []
    assert len(small["files"]) == 1
    assert kind_of(_run(process, small)["broken"]) == kind_of(_run(process, schedule)["broken"])


@pytest.mark.parametrize("path", _FOUND, ids=[path.stem for path in _FOUND])
def test_what_was_found_once_holds_now(process: Process, path: Path) -> None:
    answer = _run(process, json.loads(path.read_text()))
    assert answer["broken"] == "", answer


@pytest.mark.parametrize("path", _GUARDS, ids=[path.stem for path in _GUARDS])
def test_each_guard_does_what_it_is_for(process: Process, path: Path) -> None:
    """Random schedules also end well without these guards, or need one once in many thousands of runs. Each schedule
    has a ``why`` and an expected outcome: results, and bounds on requests and simulated seconds that show what
    happened."""
    schedule = json.loads(path.read_text())
    wanted = schedule["comes_to"]
    answer = _run(process, schedule)
    assert answer["broken"] == "", schedule["why"]
    assert answer["results"] == wanted.get("results", ["done"] * len(schedule["files"])), schedule["why"]
    for what in ("guests", "leases"):
        least, most = wanted.get(what, (0, 1000))
        assert least <= answer[what] <= most, schedule["why"]
    assert answer["requests"] <= wanted.get("most_requests", 1000), schedule["why"]
    assert wanted.get("least_seconds", 0) <= answer["seconds"] <= wanted.get("most_seconds", 1000), schedule["why"]


def _with_other_bytes() -> dict[str, Any]:
    """The first schedule with two files and operations, changed so that the servers' bytes cannot be relied on."""
    schedule = next(
        schedule
        for schedule in map(draw, range(1, 1000))
        if len(schedule["files"]) > 1 and schedule["operations"] and min(map(min, schedule["resources"])) > 1000
    )
    schedule["faults"] = [["late", 0, 1, 1, 1000, 0], *(["other bytes", i, 0, -1, 0, 0] for i in range(3))]
    return schedule
