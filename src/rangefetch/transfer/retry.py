"""Decides what a failure means and what to do about it; no other module does.

The engine reports a failure in numbers (``Failure``). ``RetryPolicy.classify`` looks it up in a table, where the first
row that fits decides; the row's kind says what happens next. Nothing here has a clock, a socket or a thread.
``docs/retry.md`` is generated from the table.
"""

from __future__ import annotations

import enum
import errno as errno_module
import random

from rangefetch import records
from rangefetch.checks import check_seconds
from rangefetch.transfer.failure import TLS_CODES, WANTS_CERTIFICATE, Curl, Failure, Fault

__all__ = [
    "AFTER_A_WAIT",
    "DEFAULT_ROWS",
    "NOT_NOW",
    "ONCE_MORE",
    # For users who write rows of their own.
    "Curl",
    "Failure",
    "Fault",
    "Kind",
    "RetryPolicy",
    "Row",
    "When",
]


class Kind(enum.StrEnum):
    """The kinds of failures, by what happens next."""

    TEMPORARY = "temporary"
    """Request that range again: at once from another source, or after an exponential back-off with full jitter."""
    RATE_LIMITED = "rate limited"
    """No download contacts the host for as long as it asks (capped), or for a back-off; then with fewer connections."""
    NETWORK = "network unavailable"
    """Wait until the network is back, without counting a try. If the network turns out to work, as temporary."""
    PERMANENT = "permanent"
    """Do not use this source again. Continue with the next one at once; fail if none is left."""
    STALE_LINK = "stale link"
    """Request the original URL again, at most three times in a row: it may redirect to another target."""
    DOUBTFUL = "doubtful"
    """Call ``refresh_url``; then as temporary (401 and 407: once more, on one connection); then as permanent."""
    TOO_MANY_LANES = "too many lanes"
    """Continue on the connections that work, and open no other for as long as the server says. Not counted as a try."""
    CHANGED = "content changed"
    """Drop a mirror that contradicts the URL. Otherwise start over; the second time with a single request."""
    NO_RANGES = "no ranges"
    """Try twice more, since a cache may still be filling; then start over with a single stream."""
    LOCAL = "local"
    """Fail at once; downloaded data is kept."""


AFTER_A_WAIT = frozenset({Kind.TEMPORARY, Kind.RATE_LIMITED})
"""Kinds after which the next request has to wait."""
NOT_NOW = frozenset({429, 502, 503, 504})
"""Statuses of a reachable host that cannot serve for now (RFC 9110, sections 15.6.3 to 15.6.5)."""
ONCE_MORE = (401, 407)
"""Statuses of kind ``DOUBTFUL`` that are tried only once more, on one connection."""


class When(enum.StrEnum):
    """Conditions that a row can require besides the failure's numbers."""

    ALWAYS = ""
    OTHERS_WORK = "other connections of the file work"
    REDIRECTED = "it is the target of a redirect, and sent nothing"
    NAMED_AGAIN = "the original URL redirects to the same target again"
    SAME_TOTAL = "the response states the size that the file has"
    ANSWERED = "the source has succeeded before"
    UNANSWERED = "the source has not succeeded before"
    SERVER_SAYS_WHEN = "the response has Retry-After"

    def holds(self, failure: Failure) -> bool:
        match self:
            case When.OTHERS_WORK:
                return failure.other_lanes > 0
            case When.REDIRECTED:
                return failure.redirected and not failure.named_again and not failure.received_bytes
            case When.NAMED_AGAIN:
                return failure.redirected and failure.named_again
            case When.SAME_TOTAL:
                return failure.answered and failure.same_total
            case When.ANSWERED:
                return failure.answered
            case When.UNANSWERED:
                return not failure.answered
            case When.SERVER_SAYS_WHEN:
                return failure.retry_after_s > 0
            case _:
                return True


@records.dataclass(frozen=True, slots=True)
class Row:
    """A failure with this fault and one of these numbers is of ``kind``, provided that ``when`` holds.

    Empty sets match any number. ``words`` is part of libcurl's message, for codes that are too general. ``why`` is the
    reason for the row.
    """

    kind: Kind
    why: str
    fault: Fault = Fault.NONE
    statuses: frozenset[int] = frozenset()
    codes: frozenset[int] = frozenset()
    errnos: frozenset[int] = frozenset()
    when: When = When.ALWAYS
    words: str = ""

    def fits(self, failure: Failure) -> bool:
        return (
            failure.fault == self.fault
            and (not self.statuses or failure.status in self.statuses)
            and (not self.codes or failure.code in self.codes)
            and (not self.errnos or failure.errno in self.errnos)
            and self.words in failure.text
            and self.when.holds(failure)
        )


_NO_NETWORK_ERRNOS = frozenset(
    {
        errno_module.ENETUNREACH,
        errno_module.ENETDOWN,
        errno_module.EHOSTUNREACH,
        errno_module.EHOSTDOWN,
        errno_module.EADDRNOTAVAIL,
    }
)


def _status(kind: Kind, why: str, *statuses: int, when: When = When.ALWAYS) -> Row:
    return Row(kind, why, Fault.STATUS, statuses=frozenset(statuses), when=when)


def _code(kind: Kind, why: str, *codes: int, errnos: frozenset[int] = frozenset(), when: When = When.ALWAYS) -> Row:
    return Row(kind, why, codes=frozenset(codes), errnos=errnos, when=when)


DEFAULT_ROWS: tuple[Row, ...] = (
    # -- what this machine says
    Row(Kind.LOCAL, "the disk failed; another try would meet the same disk", Fault.DISK),
    Row(Kind.LOCAL, "out of memory", Fault.MEMORY),
    # -- what the remote file is
    Row(Kind.CHANGED, "a different size is a different file", Fault.SIZE_CHANGED),
    Row(Kind.CHANGED, "a different validator is a different file (RFC 9110, section 8.8)", Fault.VALIDATOR_CHANGED),
    Row(
        Kind.NO_RANGES,
        "the whole file in reply to a range: allowed by RFC 9110, section 14.2",
        Fault.RANGE_IGNORED,
    ),
    Row(Kind.NO_RANGES, "a different range than requested, or none stated", Fault.RANGE_WRONG),
    Row(Kind.NO_RANGES, "less than the response's Content-Range promises", Fault.RANGE_SHORT),
    Row(
        Kind.NO_RANGES,
        "an ETag or date too long to be kept: ranges could not be compared; a single response needs none",
        Fault.VALIDATOR_TOO_LONG,
    ),
    Row(Kind.PERMANENT, "encoded although identity was requested: ranges would be of the encoded form", Fault.ENCODED),
    Row(Kind.PERMANENT, "a size that no file can have, or two that differ", Fault.SIZE_UNSOUND),
    Row(
        Kind.PERMANENT,
        "too many or too long header lines: a retry would get the same",
        Fault.HEADERS,
        when=When.UNANSWERED,
    ),
    Row(Kind.TEMPORARY, "too many or too long header lines, from a server that has sent proper ones", Fault.HEADERS),
    Row(
        Kind.TEMPORARY,
        "another size, and no validator although the file had one: more likely an error page than a new version",
        Fault.UNVOUCHED,
    ),
    Row(Kind.TEMPORARY, "more bytes than announced: nothing of that transfer is used", Fault.OVERFLOW),
    Row(
        Kind.STALE_LINK,
        "the target of a redirect is silent; the original URL may name another",
        Fault.STALLED,
        when=When.REDIRECTED,
    ),
    Row(Kind.TEMPORARY, "no data arrives; another connection may do better", Fault.STALLED),
    Row(Kind.PERMANENT, "a redirect to another scheme, or from https to http", Fault.REDIRECT),
    Row(Kind.PERMANENT, "too many redirects", Fault.REDIRECTS),
    Row(Kind.PERMANENT, "an address that the options forbid", Fault.ADDRESS),
    Row(Kind.PERMANENT, "larger than the options allow", Fault.TOO_LARGE),
    # -- statuses; the same one can mean several things, so the narrower rows come first
    _status(Kind.TOO_MANY_LANES, "the server allows no more connections", 403, 429, 503, when=When.OTHERS_WORK),
    _status(
        Kind.RATE_LIMITED,
        "the server says when it will be back (RFC 9110, section 10.2.3)",
        *(403, 408, 413, 423, 425, 429),
        *range(500, 600),
        when=When.SERVER_SAYS_WHEN,
    ),
    _status(Kind.RATE_LIMITED, "too many requests (RFC 6585, section 4)", 429),
    _status(
        Kind.STALE_LINK,
        "signed links expire, and mirrors fail; the original URL may name another target",
        *(400, 401, 403, 404, 408, 410),
        *range(500, 600),
        when=When.REDIRECTED,
    ),
    _status(
        Kind.PERMANENT,
        "the original URL still names this target, so the answer is final",
        *(401, 403, 404, 410),
        when=When.NAMED_AGAIN,
    ),
    _status(
        Kind.DOUBTFUL,
        "the servers behind one name differ, and some fail like this briefly",
        *(400, 401, 403, 404, 405, 406, 407, 409, 501),
        when=When.ANSWERED,
    ),
    _status(Kind.DOUBTFUL, "a server that contradicts itself", 416, when=When.SAME_TOTAL),
    _status(Kind.CHANGED, "the range no longer exists: the file is shorter", 416, when=When.ANSWERED),
    _status(Kind.NO_RANGES, "the server refuses even the first range", 416),
    _status(
        Kind.TEMPORARY,
        "timeouts and overload of the server or a gateway",
        *(408, 421, 423, 425, 500, 502, 503, 504, 509, 598, 599),
    ),
    _status(Kind.TEMPORARY, "a CDN reports that its origin fails", *range(520, 531)),
    _status(Kind.PERMANENT, "retrying would not help"),
    # -- libcurl's codes
    _code(
        Kind.TOO_MANY_LANES,
        "the server allows no more connections",
        Curl.COULDNT_CONNECT,
        errnos=frozenset({errno_module.ECONNREFUSED}),
        when=When.OTHERS_WORK,
    ),
    _code(
        Kind.STALE_LINK,
        "the target of a redirect cannot be used; the original URL may name another",
        *(Curl.COULDNT_RESOLVE_HOST, Curl.COULDNT_CONNECT, Curl.SSL_CONNECT_ERROR, Curl.OPERATION_TIMEDOUT),
        *(Curl.GOT_NOTHING, Curl.SEND_ERROR, Curl.RECV_ERROR, *TLS_CODES),
        when=When.REDIRECTED,
    ),
    _code(Kind.PERMANENT, "retrying does not make a certificate valid", *TLS_CODES),
    Row(
        Kind.PERMANENT,
        "the server wants a certificate from the client",
        codes=frozenset({Curl.RECV_ERROR, Curl.SSL_CONNECT_ERROR}),
        words=WANTS_CERTIFICATE,
    ),
    Row(Kind.PERMANENT, "the proxy rejects the user name or password", statuses=frozenset({407})),
    _code(Kind.PERMANENT, "a URL or option that cannot work", Curl.UNSUPPORTED_PROTOCOL, Curl.URL_MALFORMAT),
    _code(Kind.PERMANENT, "a transfer coding although none was requested", Curl.BAD_CONTENT_ENCODING),
    _code(
        Kind.PERMANENT,
        "not HTTP: a retry would get the same",
        Curl.WEIRD_SERVER_REPLY,
        when=When.UNANSWERED,
    ),
    Row(
        Kind.PERMANENT,
        "chunk sizes that are not numbers: a retry would get the same",
        codes=frozenset({Curl.RECV_ERROR}),
        words="chunk",
        when=When.UNANSWERED,
    ),
    _code(Kind.LOCAL, "libcurl cannot work here", Curl.FAILED_INIT, Curl.OUT_OF_MEMORY),
    _code(Kind.NETWORK, "no route", Curl.COULDNT_CONNECT, Curl.SEND_ERROR, Curl.RECV_ERROR, errnos=_NO_NETWORK_ERRNOS),
    _code(
        Kind.NETWORK,
        "no answer from a name server: libcurl cannot tell an unknown name from a missing network",
        Curl.COULDNT_RESOLVE_HOST,
        Curl.COULDNT_RESOLVE_PROXY,
        Curl.INTERFACE_FAILED,
    ),
    _code(Kind.TEMPORARY, "resets, timeouts, broken bodies, broken HTTP/2 streams"),
)
"""The default table. Rows are tried from the top; the last row of each group matches everything else in the group."""


@records.dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """The table of failures, and how long to wait. To change it, make a new one: ``RetryPolicy().first(Row(...))``.

    Raises ``TypeError`` or ``ValueError`` naming the argument.

    All times are in seconds. ``longest_wait`` caps the back-off, and ``longest_retry_after`` what a server may ask for.
    While there is no network, it is checked for every ``network_check`` seconds, for at most ``network_wait`` (0: no
    limit). The check opens a TCP connection to each of ``network_hosts`` (``host:port``); one that answers is enough.
    """

    rows: tuple[Row, ...] = DEFAULT_ROWS
    longest_wait: float = 60.0
    longest_retry_after: float = 600.0
    network_check: float = 5.0
    network_wait: float = 3600.0
    network_hosts: tuple[str, ...] = ("8.8.8.8:53", "1.1.1.1:53", "223.5.5.5:53")

    def __post_init__(self) -> None:
        for name, kind in (("rows", Row), ("network_hosts", str)):
            values = getattr(self, name)
            if not isinstance(values, (tuple, list)) or not all(isinstance(value, kind) for value in values):
                raise TypeError(f"{name}: expected a tuple of {kind.__name__}")
            object.__setattr__(self, name, tuple(values))
        for host in self.network_hosts:
            place, _, port = host.rpartition(":")
            if not place or not (port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
                raise ValueError(f"network_hosts: {host!r} is not HOST:PORT")
        for name in ("longest_wait", "longest_retry_after", "network_check", "network_wait"):
            check_seconds(getattr(self, name), name)
        if not self.network_check:
            raise ValueError("network_check: 0 is out of range; there must be a pause between checks")

    def first(self, *rows: Row) -> RetryPolicy:
        """A copy of the policy with ``rows`` before all others."""
        return records.replace(self, rows=(*rows, *self.rows))

    def row(self, failure: Failure) -> Row:
        """The row that matches a failure."""
        for row in self.rows:
            if row.fits(failure):
                return row
        return Row(Kind.PERMANENT, "no row matches")

    def classify(self, failure: Failure) -> Kind:
        """The kind of a failure."""
        return self.row(failure).kind

    def wait_s(self, failures: int, first_s: float, retry_after_s: float = 0.0) -> float:
        """Seconds to wait before the next try: what the server asked for, plus exponential back-off with full jitter.

        The upper bounds of the back-off for ``first_s=0.5`` are 0.5, 1, 2, 4, 8, 16, 32, 60, 60 … seconds.
        """
        bound = min(first_s * 2.0 ** min(max(failures - 1, 0), 30), self.longest_wait)
        return random.uniform(0, bound) + min(retry_after_s, self.longest_retry_after)
