"""Keeps imports on this package's threads from overlapping with forks.

If the process forks while a thread is importing a module, the child has a half-imported module and no thread that would
complete it.
"""

from __future__ import annotations

import os
import sys
from _thread import RLock  # the same as threading.RLock, without the millisecond that importing threading takes

TYPE_CHECKING = False  # type checkers treat it like typing.TYPE_CHECKING; importing typing would take 7 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Handler = Callable[[], object] | None
    _Handlers = tuple[Handler, Handler, Handler]  # before, after in the child, after in the parent

__all__ = ["after_fork", "no_fork", "ready_tempfile"]

_PATIENCE_S = 10.0
"""How long a fork waits for an import. A longer import may itself be waiting for a lock of another fork handler."""

no_fork = RLock()
"""Held while a module is imported late (inside a function), and while the process forks."""

_NAME = "register_at_fork"
_system_registers: Callable[..., None] | None = getattr(os, _NAME, None)
_handlers: list[_Handlers] = []  # registered by modules that were imported under the lock
_called: list[_Handlers] = []  # those called for the current fork
_is_apart = False  # whether the current fork holds the lock


def _register(*, before: Handler = None, after_in_child: Handler = None, after_in_parent: Handler = None) -> None:
    """Replaces ``os.register_at_fork``. Handlers registered by modules imported under the lock are called by ours.

    Such handlers may take locks, as those of ``logging`` do. Python calls the handlers registered last first, so these
    would run before ours: the forking thread would hold their locks while it waits for imports, and the imports might
    wait for the same locks.
    """
    if no_fork._is_owned():  # type: ignore[attr-defined]  # threading uses it as well
        _handlers.append((before, after_in_child, after_in_parent))
        return
    assert _system_registers is not None
    given = {"before": before, "after_in_child": after_in_child, "after_in_parent": after_in_parent}
    _system_registers(**{when: handler for when, handler in given.items() if handler is not None})


def _before_fork() -> None:
    global _called, _is_apart
    _called, _is_apart = [], False  # in case Ctrl-C ends the wait: Python forks all the same
    state = _let_go_of_logging()
    try:
        _is_apart = no_fork.acquire(timeout=_PATIENCE_S)
    finally:
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
    """Call a handler as Python does: an exception is shown, and the fork goes ahead."""
    if handler is not None:
        try:
            handler()
        except BaseException as error:
            sys.excepthook(type(error), error, error.__traceback__)


def _logging_lock() -> Any:
    """The lock of ``logging``, or None if it has not been imported."""
    return getattr(sys.modules.get("logging"), "_lock", None)


def _let_go_of_logging() -> Any:
    """Release the lock of ``logging`` before waiting for imports, since an import may be waiting for it: if the program
    imported ``logging`` after this package, ``logging``'s own handler has taken it by now.

    Returns the state with which the caller takes it again afterwards, or None if it was not held.
    """
    lock = _logging_lock()
    return lock._release_save() if lock is not None and lock._is_owned() else None


if _system_registers is not None:
    _system_registers(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
    setattr(os, _NAME, _register)


def after_fork(forget: Callable[[], object]) -> None:
    """Call ``forget`` in every child forked from now on, on systems that fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=forget)


_has_made_one = False


def ready_tempfile() -> None:
    """Have ``tempfile`` do its one-time set-up now, under ``no_fork``: it holds a lock meanwhile, which a forked child
    must not inherit.
    """
    global _has_made_one
    with no_fork:
        if not _has_made_one:
            import contextlib
            import tempfile

            with contextlib.suppress(OSError):  # the caller may use another directory
                tempfile.TemporaryFile().close()
            _has_made_one = True
