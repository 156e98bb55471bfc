"""The cases: every fault, at every place, over every protocol, on one lane and on eight, with every complication."""

from __future__ import annotations

import fnmatch
import itertools
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from matrix.faults import FAULTS
from matrix.run import Fault, Place
from matrix.server import PROTOCOLS

__all__ = ["Case", "Meanwhile", "all_cases", "chosen"]

Meanwhile = Literal["nothing", "limit", "pause", "mirror", "cancel"]
"""``limit``: one is set and lifted; ``pause``: and resumed; ``mirror``: there is one, which is good."""
ENDLESS = 1 << 30


@dataclass(frozen=True)
class Case:
    """One case; its name is the test's id."""

    fault: Fault
    place: Place
    protocol: str
    lanes: int
    meanwhile: Meanwhile

    @property
    def name(self) -> str:
        return f"{self.fault.name}-{self.place}-{self.protocol}-{self.lanes}-{self.meanwhile}"

    @property
    def times(self) -> int:
        """How often the fault strikes, derived from the name."""
        return 1 if self.fault.once else (1, 3, ENDLESS)[zlib.crc32(self.name.encode()) % 3]


def all_cases() -> Iterator[Case]:
    """All cases, in the order of the table. With one lane there are no hedges."""
    for fault, place, protocol, lanes, meanwhile in itertools.product(
        FAULTS.values(), get_args(Place), PROTOCOLS, (1, 8), get_args(Meanwhile)
    ):
        if protocol in fault.protocols and not (lanes == 1 and place == "hedge"):
            yield Case(fault, place, protocol, lanes, meanwhile)


def chosen(wanted: str, seed: int) -> list[Case]:
    """The cases whose names match a pattern (``reset*-h2-*``), or a number of them drawn by the seed that includes each
    fault at least once."""
    cases = list(all_cases())
    if not wanted.isdecimal():
        return [case for case in cases if fnmatch.fnmatchcase(case.name, wanted)]
    random.Random(seed).shuffle(cases)
    of_each: dict[str, list[Case]] = {}
    for case in cases:
        of_each.setdefault(case.fault.name, []).append(case)
    first = [each[0] for each in of_each.values()]
    taken = set(map(id, first))
    return [*first, *(case for case in cases if id(case) not in taken)][: int(wanted)]
