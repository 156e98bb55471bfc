"""How many processors and how much memory this process may use, by affinity and control groups.

A container that may use two of a machine's 64 processors usually has a quota, and sees all 64. Threads beyond the quota
only cause each other to be throttled (cgroups(7); ``cpu.max`` in version 2, ``cpu.cfs_quota_us`` in version 1). Memory
is limited in the same way (``memory.max``, ``memory.limit_in_bytes``), and includes the page cache of written files.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

from rangefetch.disk import system

__all__ = ["keeps_in_cache", "memory_bytes", "processors"]

_Files = tuple[str, tuple[str, ...], tuple[str, ...]]  # a controller: its name, its files in version 2, in version 1
_CPU_FILES: _Files = ("cpu", ("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
_MEMORY_FILES: _Files = ("memory", ("memory.max",), ("memory.limit_in_bytes",))
_MOST_DIGITS = 18
_LEAST_UNCACHED_BYTES = 2 << 30
_CACHE_SHARE = 8
# In the first kernels with RWF_DONTCACHE (6.14 and 6.15) the page cache could lose data that had been written twice.
_FIRST_UNCACHED_KERNEL = (6, 16)


def processors(root: str = "/") -> int:
    """How many threads of this process can run at the same time; at least 1.

    A quota of one and a half processors counts as two. ``root`` is where ``proc`` and ``sys`` are; files that cannot be
    read there set no limit.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [math.ceil(quota) for words in _limits(root, _CPU_FILES) for quota in _ratio(words)]
    return max(1, min([allowed, *quotas]))


def memory_bytes(root: str = "/") -> int:
    """How many bytes of memory this process may use, including its page cache; ``root`` as for ``processors``."""
    limits = [int(words[0]) for words in _limits(root, _MEMORY_FILES) if len(words) == 1 and _is_number(words[0])]
    return min([system.physical_bytes(), *limits])


def keeps_in_cache(size: int) -> bool:
    """Whether a new file of ``size`` bytes should stay in the page cache.

    A file of an eighth of the memory or more, and at least 2 GiB, evicts other programs' data, makes its writer wait
    once too much is not on disk yet, and is seldom read again before it is evicted itself.
    """
    if size < _LEAST_UNCACHED_BYTES or not system.linux_release():
        return True
    release = tuple(map(int, re.findall(r"[0-9]{1,9}", system.linux_release())[:2]))
    return release < _FIRST_UNCACHED_KERNEL or size < memory_bytes() // _CACHE_SHARE


def _limits(root: str, files: _Files) -> Iterator[list[str]]:
    """The words in a controller's files, for every control group that the process is in, including outer ones."""
    controller, in_version_2, in_version_1 = files
    mounts = f"{root}sys/fs/cgroup"
    for line in _read(f"{root}proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            groups, names = _groups(mounts, path), in_version_2
        elif controller in controllers.split(","):
            groups, names = _groups(f"{mounts}/{controllers}", path), in_version_1
        else:
            continue
        for group in groups:
            yield [word for name in names for word in _read(f"{group}/{name}").split()]


def _groups(mount: str, path: str) -> Iterator[str]:
    """The directories of a control group and its ancestors. In a container, ``path`` may be the host's, of which only
    the mount itself exists here.
    """
    parts = [part for part in path.split("/") if part not in {"", ".", ".."}]
    for count in range(len(parts), -1, -1):
        yield "/".join([mount, *parts[:count]])


def _ratio(words: list[str]) -> Iterator[float]:
    """A quota divided by its period; nothing if there is no quota ("max", or -1)."""
    if len(words) == 2 and all(map(_is_number, words)) and int(words[1]) > 0:
        yield int(words[0]) / int(words[1])


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) <= _MOST_DIGITS


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError:
        return ""
