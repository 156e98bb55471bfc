"""What the tries of one download in aria2 have shown, and what to do next."""

from __future__ import annotations

from typing import NamedTuple

from rangefetch.errors import DownloadError
from rangefetch.logs import log as _log
from rangefetch.options import DownloadOptions
from rangefetch.transfer import tries
from rangefetch.transfer.retry import AFTER_A_WAIT, ONCE_MORE, Kind, RetryPolicy

__all__ = ["Next", "Tries"]

_MOST_LANES = 1024


class Next(NamedTuple):
    """The next try: when, and whether it starts over from nothing."""

    wait_s: float = 0.0
    anew: bool = False


class Tries(tries.Tries):
    """The tries of one download. ``lanes`` is the most connections that the server is known to allow, ``can_reserve``
    whether the file system can reserve space, ``can_head`` whether the server answers HEAD, and ``restarted`` whether
    the download was already started over because the remote file had changed."""

    def __init__(self, policy: RetryPolicy, options: DownloadOptions, shown_url: str) -> None:
        super().__init__()
        self.lanes = _MOST_LANES
        self.can_reserve = True
        self.can_head = True
        self.restarted = False
        self._downloaded = 0  # bytes on disk at the last failure
        self._was_denied = False  # whether there was already a refusal of the kind that is retried once
        self._policy = policy
        self._options = options
        self._shown_url = shown_url

    def failed(
        self,
        error: DownloadError,
        kind: Kind,
        *,
        downloaded: int,
        size: int = -1,
        connections: int = 0,
        retry_after_s: float = 0.0,
        now_s: float = 0.0,
        is_known: bool = False,
    ) -> Next:
        """Decide what to do after a failure of ``kind``, with ``downloaded`` bytes of ``size`` (-1: unknown) on disk.

        ``connections`` is how many connections were tried. ``is_known`` says that the host has answered before, or that
        there is work to lose. Unless the options limit the tries, such a host may then fail for a while whatever the
        number of tries, since its server may be restarting. Raises ``error`` if there is no try left.
        """
        self.note(error.reason)
        error.tried = self.tried
        _log.debug("%s: %s: %s", self._shown_url, error.reason, kind.value)
        match kind:
            case Kind.LOCAL | Kind.PERMANENT:
                raise error
            case Kind.CHANGED:
                if self.restarted:
                    raise error
                _log.warning("%s: %s; starting over", self._shown_url, error.reason)
                self.restarted = True
                self.lanes = 1  # one response is one version of the file
                return Next(anew=True)
            case Kind.NO_RANGES if self.lanes > 1:
                _log.info("%s: %s; continuing with a single stream", self._shown_url, error.reason)
                self.lanes = 1
                return Next(anew=True)
            case Kind.TOO_MANY_LANES if self.lanes > 1:
                self.lanes = max(1, min(self.lanes, connections) // 2)
                return Next()
            case Kind.DOUBTFUL if error.status in ONCE_MORE:
                if self._was_denied:
                    raise error
                self._was_denied = True
                self.lanes = 1
        options = self._options
        brought, self._downloaded = downloaded > self._downloaded, downloaded
        self.fail(downloaded, size, 0, now_s)
        is_patient = is_known and not brought and kind in AFTER_A_WAIT and not options.bounds_tries
        left_s = self.patience_left_s(now_s, options.retry_wait) if is_patient else 0.0
        if 0 < options.max_tries <= self.failures and left_s <= 0:
            raise error
        wait_s = self._policy.wait_s(self.failures, options.retry_wait, retry_after_s)
        if left_s > 0 and not retry_after_s:
            wait_s = self.patient_wait_s(wait_s, left_s, options.retry_wait)
        return Next(wait_s)
