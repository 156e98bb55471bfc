"""What follows the last byte of a download once that is known to be one version of the file: the checksum, the name.

The final name appears only when both were right.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rangefetch.identity import Basis
from rangefetch.masking import without_userinfo
from rangefetch.progress import DownloadResult
from rangefetch.transfer.lifecycle import Event, Phase

if TYPE_CHECKING:
    from rangefetch.transfer.atwork import AtWork

__all__ = ["Proving"]


class Proving:
    """The end of a download that has every byte. All methods run on the backend's thread, but for what workers do."""

    def __init__(self, run: AtWork) -> None:
        self._run = run
        self.bound = ""
        """What its speed was bound by, as the result says it."""

    def prove(self) -> None:
        """Hash what is not hashed yet, in steps, so that a halt needs not wait for the whole; then name the file."""
        run = self._run
        if run.life.phase is not Phase.PROVING:
            return
        if run.jobs.busy:
            # What a worker is at (a save, a hash) was begun before the last byte came.
            run.do(lambda: None, lambda _: self.prove())
        elif (hashing := run.verification.step(run.size)) is not None:
            run.do(hashing, lambda _: self.prove(), what="the checksum to be computed")
        else:
            run.life.fire(Event.NAME)
            run.do(
                self._publish,
                lambda found: self.complete(found[0], run.size, run.basis(), already=found[1]),
                what="the disk to name the file",
            )

    def _publish(self) -> tuple[Path, bool]:
        self._run.write_trace()
        self._run.verification.check(self._run.shown_url)
        return self._run.placing.publish()

    def complete(self, path: Path, size: int, basis: Basis, *, already: bool = False) -> None:
        """The file is there under its final name."""
        run = self._run
        run.result = DownloadResult(
            path=path,
            filename=path.name,
            size=size,
            gid=run.download.gid,
            checksum=run.verification.checksum,
            seconds=run.now_s() - run.download.started_s,
            retries=run.tries.retries,
            sources=tuple(without_userinfo(each.resolved_url) for each in run.sources if each.answered),
            connections=run.opened_connections,
            resumed=run.resumed_bytes,
            already_complete=already,
            bound=self.bound,
            identity=basis,
        )
        run.life.fire(Event.NAMED)
