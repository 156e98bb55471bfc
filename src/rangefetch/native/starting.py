"""How the engine gets the file of a run, with what an earlier run has left of it.

Starting is resuming: the saved state, if there is one that fits, says which blocks are there. Where the final name is
taken, or what is there may be of another version, the server is asked first, and bytes are compared.
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
from rangefetch.transfer.samples import finished_spans

if TYPE_CHECKING:
    from rangefetch._engine import Profile
    from rangefetch.native.run import Run

__all__ = ["Starting"]


class Starting:
    """How one run begins. All methods run on the backend's thread, but for what a worker is given."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._must_compare = False  # what an earlier run left may be of another version of the file
        self._had_help = False  # ... or, in part, from mirrors

    def begin(self) -> None:
        """Open the target and start to fetch what it lacks."""
        run = self._run
        if run.download.sink is not None:
            run.target = run.download.sink
            run.download.sink.hold(run.download)
            run.verification.begin(run.target)
            self.open_file()
            return
        run.placing.take(self._open_target, self._opened)

    def _open_target(self) -> Path | None:
        """Take the place on disk, on a worker. Returns the file that has the final name, if it is to be compared by its
        checksum.
        """
        run = self._run
        taken = run.placing.open()
        if taken is None:
            self._look_at_saved()
        return taken

    def _load(self) -> None:
        """It gets another name than that of the file whose checksum was computed: see what is saved of it."""
        self._run.placing.load()
        self._look_at_saved()

    def _look_at_saved(self) -> None:
        """How to begin, with what was saved; on a worker."""
        run = self._run
        assert run.target is not None
        # Without a name from the user this is a guess, but one that saves megabytes when it is right.
        if run.naming.may_be_taken:
            run.first_event = Event.ASK
        if run.saved is not None:
            self._recall(run.saved)
            identity = run.saved.identity_of(run.url) or Identity()
            self._had_help = any(each.url != run.url for each in run.saved.sources)
            self._must_compare = must_compare_before_resuming(
                identity, checksum=bool(run.options.checksum), helped=self._had_help
            )
            # Where every byte is there no response would come any more: the server must still be asked what its file
            # is by now, unless the user's checksum will tell, and where nobody has told the name.
            must_ask = self._saved_is_whole and not (run.options.checksum and run.target.path is not None)
            if self._must_compare or must_ask:
                run.first_event = Event.ASK
        if run.placing.earlier is not None:
            run.first_event = Event.ASK

    def _opened(self, taken: Path | None) -> None:
        run = self._run
        assert run.target is not None
        if taken is not None or run.first_event is Event.ASK or run.saved is not None:
            run.drop_tried()
        if taken is not None:
            run.placing.compare_existing(taken, lambda: run.do(self._load, lambda _: self._opened(None)))
            return
        run.verification.begin(run.target)
        self.open_file()

    @property
    def _saved_is_whole(self) -> bool:
        """Whether an earlier run has left every byte."""
        run = self._run
        return run.saved is not None and not run.saved.blocks.strip(b"\2")

    def _recall(self, saved: state.State) -> None:
        """What an earlier run found out; if that has every byte, no answer will tell it again."""
        run = self._run
        assert run.target is not None
        if run.target.path is None and saved.filename:
            run.target.name(saved.filename)
            run.download.filename = saved.filename
        for source in saved.sources:
            run.modified_time = run.modified_time or parse_date(source.last_modified)
        said = [
            (number, Identity(saved.total_size, known.etag, known.last_modified))
            for number, source in enumerate(run.sources)
            for known in saved.sources
            if source.given_url == known.url and (known.etag or known.last_modified)
        ]
        # Where no source sent validators, it is taken for the URL's: its bytes are compared before they are used.
        run.authority.recall(*(said[0] if said else (URL, Identity(saved.total_size))))

    def open_file(self) -> None:
        """Hand the file to the engine, with what an earlier run left."""
        run = self._run
        run.mirroring.stand_in()
        profiles = run.sourcing.profiles if run.asking is None else run.asking.profiles
        run.do(profiles, self._give_to_engine, what=SECRETS)

    def _give_to_engine(self, profiles: list[Profile]) -> None:
        """What follows when it is known how the sources are asked."""
        with no_fork:
            from rangefetch._engine import File

        run = self._run
        if len(profiles) != len(run.sources):  # another one was added meanwhile
            self.open_file()
            return
        assert run.target is not None
        if not run.sources.usable() and not run.sources.waiting:
            raise ContentChanged("no source is left that has the file", url=run.shown_url)
        options = run.options
        known: dict[str, Any] = {}
        if run.first_event is Event.ASK:
            # Two: one, as "bytes=0-0", is taken for no end by servers that test it for truth.
            known = {"first_bytes": 2 if run.asking is None else 1, "probe": True}
            if run.saved is not None and self._saved_is_whole:
                known["pinned_size"] = run.saved.total_size
        elif run.saved is not None:
            known = {
                "size": run.saved.total_size,
                "block_size": run.saved.block_size,
                "blocks": run.saved.blocks,
                "partial": run.saved.partial,
            }
        if run.saved is not None:
            for saved in run.saved.sources:
                for source in run.sources:
                    if source.given_url == saved.url:
                        source.etag, source.last_modified = saved.etag, saved.last_modified
        asked = [
            (source.url, profile, source.etag, source.last_modified)
            for source, profile in zip(run.sources, profiles, strict=True)
        ]
        sink = run.download.sink
        if sink is not None and sink.read_bytes:
            if not any(source.given_url == sink.read_url for source in run.sources.usable()):
                raise ContentChanged("what was read is of a source that may not be asked any more", url=run.shown_url)
            known["pinned_size"] = sink.read_identity.size
            asked = [
                (url, profile, sink.read_identity.etag if source.given_url == sink.read_url else "", "")
                for source, (url, profile, _, _) in zip(run.sources, asked, strict=True)
            ]
        elif run.saved is None:
            asked = [(url, profile, "", "") for url, profile, _, _ in asked]
        url, profile, etag, last_modified = asked[0]
        tried = run.take_tried()
        file = (
            tried[0]
            if tried is not None
            else File(
                run.target.fd,
                url,
                profile,
                tag=run,
                ranged=not run.recovery.one_stream,
                lanes=run.most_lanes,
                source_lanes=options.max_connection_per_server,
                host_lanes=options.max_connection_per_server,
                request_every_us=options.request_every_us,
                # Its reader may be waiting for another stream from the same host.
                insists=run.download.sink is not None,
                least_bytes=int(options.min_split_size),
                limit=int(options.max_download_limit),
                most_bytes=int(options.max_file_size),
                window_bytes=run.target.window_bytes,
                traced=bool(options.trace),
                allocation="none" if run.first_event is Event.ASK else options.file_allocation,
                mirrors=asked[1:],
                etag=etag,
                last_modified=last_modified,
                name=options.filename,
                takes_codings=options.decode or run.asking is not None,
                seems_empty=run.recovery.resort.seems_empty,
                part_bytes=run.part_bytes,
                **known,
            )
        )
        run.resumed_bytes = file.downloaded if tried is None else 0
        run.engine_file = file
        run.meter.reset()
        run.download.figures = run.figures
        run.answering.begin()
        run.recovery.begun()
        if sink is None:
            run.download.file = file
        else:
            file.read_to(sink.read_bytes)
        if tried is None:
            run.loop = run.backend.add_file(file)
        else:
            file.lanes = run.most_lanes
            file.place(run.target.fd)
        run.life.fire(run.first_event)
        if run.first_event is Event.FETCH and self._saved_is_whole:
            run.life.fire(Event.SETTLED)  # nothing is left that a response would tell
        for number, source in enumerate(run.sources):
            if source.banned:
                file.ban(number)
        for event in tried[1] if tried is not None else ():
            guarded(run, run.handle, event)

    def probed(self) -> None:
        """The server has said what there is, and it is to be fetched."""
        run = self._run
        run.first_event = Event.FETCH
        if run.placing.earlier is not None:
            source = run.sources[run.answering.first_source]
            run.turn(lambda: run.placing.look_at_earlier(source, source.identity, self._looked_at_earlier))
        elif run.recovery.one_stream and run.saved is not None:
            run.begin_again()  # it has no use for what is there
        else:
            run.turn(self._compare_saved if self._must_compare else self.open_file)

    def _looked_at_earlier(self, is_same: bool) -> None:
        """It is known whether what was fetched from another URL is part of the file."""
        run = self._run
        run.comparing.compared = is_same
        if is_same and run.recovery.one_stream:
            run.begin_again()
        else:
            self.open_file()

    def _compare_saved(self) -> None:
        """Fetch some of what an earlier run has left again, before anything is added to it."""
        run = self._run
        assert run.saved is not None
        saved = run.saved
        spans = finished_spans(saved.blocks, saved.block_size, saved.total_size, saved.partial)

        def compared(finding: Finding) -> None:
            self._must_compare = False
            if finding.verdict is Verdict.SAME:
                run.comparing.compared = True
                self.open_file()
            elif finding.verdict is Verdict.UNKNOWN and not isinstance(finding.error, BadAnswer | None):
                raise finding.error
            else:
                reason = finding.reason or "too little is there to compare"
                _log.warning("%s: %s; starting over", run.shown_url, reason)
                run.begin_again()

        oldest = spans if self._had_help else ()
        run.sourcing.compare(run.sources[0], spans, compared, size=saved.total_size, oldest=oldest)

    def forget(self) -> None:
        """Nothing is there any more that could be compared."""
        self._must_compare = False
        self._run.first_event = Event.FETCH

    @property
    def compares_saved(self) -> bool:
        """Whether the server is being asked for some of what an earlier run has left, before that is used."""
        return self._must_compare

    def resume_from_mirrors(self) -> None:
        """The URL cannot be asked, and mirrors may have what an earlier run has left of its file."""
        run = self._run
        self._must_compare = False
        # Where every byte is there one of them must be asked.
        run.first_event = Event.ASK if self._saved_is_whole and not run.options.checksum else Event.FETCH
        run.sources[0].banned = True
        run.turn(self.open_file)
