"""Waits for the network to come back, without using up tries."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rangefetch.errors import DownloadError
from rangefetch.logs import log as _log
from rangefetch.transfer.failure import Failure
from rangefetch.transfer.retry import Kind

if TYPE_CHECKING:
    from rangefetch.transfer.task import Task
    from rangefetch.transfer.workers import Outcome

__all__ = ["Offline"]


class Offline:
    """One download's wait for the network. All methods run on the backend's thread, except ``waits_for``."""

    def __init__(self, task: Task[Any]) -> None:
        self._task = task
        self._waiting: object | None = None  # identifies the current wait
        self._is_away = False  # there was found to be no network

    @property
    def waits_for(self) -> str:
        """What it waits for, in words; empty if it does not wait."""
        return "" if self._waiting is None else "the network"

    @staticmethod
    def may_be_why(failure: Failure, kind: Kind) -> bool:
        """Whether such a failure may be due to there being no network."""
        is_silence = not (failure.status or failure.other_lanes or failure.received_bytes)
        return kind is Kind.NETWORK or (kind is Kind.TEMPORARY and is_silence)

    def look(
        self, error: DownloadError, again: Callable[[], None], otherwise: Callable[[], None], *, told: bool
    ) -> None:
        """Check for a network. If there is one, call ``otherwise``; if not, call ``again`` once it is back.

        ``told``: the system says that there is none. After ``RetryPolicy.network_wait`` seconds ``error`` is raised.
        """
        task, policy = self._task, self._task.policy
        began_s = task.now_s()  # the check takes seconds too
        waiting = self._waiting = object()
        urls = [task.options.proxy] if task.options.proxy else [source.url for source in task.sources]
        network = task.backend.network

        def ask() -> None:
            if self._waiting is waiting:
                # Once the network was found absent, only an answer proves that it is back.
                is_told = told or self._is_away
                task.backend.look(task, lambda: network.is_there(urls, told=is_told), known)

        def known(outcome: Outcome[bool]) -> None:
            if self._waiting is not waiting:
                return
            if outcome.result():
                was_away = self._is_away
                if was_away:
                    say = _log.warning if network.note_back() else _log.info
                    say("%s: the network is back", task.shown_url)
                self.stop()
                (again if was_away else otherwise)()
                return
            if not self._is_away:
                self._is_away = True
                say = _log.warning if network.note_lost() else _log.info
                say("%s: %s; waiting for the network", task.shown_url, error.reason)
                task.download.note = "waiting for the network"
                if policy.network_wait:
                    task.call_later(max(0.0, began_s + policy.network_wait - task.now_s()), give_up)
            task.call_later(policy.network_check, ask)

        def give_up() -> None:
            if self._waiting is waiting:
                self.stop()
                raise error

        ask()

    def stop(self) -> None:
        """Stop waiting: the network is back, or the download continues in another way, or ends."""
        self._waiting = None
        if self._is_away:
            self._is_away = False
            self._task.backend.network.note_left()
            self._task.download.note = ""
