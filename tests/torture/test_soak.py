"""A process that makes transfers for long does not hold more and more memory and descriptors.

This makes some thousand transfers; ``make torture`` (``RANGEFETCH_TORTURE=1``) makes 100,000. ``pytest -rP`` shows the
figures.
"""

from __future__ import annotations

import operator
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
"""From one quarter to the next: 125 rounds, or four. What is in use is the measure of a leak; which pages the process
has for that is malloc's affair."""


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
    # The figures fluctuate, so compare the maxima of quarters. What leaks grows from each quarter to the next; what is
    # kept for reuse (libcurl's handles, connections) grows once, when more of it is in use than ever before.
    quarter = ROUNDS // 4
    second, third, last = (
        Held(*map(max, zip(*figures[number * quarter : (number + 1) * quarter], strict=True))) for number in (1, 2, 3)
    )
    grown = Held(*(min(b - a, c - b) for a, b, c in zip(second, third, last, strict=True)))
    assert all(map(operator.le, grown, MOST_MORE)), (grown, figures)
