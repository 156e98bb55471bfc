"""Remembers how hosts respond, for as long as a backend runs. Pure: no clock, socket or thread.

A host that refuses a range may still send the whole file. Whether that is worth a second request depends on the host's
earlier responses; otherwise every dead link would take two requests.
"""

from __future__ import annotations

from rangefetch import records

__all__ = ["CLOSED", "ENCODED", "SILENT", "UNSOUND", "Manners"]

CLOSED = 0
"""A range was refused without a status: the connection was closed before its first byte."""
SILENT = -1
"""A range was refused without a status: nothing arrived."""
ENCODED = -2
"""A range arrived in a content coding that was not requested."""
UNSOUND = -3
"""A range arrived with a size that no file can have."""

_MOST_HOSTS = 4096
# Statuses that say something about the file, not about how it was requested.
_OF_THE_FILE = frozenset({403, 404, 405, 410, 451})
# Statuses that blame the request, although the host has answered others of the same form.
_OF_THE_REQUEST = frozenset({400, 406, 409, 501})
_BELIEVED_AFTER = 3


@records.dataclass(slots=True)
class _Host:
    answered: bool = False
    sends_ranges: bool = False
    refused: set[int] = records.field(default_factory=set)
    insisted: dict[int, int] = records.field(default_factory=dict)


class Manners:
    """What hosts (``host:port``) have shown so far. The oldest are forgotten once there are thousands."""

    def __init__(self) -> None:
        self._hosts: dict[str, _Host] = {}

    def answered(self, host: str, *, status: int) -> None:
        """Note that the host has sent a file, or a part of one."""
        known = self._host(host)
        known.answered = True
        known.sends_ranges |= status == 206

    def refused_plainly(self, host: str, how: int) -> None:
        """Note that the host has refused a file (with a status, or ``CLOSED``) that was requested without a range."""
        self._host(host).refused.add(how)

    def insisted(self, host: str, status: int) -> None:
        """Note that the host has refused one file with this status at every try."""
        refused = self._host(host).insisted
        refused[status] = refused.get(status, 0) + 1

    def contradicts_itself(self, host: str, status: int) -> bool:
        """Whether a refusal may be temporary, although the host has not sent that file before: the status says nothing
        about the file, and the host has sent others. After a few files that it kept refusing like this, the status is
        believed.
        """
        known = self._hosts.get(host)
        return (
            known is not None
            and known.answered
            and status in _OF_THE_REQUEST
            and known.insisted.get(status, 0) < _BELIEVED_AFTER
        )

    def has_answered(self, host: str) -> bool:
        """Whether the host has sent a file, or a part of one."""
        return host in self._hosts and self._hosts[host].answered

    def sends_ranges(self, host: str) -> bool:
        """Whether the host has sent a part of a file."""
        return host in self._hosts and self._hosts[host].sends_ranges

    def may_mean_the_range(self, host: str, how: int) -> bool:
        """Whether the host may have refused the range rather than the file.

        If a host is known to send ranges, a status that says that the file is missing or forbidden is about the file; a
        status that blames the request may still be about the range.
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
