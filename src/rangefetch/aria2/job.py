"""A job: one download while aria2 works at it, from the first question to the final name.

What is to be fetched is asked here first (``remote``), where it goes is decided here (``landing``), and the bytes are
aria2's business. Whatever aria2 gives up, comes back after a while as far as ``retry`` says so: it goes on where it
was, since starting is resuming.
"""

from __future__ import annotations

import contextlib
import enum
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rangefetch.aria2.abilities import refusal
from rangefetch.aria2.entry import Entry, Status
from rangefetch.aria2.folder import FolderLanding
from rangefetch.aria2.landing import AnotherFile, Contradiction, Doubt, FileLanding
from rangefetch.aria2.remote import Remote, Unanswered, ask_any, describe, difference, is_http
from rangefetch.aria2.translate import judge, to_aria2
from rangefetch.aria2.tries import Tries
from rangefetch.download import Download, Figures
from rangefetch.errors import ContentChanged, DaemonUnavailable, DiskError, DownloadError, LocalError, TimedOut
from rangefetch.logs import log as _log
from rangefetch.network import mask_url
from rangefetch.options import HTTP, check_url, is_followed
from rangefetch.progress import DownloadResult, SpeedMeter
from rangefetch.retry import Curl, Failure, Kind, explain
from rangefetch.sources import Source, Sources

if TYPE_CHECKING:
    from rangefetch.aria2.backend import Aria2Backend

__all__ = ["LET_GO_S", "Job", "Phase"]

R = TypeVar("R")

LET_GO_S = 120.0
"""After so long a download that is to end is told to have ended, whatever still holds it."""
_ANSWER_S = 300.0  # for a server, or for refresh_url
_MIRROR_EVERY_S = 0.5
_MIRROR_TRIES = 3
_DISK_CODES = frozenset({"9", "14", "15", "16", "17", "18"})
_OVER = frozenset({"complete", "error", "removed"})


class Phase(enum.Enum):
    """What is going on with a job."""

    ON_DISK = "a worker is at its files"
    ASKING = "the server is asked what there is"
    REFRESHING = "refresh_url is asked for a new link"
    WAITING = "for the time of the next try"
    FETCHING = "aria2 has it, or is about to"
    LEAVING = "aria2 is letting go of it"
    LEFT = "a worker saves or removes what there is"
    ENDED = "the outcome is told"


_WAITS = {
    Phase.ON_DISK: "the disk",
    Phase.ASKING: "the server's answer",
    Phase.REFRESHING: "refresh_url",
    Phase.WAITING: "the time of the next try",
    Phase.FETCHING: "aria2",
    Phase.LEAVING: "aria2 to end its transfers",
    Phase.LEFT: "the disk to save the state",
    Phase.ENDED: "",
}
"""What a job waits for, in words."""


class Job:
    """One download at work. All methods run on the backend's thread; files and servers are left to others."""

    def __init__(self, backend: Aria2Backend, download: Download) -> None:
        self.download = download
        self.entry = Entry(download.gid)
        self.phase = Phase.ON_DISK
        self._entered_s = time.monotonic()
        self._ending_s = math.inf  # when it was to end
        self.next_try_s = math.inf
        """When it is to be tried again, if that is what it waits for."""
        self._backend = backend
        self._options = backend.options_for(download)
        self._shown_url = mask_url(download.url)
        self._sources = Sources(
            download.url,
            tuple(self._options.mirrors),
            tuple(self._options.github_mirrors) if self._options.use_github_mirror else (),
        )
        self._sources.join_all()
        self._tries = Tries(backend.policy, self._options, self._shown_url)
        self._file: FileLanding | None = None
        self._folder: FolderLanding | None = None
        self._landing: FileLanding | FolderLanding
        if is_followed(download.url):
            self._landing = self._folder = FolderLanding(download, lambda: self._halting)
        else:
            self._landing = self._file = FileLanding(download, self._sources, lambda: self._halting)
        self._at_disk = False  # a worker is at the files, and nothing else may be
        self._question = 0  # which one is open; an answer to an earlier one does not count
        self._halting = False
        self._remove_files = False
        self._error: DownloadError | None = None
        self._figures = Figures()
        self._meter = SpeedMeter()
        self._complete = False  # every byte is there
        self._most_connections = 0
        self._refreshed = False  # a new link was asked for since the last byte
        self._answering = self._sources[0]  # the source whose answer counts now
        self._next_mirror_s = 0.0
        self._responses = 0  # from how many the bytes came; 2: from several
        self._begun_with = 0  # the bytes that were there when aria2 got it
        download.figures = lambda: self._figures
        download.waits = lambda: _WAITS[self.phase]

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._entered_s = time.monotonic()

    # -- beginning --------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Take the place on disk; the rest follows from there."""
        if self.download.sink is not None:
            self._enter(Phase.WAITING)
            raise LocalError("aria2 cannot stream; that takes the native backend", url=self._shown_url)
        self._check_options()

        def opened(already: Path | Doubt | None) -> None:
            if isinstance(already, Path):
                self._already_complete(already)
            elif self._is_asked_first:
                self._ask()
            else:
                self._meet(self._sources[0], None)

        self._on_disk(self._open, opened)

    def _check_options(self) -> None:
        """Raises ``LocalError`` for options that aria2 cannot honour."""
        if reason := refusal(self.download.url, self._options):
            raise LocalError(f"the aria2 backend cannot honour {reason}", url=self._shown_url)

    def _open(self) -> Path | Doubt | None:
        already = self._landing.open()
        if already is None:
            self.entry.daemon = self._backend.daemon_for(self._options)  # which may have to be started
        return already

    def _ask(self) -> None:
        """Ask the sources, one after the other, what there is; for what a torrent or Metalink describes, fetch that."""
        usable, options, folder = self._sources.usable(), self._options, self._folder

        def meet(answer: tuple[Source, Remote]) -> None:
            self._meet(*answer)

        def read(description: tuple[bytes, str]) -> None:
            assert folder is not None
            folder.describe(*description)
            self._add()

        if folder is None:
            # What the file is, is the URL's word, unless a checksum tells.
            is_first = usable[:1] == [self._sources[0]] and not options.checksum
            self._inquire(lambda: ask_any(usable, options, self._backend.policy, first_decides=is_first), meet)
        else:
            self._inquire(lambda: describe(self._sources[0], options), read)

    def _inquire(self, question: Callable[[], R], then: Callable[[R], None]) -> None:
        """Put a question to servers, and go on with the answer; where there is none, after a while once more."""
        self._enter(Phase.ASKING)
        self._question += 1
        number = self._question

        def answered(future: Future[R]) -> None:
            if number != self._question or self.phase is not Phase.ASKING:
                return  # nobody waits for it any more
            try:
                answer = future.result()
            except Unanswered as unanswered:
                self._unanswered(unanswered.failure)
            else:
                then(answer)

        self._backend.aside(self, question, answered)

    def _unanswered(self, failure: Failure) -> None:
        if self._asks_for_link(failure):
            return
        error_class, words = explain(failure)
        kind = self._backend.policy.classify(failure)
        if kind is Kind.PERMANENT and self._sources.usable() and self._file is not None:
            kind = Kind.TEMPORARY  # for those that may do better another time
        error = error_class(words, url=self._shown_url, status=failure.status)
        try:
            self._tried_in_vain(error, kind, failure.retry_after_s)
        except DownloadError:
            if self._sources[0].banned or not self._sources.others(0) or self._folder is not None:
                raise
            _log.warning("%s: %s; only its mirrors are left", self._shown_url, error.reason)
            self._sources[0].banned = True
            self._ask()

    def _asks_for_link(self, failure: Failure) -> bool:
        """Whether the caller is asked for a new link, in the place of one that has expired."""
        refresh, source = self._options.refresh_url, self._sources[0]
        if refresh is None or failure.status not in (401, 403, 410) or self._refreshed:
            return False
        self._refreshed = True
        listener = self._backend.listener

        def got(future: Future[str]) -> None:
            # It may have waited for another download, which had this one's place meanwhile.
            listener.asks(self.download, asking=False)
            if self.phase is not Phase.REFRESHING:
                return
            try:
                self._sources.move(0, check_url(future.result(), "refresh_url", HTTP))
            except Exception as error:  # of the caller's function
                raise LocalError(f"no new link: {error}", url=self._shown_url) from error
            source.banned = False
            self._ask()

        self._enter(Phase.REFRESHING)
        self._backend.aside(self, lambda: refresh(source.url), got)
        listener.asks(self.download, asking=True)
        return True

    def _meet(self, source: Source, remote: Remote | None) -> None:
        """The place learns what the remote file is, and whether what is there is part of it."""
        self._answering = source

        def met(outcome: Path | Doubt | None) -> None:
            if isinstance(outcome, Doubt):
                self._resolve(outcome, met)
            elif outcome is not None:
                self._already_complete(outcome)
            elif self._complete or (self._file is not None and self._file.is_whole):
                self._complete = True
                self._finish(proven=True)
            else:
                self._figures = self._figures._replace(
                    downloaded=max(self._figures.downloaded, self._landing.resumed),
                    total=max(remote.size if remote is not None else 0, 0),
                )
                if remote is not None and not remote.ranged:
                    self._tries.lanes = 1
                self._add()

        file = self._file
        if file is None:
            met(None)
        else:
            self._on_disk(lambda: file.meet(source, remote), met)

    def _resolve(self, doubt: Doubt, then: Callable[[Path | Doubt | None], None]) -> None:
        """Compare bytes that are there with those of the server that answered."""
        source, options = self._answering, self._options
        self._inquire(
            lambda: difference(source, options, doubt.size, doubt.samples),
            lambda differs: self._on_disk(lambda: doubt.resolve(differs), then),
        )

    def _check_mirrors(self) -> None:
        """Give aria2 a further source when that was seen to have the same bytes: it mixes what it gets."""
        file = self._file
        mirror = file.unchecked_mirror() if file is not None else None
        if file is None or mirror is None:
            return
        self._next_mirror_s = math.inf

        def checked(future: Future[Remote | None]) -> None:
            self._next_mirror_s = time.monotonic() + _MIRROR_EVERY_S
            try:
                remote = future.result()
            except Unanswered as unanswered:
                _log.info("%s: the mirror %s: %s", self._shown_url, mask_url(mirror.url), unanswered)
                mirror.failures += 1
                permanent = self._backend.policy.classify(unanswered.failure) is Kind.PERMANENT
                mirror.banned = permanent or mirror.failures >= _MIRROR_TRIES
            except Contradiction as contradiction:
                self._drop(mirror, contradiction)
            else:
                if remote is None:
                    return
                file.trust_mirror(mirror, remote)
            if self.phase is Phase.FETCHING and self.entry.gids:
                self.entry.change(file.request(ask_head=self._tries.can_head), self._translated())

        self._backend.aside(self, lambda: file.check_mirror(mirror), checked)

    def _drop(self, mirror: Source, contradiction: Contradiction) -> None:
        _log.warning("%s: the mirror %s is left out: %s", self._shown_url, mask_url(mirror.url), contradiction)
        mirror.banned = True

    @property
    def _is_asked_first(self) -> bool:
        """Whether there is a server that can be asked what there is."""
        if self._folder is not None:
            return self._folder.lacks_description
        return is_http(self._sources.url)

    @property
    def is_in_aria2(self) -> bool:
        """Whether aria2 has something to say of it."""
        return self.phase in (Phase.FETCHING, Phase.LEAVING)

    # -- with aria2 -------------------------------------------------------------------------------------------------

    def _add(self) -> None:
        """Give it to aria2. If nobody answers, it is given later."""
        self._enter(Phase.FETCHING)
        self._begun_with = self._figures.downloaded
        self._responses += 2 if min(self._tries.lanes, self._options.split) > 1 or self._begun_with else 1
        self._meter.reset()
        self.entry.add(self._landing.request(ask_head=self._tries.can_head), self._translated())
        if self._folder is not None and self.entry.gids and not self.download.url.lower().startswith("magnet:"):
            with contextlib.suppress(DaemonUnavailable):  # they are looked at again when all is there
                self._folder.name(self.entry.paths())

    def _translated(self) -> dict[str, str]:
        options = to_aria2(self._options, self._tries.lanes)
        sources = len(self._sources.usable())
        if sources > 1:
            # Lanes are left for mirrors: aria2 takes none from a server that works for one that comes later.
            share = max(1, int(options["split"]) // sources)
            options["max-connection-per-server"] = str(min(int(options["max-connection-per-server"]), share))
        if not self._tries.can_reserve and options["file-allocation"] == "falloc":
            options["file-allocation"] = "trunc"
        if options["split"] == "1":
            options["max-tries"] = "1"  # so that it is known whether all came in one response
        return options

    def update(self, statuses: Mapping[str, Status]) -> None:
        """What aria2 says of it now, by gid; one that is missing is not known to it."""
        try:
            if self.phase is Phase.FETCHING and not self.entry.gids:
                self._add()
            elif self.is_in_aria2:
                self._update([statuses[gid] for gid in self.entry.gids if gid in statuses])
        except DaemonUnavailable:
            if self.entry.daemon is None or self.entry.daemon.error is not None:
                raise
            # It is asked again when it is back.

    def _update(self, statuses: list[Status]) -> None:
        are_complete = [status["status"] == "complete" for status in statuses]
        if self.phase is Phase.LEAVING:
            if all(status["status"] in _OVER for status in statuses):
                self._complete = bool(statuses) and all(are_complete)
                self._left()
            else:
                self.entry.remove()  # once more: it may not have heard
            return
        if len(statuses) < len(self.entry.gids):
            self.entry.gids = []  # forgotten by a new aria2c
            return
        self._note_figures(statuses)
        for status in statuses:
            if status["status"] in ("error", "removed"):
                self._gave_up(status)
                return
        if all(are_complete):
            followed = [gid for status in statuses for gid in status.get("followedBy", [])]
            if followed and self._folder is not None:
                self._folder.name(self.entry.follow(followed))
            else:
                self._completed()

    def _note_figures(self, statuses: list[Status]) -> None:
        def total(key: str) -> int:
            return sum(int(status[key]) for status in statuses)

        connections = total("connections")
        self._most_connections = max(self._most_connections, connections)
        # At first aria2 has not looked at what is there already.
        if total("totalLength") or not self._landing.resumed:
            self._refreshed = self._refreshed and total("completedLength") <= self._figures.downloaded
            downloaded, size = total("completedLength"), total("totalLength") or self._figures.total
            self._meter.sample(time.monotonic(), downloaded)
            self._figures = Figures(downloaded, size, self._meter.speed(), connections)
        else:
            self._figures = self._figures._replace(connections=connections)

    def tick(self, now_s: float) -> None:
        """A few times a second."""
        if now_s - self._ending_s > LET_GO_S:
            _log.warning("%s: abandoned: it does not stop (%s)", self._shown_url, _WAITS[self.phase])
            self.tell_end(self._error)
            return
        if self.phase in (Phase.ASKING, Phase.REFRESHING) and now_s - self._entered_s > _ANSWER_S:
            self._question += 1  # the answer does not count any more
            self._enter(Phase.ASKING)
            self._unanswered(Failure(code=Curl.OPERATION_TIMEDOUT, text="no answer for too long"))
        limit_s = self._options.total_timeout
        if limit_s and now_s - self.download.started_s > limit_s and not self._is_ending:
            raise TimedOut(f"not finished after {limit_s:g} seconds", url=self._shown_url)
        if self.phase is Phase.FETCHING and self.entry.gids and now_s >= self._next_mirror_s:
            self._check_mirrors()
        if self.phase is Phase.WAITING and now_s >= self.next_try_s:
            self.next_try_s = math.inf
            if self._is_asked_first:
                self._ask()
            else:
                self._add()

    def change(self) -> None:
        """Apply the download's new options to what runs. aria2 begins anew where it was for all but the limit."""
        self._options = options = self._backend.options_for(self.download)
        self._check_options()
        self._landing.change(options)
        for url in options.mirrors:
            self._sources.add(url)
        self._sources.join_all()
        if self.phase is Phase.FETCHING and self.entry.gids:
            self.entry.change(self._landing.request(ask_head=self._tries.can_head), self._translated())

    # -- when aria2c is gone, or back -------------------------------------------------------------------------------

    def daemon_is_back(self, known: set[str]) -> bool:
        """A new aria2c knows these gids, all paused. Returns whether it is to go on with this one as it has it."""
        if self.phase is Phase.FETCHING and self.entry.gids and known.issuperset(self.entry.gids):
            return True
        if self.phase is Phase.FETCHING:
            self.entry.gids = []  # and it is added when aria2 is asked the next time
        elif self.phase is Phase.LEAVING:
            self._left()
        return False

    def daemon_is_away(self) -> None:
        """There is no aria2c at the moment: nobody touches the files."""
        if self.phase is Phase.LEAVING:
            self._left()

    def daemon_is_lost(self, error: DaemonUnavailable) -> None:
        """aria2c is gone for good."""
        if self.phase is Phase.FETCHING:
            self.entry.gids = []
            raise DaemonUnavailable(error.reason, url=self._shown_url)

    # -- failures ---------------------------------------------------------------------------------------------------

    def _gave_up(self, status: Status) -> None:
        """aria2 has ended it without success."""
        if status["status"] == "removed":
            raise LocalError("it was removed from aria2 by another program", url=self._shown_url)
        if self._file is not None and status.get("errorCode") in _DISK_CODES:
            pieces = self.entry.pieces()
            if pieces is not None:
                self._file.note_pieces(pieces)
        self.entry.forget()
        code, downloaded = int(status.get("errorCode", 1)), self._figures.downloaded
        is_fresh = downloaded <= self._begun_with
        if code in (9, 17) and is_fresh and self.entry.option("file-allocation") == "falloc":
            # Not every file system can, and aria2 does not go on without.
            self._tries.can_reserve = False
            self._wait(0.0)
        elif code != 8 and is_fresh and self.entry.option("use-head") == "true":
            self._tries.can_head = False
            self._wait(0.0)
        else:
            verdict = judge(
                code,
                status.get("errorMessage", ""),
                url=self._shown_url,
                policy=self._backend.policy,
                answered=downloaded > 0,
                redirected=any(source.redirected for source in self._sources),
                other_lanes=min(self._tries.lanes, self._most_connections) - 1 if downloaded else 0,
            )
            self._tried_in_vain(verdict.error, verdict.kind)

    def _tried_in_vain(self, error: DownloadError, kind: Kind, retry_after_s: float = 0.0) -> None:
        """A try has failed: once more after a while, or the end."""
        following = self._tries.failed(
            error,
            kind,
            downloaded=self._figures.downloaded,
            connections=self._most_connections,
            retry_after_s=retry_after_s,
        )
        if following.anew:
            self._complete = False
            self._responses = 0
            self._figures = Figures()
            self._on_disk(self._landing.restart, lambda _: self._wait(following.wait_s))
        else:
            self._wait(following.wait_s)

    def _wait(self, seconds: float) -> None:
        self._enter(Phase.WAITING)
        self._figures = self._figures._replace(speed=0.0, connections=0)
        self.next_try_s = time.monotonic() + seconds

    # -- the end ----------------------------------------------------------------------------------------------------

    def _completed(self) -> None:
        """aria2 has every byte."""
        folder = self._folder
        paths = self.entry.paths() if folder is not None else []
        self._complete = True
        self.entry.forget()
        if folder is None:
            self._finish(proven=False)
        else:
            self._on_disk(
                lambda: folder.finish(paths),
                lambda moved: self._tell_complete(*moved) if moved is not None else self._left(),
                at_any_rate=True,
            )

    def _finish(self, *, proven: bool) -> None:
        """Every byte is there: see that they are one version of the remote file, and give it its name."""
        file = self._file
        assert file is not None
        # One response is one version, and a file that changes all the time is never found as it was.
        is_one = self._responses == 1 and self._tries.restarted
        if not proven and file.wants_proof and not is_one:
            self._ask()
            return

        def finished(published: tuple[Path, int] | None) -> None:
            if published is not None:
                self._tell_complete(*published)
            else:
                self._left()

        def looked(doubt: Path | Doubt | None) -> None:
            if isinstance(doubt, Doubt):
                self._resolve(doubt, looked)
            else:
                self._on_disk(file.finish, finished, at_any_rate=True)

        responses = self._responses
        self._on_disk(lambda: file.last_doubt(responses=responses), looked)

    def _already_complete(self, path: Path) -> None:
        """The file is there, and what was begun for it is not needed."""

        def discard() -> int:
            size = path.stat().st_size
            self._landing.discard()
            return size

        self._on_disk(discard, lambda size: self._tell_complete(path, size, already=True), at_any_rate=True)

    def _tell_complete(self, path: Path, size: int, *, already: bool = False) -> None:
        self._end()
        self._backend.listener.completed(
            self.download,
            DownloadResult(
                path=path,
                filename=path.name,
                size=size,
                gid=self.download.gid,
                checksum=self._landing.checksum,
                seconds=time.monotonic() - self.download.started_s,
                retries=self._tries.retries,
                sources=tuple(mask_url(each.resolved_url) for each in self._sources if each.answered)
                or (mask_url(self._sources.url),),
                connections=self._most_connections,
                resumed=self._landing.resumed,
                already_complete=already,
                identity=self._landing.basis(responses=self._responses),
            ),
        )

    def halt(self, *, remove_files: bool = False) -> None:
        """Stop, save (or remove what there is), and tell the listener."""
        self._remove_files = self._remove_files or remove_files
        if self.phase is not Phase.ENDED and not self._is_ending:
            self._halting = True
            self._ending_s = time.monotonic()
            self._leave()

    def fail(self, error: DownloadError) -> None:
        """Stop, keep what can be continued, and tell the listener."""
        if self.phase is Phase.ENDED or self._is_ending:
            _log.debug("%s: after its end: %s", self._shown_url, error)
            return
        error.url = error.url or self._shown_url
        self._error = error
        self._ending_s = time.monotonic()
        self._leave()

    @property
    def _is_ending(self) -> bool:
        return self._halting or self._error is not None

    def _leave(self) -> None:
        """Take it out of aria2, and go on when that is done."""
        if self._at_disk:
            return  # and the end follows when that is done
        if self.phase is Phase.FETCHING and self.entry.gids:
            self._enter(Phase.LEAVING)
            self.entry.remove()
        else:
            self._left()

    def _left(self) -> None:
        """aria2 does not touch the files any more: keep what can be continued, and tell."""
        self.entry.forget()
        self.next_try_s = math.inf
        landing = self._landing
        if self._remove_files:
            self._on_disk(landing.discard, lambda _: None)
        else:
            complete = self._complete
            self._on_disk(lambda: landing.keep(complete=complete), lambda _: None)
        self._enter(Phase.LEFT)

    def tell_end(self, error: DownloadError | None) -> None:
        """Tell the listener, whatever is still going on; once."""
        if self.phase is Phase.ENDED:
            return
        self._end()
        if error is not None:
            self._backend.listener.failed(self.download, error)
        else:
            self._backend.listener.halted(self.download)

    def _end(self) -> None:
        self._enter(Phase.ENDED)
        self._ending_s = math.inf
        self._backend.job_ended(self)

    def _on_disk(self, work: Callable[[], Any], then: Callable[[Any], None], *, at_any_rate: bool = False) -> None:
        """Have a worker do something with the files, and go on with ``then``, unless it is to end.

        ``at_any_rate``: what was done cannot be undone, so that it counts even then.
        """
        self._enter(Phase.ON_DISK)
        self._at_disk = True

        def done(future: Future[Any]) -> None:
            self._at_disk = False
            error = future.exception()
            if isinstance(error, OSError) and not isinstance(error, DownloadError):
                error = DiskError(str(error), url=self._shown_url, errno=error.errno or 0)
            if self.phase is Phase.ENDED:
                return  # it was left behind
            if self.phase is Phase.LEFT:
                if error is not None:
                    _log.warning("%s: %s", self._shown_url, error)
                    if isinstance(error, DiskError):
                        error.url = error.url or self._shown_url
                        self._error = self._error or error
                elif (kept := future.result()) is not None:
                    # More, perhaps, than when aria2 was asked last.
                    self._figures = self._figures._replace(downloaded=kept)
                self.tell_end(self._error)
            elif self._is_ending and (error is not None or not at_any_rate):
                if error is not None:
                    _log.debug("%s: after its end: %s", self._shown_url, error)
                self._left()
            elif isinstance(error, Contradiction):
                self._drop(self._answering, error)
                if not self._sources.usable():
                    raise ContentChanged(
                        f"no source has this version of the file any more: {error}", url=self._shown_url
                    )
                self._ask()
            elif isinstance(error, Unanswered):
                self._unanswered(error.failure)
            elif isinstance(error, AnotherFile):
                self._tried_in_vain(ContentChanged(str(error), url=self._shown_url), Kind.CHANGED)
            elif error is not None:
                raise error
            else:
                then(future.result())

        self._backend.work(self, work, done)
