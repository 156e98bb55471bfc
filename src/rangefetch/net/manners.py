"""How hosts answer, for as long as a backend runs. Pure: no clock, socket or thread.

A host that refuses a range may still send the whole file. Whether that is worth a second request depends on what the
host has shown before; otherwise every dead link would cost two.
"""

from __future__ import annotations

from rangefetch import records

__all__ = ["CLOSED", "ENCODED", "SILENT", "UNSOUND", "Manners"]

CLOSED = 0
"""How a range is refused without a status: the connection is closed before the first byte of it."""
SILENT = -1
"""... or nothing of it comes."""
ENCODED = -2
"""... or it comes in a content coding that was not asked for."""
UNSOUND = -3
"""... or with a size that no file can have."""

_MOST_HOSTS = 4096
# What a server says of a file, and not of the way in which it was asked for it.
_OF_THE_FILE = frozenset({403, 404, 405, 410, 451})
# What it says of the request, although it has answered others that were no different.
_OF_THE_REQUEST = frozenset({400, 406, 409, 501})
_BELIEVED_AFTER = 3


@records.dataclass(slots=True)
class _Host:
    answered: bool = False
    sends_ranges: bool = False
    refused: set[int] = records.field(default_factory=set)
    insisted: dict[int, int] = records.field(default_factory=dict)


class Manners:
    """What the hosts (``host:port``) have shown; the oldest are forgotten when there are thousands."""

    def __init__(self) -> None:
        self._hosts: dict[str, _Host] = {}

    def answered(self, host: str, *, status: int) -> None:
        """It has sent a file, or a part of one."""
        known = self._host(host)
        known.answered = True
        known.sends_ranges |= status == 206

    def refused_plainly(self, host: str, how: int) -> None:
        """It has refused a file (with a status, or ``CLOSED``) that was asked for without a range."""
        self._host(host).refused.add(how)

    def insisted(self, host: str, status: int) -> None:
        """It has refused one file with this status for as long as that was tried."""
        refused = self._host(host).insisted
        refused[status] = refused.get(status, 0) + 1

    def contradicts_itself(self, host: str, status: int) -> bool:
        """Whether a refusal may be passing, although the host has not sent that file before: it says nothing of the
        file, and others were sent. Of dead links that are refused so, no more than a few are tried in vain."""
        known = self._hosts.get(host)
        return (
            known is not None
            and known.answered
            and status in _OF_THE_REQUEST
            and known.insisted.get(status, 0) < _BELIEVED_AFTER
        )

    def has_answered(self, host: str) -> bool:
        """Whether it has sent anything of use."""
        return host in self._hosts and self._hosts[host].answered

    def sends_ranges(self, host: str) -> bool:
        """Whether it has sent a part of a file."""
        return host in self._hosts and self._hosts[host].sends_ranges

    def may_mean_the_range(self, host: str, how: int) -> bool:
        """Whether the host may refuse the range, and not the file.

        A host that sends ranges means the file when it says that it is not there, or not to be had; what it says of
        the request may still be about the range.
        """
        known = self._hosts.get(host)
        if known is None:
            return True
        return how not in known.refused and not (known.sends_ranges and how in _OF_THE_FILE)

    def _host(self, host: str) -> _Host:
        known = self._hosts.get(host)
        if known is None:
            if len(self._hosts) >= _MOST_HOSTS:
                del self._hosts[next(iter(self._hosts))]
            known = self._hosts[host] = _Host()
        return known
