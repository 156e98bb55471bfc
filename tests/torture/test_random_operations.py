"""Whatever operations happen at whatever moment, and whatever the server does, a download ends with the right bytes.

The operations are pauses, limits, other options, cancels, a stop and a new start, and SIGKILL. The seed, which is the
test's id, decides them; their exact timing depends on the machine. ``RANGEFETCH_SEEDS`` is the number of runs and
``RANGEFETCH_SEED`` the first seed (``make torture SEEDS=... SEED=...``).
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from matrix.answers import Answer, Ask
from matrix.faults import FAULTS
from matrix.run import SIZE, Fault, Run
from matrix.server import PROTOCOLS, Server
from rangefetch import DownloadStatus
from support.files import names
from support.waiting import until
from torture.operations import OVER, Operations, chosen_options
from torture.zygotes import Zygote

FIRST = int(os.environ.get("RANGEFETCH_SEED", "1"))
COUNT = int(os.environ.get("RANGEFETCH_SEEDS", "200"))
STEPS = 12
KILLS = 0.08
"""The share of steps before which a process that is at the same is killed: a run has one, more often than not."""
BOUND_S = 30.0
HARMLESS = [
    fault
    for fault in FAULTS.values()
    if fault.spoil and not (fault.starts_over or fault.slow or fault.proxy or fault.hangs)
]
"""After which the file is still the one that it was; a page in its place is told only from what is there."""


@pytest.fixture(scope="module")
def mortals() -> Iterator[Zygote]:
    """Processes that are to be killed."""
    with Zygote() as running:
        yield running


@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT))
def test_whatever_is_asked_of_it_the_bytes_are_right(
    matrix_server: Server, mortals: Zygote, target: Path, seed: int
) -> None:
    source = random.Random(seed)
    protocol = source.choice(PROTOCOLS)
    run = matrix_server.begin(protocol, Fault("anything", _anything(source, protocol)), "first", 1 << 30)
    run.held_after = source.randrange(SIZE)  # so that the download takes a while
    try:
        _live(run, mortals, target, source)
    finally:
        matrix_server.end()


def _anything(source: random.Random, protocol: str) -> Callable[[Answer, Ask, Run], Answer | None]:
    """A server that is good half of the time."""
    share = source.choice([0.1, 0.3, 0.5])
    faults = [
        fault
        for fault in source.sample(HARMLESS, 12)
        if protocol in fault.protocols and not fault.name.startswith(("200 with", "certificate"))
    ]
    chosen = random.Random(source.random())

    def spoil(answer: Answer, ask: Ask, run: Run) -> Answer | None:
        if not faults or chosen.random() > share:
            return answer
        fault = chosen.choice(faults)
        if fault.untold and answer.status == 200:
            return answer
        assert fault.spoil is not None
        return fault.spoil(answer, ask, run)

    return spoil


def _live(run: Run, mortals: Zygote, target: Path, source: random.Random) -> None:
    """The life of one download."""
    server = run.server
    options = chosen_options(source) | {
        "save_dir": str(target.parent),
        "filename": target.name,
        "http_version": "2" if run.protocol == "h2" else "1.1",
        "ca_file": str(server.certificates.ca),
    }
    own = Operations(source, server.url(run), options)
    try:
        for _ in range(STEPS):
            if source.random() < KILLS:
                own.stop()
                mortals.live(own.url, options, seed=source.randrange(1 << 30), kill_after_s=source.uniform(0.001, 0.3))
                assert not target.exists() or target.read_bytes() in run.versions
                own.start()
            own.act()
        run.heal()
        _end_well(own)
    finally:
        own.stop()
    assert target.read_bytes() in run.versions
    assert names(target.parent) == [target.name]


def _end_well(own: Operations) -> None:
    """Check that the file is completed in bounded time, now that the server is good and nothing is limited."""
    own.manager.limit(0)
    for _ in range(3):
        # The download may still be changing to the state that was last asked for.
        own.resume()
        if own.status() not in OVER:
            own.manager.change_options(own.gid, max_download_limit=0)
        until(lambda: own.status() in OVER, BOUND_S)
        if own.status() is DownloadStatus.COMPLETE:
            return
    assert own.manager.wait(own.gid, timeout=BOUND_S).size == SIZE
