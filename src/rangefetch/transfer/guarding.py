"""Guards the steps of downloads that share a thread: an error in one ends that download, and nothing else."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, ParamSpec, Protocol

from rangefetch.errors import DiskError, DownloadError, LocalError
from rangefetch.logs import log as _log

if TYPE_CHECKING:
    from rangefetch.options import DownloadOptions
    from rangefetch.transfer.download import Download

__all__ = ["Work", "guarded", "guarded_together", "internal_error", "safely", "went_wrong", "what_the_machine_lacks"]

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
"""System errors that are no fault of this program, wherever they occur."""


class Work(Protocol):
    """A download at work. All its steps run on its backend's thread."""

    download: Download

    @property
    def waiting_for(self) -> str:
        """What the download waits for, in words; callable from any thread."""
        ...

    def begin(self) -> None:
        """Start to fetch it."""

    def halt(self) -> None:
        """Stop, save the data (or remove it if the caller wants that), and tell the listener."""

    def change(self, options: DownloadOptions) -> None:
        """Apply new options."""

    def go_on(self) -> None:
        """Continue: the download has the place at work that it waited for."""

    def fail(self, error: DownloadError) -> None:
        """End with an error, and keep what can be resumed."""

    def tell_end(self, error: DownloadError | None) -> None:
        """Tell the listener at once, without waiting for pending work."""

    def tick(self, now_s: float) -> None:
        """Check the time limits; called a few times a second."""


def guarded(owner: Work, step: Callable[P, object], *args: P.args, **keywords: P.kwargs) -> None:
    """Run one step of a download; an exception ends the download."""
    try:
        step(*args, **keywords)
    except BaseException as error:  # SystemExit too: a download must not end the thread
        went_wrong(owner, error)


@contextlib.contextmanager
def guarded_together(owners: Iterable[Work]) -> Iterator[None]:
    """A step of several downloads; an exception ends all of them, and does not leave the body."""
    try:
        yield
    except BaseException as error:
        for owner in owners:
            went_wrong(owner, error)


def went_wrong(owner: Work, error: BaseException) -> None:
    """End a download after a step has raised ``error``; called while it is being handled. If that fails as well, only
    the outcome is reported.
    """
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
    """Call, log any exception, and return whether there was none."""
    try:
        call(*args, **keywords)
    except BaseException:
        _log.exception("internal error")
        return False
    return True


def internal_error(error: BaseException, url: str = "") -> LocalError:
    """The error that the user gets for an unexpected exception."""
    return LocalError(f"internal error: {error!r}", url=url)


def what_the_machine_lacks(error: BaseException) -> LocalError | None:
    """A system error, such as too many open files, in the user's words; None for any other kind of error."""
    if isinstance(error, MemoryError):
        return LocalError("out of memory")
    if isinstance(error, OSError) and error.errno in _LACKING:
        # The file name may also be a descriptor's number.
        named = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes | os.PathLike) else None
        on = f"{named}: " if named is not None else ""
        return DiskError(f"{on}{error.strerror}", errno=error.errno, filename=named)
    return None
