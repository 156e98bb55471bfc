"""Which mirrors take part in a download: those that were found to have its bytes.

What a server says of its file (size, ETag, date) tells nothing about another server's. So a mirror contributes nothing
before blocks that are in the file, chosen at random, were fetched from it and compared; and what it has contributed is
compared with the URL before the file gets its name (``comparing``). Where the URL itself does not
answer and nothing is there to compare, a mirror stands in for it, and the others are compared with what that brings.
"""

from __future__ import annotations

import functools
import random
from typing import TYPE_CHECKING

from rangefetch.errors import ContentChanged, DownloadError, NetworkError, SourceError
from rangefetch.logs import log as _log
from rangefetch.masking import mask_url
from rangefetch.net.sources import URL, Source
from rangefetch.transfer.comparison import Finding, Verdict
from rangefetch.transfer.samples import HEAD_BYTES, Span, choose

if TYPE_CHECKING:
    from rangefetch.native.run import Run

__all__ = ["Mirroring"]

_AT_ONCE = 4  # mirrors that are compared at the same time
_SILENCE_S = 1.0  # how long the URL may fail to answer before a mirror stands in for it


class Mirroring:
    """The mirrors of one run. All methods run on the backend's thread."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._compared: list[Source] = []  # now
        self._error: DownloadError | None = None  # what ends the download if no mirror joins
        self._silent_since_s = 0.0
        self.url_given_up = False
        """The URL refuses the file for good, or its tries are used up: it is not asked whether the mirrors have it."""

    def restart(self) -> None:
        """The file is begun again: what mirrors were compared with is gone."""
        self._compared.clear()
        self._run.sources.part()

    def reserved_lanes(self) -> int:
        """How many of the download's transfers are kept free for comparisons."""
        return 1 if self._run.sources.waiting else 0

    def look(self) -> None:
        """From time to time: compare mirrors that wait, as soon as there is something to compare them with."""
        run = self._run
        if not run.sources.waiting or not run.is_filling:
            return
        file = run.file
        if file.answered or file.downloaded:
            self._silent_since_s = 0.0
            self._compare()
        elif run.recovery.is_failing:
            self._silent_since_s = self._silent_since_s or run.now_s()
            if run.now_s() - self._silent_since_s >= _SILENCE_S:
                self._silent_since_s = 0.0
                self._stand_in("the URL does not answer")

    def take_over(self, error: DownloadError) -> bool:
        """Whether mirrors may save the download that ``error`` would end, since no source at work can.

        It ends with that error if none of them joins.
        """
        run = self._run
        if not run.sources.waiting or not isinstance(error, NetworkError | SourceError):
            return False
        if isinstance(error, ContentChanged):
            return False
        if run.starting.compares_saved:
            self.url_given_up = True
            self._error = error
            run.starting.resume_from_mirrors()
            return True
        if run.placing.earlier is not None:
            # Whether that is of the URL's file is not to be known any more.
            self.url_given_up = run.sources[URL].banned = True
            run.begin_again()
            return True
        if not run.is_filling:
            return False
        if run.answering.one_source and not run.answering.may_start_over:
            return False
        self.url_given_up = True
        for number, source in enumerate(run.sources):
            source.banned = True
            run.file.ban(number)
        self._error = error
        if not run.file.downloaded:
            self._stand_in(error.reason)
        elif not self._compare() and not self._compared:
            # Less came than can be compared.
            if not run.answering.may_start_over:
                return False
            _log.warning("%s: %s; starting over with a mirror", run.shown_url, error.reason)
            self._error = None
            run.begin_again()
        return True

    def stand_in(self) -> None:
        """A file is about to begin without a source that may be asked, and without bytes to compare mirrors with: have
        the next mirror be one."""
        sources = self._run.sources
        if not sources.usable() and sources.waiting and self._run.saved is None:
            sources.join(sources.waiting[0])

    # -- inside -------------------------------------------------------------------------------------------------

    def _stand_in(self, reason: str) -> None:
        run = self._run
        source = run.sources.waiting[0]
        _log.warning("%s: %s; fetching from %s", run.shown_url, reason, mask_url(source.url))
        for number, each in enumerate(run.sources):
            each.banned = True
            run.file.ban(number)
        self._join(source)

    def _join(self, source: Source, validators: tuple[str, str] | None = None) -> None:
        self._error = None
        self._run.sourcing.use_source(source, validators)

    def _compare(self) -> bool:
        """Begin to compare mirrors that wait. False: there is nothing yet to compare them with."""
        run = self._run
        spans = self._spans()
        if not spans:
            return False
        for source in run.sources.waiting:
            if len(self._compared) >= _AT_ONCE or not self._has_lane():
                break
            if source not in self._compared:
                self._compared.append(source)
                found = functools.partial(self._found, source)
                validators = run.answering.validators_of_mirrors
                run.sourcing.compare(source, spans, found, size=run.file.size, validators=validators)
        return True

    def _has_lane(self) -> bool:
        run = self._run
        busy = run.file.lanes_busy
        return not busy or busy + len(self._compared) < run.options.split

    def _spans(self) -> list[Span]:
        """What of the file may be compared: while it is being fetched, only what lies beyond its head."""
        run = self._run
        file = run.file
        spans = run.sourcing.written_spans()
        places = choose(file.size, spans, random.Random(0))
        if not places or (file.lanes_busy and places[0][0][0] < HEAD_BYTES):
            return []
        return spans

    def _found(self, source: Source, finding: Finding) -> None:
        run = self._run
        shown = mask_url(source.url)
        if finding.verdict is Verdict.SAME:
            _log.debug("%s: %s has the same bytes", run.shown_url, shown)
            # It is not compared again while it is about to join, and must send the version that was compared.
            self._join(source, finding.validators)
            return
        self._compared.remove(source)
        if finding.verdict is Verdict.DIFFERENT:
            _log.warning("%s: the mirror %s has a different file (%s); not used", run.shown_url, shown, finding.reason)
        elif finding.error is not None:
            _log.info("%s: the mirror %s could not be compared (%s); not used", run.shown_url, shown, finding.reason)
        else:
            return
        run.sources.drop(source)
        if self._error is not None and not run.sources.waiting:
            raise self._error
