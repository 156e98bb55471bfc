"""A program such as a user might write. Type checkers check it, and a test runs it."""

import asyncio
import sys
from pathlib import Path
from typing import assert_type

import rangefetch
from rangefetch import (
    DownloadError,
    DownloadManager,
    DownloadOptions,
    DownloadProgress,
    DownloadResult,
    DownloadStatus,
    FileInfo,
    RetryPolicy,
    aio,
)
from rangefetch.errors import HttpStatusError, NetworkError, TargetExists
from rangefetch.transfer.retry import Kind, Row


def show(progress: DownloadProgress) -> None:
    """Print the progress of a download."""
    left = "?" if progress.eta is None else f"{progress.eta:.0f} s"
    print(f"{progress.filename}: {progress.percentage:.1f} %, {progress.speed / 1e6:.1f} MB/s, {left} left")


def fetch_one(url: str, directory: Path) -> Path:
    """Fetch one file and handle its errors."""
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
    """Fetch several files at a time, show their progress, and use retry rules of the program's own."""
    policy = RetryPolicy(longest_wait=5).first(Row(Kind.TEMPORARY, "our cache", statuses=frozenset({404})))
    options = DownloadOptions(save_dir=directory, min_split_size="1M", max_tries=3)
    with DownloadManager(max_concurrent_downloads=2, retry_policy=policy) as manager:
        gids = [manager.download(url, options) for url in urls]
        manager.limit("100M")
        manager.pause(gids[0])
        manager.resume(gids[0])
        for progress in manager.list_downloads(DownloadStatus.ACTIVE):
            show(progress)
        assert_type(manager.get_download_progress(gids[0]).status, DownloadStatus)
        never = manager.download(urls[0], {"save_dir": directory / "never"})
        assert_type(manager.cancel(never, remove_files=True), Path | None)
        return [manager.wait(gid, timeout=60).path for gid in gids]


def fetch_list(urls: list[str], directory: Path) -> list[Path]:
    """Fetch a list; failures are returned along with results."""
    done: list[int] = []

    def tell(number: int, outcome: DownloadResult | DownloadError) -> None:
        done.append(number)

    outcomes = rangefetch.fetch_many(urls, directory, on_error="return", on_result=tell)
    assert_type(outcomes, list[DownloadResult | DownloadError])
    assert sorted(done) == list(range(len(urls)))
    return [outcome.path for outcome in outcomes if isinstance(outcome, DownloadResult)]


def describe(url: str) -> str:
    """What the server says about a file."""
    info = rangefetch.head(url, max_tries=3)
    assert_type(info, FileInfo)
    assert_type(info.size, int | None)
    return f"{info.filename}: {info.size} bytes"


def count(url: str) -> int:
    """Count the bytes of a remote file without saving it."""
    with rangefetch.stream(url) as file:
        return sum(map(len, iter(lambda: file.read(1 << 16), b"")))


async def fetch_awaited(url: str, other: str, directory: Path) -> list[Path]:
    """The same with asyncio."""
    info = await aio.head(url)
    assert_type(info, FileInfo)
    result = await aio.fetch(url, directory / "awaited.bin")
    assert_type(result, DownloadResult)
    results = await aio.fetch_many([other], directory / "awaited")
    assert_type(results, list[DownloadResult])
    async with aio.DownloadManager() as manager:
        gid = await manager.download(url, {"save_dir": directory, "filename": "watched.bin"})
        async for progress in manager.progress(gid):
            assert_type(progress, DownloadProgress)
        watched = await manager.wait(gid)
    return [result.path, results[0].path, watched.path]


def main(url: str, other: str, directory: str) -> int:
    """Fetch the URLs in each of these ways, and return the exit status."""
    target = Path(directory)
    try:
        paths = [
            fetch_one(url, target),
            *fetch_some([url, other], target),
            *fetch_list([url, other], target / "list"),
            *asyncio.run(fetch_awaited(url, other, target)),
        ]
        print(describe(url))
        print(count(url))
    except DownloadError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(*paths, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
