"""Chooses the mirrors that aria2 is given: it mixes bytes from all of them, so each must first be seen to have the same
bytes."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

from rangefetch.aria2.remote import Remote, Resting, Unanswered, ask, difference, is_http
from rangefetch.logs import log as _log
from rangefetch.masking import mask_url
from rangefetch.transfer import governor, samples
from rangefetch.transfer.lifecycle import Phase
from rangefetch.transfer.retry import Kind

if TYPE_CHECKING:
    from rangefetch.aria2.file import FileTask
    from rangefetch.net.sources import Source
    from rangefetch.transfer.workers import Outcome

__all__ = ["Mirroring"]

_EVERY_S = 0.5
_TRIES = 3


class Mirroring:
    """The mirrors of one file. Methods run on the backend's thread, except those that are handed to another."""

    def __init__(self, task: FileTask) -> None:
        self._task = task
        self._next_s = 0.0

    def is_checked(self, source: Source) -> bool:
        """Whether the source has been compared, or cannot be because it does not speak HTTP."""
        return source.given_url in self._task.met or not is_http(source.url)

    def look(self, now_s: float) -> None:
        """Called regularly while aria2 fetches: compare the next mirror with the bytes on disk."""
        task = self._task
        remote, mirror = task.remote, self._unchecked()
        if now_s < self._next_s or remote is None or mirror is None:
            return
        self._next_s = math.inf

        def checked(outcome: Outcome[tuple[Remote, str] | None]) -> None:
            self._next_s = task.now_s() + _EVERY_S
            try:
                answer = outcome.result()
            except Resting as rest:
                self._next_s = task.now_s() + rest.seconds
            except Unanswered as nothing:
                self._note_failure(mirror, nothing)
            else:
                if answer is not None and task.life.phase is Phase.FILLING:
                    self._note(mirror, *answer)

        task.backend.look(task, lambda: self._compare(mirror, remote.size), checked)

    def _unchecked(self) -> Source | None:
        """The next mirror that has not been compared; None if there is none, or it cannot be compared."""
        task = self._task
        if task.remote is None or task.remote.size <= 0 or not task.remote.ranged:
            return None
        others = (each for each in task.sources.usable() if each is not task.answering and not self.is_checked(each))
        return next(others, None)

    def _compare(self, mirror: Source, size: int) -> tuple[Remote, str] | None:
        """The mirror's description of its file, and how its bytes differ; None while there are no bytes to compare.

        Runs on another thread while aria2 writes. Raises ``Unanswered``.
        """
        task = self._task
        with os.fdopen(os.dup(task.opened.fd), "rb") as part:  # the original may be closed meanwhile
            found = samples.read(part.fileno(), task.comparing.places(size, task.comparing.written_extents()))
        if not found:
            return None
        return ask(mirror, task.options), difference(mirror, task.options, size, found)

    def _note(self, mirror: Source, theirs: Remote, differs: str) -> None:
        """The mirror was compared; ``differs`` says how it differs, "" if it does not."""
        task = self._task
        if differs:
            task.leave_out(mirror, differs, task.tell_change)
            return
        task.met[mirror.given_url] = theirs
        mirror.answered = True
        mirror.resolved_url = theirs.url
        task.tell_change()

    def _note_failure(self, mirror: Source, nothing: Unanswered) -> None:
        """The mirror gave no answer."""
        task, failure = self._task, nothing.failure
        _log.info("%s: the mirror %s: %s", task.shown_url, mask_url(mirror.url), nothing)
        kind = task.policy.classify(failure)
        if kind is Kind.RATE_LIMITED:
            governor.rest(failure.host, task.policy.wait_s(1, task.options.retry_wait, failure.retry_after_s))
        mirror.failures += 1
        mirror.banned = kind is Kind.PERMANENT or mirror.failures >= _TRIES
