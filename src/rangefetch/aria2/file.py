"""One file that aria2 fetches over HTTP or FTP: asking its server about it, resuming it, and checking that it is still
the same file.

aria2 compares no validators between its requests, so we ask the server for them before the first byte, before each
further try, and after the last byte. Between runs, an unfinished download looks the same on disk under either backend:
``NAME.part`` and the saved state beside it. While aria2 is fetching, ``NAME.part.aria2`` says which bytes are there,
and the state says only which file they belong to.
"""

from __future__ import annotations

import base64
import dataclasses
import errno
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rangefetch.aria2.abilities import confinement
from rangefetch.aria2.comparing import Comparing
from rangefetch.aria2.entry import Request
from rangefetch.aria2.mirroring import Mirroring
from rangefetch.aria2.remote import (
    Remote,
    account_for,
    ask_any,
    headers_at,
    is_http,
)
from rangefetch.aria2.task import Aria2Task
from rangefetch.disk import beside, checksum
from rangefetch.disk.control_file import PIECE_BYTES, ControlFile, to_control_file
from rangefetch.disk.replacing import replace_file
from rangefetch.disk.state import SourceState, State, StateDamaged
from rangefetch.disk.target import Target
from rangefetch.errors import HOW_TO_REPLACE, BadAnswer, ContentChanged, DiskError, DownloadError, TargetExists
from rangefetch.headers import parse_date
from rangefetch.identity import (
    Basis,
    Identity,
    Same,
    Strength,
    must_compare_before_resuming,
    same,
)
from rangefetch.logs import log as _log
from rangefetch.masking import mask_url
from rangefetch.net.sources import URL, Source, origin_of
from rangefetch.options import DownloadOptions
from rangefetch.transfer import governor, saving
from rangefetch.transfer.authority import Authority, Word, is_unvouched
from rangefetch.transfer.comparison import Finding, Question, Verdict
from rangefetch.transfer.failure import Failure, Fault
from rangefetch.transfer.keeping import NOTHING_KEPT
from rangefetch.transfer.lifecycle import Event, Phase
from rangefetch.transfer.retry import Kind
from rangefetch.transfer.samples import Extent, finished_extents
from rangefetch.transfer.space import check_target

if TYPE_CHECKING:
    from rangefetch.aria2.backend import Aria2Backend
    from rangefetch.transfer.download import Download

__all__ = ["FileTask"]

_WORTH_NOTING_BYTES = 8 << 20


class FileTask(Aria2Task):
    """The task for one file. Methods run on the backend's thread, except those that are handed to a worker."""

    def __init__(self, backend: Aria2Backend, download: Download) -> None:
        super().__init__(backend, download)
        self.remote: Remote | None = None
        """The last description of the remote file; None if no server can be asked for one (FTP)."""
        self.answering = self.sources[URL]
        """The source that gave this description."""
        self.met: dict[str, Remote] = {}
        """What each source has said of its file, by the source's given URL."""
        self._pieces: ControlFile | None = None  # the pieces reported over RPC, in case the control file is lost
        self._earlier = Identity()  # the URL's file as it was before the download was started over
        self.comparing = Comparing(self)
        self.mirroring = Mirroring(self)

    @property
    def opened(self) -> Target:
        """Its place on disk, which must have been taken."""
        assert self.target is not None
        return self.target

    # -- beginning ----------------------------------------------------------------------------------------------------

    def take_place(self) -> None:
        """Lock the part file, and look for earlier data."""

        def opened(taken: Path | None) -> None:
            self.verification.begin(self.opened)
            if taken is not None:
                self.placing.compare_existing(taken, lambda: self.do(load, lambda _: self.start()))
            else:
                self.start()

        def load() -> None:
            self.placing.load()
            self.entry.daemon = self.backend.daemon_for(self.options)

        self.placing.take(self._open, opened)

    def _open(self) -> Path | None:
        taken = self.placing.open()
        control = self.opened.control_path
        for stranger in beside.strangers(self.opened.part_path):
            if stranger.name.startswith(control.name):
                words = "not created by rangefetch, and aria2c would write to it; move it away"
                raise DiskError(f"{stranger}: {words}", url=self.shown_url, errno=errno.EEXIST, filename=stranger)
        if taken is None:
            self.entry.daemon = self.backend.daemon_for(self.options)  # here on a worker, since it may have to start
        return taken

    def start(self) -> None:
        """Ask the server what the file is, if it speaks HTTP."""
        if is_http(self.sources[URL].url):
            self.life.fire(Event.ASK)
            self.ask_sources(lambda source, remote: self.turn(lambda: self._meet(source, remote)))
        else:
            self._meet(self.answering, None)

    def ask_sources(self, then: Callable[[Source, Remote], None]) -> None:
        """Ask the sources, one after the other, to describe the file."""
        usable, options = self.sources.usable(), self.options
        # The URL decides what the file is, unless there is a checksum.
        is_first = usable[:1] == [self.sources[URL]] and not options.checksum
        self.inquire(
            lambda: ask_any(usable, options, self.policy, self.backend.manners, first_decides=is_first),
            lambda answer: then(*answer),
            lambda failure: self.unanswered(failure, lambda: self.ask_sources(then)),
        )

    def classify(self, failure: Failure) -> Kind:
        """The kind of a failure to answer. It is not permanent while other sources are left, which may answer later."""
        kind = super().classify(failure)
        return Kind.TEMPORARY if kind is Kind.PERMANENT and self.sources.usable() else kind

    def unanswered(self, failure: Failure, again: Callable[[], None]) -> None:
        """No source has answered: try again, or continue with the mirrors alone. Raises the error otherwise."""
        try:
            super().unanswered(failure, again)
        except DownloadError as error:
            source = self.sources[URL]
            if source.banned or not self.sources.others(URL):
                raise
            _log.warning("%s: %s; only its mirrors are left", self.shown_url, error.reason)
            source.banned = True
            again()

    def _note(self, source: Source, remote: Remote | None) -> None:
        """Accept a source's description of its file."""
        self.answering = source
        if remote is None:
            return
        self.met[source.given_url] = self.remote = remote
        self.backend.network.heard(self.options.proxy or source.url)
        for url in (source.url, remote.url):
            self.backend.answered.add(governor.host_of_connection(url, self.options))
        self.modified_time = parse_date(remote.identity.last_modified)
        if source is self.sources[URL] and not self.verification.checksum:
            self.verification.learn(checksum.stated_by_server(remote.headers, whole=not remote.ranged))
        if not remote.ranged:
            self.tries.lanes = 1
        self.figures_now = self.figures_now._replace(total=max(remote.size, 0))

    def _meet(self, source: Source, remote: Remote | None) -> None:
        """Handle the first description of the file (None if the server cannot be asked), and choose the final name."""
        self._note(source, remote)
        if remote is not None and source is self.sources[URL] and not self._is_credible(remote):
            self.unanswered(Failure(fault=Fault.UNVOUCHED), self.start)
            return
        expected, size = self.options.expected_size, remote.size if remote is not None else -1
        if expected and size not in (-1, expected):
            raise ContentChanged(f"the remote file has {size} bytes, not {expected}", url=self.shown_url)
        self.refuse_too_large(size)

        def named(taken: Path | None) -> None:
            if taken is None:
                self._look_for_earlier()
            elif self.options.checksum:
                self.placing.compare_existing(taken, self._look_for_earlier)
            elif remote is None and self.options.auto_file_renaming:
                self.naming.rename(self._look_for_earlier, named)
            elif remote is None:
                words = f"{taken} exists and the server cannot be asked whether it is the same; {HOW_TO_REPLACE}"
                raise TargetExists(words, url=self.shown_url, filename=taken)
            else:
                self.placing.look_at_existing(taken, source, remote.identity, self._look_for_earlier)

        self.placing.take(self._name, named)

    def _is_credible(self, remote: Remote) -> bool:
        """Whether this may be the URL's file, given what the URL said before the download was started over. If the
        file had a validator and this has none, it is most likely an error page.

        Raises ``BadAnswer`` for a shorter body with no validator to show that it is a different file.
        """
        authority = Authority()
        authority.tell(self._earlier)
        word = authority.hear(URL, remote.identity, stated=remote.ranged)
        if word is Word.CUT_SHORT:
            words = f"the server sent {remote.size} bytes as the whole file, which had {self._earlier.size} before"
            raise BadAnswer(words, url=self.shown_url)
        return word is not Word.UNVOUCHED

    def _name(self) -> Path | None:
        """Choose the final name. Returns its path if a file of that name exists."""
        remote = self.remote
        said = (remote.url, remote.headers.get("content-disposition", "")) if remote is not None else ()
        return self.naming.choose(*said)

    # -- what is there already ----------------------------------------------------------------------------------------

    def _look_for_earlier(self) -> None:
        """Decide whether the data of an earlier run is still valid, and begin with it or from nothing."""
        saved, remote, source = self.saved, self.remote, self.answering
        if self.placing.earlier is not None:
            identity = remote.identity if remote is not None else Identity()
            self.placing.look_at_earlier(source, identity, self._looked_at_earlier)
            return
        if saved is None or not saved.written_end:
            self._begin_with(None)
            return
        if source is not self.sources[URL] and remote is not None and remote.size != saved.total_size:
            # A mirror must not invalidate data that the URL confirmed in an earlier run.
            self.leave_out(source, f"it has {remote.size} bytes, not {saved.total_size}", self.start)
            return
        known, provable = saved.identity_of(self.answering.given_url), bool(self.options.checksum)
        if not self._is_of_this(saved):
            if remote is not None and known is not None and not provable and _is_unvouched(remote, known):
                self.unanswered(Failure(fault=Fault.UNVOUCHED), self.start)
                return
            _log.warning("%s: the saved data is of a different file; starting over", self.shown_url)
            self._begin_with(None)
        elif provable or (known is not None and not must_compare_before_resuming(known, checksum=False)):
            self._begin_with(saved)
        else:
            self._compare_saved(saved)

    def _looked_at_earlier(self, is_same: bool) -> None:
        """Continue once it is known whether data fetched from another URL belongs to this file."""
        if is_same:
            self.comparing.proved = True
        self._begin_with(self.saved)

    def _compare_saved(self, saved: State) -> None:
        """Fetch samples of an earlier run's data again, before anything is added to it."""
        source = self.answering

        def compared(finding: Finding) -> None:
            if finding.verdict is Verdict.SAME:
                self._begin_with(saved)
            elif finding.verdict is Verdict.DIFFERENT and source is not self.sources[URL]:
                self.leave_out(source, finding.reason, self.start)
            elif finding.verdict is Verdict.UNKNOWN and not isinstance(finding.error, BadAnswer | None):
                raise finding.error
            else:
                _log.warning("%s: %s; starting over", self.shown_url, finding.reason)
                self._begin_with(None)

        extents = finished_extents(saved.blocks, saved.block_size, saved.total_size, saved.partial)
        self.comparing.compare(self.comparing.places(saved.total_size, extents), saved.total_size, compared)

    def _begin_with(self, saved: State | None) -> None:
        def prepared(written: int) -> None:
            self.resumed_bytes = written
            self.figures_now = self.figures_now._replace(downloaded=written)
            if written and self.remote is not None and written == self.remote.size:
                for event in (Event.FETCH, Event.SETTLED, Event.WHOLE):
                    self.life.fire(event)
            else:
                self.fetch()

        self.do(lambda: self._prepare(saved), prepared)

    def _prepare(self, saved: State | None) -> int:
        """Write the control file that tells aria2 which bytes are on disk. Returns their number. Raises ``DiskError``.

        The state is written too: it says which file these bytes belong to.
        """
        octets = to_control_file(saved) if saved is not None else b""
        written = ControlFile.parse(octets).written_bytes if octets else 0
        target, remote = self.opened, self.remote
        if remote is not None and remote.size > written:
            beside_this = functools.partial(self.backend.lacking_beside, self.download)
            others = self.backend.sizes.put(self.download.gid, remote.size)
            check_target(target, remote.size, written, others, beside_this, self.shown_url)
        if saved is None or not written:
            beside.remove(target.control_path)
            if not target.fresh:
                target.truncate()
            self.keeping.kept_bytes = NOTHING_KEPT
        else:
            replace_file(target.control_path, octets)
            _log.info("%s: resuming with %d of %d bytes", self.shown_url, written, saved.total_size)
        # From now on only the control file says which bytes are on disk. This state records which file they are of.
        if remote is not None and (written or remote.size >= _WORTH_NOTING_BYTES):
            nothing = ControlFile(PIECE_BYTES, remote.size, bytes(-(-remote.size // PIECE_BYTES)))
            note = self._as_state(nothing.to_bytes())
            if saved is not None and written:
                # Keep the blocks that are known to be good, in case the control file is lost.
                note = dataclasses.replace(
                    note, block_size=saved.block_size, blocks=saved.blocks, partial=saved.partial
                )
            target.save_state(note)
        return written

    def _is_of_this(self, saved: State) -> bool:
        """Whether the saved data may be part of the file that the server has now, and can be resumed."""
        if self.remote is None:
            return bool(self.options.checksum)
        if not self.remote.ranged or self.remote.size not in (-1, saved.total_size):
            return False
        known = saved.identity_of(self.answering.given_url)
        return bool(self.options.checksum) or known is None or same(known, self.remote.identity) is not Same.DIFFERENT

    # -- with aria2 ---------------------------------------------------------------------------------------------------

    def try_again(self) -> None:
        """Ask the server whether its file is still the same, as before each further try, then give it to aria2."""
        if is_http(self.sources[URL].url):
            self.ask_sources(functools.partial(self.meet_again, self.add))
        else:
            self.add()

    def meet_again(self, then: Callable[[], None], source: Source, remote: Remote) -> None:
        """A source has answered again, or another one instead: call ``then`` if its file is still the same."""
        before = self.met.get(source.given_url)
        again = functools.partial(self.ask_sources, functools.partial(self.meet_again, then))
        is_url = source is self.sources[URL]

        def contradicts(words: str) -> None:
            if is_url:
                self.has_changed(f"the URL's file differs from the one of the mirror that answered before: {words}")
            else:
                self.leave_out(source, words, again)

        def compared(finding: Finding) -> None:
            if finding.verdict is Verdict.DIFFERENT:
                contradicts(finding.reason)
            elif finding.error is not None and is_url:
                raise finding.error
            elif finding.error is not None:
                self.leave_out(source, finding.reason, again)
            else:
                self._note(source, remote)
                then()

        def looked(extents: list[Extent]) -> None:
            self.answering = source
            self.comparing.compare(self.comparing.places(remote.size, extents), remote.size, compared)

        if before is None:
            sizes = {met.size for met in self.met.values()} - {-1}
            if sizes and remote.size not in sizes:
                contradicts(f"it has {remote.size} bytes, not {sizes.pop()}")
            else:
                self.do(self.comparing.written_extents, looked)
        elif same(before.identity, remote.identity) is not Same.DIFFERENT:
            self._note(source, remote)
            then()
        elif _is_unvouched(remote, before.identity):
            self.unanswered(Failure(fault=Fault.UNVOUCHED), again)
        else:
            self.has_changed("the remote file has changed (its size, ETag or Last-Modified differs)")

    def has_changed(self, words: str) -> None:
        """The remote file has changed, so that the data fetched so far is worthless: start over, or fail."""
        self.tried_in_vain(ContentChanged(words, url=self.shown_url), Kind.CHANGED, self.begin_again)

    def leave_out(self, mirror: Source, reason: str, again: Callable[[], None]) -> None:
        """Ban a mirror whose file differs from the URL's, and call ``again``."""
        _log.warning("%s: the mirror %s is left out: %s", self.shown_url, mask_url(mirror.url), reason)
        mirror.banned = True
        if not self.sources.usable():
            raise ContentChanged(f"no URL or mirror still has this version of the file: {reason}", url=self.shown_url)
        again()

    def request(self) -> Request:
        """The URLs for aria2, and headers only if they may go to all of these: aria2 resends them on every redirect."""
        target, options, source = self.opened, self.options, self.answering
        asked: dict[str, str | list[str]] = {
            "dir": str(target.directory),
            "out": target.part_path.name,
            "follow-torrent": "false",
            "follow-metalink": "false",
            # Without HEAD, aria2 would begin a resumed download with a GET for the whole file, and abort it once the
            # header has arrived.
            "use-head": str(self.tries.can_head and target.control_path.exists()).lower(),
        }
        headers: dict[str, str] = {}
        first = source.url
        if is_http(first):
            met = self.met.get(source.given_url)
            if met is not None and origin_of(met.url) != origin_of(first) and headers_at(first, source, options):
                first = met.url
            headers = headers_at(first, source, options)
        elif (account := _account(source, options)) is not None:
            asked |= {"ftp-user": account[0], "ftp-passwd": account[1]}
        others = (each for each in self.sources.usable() if each is not source and self.mirroring.is_checked(each))
        urls = [first, *(each.url for each in others)]
        if headers and any(origin_of(url) != origin_of(first) for url in urls):
            _log.info("%s: mirrors are not used, since they must not get its headers", self.shown_url)
            urls = [url for url in urls if origin_of(url) == origin_of(first)]
        asked |= confinement(urls, options, only_host=bool(headers))
        asked["header"] = [f"{name}: {value}" for name, value in headers.items()]
        return Request(urls, asked)

    def restart(self) -> None:
        """Drop all data on disk, and everything that is known about the remote file."""
        self.opened.truncate()
        self._earlier = self.url_identity if self.url_identity.size >= 0 else self._earlier
        self.met.clear()
        self.remote = self._pieces = None
        self.comparing.proved = False
        self.verification.begin_anew(self.options.checksum)

    def note_pieces(self, pieces: ControlFile) -> None:
        """Remember which pieces aria2 reports, in case its control file is lost."""
        self._pieces = pieces

    # -- from time to time --------------------------------------------------------------------------------------------

    def tick(self, now_s: float) -> None:
        """Called a few times a second: check the timeouts, whether the host rests, and the next mirror."""
        super().tick(now_s)
        is_silent = self.life.phase is Phase.ASKING and self.host() not in self.backend.answered
        if (
            self.lets_others_pass(now_s, is_silent=is_silent)
            or self.life.phase is not Phase.FILLING
            or not self.entry.gids
        ):
            return
        rests = self.rests_for() > 0
        if rests and not self.entry.is_held and self.remote is not None and self.remote.ranged:
            self.entry.hold()  # aria2 would keep sending requests
            self.responses += 1
            self.aside.step()
        elif self.entry.is_held and not rests:
            self.aside.back(self.entry.go_on)
        if not rests:
            self.mirroring.look(now_s)

    def host(self) -> int:
        """The host that aria2 contacts first."""
        source = self.answering
        return governor.host_of_connection(source.resolved_url or source.url, self.options)

    def rests_for(self) -> float:
        """Seconds until that host may be asked again."""
        return governor.rests_for(self.host())

    # -- the end ------------------------------------------------------------------------------------------------------

    def compare(self) -> None:
        """The file is complete: check that it is one version of the remote file."""
        self.comparing.begin()

    def ask_ranges(self, question: Question, then: Callable[[Finding], None]) -> None:
        """Fetch some ranges of a source again, compare them, and pass the finding to ``then``."""
        self.comparing.ask_ranges(question, then)

    @property
    def size(self) -> int:
        """The number of bytes received."""
        return self.comparing.size

    @property
    def url_identity(self) -> Identity:
        """The identity of the file at the URL itself, as opposed to mirrors."""
        own = self.met.get(self.sources[URL].given_url)
        return own.identity if own is not None else Identity()

    def basis(self) -> Basis:
        """How it was established that the received data is one version of the URL's file."""
        remote = self.remote
        if self.comparing.proved or self.verification.checksum:
            return Basis.COMPARED if self.comparing.proved else Basis.CHECKSUM
        if remote is not None and self.sources[URL].given_url not in self.met:
            return Basis.MIRRORS
        if self.responses == 1 and not self.resumed_bytes:
            return Basis.ONE_RESPONSE
        strength = remote.identity.strength if remote is not None else Strength.NONE
        return {Strength.STRONG: Basis.ETAG, Strength.DATED: Basis.LAST_MODIFIED}.get(strength, Basis.SIZE)

    def keep_state(self) -> int | None:
        """Turn aria2's control file into a saved state, with the identity that the server has told this task.
        Raises ``DiskError``."""
        target, remote = self.opened, self.remote
        if remote is not None and not remote.ranged:
            return None
        # aria2 leaves a truncated control file when the disk is full, and none when the file is complete.
        told_by: tuple[Callable[[], bytes | None], ...] = (lambda: saving.read_control(target), self._told_pieces)
        for told in told_by:
            try:
                octets = told()
                saved = self._as_state(octets) if octets else None
            except StateDamaged as error:
                _log.warning("%s: %s", self.shown_url, error)
            else:
                if saved is not None:
                    return saving.save_state(target, saved) if saved.written_end else None
        return None

    def _told_pieces(self) -> bytes | None:
        return self._pieces.to_bytes() if self._pieces is not None else None

    def _as_state(self, control: bytes) -> State:
        """Convert a control file to a state. Raises ``StateDamaged``."""
        sources = [SourceState(url, met.identity.etag, met.identity.last_modified) for url, met in self.met.items()]
        return saving.as_state(
            control, self.opened, self.url, sources, self.remote.url if self.remote is not None else ""
        )


def _is_unvouched(remote: Remote, known: Identity) -> bool:
    """Whether a response that differs from the known file is no credible new version of it: the known file had a
    validator, and the response has none."""
    return not remote.ranged and is_unvouched(remote.identity, known)


def _account(source: Source, options: DownloadOptions) -> tuple[str, str] | None:
    """User name and password for a server that is not HTTP: from the URL, else from the netrc file."""
    if not source.authorization:
        return account_for(source.url, options) if options.netrc else None
    user, _, password = base64.b64decode(source.authorization.removeprefix("Basic ")).decode().partition(":")
    return user, password
