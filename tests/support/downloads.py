"""Downloads that end soon: beginning them, interrupting them, asking how they are."""

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
    """``rangefetch.fetch``, but quicker to try again."""
    return rangefetch.fetch(url, path, **(QUICK | options))


def fails(kind: type[Error], url: str, path: Path | str, **options: Any) -> Error:
    """Fetch, expect exactly this error in one line that names the URL, and return it."""
    with pytest.raises(DownloadError) as caught:
        fetch(url, path, **options)
    return clear(caught.value, kind, url)


def clear(error: DownloadError, kind: type[Error], url: str) -> Error:
    """The error, which is exactly of this kind, and one line that names the URL."""
    assert type(error) is kind, repr(error)
    assert error.url == url
    assert url in str(error)
    assert len(str(error).splitlines()) == 1
    assert str(error).isprintable()
    return error


def interrupt(url: str, path: Path, at_least: int, **options: Any) -> int:
    """Begin a download and stop it when so many bytes have come. Returns how many are kept, as its state says."""
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
    """Whether the numbers in it fit together."""
    share = 100.0 * progress.downloaded / progress.total if progress.total else 0.0
    return (
        progress.percentage == pytest.approx(share)
        and progress.speed >= 0
        and (progress.eta is None or progress.eta >= 0)
        and (not progress.total or progress.downloaded <= progress.total)
    )
