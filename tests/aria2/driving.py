"""What these tests share: a stand-in for the manager, programs that run apart, and looking at processes."""

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
"""Tests neither wait long between tries nor hang."""


class Desk:
    """Asks a backend for downloads, as a manager does, and hears how they end. A listener."""

    def __init__(self) -> None:
        self.backend: Backend | None = None
        self.ends: list[tuple[str, Download]] = []
        """What was heard, in order."""
        self._lock = threading.Lock()

    def begin(self, url: str, path: Path, **options: Any) -> Download:
        """Begin a download into ``path``; a directory leaves the name to others."""
        place = {"save_dir": path} if path.is_dir() else {"save_dir": path.parent, "filename": path.name}
        return self.begin_again(Download(url, DownloadOptions.of(QUICK | place | options)))

    def begin_again(self, download: Download) -> Download:
        """The same download once more."""
        assert self.backend is not None
        if download.status is not DownloadStatus.WAITING:
            download.move(DownloadStatus.WAITING)
        download.move(DownloadStatus.ACTIVE)
        self.backend.begin(download)
        return download

    def fetch(self, url: str, path: Path, **options: Any) -> DownloadResult:
        return self.wait(self.begin(url, path, **options))

    def wait(self, download: Download, timeout: float = 30.0) -> DownloadResult:
        """The result, or the error that ended it."""
        until(lambda: download.status is not DownloadStatus.ACTIVE, timeout)
        if (error := download.failure()) is not None:
            raise error  # not the download's own, whose traceback would keep what the test had
        assert download.result is not None, download.status
        return download.result

    def halt(self, download: Download, *, remove_files: bool = False) -> None:
        """Halt, and wait until it is."""
        assert self.backend is not None
        download.want(DownloadStatus.PAUSED, remove_files=remove_files)
        self.backend.halt(download)
        until(lambda: download.status is not DownloadStatus.ACTIVE)

    def fails(self, kind: type[DownloadError], url: str, path: Path, **options: Any) -> DownloadError:
        """Fetch, expect exactly this error in one line that names the URL, and return it."""
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
    """Those of all processes that there are."""
    lines = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            lines.append(" ".join(process.cmdline()))
    return "\n".join(lines)


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def program(function: str, *arguments: object) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    """A function of ``aria2.programs`` at work in a process of its own, which is gone afterwards."""
    return at_work("aria2.programs", function, *arguments, PYTHONWARNINGS="error")


@contextmanager
def plain_aria2c(aria2c: Path, url: str, path: Path) -> Iterator[None]:
    """An aria2c of the user's own that fetches into ``path``; afterwards it is asked to stop, and does."""
    where = [f"--dir={path.parent}", f"--out={path.name}", "--file-allocation=none"]
    with subprocess.Popen([aria2c, "--no-conf", "--quiet", "-x4", "-s4", "-k1M", *where, url]) as process:
        try:
            yield
        finally:
            process.terminate()
