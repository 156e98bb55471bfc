"""How many downloads the open files of this process allow."""

from __future__ import annotations

import sys

if sys.platform != "win32":  # where there is no such limit
    import resource

__all__ = ["most_at_once"]

_EACH = 8
"""Of so many descriptors one download may be active: each has a connection or more and a file, opens others for a
moment, and idle connections have a quarter of them all."""


def most_at_once(wanted: int) -> int:
    """How many downloads may be active at a time, where ``wanted`` are: at least one."""
    if sys.platform == "win32":
        return wanted
    most_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if most_files == resource.RLIM_INFINITY else max(1, min(wanted, most_files // _EACH))
