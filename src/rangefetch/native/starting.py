"""Hands a task's file to the engine, with what an earlier run left of it.

Starting is resuming: a saved state that fits says which blocks are there. If the final name is taken, or the saved data
may be of another version, the server is asked first, and bytes are compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rangefetch.disk import state
from rangefetch.errors import BadAnswer, ContentChanged
from rangefetch.headers import parse_date
from rangefetch.identity import Identity, must_compare_before_resuming
from rangefetch.importing import no_fork
from rangefetch.logs import log as _log
from rangefetch.native.sourcing import SECRETS
from rangefetch.net.sources import URL
from rangefetch.transfer.comparison import Finding, Verdict
from rangefetch.transfer.guarding import guarded
from rangefetch.transfer.lifecycle import Event
from rangefetch.transfer.samples import finished_extents

if TYPE_CHECKING:
    from rangefetch._engine import Profile
    from rangefetch.native.task import NativeTask

__all__ = ["Starting"]


class Starting:
    """Starts one task. All methods run on the backend's thread, except those for workers."""

    def __init__(self, task: NativeTask) -> None:
        self._task = task
        self._must_compare = False  # the saved data may be of another version of the file
        self._had_help = False  # some of the saved data may be from mirrors

    def begin(self) -> None:
        """Open the target, and start to fetch the missing bytes."""
        task = self._task
        if task.download.sink is not None:
            task.target = task.download.sink
            task.download.sink.hold(task.download)
            task.verification.begin(task.target)
            self.open_file()
            return
        task.placing.take(self._open_target, self._opened)

    def _open_target(self) -> Path | None:
        """Open the place on disk, on a worker. Returns an existing file with the final name, to compare checksums."""
        task = self._task
        taken = task.placing.open()
        if taken is None:
            self._look_at_saved()
        return taken

    def _load(self) -> None:
        """Load the saved state of the new name, after a file with the first name had another checksum."""
        self._task.placing.load()
        self._look_at_saved()

    def _look_at_saved(self) -> None:
        """Decide how to begin, given the saved state; on a worker."""
        task = self._task
        assert task.target is not None
        # Without a name from the user this is a guess, but a right one saves megabytes.
        if task.naming.may_be_taken:
            task.first_event = Event.ASK
        if task.saved is not None:
            self._recall(task.saved)
            identity = task.saved.identity_of(task.url) or Identity()
            self._had_help = any(each.url != task.url for each in task.saved.sources)
            self._must_compare = must_compare_before_resuming(
                identity, checksum=bool(task.options.checksum), helped=self._had_help
            )
            # If every byte is there, no more responses would come. The server must still be asked which version it has
            # now, unless the user's checksum will tell; and for the name, if that is not known.
            must_ask = self._saved_is_whole and not (task.options.checksum and task.target.path is not None)
            if self._must_compare or must_ask:
                task.first_event = Event.ASK
        if task.placing.earlier is not None:
            task.first_event = Event.ASK

    def _opened(self, taken: Path | None) -> None:
        task = self._task
        assert task.target is not None
        if taken is not None or task.first_event is Event.ASK or task.saved is not None:
            task.drop_tried()
        if taken is not None:
            task.placing.compare_existing(taken, lambda: task.do(self._load, lambda _: self._opened(None)))
            return
        task.verification.begin(task.target)
        self.open_file()

    @property
    def _saved_is_whole(self) -> bool:
        """Whether an earlier run has left every byte."""
        task = self._task
        return task.saved is not None and not task.saved.blocks.strip(b"\2")

    def _recall(self, saved: state.State) -> None:
        """Restore what an earlier run found out; if it left every byte, no answer will say it again."""
        task = self._task
        assert task.target is not None
        if task.target.path is None and saved.filename:
            task.target.name(saved.filename)
            task.download.filename = saved.filename
        for source in saved.sources:
            task.modified_time = task.modified_time or parse_date(source.last_modified)
        said = [
            (number, Identity(saved.total_size, known.etag, known.last_modified))
            for number, source in enumerate(task.sources)
            for known in saved.sources
            if source.given_url == known.url and (known.etag or known.last_modified)
        ]
        # If no source sent validators, count the state as the URL's: its bytes are compared before they are used.
        task.authority.recall(*(said[0] if said else (URL, Identity(saved.total_size))))

    def open_file(self) -> None:
        """Hand the file to the engine, with what an earlier run left."""
        task = self._task
        task.mirroring.stand_in()
        profiles = task.sourcing.profiles if task.asking is None else task.asking.profiles
        task.do(profiles, self._give_to_engine, what=SECRETS)

    def _give_to_engine(self, profiles: list[Profile]) -> None:
        """Create the engine's file, now that the sources' profiles are known."""
        with no_fork:
            from rangefetch._engine import File

        task = self._task
        if len(profiles) != len(task.sources):  # a source was added meanwhile
            self.open_file()
            return
        assert task.target is not None
        if not task.sources.usable() and not task.sources.waiting:
            raise ContentChanged("no URL or mirror is left that has the file", url=task.shown_url)
        options = task.options
        known: dict[str, Any] = {}
        if task.first_event is Event.ASK:
            # Two bytes: some servers test the range's end for truth, and take "bytes=0-0" for a range without an end.
            known = {"first_bytes": 2 if task.asking is None else 1, "probe": True}
            if task.saved is not None and self._saved_is_whole:
                known["pinned_size"] = task.saved.total_size
        elif task.saved is not None:
            known = {
                "size": task.saved.total_size,
                "block_size": task.saved.block_size,
                "blocks": task.saved.blocks,
                "partial": task.saved.partial,
            }
        if task.saved is not None:
            for saved in task.saved.sources:
                for source in task.sources:
                    if source.given_url == saved.url:
                        source.etag, source.last_modified = saved.etag, saved.last_modified
        asked = [
            (source.url, profile, source.etag, source.last_modified)
            for source, profile in zip(task.sources, profiles, strict=True)
        ]
        sink = task.download.sink
        if sink is not None and sink.read_bytes:
            if not any(source.given_url == sink.read_url for source in task.sources.usable()):
                raise ContentChanged("the part already read came from a URL that is no longer used", url=task.shown_url)
            known["pinned_size"] = sink.read_identity.size
            asked = [
                (url, profile, sink.read_identity.etag if source.given_url == sink.read_url else "", "")
                for source, (url, profile, _, _) in zip(task.sources, asked, strict=True)
            ]
        elif task.saved is None:
            asked = [(url, profile, "", "") for url, profile, _, _ in asked]
        url, profile, etag, last_modified = asked[0]
        tried = task.take_tried()
        file = (
            tried[0]
            if tried is not None
            else File(
                task.target.fd,
                url,
                profile,
                tag=task,
                ranged=not task.recovery.one_stream,
                lanes=task.most_lanes,
                source_lanes=options.max_connection_per_server,
                host_lanes=options.max_connection_per_server,
                request_every_us=options.request_every_us,
                # Its reader may be waiting for another stream from the same host.
                insists=task.download.sink is not None,
                least_bytes=int(options.min_split_size),
                limit=int(options.max_download_limit),
                most_bytes=int(options.max_file_size),
                window_bytes=task.target.window_bytes,
                traced=bool(options.trace),
                allocation="none" if task.first_event is Event.ASK else options.file_allocation,
                mirrors=asked[1:],
                etag=etag,
                last_modified=last_modified,
                name=options.filename,
                takes_codings=options.decode or task.asking is not None,
                seems_empty=task.recovery.resort.seems_empty,
                part_bytes=task.part_bytes,
                **known,
            )
        )
        task.resumed_bytes = file.downloaded if tried is None else 0
        task.engine_file = file
        task.meter.reset()
        task.download.figures = task.figures
        task.answering.begin()
        task.recovery.begun()
        if sink is None:
            task.download.file = file
        else:
            file.read_to(sink.read_bytes)
        if tried is None:
            task.loop = task.backend.add_file(file)
        else:
            file.lanes = task.most_lanes
            file.place(task.target.fd)
        task.life.fire(task.first_event)
        if task.first_event is Event.FETCH and self._saved_is_whole:
            task.life.fire(Event.SETTLED)  # no response will come
        for number, source in enumerate(task.sources):
            if source.banned:
                file.ban(number)
        for event in tried[1] if tried is not None else ():
            guarded(task, task.handle, event)

    def probed(self) -> None:
        """The server has said what there is: now fetch it."""
        task = self._task
        task.first_event = Event.FETCH
        if task.placing.earlier is not None:
            source = task.sources[task.answering.first_source]
            task.turn(lambda: task.placing.look_at_earlier(source, source.identity, self._looked_at_earlier))
        elif task.recovery.one_stream and task.saved is not None:
            task.begin_again()  # a single stream cannot use the saved data
        else:
            task.turn(self._compare_saved if self._must_compare else self.open_file)

    def _looked_at_earlier(self, is_same: bool) -> None:
        """Called with whether data fetched from another URL belongs to this file."""
        task = self._task
        task.comparing.compared = is_same
        if is_same and task.recovery.one_stream:
            task.begin_again()
        else:
            self.open_file()

    def _compare_saved(self) -> None:
        """Fetch samples of an earlier run's data again, before anything is added to it."""
        task = self._task
        assert task.saved is not None
        saved = task.saved
        extents = finished_extents(saved.blocks, saved.block_size, saved.total_size, saved.partial)

        def compared(finding: Finding) -> None:
            self._must_compare = False
            if finding.verdict is Verdict.SAME:
                task.comparing.compared = True
                self.open_file()
            elif finding.verdict is Verdict.UNKNOWN and not isinstance(finding.error, BadAnswer | None):
                raise finding.error
            else:
                reason = finding.reason or "there is too little data to compare"
                _log.warning("%s: %s; starting over", task.shown_url, reason)
                task.begin_again()

        oldest = extents if self._had_help else ()
        task.sourcing.compare(task.sources[0], extents, compared, size=saved.total_size, oldest=oldest)

    def forget(self) -> None:
        """Nothing is left to compare."""
        self._must_compare = False
        self._task.first_event = Event.FETCH

    @property
    def compares_saved(self) -> bool:
        """Whether samples of an earlier run's data have yet to be compared before it is used."""
        return self._must_compare

    def resume_from_mirrors(self) -> None:
        """The URL cannot be asked: resume from mirrors, which may have the file that an earlier run left part of."""
        task = self._task
        self._must_compare = False
        # If every byte is there, one of them must be asked.
        task.first_event = Event.ASK if self._saved_is_whole and not task.options.checksum else Event.FETCH
        task.sources[0].banned = True
        task.turn(self.open_file)
