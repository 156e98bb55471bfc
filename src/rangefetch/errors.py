"""The exceptions of failed downloads, grouped by cause.

::

    DownloadError
    ├── LocalError                 this machine
    │   ├── EngineUnavailable      the native engine cannot run here         (also ImportError)
    │   ├── TargetExists           the final name is taken                   (also FileExistsError)
    │   ├── TargetLocked           another process is downloading it
    │   ├── DiskError              no space, no permission, an I/O error     (also OSError)
    │   │   └── DiskFull           not tried, since nothing more can be written
    │   ├── BinaryDownloadFailed   aria2c could not be downloaded or verified
    │   ├── ProcessStartFailed     aria2c is missing, or cannot be run
    │   ├── DaemonUnavailable      aria2c does not respond, and is not started again
    │   └── ProcessManagementError aria2c cannot be supervised or ended
    ├── NetworkError               the connection to the server
    │   ├── ConnectionFailed       no name, no route, refused or reset       (also ConnectionError)
    │   │   └── HostUnreachable    not tried, since others from its host have failed
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

    WaitTimeout                    a wait has expired, and the download goes on (also TimeoutError)

Bad options raise ``ValueError`` or ``TypeError`` naming the option, before any file or connection is opened. The
subclasses of ``OSError`` have its ``errno``, and those about a file its ``filename``.
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

_OF_AN_OS_ERROR = ("errno", "strerror", "filename")  # which are not in the __dict__


HOW_TO_REPLACE = "to replace it, use overwrite=True (--allow-overwrite)"
HOW_TO_NUMBER = "to have both, use auto_file_renaming=True (--auto-file-renaming), or give one a name"


class DownloadError(Exception):
    """The base class: a download failed.

    ``url`` is the requested URL (user name and password masked), ``status`` the HTTP status of the response that
    ended it (0: none), ``tried`` the failures before it, one line each, oldest first. ``seconds`` and ``connections``
    are those that the download took until then.
    """

    _errno: ClassVar[int | None] = None
    """That of a subclass of ``OSError``, where the system has given no other."""

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
        # Exceptions pickle by their arguments, and these have keywords.
        members = {name: getattr(self, name) for name in _OF_AN_OS_ERROR if hasattr(self, name)}
        return _revive, (type(self), self.__dict__, members)

    def __str__(self) -> str:
        line = f"{self.url}: {self.reason}" if self.url else self.reason
        return printable(f"{line} (after {len(self.tried)} tries)" if len(self.tried) > 1 else line)


def _fill(error: Exception, errno: int | None, words: str, filename: str | os.PathLike[str] | None) -> None:
    """Give an ``OSError`` what such errors have; others have none of it."""
    if isinstance(error, OSError):
        error.errno, error.strerror = errno, words
        error.filename = None if filename is None else os.fspath(filename)


def _revive(kind: type[DownloadError], attributes: dict[str, Any], members: dict[str, Any]) -> DownloadError:
    """An error as it was in another process."""
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
    """Another download, perhaps of another process, is writing the same file."""


class DiskError(LocalError, OSError):
    """A file operation failed: no space, no permission, an I/O error. ``errno`` says which, ``filename`` on what."""

    _errno = numbers.EIO


class DiskFull(DiskError):
    """The disk is full, or a quota is used up: a list of downloads stops there, and this one was not tried."""

    _errno = numbers.ENOSPC


class NetworkError(DownloadError):
    """The server could not be reached, or the connection failed."""


class ConnectionFailed(NetworkError, ConnectionError):
    """The name did not resolve, or the connection was refused, reset or cut. ``errno`` is the system's, None where
    libcurl tells of none.
    """


class HostUnreachable(ConnectionFailed):
    """The download was not tried: others from ``host``, in the same call or run, have failed one after the other."""

    def __init__(self, message: str, *, host: str = "", **about: Any) -> None:
        super().__init__(message, **about)
        self.host = host


class TimedOut(NetworkError, TimeoutError):
    """The server did not answer, or stopped sending, for longer than the options allow. The download has failed;
    a ``wait`` that expires is a ``WaitTimeout``.
    """

    _errno = numbers.ETIMEDOUT


class TlsError(NetworkError):
    """The server's certificate could not be verified, or the TLS handshake failed."""


class SourceError(DownloadError):
    """The server responded, but not with the file."""


class HttpStatusError(SourceError):
    """The server responded with an error; ``status`` is the code (RFC 9110, section 15)."""


class RobotsRefused(SourceError):
    """The server's robots.txt does not allow programs to fetch it (RFC 9309), and ``robots`` is on."""


class BadAnswer(SourceError):
    """A response that contradicts the request or itself, or ended early."""


class ContentChanged(SourceError):
    """The file on the server is not the one that this download started with."""


class FileTooLarge(SourceError):
    """The file is larger than ``max_file_size`` allows, by the server's word or by what it sent."""


class ChecksumMismatch(SourceError):
    """The complete file has another digest; ``expected`` and ``actual`` are ``algorithm=HEX``.

    ``kept`` is where the data is now, None where it was not kept.
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
    """There is no aria2c, or the one there is cannot be run."""


class DaemonUnavailable(LocalError):
    """aria2c does not respond: its RPC was not up in time, it hangs, or it ended too often to be started again."""


class ProcessManagementError(LocalError):
    """aria2c could not be supervised: it exited while starting (the message has its output), or cannot be ended."""


class WaitTimeout(TimeoutError):
    """``wait(gid, timeout=...)`` has expired. The download goes on, and can be waited for again.

    ``gid`` is the download's, ``seconds`` for how long it was waited for. A download that fails because a server takes
    too long raises ``TimedOut`` instead, which is a ``DownloadError`` as well.
    """

    def __init__(self, gid: str, seconds: float) -> None:
        super().__init__(numbers.ETIMEDOUT, f"not finished after {seconds:g} seconds")
        self.gid = gid
        self.seconds = seconds

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.gid, self.seconds)

    def __str__(self) -> str:
        return f"{self.gid}: {self.strerror}"
