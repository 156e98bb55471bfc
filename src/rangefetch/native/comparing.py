"""Checks a task that has every byte: are they one version of the file, and the URL's?"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from rangefetch import records
from rangefetch.disk.state import DONE
from rangefetch.errors import BadAnswer, ContentChanged
from rangefetch.identity import Basis, Strength, must_compare_before_publishing
from rangefetch.logs import log as _log
from rangefetch.masking import mask_url
from rangefetch.net.sources import URL
from rangefetch.transfer.comparison import Finding, Verdict
from rangefetch.transfer.effort import explain
from rangefetch.transfer.lifecycle import Event, Phase
from rangefetch.transfer.samples import Extent, finished_extents

if TYPE_CHECKING:
    from rangefetch.native.task import NativeTask

__all__ = ["Comparing"]

_WHOLE_BYTES = 1 << 20  # extents to sample are rounded outwards to multiples of this


class Comparing:
    """Checks one task that has every byte. All methods run on the backend's thread."""

    def __init__(self, task: NativeTask) -> None:
        self._task = task
        self.compared = False
        """Whether bytes were fetched again, and were the same."""
        self._checked: set[int] = set()  # sources whose bytes were found to be of one version, and the URL's
        self._url_agrees = False  # the file that mirrors sent is the URL's

    def begin_again(self) -> None:
        """Forget the findings: those bytes are gone."""
        self.compared = self._url_agrees = False
        self._checked.clear()

    def arrived(self) -> None:
        """Every byte is in the file: check that it is the expected file."""
        task = self._task
        size = task.file.downloaded
        task.proving.bound = task.proving.bound or explain(
            {
                **task.file.effort,
                "limit": task.file.limit,
                "request_ms": task.file.request_ms,
                "connections": task.file.connections,
            },
            size - task.resumed_bytes,
            task.most_lanes,
        )
        if task.options.expected_size and size != task.options.expected_size:
            words = f"the remote file has {size} bytes, not {task.options.expected_size}"
            task.reject(ContentChanged(words, url=task.shown_url))
        elif not task.authority.accepts_length(size):
            known = task.authority.identity.size
            words = f"the server sent {size} bytes as the whole file, which had {known} before"
            task.reject(BadAnswer(words, url=task.shown_url))
        else:
            task.comparisons.stop(self._check_identity)

    def _check_identity(self) -> None:
        """Before the file is named, check that it is one version of the file, and the URL's."""
        task = self._task
        if task.life.phase is not Phase.COMPARING:
            return
        first, size = task.sources[task.answering.first_source], task.file.downloaded
        if task.file.block_size == 0:
            # The length was not announced.
            identity = records.replace(first.identity, size=size)
            if not task.answering.is_credible(task.answering.first_source, identity, stated=False):
                return
        if task.options.checksum or task.download.sink is not None:
            task.life.fire(Event.AGREED)
        elif self._is_from_mirrors and not self._url_agrees and not task.mirroring.url_given_up:
            # The mirrors stood in for the URL: ask it whether it has the same file.
            if size == 0:
                task.answering.follow_the_url("it is empty, and the URL did not say so")
            else:
                self._compare_all(URL, self._url_compared)
        elif (number := self._next_helper()) is not None:
            self._compare_brought(number)
        elif (number := self._next_to_compare()) is not None:
            self._compare_all(number, functools.partial(self._versions_compared, number))
        else:
            task.life.fire(Event.AGREED)

    @property
    def _judge(self) -> int:
        """The source that decides what the file is, to compare others' bytes with; -1: it cannot be asked."""
        task = self._task
        if self._url_agrees:
            return URL
        judge = task.authority.source
        if judge < 0 or task.sources[judge].banned or (judge == URL and task.mirroring.url_given_up):
            return -1
        return judge

    def _next_helper(self) -> int | None:
        """The next source that has contributed to another source's file, and has not been compared with that one since.

        It had the same bytes when it joined, but it may have sent anything since, and its own validators cannot show
        that.
        """
        task = self._task
        judge = self._judge
        if judge < 0 or task.verification.checksum:
            return None
        return min(self._helpers - self._checked - {judge}, default=None)

    def _compare_brought(self, number: int) -> None:
        """Compare some of what a source has sent with the deciding source's file."""
        task = self._task
        file, size = task.file, task.file.size
        blocks = bytes(DONE if each == number else 0 for each in bytes(file.brought_by))
        extents = [_whole(start, end, size) for start, end in finished_extents(blocks, file.block_size, size)]
        then = functools.partial(self._brought_compared, number)
        task.sourcing.compare(task.sources[self._judge], extents, then, size=size, oldest=extents)

    def _brought_compared(self, number: int, finding: Finding) -> None:
        task = self._task
        if finding.verdict is Verdict.SAME:
            self.compared = True
            self._checked.add(number)
            self._check_identity()
        elif finding.verdict is Verdict.DIFFERENT:
            task.answering.drop_mirror(number, finding.reason)
            task.begin_again()
        elif finding.refused and self._judge == URL:
            task.mirroring.url_given_up = True
            words = "part of the file came from mirrors and was not compared with the URL's"
            _log.warning("%s: %s; %s", task.shown_url, finding.reason, words)
            self._check_identity()
        else:
            self._not_compared(self._judge, finding)

    def does_without_offers(self) -> bool:
        """Called if the digest is wrong: if some of the file may be from mirrors that the user has not named, start
        over without those. Returns whether it does.
        """
        task = self._task
        offers = [each for number, each in enumerate(task.sources) if each.is_offered and number in self._helpers]
        earlier = task.saved is not None and any(each.url not in task.sources.given for each in task.saved.sources)
        if not offers and not earlier:
            return False
        shown = ", ".join(mask_url(each.url) for each in offers) or "mirrors in an earlier run"
        _log.warning("%s: wrong checksum; some of the data came from %s; starting over without", task.shown_url, shown)
        task.sources.refuse_offers()
        task.begin_again()
        return True

    @property
    def _helpers(self) -> set[int]:
        """The sources other than the URL that have sent some of the file."""
        return set(bytes(self._task.file.brought_by)) - {URL}

    def _next_to_compare(self) -> int | None:
        """The next source whose validators do not show that all of its responses were of one version."""
        task = self._task
        parts = task.file.responses + bool(task.resumed_bytes)
        for number, source in enumerate(task.sources):
            if (
                source.answered
                and number not in self._checked
                and not (number == URL and task.mirroring.url_given_up)
                and must_compare_before_publishing(
                    source.identity, responses=parts, checksum=bool(task.verification.checksum)
                )
            ):
                return number
        return None

    @property
    def _is_from_mirrors(self) -> bool:
        """Whether only mirrors have answered this task, and not the URL."""
        task = self._task
        return not task.sources[URL].answered and any(source.answered for source in task.sources)

    def _compare_all(self, number: int, then: Callable[[Finding], None]) -> None:
        """Fetch samples of the finished file from a source again, including some of what came first: if the file has
        changed since, those are the old bytes.
        """
        task = self._task
        size = task.file.size
        if task.saved is not None:
            oldest = finished_extents(
                task.saved.blocks, task.saved.block_size, task.saved.total_size, task.saved.partial
            )
        else:
            start, end = task.answering.first_extent
            oldest = [_whole(start, end, size)]
        task.sourcing.compare(task.sources[number], [(0, size)], then, size=size, oldest=oldest)

    def _url_compared(self, finding: Finding) -> None:
        """Called with the result of comparing what mirrors sent with the URL's file."""
        task = self._task
        if finding.verdict is Verdict.DIFFERENT:
            task.answering.follow_the_url(finding.reason)
            return
        if finding.verdict is Verdict.SAME:
            self._url_agrees = self.compared = True
            self._checked.add(task.answering.first_source)
            self._check_identity()
        else:
            task.mirroring.url_given_up = True
            words = "the file came from mirrors and was not compared with the URL's"
            _log.warning("%s: %s; %s", task.shown_url, finding.reason, words)
            self._check_identity()

    def _versions_compared(self, number: int, finding: Finding) -> None:
        """Called with the result of fetching samples of a source again, to see whether its file has changed."""
        task = self._task
        is_mirror = number not in (URL, task.answering.first_source)
        dated = task.sources[number].identity.strength is Strength.DATED
        if finding.verdict is Verdict.DIFFERENT and is_mirror:
            task.answering.drop_mirror(number, finding.reason)
            task.begin_again()
        elif finding.verdict is Verdict.DIFFERENT:
            task.recovery.start_over(
                ContentChanged(f"the remote file has changed: {finding.reason}", url=task.shown_url)
            )
        elif finding.verdict is Verdict.SAME or is_mirror or dated:
            self.compared = self.compared or finding.verdict is Verdict.SAME
            self._checked.add(number)
            self._check_identity()
        else:
            self._not_compared(number, finding)

    def _not_compared(self, number: int, finding: Finding) -> None:
        """Handle a deciding source that could not be asked for samples: start over with a single stream, if it answers
        a plain request with a file of this size. Otherwise raise its error, keeping the data.
        """
        task = self._task
        error = finding.error or ContentChanged(
            f"could not check whether the remote file has changed: {finding.reason}", url=task.shown_url
        )
        if not isinstance(error, BadAnswer):
            raise error

        def asked(is_served: bool) -> None:
            if not is_served:
                raise error
            task.recovery.ask_plainly(f"it could not be compared: {finding.reason}")

        source = task.sources[number]
        task.recovery.resort.ask(source, source.host, asked)

    def basis(self) -> Basis:
        """How the bytes were shown to belong to one version of the file at the URL."""
        task = self._task
        answered = [source for source in task.sources if source.answered]
        weakest = min((source.identity.strength for source in answered), default=task.authority.identity.strength)
        if task.options.checksum:
            return Basis.CHECKSUM
        if self._is_from_mirrors and not self._url_agrees:
            return Basis.MIRRORS
        if task.verification.checksum:
            return Basis.CHECKSUM
        if self._judge < 0 and self._helpers:
            return Basis.MIRRORS
        if self.compared:
            return Basis.COMPARED
        if task.file.responses <= 1 and not task.resumed_bytes:
            return Basis.ONE_RESPONSE
        if weakest is Strength.STRONG and len(answered) < 2:
            return Basis.ETAG
        return Basis.LAST_MODIFIED if weakest is Strength.DATED and len(answered) < 2 else Basis.SIZE


def _whole(start: int, end: int, size: int) -> Extent:
    """The extent, rounded outwards to whole pieces for sampling."""
    return start // _WHOLE_BYTES * _WHOLE_BYTES, min(-(-end // _WHOLE_BYTES) * _WHOLE_BYTES, size)
