"""What can go wrong, as one tree rooted by who is at fault.

::

    DownloadError
    ├── LocalError                 this machine
    │   ├── EngineUnavailable      the native engine cannot run here         (also ImportError)
    │   ├── TargetExists           the final name is taken                   (also FileExistsError)
    │   ├── TargetLocked           another process is fetching it
    │   ├── DiskError              no space, no permission, an I/O error     (also OSError)
    │   ├── BinaryDownloadFailed   no aria2c could be fetched, or not the right one
    │   ├── ProcessStartFailed     aria2c is missing, or ended or kept silent at its start
    │   ├── DaemonUnavailable      aria2c does not answer, and will not be started again
    │   └── ProcessManagementError aria2c cannot be watched or ended
    ├── NetworkError               the way between, or how the server speaks
    │   ├── ConnectionFailed       no name, no route, refused, reset         (also ConnectionError)
    │   ├── TimedOut               connected too late, or no bytes for long  (also TimeoutError)
    │   └── TlsError               the certificate or the handshake
    ├── SourceError                the server, or what it serves
    │   ├── HttpStatusError        an answer such as 404 or 503
    │   ├── BadAnswer              an answer that contradicts itself or HTTP, or ends early
    │   ├── ContentChanged         the remote file is not the one that was begun
    │   └── ChecksumMismatch       the bytes are not the ones asked for
    └── Cancelled                  the user

Wrong options are not here: they raise ``ValueError`` or ``TypeError`` naming the option, before anything is opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    """A download that did not end well.

    ``url`` is the one that was asked for (with user and password in it masked), ``status`` the HTTP status of the
    answer that decided (0: none came), ``tried`` what was done about it, one line each, oldest first.
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
        return f"{line} (after {len(self.tried)} tries)" if len(self.tried) > 1 else line


def _revive(kind: type[DownloadError], attributes: dict[str, Any], errno: int | None) -> DownloadError:
    """An error as it was in another process."""
    error = kind.__new__(kind, attributes["reason"])
    error.__dict__.update(attributes)
    error.args = (attributes["reason"],)
    if errno is not None:
        error.errno = errno  # type: ignore[attr-defined]
    return error


class LocalError(DownloadError):
    """This machine is in the way; what was fetched is kept."""


class EngineUnavailable(LocalError, ImportError):
    """The native engine cannot run here: not built for this platform, or no usable libcurl."""


class TargetExists(LocalError, FileExistsError):
    """The final name is taken by another file, and ``overwrite`` was not asked for."""


class TargetLocked(LocalError):
    """Another process is fetching into the same target."""


class DiskError(LocalError, OSError):
    """The disk refused: no space, no permission, an I/O error. ``errno`` says which."""

    def __init__(
        self, message: str, *, url: str = "", errno: int = 0, status: int = 0, tried: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message, url=url, status=status, tried=tried)
        self.errno = errno


class NetworkError(DownloadError):
    """The way to the server is in the way."""


class ConnectionFailed(NetworkError, ConnectionError):
    """The name did not resolve, or the connection was refused, reset or cut."""


class TimedOut(NetworkError, TimeoutError):
    """The server did not answer, or stopped sending, for longer than the options allow."""


class TlsError(NetworkError):
    """The server's certificate could not be verified, or the TLS handshake failed."""


class SourceError(DownloadError):
    """The server, or what it serves, is at fault."""


class HttpStatusError(SourceError):
    """The server answered with an error; ``status`` is the code (RFC 9110, section 15)."""


class BadAnswer(SourceError):
    """An answer that contradicts the request or itself, or ended before what it promised."""


class ContentChanged(SourceError):
    """The remote file's size or validator is not the one this download began with."""


class ChecksumMismatch(SourceError):
    """All bytes arrived and they are not the ones asked for; ``expected`` and ``actual`` are ``algorithm=HEX``.

    ``kept`` is where the data is now, None where it was not kept.
    """

    def __init__(self, message: str, *, expected: str, actual: str, url: str = "", kept: Path | None = None) -> None:
        super().__init__(message, url=url)
        self.expected = expected
        self.actual = actual
        self.kept = kept


class Cancelled(DownloadError):
    """The user stopped it."""


class BinaryDownloadFailed(LocalError):
    """No aria2c could be fetched from the configured places, or what came has another digest than is pinned."""


class ProcessStartFailed(LocalError):
    """There is no usable aria2c, or it ended or did not answer at its start; the message has what it printed."""


class DaemonUnavailable(LocalError):
    """aria2c does not answer; where it died too often, it will not be started again."""


class ProcessManagementError(LocalError):
    """aria2c could not be watched over or ended."""
