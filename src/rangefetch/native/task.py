"""One download that the engine fetches, from opening the target to the final name.

Starting is resuming: a saved state that fits says which blocks are there, and the engine fetches the rest. Data is
synced before a state that claims it is saved. The final name appears only after the last byte, if the checksum is
right.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rangefetch.disk.decoding import decode
from rangefetch.errors import DownloadError
from rangefetch.headers import parse_headers
from rangefetch.identity import Basis, Identity
from rangefetch.native.answering import Answering
from rangefetch.native.asking import Asking
from rangefetch.native.comparing import Comparing
from rangefetch.native.mirroring import Mirroring
from rangefetch.native.recovery import Recovery
from rangefetch.native.small import Small, waits_of
from rangefetch.native.sourcing import Sourcing
from rangefetch.native.starting import Starting
from rangefetch.net.sources import URL, Source, host_of
from rangefetch.options import DownloadOptions
from rangefetch.transfer import governor, saving
from rangefetch.transfer.authority import Authority
from rangefetch.transfer.backend import EngineServices
from rangefetch.transfer.comparison import Comparisons, Finding, Question
from rangefetch.transfer.download import Download, Figures
from rangefetch.transfer.events import EngineEvent, Traced
from rangefetch.transfer.failure import Failure
from rangefetch.transfer.keeping import NOTHING_KEPT
from rangefetch.transfer.lifecycle import AT_WORK, Event, Phase
from rangefetch.transfer.task import Task
from rangefetch.transfer.tracing import write_trace

if TYPE_CHECKING:
    from rangefetch._engine import File

__all__ = ["NativeTask"]

_NO_LOOP = -1
_HELD_S = 24 * 3600.0
_HASH_AT_LEAST_BYTES = 4 << 20


class NativeTask(Task["EngineServices[NativeTask]"]):
    """One download that the engine fetches. All methods run on the backend's thread."""

    transferer = "the engine"

    def __init__(self, backend: EngineServices[NativeTask], download: Download, tried: Small | None = None) -> None:
        super().__init__(backend, download, download.options)
        self._tried = tried
        self._part_bytes = tried.part_bytes if tried is not None else 0
        self.engine_file: File | None = None
        self.asking = Asking(self) if download.asks else None
        self.first_event = Event.FETCH if self.asking is None else Event.ASK
        """How the engine gets the file: ``ASK`` if it is only to find out what there is."""
        self.authority = Authority()
        self._trace: list[Traced] = []
        self.codings: tuple[str, ...] = ()
        """The content codings to undo before the file is named."""
        self._decoded_bytes: int | None = None
        self.loop = _NO_LOOP
        """The engine's loop that has the file."""
        self.comparisons = Comparisons(backend, self)
        self.recovery = Recovery(self)
        self.mirroring = Mirroring(self)
        self.starting = Starting(self)
        self.sourcing = Sourcing(self)
        self.answering = Answering(self)
        self.comparing = Comparing(self)
        self._lanes_share = download.options.max_connection_per_server

    # -- for recovery and the backend ----------------------------------------------------------------------------

    @property
    def file(self) -> File:
        """The engine's file; exists from the first request on."""
        assert self.engine_file is not None
        return self.engine_file

    @property
    def most_lanes(self) -> int:
        """How many transfers the options, and the other downloads from the same host, allow."""
        options = self.options
        per_server = min(options.max_connection_per_server, self._lanes_share)
        split = max(1, options.split - self.mirroring.reserved_lanes())
        most = min(split, per_server * max(1, len(self.sources.usable())), self.recovery.most_lanes)
        return 1 if self.first_event is Event.ASK else most

    @property
    def is_filling(self) -> bool:
        """Whether the engine is filling the file."""
        return self.life.phase in (Phase.FETCHING, Phase.FILLING)

    @property
    def in_engine(self) -> bool:
        """Whether the engine has the file, so that nobody else may close it."""
        return self.loop != _NO_LOOP

    @property
    def part_bytes(self) -> int:
        """The length of a part that a server sent for a range without saying which part it is; 0: none."""
        if self.engine_file is not None:
            self._part_bytes = self.engine_file.part_bytes
        return self._part_bytes

    def take_tried(self) -> tuple[File, list[EngineEvent]] | None:
        """Take over the engine's file of a download that was first taken for a small one, with its events so far.

        None if there is none, or if this task cannot use it; then it is discarded.
        """
        tried, self._tried = self._tried, None
        if tried is None:
            return None
        self._trace += tried.trace
        taken = tried.hand_over(self, self.options)
        if taken is None:
            tried.drop()
            return None
        file, self.loop, events = taken
        return file, events

    def drop_tried(self) -> None:
        """Discard the small download's file, because this task has no use for it."""
        tried, self._tried = self._tried, None
        if tried is not None:
            tried.drop()

    def share_lanes(self, lanes: int) -> None:
        """Limit this download to ``lanes`` of its host's lanes, because others share the host."""
        if lanes != self._lanes_share:
            self._lanes_share = lanes
            self.set_lanes()

    def set_lanes(self) -> None:
        """Apply a possible change of ``most_lanes``."""
        if self.in_engine:
            self.file.lanes = self.most_lanes

    def host_of(self, failure: Failure) -> str:
        """``host:port`` of the request that failed."""
        return host_of(failure.address or self.sources[failure.source].url)

    def _heard(self, source: Source) -> None:
        self.backend.network.heard(self.options.proxy or source.url)

    def begin_again(self) -> None:
        """Start over from nothing, once the engine has let go of the file. Raises ``ContentChanged`` if a reader has
        used the beginning and nothing would prove that the new bytes continue it.
        """

        def begin() -> None:
            assert self.target is not None
            self.saved = None
            self.placing.forget_earlier()
            self.starting.forget()
            self.mirroring.restart()
            self.comparing.begin_again()
            self.authority.start_over()
            self.answering.first_source = URL
            for source in self.sources:
                source.answered = False
            self.forget_hash()
            # On a worker, after any job that still reads the old data.
            self.do(self._truncate, lambda _: self.starting.open_file())

        if self.download.sink is not None:
            self.download.sink.hold(self.download)
        self.turn(begin)

    def _truncate(self) -> None:
        assert self.target is not None
        self.keeping.kept_bytes = NOTHING_KEPT
        self.target.truncate()

    def forget_bytes(self) -> None:
        """The engine has taken back bytes that it had written: count them neither in the hash nor in a state."""
        self.forget_hash()
        self.keeping.next_save_s = 0.0

    def forget_hash(self) -> None:
        """Discard the hash, because the file will hold other bytes."""
        self.do_if(self.verification.forget())

    def begin(self) -> None:
        """Open the target, and start to fetch the missing bytes."""
        self.starting.begin()

    def figures(self) -> Figures:
        """The download's progress; callable from any thread."""
        file = self.engine_file
        if file is None:
            return Figures()
        lanes = file.lanes_busy + self.comparisons.lanes_busy
        return Figures(file.downloaded, max(file.size, 0), self.meter.speed(), lanes)

    # -- what the engine tells ---------------------------------------------------------------------------------

    def handle(self, event: EngineEvent) -> None:
        """Handle one event of the engine."""
        file = event.file
        if self.comparisons.handle(event) or file is not self.engine_file or file is None:
            return
        if event.trace is not None:
            self._trace.append((self.sources[event.source].url, event.trace))
            return
        phase = self.life.phase
        if event.name in ("DONE", "REMOVED"):
            self.backend.file_gone(file, self.loop)
            self.loop = _NO_LOOP
            self.connections += file.connections
            if event.name == "DONE" and phase in AT_WORK:
                self.recovery.stop_waiting()
                self.life.fire(Event.WHOLE)
            else:
                self._let_go()
        elif phase is Phase.DROPPING and event.name == "ANSWERED":
            self.answering.answered_late(event.source, self._meet(event))
        elif phase not in AT_WORK:
            return
        elif event.name == "FAILED":
            if event.status:
                self._heard(self.sources[event.source])
            self.recovery.failed(event)
        elif event.name == "REACHED":
            self.download.notify()
        elif event.name == "HELD":
            pass  # the file has its place by now
        else:
            headers = self._meet(event)
            if self.asking is not None:
                self.asking.answered(headers)
                return
            if event.name == "ANSWERED" and not self.recovery.resort.answered(headers):
                self.sources[event.source].answered = False
                self.turn(self.starting.open_file)
                return
            if event.name == "ANSWERED":
                self.answering.answered(event.source, headers)
            if self.life.phase in AT_WORK:
                self.answering.compare_digest(event.source, headers)
            if event.source == URL and self.life.phase in AT_WORK:
                self.answering.take_offers(headers)

    def _meet(self, event: EngineEvent) -> dict[str, str]:
        """Record a source's first answer; returns its headers."""
        source = self.sources[event.source]
        source.answered = True
        self._heard(source)
        source.resolved_url = event.text
        self.backend.manners.answered(source.host, status=event.status)
        headers = parse_headers(event.headers)
        source.identity = Identity.of(headers, self.file.size)
        source.etag, source.last_modified = self.file.validators(event.source)
        return headers

    def turn(self, then: Callable[[], None]) -> None:
        """Take the file from the engine, and call ``then`` once nothing touches it, to continue in another way."""
        self.answering.begin()
        super().turn(then)

    def withdraw(self) -> None:
        """Take the file from the engine, and stop the comparisons."""
        self.recovery.stop_waiting()
        if self.in_engine:
            self.file.remove()
        self.comparisons.stop(self._let_go)

    def _let_go(self) -> None:
        """Fire ``LET_GO`` once the engine has neither the file nor a comparison."""
        if not self.in_engine and not self.comparisons:
            self.life.fire(Event.LET_GO)

    def compare(self) -> None:
        """Every byte is there: check that all belong to one version of the file."""
        self.comparing.arrived()

    def does_without_helpers(self) -> bool:
        return self.comparing.does_without_offers()

    def ask_ranges(self, question: Question, then: Callable[[Finding], None]) -> None:
        """Fetch some ranges of a source again, compare them, and call ``then`` with the finding."""
        self.comparisons.begin(self.options, question, then)

    def write_trace(self) -> None:
        """Append new transfers to the user's trace, including those made for comparisons."""
        transfers = [*self._trace, *self.comparisons.trace]
        self._trace.clear()
        self.comparisons.trace.clear()
        if self.options.trace:
            write_trace(os.fspath(self.options.trace), self.download.gid, transfers)

    def basis(self) -> Basis:
        """How the bytes were shown to belong to one version of the file at the URL."""
        return self.comparing.basis()

    @property
    def size(self) -> int:
        """The file's size in bytes, after decoding if it was decoded."""
        return self.file.downloaded if self._decoded_bytes is None else self._decoded_bytes

    @property
    def decodes(self) -> bool:
        """Whether a content coding will be, or was, undone."""
        return bool(self.codings) or self._decoded_bytes is not None

    @property
    def encoded_bytes(self) -> int:
        """The size of the received data before it was decoded; -1 if nothing was decoded."""
        return self.file.downloaded if self._decoded_bytes is not None else -1

    def publish(self) -> Path:
        """Give the file its final name, on a worker, decoding it first if requested.

        Raises ``TargetExists``, ``DiskError``, ``BadAnswer``.
        """
        if self.codings:
            assert self.target is not None
            self.target.end_at(self.size)
            self._decoded_bytes = decode(self.target, self.codings, int(self.options.decode_limit))
            self.codings = ()
        return super().publish()

    @property
    def opened_connections(self) -> int:
        """How many connections the download has opened, including those for comparisons."""
        return self.connections + self.comparisons.connections

    @property
    def url_identity(self) -> Identity:
        """What the URL's own server said about the file."""
        return Identity(-1, *self.file.validators(URL)) if self.sources[URL].answered else Identity()

    # -- from time to time --------------------------------------------------------------------------------------

    def tick(self, now_s: float) -> None:
        """Called a few times a second: measure the speed, hash, save, and check the time limits."""
        super().tick(now_s)
        if self.life.phase not in AT_WORK:
            return
        self.meter.sample(now_s, self.file.downloaded)
        if self.lets_others_pass(now_s, is_silent=not self.file.answered and self.file.waiting_for == "transfer"):
            return
        self.let_others_have_its_place(now_s)
        self.recovery.tick(now_s)
        if self.jobs.busy:
            return
        self.mirroring.look()
        if not (self._can_be_continued and self.keeping.save_if_due(now_s, self._save_on_the_way)):
            self.do_if(self.verification.step(self.file.contiguous, _HASH_AT_LEAST_BYTES))

    def let_others_have_its_place(self, now_s: float) -> None:
        """Give up the place while nothing can be done because the host rests, or the next try is not due.

        A file that has begun sits out a short wait rather than queue behind a long download. One of which nothing has
        come might never begin, so it gives way at any wait.
        """
        file = self.file
        if file.lanes_busy or self.comparisons or self.jobs.busy:
            return
        wait_s = self.recovery.rests_for(now_s)
        if wait_s >= governor.WORTH_A_TURN_S or (wait_s and not file.downloaded):
            self.aside.step()
        elif self.aside.is_in_place and file.waiting_for == "rest" and len(self.sources) == 1:
            rest_s = governor.rests_for(file.resting_host)
            if rest_s >= governor.WORTH_A_TURN_S and self.aside.step():
                # The engine itself would continue as soon as the rest is over.
                file.rest(URL, _HELD_S)
                self.call_later(rest_s, lambda: self.aside.back(self._ask_again))

    def _ask_again(self) -> None:
        if self.in_engine:
            self.file.rest(URL, 0)

    # -- what is kept -------------------------------------------------------------------------------------------

    @property
    def _can_be_continued(self) -> bool:
        """Whether there is data in the file that another task could resume, or an outdated saved state of data that the
        engine has taken back since.
        """
        target, file = self.target, self.engine_file
        return (
            target is not None
            and target.keeps_state
            and self.first_event is Event.FETCH
            and file is not None
            and file.splits
            and file.block_size > 0
            and (file.downloaded > 0 or self.keeping.kept_bytes != NOTHING_KEPT)
        )

    def _save_on_the_way(self) -> int | None:
        assert self.target is not None
        return saving.save_on_the_way(self.target, self.file, self.sources)

    def keep_state(self) -> int | None:
        """Save the state. Returns how many bytes can be resumed, or None if nothing can. Raises ``DiskError``."""
        if not self._can_be_continued:
            return None
        assert self.target is not None
        return saving.save_at_the_end(self.target, self.file, self.sources)

    # -- what it waits for --------------------------------------------------------------------------------------

    @property
    def waits_for(self) -> str:
        """What the download waits for, in words; callable from any thread."""
        if self.in_engine and self.engine_file is not None:
            return self._waiting_in_engine(self.engine_file)
        return self.jobs.what or self._waiting_for_comparisons

    @property
    def _waiting_for_comparisons(self) -> str:
        return "ranges to compare with" if self.comparisons else ""

    def _waiting_in_engine(self, file: File) -> str:
        words = waits_of(file)
        if words is not None:
            return words
        return (
            self.recovery.waiting_for or self.jobs.what or self.sourcing.requests.what or self._waiting_for_comparisons
        )

    # -- the end ----------------------------------------------------------------------------------------------

    def change(self, options: DownloadOptions) -> None:
        """Apply new options to the running transfers: limit, lanes, headers, and added mirrors."""
        before, self.options = self.options, options
        for url in options.mirrors:
            self.sources.add(url)
        if self.in_engine:
            self.sourcing.set_limit()
            self.file.source_lanes = self.file.host_lanes = options.max_connection_per_server
            self.file.request_every_us = options.request_every_us
            self.set_lanes()
            if (options.headers, options.user_agent) != (before.headers, before.user_agent):
                self.sourcing.ask_anew()

    def reject(self, error: DownloadError) -> None:
        """Stop because the received data is wrong."""
        self.answering.begin()
        super().reject(error)
