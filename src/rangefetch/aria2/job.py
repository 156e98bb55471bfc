"""A job: one download while aria2 works at it, from the first question to the final name.

What is to be fetched is asked here first (``remote``), where it goes is decided here (``landing``), and the bytes are
aria2's business. Whatever aria2 gives up, comes back after a while as far as ``retry`` says so: it goes on where it
was, since starting is resuming.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rangefetch.aria2.client import RpcError
from rangefetch.aria2.folder import FolderLanding, is_followed
from rangefetch.aria2.landing import AnotherFile, FileLanding
from rangefetch.aria2.remote import Remote, Unanswered, ask, is_http
from rangefetch.aria2.translate import judge, to_aria2
from rangefetch.aria2.tries import Tries
from rangefetch.download import Download, Figures
from rangefetch.errors import ContentChanged, DaemonUnavailable, DownloadError, LocalError, TimedOut
from rangefetch.network import mask_url
from rangefetch.options import DownloadOptions
from rangefetch.progress import DownloadResult, SpeedMeter
from rangefetch.retry import Kind, explain
from rangefetch.sources import Source, Sources

if TYPE_CHECKING:
    from rangefetch.aria2.backend import Aria2Backend
    from rangefetch.aria2.daemon import Aria2Daemon

__all__ = ["STATUS_KEYS", "Job"]

_log = logging.getLogger("rangefetch")

STATUS_KEYS = [
    "gid", "status", "totalLength", "completedLength", "connections", "errorCode", "errorMessage", "followedBy",
]  # fmt: skip
"""What is asked of a download's status from time to time."""

_OVER = frozenset({"complete", "error", "removed"})

Status = Mapping[str, Any]


class Phase(enum.Enum):
    """What is going on with a job."""

    ON_DISK = "a worker is at its files"
    ASKING = "the server is asked what there is"
    WAITING = "for the time of the next try"
    FETCHING = "aria2 has it, or is about to"
    LEAVING = "aria2 is letting go of it"
    LEFT = "a worker saves or removes what there is"
    ENDED = "the outcome is told"


class Job:
    """One download at work. All methods run on the backend's thread; files and servers are left to others."""

    def __init__(self, backend: Aria2Backend, download: Download) -> None:
        self.download = download
        self.daemon: Aria2Daemon | None = None
        self.phase = Phase.ON_DISK
        self.gids: list[str] = []
        """What aria2 knows it by, while it does."""
        self._backend = backend
        self._options = download.options
        self._shown_url = mask_url(download.url)
        self._sources = Sources(
            download.url,
            tuple(self._options.mirrors),
            tuple(self._options.github_mirrors) if self._options.use_github_mirror else (),
        )
        self._tries = Tries(backend.policy, self._options, self._shown_url)
        self._file: FileLanding | None = None
        self._folder: FolderLanding | None = None
        self._landing: FileLanding | FolderLanding
        if is_followed(download.url):
            self._landing = self._folder = FolderLanding(download)
        else:
            self._landing = self._file = FileLanding(download, self._sources, lambda: self._halting)
        self._at_disk = False  # a worker is at the files, and nothing else may be
        self._question = 0  # which one is open; an answer to an earlier one does not count
        self._uncertain = False  # whether aria2 may know it already
        self._halting = False
        self._remove_files = False
        self._error: DownloadError | None = None
        self._figures = Figures()
        self._meter = SpeedMeter()
        self._complete = False  # every byte is there
        self._next_try_s = 0.0
        self._most_connections = 0
        self._asked: dict[str, Any] = {}  # the options that aria2 has been given
        download.figures = lambda: self._figures

    # -- beginning --------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Take the place on disk; the rest follows from there."""

        def opened(already: Path | None) -> None:
            if already is not None:
                self._tell_complete(already, already=True)
            elif self._folder is not None or not is_http(self._sources.url):
                self._meet(self._sources[0], None)
            else:
                self._ask()

        self._on_disk(self._open, opened)

    def _open(self) -> Path | None:
        already = self._landing.open()
        if already is None:
            self.daemon = self._backend.daemon_for(self._options)  # which may have to be started
        return already

    def _ask(self) -> None:
        """Ask the sources, one after the other, what there is."""
        self.phase = Phase.ASKING
        usable = self._sources.usable()

        def question() -> tuple[Source, Remote]:
            policy = self._backend.policy
            for source in usable:
                try:
                    return source, ask(source, self._options)
                except Unanswered as error:
                    last = source is usable[-1]
                    if policy.classify(error.failure) is Kind.PERMANENT:
                        source.banned = True
                    if last:
                        raise
                    _log.info("%s: %s; asking another source", mask_url(source.url), explain(error.failure)[1])
            raise AssertionError("there is always a source to ask")

        self._question += 1
        number = self._question

        def answered(future: Future[tuple[Source, Remote]]) -> None:
            if number != self._question or self.phase is not Phase.ASKING:
                return  # nobody waits for it any more
            try:
                source, remote = future.result()
            except Unanswered as unanswered:
                failure = unanswered.failure
                error_class, words = explain(failure)
                kind = self._backend.policy.classify(failure)
                if kind is Kind.PERMANENT and self._sources.usable():
                    kind = Kind.TEMPORARY  # for those that may do better another time
                error = error_class(words, url=self._shown_url, status=failure.status)
                self._tried_in_vain(error, kind, failure.retry_after_s)
            else:
                source.answered = True
                source.resolved_url = remote.url
                self._meet(source, remote)

        self._backend.aside(self, question, answered)

    def _meet(self, source: Source, remote: Remote | None) -> None:
        """The place learns what the remote file is, and whether what is there is part of it."""

        def met(already: Path | None) -> None:
            if already is not None:
                self._tell_complete(already, already=True)
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
                self.phase = Phase.FETCHING
                self.add()

        file = self._file
        if file is None:
            met(None)
        else:
            self._on_disk(lambda: file.meet(source, remote), met)

    @property
    def is_in_aria2(self) -> bool:
        """Whether aria2 has something to say of it."""
        return self.phase in (Phase.FETCHING, Phase.LEAVING)

    # -- with aria2 -------------------------------------------------------------------------------------------------

    def add(self) -> None:
        """Give it to aria2. If that does not answer, it is given later."""
        assert self.daemon is not None
        if self.daemon.error is not None:
            raise DaemonUnavailable(self.daemon.error.reason, url=self._shown_url)
        request = self._landing.request(ask_head=self._tries.can_head)
        self._asked = {**to_aria2(self._options, self._tries.lanes), **request.options, "gid": self.download.gid}
        if not self._tries.can_reserve and self._asked["file-allocation"] == "falloc":
            self._asked["file-allocation"] = "trunc"
        method, parameters = "addUri", [request.urls, self._asked]
        if self._folder is not None and (described := self._folder.description()) is not None:
            method, content = described
            parameters = [content, [], self._asked] if method == "addTorrent" else [content, self._asked]
        client = self.daemon.client
        try:
            if self._uncertain:
                self._forget(self.daemon, [self.download.gid])
            added = client.call(method, *parameters)
        except DaemonUnavailable as error:
            self._uncertain = True
            _log.debug("%s: %s; it is added later", self._shown_url, error)
        except RpcError as error:
            if not self._uncertain or isinstance(client.call_all([("tellStatus", [self.download.gid])])[0], RpcError):
                raise LocalError(f"aria2 does not take it: {error.message}", url=self._shown_url) from None
        else:
            self._uncertain = False
            self._meter.reset()
            self.gids = added if isinstance(added, list) else [added]

    @staticmethod
    def _forget(daemon: Aria2Daemon, gids: list[str]) -> None:
        """Have aria2 know nothing of these any more. Where nobody answers, a new aria2c will be swept."""
        with contextlib.suppress(DaemonUnavailable):
            daemon.client.call_all(
                [(method, [gid]) for gid in gids for method in ("forceRemove", "removeDownloadResult")]
            )

    def update(self, statuses: Mapping[str, Status]) -> None:
        """What aria2 says of it now, by gid; one that is missing is not known to it."""
        assert self.daemon is not None
        try:
            self._update(statuses)
        except DaemonUnavailable:
            if self.daemon.error is not None:
                raise
            # It is asked again when it is back.

    def _update(self, statuses: Mapping[str, Status]) -> None:
        if self.phase is Phase.FETCHING and not self.gids:
            self.add()
            return
        mine = [statuses[gid] for gid in self.gids if gid in statuses]
        if self.phase is Phase.LEAVING:
            if all(status["status"] in _OVER for status in mine):
                self._complete = len(mine) > 0 and all(status["status"] == "complete" for status in mine)
                self._left()
            return
        if self.phase is not Phase.FETCHING:
            return
        if len(mine) < len(self.gids):
            self.gids = []  # forgotten by a new aria2c
            return
        self._note_figures(mine)
        for status in mine:
            if status["status"] in ("error", "removed"):
                self._gave_up(status)
                return
        followed = [gid for status in mine for gid in status.get("followedBy", [])]
        if all(status["status"] == "complete" for status in mine):
            if followed and self._folder is not None:
                self._follow(followed)
            else:
                self._complete = True
                self._completed()

    def _note_figures(self, statuses: list[Status]) -> None:
        def total(key: str) -> int:
            return sum(int(status[key]) for status in statuses)

        connections = total("connections")
        self._most_connections = max(self._most_connections, connections)
        if total("totalLength"):  # before, aria2 has not looked at what is there already
            downloaded = total("completedLength")
            self._meter.sample(time.monotonic(), downloaded)
            self._figures = Figures(downloaded, total("totalLength"), self._meter.speed(), connections)
        else:
            self._figures = self._figures._replace(connections=connections)

    def _follow(self, gids: list[str]) -> None:
        """A description has come; what it describes is next."""
        assert self.daemon is not None
        assert self._folder is not None
        paths = self._paths(gids)
        self._forget(self.daemon, self.gids)
        self.gids = gids
        self._folder.name(paths)

    def _paths(self, gids: list[str]) -> list[str]:
        """The files that aria2 fetches, or has fetched."""
        assert self.daemon is not None
        return [
            file["path"]
            for gid in gids
            for file in self.daemon.client.call("tellStatus", gid, ["files"])["files"]
            if file["selected"] == "true"
        ]

    def tick(self, now_s: float) -> None:
        """A few times a second."""
        limit_s = self._options.total_timeout
        if limit_s and now_s - self.download.started_s > limit_s and self._error is None and not self._halting:
            raise TimedOut(f"not finished after {limit_s:g} seconds", url=self._shown_url)
        if self.phase is Phase.WAITING and now_s >= self._next_try_s:
            self.download.note = ""
            if self._folder is not None or not is_http(self._sources.url):
                self.phase = Phase.FETCHING
                self.add()
            else:
                self._ask()

    def change(self, options: DownloadOptions) -> None:
        """Apply new options to what runs. aria2 begins anew where it was for all but the limit."""
        self._options = options
        for url in options.mirrors:
            self._sources.add(url)
        if self.phase is Phase.FETCHING and self.gids and self.daemon is not None:
            translated = to_aria2(options, self._tries.lanes)
            new = {name: value for name, value in translated.items() if self._asked.get(name) != value}
            self._asked |= new
            # If nobody answers, it is added with them.
            with contextlib.suppress(DaemonUnavailable):
                self.daemon.client.call_all([("changeOption", [gid, new]) for gid in self.gids if new])

    # -- when aria2c is gone, or back -------------------------------------------------------------------------------

    def daemon_is_back(self, known: set[str]) -> bool:
        """A new aria2c knows these gids, all paused. Returns whether it is to go on with this one as it has it."""
        if self.phase is Phase.FETCHING and self.gids and known.issuperset(self.gids):
            return True
        if self.phase is Phase.FETCHING:
            self.gids = []  # and added when aria2 is asked the next time
        elif self.phase is Phase.LEAVING:
            self._left()
        return False

    def daemon_is_lost(self, error: DaemonUnavailable) -> None:
        """aria2c is gone for good."""
        if self.phase is Phase.LEAVING:
            self._left()
        elif self.phase is Phase.FETCHING:
            self.gids = []
            raise DaemonUnavailable(error.reason, url=self._shown_url)

    # -- failures ---------------------------------------------------------------------------------------------------

    def _gave_up(self, status: Status) -> None:
        """aria2 has ended it without success."""
        assert self.daemon is not None
        code = int(status.get("errorCode", 1))
        if status["status"] == "removed":
            raise LocalError("it was removed from aria2 by another program", url=self._shown_url)
        gids, self.gids = self.gids, []
        self._forget(self.daemon, gids)
        verdict = judge(
            code,
            status.get("errorMessage", ""),
            url=self._shown_url,
            policy=self._backend.policy,
            answered=self._figures.downloaded > 0,
            redirected=any(source.redirected for source in self._sources),
            other_lanes=min(self._tries.lanes, self._most_connections) - 1 if self._figures.downloaded else 0,
        )
        if code in (9, 17) and not self._figures.downloaded and self._asked.get("file-allocation") == "falloc":
            # Not every file system can, and aria2 does not go on without.
            self._tries.can_reserve = False
            self._wait(0.0)
        elif code != 8 and self._asked.get("use-head") == "true" and self._figures.downloaded <= self._landing.resumed:
            self._tries.can_head = False
            self._wait(0.0)
        else:
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
            self._figures = Figures()
            self._on_disk(self._landing.restart, lambda _: self._wait(following.wait_s))
        else:
            self._wait(following.wait_s)

    def _wait(self, seconds: float) -> None:
        self.phase = Phase.WAITING
        self._figures = self._figures._replace(speed=0.0, connections=0)
        self._next_try_s = time.monotonic() + seconds

    # -- the end ----------------------------------------------------------------------------------------------------

    def _completed(self) -> None:
        """aria2 has every byte."""
        assert self.daemon is not None
        folder = self._folder
        paths = self._paths(self.gids) if folder is not None else []
        gids, self.gids = self.gids, []
        self._forget(self.daemon, gids)
        if folder is None:
            self._finish(proven=False)
        else:
            self._on_disk(lambda: folder.finish(paths), lambda moved: self._tell_complete(moved[0], size=moved[1]))

    def _finish(self, *, proven: bool) -> None:
        file = self._file
        assert file is not None
        if not proven and file.wants_proof:
            self._ask()
            return

        def finished(path: Path | None) -> None:
            if path is not None:
                self._tell_complete(path)

        self._on_disk(file.finish, finished)

    def _tell_complete(self, path: Path, *, already: bool = False, size: int = -1) -> None:
        if already:
            self._landing.discard()
        self._end()
        self._backend.listener.completed(
            self.download,
            DownloadResult(
                path=path,
                filename=path.name,
                size=path.stat().st_size if size < 0 else size,
                gid=self.download.gid,
                checksum=self._file.checksum if self._file is not None else "",
                seconds=time.monotonic() - self.download.started_s,
                retries=self._tries.retries,
                sources=tuple(mask_url(each.resolved_url) for each in self._sources if each.answered)
                or (mask_url(self._sources.url),),
                connections=self._most_connections,
                resumed=self._landing.resumed,
                already_complete=already,
            ),
        )

    def halt(self, *, remove_files: bool = False) -> None:
        """Stop, save (or remove what there is), and tell the listener."""
        self._remove_files = self._remove_files or remove_files
        if self.phase is not Phase.ENDED and not self._is_ending:
            self._halting = True
            self._leave()

    def fail(self, error: DownloadError) -> None:
        """Stop, keep what can be continued, and tell the listener."""
        if self.phase is Phase.ENDED or self._is_ending:
            _log.debug("%s: after its end: %s", self._shown_url, error)
            return
        error.url = error.url or self._shown_url
        self._error = error
        self._leave()

    @property
    def _is_ending(self) -> bool:
        return self._halting or self._error is not None

    def _leave(self) -> None:
        """Take it out of aria2, and go on when that is done."""
        if self._at_disk:
            return  # and the end follows when that is done
        if self.phase is Phase.FETCHING and self.gids and self.daemon is not None:
            try:
                # One that is over cannot be removed, which is just as well.
                self.daemon.client.call_all([("forceRemove", [gid]) for gid in self.gids])
                self.phase = Phase.LEAVING
                return
            except DaemonUnavailable:
                pass
        self._left()

    def _left(self) -> None:
        """aria2 does not touch the files any more: keep what can be continued, and tell."""
        if self.gids and self.daemon is not None:
            self._forget(self.daemon, self.gids)
            self.gids = []
        landing = self._landing
        if self._remove_files:
            self._on_disk(landing.discard, lambda _: None)
        else:
            complete = self._complete
            self._on_disk(lambda: landing.keep(complete=complete), lambda _: None)
        self.phase = Phase.LEFT

    def _tell_end(self) -> None:
        self._end()
        if self._error is not None:
            self._backend.listener.failed(self.download, self._error)
        else:
            self._backend.listener.halted(self.download)

    def _end(self) -> None:
        self.phase = Phase.ENDED
        self._backend.job_ended(self)

    def _on_disk(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Have a worker do something with the files, and go on with ``then``, unless it is to end."""
        self.phase = Phase.ON_DISK
        self._at_disk = True

        def done(future: Future[Any]) -> None:
            self._at_disk = False
            if self.phase is Phase.LEFT:
                if (error := future.exception()) is not None:
                    _log.warning("%s: %s", self._shown_url, error)
                self._tell_end()
            elif self._is_ending:
                if (error := future.exception()) is not None:
                    _log.debug("%s: after its end: %s", self._shown_url, error)
                self._left()
            else:
                try:
                    then(future.result())
                except AnotherFile as changed:
                    self._tried_in_vain(ContentChanged(str(changed), url=self._shown_url), Kind.CHANGED)

        self._backend.work(self, work, done)
