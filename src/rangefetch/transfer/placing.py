"""Opens a download's files: locks the part file, loads what an earlier run left, and checks who has the final name.

A file that already has the final name may be the wanted one; its checksum or the server tells. The same holds for data
that an earlier run fetched from another URL.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rangefetch.disk import beside, checksum
from rangefetch.disk.names import choose_filename
from rangefetch.disk.target import Target, disk_errors
from rangefetch.errors import HOW_TO_REPLACE, BadAnswer, TargetExists, TargetLocked
from rangefetch.identity import Basis, Identity
from rangefetch.logs import log as _log
from rangefetch.masking import mask_url
from rangefetch.net.sources import Source
from rangefetch.transfer import earlier, saving
from rangefetch.transfer.comparison import Finding, Question, Verdict
from rangefetch.transfer.earlier import Earlier
from rangefetch.transfer.existing import Found, Standing, has_content_of, look
from rangefetch.transfer.keeping import NOTHING_KEPT
from rangefetch.transfer.lifecycle import Event
from rangefetch.transfer.samples import Sample

if TYPE_CHECKING:
    from rangefetch.transfer.task import Task

__all__ = ["Placing"]

_LOOK_AGAIN_S = (0.1, 0.4)
"""Shortest and longest delay before a locked target is tried again; random, so that waiting downloads take turns."""

T = TypeVar("T")


class Placing:
    """Opens the place of one download. All methods run on the backend's thread, except those for workers."""

    def __init__(self, task: Task[Any]) -> None:
        self.earlier: Earlier | None = None
        """Data fetched from another URL, which may belong to this file."""
        self.waits_for = ""
        """Which other download holds the target, in words; empty if this one is not waiting."""
        self.has_waited = False
        """Whether it had to wait. If so, a file with the final name may be the one that the other download fetched."""
        self.compared_whole: Path | None = None
        """The existing file that the downloaded one will be compared with once complete."""
        self._compared_bytes = 0
        self._task = task

    def take(self, open_target: Callable[[], T], then: Callable[[T], None]) -> None:
        """Have a worker open the target, then call ``then``.

        If another download holds it and the options say to wait, this one tries again until the other leaves the
        complete file, or its partial data.
        """
        task = self._task

        def attempt() -> None:
            if not task.life.is_ending:
                task.jobs.do(open_target, taken, failed=failed)

        def taken(result: T) -> None:
            self.has_taken()
            if not task.life.is_ending:
                then(result)

        def failed(error: BaseException) -> None:
            if not self.wait(error, attempt):
                raise error

        attempt()

    def wait(self, error: BaseException, again: Callable[[], None]) -> bool:
        """Schedule ``again`` if the error says that another download holds the target or its name and the options say
        to wait. Returns False otherwise.
        """
        task = self._task
        if not isinstance(error, TargetLocked) or not task.options.wait_for_other:
            return False
        if not self.waits_for:
            _log.info("%s: %s; waiting for it", task.shown_url, error.reason)
            task.download.note = "waiting for another download of the same file"
        self.waits_for, self.has_waited = error.reason, True
        task.aside.step()  # the other download may need this one's place
        task.call_later(random.uniform(*_LOOK_AGAIN_S), lambda: task.aside.back(again))
        return True

    def has_taken(self) -> None:
        """Stop waiting: the target is open."""
        if self.waits_for:
            self.waits_for = ""
            self._task.download.note = ""

    def open(self) -> Path | None:
        """Open and lock the target and load its saved state, on a worker.

        Returns an existing file with the final name if its checksum has to be compared. Raises ``TargetLocked``,
        ``DiskError``.
        """
        task, options = self._task, self._task.options
        provable = bool(options.checksum)
        target = task.target = self._open_target(adopt=provable)
        task.keeping.kept_bytes = NOTHING_KEPT if target.fresh else 0
        task.download.filename = options.filename or choose_filename(task.url)
        taken = task.naming.hold(target.path) if target.path is not None else None
        if taken is None or not provable:
            self.load()
            return None
        return taken

    def _open_target(self, *, adopt: bool) -> Target:
        """Lock the part file for the user's file name or, if another download has that, for a numbered one."""
        task = self._task
        name = task.options.filename
        while True:
            try:
                return Target.open(task.options.save_dir, name, task.url, adopt=adopt)
            except TargetLocked:
                # With wait_for_other, the other download will leave this very file: do not number.
                name = "" if task.options.wait_for_other else task.naming.number_anew(name)
                if not name:
                    raise

    def load(self) -> None:
        """Load the saved state, on a worker, and drop data that nothing is known of. Raises ``DiskError``."""
        task, provable = self._task, bool(self._task.options.checksum)
        target = task.target
        assert target is not None
        saved = saving.load(target, task.url, provable=provable)
        task.keeping.kept_bytes = NOTHING_KEPT if saved is None else saved.written_bytes
        self.earlier = None
        if saved is not None and saved.url == task.url:
            task.saved = saved
        elif saved is not None:
            self.earlier = Earlier(target.part_path, saved, is_in_place=True)
        elif not target.fresh:
            target.truncate()
        elif not task.options.filename:
            self.earlier = earlier.find(target.directory, task.url)

    def compare_existing(self, path: Path, free: Callable[[], None]) -> None:
        """Compare an existing file that has the final name with the checksum.

        If they match, the download is already complete. ``free`` is called if the download gets another name instead.
        """
        task = self._task
        algorithm, _, digest = task.options.checksum.partition("=")

        def compared(found: str) -> None:
            if found == digest:
                self._already_complete(path, Basis.CHECKSUM)
            elif task.options.auto_file_renaming:
                task.naming.rename(free, lambda taken: self.compare_existing(taken, free))
            else:
                raise self._taken(path, "has a different checksum")

        task.do(
            lambda: checksum.digest_of(path, algorithm, stop=lambda: task.life.is_ending),
            compared,
            what="the checksum to be computed",
        )

    def look_at_existing(self, path: Path, source: Source, remote: Identity, free: Callable[[], None]) -> None:
        """Find out whether an existing file with the final name is the wanted one, which ``source`` describes as
        ``remote``.

        ``free`` is called to go ahead with the download: the name is free now, the download got another name, the file
        is to be overwritten, or everything must be fetched to tell.
        """
        task = self._task

        def looked(found: Found) -> None:
            if found.standing is Standing.UNCERTAIN:
                limit = int(task.options.max_download_limit)
                question = Question(source, remote.size, found.samples, remote.etag, remote.last_modified, limit)
                task.ask_ranges(question, functools.partial(compared, found))
            else:
                decide(found.standing, found.reason, found.basis, found.size)

        def compared(found: Found, finding: Finding) -> None:
            if finding.verdict is Verdict.UNKNOWN:
                decide(
                    found.otherwise,
                    f"has the size of the remote file, but cannot be compared: {finding.reason}",
                    found.basis,
                )
            elif finding.verdict is Verdict.SAME:
                decide(Standing.SAME, "", Basis.COMPARED)
            else:
                decide(
                    Standing.ANOTHER,
                    f"has the size of the remote file, but different content: {finding.reason}",
                    found.basis,
                )

        def decide(standing: Standing, reason: str, basis: Basis, found_bytes: int = 0) -> None:
            if standing is Standing.SAME:
                self._already_complete(path, basis)
            elif standing is Standing.UNSIZED:
                self.compared_whole, self._compared_bytes = path, found_bytes
                free()
            elif standing is Standing.GONE:
                free()
            elif task.options.overwrite:
                self.has_waited = False  # the other download fetched a different file
                free()
            elif task.options.auto_file_renaming:
                task.naming.rename(free, lambda taken: self.look_at_existing(taken, source, remote, free))
            else:
                raise self._taken(path, reason)

        task.do(lambda: look(path, task.url, remote, decodes=task.decodes), looked)

    def publish(self) -> tuple[Path, bool]:
        """Give the file its final name, on a worker. Returns the path, and whether the same file was already there.

        Raises ``TargetExists``, ``DiskError``.
        """
        task = self._task
        try:
            return task.publish(), False
        except TargetExists as error:
            target, path = task.target, self.compared_whole
            if target is None or path is None or path != target.path:
                raise
            with disk_errors("compare", path):
                is_same = has_content_of(path, target.fd)
            if not is_same and task.options.auto_file_renaming:
                task.naming.take_free()
                return task.publish(), False
            if not is_same:
                raise self._taken(path, "has different content") from error
            target.discard()
            return path, True

    def check(self, downloaded: int) -> None:
        """Raise ``TargetExists`` once more bytes have arrived than the existing file has; called periodically."""
        path = self.compared_whole
        if path is None or downloaded <= self._compared_bytes or self._task.decodes:
            return
        if self._task.options.auto_file_renaming:
            self.compared_whole = None
        else:
            raise self._taken(path, "is shorter than the remote file")

    def look_at_earlier(self, source: Source, remote: Identity, then: Callable[[bool], None]) -> None:
        """Find out whether data fetched from another URL belongs to the file that ``source`` describes as ``remote``.

        Calls ``then`` with whether the data will be used. If that cannot be determined and starting over would lose the
        data, the error is raised.
        """
        task = self._task
        work, self.earlier = self.earlier, None
        assert work is not None
        was = mask_url(work.saved.url)

        def looked(found: list[Sample]) -> None:
            if work.contradicts(remote) or not found:
                give_up("its size, ETag or Last-Modified differs" if found else "there is too little data to compare")
                return
            limit = int(task.options.max_download_limit)
            question = Question(source, remote.size, found, remote.etag, remote.last_modified, limit)
            task.ask_ranges(question, compared)

        def compared(finding: Finding) -> None:
            if finding.verdict is Verdict.SAME:
                task.do(functools.partial(self._take, work, remote), taken)
            elif finding.verdict is Verdict.UNKNOWN and not isinstance(finding.error, BadAnswer | None):
                if not work.is_in_place:
                    then(False)
                elif task.sources.waiting or len(task.sources) > 1:
                    give_up(finding.reason)  # mirrors may have the file
                else:
                    raise finding.error
            else:
                give_up(finding.reason)

        def taken(is_taken: bool) -> None:
            if is_taken:
                _log.info("%s: resuming with the data fetched from %s", task.shown_url, was)
            then(is_taken)

        def give_up(reason: str) -> None:
            if not work.is_in_place:
                _log.debug("%s: %s has a different file: %s", task.shown_url, was, reason)
                then(False)
                return
            words = "the saved data is from another URL (%s) and cannot be used: %s; starting over"
            _log.warning(f"%s: {words}", task.shown_url, was, reason)
            task.do(self._drop, lambda _: then(False))

        task.do(lambda: earlier.read_samples(work), looked)

    def forget_earlier(self) -> None:
        """The download starts over: do not use another URL's data."""
        work, self.earlier = self.earlier, None
        if work is not None and work.is_in_place:
            words = "the saved data is from another URL (%s) and cannot be compared; starting over"
            _log.warning(f"%s: {words}", self._task.shown_url, mask_url(work.saved.url))

    def _take(self, work: Earlier, remote: Identity) -> bool:
        """Adopt the earlier data for this download, on a worker. Returns False if another download has taken it. Raises
        ``DiskError``

        .
        """
        task = self._task
        target = task.target
        assert target is not None
        if not work.is_in_place:
            theirs = earlier.take(work, task.url)
            if theirs is None:
                return False
            if target.path is not None:
                theirs.name(target.path.name)
            target.discard()
            task.target = target = theirs
            beside.remove_control(target.part_path)
            task.verification.begin(target)
        filename = target.path.name if target.path is not None else ""
        task.saved = earlier.of_url(work, task.url, remote, filename)
        task.keeping.kept_bytes = task.saved.written_bytes
        target.save_state(task.saved)
        return True

    def _drop(self) -> None:
        """Drop the other URL's data, which is in this download's part file; on a worker."""
        task = self._task
        assert task.target is not None
        task.keeping.kept_bytes = NOTHING_KEPT
        task.target.truncate()

    def _taken(self, path: Path, reason: str) -> TargetExists:
        words = f"{path} exists and {reason}; {HOW_TO_REPLACE}"
        return TargetExists(words, url=self._task.shown_url, filename=path)

    def _already_complete(self, path: Path, basis: Basis) -> None:
        task = self._task
        target = task.target
        assert target is not None

        def discard() -> int:
            task.write_trace()
            size = path.stat().st_size
            target.discard()
            return size

        task.life.fire(Event.NAME)
        task.do(discard, lambda size: task.proving.complete(path, size, basis, already=True))
