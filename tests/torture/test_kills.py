"""A process killed at any point leaves no wrong file, and the next one fetches only what was not saved.

``make test`` tries some points and moments, ``make torture`` (``RANGEFETCH_TORTURE=1``) every point and 200 moments.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from servers.misbehaving import MisbehavingServer, content
from support.files import MIB, names, saved_bytes
from torture.zygote import CALLS
from torture.zygotes import Zygote

ALL = os.environ.get("RANGEFETCH_TORTURE") == "1"
pytestmark = pytest.mark.timeout(3600 if ALL else 120)  # hundreds of downloads, one after the other
SEED = int(os.environ.get("RANGEFETCH_SEED", "1"))
SIZE = 6 * MIB + 12_345
NUMBERS = range(1, 10_000) if ALL else (1, 2, 3, 5, 8)
MOMENTS = 200 if ALL else 20
LANES = 4
KINDS: dict[str, dict[str, Any]] = {
    "paused and resumed": {"pause_at": 4 * MIB + 1, "options": {"split": LANES}},
    "durable": {"pause_at": 2 * MIB, "options": {"durable": True, "split": LANES}},
}
IN_VAIN = LANES * 2 * MIB
"""What is sent, at most, and never arrives: it lies in the buffers of connections, or is of a block begun."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["die before", "die after"])
@pytest.mark.parametrize("call", [call for call in CALLS if call != "mode"])
def test_killed_at_a_call_it_goes_on_where_it_was_saved(
    zygote: Zygote, server: MisbehavingServer, tmp_path: Path, call: str, how: str, kind: str
) -> None:
    url = server.url("/shared-rate/x", size=SIZE, rate="64M")
    for number in NUMBERS:
        directory = tmp_path / str(number)
        directory.mkdir()
        told = zygote.run(directory, url=url, call=call, number=number, how=how, **KINDS[kind])
        if not told.died:
            assert told.outcome == "complete"
            break
        _is_finished(zygote, server, url, directory)


def test_killed_at_any_moment_and_again_and_again(zygote: Zygote, server: MisbehavingServer, tmp_path: Path) -> None:
    source = random.Random(SEED)
    url = server.url("/shared-rate/x", size=SIZE, rate="48M")
    for number in range(MOMENTS):
        directory = tmp_path / str(number)
        directory.mkdir()
        for _ in range(source.choice([1, 1, 2, 4])):
            kind = KINDS[source.choice(list(KINDS))]
            zygote.run(directory, url=url, kill_after_s=source.uniform(0.001, 0.25), **kind)
        _is_finished(zygote, server, url, directory)


def _is_finished(zygote: Zygote, server: MisbehavingServer, url: str, directory: Path) -> None:
    """Check that no wrong file has the name, and that another run fetches only what was not saved."""
    target = directory / "file.bin"
    if target.exists():
        assert target.read_bytes() == content(SIZE)
    kept = SIZE if target.exists() else saved_bytes(target)
    server.wait_idle()
    before = server.bytes_sent
    told = zygote.run(directory, url=url, options={"split": LANES})
    assert told.outcome == "complete", told
    assert target.read_bytes() == content(SIZE)
    assert names(directory) == ["file.bin"]
    server.wait_idle()
    assert server.bytes_sent - before <= SIZE - kept + IN_VAIN
