"""Imports on threads of this package, held apart from forks.

A child that is forked while a thread imports a module has half of it, and nobody who would complete it.
"""

from __future__ import annotations

import os
import sys
from _thread import RLock  # threading's own, which would take a millisecond to import

TYPE_CHECKING = False  # to type checkers it is typing's, which takes 7 ms to import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Handler = Callable[[], object] | None
    _Handlers = tuple[Handler, Handler, Handler]  # before, after in the child, after in the parent

__all__ = ["after_fork", "no_fork", "ready_tempfile"]

_REGISTER = "register_at_fork"
_FORKS = hasattr(os, _REGISTER)
_PATIENCE_S = 10.0
"""How long a fork waits for an import. One that takes longer may be waiting for a lock of somebody else's handler."""


class _NoFork:
    """Held while a module is imported that is not needed before, and while the process forks.

    What is imported may have handlers of forks that take locks of its own, as ``logging`` does. The system would call
    them before ours, so that a thread that forks would have those locks while it waits for the imports, and these may
    wait for the locks. So handlers that are registered meanwhile are kept here, and called once this is held.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        self._depth = 0
        self._register: Callable[..., None]  # of os, while ours is in its place
        self._handlers: list[_Handlers] = []
        self._called: list[_Handlers] = []  # those of the fork that is under way
        self._is_apart = False  # whether that is held apart from imports

    def __enter__(self) -> None:
        self._lock.acquire()
        self._depth += 1
        if self._depth == 1 and _FORKS:
            self._register = getattr(os, _REGISTER)
            setattr(os, _REGISTER, self._keep)

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0 and _FORKS:
            setattr(os, _REGISTER, self._register)
        self._lock.release()

    def _keep(self, *, before: Handler = None, after_in_child: Handler = None, after_in_parent: Handler = None) -> None:
        self._handlers.append((before, after_in_child, after_in_parent))

    def before_fork(self) -> None:
        state = _let_go_of_logging()
        self._is_apart = self._lock.acquire(timeout=_PATIENCE_S)
        if state is not None:
            _logging_lock()._acquire_restore(state)
        self._called = self._handlers.copy()
        for before, _, _ in reversed(self._called):
            _call(before)

    def after_in_parent(self) -> None:
        for _, _, after in self._called:
            _call(after)
        if self._is_apart:
            self._lock.release()

    def after_in_child(self) -> None:
        for _, after, _ in self._called:
            _call(after)
        if self._is_apart:
            self._lock.release()
        else:  # the thread that holds it is not in this process
            self._lock, self._depth = RLock(), 0
            setattr(os, _REGISTER, self._register)


def _call(handler: Handler) -> None:
    """As the system does: what it raises is shown, and the process forks."""
    if handler is not None:
        try:
            handler()
        except BaseException as error:
            sys.excepthook(type(error), error, error.__traceback__)


def _logging_lock() -> Any:
    """The lock of ``logging``, where somebody has loaded that."""
    return getattr(sys.modules.get("logging"), "_lock", None)


def _let_go_of_logging() -> Any:
    """A program that loads ``logging`` after this package has its lock by now, for which an import may be waiting.

    It is taken again once that is over. Returns how often it was held.
    """
    lock = _logging_lock()
    return lock._release_save() if lock is not None and lock._is_owned() else None


no_fork = _NoFork()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=no_fork.before_fork, after_in_parent=no_fork.after_in_parent, after_in_child=no_fork.after_in_child
    )


def after_fork(forget: Callable[[], object]) -> None:
    """Have it called in every child that is forked from now on, where processes fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=forget)


_has_made_one = False


def ready_tempfile() -> None:
    """Have ``tempfile`` do what it does once only, for which it holds a lock that no child must find held."""
    global _has_made_one
    with no_fork:
        if not _has_made_one:
            import contextlib
            import tempfile

            with contextlib.suppress(OSError):  # the caller may name a directory that is better
                tempfile.TemporaryFile().close()
            _has_made_one = True
