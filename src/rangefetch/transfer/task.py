"""One download at work, from opening its files to the final name, whichever backend fetches it.

``lifecycle`` has its phases. This part is the same for all backends: opening the files (``placing``), saving what can
be resumed (``keeping``), and naming a complete file (``proving``). A backend's subclass fetches the bytes, and checks
that they all belong to one version of the file.
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
    """One download at work. All methods run on its backend's thread, except where noted."""

    transferer = "the backend"
    """What runs the transfers, for messages."""

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
        """The state that an earlier run saved."""
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
        self._then: Callable[[], None] = lambda: None  # called once the backend has let go
        self._turns = 0  # how often ``turn`` was called
        self._nothing_since_s = 0.0  # since when ``waiting_for`` has been empty

    # -- what differs ---------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def begin(self) -> None:
        """Open the files, and start to fetch the missing bytes."""

    @abc.abstractmethod
    def change(self, options: DownloadOptions) -> None:
        """Apply new options to the running transfers."""

    @abc.abstractmethod
    def withdraw(self) -> None:
        """Have the backend stop writing; fire ``LET_GO`` once it has."""

    @abc.abstractmethod
    def compare(self) -> None:
        """Every byte is there: fire ``AGREED`` if all belong to one version of the requested file."""

    @abc.abstractmethod
    def keep_state(self) -> int | None:
        """Save the state, on a worker. Returns how many bytes can be resumed, or None if nothing can.

        Raises ``DiskError``.
        """

    @abc.abstractmethod
    def figures(self) -> Figures:
        """The download's progress; callable from any thread."""

    @abc.abstractmethod
    def basis(self) -> Basis:
        """How the bytes were shown to belong to one version of the file at the URL."""

    @abc.abstractmethod
    def ask_ranges(self, question: Question, then: Callable[[Finding], None]) -> None:
        """Fetch some ranges of a source again, compare them, and call ``then`` with the finding."""

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """The file's size in bytes, valid once all of it is there."""

    @property
    def decodes(self) -> bool:
        """Whether a content coding will be undone."""
        return False

    @property
    def encoded_bytes(self) -> int:
        """The size of the received data before it was decoded; -1 if nothing was decoded."""
        return -1

    @property
    def opened_connections(self) -> int:
        """How many connections the download has opened."""
        return self.connections

    @property
    @abc.abstractmethod
    def waits_for(self) -> str:
        """What the download waits for besides its own transfers, in words; callable from any thread."""

    @property
    @abc.abstractmethod
    def url_identity(self) -> Identity:
        """What the URL's own server said about the file; empty if it was not asked."""

    @property
    def place(self) -> Place | None:
        """The download's place, from the moment it is opened."""
        return self.target

    @abc.abstractmethod
    def write_trace(self) -> None:
        """Append new entries to the user's trace of transfers, on a worker, as far as the backend has any."""

    def publish(self) -> Path:
        """Give the file its final name, on a worker. Raises ``TargetExists``, ``DiskError``."""
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
        """Have a worker run ``job``, which may block, and then call ``then`` with the result on this thread.

        A task's jobs run one at a time, and everything that touches the target is such a job, so the target is closed
        only after its last use. ``then`` is not called if the download is ending, or if ``turn`` was called meanwhile.
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
        """Call the user's ``refresh_url`` for the current URL of this file, and pass the result to ``answered``; None
        if it gave no valid URL in time.

        The function may be slow, never return, or wait for another download, so this download gives up its place to
        others meanwhile. Cancel the returned timer once nobody waits for the URL any more.
        """
        refresh, turns = self.options.refresh_url, self._turns
        assert refresh is not None

        def ask() -> str | None:
            try:
                return check_url(refresh(url), "refresh_url", HTTP)
            except BaseException as failed:  # SystemExit too: user code on this thread must not end anything
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
        """The download has its place again."""
        if not self.life.is_ending:
            self.aside.go_on()

    def turn(self, then: Callable[[], None]) -> None:
        """Have the backend let go of the file, and then call ``then`` to continue in another way."""
        self._then = then
        self._turns += 1
        self.life.fire(Event.TURN)

    def _go_on(self) -> None:
        self._then()

    def does_without_helpers(self) -> bool:
        """Called when the complete file has the wrong checksum. Returns True if some of it may come from sources that
        nobody vouched for, and the download is starting over without them.
        """
        return False

    def tick(self, now_s: float) -> None:
        """Check the time limits; called a few times a second. Raises ``TimedOut``, ``LocalError``."""
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
        """The governor's number of the host that the URL's requests go to."""
        return governor.host_of_connection(self.sources[URL].url, self.options)

    def lets_others_pass(self, now_s: float, *, is_silent: bool) -> bool:
        """Stop the download if its host has not answered yet and others wait for its place; returns whether it did.

        It will be tried again after them.
        """
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
        _log.info("%s: no response within %g s; other downloads go first", self.shown_url, governor.HURRY_S)
        self.life.stop()
        return True

    @property
    def waiting_for(self) -> str:
        """What the download waits for, in words; callable from any thread. Empty is an error: see ``_watch``."""
        if self.life.phase in (Phase.TURNING, Phase.STOPPING, Phase.DROPPING):
            return f"{self.transferer} to end its transfers"
        return self.aside.waiting_for or self.placing.waits_for or self.waits_for

    def _watch(self, now_s: float) -> None:
        """Raise ``LocalError`` if the download has waited for nothing in particular for ``_NOTHING_S``; otherwise it
        would hang forever.
        """
        if self.waiting_for:
            self._nothing_since_s = 0.0
        elif not self._nothing_since_s:
            self._nothing_since_s = now_s
        elif now_s - self._nothing_since_s > _NOTHING_S:
            raise LocalError("internal error: the download is waiting for nothing", url=self.shown_url)

    # -- the end --------------------------------------------------------------------------------------------------

    def halt(self) -> None:
        """Stop, save the data (or remove it if the caller wants that), and tell the listener."""
        self.life.stop()

    def fail(self, error: DownloadError) -> None:
        """Stop, keep what can be resumed, and tell the listener."""
        self._say_of_what(error)
        if not self.life.fail(error):
            _log.debug("%s: another error while it was ending: %s", self.shown_url, error)

    def reject(self, error: DownloadError) -> None:
        """Stop because the received data is wrong."""
        self._say_of_what(error)
        self.life.fail(error, wrong=True)

    def _say_of_what(self, error: DownloadError) -> None:
        """Add the download's URL to the error and, for an error of the disk, the part file's name."""
        error.url = error.url or self.shown_url
        if isinstance(error, DiskError) and error.filename is None and self.target is not None:
            error.filename = str(self.target.part_path)

    def tell_end(self, error: DownloadError | None) -> None:
        """Tell the listener at once, without waiting for pending work."""
        self.life.abandon(error)

    def _tell(self) -> None:
        """Tell the listener how the download ended."""
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
