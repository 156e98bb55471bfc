"""Steps of downloads on a thread that serves them all: an error in one ends that download, and nothing else."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, Protocol

from rangefetch.errors import DiskError, DownloadError, LocalError
from rangefetch.logs import log as _log

if TYPE_CHECKING:
    from rangefetch.options import DownloadOptions
    from rangefetch.transfer.download import Download

__all__ = ["Work", "guarded", "internal_error", "safely", "went_wrong", "what_the_machine_lacks"]

P = ParamSpec("P")

_LACKING = frozenset(
    {
        errno.EACCES,
        errno.EDQUOT,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.EPERM,
        errno.EROFS,
    }
)
"""Errors of the system that say nothing against this program, wherever they come up."""


class Work(Protocol):
    """A download at work, as its backend's thread has it: steps of it are taken there, and nowhere else."""

    download: Download

    @property
    def waiting_for(self) -> str:
        """What will bring it on, in words; from any thread."""
        ...

    def begin(self) -> None:
        """Begin to fetch it."""

    def halt(self) -> None:
        """Stop, save (or remove what there is, where its intent says so), and tell the listener."""

    def change(self, options: DownloadOptions) -> None:
        """Apply new options."""

    def go_on(self) -> None:
        """It has a place at work, for which it has waited."""

    def fail(self, error: DownloadError) -> None:
        """End it with an error, and keep what can be continued."""

    def tell_end(self, error: DownloadError | None) -> None:
        """Tell the listener at once, whatever is still going on."""

    def tick(self, now_s: float) -> None:
        """A few times a second: see whether time is up."""


def guarded(owner: Work, step: Callable[P, object], *args: P.args, **keywords: P.kwargs) -> None:
    """Take one step of a download."""
    try:
        step(*args, **keywords)
    except BaseException as error:  # a SystemExit, too: the thread is not the download's to end
        went_wrong(owner, error)


def went_wrong(owner: Work, error: BaseException) -> None:
    """End a download of which a step raises this, which is being handled. If even its end fails, its outcome is told
    and nothing else is done."""
    if isinstance(error, DownloadError):
        failure = error
    else:
        lacking = what_the_machine_lacks(error)
        if lacking is None:
            _log.exception("%s: internal error", owner.download.gid)
        failure = lacking or internal_error(error)
    if not safely(owner.fail, failure):
        safely(owner.tell_end, failure)


def safely(call: Callable[P, object], *args: P.args, **keywords: P.kwargs) -> bool:
    """Whether the call went well; what it raised is logged, and goes no further."""
    try:
        call(*args, **keywords)
    except BaseException:
        _log.exception("internal error")
        return False
    return True


def internal_error(error: BaseException, url: str = "") -> LocalError:
    """What the user hears of an exception that nobody has foreseen."""
    return LocalError(f"internal error: {error!r}", url=url)


def what_the_machine_lacks(error: BaseException) -> LocalError | None:
    """An error of the system, such as too many open files, in the user's words; None: it is another kind of error."""
    if isinstance(error, MemoryError):
        return LocalError("out of memory")
    if isinstance(error, OSError) and error.errno in _LACKING:
        # It may also be the number of a descriptor.
        named = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes | os.PathLike) else None
        on = f"{named}: " if named is not None else ""
        return DiskError(f"{on}{error.strerror}", errno=error.errno, filename=named)
    return None
