"""Towards the end of a long life a process holds no more memory and descriptors than in the middle.

This makes some thousand transfers; ``make torture`` (``RANGEFETCH_TORTURE=1``) makes 100,000. ``pytest -rP`` shows the
figures.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from servers.misbehaving import MisbehavingServer
from servers.tls import Certificates
from support.children import environment
from torture.long_life import TRANSFERS, Held

ROUNDS = 500 if os.environ.get("RANGEFETCH_TORTURE") else 16  # for each scheme
MOST_MORE = Held(resident_kib=4096, used_kib=256, blocks=1000, descriptors=16)
"""From the third quarter to the last one: 125 rounds, or four. What is in use is the measure of a leak; which pages the
process has for that is malloc's affair."""


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.timeout(4 * 3600)
def test_memory_and_descriptors_stay_flat(
    server: MisbehavingServer, tls_server: MisbehavingServer, certificates: Certificates, tmp_path: Path, scheme: str
) -> None:
    source, ca = (server, []) if scheme == "http" else (tls_server, [str(certificates.ca)])
    url = source.url("/good").partition("?")[0]
    command = [sys.executable, "-m", "torture.long_life", str(ROUNDS), str(tmp_path), url, *ca]
    # By default each thread has its own malloc arena, and memory that is free in one is of no use to the others.
    changed = environment({"MALLOC_ARENA_MAX": "1"})
    figures: list[Held] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=changed) as process:
        assert process.stdout is not None
        for line in process.stdout:
            figures.append(Held(*map(int, line.split())))
            source.clear()
    assert (process.returncode, len(figures)) == (0, ROUNDS)
    for at in [*range(0, ROUNDS - 1, ROUNDS // 8), ROUNDS - 1]:
        print(f"after {(at + 1) * TRANSFERS} transfers: {figures[at]}")
    # The figures fluctuate, so compare the maximum of a quarter.
    quarter = ROUNDS // 4
    third, last = (Held(*map(max, zip(*figures[at : at + quarter], strict=True))) for at in (2 * quarter, 3 * quarter))
    more = Held(*(after - before for before, after in zip(third, last, strict=True)))
    assert all(grown <= most for grown, most in zip(more, MOST_MORE, strict=True)), (more, figures)
