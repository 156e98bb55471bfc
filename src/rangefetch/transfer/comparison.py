"""Fetches a few ranges of a source again, to compare them with bytes that are already on disk.

The engine fetches these samples like the ranges of any file, into an unnamed scratch file whose other blocks are marked
as done. So it checks the responses as always, and failures are classified by ``retry``. A comparison uses one source
and one connection, is limited in time and tries, and reports only after the engine has let go of the scratch file. If a
server cannot send ranges, a small file is fetched whole.
"""

from __future__ import annotations

import enum
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from rangefetch import records
from rangefetch.disk import system
from rangefetch.errors import DiskError, DownloadError, LocalError, TimedOut
from rangefetch.importing import no_fork
from rangefetch.masking import mask_url
from rangefetch.net.sources import MOST_RESOLVED_AGAIN
from rangefetch.transfer import governor
from rangefetch.transfer.events import EngineEvent, Traced
from rangefetch.transfer.failure import Failure
from rangefetch.transfer.retry import Kind
from rangefetch.transfer.samples import SAMPLE_BYTES, Sample, first_difference, missing_blocks
from rangefetch.transfer.wording import as_error

if TYPE_CHECKING:
    from rangefetch._engine import File, Profile
    from rangefetch.net.sources import Source
    from rangefetch.options import DownloadOptions
    from rangefetch.transfer.backend import EngineServices, Timer
    from rangefetch.transfer.workers import Outcome

__all__ = ["Comparison", "Comparisons", "Finding", "Question", "Verdict"]

_MOST_TRIES = 5
_SMALL_BYTES = 1 << 20  # the largest file that is fetched whole if its server cannot send ranges
_NO_TIMEOUT_S = 60.0  # if the options set no timeout for connecting or reading
_TRY_AGAIN = (Kind.TEMPORARY, Kind.DOUBTFUL, Kind.RATE_LIMITED, Kind.NETWORK, Kind.TOO_MANY_LANES)

R = TypeVar("R")


class Verdict(enum.Enum):
    """The result of a comparison."""

    SAME = "same"
    """All samples have the same bytes."""
    DIFFERENT = "different"
    """A sample, the size or a validator differs: it is another file."""
    UNKNOWN = "unknown"
    """The source gave no usable answer, or does not send ranges."""


class _Stage(enum.Enum):
    """The stages of a comparison."""

    PREPARING = "the files needed for its requests are being read"
    FETCHING = "the engine fetches the samples"
    TURNING = "the engine releases the file, and then fetches it whole"
    COMPARING = "a worker compares what arrived"
    LEAVING = "the engine releases the file, and then the finding is reported"
    TOLD = "the finding has been reported"


class _Step(enum.Enum):
    """The events that move a comparison between stages."""

    READY = "the scratch file is there, and the engine may fetch the samples"
    NO_RANGES = "the server does not send ranges of this file, which is small enough to be fetched whole"
    WHOLE = "the engine has released the file, and has fetched the samples"
    LET_GO = "the engine has released the file, and has not fetched all samples"
    COMPARED = "the worker has finished"
    STOP = "the finding is known, or the comparison was asked to end"


@records.dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of a comparison.

    ``reason`` is for the log. ``error`` is set if the comparison could not be made, and ``refused`` if the source
    refuses the file for good. ``validators`` are the ETag and Last-Modified of the response with the same bytes, empty
    if absent.
    """

    verdict: Verdict
    reason: str = ""
    error: DownloadError | None = None
    refused: bool = False
    validators: tuple[str, str] = ("", "")


@records.dataclass(frozen=True, slots=True)
class Question:
    """Which ``samples`` of a file of ``size`` bytes to compare with those of ``source``.

    ``etag`` and ``last_modified`` are the validators that the source's responses must have; both empty: those of its
    first response. ``limit`` is in bytes per second (0: none).
    """

    source: Source
    size: int
    samples: Sequence[Sample]
    etag: str = ""
    last_modified: str = ""
    limit: int = 0
    plain: bool = False
    """Compare nothing; only find out whether a request without a range is answered."""


class Comparison(Generic[R]):
    """One comparison. All methods run on the backend's thread; ``then`` is called once, as a step of the task."""

    def __init__(
        self,
        services: EngineServices[R],
        task: R,
        options: DownloadOptions,
        question: Question,
        then: Callable[[Finding], None],
    ) -> None:
        self.file: File | None = None
        self.trace: list[Traced] = []
        """For each transfer, the source's URL and the engine's trace of it."""
        self.retries = 0
        self._services = services
        self._task = task
        self._options = options
        self._question = question
        self._then = then
        self._fd = -1
        self._loop = 0
        self._stage = _Stage.PREPARING
        self._answered = False
        self._failed_at = ""  # the redirect target that failed last
        self._profile: Profile | None = None
        self._whole = False  # fetch the whole file, because its server cannot send ranges
        self._finding: Finding | None = None  # reported once nothing touches the scratch file
        self._timers: list[Timer] = []
        self._rests_left_s = services.policy.longest_retry_after
        """How much longer it may wait for its host's rests."""
        self._rested_s = 0.0  # rests since the last timeout check

    def begin(self) -> None:
        """Start; the engine waits if the source's host rests."""
        if not self._question.samples and not self._question.plain:
            self._end(Finding(Verdict.UNKNOWN, "there is nothing to compare"))
            return
        self._later(self._longest_s(), self._is_late)
        self._prepare()

    def stop(self) -> None:
        """End it soon, without a verdict."""
        self._end(Finding(Verdict.UNKNOWN, "it was stopped"))

    def handle(self, event: EngineEvent) -> None:
        """Handle an event of :attr:`file`."""
        if event.trace is not None:
            self.trace.append((self._question.source.url, event.trace))
        elif event.name in ("DONE", "REMOVED"):
            self._services.file_gone(event.file, self._loop)
            self._fire(_Step.WHOLE if event.name == "DONE" else _Step.LET_GO)
        elif self._stage is not _Stage.FETCHING:
            return
        elif event.name == "FAILED":
            self._failed(event)
        elif event.name == "ANSWERED":
            self._answered = True
            if self._question.plain:
                self._end(Finding(Verdict.SAME))

    # -- inside -------------------------------------------------------------------------------------------------

    def _fire(self, step: _Step) -> None:
        """Move to the stage that ``_TABLE`` gives for ``step``, and run the action that goes with it."""
        self._stage, action = _TABLE[self._stage][step]
        if action is not None:
            action(self)

    def _longest_s(self) -> float:
        options, question = self._options, self._question
        size = sum(len(sample.octets) for sample in question.samples)
        waits_s = options.connect_timeout + options.read_timeout or _NO_TIMEOUT_S
        return waits_s + (size / question.limit if question.limit else 0.0)

    def _later(self, delay_s: float, function: Callable[[], None]) -> None:
        self._timers.append(self._services.call_later(self._task, delay_s, function))

    def _prepare(self) -> None:
        # Reads files, hence on a worker.
        def prepare() -> Profile:
            return self._services.profile(self._options, self._question.source)

        self._services.work(self._task, prepare, self._prepared)

    def _prepared(self, outcome: Outcome[Profile]) -> None:
        if self._stage is _Stage.PREPARING:
            self._profile = outcome.result()
            self._open()

    def _open(self) -> None:
        """Make the scratch file, and the engine's file for it."""
        with no_fork:
            from rangefetch._engine import File

        assert self._profile is not None
        question = self._question
        try:
            self._fd = system.open_scratch()
        except OSError as error:
            words = f"a temporary file could not be made: {error.strerror or error}"
            self._end(Finding(Verdict.UNKNOWN, words, DiskError(words, errno=error.errno or 0)))
            return
        known: dict[str, Any] = {"pinned_size": question.size, "ranged": False}
        if question.plain:
            known["probe"] = True
        elif not self._whole:
            block_size, blocks, partial = missing_blocks(question.size, question.samples)
            known = {"size": question.size, "block_size": block_size, "blocks": blocks, "partial": partial}
        self.file = File(
            self._fd,
            question.source.url,
            self._profile,
            tag=self._task,
            lanes=1,
            source_lanes=1,
            host_lanes=self._options.max_connection_per_server,
            request_every_us=self._options.request_every_us,
            traced=bool(self._options.trace),
            first_bytes=SAMPLE_BYTES,
            limit=question.limit,
            allocation="none",
            etag=question.etag,
            last_modified=question.last_modified,
            name=self._options.filename,
            takes_codings=self._options.decode,
            **known,
        )
        self._fire(_Step.READY)

    def _fetch(self) -> None:
        assert self.file is not None
        self._loop = self._services.add_file(self.file)

    def _remove(self) -> None:
        assert self.file is not None
        self.file.remove()

    def _fetch_whole(self) -> None:
        self._whole = True
        self._close()
        self._open()

    def _compare(self) -> None:
        job = functools.partial(first_difference, self._fd, self._question.samples)
        self._services.work(self._task, job, self._compared)

    def _failed(self, event: EngineEvent) -> None:
        assert self.file is not None
        source = self._question.source
        if event.epoch < self.file.epoch(0):
            self.file.release()
            return
        redirected = bool(event.address) and event.address != source.url
        again = redirected and (event.address == self._failed_at or self.file.epoch(0) >= MOST_RESOLVED_AGAIN)
        failure = Failure.of(event, answered=self._answered, redirected=redirected, named_again=again)
        kind = self._services.policy.classify(failure)
        error = as_error(failure, mask_url(source.url))
        # DOUBTFUL is tried again, but in the end counts as permanent.
        refused = kind in (Kind.PERMANENT, Kind.DOUBTFUL)
        finding = Finding(Verdict.UNKNOWN, error.reason, error, refused=refused)
        self.retries += 1
        if kind is Kind.CHANGED:
            self._end(Finding(Verdict.DIFFERENT, error.reason))
        elif self._question.plain or self.retries >= min(_MOST_TRIES, self._options.max_tries or _MOST_TRIES):
            self._end(finding)
        elif kind is Kind.NO_RANGES and not self._whole and self._question.size <= _SMALL_BYTES:
            self._fire(_Step.NO_RANGES)
        elif kind is Kind.STALE_LINK:
            self._failed_at = event.address
            self.file.resolve_again(0)
            self.file.release()
        elif kind in _TRY_AGAIN:
            wait_s = self._services.policy.wait_s(self.retries, self._options.retry_wait, failure.retry_after_s)
            if wait_s >= self._longest_s():
                self._end(finding)
                return
            if kind is Kind.RATE_LIMITED:
                governor.rest(failure.host, wait_s)
                self._rested_s += wait_s
            self._later(wait_s, self.file.release)
        else:
            self._end(finding)

    def _is_late(self) -> None:
        """The time is up, unless part of it was spent waiting for a host that rests."""
        rest_s, self._rested_s = self._rested_s, 0.0
        if self.file is not None and self.file.waiting_for in ("rest", "host", "rate"):
            rest_s = max(rest_s, self._longest_s())
        rest_s = min(rest_s, self._rests_left_s)
        if rest_s > 0:
            self._rests_left_s -= rest_s
            self._later(rest_s, self._is_late)
            return
        words = f"the ranges did not arrive within {self._longest_s():.0f} seconds"
        self._end(Finding(Verdict.UNKNOWN, words, TimedOut(words, url=mask_url(self._question.source.url))))

    def _compared(self, outcome: Outcome[int]) -> None:
        if self._finding is None:
            try:
                different_at = outcome.result()
            except OSError as error:
                words = f"a temporary file could not be read: {error.strerror or error}"
                self._finding = Finding(Verdict.UNKNOWN, words, DiskError(words, errno=error.errno or 0))
            else:
                if different_at < 0:
                    assert self.file is not None
                    self._finding = Finding(Verdict.SAME, validators=self.file.validators(0))
                else:
                    self._finding = Finding(Verdict.DIFFERENT, f"its content differs, e.g. at byte {different_at}")
        self._fire(_Step.COMPARED)

    def _end(self, finding: Finding) -> None:
        """Set the outcome; it is reported once nothing touches the scratch file."""
        if self._finding is None:
            self._finding = finding
            self._fire(_Step.STOP)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _tell(self) -> None:
        self._close()
        for timer in self._timers:
            timer.cancel()
        if self._finding is None:
            # The engine ends a file by itself only if it cannot even report a failure.
            words = "the engine ran out of memory"
            self._finding = Finding(Verdict.UNKNOWN, words, LocalError(words))
        self._then(self._finding)


_Move = tuple[_Stage, Callable[[Comparison[Any]], None] | None]

_TABLE: Mapping[_Stage, Mapping[_Step, _Move]] = {
    _Stage.PREPARING: {
        _Step.READY: (_Stage.FETCHING, Comparison._fetch),
        _Step.STOP: (_Stage.TOLD, Comparison._tell),
    },
    _Stage.FETCHING: {
        _Step.WHOLE: (_Stage.COMPARING, Comparison._compare),
        _Step.LET_GO: (_Stage.TOLD, Comparison._tell),
        _Step.NO_RANGES: (_Stage.TURNING, Comparison._remove),
        _Step.STOP: (_Stage.LEAVING, Comparison._remove),
    },
    _Stage.TURNING: {
        _Step.LET_GO: (_Stage.PREPARING, Comparison._fetch_whole),
        _Step.WHOLE: (_Stage.PREPARING, Comparison._fetch_whole),
        _Step.STOP: (_Stage.LEAVING, None),
    },
    _Stage.COMPARING: {
        _Step.COMPARED: (_Stage.TOLD, Comparison._tell),
        _Step.STOP: (_Stage.COMPARING, None),  # the worker is reading the scratch file
    },
    _Stage.LEAVING: {
        _Step.LET_GO: (_Stage.TOLD, Comparison._tell),
        _Step.WHOLE: (_Stage.TOLD, Comparison._tell),
    },
    _Stage.TOLD: {},
}
"""For each stage and step: the next stage, and the action to take."""


class Comparisons(Generic[R]):
    """The comparisons that one task has under way."""

    def __init__(self, services: EngineServices[R], task: R) -> None:
        self.connections = 0
        """Connections opened by comparisons that have ended."""
        self.trace: list[Traced] = []
        """Traces of comparisons that have ended."""
        self._services = services
        self._task = task
        self._active: list[Comparison[R]] = []
        self._when_none: list[Callable[[], None]] = []

    def __len__(self) -> int:
        return len(self._active)

    @property
    def lanes_busy(self) -> int:
        """Transfers in flight."""
        return sum(each.file.lanes_busy for each in list(self._active) if each.file is not None)

    def begin(self, options: DownloadOptions, question: Question, then: Callable[[Finding], None]) -> None:
        """Start a comparison, and call ``then`` with its finding, unless :meth:`stop` was called meanwhile."""

        def told(finding: Finding) -> None:
            self._active.remove(comparison)
            if comparison.file is not None:
                self.connections += comparison.file.connections
            self.trace += comparison.trace
            if not self._when_none:
                then(finding)
            elif not self._active:
                waiting, self._when_none = self._when_none, []
                for go_on in waiting:
                    go_on()

        comparison = Comparison(self._services, self._task, options, question, told)
        self._active.append(comparison)
        comparison.begin()

    def handle(self, event: EngineEvent) -> bool:
        """Handle the event if it belongs to one of them; returns whether it did."""
        for each in self._active:
            if each.file is event.file:
                each.handle(event)
                return True
        return False

    def stop(self, then: Callable[[], None]) -> None:
        """End all without a verdict, and call ``then`` once the engine has let go of them."""
        if not self._active:
            then()
            return
        self._when_none.append(then)
        for each in list(self._active):
            each.stop()
