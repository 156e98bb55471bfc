"""A state machine for one download at a backend, from opening its files to the end.

For each phase, ``TABLE`` lists the events that may happen, and for each event the next phase and the action to take. An
event that is not listed is refused. Each backend supplies its own actions. Pure: the caller passes in the clock.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping

from rangefetch.errors import DownloadError, TimedOut

__all__ = ["AT_WORK", "ENDING", "LET_GO_S", "TABLE", "Action", "Event", "Lifecycle", "Phase"]

LET_GO_S = 120.0
"""How long a download that is ending waits for its disk, or for its backend to stop writing."""


class Phase(enum.Enum):
    """The phases of a download."""

    PLACING = "it takes its place on disk, and examines what is there"
    ASKING = "it asks the server about the file, before anything is fetched"
    FETCHING = "bytes arrive; the first response will tell whether they are worth saving"
    FILLING = "bytes arrive that are worth saving"
    ARRIVED = "every byte has arrived, but the first response has not been dealt with"
    COMPARING = "every byte is there; are they all of one version of the file, and of the requested one?"
    PROVING = "they are; do they have the right checksum?"
    NAMING = "it gets its final name, and nothing may interrupt that"
    TURNING = "the backend releases the file, and then the download continues in another way"
    STOPPING = "the backend releases the file, and then the received data is saved"
    DROPPING = "the backend releases the file; the received data is not worth saving"
    KEEPING = "what can be resumed is saved"
    CLEARING = "what cannot be resumed is removed"
    ENDED = "the outcome is reported"


class Event(enum.Enum):
    """The events that move a download between phases."""

    ASK = "the server is to be asked first"
    FETCH = "the bytes are to be fetched"
    SETTLED = "the first response has been dealt with, and is in order"
    WHOLE = "the last byte has arrived, and the backend has released the file"
    TURN = "it has to continue in another way"
    AGREED = "it is one version of the file, and the right one"
    NAME = "everything is verified"
    NAMED = "it has its final name"
    STOP = "it was asked to end"
    FAIL = "it cannot continue"
    REJECT = "it cannot continue, and the received data is wrong"
    LET_GO = "the backend has released the file"
    KEPT = "only what should stay is left on disk"
    ABANDON = "nothing waits for it any longer"


class Action(enum.Enum):
    """What the backend has to do after an event."""

    NOTHING = "nothing"
    WITHDRAW = "have the backend release the file"
    GO_ON = "do what the file was released for"
    COMPARE = "check whether the bytes are all of one version of the file"
    PROVE = "compute the rest of the checksum, and name the file"
    KEEP = "save what can be resumed and remove the rest"
    TELL = "report the outcome"


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
"""Moves out of a phase in which nothing received is known to be worth saving."""
_SAVED = {**_UNSAVED, **_all(_TO_STOPPING, Event.STOP, Event.FAIL)}
"""Moves out of a phase in which the received bytes are worth saving."""

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
    # An abandoned download may still receive the events it was waiting for.
    Phase.ENDED: _all(
        (Phase.ENDED, _NO),
        *(Event.SETTLED, Event.LET_GO, Event.KEPT, Event.STOP, Event.FAIL, Event.REJECT, Event.ABANDON),
    ),
}
"""For each phase and event: the next phase, and the action to take."""

AT_WORK = frozenset({Phase.ASKING, Phase.FETCHING, Phase.FILLING})
"""Phases in which the backend fetches."""
ENDING = frozenset({Phase.STOPPING, Phase.DROPPING, Phase.KEEPING, Phase.CLEARING, Phase.ENDED})
"""Phases from which a download can only end."""


class Lifecycle:
    """The current phase of one download, and its error if it has failed.

    Used on the backend's thread only, except where noted.
    """

    def __init__(self, actions: Mapping[Action, Callable[[], None]], now_s: Callable[[], float]) -> None:
        self.phase = Phase.PLACING
        self.error: DownloadError | None = None
        """Why the download ended; None if it was stopped on request."""
        self._actions = actions
        self._now_s = now_s
        self._ending_since_s = 0.0

    @property
    def is_ending(self) -> bool:
        """Whether the download can only end from here; callable from any thread."""
        return self.phase in ENDING

    def fire(self, event: Event) -> None:
        """Move to the phase that ``TABLE`` gives for ``event``, and run the action that goes with it.

        Raises ``ValueError``, and changes nothing, if the event cannot happen in this phase.
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
            # A download that is ending gets no further event to finish it, so finish it here.
            if self.is_ending:
                self.abandon()
            raise

    def stop(self) -> None:
        """End the download on request. A file that is already being named still gets its name."""
        self._note_end()
        self.fire(Event.STOP)

    def fail(self, error: DownloadError, *, wrong: bool = False) -> bool:
        """End the download with ``error``; ``wrong`` means that the received data is useless.

        Returns False if the download was already ending for another reason.
        """
        is_new = not self.is_ending
        if is_new:
            self.error = error
        self._note_end()
        self.fire(Event.REJECT if wrong else Event.FAIL)
        return is_new

    def abandon(self, error: DownloadError | None = None) -> None:
        """End the download at once, without waiting for pending work."""
        self.error = self.error or error
        self.fire(Event.ABANDON)

    def is_late(self, now_s: float) -> bool:
        """Whether the download has been ending for longer than ``LET_GO_S``."""
        return self.phase is not Phase.ENDED and 0 < self._ending_since_s < now_s - LET_GO_S

    def check_time(self, elapsed_s: float, most_s: float) -> None:
        """Raise ``TimedOut`` if the download has run for longer than ``most_s`` (0: no limit)."""
        if 0 < most_s < elapsed_s and self.phase is not Phase.NAMING and not self.is_ending:
            raise TimedOut(f"not finished after {most_s:g} seconds (total_timeout)")

    def _note_end(self) -> None:
        self._ending_since_s = self._ending_since_s or self._now_s()
