"""Makes a table of the runs: best, median, cost per gigabyte, ratio to rangefetch."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from measure import Usage

__all__ = ["Contender", "Result", "table"]

_HEADINGS = ("peer", "best s", "median s", "{rate}", "CPU s/GB", "RSS MB", "bytes", "x rangefetch", "in the rounds")


@dataclass
class Contender:
    """One peer in one scenario, and its runs."""

    name: str
    version: str
    connections: int
    runs: list[Usage] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)  # what was wrong, for each run with wrong bytes
    failure: str = ""  # why it was dropped
    is_slow: bool = False  # it ran only once, in the warm-up round

    @property
    def best(self) -> float:
        return min(run.wall for run in self.runs)

    @property
    def median(self) -> float:
        return statistics.median(run.wall for run in self.runs)

    @property
    def cpu(self) -> float:
        return min(run.cpu for run in self.runs)

    @property
    def rss(self) -> int:
        return max(run.rss for run in self.runs)


@dataclass
class Result:
    """One scenario as it was run: ``files`` files of ``size`` bytes each."""

    scenario: str
    about: str
    size: int
    files: int
    contenders: list[Contender]

    @property
    def total(self) -> int:
        return self.size * self.files

    def finished(self) -> list[Contender]:
        """The contenders with at least one counted run, fastest first."""
        return sorted((c for c in self.contenders if c.runs), key=lambda c: c.best)

    def reference(self) -> Contender | None:
        """rangefetch, if it ran: the others are compared with it."""
        return next((c for c in self.finished() if c.name == "rangefetch"), None)

    def spread(self, contender: Contender) -> tuple[float, float]:
        """The smallest and largest ratio of its time to rangefetch's in the same round; rangefetch must have run."""
        reference = self.reference()
        assert reference is not None
        ratios = [run.wall / ours.wall for run, ours in zip(contender.runs, reference.runs, strict=False)]
        return min(ratios), max(ratios)

    def rate(self, contender: Contender) -> float:
        """Speed of the best run: files per second if there are many files, else MB per second."""
        return (self.files if self.files > 1 else self.total / 1e6) / contender.best

    @property
    def rate_unit(self) -> str:
        return "files/s" if self.files > 1 else "MB/s"

    def cpu_per_gb(self, contender: Contender) -> float:
        return contender.cpu / (self.total / 1e9)

    def to_dict(self) -> dict[str, Any]:
        rows = []
        for contender in self.contenders:
            row: dict[str, Any] = asdict(contender)
            if contender.runs:
                row |= {
                    "best": contender.best,
                    "median": contender.median,
                    "rate": self.rate(contender),
                    "rateUnit": self.rate_unit,
                    "cpuPerGB": self.cpu_per_gb(contender),
                    "peakRss": contender.rss,
                }
            rows.append(row)
        return {
            "scenario": self.scenario,
            "about": self.about,
            "size": self.size,
            "files": self.files,
            "contenders": rows,
        }

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> Result:
        contenders = [
            Contender(
                row["name"],
                row["version"],
                row["connections"],
                [Usage(**run) for run in row["runs"]],
                row["wrong"],
                row["failure"],
                row.get("is_slow", False),
            )
            for row in saved["contenders"]
        ]
        return cls(saved["scenario"], saved["about"], saved["size"], saved["files"], contenders)


def _row(result: Result, contender: Contender) -> list[str]:
    reference = result.reference()
    wrong = f"{len(contender.wrong)} WRONG" if contender.wrong else "right"
    return [
        contender.name,
        f"{contender.best:.3f}",
        f"{contender.median:.3f}",
        f"{result.rate(contender):.0f}",
        f"{result.cpu_per_gb(contender):.2f}",
        f"{contender.rss / 1e6:.0f}",
        wrong,
        f"{contender.best / reference.best:.2f}" if reference else "-",
        "{:.2f} to {:.2f}".format(*result.spread(contender)) if reference else "-",
    ]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        return f"| {' | '.join(cells)} |"

    rule = [f":{'-' * (widths[0] - 1)}", *(f"{'-' * (width - 1)}:" for width in widths[1:])]
    return [line(rows[0]), line(rule), *map(line, rows[1:])]


def table(result: Result) -> str:
    """The result as an aligned Markdown table, fastest first, with failures listed below it."""
    headings = [heading.format(rate=result.rate_unit) for heading in _HEADINGS]
    lines = _aligned([headings, *(_row(result, contender) for contender in result.finished())])
    for contender in result.contenders:
        if contender.failure:
            lines.append(f"failed: {contender.name}: {contender.failure}")
        if contender.wrong:
            lines.append(f"wrong bytes: {contender.name}: {contender.wrong[0]}")
    return "\n".join(lines)
