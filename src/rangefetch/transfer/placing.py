"""The place of a download on disk: taken and locked, with what an earlier run has left, and what has its final name.

Where the final name is taken, the file there may be the very one that is wanted; a checksum or the server tells.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rangefetch.disk import checksum
from rangefetch.disk.names import choose_filename
from rangefetch.disk.target import Target
from rangefetch.errors import TargetExists
from rangefetch.identity import Basis, Identity
from rangefetch.net.sources import Source
from rangefetch.transfer import saving
from rangefetch.transfer.comparison import Finding, Question, Verdict
from rangefetch.transfer.existing import Found, Standing, look
from rangefetch.transfer.keeping import NOTHING_KEPT
from rangefetch.transfer.lifecycle import Event

if TYPE_CHECKING:
    from rangefetch.transfer.atwork import AtWork

__all__ = ["Placing"]


class Placing:
    """Where one download goes. All methods run on the backend's thread, but for what a worker is given."""

    def __init__(self, run: AtWork) -> None:
        self._run = run

    def open(self) -> Path | None:
        """Open and lock the target and load what was saved of it, on a worker. Returns the file that has the final
        name, if it is to be compared by its checksum. Raises ``TargetLocked``, ``DiskError``.
        """
        run, options = self._run, self._run.options
        provable = bool(options.checksum)
        target = run.target = Target.open(options.save_dir, options.filename, run.url, adopt=provable)
        run.keeping.kept_bytes = NOTHING_KEPT if target.fresh else 0
        run.download.filename = options.filename or choose_filename(run.url)
        if provable and target.path is not None and self.is_taken(target.path):
            return target.path
        run.saved = saving.load(target, run.url, provable=provable)
        run.keeping.kept_bytes = NOTHING_KEPT if run.saved is None else run.saved.written_bytes
        if run.saved is None and not target.fresh:
            target.truncate()
        return None

    def is_taken(self, path: Path) -> bool:
        """Whether something has the name that must not be replaced."""
        return path.exists() and not self._run.options.overwrite

    def compare_existing(self, path: Path) -> None:
        """The final name is taken: by the very file that is wanted, if the checksum says so."""
        run = self._run
        algorithm, _, digest = run.options.checksum.partition("=")

        def compared(found: str) -> None:
            if found == digest:
                self._already_complete(path, Basis.CHECKSUM)
            else:
                raise TargetExists(f"{path} exists and has a different checksum; overwrite is off", url=run.shown_url)

        run.do(
            lambda: checksum.digest_of(path, algorithm, stop=lambda: run.life.is_ending),
            compared,
            what="the checksum to be computed",
        )

    def look_at_existing(self, path: Path, source: Source, remote: Identity, free: Callable[[], None]) -> None:
        """The final name is taken: by the file that is wanted, or by another one? ``source`` says ``remote`` of it.
        ``free`` goes on where nothing has the name any more."""
        run = self._run

        def looked(found: Found) -> None:
            if found.standing is Standing.UNCERTAIN:
                limit = int(run.options.max_download_limit)
                question = Question(source, remote.size, found.samples, remote.etag, remote.last_modified, limit)
                run.ask_ranges(question, functools.partial(compared, found))
            else:
                settle(found.standing, found.reason, found.basis)

        def compared(found: Found, finding: Finding) -> None:
            if finding.verdict is Verdict.UNKNOWN:
                settle(
                    found.otherwise,
                    f"has the size of the remote file, but cannot be compared: {finding.reason}",
                    found.basis,
                )
            elif finding.verdict is Verdict.SAME:
                settle(Standing.SAME, "", Basis.COMPARED)
            else:
                settle(
                    Standing.ANOTHER,
                    f"has the size of the remote file, but different content: {finding.reason}",
                    found.basis,
                )

        def settle(standing: Standing, reason: str, basis: Basis) -> None:
            if standing is Standing.SAME:
                self._already_complete(path, basis)
            elif standing is Standing.GONE:
                free()
            else:
                raise TargetExists(f"{path} exists and {reason}; overwrite is off", url=run.shown_url)

        run.do(lambda: look(path, run.url, remote), looked)

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
