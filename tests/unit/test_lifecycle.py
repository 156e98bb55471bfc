"""A download's lifecycle is a table: only what it lists can happen, and every phase can reach an end."""

import contextlib
import itertools

import pytest

from rangefetch.errors import HttpStatusError, TimedOut
from rangefetch.transfer.lifecycle import AT_WORK, ENDING, LET_GO_S, TABLE, Action, Event, Lifecycle, Phase

LISTED = [(phase, event) for phase, moves in TABLE.items() for event in moves]
UNLISTED = [pair for pair in itertools.product(Phase, Event) if pair not in LISTED]
ENDS = (Event.STOP, Event.FAIL, Event.REJECT, Event.ABANDON)


class Owner:
    """Records the actions that it is told to do, and does nothing."""

    def __init__(self, phase: Phase = Phase.PLACING) -> None:
        self.done: list[Action] = []
        self.now_s = 1000.0
        actions = {action: lambda action=action: self.done.append(action) for action in Action}
        self.life = Lifecycle(actions, lambda: self.now_s)
        self.life.phase = phase

    def fire(self, *events: Event) -> Phase:
        for event in events:
            self.life.fire(event)
        return self.life.phase


@pytest.mark.parametrize(("phase", "event"), LISTED)
def test_what_is_listed_leads_where_the_table_says(phase: Phase, event: Event) -> None:
    owner = Owner(phase)
    following, action = TABLE[phase][event]
    assert owner.fire(event) is following
    assert owner.done == ([] if action is Action.NOTHING else [action])


@pytest.mark.parametrize(("phase", "event"), UNLISTED)
def test_what_is_not_listed_is_refused_and_changes_nothing(phase: Phase, event: Event) -> None:
    owner = Owner(phase)
    with pytest.raises(ValueError, match=f"{event.name}.*{phase.name}"):
        owner.fire(event)
    assert owner.life.phase is phase
    assert owner.done == []


def test_every_phase_has_its_line_and_can_be_reached() -> None:
    assert set(TABLE) == set(Phase)
    reached, new = {Phase.PLACING}, {Phase.PLACING}
    while new:
        new = {following for phase in new for following, _ in TABLE[phase].values()} - reached
        reached |= new
    assert reached == set(Phase)


def test_every_event_matters_somewhere_and_every_action_is_taken() -> None:
    assert {event for _, event in LISTED} == set(Event)
    assert {action for moves in TABLE.values() for _, action in moves.values()} == set(Action)


@pytest.mark.parametrize("phase", Phase)
def test_it_can_be_ended_in_every_phase(phase: Phase) -> None:
    assert set(ENDS) <= set(TABLE[phase])
    assert TABLE[phase][Event.ABANDON][0] is Phase.ENDED


@pytest.mark.parametrize("phase", sorted(ENDING, key=str))
def test_nothing_leads_back_from_the_way_to_the_end(phase: Phase) -> None:
    assert {following for following, _ in TABLE[phase].values()} <= ENDING


def test_the_outcome_is_told_once_and_that_is_the_end() -> None:
    assert {following for following, _ in TABLE[Phase.ENDED].values()} == {Phase.ENDED}
    for phase, event in LISTED:
        following, action = TABLE[phase][event]
        assert (action is Action.TELL) == (following is Phase.ENDED and phase is not Phase.ENDED)


@pytest.mark.parametrize(
    "phase", sorted(AT_WORK | {Phase.PLACING, Phase.ARRIVED, Phase.COMPARING, Phase.PROVING}, key=str)
)
@pytest.mark.parametrize("event", [Event.STOP, Event.FAIL, Event.REJECT, Event.TURN])
def test_the_backend_lets_go_before_anything_else_is_done(phase: Phase, event: Event) -> None:
    owner = Owner(phase)
    owner.fire(event)
    assert owner.done == [Action.WITHDRAW]
    owner.fire(Event.LET_GO)
    assert owner.done == [Action.WITHDRAW, Action.GO_ON if event is Event.TURN else Action.KEEP]


SAVED = {Phase.FILLING, Phase.COMPARING, Phase.PROVING}


@pytest.mark.parametrize("phase", sorted(Phase, key=str))
@pytest.mark.parametrize("event", [Event.STOP, Event.FAIL, Event.REJECT])
def test_what_came_is_saved_when_the_first_response_was_in_order_and_nothing_is_wrong(
    phase: Phase, event: Event
) -> None:
    if phase in ENDING or (phase, event) == (Phase.NAMING, Event.STOP):
        return
    owner = Owner(phase)
    is_saved = event is not Event.REJECT and phase in SAVED | {Phase.NAMING}
    assert owner.fire(event, Event.LET_GO) is (Phase.KEEPING if is_saved else Phase.CLEARING)
    assert owner.fire(Event.KEPT) is Phase.ENDED


@pytest.mark.parametrize("events", [(Event.SETTLED, Event.LET_GO), (Event.LET_GO, Event.SETTLED)])
@pytest.mark.parametrize("phase", [Phase.FETCHING, Phase.ARRIVED])
def test_a_response_that_is_found_in_order_after_the_stop_still_saves_what_came(
    phase: Phase, events: tuple[Event, ...]
) -> None:
    assert Owner(phase).fire(Event.STOP, *events) is Phase.KEEPING


def test_what_is_to_be_begun_anew_is_not_saved() -> None:
    assert Owner(Phase.FILLING).fire(Event.TURN, Event.STOP, Event.LET_GO) is Phase.CLEARING


@pytest.mark.parametrize("last", [(Event.SETTLED, Event.WHOLE), (Event.WHOLE, Event.SETTLED)])
def test_a_download_goes_from_its_place_to_its_name(last: tuple[Event, ...]) -> None:
    owner = Owner()
    assert owner.fire(Event.ASK, Event.TURN, Event.LET_GO, Event.FETCH, *last) is Phase.COMPARING
    assert owner.fire(Event.AGREED, Event.NAME, Event.NAMED) is Phase.ENDED
    assert owner.done == [Action.WITHDRAW, Action.GO_ON, Action.COMPARE, Action.PROVE, Action.TELL]
    assert owner.life.error is None


def test_a_stop_waits_for_the_name_and_a_failure_there_ends_it() -> None:
    owner = Owner(Phase.NAMING)
    owner.life.stop()
    assert owner.done == []
    error = HttpStatusError("404", status=404)
    assert owner.life.fail(error)
    assert owner.life.phase is Phase.STOPPING
    assert owner.life.error is error


def test_the_first_reason_is_the_one_that_is_told() -> None:
    first, second = HttpStatusError("404", status=404), HttpStatusError("500", status=500)
    owner = Owner(Phase.FILLING)
    assert owner.life.fail(first)
    assert not owner.life.fail(second)
    owner.life.stop()
    assert owner.life.error is first


def test_a_failure_after_a_stop_is_not_told() -> None:
    owner = Owner(Phase.FILLING)
    owner.life.stop()
    assert not owner.life.fail(HttpStatusError("404", status=404))
    assert owner.life.error is None


def test_an_end_that_does_not_come_is_late_after_a_while() -> None:
    owner = Owner(Phase.FILLING)
    assert not owner.life.is_late(owner.now_s + 2 * LET_GO_S)
    owner.life.stop()
    assert not owner.life.is_late(owner.now_s + LET_GO_S)
    assert owner.life.is_late(owner.now_s + LET_GO_S + 1)
    owner.life.abandon()
    assert owner.life.phase is Phase.ENDED
    assert not owner.life.is_late(owner.now_s + LET_GO_S + 1)
    owner.fire(Event.LET_GO, Event.KEPT)
    assert owner.done == [Action.WITHDRAW, Action.TELL]


@pytest.mark.parametrize("phase", Phase)
def test_its_time_is_up_unless_it_is_about_to_be_named_or_ends_anyway(phase: Phase) -> None:
    life = Owner(phase).life
    life.check_time(10.0, 0.0)
    life.check_time(10.0, 11.0)
    if phase in ENDING or phase is Phase.NAMING:
        life.check_time(12.0, 11.0)
    else:
        with pytest.raises(TimedOut):
            life.check_time(12.0, 11.0)


@pytest.mark.parametrize("broken", [Action.WITHDRAW, Action.KEEP])
def test_an_action_that_raises_on_the_way_to_the_end_is_the_end(broken: Action) -> None:
    def fail() -> None:
        raise RuntimeError("a fault of ours")

    told: list[bool] = []
    actions = {action: lambda: None for action in Action} | {broken: fail, Action.TELL: lambda: told.append(True)}
    life = Lifecycle(actions, lambda: 1000.0)
    with contextlib.suppress(RuntimeError):
        life.stop()
        life.fire(Event.LET_GO)
    assert life.phase is Phase.ENDED
    assert told == [True]
