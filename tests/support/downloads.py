"""Short downloads: starting them, interrupting them, checking their progress and errors."""

from pathlib import Path
from typing import Any, TypeVar

import pytest

import rangefetch
from rangefetch import DownloadError, DownloadManager, DownloadProgress, DownloadStatus
from support.files import MIB, begun, names, saved_bytes
from support.waiting import until

__all__ = [
    "FIRST_RANGE",
    "QUICK",
    "SIZE",
    "SMALL",
    "clear",
    "consistent",
    "downloaded",
    "fails",
    "fetch",
    "interrupt",
    "into",
    "status_of",
]

SIZE = 9 * MIB + 12_345
SMALL = 100_001
FIRST_RANGE = 4 * MIB
"""What the first request of a download asks for."""
QUICK: dict[str, Any] = {"retry_wait": 0.001, "total_timeout": 60.0}
"""Tests neither wait long between tries nor hang. A busy machine has three times as long as any of them takes."""

Error = TypeVar("Error", bound=DownloadError)


def into(target: Path, name: object = "file.bin", **options: Any) -> dict[str, Any]:
    """Options for a file in the target's directory."""
    return QUICK | {"save_dir": target.parent, "filename": str(name)} | options


def fetch(url: str, path: Path | str, **options: Any) -> rangefetch.DownloadResult:
    """``rangefetch.fetch`` with shorter waits between tries."""
    return rangefetch.fetch(url, path, **(QUICK | options))


def fails(kind: type[Error], url: str, path: Path | str, **options: Any) -> Error:
    """Fetch, expect exactly this type of error with a one-line message that names the URL, and return the error."""
    with pytest.raises(DownloadError) as caught:
        fetch(url, path, **options)
    return clear(caught.value, kind, url)


def clear(error: DownloadError, kind: type[Error], url: str) -> Error:
    """Check that the error has exactly this type and a one-line message that names the URL, and return it."""
    assert type(error) is kind, repr(error)
    assert error.url == url
    assert url in str(error)
    assert len(str(error).splitlines()) == 1
    assert str(error).isprintable()
    return error


def interrupt(url: str, path: Path, at_least: int, **options: Any) -> int:
    """Start a download and stop it when ``at_least`` bytes have arrived. Returns how many its saved state has."""
    with DownloadManager() as manager:
        gid = manager.download(url, QUICK | {"save_dir": path.parent, "filename": path.name} | options)
        until(lambda: manager.get_download_progress(gid).downloaded >= at_least)
    assert names(path.parent) == begun(path), names(path.parent)
    return saved_bytes(path)


def downloaded(manager: DownloadManager, gid: str) -> int:
    return manager.get_download_progress(gid).downloaded


def status_of(manager: DownloadManager, gid: str) -> DownloadStatus:
    return manager.get_download_progress(gid).status


def consistent(progress: DownloadProgress) -> bool:
    """Whether the numbers in a progress report agree with each other."""
    share = 100.0 * progress.downloaded / progress.total if progress.total else 0.0
    return (
        progress.percentage == pytest.approx(share)
        and progress.speed >= 0
        and (progress.eta is None or progress.eta >= 0)
        and (not progress.total or progress.downloaded <= progress.total)
    )
