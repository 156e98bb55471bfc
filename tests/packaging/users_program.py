"""A program as a user might write it: checked by type checkers, and run by a test."""

import sys
from pathlib import Path
from typing import assert_type

import rangefetch
from rangefetch import DownloadError, DownloadManager, DownloadOptions, DownloadProgress, DownloadResult, DownloadStatus
from rangefetch.errors import HttpStatusError, NetworkError, TargetExists


def show(progress: DownloadProgress) -> None:
    """Print how far it is."""
    left = "?" if progress.eta is None else f"{progress.eta:.0f} s"
    print(f"{progress.filename}: {progress.percentage:.1f} %, {progress.speed / 1e6:.1f} MB/s, {left} left")


def fetch_one(url: str, directory: Path) -> Path:
    """One file, with what can go wrong."""
    try:
        result = rangefetch.fetch(url, directory / "one.bin", on_progress=show, split=4, headers={"X-Reason": "types"})
    except TargetExists as error:
        print(f"already there: {error.reason}")
        raise
    except (HttpStatusError, NetworkError) as error:
        assert_type(error.status, int)
        assert_type(error.tried, tuple[str, ...])
        raise
    assert_type(result, DownloadResult)
    assert_type(result.path, Path)
    return result.path


def fetch_some(urls: list[str], directory: Path) -> list[Path]:
    """Several at a time, with a look at each on the way."""
    options = DownloadOptions(save_dir=directory, min_split_size="1M", max_tries=3)
    with DownloadManager(max_concurrent_downloads=2) as manager:
        gids = [manager.download(url, options) for url in urls]
        for progress in manager.list_downloads(DownloadStatus.ACTIVE):
            show(progress)
        assert_type(manager.get_download_progress(gids[0]).status, DownloadStatus)
        return [manager.wait(gid, timeout=60).path for gid in gids]


def main(url: str, other: str, directory: str) -> int:
    """Fetch one file, then two; the exit status."""
    target = Path(directory)
    try:
        paths = [fetch_one(url, target), *fetch_some([url, other], target)]
    except DownloadError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(*paths, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
