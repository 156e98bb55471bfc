"""Translates download options to aria2's, and aria2's error codes to our errors."""

from __future__ import annotations

import errno
import math
import re

from rangefetch.aria2.abilities import MOST_CONNECTIONS, proxy_options
from rangefetch.errors import (
    BadAnswer,
    ConnectionFailed,
    DiskError,
    DownloadError,
    LocalError,
    NetworkError,
    TargetExists,
    TargetLocked,
    TimedOut,
)
from rangefetch.logs import log as _log
from rangefetch.options import DownloadOptions
from rangefetch.transfer.failure import Failure, Fault
from rangefetch.transfer.retry import Kind, RetryPolicy
from rangefetch.transfer.wording import as_error

__all__ = ["judge", "to_aria2"]

_MOST_SECONDS = 600
_LEAST_SPLIT_BYTES = 1 << 20
_MOST_SPLIT_BYTES = 1 << 30
_STATUS = re.compile(r"\bstatus=(\d{3})\b")
_URL = re.compile(r"\b(?:[a-z][a-z0-9+.-]*://|magnet:)\S+", re.IGNORECASE)
_CHUNK = re.compile(r"\bchunk", re.IGNORECASE)
_MOST_TEXT = 300


def to_aria2(options: DownloadOptions, most_lanes: int) -> dict[str, str]:
    """The options that have an equivalent in aria2, by aria2's names (aria2 manual, "Input File").

    Paths, checksums, headers and TLS are not among them: paths and checksums are handled by us, headers depend on
    where redirects lead, and TLS settings belong to the daemon. ``most_lanes`` is how many connections the server is
    known to allow.
    """
    per_server = options.max_connection_per_server
    if per_server > MOST_CONNECTIONS:
        _log.info("max_connection_per_server: aria2 opens at most %d, not %d", MOST_CONNECTIONS, per_server)
    return {
        "split": str(min(options.split, most_lanes)),
        "max-connection-per-server": str(min(per_server, most_lanes, MOST_CONNECTIONS)),
        "min-split-size": str(min(max(int(options.min_split_size), _LEAST_SPLIT_BYTES), _MOST_SPLIT_BYTES)),
        "max-download-limit": str(options.max_download_limit),
        "user-agent": options.user_agent,
        "connect-timeout": _seconds(options.connect_timeout),
        "timeout": _seconds(options.read_timeout),
        # Only one try: the governor of hosts decides when the next may be made.
        "max-tries": "1",
        "retry-wait": "0",
        "file-allocation": options.file_allocation,
        "no-netrc": "true",  # we pass the netrc file's credentials along with the URL
        "always-resume": "true",
        "pause": "false",
        **proxy_options(options),
    }


def _seconds(value: float) -> str:
    """Whole seconds within aria2's range. 0, which means no limit to us, becomes the longest timeout."""
    return str(min(max(math.ceil(value), 1), _MOST_SECONDS)) if value else str(_MOST_SECONDS)


_MEANINGS: dict[int, tuple[type[DownloadError], Kind]] = {
    1: (NetworkError, Kind.TEMPORARY),  # "unknown": refused, reset, cut, TLS
    2: (TimedOut, Kind.TEMPORARY),
    4: (BadAnswer, Kind.PERMANENT),  # not found, too often
    5: (TimedOut, Kind.TEMPORARY),  # below lowest-speed-limit
    6: (ConnectionFailed, Kind.TEMPORARY),
    7: (LocalError, Kind.TEMPORARY),  # aria2c was being stopped
    8: (BadAnswer, Kind.NO_RANGES),
    9: (DiskError, Kind.LOCAL),
    10: (LocalError, Kind.CHANGED),  # another piece length than in the control file
    11: (TargetLocked, Kind.LOCAL),
    12: (TargetLocked, Kind.LOCAL),  # the same torrent
    13: (TargetExists, Kind.LOCAL),
    14: (DiskError, Kind.LOCAL),
    15: (DiskError, Kind.LOCAL),
    16: (DiskError, Kind.LOCAL),
    17: (DiskError, Kind.LOCAL),
    18: (DiskError, Kind.LOCAL),
    19: (ConnectionFailed, Kind.TEMPORARY),
    20: (BadAnswer, Kind.PERMANENT),  # Metalink
    21: (BadAnswer, Kind.PERMANENT),  # FTP
    23: (BadAnswer, Kind.PERMANENT),  # redirects
    25: (BadAnswer, Kind.PERMANENT),  # bencode
    26: (BadAnswer, Kind.PERMANENT),  # torrent
    27: (BadAnswer, Kind.PERMANENT),  # magnet
    28: (LocalError, Kind.LOCAL),  # options
    30: (LocalError, Kind.LOCAL),  # the request
    32: (BadAnswer, Kind.TEMPORARY),  # a piece with another hash than Metalink or the torrent says
}
"""aria2's exit statuses (aria2 manual, "Exit Status"), except those that stand for an HTTP status."""

_STATUSES = {3: 404, 22: 0, 24: 401, 29: 503}
"""The exit statuses that stand for an HTTP status; 0 if only the message has the HTTP status."""


def judge(
    code: int,
    message: str,
    *,
    url: str,
    policy: RetryPolicy,
    answered: bool = False,
    received: bool = False,
    redirected: bool = False,
    other_lanes: int = 0,
) -> tuple[DownloadError, Kind]:
    """Translate aria2's ``errorCode`` and ``errorMessage`` to an error and the kind of failure that it is.

    ``received`` says that bytes had been received; ``answered``, ``redirected`` and ``other_lanes`` are as in
    ``failure.Failure``. ``url`` is the one to show, without secrets.
    """
    # aria2 has no field for the HTTP status; where the error code does not imply it, only the message has it.
    if code in _STATUSES and (status := int(match[1]) if (match := _STATUS.search(message)) else _STATUSES[code]):
        failure = Failure(
            fault=Fault.STATUS, status=status, answered=answered, redirected=redirected, other_lanes=other_lanes
        )
        return as_error(failure, url), policy.classify(failure)
    if not received and _CHUNK.search(message):
        # A chunk that is malformed at the very beginning will be so again.
        words = f"the server sent a chunk without a size (aria2: {' '.join(message.split())[:_MOST_TEXT]})"
        return BadAnswer(words, url=url), Kind.PERMANENT
    error_class, kind = _MEANINGS.get(code, (BadAnswer if code == 22 else NetworkError, Kind.TEMPORARY))
    # URLs may contain secrets; ``url`` is added without them anyway.
    words = _URL.sub("…", " ".join(message.split()))[:_MOST_TEXT] or "no reason given"
    words = f"aria2 gave up: {words} (aria2's error code {code})"
    if issubclass(error_class, DiskError):
        return DiskError(words, url=url, errno=errno.ENOSPC if code == 9 else errno.EIO), kind
    return error_class(words, url=url), kind
