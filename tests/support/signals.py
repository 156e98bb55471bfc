"""Running the tests while signals are ignored, as under ``nohup make test &``.

Ignored signals stay ignored in children, even after exec; handlers are not inherited through exec. Each ignored signal
is given a handler that does nothing, so that the tests can interrupt their children.
"""

import signal

import pytest

__all__ = ["pytest_sessionstart"]


def pytest_sessionstart(session: pytest.Session) -> None:
    """Do so before any test starts a child."""
    for name in ("SIGINT", "SIGQUIT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows lacks some
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _nothing)


def _nothing(_number: int, _frame: object) -> None:
    pass
