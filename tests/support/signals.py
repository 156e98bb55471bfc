"""Tests whose parent ignores signals, as under ``nohup make test &``.

What a process ignores, its children ignore too, through exec; a handler does not pass through. So that a child of a
test can be interrupted wherever the tests run, what is ignored here gets a handler that does nothing.
"""

import signal

import pytest

__all__ = ["pytest_sessionstart"]


def pytest_sessionstart(session: pytest.Session) -> None:
    """Before any test starts a child."""
    for name in ("SIGINT", "SIGQUIT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows lacks some
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _nothing)


def _nothing(_number: int, _frame: object) -> None:
    pass
