"""Removes or moves the files of a stopped download.

Only files that the download has created are touched: one that never began has none.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from rangefetch.disk.ownership import may_be_ours
from rangefetch.disk.target import Target
from rangefetch.net.credentials import split_userinfo
from rangefetch.options import DownloadOptions
from rangefetch.transfer.download import Download

__all__ = ["move", "remove", "remove_kept_aside"]


def remove(download: Download) -> None:
    """Delete the part file and its companions. Raises ``TargetLocked`` if it is in use, and ``DiskError``."""
    target = _find(download)
    if target is not None:
        target.discard()


def remove_kept_aside(download: Download) -> None:
    """Delete the data that was kept because its checksum was wrong.

    Its path may also come from a session file. On a file system without marks, only the name shows that it is ours.
    """
    path, download.kept_aside = download.kept_aside, None
    if path is not None and _was_set_aside(path) and may_be_ours(path):
        with contextlib.suppress(OSError):
            path.unlink()


def move(download: Download, options: DownloadOptions) -> None:
    """Move the part file and its state to where a task with these options looks for them.

    To another file system they are copied, which may take long. Raises ``TargetLocked`` if it is in use,
    ``TargetExists`` if another unfinished download is there, and ``DiskError``; then everything stays where it was.
    """
    target = _find(download)
    if target is not None:
        with contextlib.closing(target):
            target.move(options.save_dir, options.filename)


def _was_set_aside(path: Path) -> bool:
    """Whether it has a name as given by ``Target.set_aside``, which no server can choose."""
    return path.suffix == ".bad" or (path.suffix[1:].isdecimal() and path.with_suffix("").suffix == ".bad")


def _find(download: Download) -> Target | None:
    if not download.has_begun or download.sink is not None or not Path(download.options.save_dir).is_dir():
        return None
    return Target.find(download.options.save_dir, download.options.filename, split_userinfo(download.url)[0])
