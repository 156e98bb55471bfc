"""What the sources of a run say, and whose word counts: what the remote file is, and what follows from that.

The first good answer is dealt with while the first bytes come. Until it was found to be in order nothing is saved.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rangefetch.disk import checksum
from rangefetch.disk.decoding import codings_to_undo
from rangefetch.errors import BadAnswer, ChecksumMismatch, ContentChanged
from rangefetch.headers import parse_date, stated_range
from rangefetch.identity import Identity, Strength
from rangefetch.logs import log as _log
from rangefetch.masking import mask_url
from rangefetch.net.sources import URL, Source
from rangefetch.transfer.authority import Word
from rangefetch.transfer.lifecycle import Event
from rangefetch.transfer.space import check_target

if TYPE_CHECKING:
    from rangefetch._engine import File
    from rangefetch.native.run import Run

__all__ = ["Answering"]


class Answering:
    """The answers of one run's sources. All methods run on the backend's thread, but for what a worker is given."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.first_source = URL
        """Whose the first response of this run was."""
        self.first_span = (0, 0)
        """What it brought."""
        self._answer: tuple[File, Source] | None = None  # the first good one, if what it says still counts

    @property
    def one_source(self) -> bool:
        """Whether all must come from one source: what a reader has used cannot be fetched anew from another."""
        run = self._run
        return run.download.sink is not None and not run.options.checksum

    @property
    def validators_of_mirrors(self) -> tuple[str, str] | None:
        """What a mirror's responses must have to take part; None: what they had before, if anything. Bytes that a
        reader gets can never be fetched anew, so there a mirror must have the same strong ETag, too."""
        run = self._run
        sink = run.download.sink
        return (sink.read_identity.etag, "") if sink is not None and self.one_source else None

    def decides(self, number: int) -> bool:
        """Whether a source's word is what the remote file is."""
        run = self._run
        return run.authority.source in (-1, number)

    def follow_the_url(self, reason: str) -> None:
        """The URL has another file than the mirrors that stood in for it: theirs is dropped, and they with it."""
        run = self._run
        for number, source in enumerate(run.sources):
            if number != URL and source.answered:
                self.drop_mirror(number, reason)
        if not run.mirroring.url_given_up:
            run.sources[URL].banned = False
        run.recovery.resort.ask_url_afresh()
        run.begin_again()

    def drop_mirror(self, number: int, reason: str) -> None:
        """A mirror has another file than the URL: it is not asked again."""
        run = self._run
        source = run.sources[number]
        source.banned = True
        shown = mask_url(source.url)
        _log.warning("%s: the mirror %s has a different file (%s); no longer used", run.shown_url, shown, reason)
        if run.in_engine:
            run.file.ban(number)

    def begin(self) -> None:
        """Nothing was answered, or that does not count any more."""
        self._answer = None

    @property
    def may_start_over(self) -> bool:
        """Whether nobody has used the beginning of the file yet."""
        run = self._run
        return run.target is not None and run.target.read_bytes == 0

    @property
    def may_be_asked_anew(self) -> bool:
        """Whether the file may be asked for from its beginning: nobody has used that yet, or a strong ETag shows that
        what comes continues it."""
        sink = self._run.download.sink
        return self.may_start_over or (sink is not None and sink.read_identity.strength is Strength.STRONG)

    def answered(self, number: int, headers: dict[str, str]) -> None:
        """The first good answer: what the remote file is."""
        run = self._run
        source, size = run.sources[number], run.file.size
        part = stated_range(headers)
        self.first_source, self.first_span = number, part[:2] if part is not None else (0, size)
        if not self.is_credible(number, source.identity, stated=part is not None):
            return
        if run.options.decode:
            names = [run.options.filename, headers.get("content-disposition", "").rstrip(" \t;'\"")]
            names += [urlsplit(each).path for each in (source.url, source.resolved_url)]
            run.codings = codings_to_undo(headers.get("content-encoding", ""), names)
        if run.download.sink is not None and not self._admit(source, part is None or part[:2] == (0, size)):
            return
        run.modified_time = parse_date(headers.get("last-modified", ""))
        if run.options.expected_size and size not in (-1, run.options.expected_size):
            raise ContentChanged(
                f"the remote file has {size} bytes, not {run.options.expected_size}", url=run.shown_url
            )
        self._deal_with(source, headers)

    def _deal_with(self, source: Source, headers: dict[str, str]) -> None:
        """The first answer makes sense: see what it means for the place on disk, while the first bytes come."""
        run = self._run
        answer = self._answer = (run.file, source)

        def look() -> None:
            run.jobs.do(functools.partial(self._settle, *answer, headers), settled, failed=failed)

        def look_again() -> None:
            if answer is self._answer and not run.life.is_ending:
                look()

        def settled(step: Callable[[], None] | None) -> None:
            if answer is not self._answer:
                return  # it has begun again meanwhile
            run.placing.has_taken()
            if step is None:
                run.life.fire(Event.SETTLED)
            elif not run.life.is_ending:
                step()

        def failed(error: BaseException) -> None:
            if not run.life.is_ending:
                if run.placing.wait(error, look_again):
                    return
                raise error
            _log.debug("%s: nothing of it is kept: %s", run.shown_url, error)

        look()

    def answered_late(self, number: int, headers: dict[str, str]) -> None:
        """The first good answer, of which a run hears that is to end: what came with it is saved if that answer would
        have been followed."""
        run = self._run
        source, size, expected = run.sources[number], run.file.size, run.options.expected_size
        known = run.authority.hear(number, source.identity, stated=stated_range(headers) is not None)
        stated = checksum.stated_by_server(headers, whole="content-range" not in headers)
        if known is not Word.GOOD or size not in (-1, expected or size):
            return
        if (number == URL or run.verification.checksum) and not run.verification.learn(stated):
            return
        if run.first_event is Event.FETCH:
            self._deal_with(source, headers)

    def _settle(self, file: File, source: Source, headers: dict[str, str]) -> Callable[[], None] | None:
        """See whether the final name and the space are free, on a worker, while the first bytes come. Until that is
        known nothing is saved. Returns what is to be done instead of going on, None: nothing.

        Raises ``DiskError``.
        """
        run = self._run
        target, size = run.target, file.size
        assert target is not None
        # A mirror that stands in for the URL does not say what its file is called.
        said = (source.resolved_url, headers.get("content-disposition", "")) if source is run.sources[URL] else ()
        path = run.naming.choose(*said)
        if path is not None:
            free = run.starting.probed
            if run.options.checksum:
                return lambda: run.turn(lambda: run.placing.compare_existing(path, free))
            # A short body may have ended by now, and its size be known that nobody has stated.
            is_stated = "content-length" in headers or "content-range" in headers
            remote = Identity.of(headers, size if is_stated else -1)
            return lambda: run.turn(lambda: run.placing.look_at_existing(path, source, remote, free))
        if run.first_event is Event.ASK:
            # The server gives it another name than its URL does, and that one is free.
            return run.starting.probed
        if size > file.downloaded:
            check_target(
                target,
                size,
                file.downloaded,
                run.backend.sizes.put(run.download.gid, size),
                functools.partial(run.backend.lacking_beside, run.download),
                run.shown_url,
            )
        if run.resumed_bytes:
            _log.info("%s: resuming, %d of %d bytes are there", run.shown_url, run.resumed_bytes, size)
        return None

    def is_credible(self, number: int, identity: Identity, *, stated: bool) -> bool:
        """Whether the whole file may be what a source says it is; otherwise the download starts over."""
        run = self._run
        remembered = run.authority.is_remembered
        known = run.authority.identity.size
        word = run.authority.hear(number, identity, stated=stated)
        if word is Word.CONTRADICTS:
            self.follow_the_url(f"{identity.size} bytes, and not {known}")
            return False
        if word is Word.CUT_SHORT:
            words = f"the server sent {identity.size} bytes as the whole of a file that had {known}"
            if not run.recovery.one_stream:
                run.recovery.ask_plainly(words)
                return False
            if not remembered:
                raise BadAnswer(words, url=run.shown_url)
        if word is Word.UNVOUCHED:
            words = f"the server sent {identity.size} bytes without a validator in place of a file of {known} with one"
            if run.recovery.one_stream:
                raise BadAnswer(words, url=run.shown_url)
            run.recovery.ask_plainly(words)
            return False
        return True

    def _admit(self, source: Source, whole: bool) -> bool:
        """Let the reader of a stream have what comes. Ranges that only weak validators hold together may be of two
        versions, which nobody could find out once they were read: then one response brings it all."""
        run = self._run
        sink = run.download.sink
        assert sink is not None
        identity = source.identity
        strong = identity.strength is Strength.STRONG
        if not (strong or whole or run.options.checksum or run.recovery.one_stream):
            run.recovery.ask_plainly("it has no strong ETag that would hold ranges together")
            return False
        sink.admit(run.download, run.file, source.given_url, identity)
        return True

    def compare_digest(self, number: int, headers: dict[str, str]) -> None:
        """What a source says its file's digest is: proof where the user gave none and the URL says so, and a
        contradiction a ban."""
        run = self._run
        source = run.sources[number]
        stated = checksum.stated_by_server(headers, whole="content-range" not in headers)
        if number != URL and not run.verification.checksum:
            return
        if not run.verification.learn(stated):
            expected = run.verification.checksum
            error = ChecksumMismatch(
                f"the server states another checksum: expected {expected}, got {stated}",
                expected=expected,
                actual=stated,
                url=mask_url(source.url),
            )
            source.banned = True
            if not run.sources.usable() or not self.may_start_over:
                run.reject(error)
                return
            _log.warning("%s; continuing with other sources", error)
            run.begin_again()
