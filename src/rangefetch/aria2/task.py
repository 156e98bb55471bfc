"""The task for one download that aria2 fetches.

The task asks the server about the file first (``remote``) and decides where it goes; aria2 fetches the bytes. When
aria2 gives up, it is given the download again later, as far as ``retry`` allows; it resumes where it stopped, since
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
_BY_ARIA2 = Failure()  # for failures of aria2, about which only the error is known
_OVER = frozenset({"complete", "error", "removed"})
_LETTING_GO = frozenset({Phase.TURNING, Phase.STOPPING, Phase.DROPPING})


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Wait:
    """What the task waits for, in words: an answer, with ``timer`` as its timeout, or the moment ``timer`` fires."""

    what: str
    timer: Timer


class Aria2Task(Task["Aria2Backend"]):
    """One download at work. All methods run on the backend's thread; other threads access files and servers."""

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
        """How many responses the bytes came from; 2 or more stands for several."""
        self.paused_elsewhere: list[str] = []
        """The gids under which another program has paused it."""
        self.figures_now = Figures()
        self._wait: _Wait | None = None  # answers to earlier questions are ignored
        self._share = 1  # of the connections to its host
        self._slots: dict[int, float] = {}  # for its next try, if requests to its host are spaced
        self._begun_with = 0  # bytes on disk when it was given to aria2
        self._link_asked_at = -1  # bytes on disk when a new link was last asked for
        download.figures = self.figures

    # -- what differs between a file and what a torrent or Metalink describes -----------------------------------------

    @abc.abstractmethod
    def start(self) -> None:
        """Continue after the place on disk has been taken."""

    @abc.abstractmethod
    def try_again(self) -> None:
        """Give the download to aria2 again, after a failed try."""

    @abc.abstractmethod
    def request(self) -> Request:
        """The URLs and options that aria2 is given."""

    @abc.abstractmethod
    def restart(self) -> None:
        """Drop all data on disk; called on a worker. Raises ``DiskError``."""

    def note_pieces(self, pieces: ControlFile) -> None:
        """Remember which pieces aria2 reports."""

    def completed(self, statuses: list[Status]) -> None:
        """aria2 has fetched everything it was asked for."""
        self.entry.forget()
        self.backend.grants.give_back(self)
        self.life.fire(Event.WHOLE)

    # -- beginning ----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Take the place on disk; the rest follows from there."""
        if self.download.sink is not None:
            raise LocalError("aria2 cannot stream; use the native backend", url=self.shown_url)
        self._check_options()
        self.take_place()

    @abc.abstractmethod
    def take_place(self) -> None:
        """Take the place on disk, on a worker, then call ``start``."""

    def _check_options(self) -> None:
        """Raises ``LocalError`` for options that aria2 cannot honour."""
        if reason := refusal(self.download.url, self.options):
            raise LocalError(f"the aria2 backend cannot honour {reason}", url=self.shown_url)

    def refuse_too_large(self, size: int) -> None:
        """Raises ``FileTooLarge`` if ``size``, received or announced, exceeds the user's limit."""
        if 0 < int(self.options.max_file_size) < size:
            raise as_error(Failure(fault=Fault.TOO_LARGE), self.shown_url)

    def begin_again(self) -> None:
        """Start over from nothing."""

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
        """Ask servers ``question`` on another thread, and call ``then`` with the answer.

        If there is none, ``unanswered`` is called with the failure. A host that rests, a connection that is not yet
        granted, and a lost network are waited for.
        """

        def answered(outcome: Outcome[R]) -> None:
            if self._wait is not asked:
                return  # the task no longer waits for this answer
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
            unanswered(Failure(code=Curl.OPERATION_TIMEDOUT, text="the server did not answer for too long"))

        if not self.backend.grants.take(self, 1):
            self._wait_for_turn(lambda: self.inquire(question, then, unanswered))
            return
        asked = self._wait = _Wait("the server's answer", self.call_later(_ANSWER_S, is_late))
        self.backend.look(self, question, answered)

    def unanswered(self, failure: Failure, again: Callable[[], None]) -> None:
        """No server has answered: call ``again`` later or with a new link. Raises the error if there is no try left."""
        if self._asks_for_link(failure, again):
            return
        more = explain_file(self.options) if failure.code == Curl.PEER_FAILED_VERIFICATION else ""
        error = as_error(failure, self.shown_url, more)
        self.tried_in_vain(error, self.classify(failure), again, failure)

    def classify(self, failure: Failure) -> Kind:
        """The kind of a failure."""
        return self.policy.classify(failure)

    def _asks_for_link(self, failure: Failure, again: Callable[[], None]) -> bool:
        """If the link may have expired, ask the user's ``refresh_url`` for a new one. Returns whether it was asked."""
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
        """Nothing to write: aria2 does not report single transfers, and the option is refused."""

    def fetch(self) -> None:
        """The file is known: have aria2 fetch what is missing."""
        self.life.fire(Event.FETCH)
        self.life.fire(Event.SETTLED)
        self.add()

    def add(self) -> None:
        """Give the download to aria2 as soon as its host allows it. If aria2 does not answer, it is given later."""
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
        """How many connections it would use if it were the only download from its host."""
        return min(self.options.max_connection_per_server, MOST_CONNECTIONS)

    def join_host(self) -> None:
        """Join the downloads that share the connections of its host."""
        self.backend.grants.join(self, self.host(), self.wanted_connections)

    def take_share(self) -> int:
        """Take the connections that are available for it at its host, and return how many; 0 if none is."""
        self.join_host()
        return self.backend.grants.take(self, min(self.wanted_connections, self.options.split, self.tries.lanes))

    def share_again(self) -> None:
        """Other downloads have joined or left the host: adjust to the new share of connections."""
        if self.entry.gids and self.life.phase is Phase.FILLING and not self.entry.is_held:
            before, self._share = self._share, self.take_share() or self._share
            if self._share != before:
                self.tell_change()

    def translated(self) -> dict[str, str]:
        """The options for aria2."""
        options = to_aria2(self.options, self.tries.lanes)
        sources = len(self.sources.usable())
        if sources > 1:
            # Reserve connections for mirrors: aria2 does not take one from a working server for a mirror added later.
            share = max(1, int(options["split"]) // sources)
            options["max-connection-per-server"] = str(min(int(options["max-connection-per-server"]), share))
        else:
            options["split"] = str(min(int(options["split"]), self._share))
        options["max-connection-per-server"] = str(min(int(options["max-connection-per-server"]), self._share))
        if self._share <= _FEW:
            # With so few, an idle connection that aria2 keeps open would exceed the share.
            options["enable-http-keep-alive"] = "false"
        if not self.tries.can_reserve and options["file-allocation"] == "falloc":
            options["file-allocation"] = "trunc"
        return options

    def rests_for(self) -> float:
        """Seconds until its host may be asked again."""
        return 0.0

    @property
    def is_in_aria2(self) -> bool:
        """Whether aria2 has the download, or is to be given it."""
        return bool(self.entry.gids) or self._is_to_be_added

    @property
    def _is_to_be_added(self) -> bool:
        idle = not (self._wait is not None or self.offline.waits_for or self.jobs.busy)
        return self.life.phase is Phase.FILLING and idle and not self.entry.gids

    @property
    def is_leaving(self) -> bool:
        """Whether aria2 was told to release the download, and has not yet done so."""
        return bool(self.entry.gids) and self.life.phase in _LETTING_GO

    def update(self, statuses: Mapping[str, Status]) -> None:
        """Handle the current statuses, by gid; a missing gid is not known to aria2."""
        try:
            if self._is_to_be_added:
                self.add()
            elif self.entry.gids:
                self._update([statuses[gid] for gid in self.entry.gids if gid in statuses])
        except DaemonUnavailable:
            if self.entry.daemon is None or self.entry.daemon.error is not None:
                raise
            # Otherwise aria2c is being restarted; it is polled again when it is back.

    def _update(self, statuses: list[Status]) -> None:
        are_complete = [status["status"] == "complete" for status in statuses]
        if self.is_leaving:
            if not all(status["status"] in _OVER for status in statuses):
                self.entry.remove()  # again: the first call may have been lost
                return
            if statuses and all(are_complete):
                self._note_whole(statuses)
            self._let_go()
            return
        if not self.entry.is_in_this_process:
            return  # aria2c was restarted; daemon_is_back() will follow
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
        """Another program has paused or removed the download in aria2: do the same here."""
        _log.info("%s: another program has set it to %s in aria2", self.shown_url, status)
        self.download.want(status)
        self.life.stop()

    def _note_whole(self, statuses: list[Status]) -> None:
        if size := sum(int(status["totalLength"]) for status in statuses):
            self.note_pieces(ControlFile(size, size, b"\2"))

    def _note_figures(self, statuses: list[Status]) -> None:
        def total(key: str) -> int:
            return sum(int(status[key]) for status in statuses)

        connections = total("connections")
        # A download that ended before the first poll shows no connection, but has used one.
        has_come = total("completedLength") > self.resumed_bytes
        self.connections = max(self.connections, connections, int(has_come))
        # At first aria2 reports no lengths, since it has not yet read the control file.
        if total("totalLength") or not self.resumed_bytes:
            downloaded, size = total("completedLength"), total("totalLength") or self.figures_now.total
            self.meter.sample(self.now_s(), downloaded)
            self.figures_now = Figures(downloaded, size, self.meter.speed(), connections)
            self.refuse_too_large(max(downloaded, size))
        else:
            self.figures_now = self.figures_now._replace(connections=connections)

    def figures(self) -> Figures:
        """The current progress. May be called from any thread."""
        return self.figures_now

    @property
    def waits_for(self) -> str:
        """What the download is waiting for, in words. May be called from any thread."""
        wait = self._wait
        if wait is not None:
            return wait.what
        if self.entry.is_held:
            return _REST
        return self.offline.waits_for or self.jobs.what or (self.transferer if self.life.phase is Phase.FILLING else "")

    def change(self, options: DownloadOptions) -> None:
        """Apply new options to the running download. For all but the limit, aria2 restarts it where it was."""
        self.options = options
        self._check_options()
        for url in self.options.mirrors:
            self.sources.add(url)
        self.sources.join_all()
        self.tell_change()

    def tell_change(self) -> None:
        """Pass changed URLs and options to aria2, which will then send further requests."""
        self.responses += 1
        if self.entry.gids and self.life.phase is Phase.FILLING:
            self.entry.change(self.request(), self.translated())

    # -- when aria2c is gone, or back ---------------------------------------------------------------------------------

    def daemon_is_back(self, known: set[str]) -> bool:
        """A restarted aria2c has the gids in ``known``, all paused. Returns whether it is to continue this download."""
        if self.is_leaving:
            self._let_go()
        elif self.entry.gids and known.issuperset(self.entry.gids):
            self.entry.is_taken_along()
            self.responses += 1
            return True
        else:
            self.entry.gids = []  # so that the next poll adds it again
        return False

    def daemon_is_away(self) -> None:
        """aria2c is not running at the moment, so that nothing touches the files."""
        if self.is_leaving:
            self._let_go()

    def daemon_is_lost(self, error: DaemonUnavailable) -> None:
        """aria2c is gone for good."""
        if self.is_in_aria2 and not self.is_leaving:
            self.entry.gids = []
            raise DaemonUnavailable(error.reason, url=self.shown_url)

    # -- failures -----------------------------------------------------------------------------------------------------

    def _gave_up(self, status: Status) -> None:
        """aria2 has reported an error for the download."""
        if status.get("errorCode") in _DISK_CODES and (pieces := self.entry.pieces()) is not None:
            self.note_pieces(pieces)
        self.entry.forget()
        self.backend.grants.give_back(self)
        code, downloaded = int(status.get("errorCode", 1)), self.figures_now.downloaded
        is_fresh = downloaded <= self._begun_with
        if code in (9, 17) and is_fresh and self.entry.option("file-allocation") == "falloc":
            # Not every file system can reserve space, and aria2 fails instead of continuing without.
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
        """A try has failed: call ``again`` after a while, or start over. Raises ``error`` if there is no try left."""
        downloaded = self.figures_now.downloaded
        host = failure.host or self.host()
        url = failure.address or self.sources[URL].url
        # A proxy's status says nothing about the host behind it.
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
        """Call ``again`` after ``seconds``."""

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
        """Cancel the current wait, if any."""
        if self._wait is not None:
            self._wait.timer.cancel()
            self._wait = None

    # -- the end ------------------------------------------------------------------------------------------------------

    def withdraw(self) -> None:
        """Remove the download from aria2, and continue when aria2 has released it."""
        self._stop_waiting()
        self.offline.stop()
        if self.entry.gids:
            self.entry.remove()
        else:
            self._let_go()

    def _let_go(self) -> None:
        """aria2 no longer touches the files."""
        self.entry.forget()
        self.backend.grants.give_back(self)
        self.life.fire(Event.LET_GO)
