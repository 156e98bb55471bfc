"""What of a download is kept on disk: its state is saved on the way, and at the end without a finished file.

Data before bits: a state is saved only of bytes that were synced before (``saving``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rangefetch.disk import beside
from rangefetch.errors import DiskError
from rangefetch.logs import log as _log
from rangefetch.transfer.download import Figures
from rangefetch.transfer.lifecycle import Event, Phase

if TYPE_CHECKING:
    from rangefetch.transfer.task import Task

__all__ = ["NOTHING_KEPT", "Keeping"]

NOTHING_KEPT = -1
_FIRST_SAVE_S = 2.0
_SAVE_EVERY_S = 5.0


class Keeping:
    """What is kept of one download. All methods run on the backend's thread, but for what a worker is given."""

    def __init__(self, task: Task[Any]) -> None:
        self._task = task
        self.kept_bytes = NOTHING_KEPT
        """What lies beside the target speaks of so many bytes."""
        self.next_save_s = task.now_s() + _FIRST_SAVE_S

    def save_if_due(self, now_s: float, save: Callable[[], int | None]) -> bool:
        """From time to time: save what has come, on a worker; ``save`` returns how many bytes, None: it could not be.
        Returns whether it is being saved."""
        if now_s < self.next_save_s or self._task.life.phase is not Phase.FILLING:
            return False
        self.next_save_s = now_s + _SAVE_EVERY_S

        def on_the_way() -> None:
            saved_bytes = save()
            self.kept_bytes = self.kept_bytes if saved_bytes is None else saved_bytes

        self._task.do(on_the_way, lambda _: None, what="the disk to save the state")
        return True

    def keep(self) -> None:
        """Nothing touches the file any more: keep what can be continued, and nothing else."""
        task = self._task

        def kept(_: object) -> None:
            self._count_kept()
            task.life.fire(Event.KEPT)

        def failed(reason: BaseException) -> None:
            # Whatever it was, the end is told.
            if isinstance(reason, DiskError):
                reason.url = reason.url or task.shown_url
                task.life.error = task.life.error or reason
            else:
                _log.error("%s: internal error: the downloaded data could not be saved: %r", task.shown_url, reason)
            kept(None)

        task.jobs.do(self._keep_what_can_be_continued, kept, failed=failed)

    def _count_kept(self) -> None:
        """What was not kept does not count."""
        task = self._task
        if task.life.phase is not Phase.ENDED:
            total = max(task.figures().total, task.saved.total_size if task.saved is not None else 0)
            figures = Figures(max(self.kept_bytes, 0), total)
            task.download.figures = lambda: figures

    def _keep_what_can_be_continued(self) -> None:
        """Save the state of a file that can be resumed, remove the rest (on a worker)."""
        task = self._task
        place = task.place
        if place is None or place.fd < 0:
            self.kept_bytes = NOTHING_KEPT
            return
        try:
            is_wanted = task.life.phase is Phase.KEEPING and not task.download.remove_files
            saved_bytes = task.keep_state() if is_wanted else None
            if saved_bytes is not None:
                self.kept_bytes = saved_bytes
            elif task.download.remove_files or self.kept_bytes == NOTHING_KEPT:
                self.kept_bytes = NOTHING_KEPT
                place.discard()
        except DiskError as error:
            _log.warning("%s: the downloaded data could not be saved: %s", task.shown_url, error)
            if place.has_lost_writes:
                if self.kept_bytes == NOTHING_KEPT:
                    place.discard()
                raise
        finally:
            if task.target is not None and task.target.fd >= 0:
                # aria2's control file exists only while aria2 is at it.
                beside.remove_control(task.target.part_path)
            place.close()
