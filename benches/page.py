"""Writes the results of compare.py as one page, and compares them with earlier ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from report import Contender, Result, table

__all__ = ["changes", "write"]

_SLOWER = 1.10
"""Smaller changes are noise: the best of several rounds differs by some percent from run to run."""

_FACTS = ("date", "cpu", "cores", "loadAverage", "kernel", "fileSystem", "smallFileSystem", "python", "nginx")


def write(directory: Path, report: Mapping[str, Any], results: Sequence[Result], missing: Sequence[str]) -> None:
    """Write ``README.md`` into ``directory``, beside the plots."""
    machine, versions = report["machine"], report["versions"]
    lines = ["# Benchmarks", "", f"`{report['command']}`", ""]
    lines += [f"- {name}: {machine[name]}" for name in _FACTS if name in machine]
    lines += ["- versions: " + ", ".join(f"{name} {version}" for name, version in versions.items())]
    if missing:
        lines += ["- not installed: " + ", ".join(missing)]
    lines += [
        "",
        "Server and clients share the machine. `x rangefetch` is the best time by rangefetch's best, `in the rounds`",
        "the least and the most of that within one round. [How it is measured](../README.md).",
    ]
    for result in results:
        size = f"{result.files:,} files of {result.size >> 10} KiB" if result.files > 1 else f"{result.size >> 20} MiB"
        lines += ["", f"## {result.scenario}", "", f"{result.about}; {size}.", ""]
        if (directory / f"{result.scenario}.svg").exists():
            lines += [f"![Speed and CPU time of each, as bars]({result.scenario}.svg)", ""]
        lines += [table(result)]
    (directory / "README.md").write_text("\n".join(lines) + "\n")


def changes(old: Sequence[Result], new: Sequence[Result]) -> Iterator[str]:
    """Say what got slower or faster, with a line for each scenario in both results.

    Machines have slow days: our times are corrected by the geometric mean of the changes in the peers' times.
    """
    before = {result.scenario: result for result in old}
    for result in new:
        earlier = before.get(result.scenario)
        if earlier is None or (earlier.size, earlier.files) != (result.size, result.files):
            yield f"{result.scenario}: not in the other report, or with another size"
            continue
        pairs = {each.name: (each, _of(earlier, each.name)) for each in result.finished()}
        ratios = {name: each.best / then.best for name, (each, then) in pairs.items() if then is not None}
        theirs = [ratio for name, ratio in ratios.items() if not name.startswith("rangefetch")]
        day = math.exp(sum(map(math.log, theirs)) / len(theirs)) if theirs else 1.0
        yield f"{result.scenario}: the peers took {day:.2f} x the time that they took then"
        for name in sorted(ratios):
            if name.startswith("rangefetch"):
                ratio = ratios[name] / day
                word = "SLOWER" if ratio > _SLOWER else "faster" if ratio < 1 / _SLOWER else "as before"
                yield f"  {name}: {word}, {ratio:.2f} x beside them ({ratios[name]:.2f} x by the clock)"


def _of(result: Result, name: str) -> Contender | None:
    return next((each for each in result.finished() if each.name == name), None)
