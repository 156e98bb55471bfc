"""How many downloads this process's limit of open files allows."""

from __future__ import annotations

from rangefetch.disk import system

__all__ = ["most_at_once"]

_EACH = 8
"""Descriptors for each active download: it has a connection or more and a file, and opens others briefly; idle
connections may use a quarter of all descriptors.
"""


def most_at_once(wanted: int) -> int:
    """How many of the ``wanted`` downloads may be active at a time; at least one."""
    return max(1, min(wanted, system.most_open_files() // _EACH))
