"""A failed transfer in numbers: the engine's own reasons, libcurl's codes, and what else is known about it."""

from __future__ import annotations

import enum
from http import HTTPStatus
from typing import Any

from rangefetch import records
from rangefetch.net.manners import CLOSED, ENCODED, SILENT, UNSOUND
from rangefetch.transfer.events import EngineEvent

__all__ = ["TLS_CODES", "WANTS_CERTIFICATE", "Curl", "Failure", "Fault", "how_refused", "is_not_http"]


class Fault(enum.IntEnum):
    """Why the engine itself refused or ended a transfer; the numbers are ``_engine.FAULTS``."""

    NONE = 0
    STATUS = 1
    RANGE_IGNORED = 2
    RANGE_WRONG = 3
    SIZE_CHANGED = 4
    VALIDATOR_CHANGED = 5
    ENCODED = 6
    OVERFLOW = 7
    DISK = 8
    STALLED = 9
    REDIRECT = 10
    REDIRECTS = 11
    MEMORY = 12
    PROBED = 13
    VALIDATOR_TOO_LONG = 14
    SIZE_UNSOUND = 15
    UNVOUCHED = 16
    HEADERS = 17
    RANGE_SHORT = 18
    TOO_LARGE = 19
    ADDRESS = 20


class Curl(enum.IntEnum):
    """The CURLcodes that matter here (libcurl-errors(3)); the numbers are ``_engine.constants()``."""

    OK = 0
    UNSUPPORTED_PROTOCOL = 1
    FAILED_INIT = 2
    URL_MALFORMAT = 3
    COULDNT_RESOLVE_PROXY = 5
    COULDNT_RESOLVE_HOST = 6
    COULDNT_CONNECT = 7
    WEIRD_SERVER_REPLY = 8
    HTTP2 = 16
    PARTIAL_FILE = 18
    OUT_OF_MEMORY = 27
    OPERATION_TIMEDOUT = 28
    SSL_CONNECT_ERROR = 35
    INTERFACE_FAILED = 45
    GOT_NOTHING = 52
    SEND_ERROR = 55
    RECV_ERROR = 56
    SSL_CERTPROBLEM = 58
    SSL_CIPHER = 59
    PEER_FAILED_VERIFICATION = 60
    BAD_CONTENT_ENCODING = 61
    SSL_CACERT_BADFILE = 77
    SSL_CRL_BADFILE = 82
    SSL_ISSUER_ERROR = 83
    SSL_PINNEDPUBKEYNOTMATCH = 90
    SSL_INVALIDCERTSTATUS = 91
    HTTP2_STREAM = 92
    HTTP3 = 95
    QUIC_CONNECT_ERROR = 96
    PROXY = 97
    SSL_CLIENTCERT = 98
    TOO_LARGE = 100


@records.dataclass(frozen=True, slots=True)
class Failure:
    """A failed transfer in numbers.

    ``other_lanes``: how many other transfers of the same file are running. ``answered``: its source has answered well
    before. ``redirected``: a redirect led to the address. ``named_again``: the original URL was asked again and
    redirected to this same address, which had failed before (or it was asked again often enough). ``ranged``: a range
    was requested. ``same_total``: the response states the size that the file is known to have. ``source``: the source's
    number. ``kept_bytes``: how much of the file is there without what transfers in progress have brought, which is
    taken back if they turn out too long as well. ``request``: the request's number, counted per file. ``address``: the
    URL that was asked. ``host``: the governor's number of that host.
    """

    code: int = 0
    status: int = 0
    fault: Fault = Fault.NONE
    errno: int = 0
    retry_after_s: int = 0
    received_bytes: int = 0
    kept_bytes: int = 0
    text: str = ""
    source: int = 0
    request: int = 0
    host: int = 0
    other_lanes: int = 0
    answered: bool = False
    redirected: bool = False
    named_again: bool = False
    ranged: bool = True
    same_total: bool = False
    address: str = ""

    @property
    def may_have_expired(self) -> bool:
        """Whether a new link might help (``refresh_url``)."""
        return self.status in (401, 403, 410) or (self.answered and self.status in (400, 404))

    @property
    def has_bad_chunks(self) -> bool:
        """Whether the body had invalid chunk sizes."""
        return self.code == Curl.RECV_ERROR and "chunk" in self.text

    @classmethod
    def of(cls, event: EngineEvent, **known: Any) -> Failure:
        """Build a failure from the engine's event, with what else is ``known``."""
        return cls(
            code=Curl.WEIRD_SERVER_REPLY if is_not_http(event) else event.code,
            status=event.status,
            fault=Fault(event.fault),
            errno=event.errno,
            retry_after_s=event.retry_after_s,
            received_bytes=event.received_bytes,
            kept_bytes=event.kept_bytes,
            text=event.text,
            source=event.source,
            request=event.request,
            address=event.address,
            host=event.host,
            **known,
        )


def is_not_http(event: EngineEvent) -> bool:
    """Whether what the server sent is not HTTP. Some versions of libcurl report that as an unsupported protocol."""
    is_09 = event.code == Curl.UNSUPPORTED_PROTOCOL and "HTTP/0.9" in event.text
    return event.code == Curl.WEIRD_SERVER_REPLY or is_09


TLS_CODES = frozenset(
    {
        Curl.SSL_CERTPROBLEM,
        Curl.SSL_CIPHER,
        Curl.PEER_FAILED_VERIFICATION,
        Curl.SSL_CACERT_BADFILE,
        Curl.SSL_CRL_BADFILE,
        Curl.SSL_ISSUER_ERROR,
        Curl.SSL_PINNEDPUBKEYNOTMATCH,
        Curl.SSL_INVALIDCERTSTATUS,
        Curl.SSL_CLIENTCERT,
    }
)
WANTS_CERTIFICATE = "alert certificate required"  # OpenSSL's words, in TLS 1.3 (RFC 8446, section 6.2)

# Statuses about who asks, or a file that is gone: a request without a range would get the same answer.
_NOT_OF_THE_RANGE = frozenset({401, 402, 407, 410, 451})
_CLOSED = frozenset({Curl.GOT_NOTHING, Curl.PARTIAL_FILE, Curl.SEND_ERROR, Curl.RECV_ERROR, Curl.HTTP2_STREAM})
# Faults that may concern only a part, before any byte of it has come.
_OF_A_PART = {Fault.ENCODED: ENCODED, Fault.SIZE_UNSOUND: UNSOUND}


def how_refused(failure: Failure) -> int | None:
    """How a server has refused a request for a range, if it may serve the file without one: the status, or one of the
    numbers of ``manners``. None: the failure has another meaning.
    """
    is_part = failure.status == HTTPStatus.PARTIAL_CONTENT
    if failure.fault in (Fault.RANGE_WRONG, Fault.RANGE_SHORT) or (failure.fault is Fault.OVERFLOW and is_part):
        return failure.status
    if failure.fault is Fault.STATUS:
        return failure.status if failure.status not in _NOT_OF_THE_RANGE else None
    if failure.received_bytes or (failure.has_bad_chunks and not is_part):
        return None  # the body is, or was to be, the whole file
    if failure.fault is Fault.NONE and failure.status < 300:
        # Two different sizes, for example, where libcurl reports them.
        if failure.status and failure.code == Curl.WEIRD_SERVER_REPLY:
            return UNSOUND
        return CLOSED if failure.code in _CLOSED else None
    if failure.fault is Fault.STALLED:
        return SILENT
    return _OF_A_PART.get(failure.fault) if is_part else None
