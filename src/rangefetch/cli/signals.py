"""The signals that end a program, as something to look at."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any, ClassVar, Self

__all__ = ["SIGNALLED", "Signals"]

SIGNALLED = 128
"""The exit status after a signal is this and its number, as in shells."""

SECONDS_OF_PATIENCE = 3.0
"""How long stopping may take before a further signal ends the process where it stands."""


class Signals:
    """Makes the signals that end a program a number to look at, so that it can end in good order.

    After a signal they are ignored when the context ends: a second Ctrl-C may come while Python shuts down, and
    would end in a traceback, or in another exit status.
    """

    _words: ClassVar = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "hung up"}

    def __init__(self) -> None:
        self.number = 0
        self._came_at = 0.0
        self._before: dict[signal.Signals, Any] = {}

    @property
    def word(self) -> str:
        """What happened, for a line."""
        return self._words[signal.Signals(self.number).name]

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for wanted in self._wanted():
                self._before[wanted] = signal.signal(wanted, self._came)
        return self

    def __exit__(self, *_: object) -> None:
        for wanted, handler in self._before.items():
            signal.signal(wanted, signal.SIG_IGN if self.number else handler)

    def _wanted(self) -> Iterator[signal.Signals]:
        for name in self._words:
            number = getattr(signal, name, None)  # Windows lacks SIGHUP
            # What was ignored when the program started stays so: under nohup, or in the background of a script.
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                yield number

    def _came(self, number: int, _frame: object) -> None:
        if not self.number:
            self.number, self._came_at = number, time.monotonic()
        elif time.monotonic() - self._came_at > SECONDS_OF_PATIENCE:
            os._exit(SIGNALLED + number)
