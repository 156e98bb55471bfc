"""Checks that all the bytes aria2 fetched are of one version of the file, which aria2 itself does not check."""

from __future__ import annotations

import functools
import os
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rangefetch.aria2.remote import difference
from rangefetch.disk.control_file import ControlFile
from rangefetch.disk.state import StateDamaged
from rangefetch.errors import BadAnswer, ContentChanged, DownloadError
from rangefetch.identity import must_compare_before_publishing
from rangefetch.net.sources import URL
from rangefetch.transfer import samples, saving
from rangefetch.transfer.comparison import Finding, Question, Verdict
from rangefetch.transfer.failure import Failure
from rangefetch.transfer.lifecycle import Event
from rangefetch.transfer.retry import AFTER_A_WAIT, Kind
from rangefetch.transfer.samples import SAMPLE_BYTES, Extent
from rangefetch.transfer.wording import as_error

if TYPE_CHECKING:
    from rangefetch.aria2.file import FileTask

__all__ = ["Comparing"]

_PARTS = 16
_TRIES = 4
_TRY_AGAIN = AFTER_A_WAIT | {Kind.NETWORK}


class Comparing:
    """The comparisons of one file. Methods run on the backend's thread, except where they say otherwise."""

    def __init__(self, task: FileTask) -> None:
        self.size = 0
        """The number of bytes received, once it has been measured."""
        self.proved = False
        """Whether samples of the received bytes were fetched again and were the same."""
        self._task = task

    def begin(self) -> None:
        """Check the complete file. aria2 compares no validators between its requests, so ask the server whether its
        file is still the same and, where validators do not tell, fetch some samples again."""
        task = self._task
        remote = task.remote
        # After a restart one response is enough: it is one version, and a file that keeps changing would never compare
        # equal.
        is_one = task.responses == 1 and task.tries.restarted
        if remote is None or not remote.size or task.options.checksum or not task.responses or is_one:
            self._compare_last()
        else:
            task.ask_sources(functools.partial(task.meet_again, self._compare_last))

    def _compare_last(self) -> None:
        """Fetch samples of the received bytes again, if they may be of several versions."""
        task = self._task
        remote = task.remote

        def compared(finding: Finding) -> None:
            if finding.verdict is Verdict.DIFFERENT:
                task.has_changed(f"the remote file differs from the downloaded data: {finding.reason}")
            elif isinstance(finding.error, BadAnswer):
                task.tried_in_vain(finding.error, Kind.NO_RANGES, self._compare_last)
            elif finding.error is not None:
                raise finding.error
            else:
                self.proved |= finding.verdict is Verdict.SAME and task.sources[URL].given_url in task.met
                self._measure()

        if (
            remote is not None
            and remote.ranged
            and not task.options.checksum
            and (
                remote.names_mirrors
                or must_compare_before_publishing(remote.identity, responses=task.responses, checksum=False)
            )
        ):
            self.compare(_spread(remote.size, random.SystemRandom()), remote.size, compared)
        else:
            self._measure()

    def _measure(self) -> None:
        """Check that the file is as long as the server or the caller said."""
        task = self._task

        def measured(size: int) -> None:
            self.size = size
            expected, remote = task.options.expected_size, task.remote
            if expected not in (0, size):
                task.reject(ContentChanged(f"received {size} bytes, not {expected}"))
            elif remote is not None and remote.size not in (-1, size):
                task.has_changed(f"received {size} bytes, but the server announced {remote.size}")
            else:
                if remote is None:
                    task.answering.answered, task.answering.resolved_url = True, task.answering.url
                task.life.fire(Event.AGREED)

        task.do(lambda: os.fstat(task.opened.fd).st_size, measured)

    def compare(self, places: Sequence[Sequence[Extent]], size: int, then: Callable[[Finding], None]) -> None:
        """Compare bytes on disk with those of the source that is answering, whose file has ``size`` bytes."""
        task = self._task
        source = task.answering

        def read(found: list[samples.Sample]) -> None:
            self.ask_ranges(Question(source, size, found), then)

        task.do(lambda: samples.read(task.opened.fd, places), read)

    def ask_ranges(self, question: Question, then: Callable[[Finding], None]) -> None:
        """Fetch some ranges of a source again, compare them, and pass the finding to ``then``."""
        task = self._task
        source, options, met = question.source, task.options, task.met.get(question.source.given_url)
        if not question.samples:
            then(Finding(Verdict.UNKNOWN, "there is nothing to compare"))
            return
        if met is not None and not met.ranged:
            then(Finding(Verdict.UNKNOWN, "the server sends no ranges", BadAnswer("the server sends no ranges")))
            return

        def unanswered(failure: Failure) -> None:
            kind, error = task.policy.classify(failure), as_error(failure, task.shown_url)
            try:
                if kind not in _TRY_AGAIN:
                    raise error
                task.tried_in_vain(error, kind, lambda: self.ask_ranges(question, then), failure)
            except DownloadError:
                then(Finding(Verdict.UNKNOWN, error.reason, error))

        def answered(differs: str) -> None:
            then(Finding(Verdict.DIFFERENT if differs else Verdict.SAME, differs))

        task.inquire(lambda: difference(source, options, question.size, question.samples), answered, unanswered)

    def written_extents(self) -> list[Extent]:
        """The extents that are on disk according to aria2's control file. May be called from any thread."""
        try:
            octets = saving.read_control(self._task.opened)
            return list(ControlFile.parse(octets).extents()) if octets is not None else []
        except StateDamaged:
            return []

    @staticmethod
    def places(size: int, extents: Sequence[Extent]) -> list[list[Extent]]:
        """Where to take samples of a file of ``size`` bytes of which these extents are on disk."""
        return samples.choose(size, extents, random.SystemRandom()) if size > 0 else []


def _spread(size: int, chance: random.Random) -> list[list[Extent]]:
    """Places for samples all over the file: aria2 does not tell which part came when, or in which response."""
    count = min(_PARTS, -(-size // SAMPLE_BYTES))
    places = []
    for number in range(count):
        first, end = size * number // count, size * (number + 1) // count
        starts = [chance.randint(first, max(first, end - SAMPLE_BYTES)) for _ in range(_TRIES)]
        places.append([(start, min(start + SAMPLE_BYTES, end)) for start in starts])
    return places
