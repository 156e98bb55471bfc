"""Turns the signals that end a program into a value that the program checks."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any, ClassVar, Self

__all__ = ["SIGNALLED", "Signals"]

SIGNALLED = 128
"""The exit status after a signal is this plus the signal's number, as in shells."""

SECONDS_OF_PATIENCE = 3.0
"""How long stopping may take; after that, a further signal ends the process at once."""


class Signals:
    """Stores the number of the first signal that should end the program, so that the program can stop cleanly.

    If there was one, these signals are ignored once the context has ended: a second Ctrl-C while Python shuts down
    would cause a traceback or another exit status.
    """

    _words: ClassVar = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "hung up"}

    def __init__(self) -> None:
        self.number = 0
        self._came_at = 0.0
        self._before: dict[signal.Signals, Any] = {}

    @property
    def word(self) -> str:
        """What happened, for a message."""
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
            # Signals that were ignored when the program started stay ignored: under nohup, or in a script's background.
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                yield number

    def _came(self, number: int, _frame: object) -> None:
        if not self.number:
            self.number, self._came_at = number, time.monotonic()
        elif time.monotonic() - self._came_at > SECONDS_OF_PATIENCE:
            os._exit(SIGNALLED + number)
