"""The exceptions of failed downloads, grouped by cause.

::

    DownloadError
    ├── LocalError                 this machine
    │   ├── EngineUnavailable      the native engine cannot run here         (also ImportError)
    │   ├── TargetExists           the final name is taken                   (also FileExistsError)
    │   ├── TargetLocked           another process is downloading it
    │   ├── DiskError              no space, no permission, an I/O error     (also OSError)
    │   ├── BinaryDownloadFailed   aria2c could not be downloaded or verified
    │   ├── ProcessStartFailed     aria2c is missing, or failed to start
    │   ├── DaemonUnavailable      aria2c does not respond, and is not started again
    │   └── ProcessManagementError aria2c cannot be supervised or ended
    ├── NetworkError               the connection to the server
    │   ├── ConnectionFailed       no name, no route, refused or reset       (also ConnectionError)
    │   ├── TimedOut               no connection or no data in time          (also TimeoutError)
    │   └── TlsError               the certificate or the handshake
    ├── SourceError                the server or its file
    │   ├── HttpStatusError        a response such as 404 or 503
    │   ├── BadAnswer              a malformed, contradictory or truncated response
    │   ├── ContentChanged         the file on the server has changed
    │   └── ChecksumMismatch       the file does not have the expected digest
    └── Cancelled                  cancelled, or the manager was stopped

Bad options raise ``ValueError`` or ``TypeError`` naming the option, before any file or connection is opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    "DownloadError",
    "EngineUnavailable",
    "HttpStatusError",
    "LocalError",
    "NetworkError",
    "ProcessManagementError",
    "ProcessStartFailed",
    "SourceError",
    "TargetExists",
    "TargetLocked",
    "TimedOut",
    "TlsError",
]


class DownloadError(Exception):
    """The base class: a download failed.

    ``url`` is the requested URL (user name and password masked), ``status`` the HTTP status of the response that
    ended it (0: none), ``tried`` the failures before it, one line each, oldest first.
    """

    def __init__(self, message: str, *, url: str = "", status: int = 0, tried: tuple[str, ...] = ()) -> None:
        self.reason = message
        self.url = url
        self.status = status
        self.tried = tried
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions pickle by their arguments, and these have keywords.
        return _revive, (type(self), self.__dict__, getattr(self, "errno", None))

    def __str__(self) -> str:
        line = f"{self.url}: {self.reason}" if self.url else self.reason
        return printable(f"{line} (after {len(self.tried)} tries)" if len(self.tried) > 1 else line)


def _revive(kind: type[DownloadError], attributes: dict[str, Any], errno: int | None) -> DownloadError:
    """An error as it was in another process."""
    error = kind.__new__(kind, attributes["reason"])
    error.__dict__.update(attributes)
    error.args = (attributes["reason"],)
    if errno is not None:
        error.errno = errno  # type: ignore[attr-defined]
    return error


class LocalError(DownloadError):
    """Something on this machine failed; downloaded data is kept."""


class EngineUnavailable(LocalError, ImportError):
    """The native engine cannot run here: not built for this platform, or no usable libcurl."""


class TargetExists(LocalError, FileExistsError):
    """The final name is taken by another file, and ``overwrite`` is off."""


class TargetLocked(LocalError):
    """Another download, perhaps of another process, is writing the same file."""


class DiskError(LocalError, OSError):
    """A file operation failed: no space, no permission, an I/O error. ``errno`` says which."""

    def __init__(
        self, message: str, *, url: str = "", errno: int = 0, status: int = 0, tried: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message, url=url, status=status, tried=tried)
        self.errno = errno


class NetworkError(DownloadError):
    """The server could not be reached, or the connection failed."""


class ConnectionFailed(NetworkError, ConnectionError):
    """The name did not resolve, or the connection was refused, reset or cut."""


class TimedOut(NetworkError, TimeoutError):
    """The server did not answer, or stopped sending, for longer than the options allow."""


class TlsError(NetworkError):
    """The server's certificate could not be verified, or the TLS handshake failed."""


class SourceError(DownloadError):
    """The server responded, but not with the file."""


class HttpStatusError(SourceError):
    """The server responded with an error; ``status`` is the code (RFC 9110, section 15)."""


class BadAnswer(SourceError):
    """A response that contradicts the request or itself, or ended early."""


class ContentChanged(SourceError):
    """The file on the server is not the one that this download started with."""


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
    """There is no usable aria2c, or it exited or did not respond at startup; the message has its output."""


class DaemonUnavailable(LocalError):
    """aria2c does not respond; if it crashed too often, it is not started again."""


class ProcessManagementError(LocalError):
    """aria2c could not be supervised or ended."""
