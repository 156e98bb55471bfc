"""A download that may be a small file: one request to the engine, without a part file, a lock or a saved state.

This is all there is of the download until its first answer says otherwise, so that it costs little more than its bytes.
If the file is large, or unusual in any way, the engine holds the transfer. A ``NativeTask`` then takes over the
engine's file, gives it a place, and continues from that answer, or failure, as if the request had been its own.
"""

from __future__ import annotations

import enum
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rangefetch.disk import provenance
from rangefetch.disk.names import choose_filename
from rangefetch.disk.parts import part_names
from rangefetch.errors import DownloadError, TimedOut
from rangefetch.identity import Basis
from rangefetch.importing import no_fork
from rangefetch.logs import log as _log
from rangefetch.masking import mask_url
from rangefetch.net.sources import Source
from rangefetch.options import DownloadOptions
from rangefetch.progress import DownloadResult, SpeedMeter
from rangefetch.transfer import governor
from rangefetch.transfer.backend import Growth
from rangefetch.transfer.download import Download, Figures
from rangefetch.transfer.effort import SHORT_US, TOO_SHORT, explain
from rangefetch.transfer.events import EngineEvent, Traced
from rangefetch.transfer.guarding import went_wrong
from rangefetch.transfer.lifecycle import LET_GO_S
from rangefetch.transfer.tracing import write_trace

if TYPE_CHECKING:
    from rangefetch._engine import File, Profile
    from rangefetch.native.backend import NativeBackend
    from rangefetch.native.directories import Directory

__all__ = ["TABLE", "Small", "Stage", "Step", "come_whole", "fetch_alike", "waits_of"]

_LARGEST_BYTES = 1 << 20
_NO_LOOP = -1


class Stage(enum.Enum):
    """The stages of a small download."""

    PREPARING = "its directory is being opened, and the files with secrets are being read"
    FETCHING = "the engine fetches it"
    QUEUED = "it is not small, and waits for its turn like any other download"
    HELD = "a task has taken it over, and may continue with the engine's file"
    LEAVING = "the engine releases the file, and then the end of the download is reported"
    DROPPED = "the engine releases the file; the task does not need it"
    NAMED = "it has its final name, and its trace is being written"
    ENDED = "this object has nothing left to do"

    __hash__ = object.__hash__  # Enum's own is a Python function, called for each lookup in the table


class Step(enum.Enum):
    """The events that move a small download between stages."""

    ASKED = "the engine has been asked to fetch it"
    UNPREPARED = "its directory or its files with secrets cannot be opened"
    TOLD = "the engine reports that it is not small, or that it failed"
    TURN = "its turn has come"
    TAKEN = "the task continues with the engine's file"
    UNWANTED = "the task does not need the engine's file"
    STOP = "it was asked to end, or cannot continue"
    LET_GO = "the engine has released the file, which is not complete"
    WHOLE = "the engine has released the file, which has its final name"
    TRACED = "the same, but its trace has yet to be written"
    WRITTEN = "its trace is written, as far as that is possible"
    ABANDON = "nothing waits for it any longer"

    __hash__ = object.__hash__


_ENGINE_WAITS = {
    "limit": "the speed limit",
    "reader": "the reader of the stream",
    "rest": "the end of a rest period that the server asked for",
    "host": "a connection to the server, which has all that are allowed",
    "rate": "the time of its next request to the server",
    "loop": "the engine",
    "decision": None,
    "nothing": "",
}


def waits_of(file: File) -> str | None:
    """What the engine waits for, in words; None: a decision on the Python side."""
    words = file.waiting_for
    if words == "transfer":
        lanes = file.lanes_busy
        return f"{lanes} transfer{'s' if lanes != 1 else ''}"
    return _ENGINE_WAITS[words]


class Small:
    """One download that may be a small file. All methods run on the backend's thread."""

    # Initial values are class attributes: most are never changed, and thousands of objects are made in a second.
    file: File | None = None
    connections = 0
    """How many connections were opened for it, once the engine has let go."""
    stage = Stage.PREPARING
    _name = _path = ""
    _directory: Directory | None = None
    _loop = _NO_LOOP
    _events: tuple[EngineEvent, ...] = ()  # for the task that takes over
    _trace: tuple[Traced, ...] = ()
    _error: DownloadError | None = None
    _result: DownloadResult | None = None  # set once the file is named, until it is reported
    _leaving_since_s = 0.0
    _meter: SpeedMeter | None = None

    def __init__(self, backend: NativeBackend, download: Download) -> None:
        self.download = download
        self.options = self._asked_with = download.options
        self._backend = backend

    def fire(self, step: Step) -> None:
        """Move to the stage that ``TABLE`` gives for ``step``, and run the action that goes with it.

        Raises ``ValueError``, and changes nothing, if the step cannot happen in this stage.
        """
        move = TABLE[self.stage].get(step)
        if move is None:
            raise ValueError(f"{step.name} cannot happen while {self.stage.name}")
        self.stage, action = move
        if action is None:
            return
        try:
            action(self)
        except BaseException:
            # A download that is ending gets no further event to finish it, so finish it here.
            if self.stage in _ENDING:
                self.fire(Step.ABANDON)
            raise

    # -- the beginning --------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Have the engine fetch it, once its directory is open."""
        self._backend.preparing.prepare([self])

    def not_prepared(self, error: BaseException) -> None:
        """The directory or the secrets could not be opened: a task will report what is wrong."""
        _log.debug("%s: %s", mask_url(self.download.url), error)
        self.fire(Step.UNPREPARED)

    # -- what the engine tells ------------------------------------------------------------------------------------

    def handle(self, event: EngineEvent) -> None:
        """Handle one event of the engine."""
        if event.trace is not None:
            self._trace += ((self.download.url, event.trace),)
        elif event.name == "REMOVED":
            self._leave_engine()
            self.fire(Step.LET_GO)
        else:
            if event.name != "HELD":
                self._events += (event,)
            self.fire(Step.TOLD)

    def go_on(self) -> None:
        """It has its turn: continue as a task."""
        self.fire(Step.TURN)

    def _ask_for_turn(self) -> None:
        self._release_directory()
        has_failed = any(event.name == "FAILED" for event in self._events)
        match self._backend.listener.grows(self.download, answered=not has_failed):
            case Growth.NOW:
                self.fire(Step.TURN)
            case Growth.LATER:
                self.fire(Step.STOP)

    def _task_instead(self) -> None:
        self._backend.task_instead(self)

    def _leave_engine(self) -> None:
        assert self.file is not None
        self.connections = self.file.connections
        self._backend.file_gone(self.file, self._loop)
        self.file.tag = None  # no more events come; this also breaks the reference cycle
        self._loop = _NO_LOOP
        self._release_directory()

    def _release_directory(self) -> None:
        directory, self._directory = self._directory, None
        if directory is not None:
            directory.release()

    def _write_trace(self) -> None:
        """Write the trace, before the named file is reported."""
        self._backend.work(
            self,
            lambda: write_trace(os.fspath(self.options.trace), self.download.gid, self._trace),
            lambda _: self.fire(Step.WRITTEN),
        )

    def _tell_whole(self) -> None:
        assert self._result is not None
        self._backend.are_whole([(self, self._result)])

    # -- for the task that takes over -----------------------------------------------------------------------------

    def hand_over(self, task: object, options: DownloadOptions) -> tuple[File, int, list[EngineEvent]] | None:
        """Hand the engine's file, its loop and the events so far to a task with these options. None if the file is
        gone, or was started with other options.
        """
        file = self.file
        if self.stage is not Stage.HELD or file is None or options is not self._asked_with:
            return None
        self.fire(Step.TAKEN)
        file.tag = task
        return file, self._loop, list(self._events)

    @property
    def part_bytes(self) -> int:
        """See ``NativeTask.part_bytes``."""
        return self.file.part_bytes if self.file is not None else 0

    @property
    def trace(self) -> list[Traced]:
        """The traces of its transfers that have ended."""
        return list(self._trace)

    def drop(self) -> None:
        """The task has no use for the engine's file."""
        self.fire(Step.UNWANTED)

    def _drop(self) -> None:
        self._backend.drops(self)
        self._remove()

    def _is_dropped(self) -> None:
        self._backend.dropped(self)

    # -- what others ask for --------------------------------------------------------------------------------------

    def halt(self) -> None:
        """Have the engine let go of it, and tell the listener. There is nothing to save or remove."""
        self.fire(Step.STOP)

    def fail(self, error: DownloadError) -> None:
        """End it with an error."""
        error.url = error.url or mask_url(self.download.url)
        self._error = self._error or error
        self.fire(Step.STOP)

    def tell_end(self, error: DownloadError | None) -> None:
        """Tell the listener at once, without waiting for pending work."""
        self._error = self._error or error
        self.fire(Step.ABANDON)

    def _leave(self) -> None:
        self._leaving_since_s = self._backend.now_s()
        self._remove()

    def _remove(self) -> None:
        """Have the engine let go of the file, if it has it."""
        if self._loop == _NO_LOOP:
            self._release_directory()
            self.fire(Step.LET_GO)
        elif self.file is not None:
            self.file.remove()

    def _tell(self) -> None:
        listener = self._backend.listener
        try:
            self._backend.task_ended(self)
        finally:
            if self._error is not None:
                listener.failed(self.download, self._error)
            else:
                listener.halted(self.download)

    def change(self, options: DownloadOptions) -> None:
        """Apply new limits at once; other options take effect with the next request, which a task makes."""
        self.options = options
        if self.file is not None:
            self.file.limit = int(options.max_download_limit)
            self.file.request_every_us = options.request_every_us

    def tick(self, now_s: float) -> None:
        """Called a few times a second: check the time limit, and whether its host holds up other downloads."""
        file, download = self.file, self.download
        if self.stage is Stage.LEAVING and now_s - self._leaving_since_s > LET_GO_S:
            _log.warning("%s: abandoned: no response from %s", mask_url(download.url), self.waiting_for)
            self.tell_end(None)
        elapsed_s = now_s - download.started_s
        if self.stage not in _AT_WORK:
            return
        if 0 < self.options.total_timeout < elapsed_s:
            self.fail(TimedOut(f"not finished after {self.options.total_timeout:g} seconds"))
        elif file is not None:
            if self._meter is None:
                self._meter = SpeedMeter()
            self._meter.sample(now_s, file.downloaded)
            if self.stage is Stage.FETCHING and not file.downloaded:
                self._let_others_pass(file, elapsed_s)
            elif self.stage is Stage.QUEUED and self._backend.lacks_connections(self.host):
                self._make_way()

    def _make_way(self) -> None:
        """Give up the connection that it holds while waiting for its turn: the active downloads wait for a connection,
        and otherwise nobody would ever continue.
        """
        if self._backend.listener.makes_way(self.download):
            self.fire(Step.STOP)

    def _let_others_pass(self, file: File, elapsed_s: float) -> None:
        """If its host does not answer, or rests, let waiting downloads go first; this one is tried again."""
        listener, waits_for = self._backend.listener, file.waiting_for
        if waits_for == "transfer" and elapsed_s >= governor.HURRY_S and not file.received_bytes:
            host = governor.host_of_connection(self.download.url, self.options)
            if not governor.has_answered(host) and listener.puts_off(self.download):
                why = f"no response within {governor.HURRY_S:g} s"
                _log.info("%s: %s; other downloads go first", mask_url(self.download.url), why)
                self.fire(Step.STOP)
            return
        rest_s = governor.rests_for(file.resting_host) if waits_for == "rest" else 0.0
        if rest_s >= governor.WORTH_A_TURN_S and listener.puts_off(self.download, rest_s):
            self.download.has_begun = False  # nothing is left of it
            self.fire(Step.STOP)

    # -- for whoever looks ----------------------------------------------------------------------------------------

    @property
    def host(self) -> str:
        """``host:port`` of its URL."""
        return Source(self.download.url).host

    def waits(self) -> str:
        """``waiting_for``; callable from any thread."""
        return self.waiting_for

    @property
    def waiting_for(self) -> str:
        """What it waits for, in words; callable from any thread."""
        file = self.file
        if self.stage is Stage.LEAVING:
            return "the engine to end its transfers"
        if self.stage is Stage.QUEUED:
            return "its turn"
        if self.stage is not Stage.FETCHING or file is None:
            return "the disk"
        return waits_of(file) or "the disk"

    def figures(self) -> Figures:
        """The download's progress; callable from any thread."""
        file, meter = self.file, self._meter
        if file is None:
            return Figures()
        speed = meter.speed() if meter is not None else 0.0
        return Figures(file.downloaded, max(file.size, 0), speed, file.lanes_busy)


_Move = tuple[Stage, Callable[[Small], None] | None]


def _stays(stage: Stage, *steps: Step) -> dict[Step, _Move]:
    return dict.fromkeys(steps, (stage, None))


_ENDS: dict[Step, _Move] = {Step.STOP: (Stage.LEAVING, Small._leave), Step.ABANDON: (Stage.ENDED, Small._tell)}
_COMES_WHOLE: dict[Step, _Move] = {Step.WHOLE: (Stage.ENDED, None), Step.TRACED: (Stage.NAMED, Small._write_trace)}

TABLE: Mapping[Stage, Mapping[Step, _Move]] = {
    # A TURN may be for an earlier attempt, which asked for it and is gone.
    Stage.PREPARING: {
        Step.ASKED: (Stage.FETCHING, None),
        Step.UNPREPARED: (Stage.HELD, Small._task_instead),
        **_ENDS,
        **_stays(Stage.PREPARING, Step.TURN),
    },
    Stage.FETCHING: {
        Step.TOLD: (Stage.QUEUED, Small._ask_for_turn),
        **_COMES_WHOLE,
        **_ENDS,
        **_stays(Stage.FETCHING, Step.TURN),
    },
    Stage.QUEUED: {
        Step.TURN: (Stage.HELD, Small._task_instead),
        **_ENDS,
        **_stays(Stage.QUEUED, Step.TOLD),
    },
    Stage.HELD: {
        Step.TAKEN: (Stage.ENDED, None),
        Step.UNWANTED: (Stage.DROPPED, Small._drop),
        **_ENDS,  # if the task could not be created
        **_stays(Stage.HELD, Step.TOLD, Step.TURN),
    },
    Stage.DROPPED: {
        Step.LET_GO: (Stage.ENDED, Small._is_dropped),
        **_stays(Stage.DROPPED, Step.TOLD, Step.TURN, Step.STOP, Step.ABANDON),
    },
    Stage.LEAVING: {
        Step.LET_GO: (Stage.ENDED, Small._tell),
        **_COMES_WHOLE,  # it was complete before the engine got the stop
        **_ENDS,
        **_stays(Stage.LEAVING, Step.TOLD, Step.TURN, Step.STOP),
    },
    Stage.NAMED: {
        Step.WRITTEN: (Stage.ENDED, Small._tell_whole),
        Step.ABANDON: (Stage.ENDED, Small._tell_whole),
        **_stays(Stage.NAMED, Step.TURN, Step.STOP),
    },
    # An abandoned download may still receive the events it was waiting for.
    Stage.ENDED: _stays(
        Stage.ENDED,
        *(Step.UNPREPARED, Step.TOLD, Step.TURN, Step.LET_GO, Step.WHOLE, Step.TRACED, Step.WRITTEN),
        *(Step.STOP, Step.ABANDON),
    ),
}
"""For each stage and step: the next stage, and the action to take."""

_AT_WORK = frozenset({Stage.PREPARING, Stage.FETCHING, Stage.QUEUED})
_ENDING = frozenset({Stage.LEAVING, Stage.NAMED, Stage.ENDED})


# -- together ----------------------------------------------------------------------------------------------------------


def fetch_alike(backend: NativeBackend, smalls: Sequence[Small], directory: Directory, profile: Profile) -> None:
    """Have the engine fetch files of one directory and one origin, whose options differ at most in their names.

    ``directory`` counts each file as a user.
    """
    with no_fork:
        from rangefetch._engine import File

    options = smalls[0].options
    most, least_bytes = options.max_connection_per_server, int(options.min_split_size)
    alike: dict[str, Any] = {
        "lanes": 1,
        "source_lanes": most,
        "host_lanes": most,
        "request_every_us": options.request_every_us,
        "least_bytes": least_bytes,
        "traced": bool(options.trace),
        "allocation": options.file_allocation,
        "most_bytes": int(options.max_file_size),
    }
    # A file that would be split among connections is not small.
    largest_bytes = _LARGEST_BYTES if options.split == 1 else min(_LARGEST_BYTES, least_bytes)
    overwrite, fd, prefix = options.overwrite, directory.fd, directory.prefix
    files: list[File] = []
    for small in smalls:
        if small.stage is not Stage.PREPARING:  # it was stopped
            directory.release()
            continue
        small._directory = directory
        try:
            download, options = small.download, small.options
            url, filename = download.url, options.filename
            small._asked_with = options
            download.filename = small._name = name = filename or choose_filename(url)
            small._path = path = prefix + name
            small.file = file = File(-1, url, profile, tag=small, name=filename, **alike)
            file.be_small(
                fd,
                name,
                part_names(filename, url),
                overwrite=overwrite,
                named_by_url=not filename,
                largest_bytes=largest_bytes,
                origin=provenance.beginning(url),
                # A file that this process wrote from another URL is another file, whatever its bytes are.
                compares=not provenance.others_in_this_run(path, url),
            )
            download.figures = small.figures
            files.append(file)
        except BaseException as error:  # of one file
            went_wrong(small, error)
    if not files:
        return
    try:
        loops = backend.add_smalls(files)
    except BaseException as error:
        for file in files:
            went_wrong(file.tag, error)
        return
    for file, loop in zip(files, loops, strict=True):
        file.tag._loop = loop
        file.tag.fire(Step.ASKED)


def come_whole(backend: NativeBackend, files: Sequence[File]) -> None:
    """Report small files that the engine has named and let go of."""
    now_s = backend.now_s()
    ended, one_response, compared = Stage.ENDED, Basis.ONE_RESPONSE, Basis.COMPARED
    whole: list[tuple[Small, DownloadResult]] = []
    written: list[tuple[str, str]] = []
    gone: Counter[tuple[int, int]] = Counter()  # by host and loop
    left: Counter[Directory | None] = Counter()
    heard = None
    for file in files:
        small: Small = file.tag
        file.tag = None  # no more events come; this also breaks the reference cycle
        try:
            gone[file.host, small._loop] += 1
            left[small._directory] += 1
            small._loop, small._directory = _NO_LOOP, None
            if small.stage is ended:
                continue  # it was abandoned
            download, size, was_there = small.download, file.size, file.was_there
            url, connections = download.url, file.connections
            path: Any = small._path  # converted to a Path on first use
            if not was_there:
                written.append((path, url))
            if heard is None or not url.startswith(heard):
                heard = url[: url.find("/", 8) + 1] or url
                backend.heard(url, small.options, ranged=file.splits)
            short = file.lasted_us < SHORT_US
            small.connections = connections
            result = DownloadResult(
                path=path,
                filename=small._name,
                size=size,
                gid=download.gid,
                seconds=now_s - download.started_s,
                sources=(url,),
                connections=connections,
                bound=TOO_SHORT if short else explain({**file.effort, "limit": file.limit}, size, 1),
                already_complete=was_there,
                identity=compared if was_there else one_response,
            )
            if small._trace:
                small._result = result
                small.fire(Step.TRACED)
            else:
                small.fire(Step.WHOLE)
                whole.append((small, result))
        except BaseException as error:  # of one file
            went_wrong(small, error)
    for (host, loop), count in gone.items():
        backend.files_gone(host, loop, count)
    for directory, count in left.items():
        if directory is not None:
            directory.release(count)
    provenance.wrote_all(written)
    backend.are_whole(whole)
