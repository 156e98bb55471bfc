"""The files beside a part file, and whether they may be removed or replaced.

Some of these have fixed names: aria2c writes its control file, first as ``.aria2__temp``, and a file that is replaced
in one step is first written as ``.tmp``. Another program's file may have any of these names. A file counts as ours if
it is a regular file of this user's with a single link, and begins as such a file does.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from rangefetch.disk import system
from rangefetch.disk.ownership import is_trusted, opened_regular

__all__ = ["control_path_of", "is_ours", "remove", "remove_control", "state_path_of", "strangers"]

_CONTROL_HEAD = b"\0"  # of the version (aria2's manual, "Control File"), or of a file zeroed by a power failure
_STATE_HEAD = b'{"bitmap":"'
_HEADS = {
    ".aria2": _CONTROL_HEAD,
    ".aria2__temp": _CONTROL_HEAD,
    ".aria2.tmp": _CONTROL_HEAD,
    ".json.tmp": _STATE_HEAD,
}


def state_path_of(part_path: Path) -> Path:
    """The path of the saved state."""
    return part_path.with_name(part_path.name + ".json")


def control_path_of(part_path: Path) -> Path:
    """The path of aria2's control file."""
    return part_path.with_name(part_path.name + ".aria2")


def strangers(part_path: Path) -> list[Path]:
    """Files that have a name needed beside the part file, but are not ours. The state itself is not among them: its
    content shows whose it is."""
    paths = [part_path.with_name(part_path.name + suffix) for suffix in _HEADS]
    return [path for path in paths if os.path.lexists(path) and not is_ours(path)]


def is_ours(path: Path) -> bool:
    """Whether a file with one of these names is ours and may be removed. An empty one counts as ours."""
    head = next(head for suffix, head in _HEADS.items() if path.name.endswith(suffix))
    with opened_regular(path) as found:
        if found is None:
            return False
        fd, status = found
        if status.st_nlink != 1 or (not system.is_own(status) and not is_trusted(status, path.parent)):
            return False
        # If its writer was killed, it may be shorter than the head.
        return head.startswith(system.pread(fd, len(head), 0))


def remove(path: Path) -> None:
    """Remove a file with one of these names, if it is ours. Raises ``OSError``."""
    if is_ours(path):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def remove_control(part_path: Path) -> None:
    """Remove aria2's control file and its temporary versions. Raises ``OSError``."""
    control = control_path_of(part_path)
    remove(control)
    remove(control.with_name(control.name + "__temp"))
    remove(control.with_name(control.name + ".tmp"))
