"""A download with operations in an order decided by a seed, in the test's process or in one that is to be killed."""

from __future__ import annotations

import contextlib
import random
import time
from typing import Any

from rangefetch import DownloadError, DownloadManager, DownloadStatus, RetryPolicy

__all__ = ["OVER", "POLICY", "Operations", "chosen_options"]

POLICY = RetryPolicy(longest_wait=0.05, longest_retry_after=0.1, network_check=0.05, network_wait=0.3, network_hosts=())
OVER = (DownloadStatus.COMPLETE, DownloadStatus.ERROR, DownloadStatus.REMOVED)


def chosen_options(source: random.Random) -> dict[str, Any]:
    """Options for one life of the download."""
    return {
        "split": source.choice([1, 2, 8, 16]),
        "min_split_size": source.choice(["1", "1M"]),
        "file_allocation": source.choice(["falloc", "trunc", "none"]),
        "durable": source.random() < 0.2,
        "connect_timeout": 1.0,
        "read_timeout": 1.0,
        "max_tries": 4,
        "retry_wait": 0.01,
    }


class Operations:
    """One download and its managers, one after the other."""

    def __init__(self, source: random.Random, url: str, options: dict[str, Any]) -> None:
        self.source, self.url, self.options = source, url, options
        self.gid = ""
        self.start()

    def start(self) -> None:
        """Start a manager and the download."""
        self.manager = DownloadManager("native", retry_policy=POLICY)
        self.begin()

    def begin(self) -> None:
        self.gid = self.manager.download(self.url, self.options)

    def stop(self) -> None:
        self.manager.stop()

    def status(self) -> DownloadStatus:
        return self.manager.get_download_progress(self.gid).status

    def act(self) -> None:
        """Do one random operation, and wait a little."""
        self.source.choice(self.steps)(self)
        time.sleep(self.source.choice([0, 0, 0.001, 0.01, 0.05]))

    # -- steps -------------------------------------------------------------------------------------------------

    def _pause(self) -> None:
        self.manager.pause(self.gid)

    def resume(self) -> None:
        self.manager.resume(self.gid)
        self.manager.retry(self.gid)

    def _limit(self) -> None:
        limits: list[int | str] = ["10K", "1M", "50M", 0, 0]
        self.manager.limit(self.source.choice(limits))

    def _change(self) -> None:
        changes: dict[str, Any] = {
            "max_download_limit": self.source.choice(["20K", "1M", 0, 0]),
            "split": self.source.choice([1, 3, 16]),
            "headers": {"X-Number": str(self.source.randrange(100))},
        }
        name = self.source.choice(list(changes))
        try:
            self.manager.change_options(self.gid, **{name: changes[name]})
        except ValueError:
            assert self.status() in OVER

    def _cancel(self) -> None:
        """Cancel, and start again."""
        if self.source.random() < 0.3:
            self.manager.cancel(self.gid, remove_files=self.source.random() < 0.3)
            self.begin()

    def _stop_and_start(self) -> None:
        """Stop the manager, and start again with another one."""
        if self.source.random() < 0.5:
            self.stop()
            self.start()

    def _wait(self) -> None:
        with contextlib.suppress(DownloadError, TimeoutError):
            self.manager.wait(self.gid, timeout=0.05)

    steps = (_pause, resume, resume, _limit, _change, _cancel, _stop_and_start, _wait, _wait)
