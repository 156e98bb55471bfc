"""What a download leaves on disk when it has no finished file: its state, saved periodically and at the end.

Data is synced first: a state never claims bytes that were not synced before it (``saving``).
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
    """Saves the state of one download. All methods run on the backend's thread, except those for workers."""

    def __init__(self, task: Task[Any]) -> None:
        self._task = task
        self.kept_bytes = NOTHING_KEPT
        """How many bytes the saved state claims; ``NOTHING_KEPT`` if there is none worth keeping."""
        self.next_save_s = task.now_s() + _FIRST_SAVE_S

    def save_if_due(self, now_s: float, save: Callable[[], int | None]) -> bool:
        """Save the state on a worker, if the interval has passed. Returns whether a save was started.

        ``save`` returns the number of saved bytes, or None if it could not save.
        """
        if now_s < self.next_save_s or self._task.life.phase is not Phase.FILLING:
            return False
        self.next_save_s = now_s + _SAVE_EVERY_S

        def on_the_way() -> None:
            saved_bytes = save()
            self.kept_bytes = self.kept_bytes if saved_bytes is None else saved_bytes

        self._task.do(on_the_way, lambda _: None, what="the disk to save the state")
        return True

    def keep(self) -> None:
        """Once nothing touches the file any more: keep what can be resumed, and remove the rest."""
        task = self._task

        def kept(_: object) -> None:
            self._count_kept()
            task.life.fire(Event.KEPT)

        def failed(reason: BaseException) -> None:
            # Whatever went wrong, report the end.
            if isinstance(reason, DiskError):
                reason.url = reason.url or task.shown_url
                task.life.error = task.life.error or reason
            else:
                _log.error("%s: internal error: the downloaded data could not be saved: %r", task.shown_url, reason)
            kept(None)

        task.jobs.do(self._keep_what_can_be_continued, kept, failed=failed)

    def _count_kept(self) -> None:
        """Have the download's figures count only what was kept."""
        task = self._task
        if task.life.phase is not Phase.ENDED:
            total = max(task.figures().total, task.saved.total_size if task.saved is not None else 0)
            figures = Figures(max(self.kept_bytes, 0), total)
            task.download.figures = lambda: figures

    def _keep_what_can_be_continued(self) -> None:
        """Save the state of a file that can be resumed; otherwise remove the data. On a worker."""
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
            ended_by = task.life.error
            if ended_by is None or ended_by.reason != error.reason:  # otherwise the error says it
                _log.warning("%s: the downloaded data could not be saved: %s", task.shown_url, error)
            if place.has_lost_writes:
                if self.kept_bytes == NOTHING_KEPT:
                    place.discard()
                raise
        finally:
            if task.target is not None and task.target.fd >= 0:
                # aria2's control file exists only while aria2 works on the file.
                beside.remove_control(task.target.part_path)
            place.close()
