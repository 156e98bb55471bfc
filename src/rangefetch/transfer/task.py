"""A download at work, whichever backend fetches it: one life, from its place on disk to its final name.

The life is the table of ``lifecycle``, and what follows is the same for all: how the place is taken (``placing``), what
is kept at any other end (``keeping``), how a file that is whole gets its name (``proving``). What differs is how the
bytes come and what tells that they are of one version of the file. That is the backend's, in a subclass.
"""

from __future__ import annotations

import abc
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from rangefetch.checks import HTTP, check_url
from rangefetch.disk import provenance
from rangefetch.disk.target import Place, Target
from rangefetch.errors import DiskError, DownloadError, LocalError, TargetExists
from rangefetch.identity import Basis, Identity
from rangefetch.logs import log as _log
from rangefetch.masking import mask_url
from rangefetch.net.sources import URL, Sources
from rangefetch.options import DownloadOptions
from rangefetch.progress import DownloadResult, SpeedMeter
from rangefetch.transfer import governor
from rangefetch.transfer.aside import Aside
from rangefetch.transfer.backend import Services, Timer
from rangefetch.transfer.download import Download, Figures
from rangefetch.transfer.jobs import Jobs
from rangefetch.transfer.keeping import Keeping
from rangefetch.transfer.lifecycle import Action, Event, Lifecycle, Phase
from rangefetch.transfer.naming import Naming
from rangefetch.transfer.offline import Offline
from rangefetch.transfer.placing import Placing
from rangefetch.transfer.proving import Proving
from rangefetch.transfer.tries import Tries
from rangefetch.transfer.verification import Verification

if TYPE_CHECKING:
    from rangefetch.disk.state import State
    from rangefetch.transfer.comparison import Finding, Question
    from rangefetch.transfer.workers import Outcome

__all__ = ["Task"]

S = TypeVar("S", bound="Services[Any]")

_NOTHING_S = 5.0
_REFRESH_S = 300.0


class Task(abc.ABC, Generic[S]):
    """One download at work. All methods run on its backend's thread, but for those that say otherwise."""

    transferer = "the backend"
    """What has the transfers, in words."""

    def __init__(self, backend: S, download: Download, options: DownloadOptions) -> None:
        self.backend = backend
        self.download = download
        self.options = options
        self.shown_url = mask_url(download.url)
        self.policy = backend.policy
        self.sources = Sources(
            download.url,
            tuple(options.mirrors),
            tuple(options.github_mirrors) if options.use_github_mirror else (),
        )
        self.url = self.sources.url
        self.target: Target | None = None
        self.saved: State | None = None
        """What an earlier run has left."""
        self.resumed_bytes = 0
        self.connections = 0
        self.modified_time: float | None = None
        self.verification = Verification(options.checksum)
        self.meter = SpeedMeter()
        self.result: DownloadResult | None = None
        self.tries = Tries()
        self.jobs = Jobs(functools.partial(backend.work, self))
        self.naming = Naming(self)
        self.placing = Placing(self)
        self.keeping = Keeping(self)
        self.proving = Proving(self)
        self.life = Lifecycle(
            {
                Action.WITHDRAW: self.withdraw,
                Action.GO_ON: self._go_on,
                Action.COMPARE: self.compare,
                Action.PROVE: self.proving.prove,
                Action.KEEP: self.keeping.keep,
                Action.TELL: self._tell,
            },
            self.now_s,
        )
        self.aside = Aside(backend.listener, download)
        self.offline = Offline(self)
        self._then: Callable[[], None] = lambda: None  # what follows when the backend has let go
        self._turns = 0  # how often it went on in another way
        self._nothing_since_s = 0.0  # since when it could not say what it waits for

    # -- what differs ---------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def begin(self) -> None:
        """Take the place on disk, and start to fetch what it lacks."""

    @abc.abstractmethod
    def change(self, options: DownloadOptions) -> None:
        """Apply new options to what runs."""

    @abc.abstractmethod
    def withdraw(self) -> None:
        """Have the backend let go, and say so (``LET_GO``) when it has."""

    @abc.abstractmethod
    def compare(self) -> None:
        """Every byte is there: say ``AGREED`` when they are one version of the file that was asked for."""

    @abc.abstractmethod
    def keep_state(self) -> int | None:
        """Save what can be continued, on a worker; how many bytes that is, None: nothing. Raises ``DiskError``."""

    @abc.abstractmethod
    def figures(self) -> Figures:
        """How far it is; from any thread."""

    @abc.abstractmethod
    def basis(self) -> Basis:
        """How it was established that the bytes are one version of the file at the URL."""

    @abc.abstractmethod
    def ask_ranges(self, question: Question, then: Callable[[Finding], None]) -> None:
        """Fetch some ranges of a source again, and go on with what comparing them has found."""

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """The bytes of the file, once all are there."""

    @property
    def decodes(self) -> bool:
        """Whether a content coding is undone."""
        return False

    @property
    def encoded_bytes(self) -> int:
        """How many bytes of what came were decoded; -1: nothing was."""
        return -1

    @property
    def opened_connections(self) -> int:
        """How many connections it took."""
        return self.connections

    @property
    @abc.abstractmethod
    def waits_for(self) -> str:
        """What brings it on, but for the end of its transfers, in words; from any thread."""

    @property
    @abc.abstractmethod
    def url_identity(self) -> Identity:
        """What the URL itself said of its file; nothing where it was not asked."""

    @property
    def place(self) -> Place | None:
        """What it has on disk, from when that is taken on."""
        return self.target

    @abc.abstractmethod
    def write_trace(self) -> None:
        """Add what is not there yet to the user's trace of transfers, on a worker, as far as the backend knows."""

    def publish(self) -> Path:
        """Give what is there its final name, on a worker. Raises ``TargetExists``, ``DiskError``."""
        target, options = self.target, self.options
        assert target is not None
        if target.keeps_state:
            target.end_at(self.size)
            provenance.record(target.fd, self.url, self.url_identity, self.modified_time, self.encoded_bytes)
        publish = functools.partial(target.publish, modified_time=self.modified_time, durable=options.durable)
        while True:
            try:
                path = publish(overwrite=options.overwrite)
                break
            except TargetExists:
                if not options.auto_file_renaming or target.path == self.placing.compared_whole:
                    raise
                self.naming.take_free()
        if target.keeps_state:
            provenance.wrote(path, self.url)
        return path

    # -- steps ----------------------------------------------------------------------------------------------------

    @staticmethod
    def now_s() -> float:
        return time.monotonic()

    def call_later(self, delay_s: float, function: Callable[[], None]) -> Timer:
        return self.backend.call_later(self, delay_s, function)

    def do(self, job: Callable[[], Any], then: Callable[[Any], None], *, what: str = "the disk") -> None:
        """Have a worker do something that may block, one thing after the other, and ``then`` go on here.

        All that touches the target is done so: whoever closes it comes after those who use it. ``then`` is left out
        where the download is to end, or goes on in another way.
        """
        turns = self._turns

        def step(result: Any) -> None:
            if not self.life.is_ending and turns == self._turns:
                then(result)

        self.jobs.do(job, step, what=what)

    def do_if(self, job: Callable[[], Any] | None) -> None:
        if job is not None:
            self.do(job, lambda _: None)

    def ask_for_link(self, url: str, answered: Callable[[str | None], None]) -> Timer:
        """Have the user's ``refresh_url`` say where the file of ``url`` is now; None: it has given no URL in time.

        It may take its time, never return, or wait for another download, which can have this one's place meanwhile.
        What is returned is for whoever does not wait for it any more.
        """
        refresh, turns = self.options.refresh_url, self._turns
        assert refresh is not None

        def ask() -> str | None:
            try:
                return check_url(refresh(url), "refresh_url", HTTP)
            except BaseException as failed:  # a SystemExit, too: it is not this thread's to end anything
                _log.warning("%s: refresh_url gave no new URL: %r", self.shown_url, failed)
                return None

        def known(outcome: Outcome[str | None]) -> None:
            if not self.life.is_ending and turns == self._turns:
                late.cancel()
                self.aside.back(lambda: answered(outcome.result()))

        def is_late() -> None:
            _log.warning("%s: refresh_url did not return within %g seconds", self.shown_url, _REFRESH_S)
            self.aside.back(lambda: answered(None))

        late = self.call_later(_REFRESH_S, is_late)
        self.backend.look(self, ask, known)
        self.aside.step()
        return late

    def go_on(self) -> None:
        """It has a place again, for which it has waited."""
        if not self.life.is_ending:
            self.aside.go_on()

    def turn(self, then: Callable[[], None]) -> None:
        """It cannot go on like this: have the backend let go, and do ``then`` when nothing touches the file."""
        self._then = then
        self._turns += 1
        self.life.fire(Event.TURN)

    def _go_on(self) -> None:
        self._then()

    def does_without_helpers(self) -> bool:
        """The bytes are the wrong ones. Whether some may be from a source that nobody has vouched for, and it begins
        again without."""
        return False

    def tick(self, now_s: float) -> None:
        """A few times a second: see whether time is up. Raises ``TimedOut``, ``LocalError``."""
        life = self.life
        if life.is_late(now_s):
            _log.warning("%s: abandoned: no response from %s", self.shown_url, self.waiting_for)
            life.abandon()
        if life.is_ending:
            return
        if self.download.is_wanted is not None and not self.download.is_wanted():
            self.halt()
            return
        self._watch(now_s)
        self.placing.check(self.figures().downloaded)
        life.check_time(now_s - self.download.started_s, self.options.total_timeout)

    def host(self) -> int:
        """The governor's number of the host that is asked first."""
        return governor.host_of_connection(self.sources[URL].url, self.options)

    def lets_others_pass(self, now_s: float, *, is_silent: bool) -> bool:
        """Whether it stops here, because its host has not answered yet, and others that wait are to have its place
        before it tries again."""
        if (
            not is_silent
            or now_s - self.download.started_s < governor.HURRY_S
            or self.download.was_put_off
            or self.download.sink is not None
            or len(self.sources) > 1
            or self.sources.waiting
            or governor.has_answered(self.host())
            or not self.backend.listener.puts_off(self.download)
        ):
            return False
        _log.info("%s: no response within %g s; others come first", self.shown_url, governor.HURRY_S)
        self.life.stop()
        return True

    @property
    def waiting_for(self) -> str:
        """What will bring it on, in words; from any thread. Empty: nothing will, which cannot be."""
        if self.life.phase in (Phase.TURNING, Phase.STOPPING, Phase.DROPPING):
            return f"{self.transferer} to end its transfers"
        return self.aside.waiting_for or self.placing.waits_for or self.waits_for

    def _watch(self, now_s: float) -> None:
        """A download that can name nothing that it waits for would wait forever. Raises ``LocalError``."""
        if self.waiting_for:
            self._nothing_since_s = 0.0
        elif not self._nothing_since_s:
            self._nothing_since_s = now_s
        elif now_s - self._nothing_since_s > _NOTHING_S:
            raise LocalError("internal error: the download is waiting for nothing", url=self.shown_url)

    # -- the end --------------------------------------------------------------------------------------------------

    def halt(self) -> None:
        """Stop, save (or remove what there is, where its intent says so), and tell the listener."""
        self.life.stop()

    def fail(self, error: DownloadError) -> None:
        """Stop, keep what can be continued, and tell the listener."""
        self._say_of_what(error)
        if not self.life.fail(error):
            _log.debug("%s: while it ended: %s", self.shown_url, error)

    def reject(self, error: DownloadError) -> None:
        """Stop, because what came is wrong."""
        self._say_of_what(error)
        self.life.fail(error, wrong=True)

    def _say_of_what(self, error: DownloadError) -> None:
        """Give an error what only this download knows: its URL, and of the disk its file."""
        error.url = error.url or self.shown_url
        if isinstance(error, DiskError) and error.filename is None and self.target is not None:
            error.filename = str(self.target.part_path)

    def tell_end(self, error: DownloadError | None) -> None:
        """Tell the listener at once, whatever is still going on."""
        self.life.abandon(error)

    def _tell(self) -> None:
        """Tell the listener how it ended."""
        listener, error = self.backend.listener, self.life.error
        self.naming.release()
        try:
            self.backend.task_ended(self)
        finally:
            if self.result is not None:
                listener.completed(self.download, self.result)
            elif error is not None:
                error.seconds, error.connections = self.now_s() - self.download.started_s, self.opened_connections
                listener.failed(self.download, error)
            else:
                listener.halted(self.download)
