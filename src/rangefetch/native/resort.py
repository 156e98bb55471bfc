"""One plain stream: the last resort for a file whose ranges fail.

Some servers refuse ranges, or those beyond some offset, in ways that do not mention ranges: with 400, 403, 404 or 503,
or by closing the connection. What curl gets from them with a plain request, this module gets too.

If nothing of the file is there yet, the next request simply has no range. Where starting over would lose work, a plain
request beside the file must have been answered first.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from rangefetch.errors import HttpStatusError
from rangefetch.logs import log as _log
from rangefetch.transfer.comparison import Finding, Question, Verdict
from rangefetch.transfer.failure import Failure, Fault, how_refused
from rangefetch.transfer.retry import Kind

if TYPE_CHECKING:
    from rangefetch.native.task import NativeTask
    from rangefetch.net.sources import Source

__all__ = ["LastResort"]


class _Asks(enum.Enum):
    """How the engine requests the file."""

    WITH_RANGES = "with ranges"
    PLAINLY_ONCE = "without a range, since the first was refused"
    PLAINLY = "without ranges"


class LastResort:
    """Decides whether a task requests ranges or one stream. All methods run on the backend's thread."""

    def __init__(self, task: NativeTask) -> None:
        self.seems_empty = False
        """Whether a range was answered as if the file were empty (204, or 416 with ``bytes */0``). Only then does such
        an answer to a plain request mean that the file is empty.
        """
        self._task = task
        self._asks = _Asks.WITH_RANGES
        self._refused_for: Kind | None = None  # how the first range was refused
        self._reason = ""
        self._ranges_again = False  # ranges were tried again although a plain request had been answered
        self._refused_plainly: set[int] = set()
        self._asked_in_row = False
        self._served_in_row = False

    @property
    def one_stream(self) -> bool:
        """Whether the file comes as one stream from now on."""
        return self._asks is _Asks.PLAINLY

    @property
    def asks_with_ranges(self) -> bool:
        """Whether the next request has a range."""
        return self._asks is _Asks.WITH_RANGES

    def do_plainly(self) -> None:
        """Request one stream when the file is next started."""
        self._asks = _Asks.PLAINLY

    def begun(self) -> None:
        """Called when the engine has the file anew."""
        if self._asks is _Asks.PLAINLY_ONCE:
            self._asks = _Asks.WITH_RANGES

    def forget(self) -> None:
        """The next source to be asked has refused nothing."""
        if self._asks is _Asks.PLAINLY_ONCE:
            self._asks = _Asks.WITH_RANGES
            self._task.file.ask_plainly(False)

    def ask_url_afresh(self) -> None:
        """Forget what was found out about a mirror that stood in for the URL, and had another file."""
        self._asks = _Asks.WITH_RANGES
        self.seems_empty = False

    def row_begins(self) -> None:
        """A new series of failures begins: there was progress since the last one."""
        self._asked_in_row = self._served_in_row = False

    # -- of a file of which nothing is there ----------------------------------------------------------------------

    def weigh(self, failure: Failure, kind: Kind, reason: str) -> bool:
        """Handle a request refused before any data came. Returns True if it had a range and the next will not."""
        task = self._task
        how = how_refused(failure)
        if how is None or task.file.answered or task.file.downloaded or task.file.block_size or self.one_stream:
            return False
        if failure.fault is Fault.OVERFLOW:
            return False  # a size is known by then, which a plain response would have to match
        host = task.host_of(failure)
        if self._asks is _Asks.PLAINLY_ONCE:
            self._refused_plainly.add(how)
            task.backend.manners.refused_plainly(host, how)
            self._asks = _Asks.WITH_RANGES
            task.file.ask_plainly(False)
            return False
        if how in self._refused_plainly or not task.backend.manners.may_mean_the_range(host, how):
            return False
        self._asks = _Asks.PLAINLY_ONCE
        self._refused_for, self._reason = kind, reason
        task.file.ask_plainly()
        return True

    def answered(self, headers: Mapping[str, str]) -> bool:
        """Handle the first good answer. Returns False if the request was plain and ranges deserve another try."""
        task = self._task
        if self._asks is not _Asks.PLAINLY_ONCE:
            return True
        passing = self._refused_for in (Kind.TEMPORARY, Kind.RATE_LIMITED)
        if passing and not self._ranges_again and headers.get("accept-ranges", "").lower() == "bytes":
            # The refusal may only have meant that the server was busy.
            self._ranges_again = True
            if task.file.size > int(task.options.min_split_size) and task.most_lanes > 1:
                return False
        _log.info("%s: %s; continuing with a single stream", task.shown_url, self._reason)
        self._asks = _Asks.PLAINLY
        return True

    # -- of a file that has begun ---------------------------------------------------------------------------------

    def may_help(self, failure: Failure) -> bool:
        """Whether a plain request might succeed where a range failed."""
        task = self._task
        how = how_refused(failure)
        return (
            how is not None
            and failure.ranged
            and (task.file.answered or task.backend.manners.may_mean_the_range(task.host_of(failure), how))
            and task.file.block_size > 0
            and not self._asked_in_row
            and not task.sources.others(failure.source)
            and task.answering.may_be_asked_anew
        )

    @property
    def is_refused(self) -> bool:
        """Whether a plain request was refused too since there was progress."""
        return self._asked_in_row and not self._served_in_row

    @property
    def is_due(self) -> bool:
        """Whether a plain request was answered, and the ranges still fail."""
        return self._served_in_row

    def ask(self, source: Source, host: str, then: Callable[[bool], None]) -> None:
        """Send a plain request beside the file, and call ``then`` with whether it was answered with a file of the same
        size. ``host``: the one that failed.
        """
        task = self._task

        def answered(finding: Finding) -> None:
            self._served_in_row = finding.verdict is Verdict.SAME
            how = finding.error.status if isinstance(finding.error, HttpStatusError) else 0
            if how:
                task.backend.manners.refused_plainly(host, how)
            if not self._served_in_row:
                _log.debug("%s: without a range: %s", task.shown_url, finding.reason)
            then(self._served_in_row)

        self._asked_in_row = True
        task.comparisons.begin(task.options, Question(source, task.file.size, (), plain=True), answered)
