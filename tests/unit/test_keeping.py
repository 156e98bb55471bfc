"""Progress is saved after two seconds, and every five seconds from then on; the test has its own clock."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from rangefetch.transfer.keeping import Keeping
from rangefetch.transfer.lifecycle import Phase

TICKS_A_SECOND = 4


def _saves(phases: dict[float, Phase], seconds: int) -> list[float]:
    """The times at which it saves, if called four times a second. ``phases`` has the phases by the time they begin."""
    now = [100.0]
    life = SimpleNamespace(phase=Phase.FILLING)
    run: Any = SimpleNamespace(now_s=lambda: now[0], life=life, do=lambda work, *_, **__: work())
    keeping, saved = Keeping(run), list[float]()
    for tick in range(seconds * TICKS_A_SECOND):
        at_s = tick / TICKS_A_SECOND
        life.phase = phases.get(at_s, life.phase)
        now[0] = 100.0 + at_s
        keeping.save_if_due(now[0], lambda at_s=at_s: saved.append(at_s))  # type: ignore[misc]  # not inferred
    return saved


def test_no_more_than_five_seconds_are_lost_and_of_a_short_download_two() -> None:
    assert _saves({}, 23) == [2, 7, 12, 17, 22]


def test_what_is_due_while_there_is_no_file_comes_when_there_is_one() -> None:
    other = next(phase for phase in Phase if phase not in (Phase.FILLING, Phase.ENDED))
    assert _saves({1.0: other, 9.0: Phase.FILLING}, 20) == [9, 14, 19]
