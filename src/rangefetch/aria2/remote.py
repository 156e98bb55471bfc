"""Asks a server about a file before aria2 fetches it.

aria2 does not pass on what a server tells it (validators, dates, file names), never checks whether a file is still the
one it began, and resends the user's headers wherever redirects lead. So we send the first request ourselves.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import functools
import http.client
import io
import netrc
import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Self
from urllib.parse import quote, urljoin, urlsplit

from rangefetch.disk.state import MOST_VALIDATOR_BYTES
from rangefetch.errors import BadAnswer
from rangefetch.headers import merged, parse_date
from rangefetch.identity import Identity
from rangefetch.logs import log as _log
from rangefetch.masking import mask_text, mask_url
from rangefetch.net.certificates import find_ca_file
from rangefetch.net.credentials import netrc_path, split_userinfo
from rangefetch.net.manners import Manners
from rangefetch.net.profiles import secret_headers
from rangefetch.net.proxies import is_http_proxy, proxy_for, with_port
from rangefetch.net.sources import Source, host_of, origin_of
from rangefetch.options import DownloadOptions
from rangefetch.transfer import governor
from rangefetch.transfer.failure import Curl, Failure, Fault, how_refused
from rangefetch.transfer.retry import Kind, RetryPolicy
from rangefetch.transfer.samples import Sample

__all__ = [
    "Remote",
    "Resting",
    "Unanswered",
    "account_for",
    "ask",
    "ask_any",
    "describe",
    "difference",
    "headers_at",
    "is_http",
    "requested",
]

_MOST_REDIRECTS = 20
_MOST_TEXT = 200
_MOST_DESCRIPTION_BYTES = 32 << 20  # of a torrent, which travels to aria2 in Base64
_URL_CHARACTERS = "%/:=&?~#+!$,;'@()*[]|"
_FIRST_REST_S = 10.0
_LEAST_REST_S = 0.25
_REDIRECTS = frozenset({300, 301, 302, 303, 307, 308})
_CONTENT_RANGE = re.compile(r"bytes[\s=]+(?:(\d+)-(\d+)|\*)/(\d+)\s*\Z", re.IGNORECASE)
_DUPLICATE = re.compile(r";\s*rel\s*=\s*\"?duplicate\b", re.IGNORECASE)
_MOST_DIGITS = 10
_LONGEST_REST_S = 10**9  # longer than anybody waits


class Unanswered(Exception):
    """The server gave no answer that describes the file; ``failure`` says why."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(failure.text or f"status {failure.status}")


class Resting(Exception):
    """The host must not be asked for ``seconds``."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"its host must not be asked for another {seconds:.1f} s")


@dataclasses.dataclass(frozen=True, slots=True)
class Remote:
    """A file as its server describes it.

    ``url`` is the URL after redirects. ``headers`` have lower-case names. ``ranged`` means that the server honours
    range requests, ``names_mirrors`` that it names further URLs (``Link: rel=duplicate``, RFC 6249), which aria2 uses
    without being told to.
    """

    url: str
    identity: Identity
    headers: Mapping[str, str]
    ranged: bool
    names_mirrors: bool = False

    @property
    def size(self) -> int:
        """In bytes; -1 if unknown."""
        return self.identity.size


def ask(
    source: Source, options: DownloadOptions, manners: Manners | None = None, policy: RetryPolicy | None = None
) -> Remote:
    """Ask the server of ``source`` about its file. May take as long as the timeouts in ``options`` allow.

    The request is a GET for the first byte. Unlike HEAD, it shows whether ranges work, gives the total size even if the
    body's length does not, and works with URLs that are signed for GET only. If it is unclear whether the answer is a
    part or the whole file, a request without a range follows. The same is done after a refusal that, from what
    ``manners`` know of the host, may be due to the range; if that refusal may be temporary (``policy``), the request
    without a range is left to the next try. Raises ``Unanswered``, ``Resting``.
    """
    if source.asked_plainly:
        source.asked_plainly = False
        return _with_ranges_again(source, options, manners, _ask_plainly(source, options, manners))
    try:
        with requested(source, options, "bytes=0-0") as (answer, url):
            remote = _described(answer, url)
            is_doubtful = _is_doubtful(answer)
    except Unanswered as refused:
        failure = refused.failure
        how, host = how_refused(failure), host_of(failure.address or source.url)
        if manners is None or policy is None or how is None or not manners.may_mean_the_range(host, how):
            raise
        if policy.classify(failure) in (Kind.TEMPORARY, Kind.RATE_LIMITED):
            source.asked_plainly = True
            raise
        try:
            plain = _ask_plainly(source, options, manners)
        except Unanswered:
            raise refused from None
        return _with_ranges_again(source, options, manners, plain)
    if is_doubtful:
        return _ask_plainly(source, options, manners)
    if manners is not None:
        manners.answered(host_of(remote.url), status=206 if remote.ranged else 200)
    return remote


def _with_ranges_again(source: Source, options: DownloadOptions, manners: Manners | None, plain: Remote) -> Remote:
    """A request without a range has succeeded where one with a range had failed. The server may only have been busy, so
    if it is likely to support ranges, ask for one again."""
    may_range = plain.headers.get("accept-ranges", "").lower() == "bytes"
    if may_range or (manners is not None and manners.sends_ranges(host_of(plain.url))):
        with contextlib.suppress(Unanswered, Resting):
            return ask(source, options)
    return plain


def _ask_plainly(source: Source, options: DownloadOptions, manners: Manners | None) -> Remote:
    """Ask without a range. Raises ``Unanswered``."""
    try:
        with requested(source, options, "") as (answer, url):
            remote = _described(answer, url)
    except Unanswered as refused:
        how = how_refused(refused.failure)
        if manners is not None and how is not None:
            manners.refused_plainly(host_of(refused.failure.address or source.url), how)
        raise
    return dataclasses.replace(remote, ranged=False)


def difference(source: Source, options: DownloadOptions, size: int, samples: Sequence[Sample]) -> str:
    """Compare the file at ``source`` with ``samples`` of another copy of ``size`` bytes.

    Returns how they differ, in words, or "" if they do not. Raises ``Unanswered`` if the server does not send the
    ranges.
    """
    for sample in samples:
        with requested(source, options, f"bytes={sample.start}-{sample.end - 1}") as (answer, _):
            wanted = (sample.start, sample.end - 1)
            found = _content_range(answer.headers.get("content-range", ""))
            if found is None or found[:2] != wanted:
                raise Unanswered(Failure(fault=Fault.RANGE_WRONG))
            if found[2] != size:
                return f"it has {found[2]} bytes, not {size}"
            octets = answer.read(len(sample.octets))
            if len(octets) != len(sample.octets):
                raise Unanswered(Failure(code=Curl.PARTIAL_FILE, text="the response ended early"))
        if octets != sample.octets:
            at = sample.start + next(
                i for i, pair in enumerate(zip(octets, sample.octets, strict=True)) if pair[0] != pair[1]
            )
            return f"it differs at byte {at}"
    return ""


@contextlib.contextmanager
def requested(
    source: Source, options: DownloadOptions, byte_range: str
) -> Iterator[tuple[http.client.HTTPResponse, str]]:
    """Send one GET, and yield the response (200, 206 or 416) and the URL that sent it.

    Redirects to http and https are followed, from https to http only if that is allowed. Private headers are sent to
    no other origin, and every hop uses the proxy that libcurl would use. Raises ``Unanswered``; raises ``Resting``
    without sending anything to a host that rests.
    """
    url = source.url

    def unanswered(failure: Failure) -> Unanswered:
        """The exception for ``failure``, completed with what is known of the source."""
        redirected = url != source.url
        return Unanswered(
            dataclasses.replace(
                failure,
                answered=source.answered,
                redirected=redirected,
                named_again=redirected and source.failed_beyond(url),
                address=url,
                host=governor.host_of_connection(url, options),
            )
        )

    for hop in range(_MOST_REDIRECTS + 1):
        asked = {"User-Agent": options.user_agent, "Accept-Encoding": "identity", "Connection": "close"}
        asked |= {"Range": byte_range} if byte_range else {}
        asked |= headers_at(url, source, options)
        host = governor.host_of_connection(url, options)
        if hop:
            # Do not wait at a redirect: a caller that waits starts again at the first URL and might never get past
            # this hop.
            governor.count_request(host, options)
        elif wait_s := governor.wait_for_slot(host, options, source.slots):
            raise Resting(wait_s)
        if wait_s := governor.wait_before_asking(host):
            raise Resting(wait_s)
        is_back = False
        try:
            connection, target, of_proxy = _connection(url, options)
            with contextlib.closing(connection):
                connection.request("GET", target, headers=asked | of_proxy)
                with connection.getresponse() as answer:
                    after_s = _retry_after_s(answer.headers.get("retry-after", ""))
                    is_back = answer.status < 400 or not (after_s or answer.status == HTTPStatus.TOO_MANY_REQUESTS)
                    if not is_back:
                        # Stop other requests at once; the caller's retry policy sets the real length of the rest.
                        governor.rest(host, min(after_s, _FIRST_REST_S) or _LEAST_REST_S)
                    governor.was_asked(host, is_back=is_back)
                    if source.jar is not None:
                        source.jar.told(url, answer.headers)
                    if answer.status in _REDIRECTS and "location" in answer.headers:
                        url = _redirected(url, answer.headers["location"], options)
                        continue
                    # 416 means an empty file, or a server that rejects ranges.
                    if answer.status not in (200, 206, 416):
                        raise unanswered(Failure(fault=Fault.STATUS, status=answer.status, retry_after_s=after_s))
                    source.failed_at, source.resolved_again = "", 0
                    yield answer, url
                    return
        except (OSError, http.client.HTTPException, ValueError) as error:
            if not is_back:
                governor.was_asked(host, is_back=False)
            raise unanswered(_failure(error, url)) from error
    raise unanswered(Failure(fault=Fault.REDIRECTS))


def _connection(url: str, options: DownloadOptions) -> tuple[_Connection, str, dict[str, str]]:
    """A connection for a request to ``url``, through a proxy if one applies; the request target; and the headers for
    a proxy that reads the request itself. Raises ``Unanswered`` for a proxy that is not HTTP."""
    parts, proxy = urlsplit(_ascii(url)), proxy_for(url, options)
    host, port, is_tls = parts.hostname or "", parts.port, parts.scheme.lower() == "https"
    target = (parts.path or "/") + ("?" + parts.query if parts.query else "")
    of_proxy: dict[str, str] = {}
    at = (host, port)
    if proxy:
        if not is_http_proxy(proxy):
            raise Unanswered(Failure(code=Curl.COULDNT_RESOLVE_PROXY, text=f"{mask_url(proxy)} is not an HTTP proxy"))
        bare, authorization = split_userinfo(with_port(proxy))
        of_proxy = {"Proxy-Authorization": authorization} if authorization else {}
        at = (urlsplit(bare).hostname or "", urlsplit(bare).port)
    if not is_tls:
        target = f"http://{parts.netloc}{target}" if proxy else target
        return _Connection(*at).patient(options), target, of_proxy
    ca_file = find_ca_file(str(options.ca_file))
    modified_s = Path(ca_file).stat().st_mtime if ca_file else 0.0
    context = _tls_context(ca_file, options.verify_tls, modified_s)
    connection = _TlsConnection(*at, context=context).patient(options)
    if proxy:
        connection.set_tunnel(host, port, of_proxy)
    return connection, target, {}


def describe(source: Source, options: DownloadOptions) -> tuple[bytes, str]:
    """Fetch the torrent or Metalink at ``source``. Returns it and its URL after redirects.

    aria2 is not left to fetch it, because it would send the headers for this URL to every server that the file names.
    Raises ``Unanswered``, ``BadAnswer``.
    """
    with requested(source, options, "") as (answer, url):
        octets = answer.read(_MOST_DESCRIPTION_BYTES + 1)
        if answer.status != 200:
            raise Unanswered(Failure(fault=Fault.STATUS, status=answer.status or 0))
    if len(octets) > _MOST_DESCRIPTION_BYTES:
        raise BadAnswer(f"it is too large for a torrent or Metalink (more than {_MOST_DESCRIPTION_BYTES} bytes)")
    return octets, url


def ask_any(
    sources: Sequence[Source],
    options: DownloadOptions,
    policy: RetryPolicy,
    manners: Manners | None = None,
    *,
    first_decides: bool,
) -> tuple[Source, Remote]:
    """The first of ``sources`` that answers, and its description of the file. Sources that fail permanently are banned.

    With ``first_decides`` the others are asked only after a permanent failure of the first. If none answers, raises
    ``Resting`` if one of them only has to be waited for, else ``Unanswered`` with the last failure.
    """
    unanswered: Unanswered | None = None
    resting: Resting | None = None
    for source in sources:
        try:
            remote = ask(source, options, manners, policy)
        except Resting as error:
            if resting is None or error.seconds < resting.seconds:
                resting = error
            if first_decides and source is sources[0]:
                break
        except Unanswered as error:
            failure = error.failure
            if (
                manners is not None
                and failure.fault is Fault.STATUS
                and manners.contradicts_itself(host_of(failure.address or source.url), failure.status)
            ):
                failure = dataclasses.replace(failure, answered=True)
            unanswered = Unanswered(failure)
            _log.debug("%s: %s", mask_url(source.url), mask_text(str(unanswered)))
            source.banned = policy.classify(failure) is Kind.PERMANENT
            if first_decides and source is sources[0] and not source.banned:
                break
        else:
            source.answered = True
            source.resolved_url = remote.url
            return source, remote
    raise resting or unanswered or Unanswered(Failure(text="no URL or mirror is left"))


def headers_at(url: str, source: Source, options: DownloadOptions) -> dict[str, str]:
    """The headers that may be sent with a request to ``url``, which is the URL of ``source`` or one it redirects to.

    The user's headers and cookies and the source's password are sent to the source's origin only, a netrc account to
    its host, and cookies that servers have set to where they apply. Raises ``LocalError`` if a cookie or netrc file
    cannot be used.
    """
    headers: dict[str, str] = {}
    if origin_of(url) == origin_of(source.url):
        headers = dict(options.header_items) if source.is_own else {}
        present = {name.lower() for name in headers}
        for name, value in secret_headers(source.url, source.authorization, options):
            if name.lower() not in present:
                headers[name] = value
    account = account_for(url, options) if options.netrc else None
    if account is not None and not any(name.lower() == "authorization" for name in headers):
        headers["Authorization"] = "Basic " + base64.b64encode(":".join(account).encode()).decode()
    if source.jar is not None and (cookies := source.jar.for_url(url)):
        # One Cookie field for the user's cookies and those that servers have set (RFC 6265, section 5.4).
        name = next((each for each in headers if each.lower() == "cookie"), "Cookie")
        headers[name] = "; ".join(filter(None, (headers.get(name, ""), cookies)))
    return headers


def account_for(url: str, options: DownloadOptions) -> tuple[str, str] | None:
    """User name and password for the URL's host from the netrc file; None if it has none."""
    try:
        # With an explicit path, since for the default one Python is stricter than other programs about permissions.
        login = netrc.netrc(netrc_path(options)).authenticators(urlsplit(url).hostname or "")
    except (OSError, RuntimeError, netrc.NetrcParseError):
        return None
    return (login[0], login[2] or "") if login else None


def is_http(url: str) -> bool:
    """Whether it is an http or https URL, whose server this module can ask."""
    return urlsplit(url).scheme.lower() in ("http", "https")


class _Lines(io.BufferedReader):
    """Raises ``ConnectionResetError`` if the connection is closed after the status line and before the end of the
    headers. http.client takes that for their end, but the response is incomplete (RFC 9112, section 8).
    """

    _has_begun = False

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        if self._has_begun and not line.endswith(b"\n") and len(line) != size:
            raise ConnectionResetError("the connection was closed in the middle of the headers")
        self._has_begun = True
        return line


class _Answer(http.client.HTTPResponse):
    """Skips all interim responses (RFC 9110, section 15.2); Python's class skips only 100."""

    def begin(self) -> None:
        if not isinstance(self.fp, _Lines):
            self.fp = _Lines(self.fp.detach())
        super().begin()

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]  # private, so typeshed does not have it
            if not 101 < status < 200:
                return version, status, reason
            http.client.parse_headers(self.fp)


class _Connection(http.client.HTTPConnection):
    """A connection with separate timeouts for connecting and for reading."""

    response_class = _Answer
    _read_timeout: float | None = None

    def patient(self, options: DownloadOptions) -> Self:
        """Set the timeouts in ``options``, and return the connection."""
        self.timeout = options.connect_timeout or None
        self._read_timeout = options.read_timeout or None
        return self

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(self._read_timeout)


class _TlsConnection(_Connection, http.client.HTTPSConnection):
    """The same over TLS."""


@functools.lru_cache(maxsize=8)
def _tls_context(ca_file: str, verify: bool, modified_s: float) -> ssl.SSLContext:
    """The TLS context for a CA file, cached because reading one takes longer than a request. ``modified_s``, when the
    file was last written, makes a changed file be read again."""
    context = ssl.create_default_context(cafile=ca_file or None)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _described(answer: http.client.HTTPResponse, url: str) -> Remote:
    status = answer.status or 0
    headers = merged(answer.headers.items())
    if status not in (200, 206, 416):
        raise Unanswered(Failure(fault=Fault.STATUS, status=status))
    found, length = _content_range(headers.get("content-range", "")), _number(headers.get("content-length", ""))
    # A 200 with a Content-Range is taken for the 206 that it should have been.
    size = found[2] if found is not None else length if status == 200 else -1
    if any(coding != "chunked" for coding in tokens(headers.get("transfer-encoding", ""))):
        raise Unanswered(Failure(code=Curl.BAD_CONTENT_ENCODING))
    identity = Identity.of(headers, size)
    if identity.coding:
        raise Unanswered(Failure(fault=Fault.ENCODED))
    # Validators that are too long to save cannot be compared later, so such a file is fetched in a single response.
    is_kept = all(len(each) <= MOST_VALIDATOR_BYTES for each in (identity.etag, identity.last_modified))
    if not is_kept:
        identity = dataclasses.replace(identity, etag="", last_modified="")
    return Remote(
        url=url,
        identity=identity,
        headers=headers,
        ranged=is_kept
        and status != 416
        and found is not None
        and found[:2] == (0, 0)
        and (status == 206 or length in (-1, 1)),
        names_mirrors=any(_DUPLICATE.search(value) for value in answer.headers.get_all("link", [])),
    )


def _is_doubtful(answer: http.client.HTTPResponse) -> bool:
    """Whether the answer to the request for one byte may be wrong about the file's size: it says that the file is
    empty, or it is a 200 that may contain only a part, having just one byte or naming another range."""
    length = _number(answer.headers.get("content-length", ""))
    found = _content_range(answer.headers.get("content-range", ""))
    if answer.status != 200:
        return answer.status == 416 and found is not None and found[2] == 0
    if found is None:
        return length in (0, 1) or "content-range" in answer.headers
    start, end, total = found
    return total == 0 or (start, end) not in ((0, 0), (0, total - 1)) or length not in (-1, end - start + 1)


def _content_range(value: str) -> tuple[int, int, int] | None:
    """First byte, last byte and total of a Content-Range field that states all three; 0, 0 and total for ``*/total``.
    None for anything else, and for impossible numbers."""
    match = _CONTENT_RANGE.match(value)
    if match is None:
        return None
    start, end, total = (_number(text or "0") for text in match.groups())
    return (start, end, total) if min(start, end, total) >= 0 and start <= end <= max(total - 1, 0) else None


def _number(text: str) -> int:
    """Parse a server's number of bytes; -1 if it is not a number, or larger than any file."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 and int(text) < 1 << 62 else -1


def tokens(value: str) -> list[str]:
    """The items of a comma-separated header, in lower case."""
    return [each.strip().lower() for each in value.split(",") if each.strip()]


def _ascii(url: str) -> str:
    """The URL with non-ASCII characters percent-encoded as UTF-8."""
    return quote(url, safe=_URL_CHARACTERS)


def _redirected(url: str, location: str, options: DownloadOptions) -> str:
    """The URL that a redirect leads to. Raises ``Unanswered`` if it must not be followed."""
    # Python decodes headers as Latin-1: restore the octets, and percent-encode those beyond ASCII.
    location = quote(location.encode("latin-1", "replace"), safe=_URL_CHARACTERS)
    try:
        target = urljoin(url, location)
        origin_of(target)
    except ValueError as error:
        # An invalid URL names no other server, so the failure is that of the server that sent it.
        failure = Failure(code=Curl.URL_MALFORMAT, redirected=True, text=str(error))
        raise Unanswered(failure) from None
    scheme = urlsplit(target).scheme.lower()
    downgraded = scheme == "http" and origin_of(url)[0] == "https" and not options.allow_downgrade
    if not is_http(target) or not urlsplit(target).hostname or downgraded:
        raise Unanswered(Failure(fault=Fault.REDIRECT, text=target))
    return target


def _retry_after_s(value: str) -> int:
    """A Retry-After field in seconds from now; it may be a date (RFC 9110, section 10.2.3)."""
    value = value.strip(" \t")
    if value.isascii() and value.isdecimal():
        return int(value) if len(value) < _MOST_DIGITS else _LONGEST_REST_S
    date_s = parse_date(value)
    return min(max(0, int(date_s - time.time() + 1)), _LONGEST_REST_S) if date_s is not None else 0


def _failure(error: Exception, url: str) -> Failure:
    """Convert a Python exception to a ``Failure`` with the corresponding curl code."""
    text = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    text = "".join(c if c.isprintable() else "?" for c in text[:_MOST_TEXT])
    number = error.errno or 0 if isinstance(error, OSError) else 0
    fault = Fault.NONE
    match error:
        case ssl.SSLCertVerificationError():
            code = Curl.PEER_FAILED_VERIFICATION
        case ssl.SSLError():
            code = Curl.SSL_CONNECT_ERROR
        case socket.gaierror():
            code = Curl.COULDNT_RESOLVE_HOST
        case TimeoutError():
            code = Curl.OPERATION_TIMEDOUT
        case http.client.RemoteDisconnected():
            code = Curl.GOT_NOTHING
        case ConnectionResetError() | BrokenPipeError() | ConnectionAbortedError():
            code = Curl.RECV_ERROR
        case OSError():
            code = Curl.COULDNT_CONNECT
        case http.client.LineTooLong():
            code, fault = Curl.OK, Fault.HEADERS
        case http.client.BadStatusLine():
            code, text = Curl.WEIRD_SERVER_REPLY, f"the response is not HTTP, or HTTP/0.9: {text}"
        case http.client.HTTPException() if text.startswith("got more than"):
            code, fault = Curl.OK, Fault.HEADERS
        case _:
            code = Curl.WEIRD_SERVER_REPLY
    return Failure(code=code, fault=fault, errno=number, text=f"{urlsplit(url).hostname}: {text}")
