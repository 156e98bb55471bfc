"""A task of aria2's: one download that aria2 fetches.

What is to be fetched is asked here first (``remote``), where it goes is decided here, and the bytes are aria2's
business. Whatever aria2 gives up, comes back after a while as far as ``retry`` says so: it goes on where it was, since
starting is resuming.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from rangefetch.aria2.abilities import MOST_CONNECTIONS, refusal
from rangefetch.aria2.entry import Entry, Request, Status
from rangefetch.aria2.remote import Resting, Unanswered
from rangefetch.aria2.translate import judge, to_aria2
from rangefetch.aria2.tries import Tries
from rangefetch.disk.control_file import ControlFile
from rangefetch.errors import DaemonUnavailable, DownloadError, LocalError
from rangefetch.logs import log as _log
from rangefetch.net.certificates import explain_file
from rangefetch.net.proxies import proxy_for
from rangefetch.net.sources import URL, host_of
from rangefetch.options import DownloadOptions
from rangefetch.progress import DownloadStatus
from rangefetch.transfer import governor
from rangefetch.transfer.download import Download, Figures
from rangefetch.transfer.failure import Curl, Failure, Fault
from rangefetch.transfer.keeping import NOTHING_KEPT
from rangefetch.transfer.lifecycle import Event, Phase
from rangefetch.transfer.retry import NOT_NOW, Kind
from rangefetch.transfer.task import Task
from rangefetch.transfer.wording import as_error

if TYPE_CHECKING:
    from rangefetch.aria2.backend import Aria2Backend
    from rangefetch.transfer.backend import Timer
    from rangefetch.transfer.workers import Outcome

__all__ = ["Aria2Task"]

R = TypeVar("R")

_ANSWER_S = 300.0
_TURN_S = 0.1
_FEW = 2
_DISK_CODES = frozenset({"9", "14", "15", "16", "17", "18"})
_REST = "the end of a rest period that the server asked for"
_RATE = "the time of its next request to the server"
_BY_ARIA2 = Failure()  # which says no more than its error
_OVER = frozenset({"complete", "error", "removed"})
_LETTING_GO = frozenset({Phase.TURNING, Phase.STOPPING, Phase.DROPPING})


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Wait:
    """What is waited for, in words: an answer, for as long as ``timer`` allows, or the time when that is due."""

    what: str
    timer: Timer


class Aria2Task(Task["Aria2Backend"]):
    """One download at work. All methods run on the backend's thread; files and servers are left to others."""

    transferer = "aria2"
    tries: Tries

    def __init__(self, backend: Aria2Backend, download: Download) -> None:
        super().__init__(backend, download, download.options)
        self.sources.join_all()
        for source in self.sources:
            source.jar = backend.jar_for(self.options, source.authorization)
        self.entry = Entry(download.gid)
        self.tries = Tries(self.policy, self.options, self.shown_url)
        self.responses = 0
        """From how many the bytes came; 2: from several."""
        self.paused_elsewhere: list[str] = []
        """The gids under which another program has paused it."""
        self.figures_now = Figures()
        self._wait: _Wait | None = None  # an answer to a question that was open before does not count
        self._share = 1  # of the connections to its host
        self._slots: dict[int, float] = {}  # for its next try, where the requests to its host are spaced
        self._begun_with = 0  # the bytes that were there when aria2 got it
        self._link_asked_at = -1  # how much was there when a new link was asked for
        download.figures = self.figures

    # -- what differs between a file and what a torrent or Metalink describes -----------------------------------------

    @abc.abstractmethod
    def start(self) -> None:
        """The place on disk is taken: go on from there."""

    @abc.abstractmethod
    def try_again(self) -> None:
        """aria2 has given it up, or lost it, and is to get it once more."""

    @abc.abstractmethod
    def request(self) -> Request:
        """What aria2 is asked for."""

    @abc.abstractmethod
    def restart(self) -> None:
        """Drop all that is there, on a worker. Raises ``DiskError``."""

    def note_pieces(self, pieces: ControlFile) -> None:
        """What aria2 itself says is there."""

    def completed(self, statuses: list[Status]) -> None:
        """aria2 has done all that it was asked for."""
        self.entry.forget()
        self.backend.grants.give_back(self)
        self.life.fire(Event.WHOLE)

    # -- beginning ----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Take the place on disk; the rest follows from there."""
        if self.download.sink is not None:
            raise LocalError("aria2 cannot stream; that takes the native backend", url=self.shown_url)
        self._check_options()
        self.take_place()

    @abc.abstractmethod
    def take_place(self) -> None:
        """Take the place on disk, on a worker, and ``start``."""

    def _check_options(self) -> None:
        """Raises ``LocalError`` for options that aria2 cannot honour."""
        if reason := refusal(self.download.url, self.options):
            raise LocalError(f"the aria2 backend cannot honour {reason}", url=self.shown_url)

    def refuse_too_large(self, size: int) -> None:
        """Raises ``FileTooLarge`` where there is, or will be, more than the options allow."""
        if 0 < int(self.options.max_file_size) < size:
            raise as_error(Failure(fault=Fault.TOO_LARGE), self.shown_url)

    def begin_again(self) -> None:
        """Begin from nothing."""

        def restart() -> None:
            self.restart()
            self.keeping.kept_bytes = NOTHING_KEPT

        self.responses = self.resumed_bytes = 0
        self.saved = None
        self.figures_now = Figures()
        self.turn(lambda: self.do(restart, lambda _: self.start()))

    # -- questions ----------------------------------------------------------------------------------------------------

    def inquire(
        self,
        question: Callable[[], R],
        then: Callable[[R], None],
        unanswered: Callable[[Failure], None],
    ) -> None:
        """Put a question to servers, and go on with the answer."""

        def answered(outcome: Outcome[R]) -> None:
            if self._wait is not asked:
                return  # nobody waits for it any more
            self._stop_waiting()
            self.backend.grants.give_back(self)
            try:
                answer = outcome.result()
            except Resting as rest:
                self._wait_for_host(rest.seconds, lambda: self.inquire(question, then, unanswered))
            except Unanswered as nothing:
                failure, kind = nothing.failure, self.policy.classify(nothing.failure)
                otherwise = functools.partial(unanswered, failure)
                if self.offline.may_be_why(failure, kind):
                    again = functools.partial(self.inquire, question, then, unanswered)
                    error = as_error(failure, self.shown_url)
                    self.offline.look(error, again, otherwise, told=kind is Kind.NETWORK)
                else:
                    otherwise()
            else:
                then(answer)

        def is_late() -> None:
            self._wait = None
            self.backend.grants.give_back(self)
            unanswered(Failure(code=Curl.OPERATION_TIMEDOUT, text="no answer for too long"))

        if not self.backend.grants.take(self, 1):
            self._wait_for_turn(lambda: self.inquire(question, then, unanswered))
            return
        asked = self._wait = _Wait("the server's answer", self.call_later(_ANSWER_S, is_late))
        self.backend.look(self, question, answered)

    def unanswered(self, failure: Failure, again: Callable[[], None]) -> None:
        """No server has given an answer: ``again`` after a while, with a new link, or the end. Raises the error."""
        if self._asks_for_link(failure, again):
            return
        more = explain_file(self.options) if failure.code == Curl.PEER_FAILED_VERIFICATION else ""
        error = as_error(failure, self.shown_url, more)
        self.tried_in_vain(error, self.classify(failure), again, failure)

    def classify(self, failure: Failure) -> Kind:
        """What a failure is."""
        return self.policy.classify(failure)

    def _asks_for_link(self, failure: Failure, again: Callable[[], None]) -> bool:
        """Whether the caller is asked for a new link, in the place of one that has expired."""
        source, there = self.sources[URL], self.figures_now.downloaded
        if self.options.refresh_url is None or not failure.may_have_expired or there <= self._link_asked_at:
            return False
        self._link_asked_at = there

        def answered(url: str | None) -> None:
            if self._wait is not asked:
                return
            self._stop_waiting()
            if url is None:
                self.unanswered(failure, again)
            else:
                self.sources.move(URL, url)
                source.banned = False
                again()

        asked = self._wait = _Wait("refresh_url", self.ask_for_link(source.url, answered))
        return True

    # -- with aria2 ---------------------------------------------------------------------------------------------------

    def write_trace(self) -> None:
        """aria2 tells nothing of single transfers, and the option is refused."""

    def fetch(self) -> None:
        """It is known what there is: have aria2 fetch the rest."""
        self.life.fire(Event.FETCH)
        self.life.fire(Event.SETTLED)
        self.add()

    def add(self) -> None:
        """Give it to aria2, when its host does not rest. If nobody answers, it is given later."""
        if rest_s := self.rests_for():
            self._wait_for_host(rest_s, self.add)
            return
        self._share = self.take_share()
        if not self._share:
            self._wait_for_turn(self.add)
            return
        if wait_s := governor.wait_for_slot(self.host(), self.options, self._slots):
            self.backend.grants.give_back(self)
            self.wait_until(wait_s, self.add, _RATE)
            return
        self._begun_with = self.figures_now.downloaded
        is_one = min(self.tries.lanes, self.options.split, self._share) == 1 and not self._begun_with
        self.responses += 1 if is_one else 2
        self.meter.reset()
        self.entry.add(self.request(), self.translated())

    @property
    def wanted_connections(self) -> int:
        """How many it would have at its host alone."""
        return min(self.options.max_connection_per_server, MOST_CONNECTIONS)

    def join_host(self) -> None:
        """Be one of those that share the connections of its host."""
        self.backend.grants.join(self, self.host(), self.wanted_connections)

    def take_share(self) -> int:
        """Have as many connections as there are for it at its host, 0: none."""
        self.join_host()
        return self.backend.grants.take(self, min(self.wanted_connections, self.options.split, self.tries.lanes))

    def share_again(self) -> None:
        """Others have joined or left: have as many connections as are due now."""
        if self.entry.gids and self.life.phase is Phase.FILLING and not self.entry.is_held:
            before, self._share = self._share, self.take_share() or self._share
            if self._share != before:
                self.tell_change()

    def translated(self) -> dict[str, str]:
        """The options for aria2."""
        options = to_aria2(self.options, self.tries.lanes)
        sources = len(self.sources.usable())
        if sources > 1:
            # Lanes are left for mirrors: aria2 takes none from a server that works for one that comes later.
            share = max(1, int(options["split"]) // sources)
            options["max-connection-per-server"] = str(min(int(options["max-connection-per-server"]), share))
        else:
            options["split"] = str(min(int(options["split"]), self._share))
        options["max-connection-per-server"] = str(min(int(options["max-connection-per-server"]), self._share))
        if self._share <= _FEW:
            # One that it kept for later would be one too many.
            options["enable-http-keep-alive"] = "false"
        if not self.tries.can_reserve and options["file-allocation"] == "falloc":
            options["file-allocation"] = "trunc"
        return options

    def rests_for(self) -> float:
        """Seconds for which its host is to be left alone."""
        return 0.0

    @property
    def is_in_aria2(self) -> bool:
        """Whether aria2 has something to say of it, or is to get it."""
        return bool(self.entry.gids) or self._is_to_be_added

    @property
    def _is_to_be_added(self) -> bool:
        idle = not (self._wait is not None or self.offline.waits_for or self.jobs.busy)
        return self.life.phase is Phase.FILLING and idle and not self.entry.gids

    @property
    def is_leaving(self) -> bool:
        """Whether aria2 is to let go of it, and has not."""
        return bool(self.entry.gids) and self.life.phase in _LETTING_GO

    def update(self, statuses: Mapping[str, Status]) -> None:
        """What aria2 says of it now, by gid; one that is missing is not known to it."""
        try:
            if self._is_to_be_added:
                self.add()
            elif self.entry.gids:
                self._update([statuses[gid] for gid in self.entry.gids if gid in statuses])
        except DaemonUnavailable:
            if self.entry.daemon is None or self.entry.daemon.error is not None:
                raise
            # It is asked again when it is back.

    def _update(self, statuses: list[Status]) -> None:
        are_complete = [status["status"] == "complete" for status in statuses]
        if self.is_leaving:
            if not all(status["status"] in _OVER for status in statuses):
                self.entry.remove()  # once more: it may not have heard
                return
            if statuses and all(are_complete):
                self._note_whole(statuses)
            self._let_go()
            return
        if not self.entry.is_in_this_process:
            return  # the new one is sorted out in a moment
        if len(statuses) < len(self.entry.gids):
            self._was_directed(DownloadStatus.REMOVED)
            return
        self._note_figures(statuses)
        for status in statuses:
            if status["status"] == "removed":
                self._was_directed(DownloadStatus.REMOVED)
                return
            if status["status"] == "error":
                self._gave_up(status)
                return
        if not self.entry.is_held and any(status["status"] == "paused" for status in statuses):
            self.paused_elsewhere = list(self.entry.gids)
            self._was_directed(DownloadStatus.PAUSED)
            return
        if all(are_complete):
            self._note_whole(statuses)
            self.completed(statuses)

    def _was_directed(self, status: DownloadStatus) -> None:
        """Another program has paused or removed it in aria2: that is what becomes of it."""
        _log.info("%s: another program has it %s in aria2", self.shown_url, status)
        self.download.want(status)
        self.life.stop()

    def _note_whole(self, statuses: list[Status]) -> None:
        if size := sum(int(status["totalLength"]) for status in statuses):
            self.note_pieces(ControlFile(size, size, b"\2"))

    def _note_figures(self, statuses: list[Status]) -> None:
        def total(key: str) -> int:
            return sum(int(status[key]) for status in statuses)

        connections = total("connections")
        # One that was over before aria2 was asked about it has brought what there is.
        has_come = total("completedLength") > self.resumed_bytes
        self.connections = max(self.connections, connections, int(has_come))
        # At first aria2 has not looked at what is there already.
        if total("totalLength") or not self.resumed_bytes:
            downloaded, size = total("completedLength"), total("totalLength") or self.figures_now.total
            self.meter.sample(self.now_s(), downloaded)
            self.figures_now = Figures(downloaded, size, self.meter.speed(), connections)
            self.refuse_too_large(max(downloaded, size))
        else:
            self.figures_now = self.figures_now._replace(connections=connections)

    def figures(self) -> Figures:
        """How far it is; from any thread."""
        return self.figures_now

    @property
    def waits_for(self) -> str:
        """What brings it on, in words; from any thread."""
        wait = self._wait
        if wait is not None:
            return wait.what
        if self.entry.is_held:
            return _REST
        return self.offline.waits_for or self.jobs.what or (self.transferer if self.life.phase is Phase.FILLING else "")

    def change(self, options: DownloadOptions) -> None:
        """Apply new options to what runs. aria2 begins anew where it was for all but the limit."""
        self.options = options
        self._check_options()
        for url in self.options.mirrors:
            self.sources.add(url)
        self.sources.join_all()
        self.tell_change()

    def tell_change(self) -> None:
        """Have aria2 use what it is asked for now, by further requests."""
        self.responses += 1
        if self.entry.gids and self.life.phase is Phase.FILLING:
            self.entry.change(self.request(), self.translated())

    # -- when aria2c is gone, or back ---------------------------------------------------------------------------------

    def daemon_is_back(self, known: set[str]) -> bool:
        """A new aria2c knows these gids, all paused. Returns whether it is to go on with this one as it has it."""
        if self.is_leaving:
            self._let_go()
        elif self.entry.gids and known.issuperset(self.entry.gids):
            self.entry.is_taken_along()
            self.responses += 1
            return True
        else:
            self.entry.gids = []  # and it is added when aria2 is asked the next time
        return False

    def daemon_is_away(self) -> None:
        """There is no aria2c at the moment: nobody touches the files."""
        if self.is_leaving:
            self._let_go()

    def daemon_is_lost(self, error: DaemonUnavailable) -> None:
        """aria2c is gone for good."""
        if self.is_in_aria2 and not self.is_leaving:
            self.entry.gids = []
            raise DaemonUnavailable(error.reason, url=self.shown_url)

    # -- failures -----------------------------------------------------------------------------------------------------

    def _gave_up(self, status: Status) -> None:
        """aria2 has ended it without success."""
        if status.get("errorCode") in _DISK_CODES and (pieces := self.entry.pieces()) is not None:
            self.note_pieces(pieces)
        self.entry.forget()
        self.backend.grants.give_back(self)
        code, downloaded = int(status.get("errorCode", 1)), self.figures_now.downloaded
        is_fresh = downloaded <= self._begun_with
        if code in (9, 17) and is_fresh and self.entry.option("file-allocation") == "falloc":
            # Not every file system can, and aria2 does not go on without.
            self.tries.can_reserve = False
            self.wait_until(0.0, self.try_again)
        elif code != 8 and is_fresh and self.entry.option("use-head") == "true":
            self.tries.can_head = False
            self.wait_until(0.0, self.try_again)
        else:
            error, kind = judge(
                code,
                status.get("errorMessage", ""),
                url=self.shown_url,
                policy=self.policy,
                answered=downloaded > 0 or any(source.answered for source in self.sources),
                received=downloaded > 0,
                redirected=any(source.redirected for source in self.sources),
                other_lanes=min(self.tries.lanes, self.connections) - 1 if downloaded else 0,
            )
            self.tried_in_vain(error, kind, self.try_again)

    def tried_in_vain(
        self, error: DownloadError, kind: Kind, again: Callable[[], None], failure: Failure = _BY_ARIA2
    ) -> None:
        """A try has failed: ``again`` after a while, from the beginning, or the end. Raises ``error``."""
        downloaded = self.figures_now.downloaded
        host = failure.host or self.host()
        url = failure.address or self.sources[URL].url
        # What a proxy says is nothing of those behind it.
        is_there = host in self.backend.answered or (error.status in NOT_NOW and not proxy_for(url, self.options))
        try:
            following = self.tries.failed(
                error,
                kind,
                downloaded=downloaded,
                size=self.figures_now.total or -1,
                connections=self.connections,
                retry_after_s=failure.retry_after_s,
                now_s=self.now_s(),
                is_known=downloaded > 0 or self.saved is not None or is_there,
            )
        except DownloadError:
            if kind is Kind.DOUBTFUL and not any(source.answered for source in self.sources):
                self.backend.manners.insisted(host_of(url), error.status)
            raise
        if kind is Kind.RATE_LIMITED:
            governor.rest(host, following.wait_s)
        if following.anew:
            self.begin_again()
        else:
            self.wait_until(following.wait_s, again)

    def wait_until(self, seconds: float, again: Callable[[], None], what: str = "the time of the next try") -> None:
        """Go on with ``again`` after so many seconds."""

        def go_on() -> None:
            self._wait = None
            self.aside.back(again)

        self.figures_now = self.figures_now._replace(speed=0.0, connections=0)
        self._wait = _Wait(what, self.call_later(seconds, go_on))
        if seconds >= governor.WORTH_A_TURN_S:
            self.aside.step()

    def _wait_for_turn(self, again: Callable[[], None]) -> None:
        self.wait_until(_TURN_S, again, "its turn at the host")

    def _wait_for_host(self, seconds: float, again: Callable[[], None]) -> None:
        self.wait_until(seconds, again, _REST)

    def _stop_waiting(self) -> None:
        """Neither an answer nor a time is waited for any more."""
        if self._wait is not None:
            self._wait.timer.cancel()
            self._wait = None

    # -- the end ------------------------------------------------------------------------------------------------------

    def withdraw(self) -> None:
        """Take it out of aria2, and go on when that is done."""
        self._stop_waiting()
        self.offline.stop()
        if self.entry.gids:
            self.entry.remove()
        else:
            self._let_go()

    def _let_go(self) -> None:
        """aria2 does not touch the files any more."""
        self.entry.forget()
        self.backend.grants.give_back(self)
        self.life.fire(Event.LET_GO)
