"""Progress and result of a download, as callers receive them."""

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
    """Convert ``total_size`` to ``totalSize``, the spelling of keys in aria2's RPC."""
    head, *tail = name.split("_")
    return head + "".join(word.capitalize() for word in tail)


def to_camel_case_dict(value: Any) -> dict[str, Any]:
    """Convert a dataclass to a dict of plain values with camelCase keys, ready for JSON."""

    def plain(item: Any) -> Any:
        if isinstance(item, enum.Enum):
            return item.value
        if isinstance(item, Path):
            return str(item)
        if isinstance(item, tuple):
            return [plain(part) for part in item]
        return dict(item) if isinstance(item, Mapping) else item

    import dataclasses  # not at the top: it is slow to import, and few programs call this

    return {
        camel_case(field.name): plain(getattr(value, field.name))
        for field in dataclasses.fields(value)
        if not field.name.startswith("_")
    }


class DownloadStatus(enum.StrEnum):
    """The states of a download, with the names that aria2's RPC uses (aria2 manual, ``tellStatus``)."""

    WAITING = "waiting"
    ACTIVE = "active"
    PAUSED = "paused"
    COMPLETE = "complete"
    ERROR = "error"
    REMOVED = "removed"

    # Enum's __hash__ is written in Python, and hashes the name, so that an equal string would hash differently.
    __hash__ = str.__hash__


@records.dataclass(frozen=True, slots=True)
class DownloadProgress:
    """A snapshot of a download.

    ``downloaded`` and ``total`` are in bytes (``total`` 0: unknown), ``speed`` is in bytes per second over the last few
    seconds, ``percentage`` is 0.0 to 100.0 (0.0 also when the size is unknown), and ``eta`` is in seconds (None:
    unknown). ``connections`` is the number of transfers in flight, and ``note`` a remark for the user ("waiting for the
    network"). ``waiting_for`` says what the download needs to continue ("8 transfers", "the disk to name the file",
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
        """The fields as a dict for JSON, with camelCase keys."""
        return to_camel_case_dict(self)


@records.dataclass(frozen=True, slots=True)
class DownloadResult:
    """A finished download.

    ``path`` is the file and ``size`` its size in bytes. ``checksum`` is the verified digest as ``algorithm=HEX``
    (empty: none was given). ``seconds`` is the time from the start until the file got its final name. ``retries`` is
    the number of failed transfers that were retried, ``sources`` are the URLs that sent the file, after redirects,
    ``connections`` is the number of connections opened for it, and ``resumed`` how many bytes were there at the start.
    ``already_complete`` is true if the file was there already (docs/state.md has the rules). ``bound`` says in words
    what limited the speed.

    ``identity`` says how it was established that all bytes belong to one version of the file at the URL:

    - ``"checksum"``: they match the digest that you gave, or that the server stated;
    - ``"etag"``: every response had the same strong ETag (RFC 9110, section 8.8.1);
    - ``"last-modified"``: every response had the same Last-Modified, at least a second before its Date (8.8.2.2), and
      nothing could be fetched again to compare;
    - ``"compared"``: parts were fetched a second time and were the same;
    - ``"one response"``: they are the body of a single response;
    - ``"size"``: every response had the same size and the same weak validators, or none; nothing more could be checked;
    - ``"mirrors"``: mirrors sent some or all of them, and they could not be compared with the URL's own; a checksum
      would verify them.
    """

    path: Path  # may be stored as a string: see _LaterPath
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
        """The fields as a dict for JSON, with camelCase keys."""
        return to_camel_case_dict(self)


class _LaterPath:
    """``DownloadResult.path``: a string becomes a ``Path`` on first access, since most of 100,000 are never read."""

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
    """``result.path`` as a string, without making a ``Path``."""
    return str(_slot.__get__(result))


@records.dataclass(frozen=True, slots=True)
class FileInfo:
    """What a server says about a file; returned by ``head``, which does not download it.

    ``url`` is the requested URL without user name and password, and ``final_url`` the URL after redirects (the same if
    there were none; treat a signed URL as a secret). ``filename`` is the name that a download would get. ``size`` is in
    bytes, None if the server does not state it. ``etag`` and ``last_modified`` are as sent (RFC 9110, section 8.8),
    empty if absent.

    ``supports_ranges`` says whether parts of the file can be fetched, and so an interrupted download resumed.
    ``digests`` are those that the server states for the whole file (RFC 9530), in hexadecimal by algorithm
    (``sha-256``), so that ``f"{algorithm}={digest}"`` is a valid ``checksum``; empty if it states none.
    ``content_type`` and ``content_encoding`` are header values, empty if absent; ``size`` is that of the encoded file.
    ``links`` are the URLs in the response's ``Link`` headers, by relation (RFC 8288).
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
        """The fields as a dict for JSON, with camelCase keys."""
        return to_camel_case_dict(self)


REPORT_EVERY_S = 0.1
_LATEST_REPORT_S = 1.0


class ReportTimes:
    """Decides when a progress report is due: ten times a second, or less often so that reports take at most a tenth of
    the time, but at least once a second.

    Going through a thousand active downloads takes 30 ms. The caller supplies the time.
    """

    def __init__(self) -> None:
        self._next_s = 0.0

    def is_due(self, now_s: float) -> bool:
        """Whether the next report is due."""
        return now_s >= self._next_s

    def reported(self, begun_s: float, now_s: float) -> None:
        """Note that a report started at ``begun_s`` and ended at ``now_s``."""
        self._next_s = begun_s + min(max(REPORT_EVERY_S, 10 * (now_s - begun_s)), _LATEST_REPORT_S)


class SpeedMeter:
    """Bytes per second over the last ``window_s`` seconds, from samples of a counter. The caller supplies the time."""

    def __init__(self, window_s: float = 4.0) -> None:
        self._window_s = window_s
        self._samples: deque[tuple[float, int]] = deque()

    def sample(self, now_s: float, count: int) -> None:
        """Record that the counter was ``count`` at ``now_s``. If it has decreased, earlier samples are dropped."""
        if self._samples and count < self._samples[-1][1]:
            self._samples.clear()
        self._samples.append((now_s, count))
        while len(self._samples) > 2 and self._samples[1][0] <= now_s - self._window_s:
            self._samples.popleft()

    def speed(self) -> float:
        """Bytes per second between the oldest and the newest sample of the window; 0.0 with fewer than two samples."""
        if len(self._samples) < 2:
            return 0.0
        (start_s, start), (end_s, end) = self._samples[0], self._samples[-1]
        return (end - start) / (end_s - start_s) if end_s > start_s else 0.0

    def reset(self) -> None:
        """Forget all samples."""
        self._samples.clear()
