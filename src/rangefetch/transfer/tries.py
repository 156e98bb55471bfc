"""What was tried for a download, and how many tries it has left: failures in a row, where only progress that is worth a
request begins a new one.

A byte a connection would be progress, too, and a megabyte then a million requests. Pure: no clock, socket or thread.
"""

from __future__ import annotations

__all__ = ["Tries", "is_worth"]

_WORTH_BYTES = 64 << 10
_WORTH_SHARE = 64
_MOST_TRIED = 20
_PATIENCE_WAITS = 50  # times ``retry_wait``: how long a host that is known may fail, whatever the number of tries
_NOTICED_WAITS = 6
_UNKNOWN_WAITS = 8  # times ``retry_wait``: how long the tries of a host that is not known last at least


class Tries:
    """The failures of one download."""

    def __init__(self) -> None:
        self.retries = 0
        """How many there were."""
        self.tried: tuple[str, ...] = ()
        """The last of them, in words."""
        self.failures = 0
        """Since the last progress that was worth a request; grows by one a failure."""
        self.since_s = 0.0
        """When the row of failures began, by the clock of whoever counts them."""
        self._mark = -1  # how much was downloaded at the first of them
        self._sent = 0  # how many requests had been sent when the last failure was counted

    def note(self, words: str) -> None:
        """One more has failed."""
        self.retries += 1
        self.tried = (*self.tried, words)[-_MOST_TRIED:]

    def begin(self) -> None:
        """Requests are numbered from 1 again; the row goes on."""
        self._sent = 0

    def is_further(self, request: int) -> bool:
        """Whether the failure of request number ``request`` is one more in the row. One that was under way when the
        last failure was counted belongs to that: a server that goes away breaks all connections, if not in the same
        moment.
        """
        return request > self._sent

    def fail(self, downloaded: int, size: int, sent: int, now_s: float = 0.0) -> bool:
        """One more failure at ``now_s``, with so many bytes downloaded of ``size`` (-1: unknown), and so many requests
        sent. True: it is the first in a row.

        A new row begins when 64 KiB more than at the first failure of the last one are there, or a 64th of the file
        if that is less. Where bytes were taken back, the row goes on.
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
        """How long a host that has answered may still fail, its server may be restarting; by default 25 s in all."""
        return self.since_s + _PATIENCE_WAITS * retry_wait_s - now_s

    @staticmethod
    def patient_wait_s(wait_s: float, left_s: float, retry_wait_s: float) -> float:
        """The wait before a try while there is patience: what has come back is noticed soon, and the last try comes
        when the patience is over."""
        return min(wait_s, left_s, _NOTICED_WAITS * retry_wait_s)

    def last_wait_s(self, wait_s: float, now_s: float, retry_wait_s: float) -> float:
        """The wait before the last try of a host that has never answered: it comes 4 s after the first failure at the
        earliest, by default, so that a server that takes so long to start is not missed by bad luck."""
        return max(wait_s, self.since_s + _UNKNOWN_WAITS * retry_wait_s - now_s)


def is_worth(gained: int, size: int) -> bool:
    """Whether so many bytes of a file of ``size`` (-1: unknown) are worth a request."""
    least = min(_WORTH_BYTES, size // _WORTH_SHARE) if size >= 0 else _WORTH_BYTES
    return gained >= max(1, least)
