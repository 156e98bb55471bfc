"""A run: one download while the native backend works at it, from opening the target to the final name.

Starting is resuming: the saved state, if there is one that fits, says which blocks are there; the engine fetches the
rest. Data before bits, temp before name: a state is saved only of bytes that were synced before, and the final name
appears only after the last byte and the checksum were right.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rangefetch import state
from rangefetch.answering import Answering
from rangefetch.authority import Authority
from rangefetch.backend import Host, Timer
from rangefetch.comparison import Comparisons
from rangefetch.download import Download, Figures
from rangefetch.errors import DownloadError, LocalError
from rangefetch.events import Event, EventKind, parse_headers
from rangefetch.identity import Identity
from rangefetch.jobs import Jobs
from rangefetch.keeping import NOTHING_KEPT, Keeping
from rangefetch.lifecycle import AT_WORK, Action, Lifecycle, Phase
from rangefetch.lifecycle import Event as Step
from rangefetch.logs import log as _log
from rangefetch.mirroring import Mirroring
from rangefetch.network import mask_url
from rangefetch.options import DownloadOptions
from rangefetch.placing import Placing
from rangefetch.progress import DownloadResult, SpeedMeter
from rangefetch.proof import Proof
from rangefetch.proving import Proving
from rangefetch.recovery import Recovery
from rangefetch.sources import URL, Source, Sources
from rangefetch.sourcing import Sourcing
from rangefetch.target import Target

if TYPE_CHECKING:
    from concurrent.futures import Future

    from rangefetch._engine import File

__all__ = ["Run"]

_NOTHING_S = 5.0
_NO_LOOP = -1
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

_HASH_AT_LEAST_BYTES = 4 << 20


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
        self.backend = backend
        self.url = self.sources.url
        self.target: Target | None = None
        self.saved: state.State | None = None
        """What an earlier run has left."""
        self.engine_file: File | None = None
        self.first_step = Step.FETCH
        """How the engine gets the file: ``ASK`` where it is to say only what there is."""
        self.resumed_bytes = 0
        self.connections = 0
        self.modified_time: float | None = None
        self.resting: Timer | None = None
        """For how long the host is to be left alone before the first request."""
        self.proof = Proof(download.options.checksum)
        self.authority = Authority()
        self.meter = SpeedMeter()
        self.trace: list[dict[str, str]] = []
        self.result: DownloadResult | None = None
        self.loop = _NO_LOOP
        """The engine's loop that has the file."""
        self.jobs = Jobs(functools.partial(backend.work, self))
        self.comparisons = Comparisons(backend, self)
        self.recovery = Recovery(self)
        self.mirroring = Mirroring(self)
        self.placing = Placing(self)
        self.sourcing = Sourcing(self)
        self.answering = Answering(self)
        self.keeping = Keeping(self)
        self.proving = Proving(self)
        self._lanes_share = download.options.max_connection_per_server
        self.life = Lifecycle(
            {
                Action.WITHDRAW: self._withdraw,
                Action.GO_ON: self._go_on,
                Action.COMPARE: self.proving.arrived,
                Action.PROVE: self.proving.prove,
                Action.KEEP: self.keeping.keep,
                Action.TELL: self._tell,
            },
            self.now_s,
        )
        self._then: Callable[[], None] = lambda: None  # what follows when the engine has let go
        self._nothing_since_s = 0.0  # since when it could not say what it waits for
        download.waits = lambda: self.waiting_for

    # -- for recovery and the backend ----------------------------------------------------------------------------

    @property
    def file(self) -> File:
        """The engine's file; there is one from the first request on."""
        assert self.engine_file is not None
        return self.engine_file

    @property
    def most_lanes(self) -> int:
        """How many transfers the options and the other downloads from the same host allow."""
        options = self.options
        per_server = min(options.max_connection_per_server, self._lanes_share)
        split = max(1, options.split - self.mirroring.reserved_lanes())
        most = min(split, per_server * max(1, len(self.sources.usable())), self.recovery.most_lanes)
        return 1 if self.first_step is Step.ASK else most

    @property
    def is_filling(self) -> bool:
        """Whether the engine fills the file, and is to go on with it."""
        return self.life.phase in (Phase.FETCHING, Phase.FILLING)

    @property
    def in_engine(self) -> bool:
        """Whether the engine has the file: nobody else may close it."""
        return self.loop != _NO_LOOP

    def share_lanes(self, lanes: int) -> None:
        """So many lanes of its host are for this download, because there are others."""
        if lanes != self._lanes_share:
            self._lanes_share = lanes
            self.set_lanes()

    def set_lanes(self) -> None:
        """What ``most_lanes`` tells may have changed."""
        if self.in_engine:
            self.file.lanes = self.most_lanes

    @staticmethod
    def now_s() -> float:
        return time.monotonic()

    def call_later(self, delay_s: float, function: Callable[[], None]) -> Timer:
        return self.backend.call_later(self, delay_s, function)

    def ask_network(self, known: Callable[[bool], None], *, told: bool) -> None:
        """Find out whether there is a network, and say so; ``told``: the system says that there is none."""
        urls = [self.options.proxy] if self.options.proxy else [source.url for source in self.sources]
        network = self.backend.network
        self.backend.look(self, lambda: network.is_there(urls, told=told), lambda future: known(future.result()))

    def ask_user(self, question: Callable[[], Any], answered: Callable[[Any], None]) -> None:
        """Call a function of the user's, which may take its time or never return, and go on with its answer if that
        still matters. It may wait for another download: that can have this one's place meanwhile.
        """
        file, listener = self.engine_file, self.backend.listener

        def known(future: Future[Any]) -> None:
            listener.asks(self.download, asking=False)
            if file is self.engine_file and self.life.phase in AT_WORK:
                answered(future.result())

        self.backend.look(self, question, known)
        listener.asks(self.download, asking=True)

    def _heard(self, source: Source) -> None:
        self.backend.network.heard(self.options.proxy or source.url)

    def cool_host(self, host: str, seconds: float, *, at_work: bool = True) -> None:
        """Have every download leave the host alone for a while; without ``at_work`` those that begin."""
        self.backend.cool_host(host, seconds, at_work=at_work)

    def rest_host(self, host: str, seconds: float) -> None:
        """The backend's word that a host is to be left alone."""
        if self.in_engine:
            for number, source in enumerate(self.sources):
                if source.host == host:
                    self.file.rest(number, seconds)

    def note(self, text: str) -> None:
        """What a person should know of the download now."""
        self.download.note = text

    def begin_again(self) -> None:
        """Begin from nothing, when the engine has let go of the file. Raises ``ContentChanged`` where a reader has
        used the beginning and nothing would prove that what comes now continues it."""

        def begin() -> None:
            assert self.target is not None
            self.saved = None
            self.placing.forget()
            self.mirroring.restart()
            self.proving.begin_again()
            self.authority.start_over()
            self.answering.first_source = URL
            for source in self.sources:
                source.answered = False
            self.forget_hash()
            # On a worker, because one may be reading what is about to go.
            self.do(self._truncate, lambda _: self.placing.open_file())

        if self.download.sink is not None:
            self.download.sink.hold(self.download)
        self.turn(begin)

    def _truncate(self) -> None:
        assert self.target is not None
        self.keeping.kept_bytes = NOTHING_KEPT
        self.target.truncate()

    def forget_bytes(self) -> None:
        """The engine has taken back bytes that it had written: neither the hash nor a saved state may count them."""
        self.forget_hash()
        self.keeping.next_save_s = 0.0

    def forget_hash(self) -> None:
        """What was hashed is not what the file will hold."""
        self.do_if(self.proof.forget())

    def begin(self) -> None:
        """Open the target and start to fetch what it lacks."""
        self.placing.begin()

    def figures(self) -> Figures:
        """How far it is; from any thread."""
        file = self.engine_file
        if file is None:
            return Figures()
        lanes = file.lanes_busy + self.comparisons.lanes_busy
        return Figures(file.downloaded, max(file.size, 0), self.meter.speed(), lanes)

    # -- what the engine tells ---------------------------------------------------------------------------------

    def handle(self, event: Event) -> None:
        """One event of the engine."""
        file = event.file
        if self.comparisons.handle(event) or file is not self.engine_file or file is None:
            return
        if event.kind == EventKind.TRACE:
            self.trace.append(dict(word.split("=") for word in event.text.split()))
            return
        phase = self.life.phase
        if event.kind in (EventKind.DONE, EventKind.REMOVED):
            self.backend.file_gone(self.loop)
            self.loop = _NO_LOOP
            self.connections += file.connections
            if event.kind == EventKind.DONE and phase in AT_WORK:
                self.life.fire(Step.WHOLE)
            else:
                self._let_go()
        elif phase is Phase.DROPPING and event.kind == EventKind.ANSWERED:
            self.answering.answered_late(event.source, self._meet(event))
        elif phase not in AT_WORK:
            return
        elif event.kind == EventKind.FAILED:
            if event.status:
                self._heard(self.sources[event.source])
            self.recovery.failed(event)
        elif event.kind == EventKind.REACHED:
            self.download.notify()
        else:
            headers = self._meet(event)
            if event.kind == EventKind.ANSWERED:
                self.answering.answered(event.source, headers)
            if self.life.phase in AT_WORK:
                self.answering.compare_digest(event.source, headers)

    def _meet(self, event: Event) -> dict[str, str]:
        """A source has answered for the first time; returns the headers."""
        source = self.sources[event.source]
        source.answered = True
        self._heard(source)
        source.resolved_url = event.text
        headers = parse_headers(event.headers)
        source.identity = Identity.of(headers, self.file.size)
        source.etag, source.last_modified = self.file.validators(event.source)
        return headers

    def turn(self, then: Callable[[], None]) -> None:
        """It cannot go on like this: take the file from the engine, and do ``then`` when nothing touches it."""
        self._then = then
        self.answering.begin()
        self.life.fire(Step.TURN)

    def _withdraw(self) -> None:
        self.recovery.stop_waiting()
        if self.resting is not None:
            self.resting.cancel()
            self.resting = None
        if self.in_engine:
            self.file.remove()
        self.comparisons.stop(self._let_go)

    def _let_go(self) -> None:
        """Go on when the engine has neither the file nor anything to compare it with."""
        if not self.in_engine and not self.comparisons:
            self.life.fire(Step.LET_GO)

    def _go_on(self) -> None:
        self._then()

    # -- from time to time --------------------------------------------------------------------------------------

    def tick(self, now_s: float) -> None:
        """A few times a second: measure, hash, save, and see whether time is up."""
        life = self.life
        if life.is_late(now_s):
            _log.warning("%s: abandoned: no response from %s", self.shown_url, self.waiting_for)
            life.abandon()
        if life.is_ending:
            return
        self._watch(now_s)
        life.check_time(now_s - self.download.started_s, self.options.total_timeout)
        if life.phase not in AT_WORK:
            return
        self.meter.sample(now_s, self.file.downloaded)
        self.recovery.tick(now_s)
        if self.jobs.busy:
            return
        self.mirroring.look()
        if not self.keeping.save_if_due(now_s):
            self.do_if(self.proof.step(self.file.contiguous, _HASH_AT_LEAST_BYTES))

    def do(self, job: Callable[[], Any], then: Callable[[Any], None], *, what: str = "the disk") -> None:
        """Have a worker do something that may block, one thing after the other, and ``then`` go on here.

        All that touches the target is done so: whoever closes it comes after those who use it. ``then`` is left out
        where the run is to end, or goes on in another way.
        """

        def step(result: Any) -> None:
            if not self.life.is_ending and self.life.phase is not Phase.TURNING:
                then(result)

        self.jobs.do(job, step, what=what)

    # -- what it waits for --------------------------------------------------------------------------------------

    @property
    def waiting_for(self) -> str:
        """What will bring it on, in words; from any thread. Empty: nothing will, which cannot be."""
        if self.life.phase in (Phase.TURNING, Phase.STOPPING, Phase.DROPPING):
            return "the engine to end its transfers"
        if self.resting is not None:
            return "the end of a rest period that the server asked for"
        if self.in_engine and self.engine_file is not None:
            return self._waiting_in_engine(self.engine_file)
        return self.jobs.what or self._waiting_for_comparisons

    @property
    def _waiting_for_comparisons(self) -> str:
        return "ranges to compare with" if self.comparisons else ""

    def _waiting_in_engine(self, file: File) -> str:
        words = _ENGINE_WAITS[file.waiting_for]
        if words is None:
            words = (
                self.recovery.waiting_for
                or self.jobs.what
                or self.sourcing.requests.what
                or self._waiting_for_comparisons
            )
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

    def do_if(self, job: Callable[[], Any] | None) -> None:
        if job is not None:
            self.do(job, lambda _: None)

    # -- the end ----------------------------------------------------------------------------------------------

    def change(self, options: DownloadOptions) -> None:
        """Apply new options to what runs: the limit, the lanes, how its sources are asked, and further mirrors."""
        before, self.options = self.options, options
        for url in options.mirrors:
            self.sources.add(url)
        if self.in_engine:
            self.sourcing.set_limit()
            self.file.source_lanes = options.max_connection_per_server
            self.set_lanes()
            if (options.headers, options.user_agent) != (before.headers, before.user_agent):
                self.sourcing.ask_anew()

    def halt(self, *, remove_files: bool = False) -> None:
        """Stop, save (or remove what there is), and tell the listener."""
        self.life.stop(remove_files=remove_files)

    def fail(self, error: DownloadError) -> None:
        """Stop, keep what can be continued, and tell the listener."""
        error.url = error.url or self.shown_url
        if not self.life.fail(error):
            _log.debug("%s: while it ended: %s", self.shown_url, error)

    def tell_end(self, error: DownloadError | None) -> None:
        """Tell the listener at once, whatever is still going on."""
        self.life.abandon(error)

    def reject(self, error: DownloadError) -> None:
        """Stop, because what came is wrong."""
        self.answering.begin()
        self.life.fail(error, wrong=True)

    def _tell(self) -> None:
        """Tell the listener how it ended."""
        listener, error = self.backend.listener, self.life.error
        try:
            self.backend.run_ended(self)
        finally:
            if self.result is not None:
                listener.completed(self.download, self.result)
            elif error is not None:
                listener.failed(self.download, error)
            else:
                listener.halted(self.download)
