"""The package's logger. Exceptions in the user's log handlers do not affect downloads.

``logging`` is imported only when a line is to be logged, since that takes a tenth of the time of a small download.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from rangefetch.importing import no_fork

if TYPE_CHECKING:
    import logging

__all__ = ["log"]

_DEBUG, _INFO, _WARNING, _ERROR = 10, 20, 30, 40
"""``logging``'s levels (Python Library Reference, "Logging Levels")."""


class _Log:
    """Passes lines to the logger ``rangefetch``. An exception in a handler or filter is printed and not propagated, as
    ``logging`` itself does for errors in its own handlers. Nor is one that keeps ``logging`` from being imported.
    """

    def __init__(self) -> None:
        self._logger: logging.Logger | None = None
        self._prepare: Callable[[logging.Logger], None] | None = None

    @property
    def logger(self) -> logging.Logger:
        """The logger; this imports ``logging``."""
        if self._logger is None:
            with no_fork:
                import logging

                self._logger = logging.getLogger("rangefetch")
                if self._prepare is not None:
                    self._prepare(self._logger)
        return self._logger

    def prepare(self, prepare: Callable[[logging.Logger], None] | None) -> None:
        """Call ``prepare`` with the logger before its first line, or at once if the logger exists already."""
        self._prepare = prepare
        if self._logger is not None and prepare is not None:
            prepare(self._logger)

    def debug(self, message: str, *args: object) -> None:
        self._log(_DEBUG, message, args)

    def info(self, message: str, *args: object) -> None:
        self._log(_INFO, message, args)

    def warning(self, message: str, *args: object) -> None:
        self._log(_WARNING, message, args)

    def error(self, message: str, *args: object) -> None:
        self._log(_ERROR, message, args)

    def exception(self, message: str, *args: object) -> None:
        self._log(_ERROR, message, args, with_traceback=True)

    def _log(self, level: int, message: str, args: tuple[object, ...], *, with_traceback: bool = False) -> None:
        # A program that has not imported logging cannot have enabled levels below warning.
        if level < _WARNING and "logging" not in sys.modules:
            return
        try:
            if self.logger.isEnabledFor(level):
                # The caller is two frames up from here.
                self.logger.log(level, message, *args, exc_info=with_traceback, stacklevel=3)
        except Exception:
            self._say_what_was_raised()

    def _say_what_was_raised(self) -> None:
        try:
            with no_fork:
                import logging
                import traceback

            if logging.raiseExceptions and sys.stderr is not None:
                traceback.print_exc(file=sys.stderr)
        except Exception:
            return  # stderr is closed, or no descriptor is left to import these


log = _Log()
