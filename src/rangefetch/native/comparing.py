"""What follows the last byte of a run: the bytes are shown to be one version of the file, and the URL's."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from rangefetch import records
from rangefetch.disk.state import DONE
from rangefetch.errors import BadAnswer, ContentChanged
from rangefetch.identity import Basis, Strength, must_compare_before_publishing
from rangefetch.logs import log as _log
from rangefetch.net.sources import URL
from rangefetch.transfer.comparison import Finding, Verdict
from rangefetch.transfer.effort import explain
from rangefetch.transfer.lifecycle import Event, Phase
from rangefetch.transfer.samples import Span, finished_spans

if TYPE_CHECKING:
    from rangefetch.native.run import Run

__all__ = ["Comparing"]

_WHOLE_BYTES = 1 << 20  # samples are taken of whole ones


class Comparing:
    """A run that has every byte. All methods run on the backend's thread."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.compared = False
        """Whether bytes were fetched again, and were the same."""
        self._checked: set[int] = set()  # the sources whose bytes were seen to be of one version, and the URL's
        self._url_agrees = False  # that what mirrors sent is its file

    def begin_again(self) -> None:
        """What was found out is of bytes that are gone."""
        self.compared = self._url_agrees = False
        self._checked.clear()

    def arrived(self) -> None:
        """Every byte is in the file: is it what was expected?"""
        run = self._run
        size = run.file.downloaded
        run.proving.bound = run.proving.bound or explain(
            {
                **run.file.effort,
                "limit": run.file.limit,
                "request_ms": run.file.request_ms,
                "connections": run.file.connections,
            },
            size - run.resumed_bytes,
            run.most_lanes,
        )
        if run.options.expected_size and size != run.options.expected_size:
            words = f"the remote file has {size} bytes, not {run.options.expected_size}"
            run.reject(ContentChanged(words, url=run.shown_url))
        elif not run.authority.accepts_length(size):
            known = run.authority.identity.size
            words = f"the server sent {size} bytes as the whole of a file that had {known}"
            run.reject(BadAnswer(words, url=run.shown_url))
        else:
            run.comparisons.stop(self._check_identity)

    def _check_identity(self) -> None:
        """Before it is named: is it one version of the file, and is it the URL's?"""
        run = self._run
        if run.life.phase is not Phase.COMPARING:
            return
        first, size = run.sources[run.answering.first_source], run.file.downloaded
        if run.file.block_size == 0:
            # Its length was not announced.
            identity = records.replace(first.identity, size=size)
            if not run.answering.is_credible(run.answering.first_source, identity, stated=False):
                return
        if run.options.checksum or run.download.sink is not None:
            run.life.fire(Event.AGREED)
        elif self._is_from_mirrors and not self._url_agrees and not run.mirroring.url_given_up:
            # They stood in for the URL, which is asked whether it has the same file.
            if size == 0:
                run.answering.follow_the_url("it is empty, and the URL did not say so")
            else:
                self._compare_all(URL, self._url_compared)
        elif (number := self._next_helper()) is not None:
            self._compare_brought(number)
        elif (number := self._next_to_compare()) is not None:
            self._compare_all(number, functools.partial(self._versions_compared, number))
        else:
            run.life.fire(Event.AGREED)

    @property
    def _judge(self) -> int:
        """The source whose file it is, by which the bytes of others can be judged; -1: it cannot be asked."""
        run = self._run
        if self._url_agrees:
            return URL
        judge = run.authority.source
        if judge < 0 or run.sources[judge].banned or (judge == URL and run.mirroring.url_given_up):
            return -1
        return judge

    def _next_helper(self) -> int | None:
        """The next source that has brought some of another one's file, and was not held against that yet. It had the
        same bytes when it joined; what it has sent since may be anything, and no validator of its own tells."""
        run = self._run
        judge = self._judge
        if judge < 0 or run.verification.checksum:
            return None
        return min(self._helpers - self._checked - {judge}, default=None)

    def _compare_brought(self, number: int) -> None:
        """Compare some of what a source has brought with the one whose file it is."""
        run = self._run
        file, size = run.file, run.file.size
        blocks = bytes(DONE if each == number else 0 for each in bytes(file.brought_by))
        spans = [_whole(start, end, size) for start, end in finished_spans(blocks, file.block_size, size)]
        then = functools.partial(self._brought_compared, number)
        run.sourcing.compare(run.sources[self._judge], spans, then, size=size, oldest=spans)

    def _brought_compared(self, number: int, finding: Finding) -> None:
        run = self._run
        if finding.verdict is Verdict.SAME:
            self.compared = True
            self._checked.add(number)
            self._check_identity()
        elif finding.verdict is Verdict.DIFFERENT:
            run.answering.drop_mirror(number, finding.reason)
            run.begin_again()
        elif finding.refused and self._judge == URL:
            run.mirroring.url_given_up = True
            _log.warning("%s: %s: some of the file came from mirrors alone", run.shown_url, finding.reason)
            self._check_identity()
        else:
            self._not_compared(finding)

    @property
    def _helpers(self) -> set[int]:
        """The sources other than the URL that have brought some of the file."""
        return set(bytes(self._run.file.brought_by)) - {URL}

    def _next_to_compare(self) -> int | None:
        """The next source whose validators do not show that all of its responses were of one version."""
        run = self._run
        parts = run.file.responses + bool(run.resumed_bytes)
        for number, source in enumerate(run.sources):
            if (
                source.answered
                and number not in self._checked
                and must_compare_before_publishing(
                    source.identity, responses=parts, checksum=bool(run.verification.checksum)
                )
            ):
                return number
        return None

    @property
    def _is_from_mirrors(self) -> bool:
        """Whether mirrors have sent it, and the URL has said nothing in this run."""
        run = self._run
        return not run.sources[URL].answered and any(source.answered for source in run.sources)

    def _compare_all(self, number: int, then: Callable[[Finding], None]) -> None:
        """Fetch samples of the finished file from a source again, and of what came first: where the file has changed
        since, those bytes are the old ones."""
        run = self._run
        size = run.file.size
        if run.saved is not None:
            oldest = finished_spans(run.saved.blocks, run.saved.block_size, run.saved.total_size, run.saved.partial)
        else:
            start, end = run.answering.first_span
            oldest = [_whole(start, end, size)]
        run.sourcing.compare(run.sources[number], [(0, size)], then, size=size, oldest=oldest)

    def _url_compared(self, finding: Finding) -> None:
        """The URL was asked whether what mirrors sent is its file."""
        run = self._run
        if finding.verdict is Verdict.DIFFERENT:
            run.answering.follow_the_url(finding.reason)
            return
        if finding.verdict is Verdict.SAME:
            self._url_agrees = self.compared = True
            self._checked.add(run.answering.first_source)
            self._check_identity()
        else:
            run.mirroring.url_given_up = True
            _log.warning("%s: %s: the file came from mirrors alone", run.shown_url, finding.reason)
            self._check_identity()

    def _versions_compared(self, number: int, finding: Finding) -> None:
        """Some of what a source sent was fetched again, to see whether its file has changed meanwhile."""
        run = self._run
        is_mirror = number not in (URL, run.answering.first_source)
        dated = run.sources[number].identity.strength is Strength.DATED
        if finding.verdict is Verdict.DIFFERENT and is_mirror:
            run.answering.drop_mirror(number, finding.reason)
            run.begin_again()
        elif finding.verdict is Verdict.DIFFERENT:
            run.recovery.start_over(ContentChanged(f"the remote file has changed: {finding.reason}", url=run.shown_url))
        elif finding.verdict is Verdict.SAME or is_mirror or dated:
            self.compared = self.compared or finding.verdict is Verdict.SAME
            self._checked.add(number)
            self._check_identity()
        else:
            self._not_compared(finding)

    def _not_compared(self, finding: Finding) -> None:
        """The source whose file it is could not be asked for some of it again. Raises its error; the work is kept."""
        run = self._run
        if not isinstance(finding.error, BadAnswer):
            raise finding.error or ContentChanged(
                f"could not check whether the remote file has changed: {finding.reason}", url=run.shown_url
            )
        run.recovery.ask_plainly(f"it could not be compared: {finding.reason}")

    def basis(self) -> Basis:
        """How it was established that the bytes are one version of the file at the URL."""
        run = self._run
        answered = [source for source in run.sources if source.answered]
        weakest = min((source.identity.strength for source in answered), default=run.authority.identity.strength)
        if run.options.checksum:
            return Basis.CHECKSUM
        if self._is_from_mirrors and not self._url_agrees:
            return Basis.MIRRORS
        if run.verification.checksum:
            return Basis.CHECKSUM
        if self._judge < 0 and self._helpers:
            return Basis.MIRRORS
        if self.compared:
            return Basis.COMPARED
        if run.file.responses <= 1 and not run.resumed_bytes:
            return Basis.ONE_RESPONSE
        if weakest is Strength.STRONG and len(answered) < 2:
            return Basis.ETAG
        return Basis.LAST_MODIFIED if weakest is Strength.DATED and len(answered) < 2 else Basis.SIZE


def _whole(start: int, end: int, size: int) -> Span:
    """The whole pieces, of which samples are taken, that hold these bytes of a file."""
    return start // _WHOLE_BYTES * _WHOLE_BYTES, min(-(-end // _WHOLE_BYTES) * _WHOLE_BYTES, size)
