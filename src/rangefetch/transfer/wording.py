"""A failure in the user's words: which error to raise, and its message."""

from __future__ import annotations

import errno as errno_module
import os
from http import HTTPStatus

from rangefetch.errors import (
    BadAnswer,
    ConnectionFailed,
    ContentChanged,
    DiskError,
    DownloadError,
    FileTooLarge,
    HttpStatusError,
    LocalError,
    NetworkError,
    TimedOut,
    TlsError,
)
from rangefetch.masking import mask_url
from rangefetch.transfer.failure import TLS_CODES, WANTS_CERTIFICATE, Curl, Failure, Fault

__all__ = ["as_error", "explain"]

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
_ERRNOS: dict[int, int] = {
    Curl.COULDNT_CONNECT: errno_module.ECONNREFUSED,
    Curl.INTERFACE_FAILED: errno_module.EADDRNOTAVAIL,
    Curl.RECV_ERROR: errno_module.ECONNRESET,
    Curl.SEND_ERROR: errno_module.EPIPE,
}
"""The usual errno in such a case, for when libcurl passes none on."""
_FAULT_WORDS = {
    Fault.RANGE_IGNORED: "the server sent the whole file in reply to a range request",
    Fault.RANGE_WRONG: "the server sent a different range than requested",
    Fault.RANGE_SHORT: "the server sent less of the range than it announced",
    Fault.SIZE_CHANGED: "the size of the remote file has changed",
    Fault.VALIDATOR_CHANGED: "the remote file has changed (its ETag or Last-Modified differs)",
    Fault.VALIDATOR_TOO_LONG: "the server sent an ETag or Last-Modified too long to be compared",
    Fault.UNVOUCHED: (
        "the server sent a response without a validator (ETag, Last-Modified) in place of the file, "
        "probably an error page"
    ),
    Fault.SIZE_UNSOUND: "the server stated a size that no file can have, or two sizes that differ",
    Fault.HEADERS: "the server sent too many or too long header lines",
    Fault.ENCODED: "the server sent the file encoded, although no encoding was asked for",
    Fault.OVERFLOW: "the server sent more bytes than it announced",
    Fault.TOO_LARGE: "the file is larger than max_file_size (--max-file-size) allows",
    Fault.STALLED: "no data was received for too long",
    Fault.REDIRECTS: "too many redirects",
    Fault.MEMORY: "out of memory",
}


_REMEDIES = {
    401: "; auth (--http-user), netrc (--netrc) and bearer_file (--bearer-file) give credentials",
    407: "; user:password@ in the URL of the proxy gives credentials",
}


def _is_http(url: str) -> bool:
    return url.lower().startswith("http:")


def _status_words(status: int) -> str:
    try:
        return f"the server answered {status} {HTTPStatus(status).phrase}{_REMEDIES.get(status, '')}"
    except ValueError:
        return f"the server answered {status}"


def explain(failure: Failure) -> tuple[type[DownloadError], str]:
    """The class of the error for a failure, and a line that says what was wrong."""
    words = failure.text or f"libcurl error {failure.code}"
    if failure.fault is Fault.NONE and failure.status == 407:  # in reply to CONNECT
        words += _REMEDIES[407]
    match failure.fault:
        case Fault.DISK:
            return DiskError, f"writing failed: {os.strerror(failure.errno)}"
        case Fault.MEMORY:
            return LocalError, _FAULT_WORDS[failure.fault]
        case Fault.STATUS:
            return HttpStatusError, _status_words(failure.status)
        case Fault.REDIRECT:
            # A redirect to http is refused only if it comes from https.
            remedy = "; allow_downgrade=True (--allow-downgrade) follows it" if _is_http(failure.text) else ""
            return BadAnswer, f"refused a redirect to {mask_url(failure.text)}{remedy}"
        case Fault.ENCODED if failure.text.startswith("Content"):
            return BadAnswer, f"{_FAULT_WORDS[failure.fault]} ({failure.text}); to decode it use --decode (decode=True)"
        case Fault.TOO_LARGE:
            return FileTooLarge, _FAULT_WORDS[failure.fault]
        case Fault.ADDRESS if failure.text == "proxy":
            words = "refused to go through a proxy, since that may connect to any address"
            return ConnectionFailed, f"{words} (private_addresses, --private-addresses)"
        case Fault.ADDRESS:
            words = f"refused to connect to {failure.text}, which is a private address"
            return ConnectionFailed, f"{words} (private_addresses, --private-addresses)"
        case Fault.SIZE_CHANGED | Fault.VALIDATOR_CHANGED:
            return ContentChanged, _FAULT_WORDS[failure.fault]
        case Fault.STALLED:
            return TimedOut, _FAULT_WORDS[failure.fault]
        case Fault.NONE:
            pass
        case _:
            return BadAnswer, _FAULT_WORDS[failure.fault]
    if failure.code == Curl.URL_MALFORMAT and failure.redirected:
        return BadAnswer, f"the server redirects to a malformed URL: {mask_url(failure.address)}: {words}"
    if WANTS_CERTIFICATE in failure.text:
        return TlsError, f"{words}; give one with certificate and private_key (--certificate, --private-key)"
    if failure.has_bad_chunks:
        return BadAnswer, words
    if failure.code == Curl.COULDNT_CONNECT and failure.errno:
        reason = os.strerror(failure.errno)
        words = words if reason in words else f"{words}: {reason}"
    if failure.code == Curl.OPERATION_TIMEDOUT:
        return TimedOut, words
    if failure.code in (Curl.FAILED_INIT, Curl.OUT_OF_MEMORY):
        return LocalError, words
    if failure.code in TLS_CODES or failure.code == Curl.SSL_CONNECT_ERROR:
        return TlsError, words
    if failure.code in _CONNECTION_CODES:
        return ConnectionFailed, words
    if failure.code == Curl.BAD_CONTENT_ENCODING:
        return BadAnswer, _FAULT_WORDS[Fault.ENCODED]
    if failure.code in (Curl.UNSUPPORTED_PROTOCOL, Curl.PARTIAL_FILE, Curl.GOT_NOTHING, Curl.WEIRD_SERVER_REPLY):
        return BadAnswer, words
    return NetworkError, words


def as_error(failure: Failure, url: str, more: str = "") -> DownloadError:
    """The error for a failure. It names ``url``, which must contain no secret; ``more`` is added to the message."""
    kind, words = explain(failure)
    # libcurl's errno is from its last system call, which may not be the one that failed.
    number = failure.errno if issubclass(kind, DiskError | ConnectionFailed) else 0
    return kind(words + more, url=url, status=failure.status, errno=number or _ERRNOS.get(failure.code, 0))
