"""The package's logger, which cannot hurt a download: a handler that raises is the handler's own trouble."""

from __future__ import annotations

import logging
import sys
import traceback
from typing import TYPE_CHECKING, Any

__all__ = ["log"]

if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter


class _Log(_Adapter):
    """Passes everything on to the logger ``rangefetch``. What a handler or filter raises is printed and goes no
    further, as ``logging`` itself does with errors in its own handlers.
    """

    def log(self, level: int, msg: object, *args: Any, **kwargs: Any) -> None:
        if not self.logger.isEnabledFor(level):
            return
        # The caller is one frame up from here.
        kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
        try:
            self.logger.log(level, msg, *args, **kwargs)
        except Exception:
            if logging.raiseExceptions and sys.stderr is not None:
                try:
                    traceback.print_exc(file=sys.stderr)
                except Exception:
                    return  # a stderr that is closed


log = _Log(logging.getLogger("rangefetch"), {})
