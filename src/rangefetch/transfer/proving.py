"""The last steps of a complete download: verify the checksum, then give the file its final name.

The final name appears only if the bytes are one version of the file and the checksum is right.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rangefetch.identity import Basis
from rangefetch.masking import without_userinfo
from rangefetch.progress import DownloadResult
from rangefetch.transfer.lifecycle import Event, Phase

if TYPE_CHECKING:
    from rangefetch.transfer.task import Task

__all__ = ["Proving"]


class Proving:
    """Verifies and names one complete download. All methods run on the backend's thread, except those for workers."""

    def __init__(self, task: Task[Any]) -> None:
        self._task = task
        self.bound = ""
        """What limited the speed, as the result reports it."""

    def prove(self) -> None:
        """Hash the rest in steps, so that a halt need not wait for the whole file; then name it."""
        task = self._task
        if task.life.phase is not Phase.PROVING:
            return
        if task.jobs.busy:
            # A job still running (a save, a hash) was started before the last byte came: wait for it.
            task.do(lambda: None, lambda _: self.prove())
        elif (hashing := task.verification.step(task.size)) is not None:
            task.do(hashing, lambda _: self.prove(), what="the checksum to be computed")
        elif task.verification.actual == task.verification.checksum or not task.does_without_helpers():
            task.life.fire(Event.NAME)
            task.do(
                self._publish,
                lambda found: self.complete(found[0], task.size, task.basis(), already=found[1]),
                what="the disk to name the file",
            )

    def _publish(self) -> tuple[Path, bool]:
        self._task.write_trace()
        self._task.verification.check(self._task.shown_url)
        return self._task.placing.publish()

    def complete(self, path: Path, size: int, basis: Basis, *, already: bool = False) -> None:
        """Report the file, which now has its final name."""
        task = self._task
        task.result = DownloadResult(
            path=path,
            filename=path.name,
            size=size,
            gid=task.download.gid,
            checksum=task.verification.checksum,
            seconds=task.now_s() - task.download.started_s,
            retries=task.tries.retries,
            sources=tuple(without_userinfo(each.resolved_url) for each in task.sources if each.answered),
            connections=task.opened_connections,
            resumed=task.resumed_bytes,
            already_complete=already,
            bound=self.bound,
            identity=basis,
        )
        task.life.fire(Event.NAMED)
