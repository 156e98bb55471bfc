"""The state and the result of a download, as callers receive them."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rangefetch import records

__all__ = [
    "DownloadProgress",
    "DownloadResult",
    "DownloadStatus",
    "FileInfo",
    "SpeedMeter",
    "camel_case",
    "path_of",
    "to_camel_case_dict",
]


def camel_case(name: str) -> str:
    """``total_size`` -> ``totalSize``, as aria2's RPC spells its keys."""
    head, *tail = name.split("_")
    return head + "".join(word.capitalize() for word in tail)


def to_camel_case_dict(value: Any) -> dict[str, Any]:
    """A dataclass as a dict of plain values with camelCase keys, ready for JSON."""

    def plain(item: Any) -> Any:
        if isinstance(item, enum.Enum):
            return item.value
        if isinstance(item, Path):
            return str(item)
        if isinstance(item, tuple):
            return [plain(part) for part in item]
        return dict(item) if isinstance(item, Mapping) else item

    import dataclasses  # not before: few want this, and it takes a while

    return {
        camel_case(field.name): plain(getattr(value, field.name))
        for field in dataclasses.fields(value)
        if not field.name.startswith("_")
    }


class DownloadStatus(enum.StrEnum):
    """The states of a download, named as aria2's RPC names them (aria2 manual, ``tellStatus``)."""

    WAITING = "waiting"
    ACTIVE = "active"
    PAUSED = "paused"
    COMPLETE = "complete"
    ERROR = "error"
    REMOVED = "removed"

    __hash__ = str.__hash__  # Enum's own is a function in Python, and of the name, so that equal strings had another


@records.dataclass(frozen=True, slots=True)
class DownloadProgress:
    """A snapshot of a download.

    ``downloaded`` and ``total`` are bytes (``total`` 0: unknown), ``speed`` is bytes per second over the last few
    seconds, ``percentage`` is 0.0 to 100.0 (0.0 also when the size is unknown), ``eta`` is seconds (None: unknown),
    ``connections`` are the transfers in flight, ``note`` is a remark for the user ("waiting for the network").
    ``waiting_for`` says what the download needs to continue ("8 transfers", "the disk to name the file",
    "its turn"); it is empty once the download has ended.
    """

    gid: str
    downloaded: int
    total: int
    speed: float
    percentage: float
    eta: float | None
    filename: str
    status: DownloadStatus
    connections: int = 0
    note: str = ""
    waiting_for: str = ""

    def to_dict(self) -> dict[str, Any]:
        """A dict for JSON, with camelCase keys."""
        return to_camel_case_dict(self)


@records.dataclass(frozen=True, slots=True)
class DownloadResult:
    """A finished download.

    ``path`` is the file, ``size`` its size in bytes, ``checksum`` the verified digest as
    ``algorithm=HEX`` (empty: none was given), ``seconds`` the time from start to final name, ``retries`` the number of
    failed transfers that were retried, ``sources`` the URLs that sent it, after redirects,
    ``connections`` the number of connections opened for it, ``resumed`` the bytes that were there at the start.
    ``already_complete`` says that the file was already there (docs/state.md has the rules), ``bound`` what limited
    the speed, in words.

    ``identity`` says how it was established that the bytes are those of one version of the file at the URL:

    - ``"checksum"``: they have the digest that you gave, or that the server stated;
    - ``"etag"``: every response had the same strong ETag (RFC 9110, section 8.8.1);
    - ``"last-modified"``: every response had the same Last-Modified, at least a second before its Date (8.8.2.2), and
      nothing could be fetched again to compare;
    - ``"compared"``: parts were fetched a second time and were the same;
    - ``"one response"``: they are the body of a single response;
    - ``"size"``: every response had the same size and the same weak validators, or none; nothing more could be checked;
    - ``"mirrors"``: mirrors sent some or all of them, and the URL could not be asked whether they are its own; a
      checksum would verify it.
    """

    path: Path  # or the same as a string, where it is made
    filename: str
    size: int
    gid: str
    checksum: str = ""
    seconds: float = 0.0
    retries: int = 0
    sources: tuple[str, ...] = ()
    connections: int = 0
    resumed: int = 0
    already_complete: bool = False
    bound: str = ""
    identity: str = ""

    def to_dict(self) -> dict[str, Any]:
        """A dict for JSON, with camelCase keys."""
        return to_camel_case_dict(self)


class _LaterPath:
    """``DownloadResult.path``: of a string it is made when somebody looks, and most of 100,000 nobody looks at."""

    def __init__(self, slot: Any) -> None:
        self._slot = slot

    def __get__(self, result: DownloadResult | None, owner: type) -> Any:
        if result is None:
            return self
        path = self._slot.__get__(result)
        if isinstance(path, str):
            path = Path(path)
            self._slot.__set__(result, path)
        return path

    def __set__(self, result: DownloadResult, path: str | Path) -> None:
        self._slot.__set__(result, path)


_slot: Any = vars(DownloadResult)["path"]

if not TYPE_CHECKING:
    DownloadResult.path = _LaterPath(DownloadResult.path)


def path_of(result: DownloadResult) -> str:
    """``result.path`` as text, for which no path has to be made."""
    return str(_slot.__get__(result))


@records.dataclass(frozen=True, slots=True)
class FileInfo:
    """What a server says of a file that was not fetched; ``head`` returns it.

    ``url`` is the requested URL without user name and password, ``final_url`` where redirects led (the same where there
    was none; a signed one is a secret). ``filename`` is the name that a download would get. ``size`` is in bytes, None
    where the server does not say. ``etag`` and ``last_modified`` are as they were sent (RFC 9110, section 8.8), empty
    where there are none.

    ``supports_ranges`` is whether parts of the file can be fetched, and an interrupted download resumed. ``digests``
    are those that the server states of the whole file (RFC 9530), in hexadecimal by algorithm (``sha-256``), so that
    ``f"{algorithm}={digest}"`` is a ``checksum``; empty where it states none. ``content_type`` and
    ``content_encoding`` are header values, empty where absent; ``size`` is that of the encoded file. ``links`` are the
    URLs to which the response links, by relation (``Link``, RFC 8288).
    """

    url: str
    final_url: str
    filename: str
    size: int | None = None
    etag: str = ""
    last_modified: str = ""
    supports_ranges: bool = False
    digests: Mapping[str, str] = records.field(default_factory=dict)
    content_type: str = ""
    content_encoding: str = ""
    links: Mapping[str, tuple[str, ...]] = records.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """A dict for JSON, with camelCase keys."""
        return to_camel_case_dict(self)


REPORT_EVERY_S = 0.1
_LATEST_REPORT_S = 1.0


class ReportTimes:
    """When a report is due: ten times a second, and so seldom that all of them take a tenth of the time at most.

    To go through a thousand downloads that are at work takes 30 ms. It has no clock of its own.
    """

    def __init__(self) -> None:
        self._next_s = 0.0

    def is_due(self, now_s: float) -> bool:
        """Whether the next one is."""
        return now_s >= self._next_s

    def reported(self, begun_s: float, now_s: float) -> None:
        """One was begun, and has ended now."""
        self._next_s = begun_s + min(max(REPORT_EVERY_S, 10 * (now_s - begun_s)), _LATEST_REPORT_S)


class SpeedMeter:
    """Bytes per second over the last ``window_s`` seconds, from samples of a counter. It has no clock of its own."""

    def __init__(self, window_s: float = 4.0) -> None:
        self._window_s = window_s
        self._samples: deque[tuple[float, int]] = deque()

    def sample(self, now_s: float, count: int) -> None:
        """Note that the counter stood at ``count`` at ``now_s``; one that went back starts the window anew."""
        if self._samples and count < self._samples[-1][1]:
            self._samples.clear()
        self._samples.append((now_s, count))
        while len(self._samples) > 2 and self._samples[1][0] <= now_s - self._window_s:
            self._samples.popleft()

    def speed(self) -> float:
        """Bytes per second between the oldest and the newest sample of the window; 0.0 while there is one alone."""
        if len(self._samples) < 2:
            return 0.0
        (start_s, start), (end_s, end) = self._samples[0], self._samples[-1]
        return (end - start) / (end_s - start_s) if end_s > start_s else 0.0

    def reset(self) -> None:
        """Forget all samples: nothing moves any more."""
        self._samples.clear()
