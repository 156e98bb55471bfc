"""The place of a download on disk: taken and locked, with what an earlier run has left, and what has its final name.

Where the final name is taken, the file there may be the very one that is wanted; a checksum or the server tells. So
it is with work that was begun from another URL.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

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
    from rangefetch.transfer.atwork import AtWork

__all__ = ["Placing"]

_LOOK_AGAIN_S = (0.1, 0.4)
"""How long it is waited before a target that another download has is looked at again, at least and at most: of many
that wait one comes after the other."""

T = TypeVar("T")


class Placing:
    """Where one download goes. All methods run on the backend's thread, but for what a worker is given."""

    def __init__(self, run: AtWork) -> None:
        self.earlier: Earlier | None = None
        """Work of another URL, which may be part of the same file."""
        self.waits_for = ""
        """Who has the target, and is waited for, in words; empty: nobody."""
        self.has_waited = False
        """... so that what has the final name by now may be what the other has fetched."""
        self.compared_whole: Path | None = None
        """What has the final name, to be compared with all that comes."""
        self._compared_bytes = 0
        self._run = run

    def take(self, open_target: Callable[[], T], then: Callable[[T], None]) -> None:
        """Have a worker open the target, and ``then`` go on. Where another download has it, and the options say so,
        that is waited for: it leaves the file, or what it has got of it."""
        run = self._run

        def attempt() -> None:
            if not run.life.is_ending:
                run.jobs.do(open_target, taken, failed=failed)

        def taken(result: T) -> None:
            self.has_taken()
            if not run.life.is_ending:
                then(result)

        def failed(error: BaseException) -> None:
            if not self.wait(error, attempt):
                raise error

        attempt()

    def wait(self, error: BaseException, again: Callable[[], None]) -> bool:
        """Call ``again`` later, if the error is that another download has the target or its name, and the options have
        this one wait for that."""
        run = self._run
        if not isinstance(error, TargetLocked) or not run.options.wait_for_other:
            return False
        if not self.waits_for:
            _log.info("%s: %s; waiting for it", run.shown_url, error.reason)
            run.download.note = "waiting for another download of the same file"
        self.waits_for, self.has_waited = error.reason, True
        run.call_later(random.uniform(*_LOOK_AGAIN_S), again)
        return True

    def has_taken(self) -> None:
        """Nobody is waited for any more."""
        if self.waits_for:
            self.waits_for = ""
            self._run.download.note = ""

    def open(self) -> Path | None:
        """Open and lock the target and load what was saved of it, on a worker. Returns the file that has the final
        name, if it is to be compared by its checksum. Raises ``TargetLocked``, ``DiskError``.
        """
        run, options = self._run, self._run.options
        provable = bool(options.checksum)
        target = run.target = self._open_target(adopt=provable)
        run.keeping.kept_bytes = NOTHING_KEPT if target.fresh else 0
        run.download.filename = options.filename or choose_filename(run.url)
        taken = run.naming.hold(target.path) if target.path is not None else None
        if taken is None or not provable:
            self.load()
            return None
        return taken

    def _open_target(self, *, adopt: bool) -> Target:
        """Lock the part file of the name that the user gave, or of a numbered one where another download has it."""
        run = self._run
        name = run.options.filename
        while True:
            try:
                return Target.open(run.options.save_dir, name, run.url, adopt=adopt)
            except TargetLocked:
                # One that is waited for leaves the very file.
                name = "" if run.options.wait_for_other else run.naming.number_anew(name)
                if not name:
                    raise

    def load(self) -> None:
        """Load what was saved of it, on a worker, and drop what nobody can tell anything of. Raises ``DiskError``."""
        run, provable = self._run, bool(self._run.options.checksum)
        target = run.target
        assert target is not None
        saved = saving.load(target, run.url, provable=provable)
        run.keeping.kept_bytes = NOTHING_KEPT if saved is None else saved.written_bytes
        self.earlier = None
        if saved is not None and saved.url == run.url:
            run.saved = saved
        elif saved is not None:
            self.earlier = Earlier(target.part_path, saved, is_in_place=True)
        elif not target.fresh:
            target.truncate()
        elif not run.options.filename:
            self.earlier = earlier.find(target.directory, run.url)

    def compare_existing(self, path: Path, free: Callable[[], None]) -> None:
        """The final name is taken: by the very file that is wanted, if the checksum says so. ``free`` goes on where it
        gets another name."""
        run = self._run
        algorithm, _, digest = run.options.checksum.partition("=")

        def compared(found: str) -> None:
            if found == digest:
                self._already_complete(path, Basis.CHECKSUM)
            elif run.options.auto_file_renaming:
                run.naming.rename(free, lambda taken: self.compare_existing(taken, free))
            else:
                raise self._taken(path, "has a different checksum")

        run.do(
            lambda: checksum.digest_of(path, algorithm, stop=lambda: run.life.is_ending),
            compared,
            what="the checksum to be computed",
        )

    def look_at_existing(self, path: Path, source: Source, remote: Identity, free: Callable[[], None]) -> None:
        """The final name is taken: by the file that is wanted, or by another one? ``source`` says ``remote`` of it.
        ``free`` goes on where nothing has the name any more, it gets another one, or all must be fetched to tell."""
        run = self._run

        def looked(found: Found) -> None:
            if found.standing is Standing.UNCERTAIN:
                limit = int(run.options.max_download_limit)
                question = Question(source, remote.size, found.samples, remote.etag, remote.last_modified, limit)
                run.ask_ranges(question, functools.partial(compared, found))
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
            elif run.options.overwrite:
                self.has_waited = False  # the other has fetched something else
                free()
            elif run.options.auto_file_renaming:
                run.naming.rename(free, lambda taken: self.look_at_existing(taken, source, remote, free))
            else:
                raise self._taken(path, reason)

        run.do(lambda: look(path, run.url, remote, decodes=run.decodes), looked)

    def publish(self) -> tuple[Path, bool]:
        """Give what came its final name, on a worker; returns the path, and whether it was there already. Raises
        ``TargetExists``, ``DiskError``."""
        run = self._run
        try:
            return run.publish(), False
        except TargetExists as error:
            target, path = run.target, self.compared_whole
            if target is None or path is None or path != target.path:
                raise
            with disk_errors("compare", path):
                is_same = has_content_of(path, target.fd)
            if not is_same and run.options.auto_file_renaming:
                run.naming.take_free()
                return run.publish(), False
            if not is_same:
                raise self._taken(path, "has different content") from error
            target.discard()
            return path, True

    def check(self, downloaded: int) -> None:
        """From time to time: is what comes longer than what has the name? Raises ``TargetExists``."""
        path = self.compared_whole
        if path is None or downloaded <= self._compared_bytes or self._run.decodes:
            return
        if self._run.options.auto_file_renaming:
            self.compared_whole = None
        else:
            raise self._taken(path, "is shorter than the remote file")

    def look_at_earlier(self, source: Source, remote: Identity, then: Callable[[bool], None]) -> None:
        """Is what was fetched from another URL part of the file that ``source`` describes as ``remote``? ``then`` goes
        on: with it (True), or without. Raises what made it impossible to tell, where starting over would lose work."""
        run = self._run
        work, self.earlier = self.earlier, None
        assert work is not None
        was = mask_url(work.saved.url)

        def looked(found: list[Sample]) -> None:
            if work.contradicts(remote) or not found:
                give_up("its size or a validator differs" if found else "too little is there to compare")
                return
            limit = int(run.options.max_download_limit)
            question = Question(source, remote.size, found, remote.etag, remote.last_modified, limit)
            run.ask_ranges(question, compared)

        def compared(finding: Finding) -> None:
            if finding.verdict is Verdict.SAME:
                run.do(functools.partial(self._take, work, remote), taken)
            elif finding.verdict is Verdict.UNKNOWN and not isinstance(finding.error, BadAnswer | None):
                if not work.is_in_place:
                    then(False)
                elif run.sources.waiting or len(run.sources) > 1:
                    give_up(finding.reason)  # mirrors may have the file
                else:
                    raise finding.error
            else:
                give_up(finding.reason)

        def taken(is_taken: bool) -> None:
            if is_taken:
                _log.info("%s: continuing what was fetched from %s", run.shown_url, was)
            then(is_taken)

        def give_up(reason: str) -> None:
            if not work.is_in_place:
                _log.debug("%s: %s is another file: %s", run.shown_url, was, reason)
                then(False)
                return
            words = "what is there is of another URL (%s) and cannot be used: %s; starting over"
            _log.warning(f"%s: {words}", run.shown_url, was, reason)
            run.do(self._drop, lambda _: then(False))

        run.do(lambda: earlier.read_samples(work), looked)

    def forget_earlier(self) -> None:
        """The download starts over."""
        work, self.earlier = self.earlier, None
        if work is not None and work.is_in_place:
            words = "what is there is of another URL (%s), and cannot be compared; starting over"
            _log.warning(f"%s: {words}", self._run.shown_url, mask_url(work.saved.url))

    def _take(self, work: Earlier, remote: Identity) -> bool:
        """Make it this download's, on a worker. False: somebody else has it by now. Raises ``DiskError``."""
        run = self._run
        target = run.target
        assert target is not None
        if not work.is_in_place:
            theirs = earlier.take(work, run.url)
            if theirs is None:
                return False
            if target.path is not None:
                theirs.name(target.path.name)
            target.discard()
            run.target = target = theirs
            beside.remove_control(target.part_path)
            run.verification.begin(target)
        filename = target.path.name if target.path is not None else ""
        run.saved = earlier.of_url(work, run.url, remote, filename)
        run.keeping.kept_bytes = run.saved.written_bytes
        target.save_state(run.saved)
        return True

    def _drop(self) -> None:
        """It is worth nothing to this download, and in its place; on a worker."""
        run = self._run
        assert run.target is not None
        run.keeping.kept_bytes = NOTHING_KEPT
        run.target.truncate()

    def _taken(self, path: Path, reason: str) -> TargetExists:
        words = f"{path} exists and {reason}; {HOW_TO_REPLACE}"
        return TargetExists(words, url=self._run.shown_url, filename=path)

    def _already_complete(self, path: Path, basis: Basis) -> None:
        run = self._run
        target = run.target
        assert target is not None

        def discard() -> int:
            run.write_trace()
            size = path.stat().st_size
            target.discard()
            return size

        run.life.fire(Event.NAME)
        run.do(discard, lambda size: run.proving.complete(path, size, basis, already=True))
