"""Handles the answers of a task's sources: what the remote file is, who decides that, and what follows from it.

The first good answer is checked while the first bytes come; nothing is saved until it has been accepted.
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
    """The answers of one task's sources. All methods run on the backend's thread, except those for workers."""

    def __init__(self, task: NativeTask) -> None:
        self._task = task
        self.first_source = URL
        """The source that sent this task's first response."""
        self.first_extent = (0, 0)
        """The byte range of that response."""
        self._answer: tuple[File, Source] | None = None  # the first good answer, while it counts

    @property
    def one_source(self) -> bool:
        """Whether all bytes must come from one source: those of a stream without a checksum, since bytes that were read
        cannot be fetched again from another.
        """
        task = self._task
        return task.download.sink is not None and not task.options.checksum

    @property
    def validators_of_mirrors(self) -> tuple[str, str] | None:
        """The validators that a mirror's responses must have; None: those known from before, if any.

        The reader's bytes cannot be fetched again, so a stream's mirrors must also have the same strong ETag.
        """
        task = self._task
        sink = task.download.sink
        return (sink.read_identity.etag, "") if sink is not None and self.one_source else None

    def decides(self, number: int) -> bool:
        """Whether a source's word decides what the remote file is."""
        task = self._task
        return task.authority.source in (-1, number)

    def follow_the_url(self, reason: str) -> None:
        """The URL has another file than the mirrors that stood in for it: drop them and their bytes, and start over."""
        task = self._task
        for number, source in enumerate(task.sources):
            if number != URL and source.answered:
                self.drop_mirror(number, reason)
        if not task.mirroring.url_given_up:
            task.sources[URL].banned = False
        task.recovery.resort.ask_url_afresh()
        task.begin_again()

    def drop_mirror(self, number: int, reason: str) -> None:
        """Stop using a mirror, because it has another file than the URL."""
        task = self._task
        source = task.sources[number]
        source.banned = True
        shown = mask_url(source.url)
        _log.warning("%s: the mirror %s has a different file (%s); no longer used", task.shown_url, shown, reason)
        if task.in_engine:
            task.file.ban(number)

    def begin(self) -> None:
        """Forget the first answer: there is none yet, or it no longer counts."""
        self._answer = None

    @property
    def may_start_over(self) -> bool:
        """Whether the download may start over: nobody has used the beginning of the file yet."""
        task = self._task
        return task.target is not None and task.target.read_bytes == 0

    @property
    def may_be_asked_anew(self) -> bool:
        """Whether the file may be requested again from its beginning: nobody has used that yet, or a strong ETag shows
        that the new response continues it.
        """
        sink = self._task.download.sink
        return self.may_start_over or (sink is not None and sink.read_identity.strength is Strength.STRONG)

    def answered(self, number: int, headers: dict[str, str]) -> None:
        """Handle the first good answer, which says what the remote file is."""
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
        """Check what a credible first answer means for the files on disk, while the first bytes come."""
        task = self._task
        answer = self._answer = (task.file, source)

        def look() -> None:
            task.jobs.do(functools.partial(self._settle, *answer, headers), settled, failed=failed)

        def look_again() -> None:
            if answer is self._answer and not task.life.is_ending:
                look()

        def settled(step: Callable[[], None] | None) -> None:
            if answer is not self._answer:
                return  # the task has started over meanwhile
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
            _log.debug("%s: could not handle the first response: %s", task.shown_url, error)

        look()

    def _see_to_the_cache(self) -> None:
        """Keep a large file out of the page cache, unless it will be read again at once."""
        task = self._task
        is_read_again = bool(task.verification.checksum or task.codings) or task.download.sink is not None
        task.file.uncached = not is_read_again and not keeps_in_cache(task.file.size)

    def answered_late(self, number: int, headers: dict[str, str]) -> None:
        """Handle a first good answer that comes while the task is ending: the received bytes are saved only if the
        answer would have been accepted.
        """
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
        """Check that the final name and the space are free, on a worker, while the first bytes come; nothing is saved
        before that.

        Returns a step to run instead of continuing, or None. Raises ``DiskError``.
        """
        task = self._task
        target, size = task.target, file.size
        assert target is not None
        # A mirror that stands in for the URL does not decide the file's name.
        said = (source.resolved_url, headers.get("content-disposition", "")) if source is task.sources[URL] else ()
        path = task.naming.choose(*said)
        if path is not None:
            free = task.starting.probed
            if task.options.checksum:
                return lambda: task.turn(lambda: task.placing.compare_existing(path, free))
            # A short body may be complete by now, so that its size is known although no header stated it.
            is_stated = "content-length" in headers or "content-range" in headers
            remote = Identity.of(headers, size if is_stated else -1)
            return lambda: task.turn(lambda: task.placing.look_at_existing(path, source, remote, free))
        if task.first_event is Event.ASK:
            # The server gives the file another name than the URL does, and that name is free.
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
            _log.info("%s: resuming with %d of %d bytes", task.shown_url, task.resumed_bytes, size)
        return None

    def is_credible(self, number: int, identity: Identity, *, stated: bool) -> bool:
        """Whether the whole file may be what a source says it is. If not, the download starts over;
        ``BadAnswer`` is raised if it already was a single stream.
        """
        task = self._task
        remembered = task.authority.is_remembered
        known = task.authority.identity.size
        word = task.authority.hear(number, identity, stated=stated)
        if word is Word.CONTRADICTS:
            self.follow_the_url(f"the URL's file has {identity.size} bytes, not {known}")
            return False
        if word is Word.CUT_SHORT:
            words = f"the server sent {identity.size} bytes as the whole file, which had {known} before"
            if not task.recovery.one_stream:
                task.recovery.ask_plainly(words)
                return False
            if not remembered:
                raise BadAnswer(words, url=task.shown_url)
        if word is Word.UNVOUCHED:
            words = f"the server sent {identity.size} bytes without a validator; the file had {known} bytes and one"
            if task.recovery.one_stream:
                raise BadAnswer(words, url=task.shown_url)
            task.recovery.ask_plainly(words)
            return False
        return True

    def _admit(self, source: Source, whole: bool) -> bool:
        """Let the reader of a stream have the incoming bytes. Returns False if the download starts over instead.

        Ranges tied together only by weak validators may be of two versions, which could not be noticed once they were
        read. So such a file is requested as one response.
        """
        task = self._task
        sink = task.download.sink
        assert sink is not None
        identity = source.identity
        strong = identity.strength is Strength.STRONG
        if not (strong or whole or task.options.checksum or task.recovery.one_stream):
            task.recovery.ask_plainly("there is no strong ETag to show that its ranges are of one version")
            return False
        sink.admit(task.download, task.file, source.given_url, identity)
        return True

    def take_offers(self, headers: dict[str, str]) -> None:
        """Add the mirrors that the URL's answer names (RFC 6249). Like the user's, they wait until they are found to
        have the same bytes. They are used only if a digest verifies the whole file, and never for a stream.
        """
        task = self._task
        if not task.verification.is_collision_free or task.download.sink is not None:
            return
        urls = offered_in(headers, task.sources[URL].resolved_url or task.url, task.options)
        taken = sum(map(task.sources.offer, urls))
        if taken:
            _log.info("%s: the server named %d mirror%s", task.shown_url, taken, "s" if taken != 1 else "")
            task.set_lanes()

    def compare_digest(self, number: int, headers: dict[str, str]) -> None:
        """Check the digest that a source states for its file.

        The URL's becomes the expected one if the user gave none. A source that contradicts the expected one is banned.
        """
        task = self._task
        source = task.sources[number]
        stated = _digest_stated(headers)
        if number != URL and not task.verification.checksum:
            return
        if not task.verification.learn(stated):
            expected = task.verification.checksum
            error = ChecksumMismatch(
                f"the server states a different checksum: expected {expected}, got {stated}",
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
