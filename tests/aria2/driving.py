"""Helpers of these tests: a stand-in for the manager, programs in their own processes, and checks on processes."""

import contextlib
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from rangefetch.errors import DownloadError
from rangefetch.options import DownloadOptions
from rangefetch.progress import DownloadResult, DownloadStatus
from rangefetch.transfer.backend import Backend, Growth
from rangefetch.transfer.download import Download
from support.children import at_work
from support.downloads import clear
from support.waiting import until

QUICK: dict[str, Any] = {"retry_wait": 0.01, "total_timeout": 30.0}
"""With these options a test does not wait long between tries, and cannot hang."""


class Desk:
    """Gives a backend downloads, as a manager does, and is the listener that the backend tells how they end."""

    def __init__(self) -> None:
        self.backend: Backend | None = None
        self.ends: list[tuple[str, Download]] = []
        """The backend's reports, in order."""
        self._lock = threading.Lock()

    def begin(self, url: str, path: Path, **options: Any) -> Download:
        """Start a download into ``path``. If that is a directory, the server or the URL decides the name."""
        place = {"save_dir": path} if path.is_dir() else {"save_dir": path.parent, "filename": path.name}
        return self.begin_again(Download(url, DownloadOptions.of(QUICK | place | options)))

    def begin_again(self, download: Download) -> Download:
        """Start the same download again."""
        assert self.backend is not None
        if download.status is not DownloadStatus.WAITING:
            download.move(DownloadStatus.WAITING)
        download.move(DownloadStatus.ACTIVE)
        self.backend.begin(download)
        return download

    def fetch(self, url: str, path: Path, **options: Any) -> DownloadResult:
        return self.wait(self.begin(url, path, **options))

    def wait(self, download: Download, timeout: float = 30.0) -> DownloadResult:
        """Return the result, or raise the error that ended the download."""
        until(lambda: download.status is not DownloadStatus.ACTIVE, timeout)
        if (error := download.failure()) is not None:
            raise error  # a copy: the traceback of the download's own error would keep the test's objects alive
        assert download.result is not None, download.status
        return download.result

    def halt(self, download: Download, *, remove_files: bool = False) -> None:
        """Halt the download, and wait until it is halted."""
        assert self.backend is not None
        download.want(DownloadStatus.PAUSED, remove_files=remove_files)
        self.backend.halt(download)
        until(lambda: download.status is not DownloadStatus.ACTIVE)

    def fails(self, kind: type[DownloadError], url: str, path: Path, **options: Any) -> DownloadError:
        """Fetch, expect exactly this type of error with a one-line message that names the URL, and return the error."""
        with pytest.raises(DownloadError) as caught:
            self.fetch(url, path, **options)
        return clear(caught.value, kind, url)

    # -- the listener

    def completed(self, download: Download, result: DownloadResult) -> None:
        self._heard("completed", download)
        download.move(DownloadStatus.COMPLETE, result=result)

    def completed_together(self, whole: Sequence[tuple[Download, DownloadResult]]) -> None:
        for download, result in whole:
            self.completed(download, result)

    def failed(self, download: Download, error: DownloadError) -> None:
        self._heard("failed", download)
        download.move(DownloadStatus.ERROR, error=error)

    def halted(self, download: Download) -> None:
        self._heard("halted", download)
        download.move(DownloadStatus.PAUSED)

    def directed(self, download: Download, status: DownloadStatus) -> None:
        self._heard(f"directed to be {status}", download)

    def puts_off(self, download: Download, rest_s: float = 0.0) -> bool:
        return False

    def grows(self, download: Download, *, answered: bool) -> Growth:
        return Growth.NOW

    def makes_way(self, download: Download) -> bool:
        return False

    def steps_aside(self, download: Download) -> bool:
        self._heard("asks", download)
        return True

    def comes_back(self, download: Download) -> bool:
        self._heard("asked", download)
        return True

    def _heard(self, end: str, download: Download) -> None:
        with self._lock:
            self.ends.append((end, download))


def downloaded(download: Download) -> int:
    return download.progress().downloaded


def command_lines() -> str:
    """The command lines of all running processes."""
    lines = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            lines.append(" ".join(process.cmdline()))
    return "\n".join(lines)


def is_running(pid: int) -> bool:
    """Whether the process exists and has not ended (is no zombie)."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def program(function: str, *arguments: object) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    """Run a function of ``aria2.programs`` in its own process, which is gone after the block."""
    return at_work("aria2.programs", function, *arguments, PYTHONWARNINGS="error")


@contextmanager
def plain_aria2c(aria2c: Path, url: str, path: Path) -> Iterator[None]:
    """Run the user's own aria2c, which fetches into ``path``. After the block it is told to stop, and has stopped."""
    where = [f"--dir={path.parent}", f"--out={path.name}", "--file-allocation=none"]
    with subprocess.Popen([aria2c, "--no-conf", "--quiet", "-x4", "-s4", "-k1M", *where, url]) as process:
        try:
            yield
        finally:
            process.terminate()
