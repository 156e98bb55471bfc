"""Steps of downloads on a thread that serves them all: an error in one ends that download, and nothing else."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from rangefetch.errors import DownloadError, LocalError
from rangefetch.logs import log as _log

if TYPE_CHECKING:
    from rangefetch.transfer.atwork import AtWork

__all__ = ["guarded", "internal_error", "safely"]


def guarded(owner: AtWork, step: Callable[[], object]) -> None:
    """Take one step of a download. If even its end fails, its outcome is told and nothing else is done."""
    try:
        step()
    except DownloadError as error:
        failure = error
    except BaseException as error:  # a SystemExit, too: the thread is not the download's to end
        _log.exception("%s: internal error", owner.download.gid)
        failure = internal_error(error)
    else:
        return
    if not safely(functools.partial(owner.fail, failure)):
        safely(functools.partial(owner.tell_end, failure))


def safely(call: Callable[[], object]) -> bool:
    """Whether the call went well; what it raised is logged, and goes no further."""
    try:
        call()
    except BaseException:
        _log.exception("internal error")
        return False
    return True


def internal_error(error: BaseException, url: str = "") -> LocalError:
    """What the user hears of an exception that nobody has foreseen."""
    return LocalError(f"internal error: {error!r}", url=url)
