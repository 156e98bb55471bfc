"""A run: one download while the native backend works at it, from opening the target to the final name.

Starting is resuming: the saved state, if there is one that fits, says which blocks are there; the engine fetches the
rest. Data before bits, temp before name: a state is saved only of bytes that were synced before, and the final name
appears only after the last byte and the checksum were right.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rangefetch import checksum, provenance, samples, saving, state
from rangefetch.authority import Authority, Word
from rangefetch.backend import Host, Timer
from rangefetch.comparison import Comparisons, Finding, Question, Verdict
from rangefetch.download import Download, Figures
from rangefetch.effort import explain
from rangefetch.errors import (
    BadAnswer,
    ChecksumMismatch,
    ContentChanged,
    DiskError,
    DownloadError,
    LocalError,
    TargetExists,
    TimedOut,
)
from rangefetch.events import Event, EventKind, parse_date, parse_headers
from rangefetch.existing import Found, Standing, look
from rangefetch.identity import (
    Basis,
    Identity,
    Strength,
    must_compare_before_publishing,
    must_compare_before_resuming,
)
from rangefetch.jobs import Jobs
from rangefetch.logs import log as _log
from rangefetch.mirroring import Mirroring
from rangefetch.names import choose_filename
from rangefetch.network import mask_url
from rangefetch.options import HTTP, DownloadOptions, check_url
from rangefetch.progress import DownloadResult, SpeedMeter
from rangefetch.proof import Proof
from rangefetch.recovery import Recovery
from rangefetch.samples import Sample, Span, finished_spans
from rangefetch.sources import Source, Sources
from rangefetch.space import check_target
from rangefetch.target import Target

if TYPE_CHECKING:
    from concurrent.futures import Future

    from rangefetch._engine import File, Profile

__all__ = ["Run"]

_LET_GO_S = 120.0
"""How long a run that is to end waits for its disk, or the engine's writes to it."""
_NOTHING_S = 5.0
_NOTHING_KEPT = -1
_SECRETS = "the files of certificates and cookies"
_ENGINE_WAITS = {
    "transfer": "transfers",
    "limit": "the speed limit",
    "reader": "the reader of the stream",
    "rest": "the end of a rest period that the server asked for",
    "loop": "the engine",
    "decision": None,
    "nothing": "",
}
"""What the engine waits for, in words; None: a decision that is made here."""

_FIRST_SAVE_S = 2.0
_SAVE_EVERY_S = 5.0
_HASH_AT_LEAST_BYTES = 4 << 20
_FEW_BLOCKS = 64  # of a file whose begun blocks can be compared, too
_URL = 0  # the number of the source that was asked for
_WHOLE_BYTES = 1 << 20  # samples are taken of whole ones


class Run:
    """One download at work. All methods run on the backend's thread."""

    def __init__(self, backend: Host[Run], download: Download) -> None:
        self.download = download
        self.options = download.options
        self.shown_url = mask_url(download.url)
        self.policy = backend.policy
        self.sources = Sources(
            download.url,
            tuple(download.options.mirrors),
            tuple(download.options.github_mirrors) if download.options.use_github_mirror else (),
        )
        self.recovery = Recovery(self)
        self.comparisons = Comparisons(backend, self)
        self.mirroring = Mirroring(self)
        self._backend = backend
        self._url = self.sources.url
        self._target: Target | None = None
        self._saved: state.State | None = None
        self._file: File | None = None
        self._loop = 0
        self._lanes_share = download.options.max_connection_per_server
        self._after_removal: Callable[[], None] | None = None
        self._in_engine = False  # the engine fills the file now
        self._whole = False  # the engine has filled it: every byte is there
        self._settled = False  # the first answer was found to be in order, and what comes is worth saving
        self._naming = False  # a worker gives the file its name, and nothing may come between
        self._halting = False
        self._leaving_s = 0.0  # since when it is to end, however that may be
        self._error: DownloadError | None = None  # why
        self._ending = False  # the outcome is known; what comes now changes nothing
        self._told = False  # the listener knows it, too
        self._worthless = False  # nothing of it needs to be kept
        self._nothing_since_s = 0.0  # since when it could not say what it waits for
        self._remove_files = False  # nothing of it may be kept
        self._kept_bytes = _NOTHING_KEPT  # of what lies beside the target
        self._resting: Timer | None = None  # the host is to be left alone before the first request
        self._modified_time: float | None = None
        self._probing = False  # only asking what there is: the final name is taken, or every byte is there
        self._must_compare = False  # what an earlier run left may be of another version of the file
        self.resumed_bytes = 0
        self._connections = 0
        self._next_save_s = self.now_s() + _FIRST_SAVE_S
        self._proof = Proof(download.options.checksum)
        self._authority = Authority()
        self._first_source = _URL  # whose the first response of this run was
        self._first_span = (0, 0)  # ... and what it brought
        self._checked = False  # that it is one version, and the URL's
        self._versions_checked: set[int] = set()  # the sources whose bytes were
        self._compared = False  # ... by fetching parts again
        self._url_agrees = False  # that what mirrors sent is its file
        self._meter = SpeedMeter()
        self._trace: list[dict[str, str]] = []
        self._bound = ""
        self._jobs = Jobs(functools.partial(backend.work, self))
        self._requests = Jobs(functools.partial(backend.work, self))  # what concerns the sources, not the target
        download.waits = lambda: self.waiting_for

    # -- for recovery and the backend ----------------------------------------------------------------------------

    @property
    def file(self) -> File:
        """The engine's file; there is one from the first request on."""
        assert self._file is not None
        return self._file

    @property
    def most_lanes(self) -> int:
        """How many transfers the options and the other downloads from the same host allow."""
        options = self.options
        per_server = min(options.max_connection_per_server, self._lanes_share)
        split = max(1, options.split - self.mirroring.reserved_lanes())
        most = min(split, per_server * max(1, len(self.sources.usable())), self.recovery.most_lanes)
        return 1 if self._probing else most

    @property
    def is_filling(self) -> bool:
        """Whether the engine fills the file, and is to go on with it."""
        return self._in_engine and self._after_removal is None and not self._probing and not self._ending

    def share_lanes(self, lanes: int) -> None:
        """So many lanes of its host are for this download, because there are others."""
        if lanes != self._lanes_share:
            self._lanes_share = lanes
            self.set_lanes()

    def set_lanes(self) -> None:
        """What ``most_lanes`` tells may have changed."""
        if self._in_engine:
            self.file.lanes = self.most_lanes

    @staticmethod
    def now_s() -> float:
        return time.monotonic()

    def call_later(self, delay_s: float, function: Callable[[], None]) -> Timer:
        return self._backend.call_later(self, delay_s, function)

    def ask_network(self, known: Callable[[bool], None], *, told: bool) -> None:
        """Find out whether there is a network, and say so; ``told``: the system says that there is none."""
        urls = [self.options.proxy] if self.options.proxy else [source.url for source in self.sources]
        network = self._backend.network
        self._backend.look(self, lambda: network.is_there(urls, told=told), lambda future: known(future.result()))

    def ask_user(self, question: Callable[[], Any], answered: Callable[[Any], None]) -> None:
        """Call a function of the user's, which may take its time or never return, and go on with its answer if that
        still matters. It may wait for another download: that can have this one's place meanwhile.
        """
        file, listener = self._file, self._backend.listener

        def known(future: Future[Any]) -> None:
            listener.asks(self.download, asking=False)
            if file is self._file and self._in_engine and self._after_removal is None:
                answered(future.result())

        self._backend.look(self, question, known)
        listener.asks(self.download, asking=True)

    def _heard(self, source: Source) -> None:
        self._backend.network.heard(self.options.proxy or source.url)

    def cool_host(self, host: str, seconds: float, *, at_work: bool = True) -> None:
        """Have every download leave the host alone for a while; without ``at_work`` those that begin."""
        self._backend.cool_host(host, seconds, at_work=at_work)

    def rest_host(self, host: str, seconds: float) -> None:
        """The backend's word that a host is to be left alone."""
        if self._in_engine:
            for number, source in enumerate(self.sources):
                if source.host == host:
                    self.file.rest(number, seconds)

    def note(self, text: str) -> None:
        """What a person should know of the download now."""
        self.download.note = text

    def move_source(self, number: int, url: str, then: Callable[[Finding | None], None]) -> None:
        """A source is at another URL from now on. Validators are one URL's own, so bytes must show that the same file
        is there: ``then`` goes on with what comparing them has found; None: there was nothing to compare.
        """
        source = self.sources.move(number, check_url(url, "refresh_url", HTTP))
        file = self.file

        def compared(finding: Finding | None) -> None:
            if finding is not None and finding.verdict is Verdict.UNKNOWN and finding.error is not None:
                then(finding)
                return
            same = finding if finding is not None and finding.verdict is not Verdict.UNKNOWN else None

            def known(profile: Profile) -> None:
                if file is self._file and self.is_filling:
                    source.moves += 1
                    file.move(number, source.url, profile)
                    then(same)

            self._requests.do(lambda: self._backend.profile(self.options, source), known, what=_SECRETS)

        spans = self.written_spans()
        if spans and samples.choose(file.size, spans, random.Random(0)):
            self.compare(source, spans, compared, size=file.size, validators=file.validators(number))
        else:
            compared(None)

    def written_spans(self) -> list[Span]:
        """What of the file is there, as far as that can be told apart and nobody has given it back; of a file with many
        blocks only whole ones.
        """
        file, target = self.file, self._target
        assert target is not None
        if not file.splits and not self.resumed_bytes:
            return []
        blocks = bytes(file.blocks)
        begun: dict[int, int] = {}
        if len(blocks) <= _FEW_BLOCKS:
            begun = {index: written for index, written in enumerate(file.partial) if written}
        spans = finished_spans(blocks, file.block_size, file.size, begun)
        return [(max(start, target.read_bytes), end) for start, end in spans if end > target.read_bytes]

    def use_source(self, source: Source) -> None:
        """Have the engine ask a mirror that was waiting, too."""
        file = self.file

        def known(profile: Profile) -> None:
            if file is self._file and self.is_filling and source in self.sources.waiting:
                self.sources.join(source)
                file.add_source(source.url, profile)
                self.set_lanes()
                self.recovery.go_on_at_once()

        self._requests.do(lambda: self._backend.profile(self.options, source), known, what=_SECRETS)

    def compare(
        self,
        source: Source,
        spans: Sequence[Span],
        then: Callable[[Finding], None],
        *,
        size: int,
        validators: tuple[str, str] | None = None,
        oldest: Sequence[Span] = (),
    ) -> None:
        """Fetch some of ``spans`` of the file, which has ``size`` bytes, from a source again, and go on with what that
        finds. The source's responses must have these ``validators``; None: those that it is known to have.
        Some of ``oldest`` is fetched in any case.
        """
        assert self._target is not None
        target = self._target
        places = samples.choose(size, spans, random.Random())
        if oldest:
            places = [*samples.choose(size, oldest, random.Random()), *places[:2]]

        def begin(found: list[Sample]) -> None:
            # What a reader has used may have been given back to the file system meanwhile.
            there = [sample for sample in found if sample.start >= target.read_bytes]
            limit = self._limit_of_comparisons()
            etag, last_modified = validators or (source.etag, source.last_modified)
            question = Question(source, size, there, etag, last_modified, limit)
            self.comparisons.begin(self.options, question, told)
            self._set_limit()

        def told(finding: Finding) -> None:
            self._set_limit()
            then(finding)

        self.do(lambda: samples.read(target.fd, places), begin)

    def _limit_of_comparisons(self) -> int:
        """Their part of the download's limit, a quarter; 0: there is no limit."""
        limit = int(self.options.max_download_limit)
        return max(1, limit // 4) if limit else 0

    def _set_limit(self) -> None:
        """The file has what the comparisons under way leave of the limit."""
        if self._file is not None and self._in_engine:
            limit = int(self.options.max_download_limit)
            self._file.limit = max(1, limit - len(self.comparisons) * self._limit_of_comparisons()) if limit else 0

    def begin_again(self) -> None:
        """Begin from nothing, when the engine has let go of the file. Raises ``ContentChanged`` where a reader has
        used the beginning and nothing would prove that what comes now continues it."""

        def begin() -> None:
            assert self._target is not None
            self._saved = None
            self._must_compare = self._settled = False
            self.mirroring.restart()
            self._checked = self._compared = self._url_agrees = False
            self._authority.start_over()
            self._first_source = _URL
            self._versions_checked.clear()
            for source in self.sources:
                source.answered = False
            self.forget_hash()
            # On a worker, because one may be reading what is about to go.
            self.do(self._truncate, lambda _: self._open_file())

        if self.download.sink is not None:
            self.download.sink.hold(self.download)
        self._remove_file(begin)

    def _truncate(self) -> None:
        assert self._target is not None
        self._kept_bytes = _NOTHING_KEPT
        self._target.truncate()

    # -- whose file it is -----------------------------------------------------------------------------------------

    @property
    def one_source(self) -> bool:
        """Whether all must come from one source: what a reader has used cannot be fetched anew from another."""
        return self.download.sink is not None and not self.options.checksum

    @property
    def validators_of_mirrors(self) -> tuple[str, str] | None:
        """What a mirror's responses must have to take part; None: what they had before, if anything. Bytes that a
        reader gets can never be fetched anew, so there a mirror must have the same strong ETag, too."""
        sink = self.download.sink
        return (sink.read_identity.etag, "") if sink is not None and self.one_source else None

    def decides(self, number: int) -> bool:
        """Whether a source's word is what the remote file is."""
        return self._authority.source in (-1, number)

    def follow_the_url(self, reason: str) -> None:
        """The URL has another file than the mirrors that stood in for it: theirs is dropped, and they with it."""
        for number, source in enumerate(self.sources):
            if number != _URL and source.answered:
                self.drop_mirror(number, reason)
        if not self.mirroring.url_given_up:
            self.sources[_URL].banned = False
        self.begin_again()

    def drop_mirror(self, number: int, reason: str) -> None:
        """A mirror has another file than the URL: it is not asked again."""
        source = self.sources[number]
        source.banned = True
        shown = mask_url(source.url)
        _log.warning("%s: the mirror %s has a different file (%s); no longer used", self.shown_url, shown, reason)
        if self._in_engine:
            self.file.ban(number)

    @property
    def may_start_over(self) -> bool:
        """Whether nobody has used the beginning of the file yet."""
        return self._target is not None and self._target.read_bytes == 0

    def forget_bytes(self) -> None:
        """The engine has taken back bytes that it had written: neither the hash nor a saved state may count them."""
        self.forget_hash()
        self._next_save_s = 0.0

    def forget_hash(self) -> None:
        """What was hashed is not what the file will hold."""
        self._do_if(self._proof.forget())

    # -- beginning --------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Open the target and start to fetch what it lacks."""
        if self.download.sink is not None:
            self._target = self.download.sink
            self.download.sink.hold(self.download)
            self._proof.begin(self._target)
            self._open_file()
            return
        self.do(self._open_target, self._opened)

    def _open_target(self) -> Path | None:
        """Open and lock the target and load what was saved of it, on a worker. Returns the file that has the final
        name, if it is to be compared by its checksum.
        """
        self._target = Target.open(
            self.options.save_dir, self.options.filename, self._url, adopt=bool(self.options.checksum)
        )
        self._kept_bytes = _NOTHING_KEPT if self._target.fresh else 0
        self.download.filename = self.options.filename or choose_filename(self._url)
        # Without a name from the user this is a guess, but one that saves megabytes when it is right.
        likely = self._target.path or self._target.directory / self.download.filename
        if likely.exists() and not self.options.overwrite:
            if self.options.checksum and self._target.path is not None:
                return self._target.path
            self._probing = True
        self._saved = saving.load(self._target, self._url, provable=bool(self.options.checksum))
        self._kept_bytes = _NOTHING_KEPT if self._saved is None else self._saved.written_bytes
        if self._saved is None and not self._target.fresh:
            self._target.truncate()
        if self._saved is not None:
            self._recall(self._saved)
            known = next((each for each in self._saved.sources if each.url == self._url), None)
            identity = Identity(etag=known.etag, last_modified=known.last_modified) if known else Identity()
            self._must_compare = must_compare_before_resuming(identity, checksum=bool(self.options.checksum))
            # Where every byte is there no response would come any more: the server must still be asked what its file
            # is by now, unless the user's checksum will tell, and where nobody has told the name.
            must_ask = self._saved_is_whole and not (self.options.checksum and self._target.path is not None)
            self._probing = self._probing or self._must_compare or must_ask
        return None

    def _opened(self, taken: Path | None) -> None:
        assert self._target is not None
        if taken is not None:
            self._compare_existing(taken)
            return
        self._proof.begin(self._target)
        cool_s = self._backend.cool_for(self.sources[0].host) if len(self.sources) == 1 else 0.0
        if cool_s:
            self._resting = self.call_later(cool_s, self._open_file)
        else:
            self._open_file()

    @property
    def _saved_is_whole(self) -> bool:
        """Whether an earlier run has left every byte."""
        return self._saved is not None and not self._saved.blocks.strip(b"\2")

    def _recall(self, saved: state.State) -> None:
        """What an earlier run found out; if that has every byte, no answer will tell it again."""
        assert self._target is not None
        if self._target.path is None and saved.filename:
            self._target.name(saved.filename)
            self.download.filename = saved.filename
        for source in saved.sources:
            self._modified_time = self._modified_time or parse_date(source.last_modified)
        said = [
            (number, Identity(saved.total_size, known.etag, known.last_modified))
            for number, source in enumerate(self.sources)
            for known in saved.sources
            if source.given_url == known.url and (known.etag or known.last_modified)
        ]
        # Where no source sent validators, it is taken for the URL's: its bytes are compared before they are used.
        self._authority.recall(*(said[0] if said else (_URL, Identity(saved.total_size))))

    def _open_file(self) -> None:
        """Hand the file to the engine, with what an earlier run left."""
        self._resting = None
        self.mirroring.stand_in()
        self.do(self._profiles, self._give_to_engine, what=_SECRETS)

    def _profiles(self) -> list[Profile]:
        """How each source is asked; on a worker, because files are read for it."""
        return [self._backend.profile(self.options, source) for source in self.sources]

    def _give_to_engine(self, profiles: list[Profile]) -> None:
        from rangefetch import _engine

        if len(profiles) != len(self.sources):  # another one was added meanwhile
            self._open_file()
            return
        assert self._target is not None
        if not self.sources.usable() and not self.sources.waiting:
            raise ContentChanged("no source is left that has the file", url=self.shown_url)
        options = self.options
        known: dict[str, Any] = {}
        if self._probing:
            # Two: one, as "bytes=0-0", is taken for no end by servers that test it for truth.
            known = {"first_bytes": 2, "probe": True}
            if self._saved is not None and self._saved_is_whole:
                known["pinned_size"] = self._saved.total_size
        elif self._saved is not None:
            known = {
                "size": self._saved.total_size,
                "block_size": self._saved.block_size,
                "blocks": self._saved.blocks,
                "partial": self._saved.partial,
            }
        if self._saved is not None:
            for saved in self._saved.sources:
                for source in self.sources:
                    if source.given_url == saved.url:
                        source.etag, source.last_modified = saved.etag, saved.last_modified
        asked = [
            (source.url, profile, source.etag, source.last_modified)
            for source, profile in zip(self.sources, profiles, strict=True)
        ]
        sink = self.download.sink
        if sink is not None and sink.read_bytes:
            if not any(source.given_url == sink.read_url for source in self.sources.usable()):
                raise ContentChanged("what was read is of a source that may not be asked any more", url=self.shown_url)
            known["pinned_size"] = sink.read_identity.size
            asked = [
                (url, profile, sink.read_identity.etag if source.given_url == sink.read_url else "", "")
                for source, (url, profile, _, _) in zip(self.sources, asked, strict=True)
            ]
        elif self._saved is None:
            asked = [(url, profile, "", "") for url, profile, _, _ in asked]
        url, profile, etag, last_modified = asked[0]
        file = _engine.File(
            self._target.fd,
            url,
            profile,
            tag=self,
            ranged=not self.recovery.one_stream,
            lanes=self.most_lanes,
            source_lanes=options.max_connection_per_server,
            least_bytes=int(options.min_split_size),
            limit=int(options.max_download_limit),
            window_bytes=self._target.window_bytes,
            traced=bool(options.trace),
            allocation="none" if self._probing else options.file_allocation,
            mirrors=asked[1:],
            etag=etag,
            last_modified=last_modified,
            **known,
        )
        self.resumed_bytes = file.downloaded
        self._file = file
        self._meter.reset()
        self.download.figures = self._figures
        self._in_engine = True
        self._whole = self._settled = False
        self.recovery.begun()
        if sink is None:
            self.download.file = file
        else:
            file.read_to(sink.read_bytes)
        self._loop = self._backend.add_file(file)
        for number, source in enumerate(self.sources):
            if source.banned:
                file.ban(number)

    def _figures(self) -> Figures:
        """How far it is; from any thread."""
        file = self._file
        if file is None:
            return Figures()
        lanes = file.lanes_busy + self.comparisons.lanes_busy
        return Figures(file.downloaded, max(file.size, 0), self._meter.speed(), lanes)

    # -- what the engine tells ---------------------------------------------------------------------------------

    def handle(self, event: Event) -> None:
        """One event of the engine."""
        file = event.file
        if self.comparisons.handle(event) or file is not self._file or file is None:
            return
        if event.kind == EventKind.TRACE:
            self._trace.append(dict(word.split("=") for word in event.text.split()))
            return
        if event.kind in (EventKind.DONE, EventKind.REMOVED):
            self._in_engine = False
            self._backend.file_gone(self._loop)
            self._connections += file.connections
            if self._after_removal is not None:
                step, self._after_removal = self._after_removal, None
                step()
            elif event.kind == EventKind.DONE:
                self._whole = True
                self._finish()
        elif self._after_removal is not None and not (self._leaving_s and event.kind == EventKind.ANSWERED):
            return
        elif event.kind == EventKind.FAILED:
            if event.status:
                self._heard(self.sources[event.source])
            try:
                self.recovery.failed(event)
            except DownloadError as error:
                if not self.mirroring.take_over(error):
                    raise
        elif event.kind == EventKind.REACHED:
            self.download.notify()
        else:
            source = self.sources[event.source]
            source.answered = True
            self._heard(source)
            source.resolved_url = event.text
            headers = parse_headers(event.headers)
            source.identity = Identity.of(headers, file.size)
            source.etag, source.last_modified = file.validators(event.source)
            if self._leaving_s:
                self._answered_late(event.source, headers)
                return
            if event.kind == EventKind.ANSWERED:
                self._answered(event.source, headers)
            if self._after_removal is None:
                self._compare_digest(event.source, headers)

    def _remove_file(self, then: Callable[[], None]) -> None:
        """Take the file from the engine, and go on when nothing touches it any more."""
        self._whole = False
        self.recovery.stop_waiting()
        self.comparisons.stop(lambda: None)
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        if self._file is None or not self._in_engine:
            self.comparisons.stop(then)
            return
        self._after_removal = lambda: self.comparisons.stop(then)
        self._file.remove()

    def _answered(self, number: int, headers: dict[str, str]) -> None:
        """The first good answer: what the remote file is."""
        source, file, size = self.sources[number], self.file, self.file.size
        part = _stated_range(headers)
        self._first_source, self._first_span = number, part[:2] if part is not None else (0, size)
        if not self._is_credible(number, source.identity, stated=part is not None):
            return
        if self.download.sink is not None and not self._admit(source, part is None or part[:2] == (0, size)):
            return
        self._modified_time = parse_date(headers.get("last-modified", ""))
        if self.options.expected_size and size not in (-1, self.options.expected_size):
            raise ContentChanged(
                f"the remote file has {size} bytes, not {self.options.expected_size}", url=self.shown_url
            )

        def settled(step: Callable[[], None]) -> None:
            # It may have begun again meanwhile.
            if file is self._file and (self._in_engine or self._whole):
                step()

        self.do(functools.partial(self._settle, file, source, headers), settled)

    def _answered_late(self, number: int, headers: dict[str, str]) -> None:
        """The first good answer, of which a run hears that is to end: what came with it is saved if that answer would
        have been followed."""
        source, size, expected = self.sources[number], self.file.size, self.options.expected_size
        known = self._authority.hear(number, source.identity, stated=_stated_range(headers) is not None)
        stated = checksum.stated_by_server(headers, whole="content-range" not in headers)
        if number == _URL or self._proof.checksum:
            self._worthless = self._worthless or not self._proof.learn(stated)
        if known is Word.GOOD and size in (-1, expected or size) and not self._ending:
            self._jobs.do(
                functools.partial(self._settle, self.file, source, headers),
                lambda _: None,
                failed=lambda error: _log.debug("%s: nothing of it is kept: %s", self.shown_url, error),
            )

    def _settle(self, file: File, source: Source, headers: dict[str, str]) -> Callable[[], None]:
        """See whether the final name and the space are free, on a worker, while the first bytes come. Until that is
        known nothing is saved. Returns the step that follows.

        Raises ``DiskError``.
        """
        target, size = self._target, file.size
        assert target is not None
        if target.path is None:
            # A mirror that stands in for the URL does not say what its file is called.
            said = (source.resolved_url, headers.get("content-disposition", "")) if source is self.sources[_URL] else ()
            target.name(choose_filename(self._url, *said))
        path = target.path
        assert path is not None
        self.download.filename = path.name
        if target.keeps_state and path.exists() and not self.options.overwrite:
            if self.options.checksum:
                return lambda: self._remove_file(lambda: self._compare_existing(path))
            remote = Identity.of(headers, size)
            return lambda: self._remove_file(lambda: self._look_at_existing(path, source, remote))
        if self._probing:
            # The server gives it another name than its URL does, and that one is free.
            return self._probed
        if size > file.downloaded:
            check_target(
                target,
                size,
                file.downloaded,
                functools.partial(self._backend.lacking_beside, self.download),
                self.shown_url,
            )
        self._settled = True
        if self.resumed_bytes:
            _log.info("%s: resuming, %d of %d bytes are there", self.shown_url, self.resumed_bytes, size)
        return lambda: None

    def _probed(self) -> None:
        """The server has said what there is, and it is to be fetched."""
        self._probing = False
        self._remove_file(self._compare_saved if self._must_compare else self._open_file)

    def _compare_saved(self) -> None:
        """Fetch some of what an earlier run has left again, before anything is added to it."""
        assert self._saved is not None
        saved = self._saved
        spans = finished_spans(saved.blocks, saved.block_size, saved.total_size, saved.partial)

        def compared(finding: Finding) -> None:
            self._must_compare = False
            if finding.verdict is Verdict.SAME:
                self._compared = True
                self._open_file()
            elif finding.verdict is Verdict.UNKNOWN and not isinstance(finding.error, BadAnswer | None):
                raise finding.error
            else:
                reason = finding.reason or "too little is there to compare"
                _log.warning("%s: %s; starting over", self.shown_url, reason)
                self.begin_again()

        self.compare(self.sources[0], spans, compared, size=saved.total_size)

    def resume_from_mirrors(self) -> None:
        """The URL cannot be asked, and mirrors may have what an earlier run has left of its file."""
        self._must_compare = False
        # Where every byte is there one of them must be asked.
        self._probing = self._saved_is_whole and not self.options.checksum
        self.sources[0].banned = True
        self._remove_file(self._open_file)

    @property
    def compares_saved(self) -> bool:
        """Whether the server is being asked for some of what an earlier run has left, before that is used."""
        return self._must_compare

    @property
    def has_saved(self) -> bool:
        """Whether an earlier run has left a part of the file."""
        return self._saved is not None

    def _is_credible(self, number: int, identity: Identity, *, stated: bool) -> bool:
        """Whether the whole file may be what a source says it is; otherwise the download starts over."""
        remembered = self._authority.is_remembered
        known = self._authority.identity.size
        word = self._authority.hear(number, identity, stated=stated)
        if word is Word.CONTRADICTS:
            self.follow_the_url(f"{identity.size} bytes, and not {known}")
            return False
        if word is Word.CUT_SHORT:
            words = f"the server sent {identity.size} bytes as the whole of a file that had {known}"
            if not self.recovery.one_stream:
                self.recovery.ask_plainly(words)
                return False
            if not remembered:
                raise BadAnswer(words, url=self.shown_url)
        if word is Word.UNVOUCHED:
            words = f"the server sent {identity.size} bytes without a validator in place of a file of {known} with one"
            if self.recovery.one_stream:
                raise BadAnswer(words, url=self.shown_url)
            self.recovery.ask_plainly(words)
            return False
        return True

    def _admit(self, source: Source, whole: bool) -> bool:
        """Let the reader of a stream have what comes. Ranges that only weak validators hold together may be of two
        versions, which nobody could find out once they were read: then one response brings it all."""
        sink = self.download.sink
        assert sink is not None
        identity = source.identity
        strong = identity.strength is Strength.STRONG
        if not (strong or whole or self.options.checksum or self.recovery.one_stream):
            self.recovery.ask_plainly("it has no strong ETag that would hold ranges together")
            return False
        sink.admit(self.download, self.file, source.given_url, identity)
        return True

    def _compare_digest(self, number: int, headers: dict[str, str]) -> None:
        """What a source says its file's digest is: proof where the user gave none and the URL says so, and a
        contradiction a ban."""
        source = self.sources[number]
        stated = checksum.stated_by_server(headers, whole="content-range" not in headers)
        if number != _URL and not self._proof.checksum:
            return
        if not self._proof.learn(stated):
            expected = self._proof.checksum
            error = ChecksumMismatch(
                f"the server states another checksum: expected {expected}, got {stated}",
                expected=expected,
                actual=stated,
                url=mask_url(source.url),
            )
            source.banned = True
            if not self.sources.usable() or not self.may_start_over:
                self._worthless = True
                raise error
            _log.warning("%s; continuing with other sources", error)
            self.begin_again()

    # -- from time to time --------------------------------------------------------------------------------------

    def tick(self, now_s: float) -> None:
        """A few times a second: measure, hash, save, and see whether time is up."""
        if self._leaving_s:
            if now_s - self._leaving_s > _LET_GO_S and not self._told:
                _log.warning("%s: abandoned: no response from %s", self.shown_url, self.waiting_for)
                self.tell_end(self._error)
            return
        self._watch(now_s)
        total_timeout_s = self.options.total_timeout
        if total_timeout_s and not self._naming and now_s - self.download.started_s > total_timeout_s:
            raise TimedOut(f"not finished after {total_timeout_s:g} seconds", url=self.shown_url)
        if self._file is None or not self._in_engine or self._after_removal is not None:
            return
        self._meter.sample(now_s, self._file.downloaded)
        self.recovery.tick(now_s)
        if self._jobs.busy:
            return
        self.mirroring.look()
        if now_s >= self._next_save_s and self._is_worth_saving:
            self._next_save_s = now_s + _SAVE_EVERY_S
            self._save()
        else:
            self._do_if(self._proof.step(self._file.contiguous, _HASH_AT_LEAST_BYTES))

    def _save(self) -> None:
        assert self._target is not None
        target, file = self._target, self.file

        def save() -> None:
            saved_bytes = saving.save_on_the_way(target, file, self.sources)
            self._kept_bytes = self._kept_bytes if saved_bytes is None else saved_bytes

        self.do(save, lambda _: None, what="the disk to save the state")

    @property
    def _is_worth_saving(self) -> bool:
        """Whether there is something in the file that another run can go on with, or a saved state says so and it has
        been taken back."""
        target, file = self._target, self._file
        return (
            target is not None
            and target.keeps_state
            and file is not None
            and file.splits
            and file.block_size > 0
            and (file.downloaded > 0 or self._kept_bytes != _NOTHING_KEPT)
            and self._settled
            and not (self._worthless or self._probing)
        )

    def do(self, job: Callable[[], Any], then: Callable[[Any], None], *, what: str = "the disk") -> None:
        """Have a worker do something that may block, one thing after the other, and ``then`` go on here.

        All that touches the target is done so: whoever closes it comes after those who use it. ``then`` is left out
        where the run is to end.
        """

        def step(result: Any) -> None:
            if self._ending or self._after_removal is not None:
                return
            if self._halting and not self._in_engine and not self._naming:
                self._conclude()
            else:
                then(result)

        self._jobs.do(job, step, what=what)

    # -- what it waits for --------------------------------------------------------------------------------------

    @property
    def waiting_for(self) -> str:
        """What will bring it on, in words; from any thread. Empty: nothing will, which cannot be."""
        if self._after_removal is not None:
            return "the engine to end its transfers"
        if self._resting is not None:
            return "the end of a rest period that the server asked for"
        if self._in_engine and self._file is not None:
            return self._waiting_in_engine(self._file)
        return self._jobs.what or self._waiting_for_comparisons

    @property
    def _waiting_for_comparisons(self) -> str:
        return "ranges to compare with" if self.comparisons else ""

    def _waiting_in_engine(self, file: File) -> str:
        words = _ENGINE_WAITS[file.waiting_for]
        if words is None:
            words = self.recovery.waiting_for or self._jobs.what or self._requests.what or self._waiting_for_comparisons
        elif file.waiting_for == "transfer":
            lanes = file.lanes_busy
            words = f"{lanes} transfer{'s' if lanes != 1 else ''}"
        return words

    def _watch(self, now_s: float) -> None:
        """A run that can name nothing that it waits for would wait forever. Raises ``LocalError``."""
        if self.waiting_for:
            self._nothing_since_s = 0.0
        elif not self._nothing_since_s:
            self._nothing_since_s = now_s
        elif now_s - self._nothing_since_s > _NOTHING_S:
            raise LocalError("internal error: the download is waiting for nothing", url=self.shown_url)

    def _do_if(self, job: Callable[[], Any] | None) -> None:
        if job is not None:
            self.do(job, lambda _: None)

    # -- the end ----------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Every byte is in the file: prove it, in steps, so that a halt needs not wait for the whole; name it."""
        if not self._whole:
            return  # it was found to be something else meanwhile
        assert self._file is not None
        size = self._file.downloaded
        if not self._bound:
            self._bound = explain(
                {**self._file.effort, "limit": self._file.limit}, size - self.resumed_bytes, self.most_lanes
            )
            if self.options.trace:
                self._do_if(
                    functools.partial(
                        saving.write_trace,
                        os.fspath(self.options.trace),
                        self.download.gid,
                        self.sources,
                        list(self._trace),
                    )
                )
        if self.options.expected_size and size != self.options.expected_size:
            self._worthless = True
            raise ContentChanged(
                f"the remote file has {size} bytes, not {self.options.expected_size}", url=self.shown_url
            )
        if not self._authority.accepts_length(size):
            self._worthless = True
            raise BadAnswer(
                f"the server sent {size} bytes as the whole of a file that had {self._authority.identity.size}",
                url=self.shown_url,
            )
        if self._halting:
            self._remove_file(self._conclude)
        elif self.comparisons:
            self.comparisons.stop(self._finish)
        elif not self._checked:
            self._check_identity()
        elif self._jobs.busy:
            # What a worker is at (a save, a hash) was begun before the last byte came.
            self.do(lambda: None, lambda _: self._finish())
        elif (hashing := self._proof.step(size)) is not None:
            self.do(hashing, lambda _: self._finish(), what="the checksum to be computed")
        else:
            size = self._file.downloaded
            self._naming = True
            self.do(
                self._publish, lambda path: self._complete(path, size, self._basis()), what="the disk to name the file"
            )

    def _check_identity(self) -> None:
        """Before it is named: is it one version of the file, and is it the URL's?"""
        assert self._file is not None
        first, size = self.sources[self._first_source], self._file.downloaded
        if self._file.block_size == 0:
            # Its length was not announced.
            identity = dataclasses.replace(first.identity, size=size)
            if not self._is_credible(self._first_source, identity, stated=False):
                return
        if self.options.checksum or self.download.sink is not None:
            self._check_done()
        elif self._is_from_mirrors and not self.mirroring.url_given_up:
            # They stood in for the URL, which is asked whether it has the same file.
            if size == 0:
                self.follow_the_url("it is empty, and the URL did not say so")
            else:
                self._compare_all(_URL, self._url_compared)
        elif (number := self._next_to_compare()) is not None:
            self._compare_all(number, functools.partial(self._versions_compared, number))
        else:
            self._check_done()

    def _next_to_compare(self) -> int | None:
        """The next source whose validators do not show that all of its responses were of one version."""
        assert self._file is not None
        parts = self._file.responses + bool(self.resumed_bytes)
        for number, source in enumerate(self.sources):
            if (
                source.answered
                and number not in self._versions_checked
                and must_compare_before_publishing(
                    source.identity, responses=parts, checksum=bool(self._proof.checksum)
                )
            ):
                return number
        return None

    @property
    def _is_from_mirrors(self) -> bool:
        """Whether mirrors have sent it, and the URL has said nothing in this run."""
        return not self.sources[_URL].answered and any(source.answered for source in self.sources)

    def _check_done(self) -> None:
        self._checked = True
        self._finish()

    def _compare_all(self, number: int, then: Callable[[Finding], None]) -> None:
        """Fetch samples of the finished file from a source again, and of what came first: where the file has changed
        since, those bytes are the old ones."""
        size = self.file.size
        if self._saved is not None:
            oldest = finished_spans(
                self._saved.blocks, self._saved.block_size, self._saved.total_size, self._saved.partial
            )
        else:
            start, end = self._first_span
            oldest = [(start // _WHOLE_BYTES * _WHOLE_BYTES, min(-(-end // _WHOLE_BYTES) * _WHOLE_BYTES, size))]
        self.compare(self.sources[number], [(0, size)], then, size=size, oldest=oldest)

    def _url_compared(self, finding: Finding) -> None:
        """The URL was asked whether what mirrors sent is its file."""
        if finding.verdict is Verdict.DIFFERENT:
            self.follow_the_url(finding.reason)
            return
        if finding.verdict is Verdict.SAME:
            self._url_agrees = self._compared = True
            self._check_done()
        else:
            self.mirroring.url_given_up = True
            _log.warning("%s: %s: the file came from mirrors alone", self.shown_url, finding.reason)
            self._finish()

    def _versions_compared(self, number: int, finding: Finding) -> None:
        """Some of what a source sent was fetched again, to see whether its file has changed meanwhile."""
        is_mirror = number not in (_URL, self._first_source)
        dated = self.sources[number].identity.strength is Strength.DATED
        if finding.verdict is Verdict.DIFFERENT and is_mirror:
            self.drop_mirror(number, finding.reason)
            self.begin_again()
        elif finding.verdict is Verdict.DIFFERENT:
            self.recovery.start_over(
                ContentChanged(f"the remote file has changed: {finding.reason}", url=self.shown_url)
            )
        elif finding.verdict is Verdict.SAME or is_mirror or dated:
            self._compared = self._compared or finding.verdict is Verdict.SAME
            self._versions_checked.add(number)
            self._check_identity()
        elif isinstance(finding.error, BadAnswer):
            self.recovery.ask_plainly(f"it could not be compared: {finding.reason}")
        else:
            raise finding.error or ContentChanged(
                f"could not check whether the remote file has changed: {finding.reason}", url=self.shown_url
            )

    def _basis(self) -> Basis:
        """How it was established that the bytes are one version of the file at the URL."""
        assert self._file is not None
        answered = [source for source in self.sources if source.answered]
        weakest = min((source.identity.strength for source in answered), default=self._authority.identity.strength)
        if self.options.checksum:
            return Basis.CHECKSUM
        if self._is_from_mirrors and not self._url_agrees:
            return Basis.MIRRORS
        if self._proof.checksum:
            return Basis.CHECKSUM
        if self._compared:
            return Basis.COMPARED
        if self._file.responses <= 1 and not self.resumed_bytes:
            return Basis.ONE_RESPONSE
        if weakest is Strength.STRONG and len(answered) < 2:
            return Basis.ETAG
        return Basis.LAST_MODIFIED if weakest is Strength.DATED and len(answered) < 2 else Basis.SIZE

    def _publish(self) -> Path:
        assert self._target is not None
        self._proof.check(self.shown_url)
        if self._target.keeps_state:
            known = Identity(-1, *self.file.validators(0)) if self.sources[0].answered else Identity()
            provenance.record(self._target.fd, self._url, known, self._modified_time)
        path = self._target.publish(
            overwrite=self.options.overwrite, modified_time=self._modified_time, durable=self.options.durable
        )
        if self._target.keeps_state:
            provenance.wrote(path, self._url)
        return path

    def _complete(self, path: Path, size: int, basis: Basis, *, already: bool = False) -> None:
        self._ending = self._told = True
        result = DownloadResult(
            path=path,
            filename=path.name,
            size=size,
            gid=self.download.gid,
            checksum=self._proof.checksum,
            seconds=time.monotonic() - self.download.started_s,
            retries=self.recovery.retries,
            sources=tuple(mask_url(each.resolved_url) for each in self.sources if each.answered),
            connections=self._connections + self.comparisons.connections,
            resumed=self.resumed_bytes,
            already_complete=already,
            bound=self._bound,
            identity=basis,
        )
        self._backend.run_ended(self)
        self._backend.listener.completed(self.download, result)

    def _compare_existing(self, path: Path) -> None:
        """The final name is taken: by the very file that is wanted, if the checksum says so."""

        algorithm, _, digest = self.options.checksum.partition("=")

        def compared(found: str) -> None:
            if found == digest:
                self._already_complete(path, Basis.CHECKSUM)
            else:
                self._worthless = self._saved is None
                raise TargetExists(f"{path} exists and has a different checksum; overwrite is off", url=self.shown_url)

        self.do(
            lambda: checksum.digest_of(path, algorithm, stop=lambda: self._halting or self._leaving_s > 0),
            compared,
            what="the checksum to be computed",
        )

    def _look_at_existing(self, path: Path, source: Source, remote: Identity) -> None:
        """The final name is taken: by the file that is wanted, or by another one? ``source`` says ``remote`` of it."""

        def looked(found: Found) -> None:
            if found.standing is Standing.UNCERTAIN:
                limit = int(self.options.max_download_limit)
                question = Question(source, remote.size, found.samples, remote.etag, remote.last_modified, limit)
                self.comparisons.begin(self.options, question, functools.partial(compared, found))
            else:
                settle(found.standing, found.reason, found.basis)

        def compared(found: Found, finding: Finding) -> None:
            if finding.verdict is Verdict.UNKNOWN:
                settle(
                    found.otherwise,
                    f"has the size of the remote file, but cannot be compared: {finding.reason}",
                    found.basis,
                )
            elif finding.verdict is Verdict.SAME:
                settle(Standing.SAME, "", Basis.COMPARED)
            else:
                settle(
                    Standing.ANOTHER,
                    f"has the size of the remote file, but different content: {finding.reason}",
                    found.basis,
                )

        def settle(standing: Standing, reason: str, basis: Basis) -> None:
            if standing is Standing.SAME:
                self._already_complete(path, basis)
            elif standing is Standing.GONE:
                self._probed()
            else:
                self._worthless = self._saved is None
                raise TargetExists(f"{path} exists and {reason}; overwrite is off", url=self.shown_url)

        self.do(lambda: look(path, self._url, remote), looked)

    def _already_complete(self, path: Path, basis: Basis) -> None:
        target = self._target
        assert target is not None

        def discard() -> int:
            size = path.stat().st_size
            target.discard()
            return size

        self._naming = True
        self.do(discard, lambda size: self._complete(path, size, basis, already=True))

    def change(self, options: DownloadOptions) -> None:
        """Apply new options to what runs: the limit, the lanes, how its sources are asked, and further mirrors."""
        before, self.options = self.options, options
        for url in options.mirrors:
            self.sources.add(url)
        if self._file is None or not self._in_engine:
            return
        self._set_limit()
        self._file.source_lanes = options.max_connection_per_server
        self.set_lanes()
        if (options.headers, options.user_agent) != (before.headers, before.user_agent):
            self._requests.do(self._profiles, self._ask_as, what=_SECRETS)

    def _ask_as(self, profiles: list[Profile]) -> None:
        if self._in_engine and self._after_removal is None:
            for number, profile in enumerate(profiles[: self.file.source_count]):
                self.file.ask_as(number, profile)

    def halt(self, *, remove_files: bool = False) -> None:
        """Stop, save (or remove what there is), and tell the listener."""
        self._remove_files = self._remove_files or remove_files
        if self._ending or self._halting:
            return
        self._halting = True
        self._leaving_s = self._leaving_s or self.now_s()
        if self._in_engine or self.comparisons:
            self._remove_file(self._conclude)
        elif not self._jobs.busy:
            self._conclude()

    def fail(self, error: DownloadError) -> None:
        """Stop, keep what can be continued, and tell the listener."""
        if self._ending:
            _log.debug("%s: after its end: %s", self.shown_url, error)
            return
        error.url = error.url or self.shown_url
        self._error = self._error or error
        self._leaving_s = self._leaving_s or self.now_s()
        self._remove_file(lambda: self._conclude(error))

    def _conclude(self, error: DownloadError | None = None) -> None:
        """The end without a finished file: keep what can be continued, and nothing else."""
        if self._ending:
            return
        self._ending = True

        def failed(reason: BaseException) -> None:
            # Whatever it was, the end is told.
            self._count_kept()
            if isinstance(reason, DiskError):
                reason.url = reason.url or self.shown_url
                self.tell_end(error or reason)
                return
            _log.error("%s: internal error: the downloaded data could not be saved: %r", self.shown_url, reason)
            self.tell_end(error)

        def kept(_: object) -> None:
            self._count_kept()
            self.tell_end(error)

        self._jobs.do(self._keep_what_can_be_continued, kept, failed=failed)

    def _count_kept(self) -> None:
        """What was not kept does not count."""
        if not self._told:
            total = max(self._figures().total, self._saved.total_size if self._saved is not None else 0)
            figures = Figures(max(self._kept_bytes, 0), total)
            self.download.figures = lambda: figures

    def tell_end(self, error: DownloadError | None) -> None:
        """Tell the listener the end without a finished file, once."""
        if self._told:
            return
        self._ending = self._told = True
        try:
            self._backend.run_ended(self)
        finally:
            if error is not None:
                self._backend.listener.failed(self.download, error)
            else:
                self._backend.listener.halted(self.download)

    def _keep_what_can_be_continued(self) -> None:
        """Save the state of a file that can be resumed, remove the rest (on a worker)."""
        target = self._target
        if target is None or target.fd < 0:
            return
        try:
            if not self._remove_files and self._is_worth_saving:
                self._kept_bytes = saving.save_at_the_end(target, self.file, self.sources)
            elif self._remove_files or self._kept_bytes == _NOTHING_KEPT:
                self._kept_bytes = _NOTHING_KEPT
                target.discard()
        except DiskError as error:
            _log.warning("%s: the downloaded data could not be saved: %s", self.shown_url, error)
            if target.has_lost_writes:
                if self._kept_bytes == _NOTHING_KEPT:
                    target.discard()
                raise
        finally:
            target.close()


def _stated_range(headers: dict[str, str]) -> tuple[int, int, int] | None:
    """The part of the file that a response says it is (Content-Range), None where it says nothing of that."""
    from rangefetch import _engine

    return _engine.content_range(headers.get("content-range", "").encode("latin-1", "replace"))
