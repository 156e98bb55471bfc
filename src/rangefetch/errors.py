"""The exceptions of failed downloads, grouped by cause.

::

    DownloadError
    ├── LocalError                 this machine
    │   ├── EngineUnavailable      the native engine cannot run here         (also ImportError)
    │   ├── TargetExists           the final name is taken                   (also FileExistsError)
    │   ├── TargetLocked           another download is writing the file
    │   ├── DiskError              no space, no permission, an I/O error     (also OSError)
    │   │   └── DiskFull           not tried, since the disk or a quota is full
    │   ├── BinaryDownloadFailed   aria2c could not be downloaded or verified
    │   ├── ProcessStartFailed     aria2c is missing, or cannot be run
    │   ├── DaemonUnavailable      aria2c does not respond, and is not started again
    │   └── ProcessManagementError aria2c cannot be supervised or ended
    ├── NetworkError               the connection to the server
    │   ├── ConnectionFailed       no name, no route, refused or reset       (also ConnectionError)
    │   │   └── HostUnreachable    not tried, since other downloads from its host failed
    │   ├── TimedOut               no connection or no data in time          (also TimeoutError)
    │   └── TlsError               the certificate or the handshake
    ├── SourceError                the server or its file
    │   ├── HttpStatusError        a response such as 404 or 503
    │   ├── RobotsRefused          the server's robots.txt does not allow it
    │   ├── BadAnswer              a malformed, contradictory or truncated response
    │   ├── ContentChanged         the file on the server has changed
    │   ├── FileTooLarge           the file is larger than max_file_size
    │   └── ChecksumMismatch       the file does not have the expected digest
    └── Cancelled                  cancelled, or the manager was stopped

    WaitTimeout                    a wait expired; the download continues    (also TimeoutError)

Bad options raise ``ValueError`` or ``TypeError`` naming the option, before any file or connection is opened. The
subclasses of ``OSError`` set ``errno``, and those about a file ``filename``.
"""

from __future__ import annotations

import errno as numbers
import os
from typing import TYPE_CHECKING, Any, ClassVar

from rangefetch.masking import printable

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "BadAnswer",
    "BinaryDownloadFailed",
    "Cancelled",
    "ChecksumMismatch",
    "ConnectionFailed",
    "ContentChanged",
    "DaemonUnavailable",
    "DiskError",
    "DiskFull",
    "DownloadError",
    "EngineUnavailable",
    "FileTooLarge",
    "HostUnreachable",
    "HttpStatusError",
    "LocalError",
    "NetworkError",
    "ProcessManagementError",
    "ProcessStartFailed",
    "RobotsRefused",
    "SourceError",
    "TargetExists",
    "TargetLocked",
    "TimedOut",
    "TlsError",
    "WaitTimeout",
]

MOST_TRIED = 20
"""How many failures an error lists (``DownloadError.tried``)."""
_OF_AN_OS_ERROR = ("errno", "strerror", "filename")  # these are not in the __dict__


HOW_TO_REPLACE = "to replace it, use overwrite=True (--allow-overwrite)"
HOW_TO_NUMBER = "to have both, use auto_file_renaming=True (--auto-file-renaming), or give one a name"


class DownloadError(Exception):
    """A download failed; the base class of all such errors.

    ``url`` is the requested URL (user name and password masked), ``status`` the HTTP status of the response that ended
    the download (0: none), and ``tried`` the last failures, this one included and at most 20, one line each, oldest
    first. ``seconds`` is how long the download took until it failed, and ``connections`` how many connections it
    opened.
    """

    _errno: ClassVar[int | None] = None
    """The default ``errno`` of a subclass of ``OSError``, for when the system supplied none."""

    def __init__(
        self,
        message: str,
        *,
        url: str = "",
        status: int = 0,
        tried: tuple[str, ...] = (),
        errno: int = 0,
        filename: str | os.PathLike[str] | None = None,
    ) -> None:
        self.reason = message
        self.url = url
        self.status = status
        self.tried = tried
        self.seconds = 0.0
        self.connections = 0
        super().__init__(message)
        _fill(self, errno or self._errno, message, filename)

    def __reduce__(self) -> tuple[Any, ...]:
        # By default, exceptions are unpickled from their positional arguments; these classes also have keywords.
        members = {name: getattr(self, name) for name in _OF_AN_OS_ERROR if hasattr(self, name)}
        return _revive, (type(self), self.__dict__, members)

    def __str__(self) -> str:
        line = f"{self.url}: {self.reason}" if self.url else self.reason
        tries = len(self.tried)
        if tries > 1:
            line += f" (after {tries} tries)" if tries < MOST_TRIED else f" (after {tries} or more tries)"
        return printable(line)


def _fill(error: Exception, errno: int | None, words: str, filename: str | os.PathLike[str] | None) -> None:
    """Set the attributes of ``OSError`` on its subclasses; leave other errors alone."""
    if isinstance(error, OSError):
        error.errno, error.strerror = errno, words
        error.filename = None if filename is None else os.fspath(filename)


def _revive(kind: type[DownloadError], attributes: dict[str, Any], members: dict[str, Any]) -> DownloadError:
    """Rebuild a pickled error."""
    error = kind.__new__(kind, attributes["reason"])
    error.__dict__.update(attributes)
    error.args = (attributes["reason"],)
    for name, value in members.items():
        setattr(error, name, value)
    return error


class LocalError(DownloadError):
    """Something on this machine failed; downloaded data is kept."""


class EngineUnavailable(LocalError, ImportError):
    """The native engine cannot run here: not built for this platform, or no usable libcurl."""


class TargetExists(LocalError, FileExistsError):
    """The final name, ``filename``, is taken by another file, and ``overwrite`` is off."""

    _errno = numbers.EEXIST


class TargetLocked(LocalError):
    """Another download, in this process or another, is writing the same file."""


class DiskError(LocalError, OSError):
    """A file operation failed: no space, no permission, an I/O error. ``errno`` is the cause, ``filename`` the path."""

    _errno = numbers.EIO


class DiskFull(DiskError):
    """The disk or a quota is full. The list of downloads was stopped, and this download was not tried or finished."""

    _errno = numbers.ENOSPC


class NetworkError(DownloadError):
    """The server could not be reached, or the connection failed."""


class ConnectionFailed(NetworkError, ConnectionError):
    """The name did not resolve, or the connection was refused, reset or cut. ``errno`` is the system's, or None if
    libcurl reports none.
    """


class HostUnreachable(ConnectionFailed):
    """The download was not tried, because others from ``host``, in the same call or run, failed one after another."""

    def __init__(self, message: str, *, host: str = "", **about: Any) -> None:
        super().__init__(message, **about)
        self.host = host


class TimedOut(NetworkError, TimeoutError):
    """The server did not respond, or stopped sending, for longer than the options allow, and the download failed.
    (A ``wait`` that expires raises ``WaitTimeout`` instead.)
    """

    _errno = numbers.ETIMEDOUT


class TlsError(NetworkError):
    """The server's certificate could not be verified, or the TLS handshake failed."""


class SourceError(DownloadError):
    """The server responded, but not with the expected file."""


class HttpStatusError(SourceError):
    """The server responded with an error; ``status`` is the code (RFC 9110, section 15)."""


class RobotsRefused(SourceError):
    """The server's robots.txt does not allow programs to fetch the URL (RFC 9309), and ``robots`` is on."""


class BadAnswer(SourceError):
    """A response contradicts the request or itself, or ended early."""


class ContentChanged(SourceError):
    """The file on the server is not the one that this download started with."""


class FileTooLarge(SourceError):
    """The file is larger than ``max_file_size``, by the size that the server states or the bytes that it sent."""


class ChecksumMismatch(SourceError):
    """The complete file does not have the expected digest; ``expected`` and ``actual`` are ``algorithm=HEX``.

    ``kept`` is the path where the data is now, or None if it was not kept.
    """

    def __init__(self, message: str, *, expected: str, actual: str, url: str = "", kept: Path | None = None) -> None:
        super().__init__(message, url=url)
        self.expected = expected
        self.actual = actual
        self.kept = kept


class Cancelled(DownloadError):
    """The download was cancelled, or its manager was stopped."""


class BinaryDownloadFailed(LocalError):
    """aria2c could not be downloaded from the configured locations, or its SHA-256 is wrong."""


class ProcessStartFailed(LocalError):
    """aria2c is missing or cannot be run."""


class DaemonUnavailable(LocalError):
    """aria2c does not respond: its RPC was not up in time, it hangs, or it exited too often to be started again."""


class ProcessManagementError(LocalError):
    """aria2c could not be supervised: it exited while starting (the message has its output), or cannot be stopped."""


class WaitTimeout(TimeoutError):
    """``wait(gid, timeout=...)`` has expired. The download continues, and can be waited for again.

    ``gid`` is the download's gid, ``seconds`` the timeout. If the download itself fails because a server takes too
    long, the error is ``TimedOut``, which is a ``DownloadError``.
    """

    def __init__(self, gid: str, seconds: float) -> None:
        super().__init__(numbers.ETIMEDOUT, f"not finished after {seconds:g} seconds")
        self.gid = gid
        self.seconds = seconds

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.gid, self.seconds)

    def __str__(self) -> str:
        return f"{self.gid}: {self.strerror}"
