"""A full disk stops a list with one error line, and the same command continues when there is room."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from rangefetch.ledger import Ledger
from servers.misbehaving import MisbehavingServer, content
from support.command_line import errors, run
from support.files import MIB, names

SMALL = 100_000
FIT = 8 * MIB // SMALL
AT_WORK = 512
"""The most requests by downloads that had started when the first one failed: 256, perhaps with two requests each."""


def listed(server: MisbehavingServer, place: Path, count: int) -> None:
    urls = [server.url(f"/good/{number:04}.bin", size=SMALL, seed=number % 7) for number in range(count)]
    (place / "list").write_text("".join(f"{url}\n" for url in urls))


def whole(directory: Path) -> list[str]:
    """The names of the files in the directory, after checking that each has the right content."""
    found = names(directory)
    for name in found:
        assert (directory / name).read_bytes() == content(SMALL, int(name[:4]) % 7)
    return found


@pytest.mark.parametrize("more", [(), ("--strict",), ("--run", "run.db")])
def test_it_is_said_once_and_nothing_further_is_asked_for(
    server: MisbehavingServer, small_disk: Path, place: Path, more: tuple[str, ...]
) -> None:
    listed(server, place, 1000)
    words = ("-i", "list", "-d", str(small_disk), *more)
    said = run(place, *words)
    assert said.returncode == 1
    (line,) = errors(said)
    assert "stopped, since the disk is full: " in line
    assert "free space and run the same command again to continue" in line
    there = whole(small_disk)
    assert len(there) > FIT // 2
    assert len(said.stdout.splitlines()) == len(there)
    assert len(server.requests) <= FIT + AT_WORK
    if "--run" in more:
        with Ledger(place / "run.db", writes=False) as ledger:
            rows = list(ledger.rows())
        assert sorted(row.path.rpartition("/")[2] for row in rows) == there
        assert {row.state for row in rows} == {"complete"}
        for name in there[-20:]:
            (small_disk / name).unlink()
        said = run(place, *words)
        assert (said.returncode, len(errors(said))) == (1, 1)
        assert set(there[:-20]) <= set(whole(small_disk))
        asked = Counter(request.path for request in server.requests if request.finished)
        assert max(asked[path] for path in asked if path[6:14] in there[:-20]) == 1


def test_a_shard_that_does_not_fit_is_continued(server: MisbehavingServer, small_disk: Path, place: Path) -> None:
    listed(server, place, 30)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(6 * MIB))
    words = ("-i", "list", "-d", str(small_disk), "--run", str(place / "run.db"), "--into-tar", "s-{:02d}.tar")
    said = run(place, *words)
    assert (said.returncode, len(errors(said))) == (1, 1), said.stderr
    assert "since the disk is full" in errors(said)[0]
    ballast.unlink()
    said = run(place, *words)
    assert said.returncode == 0, said.stderr
    with Ledger(place / "run.db", writes=False) as ledger:
        assert [row.state for row in ledger.rows()] == ["complete"] * 30
    assert names(small_disk) == ["s-00.tar"]
