"""Imports on threads of this package, held apart from forks.

A child that is forked while a thread imports a module has half of it, and nobody who would complete it.
"""

from __future__ import annotations

import os
from _thread import RLock  # threading's own, which would take a millisecond to import

TYPE_CHECKING = False  # to type checkers it is typing's, which takes 7 ms to import
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["after_fork", "no_fork"]

no_fork = RLock()
"""Held while a module is imported that is not needed before, and while the process forks."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=no_fork.acquire, after_in_parent=no_fork.release, after_in_child=no_fork.release)


def after_fork(forget: Callable[[], object]) -> None:
    """Have it called in every child that is forked from now on, where processes fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=forget)
