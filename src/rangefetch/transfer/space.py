"""Whether a filesystem has room for all that is to come to it, by its own numbers.

What a download still needs is what it lacks, but for what the filesystem has given to its part file already. It must
fit beside what those need that were asked for before it: the ones at work, and the ones that wait. Of a download that
has not begun the size is known where it was announced (``expected_size``).
"""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rangefetch.disk import system
from rangefetch.disk.names import choose_filename
from rangefetch.disk.ownership import may_be_ours, opened_regular
from rangefetch.disk.parts import is_part_of, part_paths
from rangefetch.disk.target import Target, free_space
from rangefetch.errors import DiskError, DiskFull, DownloadError
from rangefetch.masking import mask_url
from rangefetch.net.credentials import split_userinfo
from rangefetch.transfer.download import Download, Entry

if TYPE_CHECKING:
    from typing import TypeGuard

__all__ = [
    "Room",
    "Sizes",
    "as_full",
    "check_target",
    "explain_full",
    "is_full",
    "lacking_bytes",
    "lacking_on",
]


_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_BYTES = 1 << 20  # free on a disk that is called full


class Room:
    """What waits, by filesystem; for all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: Counter[int] = Counter()
        self.claims: dict[str, tuple[int, int]] = {}
        """By gid: the file system, and how many bytes of it."""

    def claim(self, downloads: Iterable[Entry], at_work: Callable[[], Iterable[Download]]) -> dict[str, DiskError]:
        """These are to wait for their turn; returns the errors of those that do not fit beside the others, by gid.

        What those at work need is looked at once for all of them.
        """
        refused: dict[str, DiskError] = {}
        needed: dict[int, int] = {}
        for download in downloads:
            if not (download.has_begun or download.options.expected_size):
                continue  # its size is not known
            try:
                self._claim(download, at_work, needed)
            except DiskError as error:
                refused[download.gid] = error
        return refused

    def _claim(self, download: Entry, at_work: Callable[[], Iterable[Download]], needed: dict[int, int]) -> None:
        lacking = lacking_bytes(download)
        directory = download.options.save_dir
        if not lacking or _is_there(download):
            return
        try:
            device = Path(directory).stat().st_dev
        except OSError:
            return  # what is wrong with it is said when it begins
        if device not in needed:
            needed[device] = lacking_on(device, at_work())
        with self._lock:
            others = self._waiting[device] + needed[device]
            _check(directory, lacking, others, free_space(directory), mask_url(download.url))
            self._waiting[device] += lacking
            self.claims[download.gid] = (device, lacking)

    def release(self, download: Entry) -> None:
        """It waits no more."""
        if download.gid not in self.claims:
            return
        with self._lock:
            device, lacking = self.claims.pop(download.gid, (0, 0))
            self._waiting[device] -= lacking


class Sizes:
    """The sizes of what is at work, as far as they are known: no more than that can be lacking. For all threads.

    Most disks have room for all of it. Then nobody has to look at the part file of each download for each other one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sizes: dict[str, int] = {}
        self._sum = 0

    def put(self, gid: str, size: int) -> int:
        """A download has this size; returns the sum of those of the others."""
        with self._lock:
            self._sum += size - self._sizes.get(gid, 0)
            self._sizes[gid] = size
            return self._sum - size

    def drop(self, *gids: str) -> None:
        """These are not at work any more."""
        known = [gid for gid in gids if gid in self._sizes]
        if not known:
            return  # as most small files
        with self._lock:
            for gid in known:
                self._sum -= self._sizes.pop(gid, 0)


def lacking_bytes(download: Entry) -> int:
    """What its filesystem must still give to it; 0 where its size is not known, or its bytes are not kept."""
    progress = download.progress()
    size = progress.total or int(download.options.expected_size)
    if not size or download.sink is not None:
        return 0
    url = split_userinfo(download.url)[0]
    parts = part_paths(download.options.save_dir, download.options.filename, url)
    return max(0, size - max(progress.downloaded, *(_allocated_bytes(part, url) for part in parts)))


def lacking_on(device: int, downloads: Iterable[Download]) -> int:
    """What those of the downloads that are on this filesystem lack."""
    return sum(lacking_bytes(each) for each in downloads if _is_on(device, each.options.save_dir))


def check_target(
    target: Target, size: int, downloaded: int, others: int, lacking_beside: Callable[[int], int], url: str
) -> None:
    """Raises ``DiskError`` where there is no room for what a file lacks beside what others on its filesystem do.

    ``others`` is what these have at most; what they lack, by ``lacking_beside``, is asked where that does not fit.
    """
    here = os.fstat(target.fd)
    lacking = max(0, size - max(downloaded, system.allocated_bytes(here)))
    if target.window_bytes:
        lacking = min(lacking, target.window_bytes)
    free = free_space(target.directory)
    if lacking + others > free:
        _check(target.directory, lacking, lacking_beside(here.st_dev), free, url)


def is_full(error: DownloadError, directory: str | os.PathLike[str]) -> TypeGuard[DiskError]:
    """Whether a download into this directory has failed as others will: nothing more can be written. One that is larger
    than what is free says nothing of smaller ones, nor does what failed while space for such a one was allocated."""
    if not isinstance(error, DiskError) or error.errno not in _FULL:
        return False
    try:
        return error.errno == errno.EDQUOT or free_space(directory) < _FULL_BYTES
    except DiskError:
        return False  # it is gone


def as_full(error: DiskError, url: str = "") -> DiskFull:
    """What that is for a list, which stops; with a URL, for one of its downloads that was not tried."""
    words = f"{'not tried' if url else 'stopped'}, since the disk is full: {error.reason}"
    return DiskFull(words, url=url, errno=error.errno or 0, filename=error.filename)


def explain_full(download: Download, number: int) -> str:
    """What there is to add to a disk's error: the figures where it is full, and of a stream its directory."""
    if download.sink is not None:
        directory = download.sink.directory
        free = free_space(directory)
        return f"; a stream is kept in {directory} (TMPDIR) until it is read, where {free} bytes are free"
    lacking = lacking_bytes(download)
    if number not in _FULL or not lacking:
        return ""
    return f"; {lacking} bytes more are needed, and {free_space(download.options.save_dir)} are free"


def _check(directory: str | os.PathLike[str], lacking: int, others: int, free: int, url: str) -> None:
    if lacking + others > free:
        beside = f", and {others} for other downloads" if others else ""
        words = f"{directory}: {lacking} bytes are needed{beside}, and {free} are free"
        raise DiskError(words, url=url, errno=errno.ENOSPC, filename=directory)


def _is_on(device: int, directory: str | os.PathLike[str]) -> bool:
    try:
        return Path(directory).stat().st_dev == device
    except OSError:
        return False


def _is_there(download: Entry) -> bool:
    """Whether the final name is taken, perhaps by the very file; then there may be nothing to fetch."""
    options = download.options
    name = options.filename or choose_filename(download.url)
    return not options.overwrite and (Path(options.save_dir) / name).exists()


def _allocated_bytes(path: Path, url: str) -> int:
    """What the file system has given to a part file of ours, if it is that of ``url``."""
    if not may_be_ours(path):
        return 0
    with opened_regular(path) as found:
        return system.allocated_bytes(found[1]) if found is not None and is_part_of(found[0], path, url) else 0
