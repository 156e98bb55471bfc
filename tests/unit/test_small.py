"""A download treated as a small file follows a table: only the steps that the table lists can happen."""

import contextlib
import itertools
from typing import Any
from unittest.mock import Mock

import pytest

from rangefetch.errors import LocalError, TimedOut
from rangefetch.native.small import TABLE, Small, Stage, Step, come_whole
from rangefetch.options import DownloadOptions
from rangefetch.transfer.backend import Growth
from rangefetch.transfer.download import Download
from rangefetch.transfer.events import EngineEvent

LISTED = [(stage, step) for stage, moves in TABLE.items() for step in moves]
UNLISTED = [pair for pair in itertools.product(Stage, Step) if pair not in LISTED]
ERROR = TimedOut("not finished after 1 seconds")


def made(stage: Stage = Stage.PREPARING) -> Any:
    """A small download in this stage, as if it had been given to the engine unless the stage is PREPARING."""
    small: Any = Small(Mock(), Download("http://h/x", DownloadOptions()))
    small.stage = stage
    small.file = Mock(connections=1)
    if stage is not Stage.PREPARING:
        small._loop = 0
    small._backend.listener.grows.return_value = Growth.SOON
    small._backend.now_s.return_value = 0.0
    return small


def event(small: Any, name: str) -> EngineEvent:
    fields: list[Any] = [name, small.file, *[0] * 7, "", "", *[0] * 3, "", 0, 0, None]
    return EngineEvent._make(fields)


def come(small: Any) -> None:
    """Report that the engine has given the file its name."""
    small.file.configure_mock(tag=small, host=0, size=1, was_there=False, lasted_us=1, effort={}, limit=0)
    come_whole(small._backend, [small.file])


def told(small: Any) -> list[str]:
    """The names of the calls that told the listener of an end, and "whole" for each report of complete files."""
    return [name for name, _, _ in small._backend.method_calls if name in TELLS] + [
        "whole" for call in small._backend.are_whole.call_args_list if call.args[0]
    ]


TELLS = ("listener.failed", "listener.halted")


@pytest.mark.parametrize(("stage", "step"), UNLISTED)
def test_what_is_not_listed_is_refused_and_changes_nothing(stage: Stage, step: Step) -> None:
    small = made(stage)
    with pytest.raises(ValueError, match=f"{step.name}.*{stage.name}"):
        small.fire(step)
    assert small.stage is stage
    assert small._backend.mock_calls == []


def test_every_stage_has_its_line_and_can_be_reached() -> None:
    assert set(TABLE) == set(Stage)
    reached, new = {Stage.PREPARING}, {Stage.PREPARING}
    while new:
        new = {following for stage in new for following, _ in TABLE[stage].values()} - reached
        reached |= new
    assert reached == set(Stage)


def test_every_step_matters_somewhere() -> None:
    moves = [(step, following, action) for stage in Stage for step, (following, action) in TABLE[stage].items()]
    assert {step for step, _, _ in moves} == set(Step)
    assert {step for stage, step in LISTED if TABLE[stage][step] != (stage, None)} == set(Step)


@pytest.mark.parametrize("stage", Stage)
def test_it_can_be_ended_in_every_stage(stage: Stage) -> None:
    assert {Step.STOP, Step.ABANDON} <= set(TABLE[stage])
    small = made(stage)
    small._result = Mock()  # set in stage NAMED
    small.tell_end(ERROR)
    if stage is Stage.DROPPED:  # its task reports the end
        assert told(small) == []
    else:
        assert small.stage is Stage.ENDED
        assert told(small) == {Stage.ENDED: [], Stage.NAMED: ["whole"]}.get(stage, ["listener.failed"])


def test_the_end_is_the_end() -> None:
    assert set(TABLE[Stage.ENDED].values()) == {(Stage.ENDED, None)}


@pytest.mark.parametrize("stage", [Stage.FETCHING, Stage.QUEUED, Stage.HELD])
def test_the_engine_lets_go_before_a_stop_is_told(stage: Stage) -> None:
    small = made(stage)
    small.halt()
    small.file.remove.assert_called_once_with()
    assert told(small) == []
    small.handle(event(small, "REMOVED"))
    assert told(small) == ["listener.halted"]


def test_what_the_engine_does_not_have_ends_at_once() -> None:
    small = made()
    small.fail(ERROR)
    small.file.remove.assert_not_called()
    assert told(small) == ["listener.failed"]


@pytest.mark.parametrize("late", ["REMOVED", "FAILED", "WHOLE"])
def test_one_that_was_given_up_is_told_once(late: str) -> None:
    """The engine may release the file later, or even complete it."""
    small = made(Stage.FETCHING)
    small.halt()
    small.tell_end(ERROR)
    if late == "WHOLE":
        come(small)
    else:
        small.handle(event(small, late))
    assert told(small) == ["listener.failed"]


def test_one_that_was_whole_before_its_stop_is_told_so() -> None:
    small = made(Stage.FETCHING)
    small.halt()
    come(small)
    assert told(small) == ["whole"]


def test_one_with_its_name_is_whole_although_its_trace_takes_too_long() -> None:
    small = made(Stage.FETCHING)
    small._trace = (("http://h/x", Mock()),)
    come(small)
    assert told(small) == []
    small.tell_end(None)
    assert told(small) == ["whole"]
    small.fire(Step.WRITTEN)
    assert told(small) == ["whole"]


def test_a_turn_that_comes_too_late_is_nobodys() -> None:
    small = made(Stage.FETCHING)
    small.go_on()
    assert small.stage is Stage.FETCHING
    small.handle(event(small, "HELD"))
    small.halt()
    small.go_on()
    small._backend.task_instead.assert_not_called()


@pytest.mark.parametrize("prepared", [False, True])
def test_a_task_that_cannot_be_made_is_told(prepared: bool) -> None:
    small = made(Stage.QUEUED if prepared else Stage.PREPARING)
    small._backend.task_instead.side_effect = MemoryError
    with pytest.raises(MemoryError):
        small.fire(Step.TURN if prepared else Step.UNPREPARED)
    small.fail(LocalError("out of memory"))  # as ``guarded`` calls it
    if prepared:
        small.handle(event(small, "REMOVED"))
    assert told(small) == ["listener.failed"]


@pytest.mark.parametrize("broken", ["file.remove", "_backend.task_ended"])
def test_an_action_that_raises_on_the_way_to_the_end_is_the_end(broken: str) -> None:
    small = made(Stage.FETCHING)
    owner, name = broken.split(".")
    setattr(getattr(small, owner), name, Mock(side_effect=RuntimeError("a fault of ours")))
    with contextlib.suppress(RuntimeError):
        small.halt()
        small.handle(event(small, "REMOVED"))
    assert small.stage is Stage.ENDED
    assert told(small) == ["listener.halted"]
