"""Final names that unfinished downloads of this process are to have, so that no two of them end up with one.

What has a name on disk already is not known here.
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
    """Have a path for ``owner`` until it releases what it has; False: it is another's."""
    key = _key(path)
    with _lock:
        if _owners.setdefault(key, owner) is not owner:
            return False
        _names.setdefault(id(owner), set()).add(key)
        return True


def is_reserved(path: Path, owner: object) -> bool:
    """Whether another than ``owner`` has it."""
    with _lock:
        return _owners.get(_key(path), owner) is not owner


def release(owner: object) -> None:
    """Let go of all that ``owner`` has."""
    with _lock:
        for key in _names.pop(id(owner), ()):
            del _owners[key]


def _key(path: Path) -> str:
    return os.path.join(os.path.realpath(path.parent), path.name)  # noqa: PTH118 - a link as the name is replaced itself


def _forget() -> None:
    """In a forked child: the downloads are the parent's."""
    global _lock
    _lock = threading.Lock()
    _owners.clear()
    _names.clear()


after_fork(_forget)
