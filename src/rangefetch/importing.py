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

_PATIENCE_S = 10.0
"""How long a fork waits for an import. One that takes longer may be waiting for a lock of somebody else's handler."""

no_fork = RLock()
"""Held while a module is imported that is not needed before, and while the process forks."""

_NAME = "register_at_fork"
_system_registers: Callable[..., None] | None = getattr(os, _NAME, None)
_handlers: list[_Handlers] = []  # of what was imported under the lock
_called: list[_Handlers] = []  # those of the fork that is under way
_is_apart = False  # whether that fork has the lock


def _register(*, before: Handler = None, after_in_child: Handler = None, after_in_parent: Handler = None) -> None:
    """What is imported may have handlers that take locks of its own, as ``logging`` does.

    The system calls those that are registered last first, and would call them before ours: the thread that forks would
    have their locks while it waits for the imports, and these may wait for the locks. So they are called by ours.
    """
    if no_fork._is_owned():  # type: ignore[attr-defined]  # which threading uses, too
        _handlers.append((before, after_in_child, after_in_parent))
        return
    assert _system_registers is not None
    given = {"before": before, "after_in_child": after_in_child, "after_in_parent": after_in_parent}
    _system_registers(**{when: handler for when, handler in given.items() if handler is not None})


def _before_fork() -> None:
    global _called, _is_apart
    state = _let_go_of_logging()
    _is_apart = no_fork.acquire(timeout=_PATIENCE_S)
    if state is not None:
        _logging_lock()._acquire_restore(state)
    _called = _handlers.copy()
    for before, _, _ in reversed(_called):
        _call(before)


def _after_fork_in_parent() -> None:
    for _, _, after in _called:
        _call(after)
    if _is_apart:
        no_fork.release()


def _after_fork_in_child() -> None:
    for _, after, _ in _called:
        _call(after)
    if _is_apart:
        no_fork.release()
    else:
        no_fork._at_fork_reinit()  # type: ignore[attr-defined]  # the thread that has it is not in this process


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


if _system_registers is not None:
    _system_registers(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
    setattr(os, _NAME, _register)


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
