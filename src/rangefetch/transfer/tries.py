"""Counts a download's failures in a row. Only progress worth a request starts a new series.

If a byte per connection counted as progress, a megabyte could take a million requests. Pure: no clock, socket or
thread.
"""

from __future__ import annotations

from rangefetch.errors import MOST_TRIED

__all__ = ["Tries", "is_worth"]

_WORTH_BYTES = 64 << 10
_WORTH_SHARE = 64
_PATIENCE_WAITS = 50  # times ``retry_wait``: how long a known host may fail, whatever the number of tries
_NOTICED_WAITS = 6
_UNKNOWN_WAITS = 8  # times ``retry_wait``: how long the tries of an unknown host last at least


class Tries:
    """The failures of one download."""

    def __init__(self) -> None:
        self.retries = 0
        """How many failures there were in all."""
        self.tried: tuple[str, ...] = ()
        """The last failures, in words."""
        self.failures = 0
        """Failures since the last progress that was worth a request."""
        self.since_s = 0.0
        """When the current series of failures began, by the caller's clock."""
        self._mark = -1  # bytes downloaded at the first failure of the series
        self._sent = 0  # requests sent when the last failure was counted

    def note(self, words: str) -> None:
        """Record the words of one more failure."""
        self.retries += 1
        self.tried = (*self.tried, words)[-MOST_TRIED:]

    def begin(self) -> None:
        """Requests are numbered from 1 again; the series of failures continues."""
        self._sent = 0

    def is_further(self, request: int) -> bool:
        """Whether the failure of request number ``request`` counts as a further one.

        A request that was under way when the last failure was counted does not: a server that goes away breaks all
        connections, though not all at once.
        """
        return request > self._sent

    def fail(self, downloaded: int, size: int, sent: int, now_s: float = 0.0) -> bool:
        """Count a failure at ``now_s``, with ``downloaded`` of ``size`` bytes there (-1: unknown) and ``sent`` requests
        sent. Returns True if it is the first of a series.

        A new series begins when 64 KiB more are there than at the first failure of the last one, or a 64th of the file
        if that is less. If bytes were taken back, the series continues.
        """
        self._sent = sent
        begins = self._mark < 0 or is_worth(downloaded - self._mark, size)
        if begins:
            self.failures = 0
            self._mark = downloaded
            self.since_s = now_s
        self.failures += 1
        return begins

    def patience_left_s(self, now_s: float, retry_wait_s: float) -> float:
        """How long a known host may still fail, since its server may be restarting; by default 25 s in all."""
        return self.since_s + _PATIENCE_WAITS * retry_wait_s - now_s

    @staticmethod
    def patient_wait_s(wait_s: float, left_s: float, retry_wait_s: float) -> float:
        """The wait before a try while there is patience: short enough to notice soon that the host is back, with the
        last try at the end of the patience.
        """
        return min(wait_s, left_s, _NOTICED_WAITS * retry_wait_s)

    def last_wait_s(self, wait_s: float, now_s: float, retry_wait_s: float) -> float:
        """The wait before the last try of a host that has never answered. By default the try comes at least 4 s after
        the first failure, so that a server that takes that long to start is not missed by bad luck.
        """
        return max(wait_s, self.since_s + _UNKNOWN_WAITS * retry_wait_s - now_s)


def is_worth(gained: int, size: int) -> bool:
    """Whether gaining so many bytes of a file of ``size`` (-1: unknown) was worth a request."""
    least = min(_WORTH_BYTES, size // _WORTH_SHARE) if size >= 0 else _WORTH_BYTES
    return gained >= max(1, least)
