"""One download of aria2's without a network: it waits until that is back, and burns no try."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from rangefetch.logs import log as _log
from rangefetch.transfer.failure import Failure
from rangefetch.transfer.retry import Kind
from rangefetch.transfer.wording import as_error

if TYPE_CHECKING:
    from rangefetch.aria2.job import Job

__all__ = ["Offline"]

_LONGEST_LOOK_S = 10.0


class Offline:
    """The waiting of one download. All methods run on the backend's thread."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._since_s = 0.0  # since when there is none; 0: there is one, as far as is known

    def look(self, failure: Failure, again: Callable[[], None], otherwise: Callable[[], None]) -> None:
        """No server has answered, and the network may be why: ``again`` when that is back, else ``otherwise``.

        Raises the error that the failure is when it was waited for long enough.
        """
        kind = self._job.policy.classify(failure)
        if kind is Kind.NETWORK or (kind is Kind.TEMPORARY and not failure.status):
            self._look(failure, again, otherwise, told=kind is Kind.NETWORK)
        else:
            otherwise()

    def _look(self, failure: Failure, again: Callable[[], None], otherwise: Callable[[], None], *, told: bool) -> None:
        job = self._job
        began_s = job.now_s()

        def found(there: bool) -> None:
            was_away = self._since_s > 0
            if there:
                self._since_s = 0.0
                if was_away:
                    _log.warning("%s: the network is back", job.shown_url)
                    job.download.note = ""
                (again if was_away else otherwise)()
                return
            error = as_error(failure, job.shown_url)
            if not was_away:
                self._since_s = began_s
                _log.warning("%s: %s; waiting for the network", job.shown_url, error.reason)
                job.download.note = "waiting for the network"
            if self._left_s() <= 0:
                raise error
            # What was found absent once is there when somebody answers, and not before.
            following = functools.partial(self._look, failure, again, otherwise, told=True)
            job.wait_until(min(job.policy.network_check, self._left_s()), following, "the network")

        job.look_for_network(found, told=told or self._since_s > 0, within_s=min(_LONGEST_LOOK_S, self._left_s()))

    def _left_s(self) -> float:
        """For how long it is still to be waited for."""
        most_s = self._job.policy.network_wait
        if not (most_s and self._since_s):
            return _LONGEST_LOOK_S
        return max(0.0, self._since_s + most_s - self._job.now_s())
