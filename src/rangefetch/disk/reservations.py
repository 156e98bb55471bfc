"""Reserves final names for the unfinished downloads of this process, so that no two of them get the same.

This module does not check which names exist on disk.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from rangefetch.importing import after_fork

__all__ = ["is_reserved", "release", "reserve"]

_owners: dict[str, object] = {}
_names: dict[int, set[str]] = {}  # by owner
_lock = threading.Lock()


def reserve(path: Path, owner: object) -> bool:
    """Reserve a path for ``owner`` until ``release``. Returns False if another owner has it."""
    key = _key(path)
    with _lock:
        if _owners.setdefault(key, owner) is not owner:
            return False
        _names.setdefault(id(owner), set()).add(key)
        return True


def is_reserved(path: Path, owner: object) -> bool:
    """Whether an owner other than ``owner`` has reserved the path."""
    with _lock:
        return _owners.get(_key(path), owner) is not owner


def release(owner: object) -> None:
    """Release all reservations of ``owner``."""
    with _lock:
        for key in _names.pop(id(owner), ()):
            del _owners[key]


def _key(path: Path) -> str:
    return os.path.join(os.path.realpath(path.parent), path.name)  # noqa: PTH118 - a link as the name is replaced itself


def _forget() -> None:
    """In a forked child: forget all reservations, since the downloads are the parent's."""
    global _lock
    _lock = threading.Lock()
    _owners.clear()
    _names.clear()


after_fork(_forget)
