"""How many downloads the open files of this process allow."""

from __future__ import annotations

from rangefetch.disk import system

__all__ = ["most_at_once"]

_EACH = 8
"""Of so many descriptors one download may be active: each has a connection or more and a file, opens others for a
moment, and idle connections have a quarter of them all."""


def most_at_once(wanted: int) -> int:
    """How many downloads may be active at a time, where ``wanted`` are: at least one."""
    return max(1, min(wanted, system.most_open_files() // _EACH))
