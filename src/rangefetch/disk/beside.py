"""What lies beside a part file, and whether it may be removed or replaced.

Two programs write there by names that are no choice of ours: aria2c its control file, first as ``.aria2__temp``, and
whoever saves a file in one step, first as ``.tmp``. Somebody else's file may have any of these names. Ours is a plain
file of this user's with a single name, which begins as such a file does.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from rangefetch.disk import system
from rangefetch.disk.ownership import is_trusted, opened_regular

__all__ = ["control_path_of", "is_ours", "remove", "remove_control", "state_path_of", "strangers"]

_CONTROL_HEAD = b"\0"  # of the version (aria2's manual, "Control File"), or what a power failure has made of it
_STATE_HEAD = b'{"bitmap":"'
_HEADS = {
    ".aria2": _CONTROL_HEAD,
    ".aria2__temp": _CONTROL_HEAD,
    ".aria2.tmp": _CONTROL_HEAD,
    ".json.tmp": _STATE_HEAD,
}


def state_path_of(part_path: Path) -> Path:
    """Where its state is."""
    return part_path.with_name(part_path.name + ".json")


def control_path_of(part_path: Path) -> Path:
    """Where aria2 notes what is there."""
    return part_path.with_name(part_path.name + ".aria2")


def strangers(part_path: Path) -> list[Path]:
    """What has a name that is needed beside the part file, and is not ours. The state file tells by itself."""
    paths = [part_path.with_name(part_path.name + suffix) for suffix in _HEADS]
    return [path for path in paths if os.path.lexists(path) and not is_ours(path)]


def is_ours(path: Path) -> bool:
    """Whether what has such a name may be removed: it is ours, or empty."""
    head = next(head for suffix, head in _HEADS.items() if path.name.endswith(suffix))
    with opened_regular(path) as found:
        if found is None:
            return False
        fd, status = found
        if status.st_nlink != 1 or (not system.is_own(status) and not is_trusted(status, path.parent)):
            return False
        # A kill may have left less of it than that.
        return head.startswith(system.pread(fd, len(head), 0))


def remove(path: Path) -> None:
    """Remove what has such a name, if it is ours. Raises ``OSError``."""
    if is_ours(path):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def remove_control(part_path: Path) -> None:
    """Remove what aria2 says of the bytes, and what it left of an attempt to. Raises ``OSError``."""
    control = control_path_of(part_path)
    remove(control)
    remove(control.with_name(control.name + "__temp"))
    remove(control.with_name(control.name + ".tmp"))
