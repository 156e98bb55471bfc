"""How many processors this process may use: by its affinity, and by the quotas of its control groups.

A container that may use two of a machine's 64 processors usually has a quota, and sees all 64. Threads beyond the quota
only have each other throttled (cgroups(7); ``cpu.max`` in version 2, ``cpu.cfs_quota_us`` in version 1).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["processors"]

_MOST_DIGITS = 18


def processors(root: str = "/") -> int:
    """How many threads of this process can run at the same time; at least 1.

    A quota of one processor and a half counts as two. ``root`` is where ``proc`` and ``sys`` are; what cannot be read
    there limits nothing.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *(math.ceil(quota) for quota in _quotas(root))]))


def _quotas(root: str) -> Iterator[float]:
    """Of every control group that the process is in, outer ones too: so many processors at a time."""
    mounts = f"{root}sys/fs/cgroup"
    for line in _read(f"{root}proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            for group in _groups(mounts, path):
                yield from _ratio(_read(f"{group}/cpu.max").split())
        elif "cpu" in controllers.split(","):
            for group in _groups(f"{mounts}/{controllers}", path):
                quota, period = _read(f"{group}/cpu.cfs_quota_us"), _read(f"{group}/cpu.cfs_period_us")
                yield from _ratio([*quota.split(), *period.split()])


def _groups(mount: str, path: str) -> Iterator[str]:
    """The directories of a group and of those around it. In a container its path may be that of the machine outside,
    of which only the mount itself is there."""
    parts = [part for part in path.split("/") if part not in {"", ".", ".."}]
    for count in range(len(parts), -1, -1):
        yield "/".join([mount, *parts[:count]])


def _ratio(words: list[str]) -> Iterator[float]:
    """A quota over its period; nothing where there is none ("max", or -1)."""
    if len(words) == 2 and all(word.isascii() and word.isdigit() and len(word) <= _MOST_DIGITS for word in words):
        quota_us, period_us = map(int, words)
        if period_us > 0:
            yield quota_us / period_us


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError:
        return ""
