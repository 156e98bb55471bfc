"""Checks that a file system has room for everything that is to be written to it.

A download needs what it lacks, less the space that the file system has already given to its part file. That must fit
beside the needs of all downloads requested before it, both active and waiting. The size of a download that has not
begun is known only if it was announced (``expected_size``).
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
_FULL_BYTES = 1 << 20  # a disk with less free than this counts as full


class Room:
    """The space reserved for waiting downloads, by file system. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: Counter[int] = Counter()
        self.claims: dict[str, tuple[int, int]] = {}
        """By gid: the file system, and how many bytes of it."""

    def claim(self, downloads: Iterable[Entry], at_work: Callable[[], Iterable[Download]]) -> dict[str, DiskError]:
        """Reserve space for downloads that are to wait. Returns the errors of those that do not fit beside the others,
        by gid.

        The needs of the downloads at work are determined once for all of them.
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
            return  # any problem with it is reported when the download begins
        if device not in needed:
            needed[device] = lacking_on(device, at_work())
        with self._lock:
            others = self._waiting[device] + needed[device]
            _check(directory, lacking, others, free_space(directory), mask_url(download.url))
            self._waiting[device] += lacking
            self.claims[download.gid] = (device, lacking)

    def release(self, download: Entry) -> None:
        """Release the reservation of a download that waits no longer."""
        if download.gid not in self.claims:
            return
        with self._lock:
            device, lacking = self.claims.pop(download.gid, (0, 0))
            self._waiting[device] -= lacking


class Sizes:
    """The known sizes of the downloads at work, as an upper bound of what they lack. Thread-safe.

    Most disks have room for all of it; then nobody has to look at every part file for every download.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sizes: dict[str, int] = {}
        self._sum = 0

    def put(self, gid: str, size: int) -> int:
        """Record a download's size. Returns the sum of the others' sizes."""
        with self._lock:
            self._sum += size - self._sizes.get(gid, 0)
            self._sizes[gid] = size
            return self._sum - size

    def drop(self, *gids: str) -> None:
        """Remove downloads that are no longer at work."""
        known = [gid for gid in gids if gid in self._sizes]
        if not known:
            return  # like most small files
        with self._lock:
            for gid in known:
                self._sum -= self._sizes.pop(gid, 0)


def lacking_bytes(download: Entry) -> int:
    """How many bytes its file system must still give it; 0 if its size is not known, or its bytes are not kept."""
    progress = download.progress()
    size = progress.total or int(download.options.expected_size)
    if not size or download.sink is not None:
        return 0
    url = split_userinfo(download.url)[0]
    parts = part_paths(download.options.save_dir, download.options.filename, url)
    return max(0, size - max(progress.downloaded, *(_allocated_bytes(part, url) for part in parts)))


def lacking_on(device: int, downloads: Iterable[Download]) -> int:
    """How many bytes the downloads on this file system lack."""
    return sum(lacking_bytes(each) for each in downloads if _is_on(device, each.options.save_dir))


def check_target(
    target: Target, size: int, downloaded: int, others: int, lacking_beside: Callable[[int], int], url: str
) -> None:
    """Raise ``DiskError`` if there is no room for what a file lacks beside what others on its file system lack.

    ``others`` is an upper bound of the latter; if that does not fit, ``lacking_beside`` gives the exact number.
    """
    here = os.fstat(target.fd)
    lacking = max(0, size - max(downloaded, system.allocated_bytes(here)))
    if target.window_bytes:
        lacking = min(lacking, target.window_bytes)
    free = free_space(target.directory)
    if lacking + others > free:
        _check(target.directory, lacking, lacking_beside(here.st_dev), free, url)


def is_full(error: DownloadError, directory: str | os.PathLike[str]) -> TypeGuard[DiskError]:
    """Whether a download into this directory failed in a way that others will too: nothing more can be written.

    A file larger than the free space says nothing of smaller ones, nor does a failure while space for such a file was
    allocated.
    """
    if not isinstance(error, DiskError) or error.errno not in _FULL:
        return False
    try:
        return error.errno == errno.EDQUOT or free_space(directory) < _FULL_BYTES
    except DiskError:
        return False  # the directory is gone


def as_full(error: DiskError, url: str = "") -> DiskFull:
    """The error for a list that stops because of ``error`` or, with a URL, for a download that was not tried."""
    words = f"{'not tried' if url else 'stopped'}, since the disk is full: {error.reason}"
    return DiskFull(words, url=url, errno=error.errno or 0, filename=error.filename)


def explain_full(download: Download, number: int) -> str:
    """What to add to a disk's error: the figures if the disk is full, and for a stream its directory."""
    if download.sink is not None:
        directory = download.sink.directory
        free = free_space(directory)
        return f"; a stream is buffered in {directory} (TMPDIR), where {free} bytes are free"
    lacking = lacking_bytes(download)
    if number not in _FULL or not lacking:
        return ""
    return f"; {lacking} more bytes are needed, but only {free_space(download.options.save_dir)} are free"


def _check(directory: str | os.PathLike[str], lacking: int, others: int, free: int, url: str) -> None:
    if lacking + others > free:
        beside = f", and {others} for other downloads" if others else ""
        words = f"{directory}: not enough space: {lacking} bytes are needed{beside}, but only {free} are free"
        raise DiskError(words, url=url, errno=errno.ENOSPC, filename=directory)


def _is_on(device: int, directory: str | os.PathLike[str]) -> bool:
    try:
        return Path(directory).stat().st_dev == device
    except OSError:
        return False


def _is_there(download: Entry) -> bool:
    """Whether the final name is taken, perhaps by the wanted file; then there may be nothing to fetch."""
    options = download.options
    name = options.filename or choose_filename(download.url)
    return not options.overwrite and (Path(options.save_dir) / name).exists()


def _allocated_bytes(path: Path, url: str) -> int:
    """The bytes that the file system has given to a part file of ours, if it is the one of ``url``."""
    if not may_be_ours(path):
        return 0
    with opened_regular(path) as found:
        return system.allocated_bytes(found[1]) if found is not None and is_part_of(found[0], path, url) else 0
