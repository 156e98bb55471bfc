"""A download's entry in aria2, when aria2's answers are lost or late."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from rangefetch.aria2.client import RpcError
from rangefetch.aria2.daemon import Aria2Daemon
from rangefetch.aria2.entry import Entry, Request
from rangefetch.errors import DaemonUnavailable, LocalError

GID = "0123456789abcdef"
LOST = DaemonUnavailable("aria2c does not answer")
REFUSED = RpcError(1, "No URI to download.")


class _Client:
    """Answers ``addUri`` with the given answers, and raises those that are errors."""

    def __init__(self, *answers: str | Exception, known: bool) -> None:
        self._answers = list(answers)
        self._known = known

    def call(self, method: str, *_: Any) -> str:
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def call_all(self, calls: list[tuple[str, list[Any]]]) -> list[Any]:
        return [{"gid": GID} if self._known else RpcError(1, "is not found") for _ in calls]


def _added(*answers: str | Exception, known: bool = False) -> Entry:
    """An entry that has been added once for each of the answers."""
    entry = Entry(GID)
    daemon = SimpleNamespace(error=None, hangs=False, pid=1, client=_Client(*answers, known=known))
    entry.daemon = cast(Aria2Daemon, daemon)
    for _ in answers:
        entry.add(Request(["http://example.org/x"], {}), {})
    return entry


def test_one_whose_answer_was_lost_is_added_again() -> None:
    assert _added(LOST).gids == []
    assert _added(LOST, GID).gids == [GID]


def test_one_that_aria2_forgets_only_while_it_is_added_again_is_added_once_more() -> None:
    assert _added(LOST, REFUSED).gids == []
    assert _added(LOST, REFUSED, GID).gids == [GID]


def test_one_that_aria2_forgets_only_later_is_added_again() -> None:
    assert _added(REFUSED, REFUSED, GID).gids == [GID]


def test_while_aria2_has_the_first_one_it_is_not_known_whether_it_takes_another() -> None:
    assert _added(LOST, REFUSED, REFUSED, REFUSED, GID, known=True).gids == [GID]


def test_what_aria2_does_not_take_is_an_error() -> None:
    other = RpcError(1, "Unrecognized option")
    with pytest.raises(LocalError, match="rejected it"):
        _added(other)
    with pytest.raises(LocalError, match="rejected it"):
        _added(LOST, REFUSED, other)
    with pytest.raises(LocalError, match="rejected it"):
        _added(*[REFUSED] * 21)
