"""Draws the results of compare.py as PNG and SVG, one figure per scenario.

python benches/plots.py results.json DIR          # draw again from the JSON
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from report import Contender, Result

__all__ = ["draw"]

_OURS, _THEIRS, _LIMIT = "#0b7a75", "#b8c0c8", "#e3c58f"


def _colour(contender: Contender) -> str:
    if contender.name.startswith("rangefetch"):
        return _OURS
    return _LIMIT if contender.name.startswith("raw-") else _THEIRS


def _title(result: Result) -> str:
    size = f"{result.size / (1 << 30):g} GiB" if result.size >= 1 << 30 else f"{result.size / (1 << 20):g} MiB"
    return result.about if result.files > 1 else f"{result.about}, {size}"


def _draw_one(result: Result, directory: Path) -> None:
    from matplotlib.figure import Figure

    contenders = result.finished()[::-1]  # the fastest on top
    names = [contender.name for contender in contenders]
    colours = [_colour(contender) for contender in contenders]
    panels = (
        (f"{result.rate_unit}, best run (more is better)", [result.rate(c) for c in contenders], "{:,.0f}"),
        ("CPU seconds per GB (less is better)", [result.cpu_per_gb(c) for c in contenders], "{:.2f}"),
    )
    figure = Figure(figsize=(10, 0.9 + 0.32 * len(names)), layout="constrained")
    figure.suptitle(_title(result), fontsize=11)
    for axes, (label, values, form) in zip(figure.subplots(1, 2, sharey=True), panels, strict=True):
        bars = axes.barh(names, values, color=colours)
        axes.bar_label(bars, [form.format(value) for value in values], padding=3, fontsize=8)
        axes.set_xlabel(label, fontsize=9)
        axes.tick_params(labelsize=9)
        axes.margins(x=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    for suffix in ("png", "svg"):
        figure.savefig(directory / f"{result.scenario}.{suffix}", dpi=150)


def draw(results: Sequence[Result], directory: Path) -> None:
    """Write SCENARIO.png and SCENARIO.svg for each result; without matplotlib, print that and write nothing."""
    if importlib.util.find_spec("matplotlib") is None:
        print("no plots: matplotlib is missing (pip install matplotlib)", file=sys.stderr)
        return
    directory.mkdir(parents=True, exist_ok=True)
    for result in results:
        if result.finished():
            _draw_one(result, directory)


def main(report: str, directory: str) -> None:
    saved = json.loads(Path(report).read_text())
    draw([Result.from_dict(result) for result in saved["results"]], Path(directory))


if __name__ == "__main__":
    main(*sys.argv[1:])
