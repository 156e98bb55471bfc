"""Whatever a server does wrong, a download ends in bounded time, with the right bytes or a clear error that keeps them.

``make test`` runs a sample with every fault, drawn by a fixed seed; ``make torture`` runs all cases. The environment
variable ``RANGEFETCH_MATRIX`` is how many are drawn, or a pattern for their names; ``RANGEFETCH_SEED`` is the seed.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from matrix.cases import Case, chosen
from matrix.server import Server
from matrix.trial import undergo
from support import children
from support.faults import with_faults

SAMPLE = os.environ.get("RANGEFETCH_MATRIX", "300")
SEED = int(os.environ.get("RANGEFETCH_SEED", "1"))

APART = """
    import sys
    from pathlib import Path
    from matrix.cases import all_cases
    from matrix.server import Server
    from matrix.trial import NAME, undergo
    from rangefetch.net import network
    from servers.tls import LOOPBACK, make_certificates

    network._CONNECT_S = 0.2  # by which it is known whether there is a network
    name, target, directory = sys.argv[1], *map(Path, sys.argv[2:])
    [case] = [case for case in all_cases() if case.name == name]
    ours, foreign = make_certificates(directory / "ours", names=[*LOOPBACK, NAME]), make_certificates(directory / "no")
    with Server(ours, foreign) as server:
        undergo(server, case, target)
    print("right")
"""
"""For a case in which look-ups hang."""


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in chosen(SAMPLE, SEED)])
def test_the_right_bytes_or_a_clear_error_that_keeps_the_work(
    matrix_server: Server, target: Path, tmp_path: Path, case: Case
) -> None:
    if not case.fault.hangs:
        undergo(matrix_server, case, target)
        return
    done = children.run(APART, case.name, target, tmp_path, env=with_faults(tmp_path))
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stderr
