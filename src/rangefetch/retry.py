"""What a failure means and what to do about it: the only place that decides.

A failure is what the engine tells in numbers (``Failure``); ``classify`` looks it up, and ``Backoff`` says how long
to wait. Nothing here has a clock, a socket or a thread.
"""

from __future__ import annotations

import dataclasses
import enum
import errno as errno_module
import os
import random

from rangefetch.errors import (
    BadAnswer,
    ConnectionFailed,
    ContentChanged,
    DiskError,
    DownloadError,
    HttpStatusError,
    NetworkError,
    TimedOut,
    TlsError,
)

__all__ = ["Action", "Failure", "Fault", "backoff_seconds", "classify", "explain"]


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


class Curl(enum.IntEnum):
    """The CURLcodes that mean something to us (libcurl-errors(3)); the numbers are ``_engine.constants()``."""

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


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """A failed transfer in numbers.

    ``other_lanes`` are transfers of the same file that go on, ``answered`` says that this source has already
    answered well in this run, ``ranged`` that a range was asked for.
    """

    code: int = 0
    status: int = 0
    fault: Fault = Fault.NONE
    errno: int = 0
    retry_after_s: int = 0
    received_bytes: int = 0
    text: str = ""
    other_lanes: int = 0
    answered: bool = False
    ranged: bool = True


class Action(enum.Enum):
    """What to do next."""

    RETRY = "try that range again after a while"
    FEWER_LANES = "go on with the lanes that work"
    RESTART = "the remote file is another one: begin again from nothing"
    ONE_STREAM = "the server cannot do ranges: begin again with one stream"
    FAIL = "give up"


_TEMPORARY_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504, *range(520, 525)})
# What a server says to connections beyond those that it allows.
_CROWDED_STATUSES = frozenset({403, 429, 503})

_PERMANENT_CODES = frozenset(
    {
        Curl.UNSUPPORTED_PROTOCOL,
        Curl.FAILED_INIT,
        Curl.URL_MALFORMAT,
        Curl.OUT_OF_MEMORY,
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
_TLS_CODES = (_PERMANENT_CODES | {Curl.SSL_CONNECT_ERROR}) - {
    Curl.UNSUPPORTED_PROTOCOL,
    Curl.FAILED_INIT,
    Curl.URL_MALFORMAT,
    Curl.OUT_OF_MEMORY,
}
_CONNECTION_CODES = frozenset(
    {
        Curl.COULDNT_RESOLVE_PROXY,
        Curl.COULDNT_RESOLVE_HOST,
        Curl.COULDNT_CONNECT,
        Curl.INTERFACE_FAILED,
        Curl.SEND_ERROR,
        Curl.RECV_ERROR,
        Curl.PROXY,
        Curl.QUIC_CONNECT_ERROR,
    }
)


def classify(failure: Failure) -> Action:
    """What to do about a failure."""
    match failure.fault:
        case Fault.DISK | Fault.MEMORY | Fault.REDIRECT | Fault.REDIRECTS | Fault.ENCODED:
            return Action.FAIL
        case Fault.SIZE_CHANGED | Fault.VALIDATOR_CHANGED:
            return Action.RESTART
        case Fault.RANGE_IGNORED | Fault.RANGE_WRONG:
            # Once may be a cache that had to fill itself; the caller counts, and goes down to one stream.
            return Action.ONE_STREAM if failure.ranged else Action.FAIL
        case Fault.STATUS:
            if failure.other_lanes and failure.status in _CROWDED_STATUSES:
                return Action.FEWER_LANES
            if failure.status == 416:
                # Nothing there where there was something: the file shrank. At the first byte: no ranges at all.
                return Action.RESTART if failure.answered else Action.ONE_STREAM if failure.ranged else Action.FAIL
            return Action.RETRY if failure.status in _TEMPORARY_STATUSES else Action.FAIL
        case Fault.STALLED | Fault.OVERFLOW:
            return Action.RETRY
        case Fault.NONE:
            pass
    if failure.code in _PERMANENT_CODES:
        return Action.FAIL
    if failure.code == Curl.COULDNT_CONNECT and failure.errno == errno_module.ECONNREFUSED and failure.other_lanes:
        return Action.FEWER_LANES
    return Action.RETRY


def backoff_seconds(failures: int, first_s: float, retry_after_s: float = 0.0, longest_s: float = 60.0) -> float:
    """How long to wait before the next try: exponential with full jitter, and never less than the server asks.

    The upper bounds for ``first_s=0.5`` are 0.5, 1, 2, 4, 8, 16, 32, 60, 60 ... seconds; a Retry-After is honoured
    up to ten times ``longest_s``.
    """
    bound = min(first_s * 2.0 ** min(max(failures - 1, 0), 30), longest_s)
    return max(random.uniform(0, bound), min(retry_after_s, 10 * longest_s))


_FAULT_WORDS = {
    Fault.RANGE_IGNORED: "the server sent the whole file where a part was asked for",
    Fault.RANGE_WRONG: "the server answered another range than the one asked for",
    Fault.SIZE_CHANGED: "the remote file has another size than before",
    Fault.VALIDATOR_CHANGED: "the remote file is not the same as before (its ETag or Last-Modified differs)",
    Fault.ENCODED: "the server sent the file with a content encoding though none was allowed",
    Fault.OVERFLOW: "the server sent more bytes than it announced",
    Fault.STALLED: "no data came for too long",
    Fault.REDIRECTS: "too many redirects",
    Fault.MEMORY: "out of memory",
}
_STATUS_WORDS = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    410: "Gone",
    416: "Range Not Satisfiable",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


def explain(failure: Failure, curl_words: str = "") -> tuple[type[DownloadError], str]:
    """The class of error that a failure is, and one line that says what was wrong.

    ``curl_words`` is libcurl's general text for the code, used where it had nothing more to say about this case.
    """
    words = failure.text or curl_words or f"libcurl error {failure.code}"
    match failure.fault:
        case Fault.DISK:
            return DiskError, f"writing failed: {os.strerror(failure.errno)}"
        case Fault.STATUS:
            name = _STATUS_WORDS.get(failure.status, "")
            return HttpStatusError, f"the server answered {failure.status} {name}".rstrip()
        case Fault.REDIRECT:
            return BadAnswer, f"a redirect that is not followed, to {failure.text}"
        case Fault.SIZE_CHANGED | Fault.VALIDATOR_CHANGED:
            return ContentChanged, _FAULT_WORDS[failure.fault]
        case Fault.STALLED:
            return TimedOut, _FAULT_WORDS[failure.fault]
        case Fault.NONE:
            pass
        case _:
            return BadAnswer, _FAULT_WORDS[failure.fault]
    if failure.code == Curl.OPERATION_TIMEDOUT:
        return TimedOut, words
    if failure.code in _TLS_CODES:
        return TlsError, words
    if failure.code in _CONNECTION_CODES:
        return ConnectionFailed, words
    if failure.code in (Curl.PARTIAL_FILE, Curl.GOT_NOTHING, Curl.WEIRD_SERVER_REPLY):
        return BadAnswer, words
    return NetworkError, words
