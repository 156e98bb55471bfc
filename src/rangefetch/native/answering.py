"""What the sources of a task say, and whose word counts: what the remote file is, and what follows from that.

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
from rangefetch.native.machine import keeps_in_cache
from rangefetch.net.offers import names_duplicates, offered_in
from rangefetch.net.sources import URL, Source
from rangefetch.transfer.authority import Word
from rangefetch.transfer.lifecycle import Event
from rangefetch.transfer.space import check_target

if TYPE_CHECKING:
    from rangefetch._engine import File
    from rangefetch.native.task import NativeTask

__all__ = ["Answering"]


class Answering:
    """The answers of one task's sources. All methods run on the backend's thread, but for what a worker is given."""

    def __init__(self, task: NativeTask) -> None:
        self._task = task
        self.first_source = URL
        """Whose the first response of this task was."""
        self.first_extent = (0, 0)
        """What it brought."""
        self._answer: tuple[File, Source] | None = None  # the first good one, if what it says still counts

    @property
    def one_source(self) -> bool:
        """Whether all must come from one source: what a reader has used cannot be fetched anew from another."""
        task = self._task
        return task.download.sink is not None and not task.options.checksum

    @property
    def validators_of_mirrors(self) -> tuple[str, str] | None:
        """What a mirror's responses must have to take part; None: what they had before, if anything. Bytes that a
        reader gets can never be fetched anew, so there a mirror must have the same strong ETag, too."""
        task = self._task
        sink = task.download.sink
        return (sink.read_identity.etag, "") if sink is not None and self.one_source else None

    def decides(self, number: int) -> bool:
        """Whether a source's word is what the remote file is."""
        task = self._task
        return task.authority.source in (-1, number)

    def follow_the_url(self, reason: str) -> None:
        """The URL has another file than the mirrors that stood in for it: theirs is dropped, and they with it."""
        task = self._task
        for number, source in enumerate(task.sources):
            if number != URL and source.answered:
                self.drop_mirror(number, reason)
        if not task.mirroring.url_given_up:
            task.sources[URL].banned = False
        task.recovery.resort.ask_url_afresh()
        task.begin_again()

    def drop_mirror(self, number: int, reason: str) -> None:
        """A mirror has another file than the URL: it is not asked again."""
        task = self._task
        source = task.sources[number]
        source.banned = True
        shown = mask_url(source.url)
        _log.warning("%s: the mirror %s has a different file (%s); no longer used", task.shown_url, shown, reason)
        if task.in_engine:
            task.file.ban(number)

    def begin(self) -> None:
        """Nothing was answered, or that does not count any more."""
        self._answer = None

    @property
    def may_start_over(self) -> bool:
        """Whether nobody has used the beginning of the file yet."""
        task = self._task
        return task.target is not None and task.target.read_bytes == 0

    @property
    def may_be_asked_anew(self) -> bool:
        """Whether the file may be asked for from its beginning: nobody has used that yet, or a strong ETag shows that
        what comes continues it."""
        sink = self._task.download.sink
        return self.may_start_over or (sink is not None and sink.read_identity.strength is Strength.STRONG)

    def answered(self, number: int, headers: dict[str, str]) -> None:
        """The first good answer: what the remote file is."""
        task = self._task
        source, size = task.sources[number], task.file.size
        part = stated_range(headers)
        self.first_source, self.first_extent = number, part[:2] if part is not None else (0, size)
        if not self.is_credible(number, source.identity, stated=part is not None):
            return
        if task.options.decode:
            names = [task.options.filename, headers.get("content-disposition", "").rstrip(" \t;'\"")]
            names += [urlsplit(each).path for each in (source.url, source.resolved_url)]
            task.codings = codings_to_undo(headers.get("content-encoding", ""), names)
        if task.download.sink is not None and not self._admit(source, part is None or part[:2] == (0, size)):
            return
        task.modified_time = parse_date(headers.get("last-modified", ""))
        if task.options.expected_size and size not in (-1, task.options.expected_size):
            raise ContentChanged(
                f"the remote file has {size} bytes, not {task.options.expected_size}", url=task.shown_url
            )
        self._deal_with(source, headers)

    def _deal_with(self, source: Source, headers: dict[str, str]) -> None:
        """The first answer makes sense: see what it means for the place on disk, while the first bytes come."""
        task = self._task
        answer = self._answer = (task.file, source)

        def look() -> None:
            task.jobs.do(functools.partial(self._settle, *answer, headers), settled, failed=failed)

        def look_again() -> None:
            if answer is self._answer and not task.life.is_ending:
                look()

        def settled(step: Callable[[], None] | None) -> None:
            if answer is not self._answer:
                return  # it has begun again meanwhile
            task.placing.has_taken()
            if step is None:
                self._see_to_the_cache()
                task.life.fire(Event.SETTLED)
            elif not task.life.is_ending:
                step()

        def failed(error: BaseException) -> None:
            if not task.life.is_ending:
                if task.placing.wait(error, look_again):
                    return
                raise error
            _log.debug("%s: nothing of it is kept: %s", task.shown_url, error)

        look()

    def _see_to_the_cache(self) -> None:
        """A large file need not stay in the page cache, unless it will be read again at once."""
        task = self._task
        is_read_again = bool(task.verification.checksum or task.codings) or task.download.sink is not None
        task.file.uncached = not is_read_again and not keeps_in_cache(task.file.size)

    def answered_late(self, number: int, headers: dict[str, str]) -> None:
        """The first good answer, which comes when the task is to end: what came with it is saved if that answer would
        have been followed."""
        task = self._task
        source, size, expected = task.sources[number], task.file.size, task.options.expected_size
        known = task.authority.hear(number, source.identity, stated=stated_range(headers) is not None)
        stated = _digest_stated(headers)
        if known is not Word.GOOD or size not in (-1, expected or size):
            return
        if (number == URL or task.verification.checksum) and not task.verification.learn(stated):
            return
        if task.first_event is Event.FETCH:
            self._deal_with(source, headers)

    def _settle(self, file: File, source: Source, headers: dict[str, str]) -> Callable[[], None] | None:
        """See whether the final name and the space are free, on a worker, while the first bytes come. Until that is
        known nothing is saved. Returns what is to be done instead of going on, None: nothing.

        Raises ``DiskError``.
        """
        task = self._task
        target, size = task.target, file.size
        assert target is not None
        # A mirror that stands in for the URL does not say what its file is called.
        said = (source.resolved_url, headers.get("content-disposition", "")) if source is task.sources[URL] else ()
        path = task.naming.choose(*said)
        if path is not None:
            free = task.starting.probed
            if task.options.checksum:
                return lambda: task.turn(lambda: task.placing.compare_existing(path, free))
            # A short body may have ended by now, and its size be known that nobody has stated.
            is_stated = "content-length" in headers or "content-range" in headers
            remote = Identity.of(headers, size if is_stated else -1)
            return lambda: task.turn(lambda: task.placing.look_at_existing(path, source, remote, free))
        if task.first_event is Event.ASK:
            # The server gives it another name than its URL does, and that one is free.
            return task.starting.probed
        if size > file.downloaded:
            check_target(
                target,
                size,
                file.downloaded,
                task.backend.sizes.put(task.download.gid, size),
                functools.partial(task.backend.lacking_beside, task.download),
                task.shown_url,
            )
        if task.resumed_bytes:
            _log.info("%s: resuming, %d of %d bytes are there", task.shown_url, task.resumed_bytes, size)
        return None

    def is_credible(self, number: int, identity: Identity, *, stated: bool) -> bool:
        """Whether the whole file may be what a source says it is; otherwise the download starts over."""
        task = self._task
        remembered = task.authority.is_remembered
        known = task.authority.identity.size
        word = task.authority.hear(number, identity, stated=stated)
        if word is Word.CONTRADICTS:
            self.follow_the_url(f"{identity.size} bytes, and not {known}")
            return False
        if word is Word.CUT_SHORT:
            words = f"the server sent {identity.size} bytes as the whole of a file that had {known}"
            if not task.recovery.one_stream:
                task.recovery.ask_plainly(words)
                return False
            if not remembered:
                raise BadAnswer(words, url=task.shown_url)
        if word is Word.UNVOUCHED:
            words = f"the server sent {identity.size} bytes without a validator in place of a file of {known} with one"
            if task.recovery.one_stream:
                raise BadAnswer(words, url=task.shown_url)
            task.recovery.ask_plainly(words)
            return False
        return True

    def _admit(self, source: Source, whole: bool) -> bool:
        """Let the reader of a stream have what comes. Ranges that only weak validators hold together may be of two
        versions, which nobody could find out once they were read: then one response brings it all."""
        task = self._task
        sink = task.download.sink
        assert sink is not None
        identity = source.identity
        strong = identity.strength is Strength.STRONG
        if not (strong or whole or task.options.checksum or task.recovery.one_stream):
            task.recovery.ask_plainly("it has no strong ETag to show that its ranges are of one version")
            return False
        sink.admit(task.download, task.file, source.given_url, identity)
        return True

    def take_offers(self, headers: dict[str, str]) -> None:
        """The URL's answer may name mirrors (RFC 6249): they wait as the user's do, until found to have
        the same bytes. Only what is proved as a whole may come from them, and nothing that was read before."""
        task = self._task
        if not task.verification.is_collision_free or task.download.sink is not None:
            return
        urls = offered_in(headers, task.sources[URL].resolved_url or task.url, task.options)
        taken = sum(map(task.sources.offer, urls))
        if taken:
            _log.info("%s: its server names %d mirror%s", task.shown_url, taken, "s" if taken != 1 else "")
            task.set_lanes()

    def compare_digest(self, number: int, headers: dict[str, str]) -> None:
        """What a source says its file's digest is: proof where the user gave none and the URL says so, and a
        contradiction a ban."""
        task = self._task
        source = task.sources[number]
        stated = _digest_stated(headers)
        if number != URL and not task.verification.checksum:
            return
        if not task.verification.learn(stated):
            expected = task.verification.checksum
            error = ChecksumMismatch(
                f"the server states another checksum: expected {expected}, got {stated}",
                expected=expected,
                actual=stated,
                url=mask_url(source.url),
            )
            source.banned = True
            if not task.sources.usable() or not self.may_start_over:
                task.reject(error)
                return
            _log.warning("%s; continuing with other sources", error)
            task.begin_again()


def _digest_stated(headers: dict[str, str]) -> str:
    """The digest of the whole file that an answer states, as ``ALGORITHM=HEX``; "" if there is none."""
    return checksum.stated_by_server(
        headers, whole="content-range" not in headers, of_instance=names_duplicates(headers)
    )
