"""robots.txt: what the owner of an origin asks of programs that fetch much (RFC 9309).

The rules of an origin are fetched once, by a download of their own, and kept for at most a day. If there are none
(4xx), everything may be fetched; if they cannot be had, since the server fails or is unreachable, nothing may (section
2.3.1). The parser is Protego's: Python's own supports neither ``*`` and ``$`` in a path nor the longest-match rule.
"""

from __future__ import annotations

import importlib
import time
from collections import deque
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from rangefetch.disk import system
from rangefetch.errors import DiskError, DownloadError, HttpStatusError, LocalError, RobotsRefused
from rangefetch.masking import mask_url
from rangefetch.options import DownloadOptions
from rangefetch.progress import DownloadStatus
from rangefetch.transfer.download import Download
from rangefetch.transfer.sink import Sink

__all__ = ["Robots", "Rules", "origin_of"]

_FRESH_S = 86_400.0  # RFC 9309, section 2.4
_LARGEST_BYTES = 1 << 20  # anything beyond is ignored (section 2.5: 500 KiB at least)
_LARGEST_FILE_BYTES = 16 << 20
_MOST_AT_ONCE = 64  # robots.txt files being fetched
_LEAST_RATE = 1 / 86_400
_NEEDS = "robots needs a package: pip install 'rangefetch[robots]'"


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL; each origin has its own rules."""
    parts = urlsplit(url)
    return f"{parts.scheme.lower()}://{parts.netloc.rpartition('@')[2].lower()}"


class Rules:
    """The rules of one origin. ``error`` is why they are not known."""

    def __init__(self, text: str = "", error: DownloadError | None = None) -> None:
        self.until_s = time.monotonic() + _FRESH_S
        self._error = error
        self._parsed: Any = None
        if text and error is None:
            try:
                self._parsed = importlib.import_module("protego").Protego.parse(text)
            except ImportError:
                self._error = LocalError(_NEEDS)

    def refusal(self, url: str, options: DownloadOptions) -> DownloadError | None:
        """Why the URL may not be fetched; None if it may."""
        error, shown = self._error, mask_url(url)
        if error is not None:
            words = f"robots.txt could not be fetched, so nothing may be downloaded from there: {error.reason}"
            if isinstance(error, LocalError):
                words = error.reason
            errno = (error.errno or 0) if isinstance(error, DiskError) else 0
            return type(error)(words, url=shown, status=error.status, tried=error.tried, errno=errno)
        if self._parsed is not None and not self._parsed.can_fetch(url, options.user_agent):
            return RobotsRefused("the server's robots.txt does not allow it", url=shown)
        return None

    def slowed(self, options: DownloadOptions) -> DownloadOptions:
        """The options with the rate that the rules ask for, if that is lower."""
        if self._parsed is None:
            return options
        rates = [float(options.host_rate)] if options.host_rate else []
        if delay_s := self._parsed.crawl_delay(options.user_agent):
            rates.append(1 / delay_s)
        if asked := self._parsed.request_rate(options.user_agent):
            rates.append(asked.requests / max(asked.seconds, 1e-3))
        rate = max(min(rates, default=0.0), _LEAST_RATE) if rates else 0.0
        return DownloadOptions.of(options, host_rate=min(rate, 1e6)) if rate != options.host_rate else options


class Wanted(NamedTuple):
    """A download that waits for rules: its number in the line, and whether it is a stream."""

    gid: str
    number: int = 0
    late: bool = False
    stream: bool = False


class Robots:
    """One manager's rules, and the downloads that wait for more. Not thread-safe: its owner's lock is held."""

    def __init__(self) -> None:
        self._rules: dict[str, Rules] = {}
        self._waiting: dict[str, list[Wanted]] = {}
        self._to_be_fetched: deque[tuple[str, DownloadOptions]] = deque()
        self._fetched_count = 0

    def rules_for(self, url: str) -> Rules | None:
        """The rules of the URL's origin, if they are known."""
        rules = self._rules.get(origin_of(url))
        return rules if rules is not None and rules.until_s > time.monotonic() else None

    def wait(
        self,
        url: str,
        options: DownloadOptions,
        gid: str,
        *,
        number: int = 0,
        late: bool = False,
        stream: bool = False,
    ) -> None:
        """Add a download that waits for its origin's rules, which are fetched with its own options. ``number`` and
        ``late`` are its place in the line.
        """
        origin = origin_of(url)
        waiting = self._waiting.setdefault(origin, [])
        waiting.append(Wanted(gid, number, late, stream))
        if len(waiting) == 1:
            self._to_be_fetched.append((origin, options))

    def next_to_fetch(self) -> tuple[str, Download] | None:
        """The next origin whose rules are to be fetched, with the download for that. It has failed already if no
        temporary file could be made.
        """
        if not self._to_be_fetched or self._fetched_count >= _MOST_AT_ONCE:
            return None
        origin, options = self._to_be_fetched.popleft()
        self._fetched_count += 1
        plain = {"robots": False, "mirrors": (), "use_github_mirror": False, "refresh_url": None, "checksum": ""}
        sizes = {"expected_size": 0, "max_file_size": _LARGEST_FILE_BYTES, "file_allocation": "none", "decode": False}
        download = Download(f"{origin}/robots.txt", DownloadOptions.of(options, **plain, **sizes, filename=""))
        try:
            download.sink = Sink("robots.txt", download.url)
        except DiskError as error:
            download.move(DownloadStatus.ERROR, error=error)
        return origin, download

    def has_come(self, origin: str, download: Download) -> list[Wanted]:
        """Store the rules of an origin when their download has ended. Returns the downloads that waited for them."""
        self._fetched_count -= 1
        error, sink = download.failure(), download.sink
        text = ""
        if error is None and download.result is None:
            error = LocalError("the request for robots.txt was stopped")
        elif error is None and sink is not None:
            text = system.pread(sink.fd, _LARGEST_BYTES, 0).decode("utf-8-sig", errors="replace")
        elif isinstance(error, HttpStatusError) and 400 <= error.status < 500:
            error = None
        if sink is not None:
            sink.release()
        rules = Rules(text, error)
        if error is not None:
            # A later attempt asks again.
            rules.until_s = time.monotonic() + 1.0
        self._rules[origin] = rules
        return self._waiting.pop(origin, [])

    def rules_of(self, origin: str) -> Rules:
        """The rules that have just been fetched."""
        return self._rules[origin]

    def drop_all(self) -> list[str]:
        """Forget everything because the manager stops. Returns the gids of those that waited."""
        gids = [wanted.gid for waiting in self._waiting.values() for wanted in waiting]
        self._waiting.clear()
        self._to_be_fetched.clear()
        self._fetched_count = 0
        return gids
