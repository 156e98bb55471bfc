"""Waiting until a download has ended, or has stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from rangefetch.errors import Cancelled, WaitTimeout
from rangefetch.masking import mask_url
from rangefetch.progress import DownloadProgress, DownloadResult, DownloadStatus
from rangefetch.register import FINISHED
from rangefetch.transfer.download import Download

__all__ = ["STOP_WITHIN_S", "outcome_of", "wait_until_stopped"]

STOP_WITHIN_S = 30.0
"""How long to wait for a download that was told to stop."""
_PROGRESS_EVERY_S = 0.1


def outcome_of(
    download: Download,
    timeout: float | None,
    on_progress: Callable[[DownloadProgress], object] | None,
    is_running: Callable[[], bool],
) -> DownloadResult:
    """Wait until a download has ended and return its result. ``is_running`` says whether its manager is running.

    Raises the ``DownloadError`` that ended it, ``Cancelled``, ``WaitTimeout``, and whatever ``is_running`` raises.
    """
    deadline_s = None if timeout is None else time.monotonic() + timeout
    due_s = time.monotonic() + _PROGRESS_EVERY_S
    while True:
        runs = is_running()
        with download.lock:
            if download.result is not None:
                result = download.result
                break
            if (error := download.failure()) is not None:
                raise error from error.__cause__
            if download.status is DownloadStatus.REMOVED:
                raise Cancelled("it was removed", url=mask_url(download.url))
            if download.status is DownloadStatus.PAUSED and (download.cut_short or not runs):
                raise Cancelled("the manager was stopped", url=mask_url(download.url))
            left_s = None if deadline_s is None else deadline_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                raise WaitTimeout(download.gid, timeout or 0.0)
            pause_s = max(0.0, due_s - time.monotonic()) if on_progress else 1.0
            if download.wait(pause_s if left_s is None else min(pause_s, left_s)):
                continue
        if time.monotonic() >= due_s:
            progress = download.progress()
            if on_progress is not None and progress.status not in FINISHED:  # the end is reported once, below
                on_progress(progress)
            due_s = time.monotonic() + _PROGRESS_EVERY_S
    if on_progress is not None:
        on_progress(download.progress())
    return result


def wait_until_stopped(download: Download) -> None:
    """Wait until a download that was told to stop has stopped. Returns at once on this package's own threads."""
    if threading.current_thread().name.startswith("rangefetch-"):
        return
    deadline_s = time.monotonic() + STOP_WITHIN_S
    with download.lock:
        while download.status is DownloadStatus.ACTIVE and time.monotonic() < deadline_s:
            download.wait(1.0)
