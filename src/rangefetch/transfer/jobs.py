"""Jobs of one task that may take long, run one at a time on a worker."""

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
    """A queue of jobs. ``work`` runs a job on a worker, and then the step that follows it."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._current: _Job | None = None
        self._waiting: deque[_Job] = deque()

    @property
    def busy(self) -> bool:
        """Whether a job is running, or about to."""
        return self._current is not None

    @property
    def what(self) -> str:
        """What the running job does, in words; empty if there is none."""
        return self._current.what if self._current is not None else ""

    def do(
        self,
        job: Callable[[], Any],
        then: Callable[[Any], None],
        *,
        what: str = "the disk",
        failed: Callable[[BaseException], None] | None = None,
    ) -> None:
        """Run ``job`` after those before it, then call ``then`` with its result.

        If it raises, the exception is passed to ``failed``, or raised where ``then`` would have been called.
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
