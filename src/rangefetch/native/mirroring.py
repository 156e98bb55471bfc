"""Decides which mirrors take part in a download: those found to have its bytes.

What a server says of its file (size, ETag, date) tells nothing about another server's file. So a mirror contributes
nothing until randomly chosen blocks of the file have been fetched from it and compared, and what it has contributed is
compared with the URL before the file is named (``comparing``). If the URL itself does not answer and there is nothing
to compare, a mirror stands in for it, and the other mirrors are compared with what that one sends.
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
from rangefetch.transfer.samples import HEAD_BYTES, Extent, choose

if TYPE_CHECKING:
    from rangefetch.native.task import NativeTask

__all__ = ["Mirroring"]

_AT_ONCE = 4  # mirrors that are compared at the same time
_SILENCE_S = 1.0  # how long the URL may fail to answer before a mirror stands in for it


class Mirroring:
    """The mirrors of one task. All methods run on the backend's thread."""

    def __init__(self, task: NativeTask) -> None:
        self._task = task
        self._compared: list[Source] = []  # being compared, or about to join
        self._error: DownloadError | None = None  # ends the download if no mirror joins
        self._silent_since_s = 0.0
        self.url_given_up = False
        """Whether the URL refuses the file for good, or has used up its tries. If so, the mirrors' file is not checked
        against it.
        """

    def restart(self) -> None:
        """The file starts over: the bytes that mirrors were compared with are gone."""
        self._compared.clear()
        self._task.sources.part()

    def reserved_lanes(self) -> int:
        """How many of the download's transfers are kept free for comparisons."""
        return 1 if self._task.sources.waiting else 0

    def look(self) -> None:
        """Called periodically: compare waiting mirrors, once there is something to compare them with."""
        task = self._task
        if not task.sources.waiting or not task.is_filling:
            return
        file = task.file
        if file.answered or file.downloaded:
            self._silent_since_s = 0.0
            self._compare()
        elif task.recovery.is_failing:
            self._silent_since_s = self._silent_since_s or task.now_s()
            if task.now_s() - self._silent_since_s >= _SILENCE_S:
                self._silent_since_s = 0.0
                self._stand_in("the URL does not answer")

    def take_over(self, error: DownloadError) -> bool:
        """Whether mirrors may save a download that would end with ``error`` because no current source works.

        If none of them joins, the download ends with that error.
        """
        task = self._task
        if not task.sources.waiting or not isinstance(error, NetworkError | SourceError):
            return False
        if isinstance(error, ContentChanged):
            return False
        if task.starting.compares_saved:
            self.url_given_up = True
            self._error = error
            task.starting.resume_from_mirrors()
            return True
        if task.placing.earlier is not None:
            # It can no longer be found out whether the earlier data is of the URL's file.
            self.url_given_up = task.sources[URL].banned = True
            task.begin_again()
            return True
        if not task.is_filling:
            return False
        if task.answering.one_source and not task.answering.may_start_over:
            return False
        self.url_given_up = True
        for number, source in enumerate(task.sources):
            source.banned = True
            task.file.ban(number)
        self._error = error
        if not task.file.downloaded:
            self._stand_in(error.reason)
        elif not self._compare() and not self._compared:
            # Too little is there to compare.
            if not task.answering.may_start_over:
                return False
            _log.warning("%s: %s; starting over with a mirror", task.shown_url, error.reason)
            self._error = None
            task.begin_again()
        return True

    def stand_in(self) -> None:
        """If a file is about to start with no usable source, and no saved bytes to compare mirrors with, make the next
        mirror a source.
        """
        sources = self._task.sources
        if not sources.usable() and sources.waiting and self._task.saved is None:
            sources.join(sources.waiting[0])

    # -- inside -------------------------------------------------------------------------------------------------

    def _stand_in(self, reason: str) -> None:
        task = self._task
        source = task.sources.waiting[0]
        _log.warning("%s: %s; fetching from %s", task.shown_url, reason, mask_url(source.url))
        for number, each in enumerate(task.sources):
            each.banned = True
            task.file.ban(number)
        self._join(source)

    def _join(self, source: Source, validators: tuple[str, str] | None = None) -> None:
        self._error = None
        self._task.sourcing.use_source(source, validators)

    def _compare(self) -> bool:
        """Start to compare waiting mirrors. Returns False if there is nothing to compare them with yet."""
        task = self._task
        extents = self._extents()
        if not extents:
            return False
        for source in task.sources.waiting:
            if len(self._compared) >= _AT_ONCE or not self._has_lane():
                break
            if source not in self._compared:
                self._compared.append(source)
                found = functools.partial(self._found, source)
                validators = task.answering.validators_of_mirrors
                task.sourcing.compare(source, extents, found, size=task.file.size, validators=validators)
        return True

    def _has_lane(self) -> bool:
        task = self._task
        busy = task.file.lanes_busy
        return not busy or busy + len(self._compared) < task.options.split

    def _extents(self) -> list[Extent]:
        """The extents that can be compared. While the file is being fetched, there must be some beyond its head."""
        task = self._task
        file = task.file
        extents = task.sourcing.written_extents()
        places = choose(file.size, extents, random.Random(0))
        if not places or (file.lanes_busy and places[0][0][0] < HEAD_BYTES):
            return []
        return extents

    def _found(self, source: Source, finding: Finding) -> None:
        task = self._task
        shown = mask_url(source.url)
        if finding.verdict is Verdict.SAME:
            _log.debug("%s: %s has the same bytes", task.shown_url, shown)
            # It stays in _compared, so it is not compared again while joining; it must send the version that was
            # compared.
            self._join(source, finding.validators)
            return
        self._compared.remove(source)
        if finding.verdict is Verdict.DIFFERENT:
            _log.warning("%s: the mirror %s has a different file (%s); not used", task.shown_url, shown, finding.reason)
        elif finding.error is not None:
            _log.info("%s: the mirror %s could not be compared (%s); not used", task.shown_url, shown, finding.reason)
        else:
            return
        task.sources.drop(source)
        if self._error is not None and not task.sources.waiting:
            raise self._error
