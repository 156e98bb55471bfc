"""What a task does after a failure: wait, switch to other sources, use fewer lanes, get a new link, await the network.

``retry`` classifies the failure; this module acts on it. After a failure the engine holds one lane until it is
released. Tries are counted (``tries``) so that a server that breaks sixteen connections at once costs one try, not
sixteen.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING

from rangefetch.errors import ContentChanged, DownloadError, HttpStatusError
from rangefetch.headers import parse_headers, stated_range
from rangefetch.logs import log as _log
from rangefetch.native.resort import LastResort
from rangefetch.net import certificates
from rangefetch.net.proxies import proxy_for
from rangefetch.net.sources import MOST_RESOLVED_AGAIN, URL, Source, host_of
from rangefetch.transfer import governor
from rangefetch.transfer.backend import Timer
from rangefetch.transfer.comparison import Finding, Verdict
from rangefetch.transfer.events import EngineEvent
from rangefetch.transfer.failure import Curl, Failure, Fault, is_not_http
from rangefetch.transfer.offline import Offline
from rangefetch.transfer.retry import AFTER_A_WAIT, NOT_NOW, ONCE_MORE, Kind
from rangefetch.transfer.space import explain_full
from rangefetch.transfer.tries import is_worth
from rangefetch.transfer.wording import as_error

if TYPE_CHECKING:
    from rangefetch.native.task import NativeTask

__all__ = ["Recovery"]

_RANGE_TRIES = 2
_MORE_LANES_AFTER_S = 30.0
_OF_EMPTY_FILES = (HTTPStatus.NO_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
_OF_A_RANGE = AFTER_A_WAIT | {Kind.PERMANENT, Kind.DOUBTFUL}
"""Kinds of failures by which a server may refuse a range."""
_ANY_LANES = 1 << 16
_PATIENCE = 3
"""While another lane works, a download survives this many times ``max_tries`` failures."""


class _Waits(enum.Enum):
    """What the held lanes wait for."""

    NOTHING = ""
    TIME = "the time of the next try"
    PLAIN_REQUEST = "a request without a range"
    NETWORK = "the network"
    LINK = "refresh_url"


_FOR_ALL_LANES = frozenset({_Waits.PLAIN_REQUEST, _Waits.NETWORK, _Waits.LINK})
"""While one of these is awaited, further failures are not handled: its outcome applies to them too."""


class Recovery:
    """Handles the failures of one task. All methods run on the backend's thread."""

    def __init__(self, task: NativeTask) -> None:
        self._task = task
        self.resort = LastResort(task)
        """How the file is requested: with ranges, or as one stream."""
        self._tries = task.tries
        self._released_at = -1  # bytes downloaded when a lane was last released
        self._held = 0  # lanes that wait to be released
        self._waits = _Waits.NOTHING
        self._timer: Timer | None = None  # ends the wait
        self._due_s = 0.0  # when the next try is due, while waiting for TIME
        self._restarted = False  # started over once because the remote file had changed
        self._refreshed_at = -1  # bytes downloaded when refresh_url was last called
        self.most_lanes = _ANY_LANES
        """How many lanes the server was found to allow."""
        self._more_lanes_s = 0.0  # when one more may be tried
        self._refused = (0, 0.0)  # a source that refused lanes, and until when

    @property
    def one_stream(self) -> bool:
        """Whether the file is requested without ranges."""
        return self.resort.one_stream

    # -- what the task tells ------------------------------------------------------------------------------------

    def begun(self) -> None:
        """The engine has the file anew: no lane is held."""
        self.stop_waiting()
        self._held = 0
        self._refreshed_at = -1
        self.resort.begun()
        self._tries.begin()

    def stop_waiting(self) -> None:
        """Stop waiting: nothing more will be tried."""
        self._wait(_Waits.NOTHING)

    def _wait(self, waits: _Waits, timer: Timer | None = None) -> None:
        """Wait for ``waits`` from now on, and for nothing else."""
        if self._timer is not None:
            self._timer.cancel()
        self._task.offline.stop()
        self._waits, self._timer = waits, timer

    @property
    def waiting_for(self) -> str:
        """What the held lanes wait for, in words; empty if nothing."""
        return self._waits.value

    def failed(self, event: EngineEvent) -> None:
        """Handle a failed transfer, whose lane is held. Raises the error if this ends the download."""
        self._or_stand_in(lambda: self._deal_with(event))

    def _deal_with(self, event: EngineEvent) -> None:
        task = self._task
        says_empty = event.status in _OF_EMPTY_FILES and event.fault == Fault.RANGE_WRONG
        if says_empty and event.source != URL and not task.mirroring.url_given_up:
            # An empty file cannot be compared, so the URL has to say whether it is.
            task.answering.drop_mirror(event.source, "it says that it is empty")
            task.answering.follow_the_url("a mirror says that it is empty")
            return
        self.resort.seems_empty |= says_empty
        if event.fault == Fault.OVERFLOW:
            # The engine has taken back what that transfer wrote.
            task.forget_bytes()
        if event.epoch < task.file.epoch(event.source):
            # Sent before the source got another address: it says nothing about the new one.
            self._held += 1
            self._release(1)
            return
        failure = self._failure(event)
        kind = task.policy.classify(failure)
        if kind is Kind.CHANGED:
            self._note_size(event)
        error = self._error(failure)
        self._held += 1
        _log.debug("%s: %s: %s", task.shown_url, error.reason, kind.value)
        if self._waits in _FOR_ALL_LANES:
            return
        if self._task.asking is not None:
            if self._task.asking.ask_otherwise(failure, kind) and kind not in AFTER_A_WAIT:
                self._release(1)
                return
        elif kind in _OF_A_RANGE and self.resort.weigh(failure, kind, error.reason) and kind not in AFTER_A_WAIT:
            self._release(1)
            return
        match kind:
            case Kind.LOCAL:
                raise error
            case Kind.TOO_MANY_LANES:
                self._take_lanes_away(failure)
            case Kind.RATE_LIMITED:
                self._cool(failure, error)
            case Kind.STALE_LINK:
                self._resolve_again(failure)
                self._release(1)
            case Kind.DOUBTFUL:
                self._doubt(failure, error)
            case Kind.CHANGED:
                self._begin_anew(failure, error)
            case Kind.NO_RANGES:
                self._do_without_ranges(failure, error)
            case Kind.PERMANENT:
                self._weigh_last_word(failure, error)
            case Kind.NETWORK | Kind.TEMPORARY if Offline.may_be_why(failure, kind):
                self._look_for_network(failure, error, told=kind is Kind.NETWORK)
            case Kind.TEMPORARY:
                self._try_again(failure, error)

    def _failure(self, event: EngineEvent) -> Failure:
        """The engine's report of a failed transfer, with what this task knows about it."""
        task = self._task
        source = task.sources[event.source]
        redirected = bool(event.address) and event.address != source.url
        if task.file.downloaded > source.resolved_at:
            source.resolved_at, source.resolved_again, source.failed_at = task.file.downloaded, 0, ""
        named_again = event.address == source.failed_at or source.resolved_again >= MOST_RESOLVED_AGAIN
        stated = stated_range(parse_headers(event.headers))
        return Failure.of(
            event,
            other_lanes=task.file.lanes_busy,
            answered=source.answered or self._contradicts_itself(event, source) or _follows_another(event),
            redirected=redirected,
            named_again=redirected and named_again,
            ranged=self.resort.asks_with_ranges,
            same_total=stated is not None and stated[2] == task.file.size,
        )

    def _contradicts_itself(self, event: EngineEvent, source: Source) -> bool:
        """Whether the host has answered similar requests for other files."""
        # Only for statuses: after another fault the address may not be a valid URL.
        manners = self._task.backend.manners
        return event.fault == Fault.STATUS and manners.contradicts_itself(
            host_of(event.address or source.url), event.status
        )

    def _note_size(self, event: EngineEvent) -> None:
        """Record what a response that contradicts the file says about its size."""
        stated = stated_range(parse_headers(event.headers))
        total = stated[2] if stated is not None else -1
        if event.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            self._task.authority.contradicts_itself(event.source, ends_at=total if total >= 0 else event.offset)
        else:
            self._task.authority.contradicts_itself(event.source, total=total)

    def tick(self, now_s: float) -> None:
        """Called periodically: release the other lanes once a released one has made progress; allow more later."""
        file = self._task.file
        if self._held and not self.waiting_for and file.downloaded > self._released_at:
            self._release(self._held)
        if self.most_lanes < _ANY_LANES and now_s >= self._more_lanes_s:
            self._allow_lanes(self.most_lanes + 1)
            if file.lanes < self.most_lanes:
                # Something other than the server limits the lanes now.
                self.most_lanes = _ANY_LANES

    @property
    def is_failing(self) -> bool:
        """Whether lanes wait for anything but the network."""
        return self._held > 0 and self._waits is not _Waits.NETWORK

    def go_on_at_once(self) -> None:
        """A source that has not failed has joined: lanes need not wait, or be fewer, because of one that has."""
        number, until_s = self._refused
        if until_s > self._task.now_s():
            self._task.file.rest(number, until_s - self._task.now_s())
            self._allow_lanes(_ANY_LANES)
        if self._waits is not _Waits.NETWORK:
            self._task.aside.back(lambda: self._release(self._held))

    # -- what is done ---------------------------------------------------------------------------------------------

    def _error(self, failure: Failure) -> DownloadError:
        more = explain_full(self._task.download, failure.errno) if failure.fault == Fault.DISK else ""
        if failure.code == Curl.PEER_FAILED_VERIFICATION:
            more += certificates.explain(self._task.options)
        error = as_error(failure, self._task.shown_url, more)
        self._tries.note(error.reason)
        error.tried = self._tries.tried
        return error

    def _release(self, lanes: int) -> None:
        """Release up to ``lanes`` held lanes, and more where none could work otherwise."""
        if not self._held:
            return
        if self._is_stream():
            # A single stream cannot be continued.
            self._task.begin_again()
            return
        self._released_at = self._task.file.downloaded
        # The number of lanes may have been cut since these were opened, by us or by the engine. The held ones must
        # leave room for one that works.
        lanes = max(lanes, self._held - self._task.file.lanes_at_once + 1)
        for _ in range(min(lanes, self._held)):
            self._held -= 1
            self._task.file.release()

    def _allow_lanes(self, most: int, rest_s: float = 0.0) -> None:
        """Continue with at most ``most`` lanes, for a while and at least ``rest_s`` seconds."""
        self.most_lanes = max(1, most)
        self._more_lanes_s = self._task.now_s() + max(rest_s, _MORE_LANES_AFTER_S)
        self._task.set_lanes()

    def _take_lanes_away(self, failure: Failure) -> None:
        """Continue with the lanes that work. If the server said for how long, no other download asks it before."""
        task = self._task
        rest_s = min(failure.retry_after_s, task.policy.longest_retry_after)
        if rest_s:
            governor.rest(failure.host, rest_s, at_work=False)
        if rest_s and task.sources.others(failure.source):
            task.file.rest(failure.source, rest_s)
        else:
            self._refused = (failure.source, task.now_s() + rest_s)
            self._allow_lanes(failure.other_lanes, rest_s)
        self._release(self._held)

    def _count(self, failure: Failure, kind: Kind) -> bool:
        """Count a failure. Returns True if the tries, and the patience with a known host, are used up.

        While other lanes work, ``_PATIENCE`` times as many failures are allowed, since one of those lanes may make
        enough progress for the count to begin again.
        """
        task = self._task
        if not self._tries.is_further(failure.request):
            return False
        there = failure.kept_bytes if failure.fault is Fault.OVERFLOW else task.file.downloaded
        if self._tries.fail(there, task.file.size, task.file.requests, task.now_s()):
            self.resort.row_begins()
        most = task.options.max_tries * len(task.sources.usable())
        if failure.other_lanes:
            most *= _PATIENCE
        return 0 < most <= self._tries.failures and self._patience_left_s(failure, kind) <= 0

    def _patience_left_s(self, failure: Failure, kind: Kind) -> float:
        """How many seconds a known host may still fail, since its server may be restarting. A host is known if it has
        answered, if only that it cannot serve for now, or if the file has begun.
        """
        task = self._task
        if task.options.bounds_tries or kind not in AFTER_A_WAIT or failure.received_bytes:
            return 0.0
        url = failure.address or task.sources[failure.source].url
        is_known = task.file.downloaded or task.saved is not None or task.backend.manners.has_answered(host_of(url))
        # governor.has_sent covers small files too. What a proxy says or has sent tells nothing of hosts behind it.
        is_there = failure.status in NOT_NOW or governor.has_sent(failure.host)
        if not (is_known or (is_there and not proxy_for(url, task.options))):
            return 0.0
        return self._tries.patience_left_s(task.now_s(), task.options.retry_wait)

    def _wait_s(self, failure: Failure, kind: Kind) -> float:
        task = self._task
        wait_s = task.policy.wait_s(self._tries.failures, task.options.retry_wait, failure.retry_after_s)
        left_s = self._patience_left_s(failure, kind)
        if left_s > 0 and not failure.retry_after_s:
            return self._tries.patient_wait_s(wait_s, left_s, task.options.retry_wait)
        is_last = self._tries.failures == task.options.max_tries - 1
        if is_last and kind in AFTER_A_WAIT and not task.options.bounds_tries:
            return self._tries.last_wait_s(wait_s, task.now_s(), task.options.retry_wait)
        return wait_s

    def _try_again(self, failure: Failure, error: DownloadError, kind: Kind = Kind.TEMPORARY) -> None:
        """Request the range again: at once from another source, otherwise after a wait and with one lane first."""
        if self._waits is _Waits.TIME:
            return
        is_last = self._count(failure, kind)
        if self.resort.is_due and failure.ranged:
            self.ask_plainly(error.reason)
            return
        if (is_last or self._tries.failures > 1) and self.resort.may_help(failure):
            self._ask_beside(failure, functools.partial(self._plainly_asked, failure, error, kind, is_last))
            return
        self._go_on_trying(failure, error, kind, is_last)

    def _plainly_asked(
        self, failure: Failure, error: DownloadError, kind: Kind, is_last: bool, is_served: bool
    ) -> None:
        """Called with whether a plain request was answered where ranges fail."""
        if is_served and (is_last or kind is Kind.NO_RANGES):
            self.ask_plainly(error.reason)
        elif is_served:
            self._release(1)
        else:
            self._or_stand_in(lambda: self._go_on_trying(failure, error, kind, is_last))

    def _go_on_trying(self, failure: Failure, error: DownloadError, kind: Kind, is_last: bool) -> None:
        task = self._task
        if is_last and kind is Kind.DOUBTFUL:
            if not task.sources[failure.source].answered:
                task.backend.manners.insisted(task.host_of(failure), failure.status)
            self._give_up_source(failure, error)
            return
        if is_last or kind is Kind.NO_RANGES:
            raise error
        if self._may_resolve_again(failure):
            self._resolve_again(failure)
        wait_s = self._wait_s(failure, kind)
        if task.sources.others(failure.source) and not self._is_stream():
            task.file.rest(failure.source, wait_s)
            self._release(1)
        else:
            self._wait_for(wait_s)

    def _weigh_last_word(self, failure: Failure, error: DownloadError) -> None:
        """Handle a permanent refusal: give the source up, unless a plain request shows that it only refuses ranges."""

        def asked(is_served: bool) -> None:
            if is_served:
                self.ask_plainly(error.reason)
            else:
                self._or_stand_in(lambda: self._give_up_source(failure, error))

        if self._may_refresh(failure) or not self.resort.may_help(failure):
            self._give_up_source(failure, error)
        else:
            self._ask_beside(failure, asked)

    def _doubt(self, failure: Failure, error: DownloadError) -> None:
        """Handle a refusal by a server that has served the file: get a new link if possible, otherwise try again."""
        if self._may_refresh(failure) or (failure.status in ONCE_MORE and self._tries.failures):
            self._give_up_source(failure, error)
            return
        if failure.status in ONCE_MORE:
            self._allow_lanes(1)
        self._try_again(failure, error, Kind.DOUBTFUL)

    def _or_stand_in(self, step: Callable[[], None]) -> None:
        """Run ``step``. If it raises an error that would end the download, let waiting mirrors take over instead."""
        try:
            step()
        except DownloadError as error:
            if not self._task.mirroring.take_over(error):
                raise

    def _ask_beside(self, failure: Failure, then: Callable[[bool], None]) -> None:
        """Send a plain request beside the file, and call ``then`` with whether it was answered."""

        def asked(is_served: bool) -> None:
            if self._waits is _Waits.PLAIN_REQUEST:
                self._wait(_Waits.NOTHING)
                then(is_served)

        self._wait(_Waits.PLAIN_REQUEST)
        self.resort.ask(self._task.sources[failure.source], self._task.host_of(failure), asked)

    def _go_on(self) -> None:
        self._wait(_Waits.NOTHING)
        self._task.aside.back(lambda: self._release(1))

    def _wait_for(self, wait_s: float) -> None:
        """Continue after ``wait_s`` seconds."""
        now_s = self._task.now_s()
        self._due_s = now_s + wait_s
        self._wait(_Waits.TIME, self._task.call_later(wait_s, self._go_on))
        self._task.let_others_have_its_place(now_s)

    def rests_for(self, now_s: float) -> float:
        """Seconds until the next try; 0 if not waiting for one."""
        return max(0.0, self._due_s - now_s) if self._waits is _Waits.TIME else 0.0

    def _is_stream(self) -> bool:
        return self._task.file.answered and not self._task.file.splits

    def _cool(self, failure: Failure, error: DownloadError) -> None:
        """Let the host rest for all downloads, and continue with fewer lanes afterwards."""
        task = self._task
        if self._count(failure, Kind.RATE_LIMITED):
            if not self.resort.may_help(failure):
                raise error
            self._ask_beside(failure, functools.partial(self._plainly_asked, failure, error, Kind.RATE_LIMITED, True))
            return
        if self._may_resolve_again(failure):
            self._resolve_again(failure)
        wait_s = self._wait_s(failure, Kind.RATE_LIMITED)
        governor.rest(failure.host, wait_s)
        self._allow_lanes(task.file.lanes // 2, wait_s)
        if self._waits is _Waits.NOTHING:
            self._wait_for(0.0 if task.sources.others(failure.source) else wait_s)

    def _may_resolve_again(self, failure: Failure) -> bool:
        asked = self._task.sources[failure.source].resolved_again
        return failure.redirected and not failure.received_bytes and asked < MOST_RESOLVED_AGAIN

    def _resolve_again(self, failure: Failure) -> None:
        """The target of a redirect fails: send the next request to the original URL, which may redirect elsewhere."""
        source = self._task.sources[failure.source]
        source.resolved_again += 1
        source.failed_at = failure.address
        self._task.file.resolve_again(failure.source)

    def _may_refresh(self, failure: Failure) -> bool:
        """Whether the caller can be asked for a new link."""
        task = self._task
        gained = task.file.downloaded - self._refreshed_at
        return (
            task.options.refresh_url is not None
            and failure.may_have_expired
            and (self._refreshed_at < 0 or is_worth(gained, task.file.size))
        )

    def _give_up_source(self, failure: Failure, error: DownloadError) -> None:
        """Ask the caller for a new link if one may help. Otherwise continue with another source, or raise ``error`` if
        none is left.
        """
        task = self._task
        if task.options.refresh_url is not None and self._may_refresh(failure):
            self._refreshed_at = task.file.downloaded
            self._ask_for_link(failure, error)
            return
        self._leave_source(failure, error)

    def _ask_for_link(self, failure: Failure, error: DownloadError) -> None:
        """Ask the caller where the file is now; without an answer, leave the source."""
        task = self._task
        url = task.sources[failure.source].url

        def answered(new_url: str | None) -> None:
            if self._waits is not _Waits.LINK:
                return  # too late
            if new_url is None:
                self.stop_waiting()
                self._leave_source(failure, error)
                return
            self._wait(_Waits.LINK)  # until the new URL is in use
            task.sourcing.move_source(failure.source, new_url, functools.partial(self._moved, failure, error))

        self._wait(_Waits.LINK, task.ask_for_link(url, answered))

    def _moved(self, failure: Failure, error: DownloadError, finding: Finding | None) -> None:
        """Continue after a source's URL was replaced. ``finding`` is the result of comparing the new URL's bytes with
        those on disk; None if there was nothing to compare.
        """
        task = self._task
        self.stop_waiting()
        if finding is None or finding.verdict is Verdict.SAME:
            self._release(self._held)
        elif finding.verdict is Verdict.DIFFERENT:
            self.start_over(ContentChanged(f"the new URL has a different file: {finding.reason}", url=task.shown_url))
        else:
            _log.info("%s: the new URL could not be used: %s", task.shown_url, finding.reason)
            self._leave_source(failure, error)

    def _leave_source(self, failure: Failure, error: DownloadError) -> None:
        task = self._task
        task.sources[failure.source].banned = True
        if not task.sources.usable():
            if task.mirroring.take_over(error):
                return
            raise error
        _log.info("%s: %s; continuing with other sources", task.shown_url, error.reason)
        task.file.ban(failure.source)
        self._release(1)

    def _begin_anew(self, failure: Failure, error: DownloadError) -> None:
        """A source has another file than before: start over if its word decides, otherwise drop a mirror."""
        task = self._task
        if task.answering.decides(failure.source):
            is_read = task.answering.may_be_asked_anew and not task.answering.may_start_over
            if is_read and isinstance(error, ContentChanged):
                self._find_again(failure, error)
            else:
                self.start_over(error)
        elif failure.source == 0:
            # A mirror stood in for the URL, and has another file.
            task.answering.follow_the_url(error.reason)
        else:
            task.answering.drop_mirror(failure.source, error.reason)
            self._release(1)

    def _find_again(self, failure: Failure, error: DownloadError) -> None:
        """The beginning of a stream was read, and the source now sends another version. Servers that share a name may
        differ, so ask again; only a response with the same strong ETag continues the stream.
        """
        sink, ends_at = self._task.download.sink, self._task.authority.ends_at
        assert sink is not None
        if failure.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and ends_at >= sink.read_bytes:
            sink.shorten(self._task.download, ends_at)
        elif not self._tries.failures or self.one_stream:
            self._try_again(failure, error, Kind.CHANGED)
            return
        if self.one_stream:
            raise error
        self.ask_plainly(error.reason)

    def start_over(self, error: DownloadError) -> None:
        """Two versions of the file were seen: fetch all of it again, the second time as one response, which cannot be a
        mixture. Raises ``error`` if that was done already, or if a reader has used the beginning.
        """
        task = self._task
        answering = task.answering
        # A refused range does not show that the file has changed.
        may = answering.may_be_asked_anew if isinstance(error, HttpStatusError) else answering.may_start_over
        if not may or self.one_stream:
            raise error
        if self._restarted:
            self.resort.do_plainly()
            _log.warning("%s: %s; starting over with a single request", task.shown_url, error.reason)
        else:
            self._restarted = True
            _log.warning("%s: %s; starting over", task.shown_url, error.reason)
        task.begin_again()

    def ask_plainly(self, reason: str) -> None:
        """Start over without ranges: one response cannot be a mixture."""
        self.resort.do_plainly()
        _log.info("%s: %s; continuing with a single stream", self._task.shown_url, reason)
        self._task.begin_again()

    def _do_without_ranges(self, failure: Failure, error: DownloadError) -> None:
        """Handle a source that ignores ranges: try again, since a cache may still be filling; then use a source that
        sends ranges, if there is one, or a single stream.
        """
        may_be_filling = not self._is_stream() and (failure.answered or self._task.file.downloaded)
        if may_be_filling and self._tries.failures < _RANGE_TRIES:
            self._try_again(failure, error)
        elif (self._task.file.splits or self.one_stream) and self._task.sources.others(failure.source):
            self._give_up_source(failure, error)
        elif self.one_stream or self.resort.is_refused:
            raise error
        elif self.resort.may_help(failure):
            self._ask_beside(failure, functools.partial(self._plainly_asked, failure, error, Kind.NO_RANGES, True))
        else:
            self.ask_plainly(error.reason)

    def _look_for_network(self, failure: Failure, error: DownloadError, *, told: bool) -> None:
        """Check whether there is a network at all. If there is, handle the failure like any other."""
        if self._waits is not _Waits.NOTHING:
            return

        def is_back() -> None:
            self._wait(_Waits.NOTHING)
            self._release(self._held)

        def was_there() -> None:
            self._wait(_Waits.NOTHING)
            self._or_stand_in(lambda: self._try_again(failure, error))

        self._wait(_Waits.NETWORK)
        self._task.offline.look(error, is_back, was_there, told=told)


def _follows_another(event: EngineEvent) -> bool:
    """Whether what was not HTTP is more likely the rest of an earlier response than all that the host can say. Some
    scripts send more than their Content-Length, which arrives on the connection when the next request has been sent.
    """
    return not event.status and is_not_http(event) and governor.has_answered(event.host)
