"""The life of one download at a backend, from taking its place on disk to the end: a table, and what goes through it.

``TABLE`` says for each phase what may happen, which phase follows, and what is to be done then. What it does not list
cannot happen, and is refused. A backend owns what differs: how it carries out the actions. Pure: the clock is handed
over.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping

from rangefetch.errors import DownloadError, TimedOut

__all__ = ["AT_WORK", "ENDING", "LET_GO_S", "TABLE", "Action", "Event", "Lifecycle", "Phase"]

LET_GO_S = 120.0
"""How long a download that is to end waits for its disk, or for its backend's writes to it."""


class Phase(enum.Enum):
    """What is going on with a download."""

    PLACING = "its place on disk is taken, and what is there is looked at"
    ASKING = "the server is asked what there is, before anything is fetched"
    FETCHING = "bytes come; whether they are worth saving, the first response will tell"
    FILLING = "bytes come, and are worth saving"
    ARRIVED = "every byte has come, but the first response has not been dealt with"
    COMPARING = "every byte is there: are they one version of the file, and the one that was asked for?"
    PROVING = "they are, and have the right checksum"
    NAMING = "it gets its final name, and nothing may come between"
    TURNING = "the backend lets go of it, and then it goes on in another way"
    STOPPING = "the backend lets go of it, and then what came is saved"
    DROPPING = "the backend lets go of it, and what came is not worth saving"
    KEEPING = "what can be continued is saved"
    CLEARING = "what cannot be continued is removed"
    ENDED = "the outcome is told"


class Event(enum.Enum):
    """What may happen."""

    ASK = "the server is to be asked first"
    FETCH = "the bytes are to be fetched"
    SETTLED = "the first response was dealt with, and it is in order"
    WHOLE = "the last byte has come, and the backend has let go"
    TURN = "it cannot go on like this"
    AGREED = "it is one version of the file, and the right one"
    NAME = "all is proven"
    NAMED = "it has its name"
    STOP = "somebody wants it to end"
    FAIL = "it cannot go on"
    REJECT = "it cannot go on, and what came is wrong"
    LET_GO = "the backend has let go"
    KEPT = "what is left on disk is what shall be"
    ABANDON = "nobody waits for it any longer"


class Action(enum.Enum):
    """What is to be done."""

    NOTHING = "nothing"
    WITHDRAW = "have the backend let go"
    GO_ON = "do what it was withdrawn for"
    COMPARE = "see whether the bytes are one version of the file"
    PROVE = "compute what is left of the checksum, and name the file"
    KEEP = "save what can be continued and remove the rest"
    TELL = "tell the outcome"


_NO = Action.NOTHING
_TO_TURNING = (Phase.TURNING, Action.WITHDRAW)
_TO_STOPPING = (Phase.STOPPING, Action.WITHDRAW)
_TO_DROPPING = (Phase.DROPPING, Action.WITHDRAW)
_TO_ENDED = (Phase.ENDED, Action.TELL)


def _all(move: tuple[Phase, Action], *events: Event) -> dict[Event, tuple[Phase, Action]]:
    return dict.fromkeys(events, move)


_ABANDONED = _all(_TO_ENDED, Event.ABANDON)
_UNSAVED = {
    Event.TURN: _TO_TURNING,
    **_all(_TO_DROPPING, Event.STOP, Event.FAIL, Event.REJECT),
    **_ABANDONED,
}
"""How a phase is left in which nothing that came is known to be worth saving."""
_SAVED = {**_UNSAVED, **_all(_TO_STOPPING, Event.STOP, Event.FAIL)}
"""... and one in which it is."""

TABLE: Mapping[Phase, Mapping[Event, tuple[Phase, Action]]] = {
    Phase.PLACING: {
        Event.ASK: (Phase.ASKING, _NO),
        Event.FETCH: (Phase.FETCHING, _NO),
        Event.NAME: (Phase.NAMING, _NO),
        **_UNSAVED,
    },
    Phase.ASKING: _UNSAVED,
    Phase.FETCHING: {
        Event.SETTLED: (Phase.FILLING, _NO),
        Event.WHOLE: (Phase.ARRIVED, _NO),
        **_UNSAVED,
    },
    Phase.FILLING: {Event.WHOLE: (Phase.COMPARING, Action.COMPARE), **_SAVED},
    Phase.ARRIVED: {Event.SETTLED: (Phase.COMPARING, Action.COMPARE), **_UNSAVED},
    Phase.COMPARING: {Event.AGREED: (Phase.PROVING, Action.PROVE), **_SAVED},
    Phase.PROVING: {Event.NAME: (Phase.NAMING, _NO), **_SAVED},
    Phase.NAMING: {
        Event.NAMED: _TO_ENDED,
        Event.STOP: (Phase.NAMING, _NO),
        Event.FAIL: _TO_STOPPING,
        Event.REJECT: _TO_DROPPING,
        **_ABANDONED,
    },
    Phase.TURNING: {
        Event.LET_GO: (Phase.PLACING, Action.GO_ON),
        Event.TURN: (Phase.TURNING, _NO),
        **_all((Phase.DROPPING, _NO), Event.STOP, Event.FAIL, Event.REJECT),
        **_ABANDONED,
    },
    Phase.STOPPING: {
        Event.LET_GO: (Phase.KEEPING, Action.KEEP),
        Event.REJECT: (Phase.DROPPING, _NO),
        **_all((Phase.STOPPING, _NO), Event.STOP, Event.FAIL),
        **_ABANDONED,
    },
    Phase.DROPPING: {
        Event.LET_GO: (Phase.CLEARING, Action.KEEP),
        Event.SETTLED: (Phase.STOPPING, _NO),
        **_all((Phase.DROPPING, _NO), Event.STOP, Event.FAIL, Event.REJECT),
        **_ABANDONED,
    },
    Phase.KEEPING: {
        Event.KEPT: _TO_ENDED,
        **_all((Phase.KEEPING, _NO), Event.STOP, Event.FAIL, Event.REJECT),
        **_ABANDONED,
    },
    Phase.CLEARING: {
        Event.KEPT: _TO_ENDED,
        Event.SETTLED: (Phase.KEEPING, _NO),
        **_all((Phase.CLEARING, _NO), Event.STOP, Event.FAIL, Event.REJECT),
        **_ABANDONED,
    },
    # What an abandoned download was waiting for may still come.
    Phase.ENDED: _all(
        (Phase.ENDED, _NO),
        *(Event.SETTLED, Event.LET_GO, Event.KEPT, Event.STOP, Event.FAIL, Event.REJECT, Event.ABANDON),
    ),
}
"""From each phase and what happens in it: the phase that follows, and what is to be done."""

AT_WORK = frozenset({Phase.ASKING, Phase.FETCHING, Phase.FILLING})
"""The backend fetches."""
ENDING = frozenset({Phase.STOPPING, Phase.DROPPING, Phase.KEEPING, Phase.CLEARING, Phase.ENDED})
"""From here on nothing but the end follows."""


class Lifecycle:
    """Where one download is in the table, and what is to become of it. On its backend's thread, but for reading."""

    def __init__(self, actions: Mapping[Action, Callable[[], None]], now_s: Callable[[], float]) -> None:
        self.phase = Phase.PLACING
        self.error: DownloadError | None = None
        """Why it ends, unless somebody wanted that."""
        self._actions = actions
        self._now_s = now_s
        self._ending_since_s = 0.0

    @property
    def is_ending(self) -> bool:
        """Whether nothing but the end follows; from any thread."""
        return self.phase in ENDING

    def fire(self, event: Event) -> None:
        """Something has happened: go where the table says, and do what is to be done there.

        Raises ``ValueError`` for what cannot happen in this phase; then nothing has changed.
        """
        move = TABLE[self.phase].get(event)
        if move is None:
            raise ValueError(f"{event.name} cannot happen while {self.phase.name}")
        self.phase, action = move
        if action is Action.NOTHING:
            return
        try:
            self._actions[action]()
        except BaseException:
            # On the way to the end nothing else would bring that about.
            if self.is_ending:
                self.abandon()
            raise

    def stop(self) -> None:
        """Somebody wants it to end. What is about to get its name still gets it."""
        self._note_end()
        self.fire(Event.STOP)

    def fail(self, error: DownloadError, *, wrong: bool = False) -> bool:
        """It cannot go on; ``wrong``: what came is of no use. False: it was ending anyway, and not because of this."""
        is_new = not self.is_ending
        if is_new:
            self.error = error
        self._note_end()
        self.fire(Event.REJECT if wrong else Event.FAIL)
        return is_new

    def abandon(self, error: DownloadError | None = None) -> None:
        """End it at once, whatever is still going on."""
        self.error = self.error or error
        self.fire(Event.ABANDON)

    def is_late(self, now_s: float) -> bool:
        """Whether it should have ended long ago."""
        return self.phase is not Phase.ENDED and 0 < self._ending_since_s < now_s - LET_GO_S

    def check_time(self, elapsed_s: float, most_s: float) -> None:
        """Raises ``TimedOut`` where it takes longer than it may (``most_s`` 0: it may take as long as it wants)."""
        if 0 < most_s < elapsed_s and self.phase is not Phase.NAMING and not self.is_ending:
            raise TimedOut(f"not finished after {most_s:g} seconds (total_timeout)")

    def _note_end(self) -> None:
        self._ending_since_s = self._ending_since_s or self._now_s()
