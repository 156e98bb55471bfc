"""What may take long for a task, one thing after the other on a worker."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rangefetch import records

if TYPE_CHECKING:
    from rangefetch.transfer.workers import Outcome

    Work = Callable[[Callable[[], Any], Callable[[Outcome[Any]], None]], None]

__all__ = ["Jobs"]


@records.dataclass(frozen=True, slots=True)
class _Job:
    what: str
    job: Callable[[], Any]
    then: Callable[[Any], None]
    failed: Callable[[BaseException], None] | None


class Jobs:
    """A queue of jobs, each with the step that follows it. ``work`` does one on a worker, and then its step."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._current: _Job | None = None
        self._waiting: deque[_Job] = deque()

    @property
    def busy(self) -> bool:
        """Whether a worker is at a job, or is about to be."""
        return self._current is not None

    @property
    def what(self) -> str:
        """What a worker is at, in words; empty: nothing."""
        return self._current.what if self._current is not None else ""

    def do(
        self,
        job: Callable[[], Any],
        then: Callable[[Any], None],
        *,
        what: str = "the disk",
        failed: Callable[[BaseException], None] | None = None,
    ) -> None:
        """Do ``job`` when those before it are done, and then call ``then`` with what it returned.

        What it raised goes to ``failed``; without that it is raised where ``then`` would have been called.
        """
        self._waiting.append(_Job(what, job, then, failed))
        self._next()

    def _next(self) -> None:
        if self._current is not None or not self._waiting:
            return
        current = self._current = self._waiting.popleft()

        def done(outcome: Outcome[Any]) -> None:
            self._current = None
            try:
                error = outcome.exception()
                if error is None:
                    current.then(outcome.result())
                elif current.failed is not None:
                    current.failed(error)
                else:
                    raise error
            finally:
                self._next()

        self._work(current.job, done)
