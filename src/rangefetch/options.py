"""The options of a download, checked before any file or connection is opened."""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
import operator
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypedDict
from urllib.parse import unquote, urlsplit

from rangefetch.encoding import for_file_system
from rangefetch.masking import mask_url
from rangefetch.progress import to_camel_case_dict
from rangefetch.version import __version__

__all__ = [
    "DEFAULT_MAX_TRIES",
    "DEFAULT_USER_AGENT",
    "HTTP",
    "AllOptions",
    "CommonOptions",
    "DownloadOptions",
    "FetchOptions",
    "Headers",
    "StreamOptions",
    "Url",
    "UrlObject",
    "check_count",
    "check_function",
    "check_path",
    "check_seconds",
    "check_text",
    "check_url",
    "is_metadata_url",
    "parse_size",
]

DEFAULT_USER_AGENT = f"rangefetch/{__version__}"

HTTP = ("http", "https")
DEFAULT_MAX_TRIES = 5
_FLAGS = (
    "overwrite",
    "wait_for_other",
    "auto_file_renaming",
    "durable",
    "decode",
    "use_github_mirror",
    "verify_tls",
    "allow_downgrade",
)
_READ_FILES = ("cookies", "bearer_file", "ca_file", "proxy_ca_file", "certificate", "private_key", "netrc")
_SCHEMES = (*HTTP, "ftp", "sftp", "magnet", "file")
_DESCRIPTIONS = (".torrent", ".metalink", ".meta4")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
# Digits are bounded, for int() and float() have limits of their own.
_SIZE = re.compile(r"(\d{1,30}(?:\.\d{1,30})?|\.\d{1,30})\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
# With surrogates that cannot be encoded; those of octets that are not UTF-8 (os.fsdecode) can.
_ACCOUNT = re.compile(r"(^|//)[^/?#]*@")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udc7f\udd00-\udfff]")
# RFC 9110, section 5.1: a field name is a token.
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")  # RFC 3986, section 3.1
_DIGEST_HEX_DIGITS = {"md5": 32, "sha-1": 40, "sha-256": 64, "sha-384": 96, "sha-512": 128, "blake2b": 128}


class UrlObject(Protocol):
    """A URL as an object whose ``str()`` is the URL: ``yarl.URL``, ``httpx.URL`` and the like."""

    @property
    def scheme(self) -> str: ...
    @property
    def host(self) -> str | None: ...


Url = str | UrlObject
"""What is accepted as a URL."""


class Headers(Mapping[str, str]):
    """Header fields in the order in which they were given. Immutable and hashable, unlike a dict; equal to one."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields = dict(fields)

    def __getitem__(self, name: str) -> str:
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __hash__(self) -> int:
        return hash(frozenset(self._fields.items()))

    def __repr__(self) -> str:
        """Without the values, which may be secrets."""
        return repr(dict.fromkeys(self._fields, "***"))

    def __reduce__(self) -> tuple[type[Headers], tuple[dict[str, str]]]:
        return Headers, (self._fields,)


def _whole_number(value: object) -> int | None:
    """An int, or what counts as one, as NumPy's integers do; None for anything else, and for bools."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def parse_size(value: object, option: str) -> int:
    """Bytes from ``"4M"``, ``"1.5G"`` (powers of 1024, as in aria2) or a number.

    Raises ``TypeError`` or ``ValueError`` naming ``option``.
    """
    number = _whole_number(value)
    if number is not None:
        size = number
    elif not isinstance(value, str):
        raise TypeError(f"{option}: a size is an int or a string such as '4M', not {type(value).__name__}")
    else:
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            raise ValueError(f"{option}: {value!r} is not a size; write 4M, 1.5G or a number of bytes")
        size = (
            int(float(match[1]) * _UNITS[match[2].upper()])
            if "." in match[1]
            else int(match[1]) * _UNITS[match[2].upper()]
        )
    if not 0 <= size < 1 << 62:
        raise ValueError(f"{option}: {value!r} is out of range")
    return size


def is_metadata_url(url: str) -> bool:
    """Whether the URL is not of a file, but of what describes files: a magnet link, a torrent or a Metalink."""
    lowered = url.lower()
    if lowered.startswith("magnet:"):
        return True
    # Few URLs have these letters in them, and all are asked.
    return (".torrent" in lowered or ".meta" in lowered) and urlsplit(lowered).path.endswith(_DESCRIPTIONS)


def check_url(url: object, option: str = "url", schemes: Sequence[str] = _SCHEMES) -> str:
    """The URL as a string, if it is one that some backend can fetch, with no control characters in it: of one of
    ``schemes``, with a host, but for magnet links; ``file`` is for torrents and Metalinks on this machine.

    An object counts as its ``str()``, if that is absolute. Raises ``TypeError`` or ``ValueError`` naming ``option``.
    """
    if not isinstance(url, str):
        kind = type(url).__name__
        is_path = isinstance(url, os.PathLike)  # which makes one slash of two
        url = str(url)
        if is_path or not _SCHEME.match(url):
            raise TypeError(f"{option}: a URL is a string, not {kind}")
    shown = mask_url(url)
    if _CONTROL.search(url) or " " in url:
        raise ValueError(f"{option}: {shown!r} has a space or a control character in it; percent-encode it")
    try:
        parts = urlsplit(url)
        if parts.port == 0:
            raise ValueError("port 0 is none")
    except ValueError as error:
        raise ValueError(f"{option}: {shown!r} is malformed: {error}") from None
    scheme = parts.scheme.lower()
    if scheme not in schemes:
        what = f"the scheme {parts.scheme!r} is not supported" if scheme else "there is no URL scheme"
        raise ValueError(f"{option}: {shown!r}: {what}; use {', '.join(schemes[:-1])} or {schemes[-1]}")
    if scheme == "file":
        if not is_metadata_url(url) or parts.netloc not in ("", "localhost"):
            raise ValueError(f"{option}: {shown!r}: file: URLs may only name torrents and Metalinks on this machine")
    elif scheme == "magnet":
        if "urn:btih:" not in unquote(url).lower():
            raise ValueError(f"{option}: {shown!r}: this magnet link names no torrent (xt=urn:btih:)")
    elif not parts.hostname:
        raise ValueError(f"{option}: {shown!r} has no host")
    return url


def _check_rule(rule: object) -> str:
    """The rule, if it is one. Raises ``TypeError`` or ``ValueError`` naming ``github_mirrors``."""
    if not isinstance(rule, str):
        raise TypeError(f"github_mirrors: a rule is a string, not {type(rule).__name__}")
    head, _, tail = rule.rpartition("=http")
    target = "http" + tail if head else rule
    for part in (head, target) if head else (target,):
        parts = urlsplit(part)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"github_mirrors: {rule!r} is neither https://PREFIX/ nor https://FROM/=https://TO/")
    return rule


def _check_proxy(proxy: str) -> None:
    shown = proxy.rpartition("@")[2]  # without the account
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        _ = parts.port
    except ValueError:
        raise ValueError(f"proxy: {shown!r} is malformed") from None
    if (
        parts.scheme not in ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
        or not parts.hostname
        or " " in proxy
    ):
        raise ValueError(
            f"proxy: {shown!r} is not http://, https://, socks4://, socks4a://, socks5:// or socks5h:// with a host"
        )


def _without_accounts(urls: Any) -> Any:
    if isinstance(urls, str):
        return _ACCOUNT.sub(r"\1***@", urls)
    return tuple(_without_accounts(each) for each in urls)


def check_function(value: object, option: str) -> None:
    """Raises ``TypeError`` naming ``option`` for what is neither a function nor None."""
    if value is not None and not callable(value):
        raise TypeError(f"{option}: expected a function, not {type(value).__name__}")


def check_text(value: object, option: str) -> str:
    """A string, or a path as one, without control characters. Raises ``TypeError`` or ``ValueError``."""
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{option}: expected a string, not {type(value).__name__}")
    text = os.fspath(value)
    if not isinstance(text, str):
        raise TypeError(f"{option}: expected a string, not {type(value).__name__} of octets")
    if _CONTROL.search(text):
        raise ValueError(f"{option}: {text!r} has a control character in it")
    return text


def check_path(value: object, option: str) -> str:
    """A path as a string, in which a ``~`` at the start is a home directory, as in a shell. "" stays "".

    Raises ``TypeError`` or ``ValueError``, also where nothing says which directory that is.
    """
    path = os.path.expanduser(for_file_system(check_text(value, option)))  # noqa: PTH111 - which leaves "a/" as it is
    if path == "~" or path.startswith("~/"):
        raise ValueError(f"{option}: {path!r}: this user has no home directory; write the directory out, or set HOME")
    return path


def check_count(value: object, option: str, low: int, high: int) -> int:
    """An int from ``low`` to ``high``. Raises ``TypeError`` or ``ValueError``."""
    number = _whole_number(value)
    if number is None:
        raise TypeError(f"{option}: expected an int, not {type(value).__name__}")
    if not low <= number <= high:
        raise ValueError(f"{option}: {number} is out of range; {low} to {high} is allowed")
    return number


def check_seconds(value: object, option: str) -> float:
    """A time, which may be 0. Raises ``TypeError`` or ``ValueError``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{option}: expected seconds, not {type(value).__name__}")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    if not 0 <= seconds < 1e9:  # which "not a number" is not either
        raise ValueError(f"{option}: {value} is out of range; seconds, 0 for no limit")
    return seconds


def _check_headers(value: object) -> Headers:
    if isinstance(value, Mapping):
        pairs = list(value.items())
    elif isinstance(value, (list, tuple)):
        pairs = []
        for line in value:
            if not isinstance(line, str):
                raise TypeError(f"headers: expected 'Name: value' strings, not {type(line).__name__}")
            name, colon, text = line.partition(":")
            if not colon:
                raise ValueError(f"headers: {line!r} is not 'Name: value'")
            pairs.append((name.strip(), text.strip()))
    else:
        raise TypeError(f"headers: expected a mapping or a list of 'Name: value', not {type(value).__name__}")
    headers: dict[str, str] = {}
    for name, text in pairs:
        if not isinstance(name, str) or not isinstance(text, str):
            raise TypeError("headers: names and values are strings")
        if not _FIELD_NAME.fullmatch(name):
            raise ValueError(f"headers: {name!r} is not a field name")
        if _CONTROL.search(text.replace("\t", " ")):
            raise ValueError(f"headers: the value of {name!r} has a control character in it")
        if name.lower() in ("range", "if-range", "accept-encoding", "content-length", "transfer-encoding"):
            raise ValueError(f"headers: {name!r} is set by rangefetch and cannot be changed")
        headers[name] = text
    return Headers(headers)


def _check_auth(value: object) -> tuple[str, str] | None:
    if value is None:
        return None
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"auth: expected a user name and a password, not {type(value).__name__}")
    user, password = (check_text(each, "auth") if isinstance(each, str) else None for each in value)
    if user is None or password is None:
        raise TypeError("auth: the user name and the password are strings")
    if ":" in user:
        # RFC 7617, section 2: the first one ends the name.
        raise ValueError("auth: there is a colon in the user name")
    return user, password


def _check_host(value: object, option: str) -> str:
    """A host, with its port where one is meant. Raises ``TypeError`` or ``ValueError``."""
    host = check_text(value, option)
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        raise ValueError(f"{option}: {host!r} is not HOST or HOST:PORT") from None
    if not parts.hostname or parts.netloc != host or "@" in host or " " in host:
        raise ValueError(f"{option}: {host!r} is not HOST or HOST:PORT")
    return host.lower()


def _check_checksum(value: object) -> str:
    text = check_text(value, "checksum")
    if not text:
        return ""
    algorithm, separator, digest = text.replace(":", "=", 1).partition("=")
    algorithm = algorithm.strip().lower()
    algorithm = {"sha1": "sha-1", "sha256": "sha-256", "sha384": "sha-384", "sha512": "sha-512"}.get(
        algorithm, algorithm
    )
    digest = digest.strip().lower()
    if not separator or algorithm not in _DIGEST_HEX_DIGITS:
        raise ValueError(f"checksum: {text!r} is not ALGORITHM=HEX with one of {', '.join(sorted(_DIGEST_HEX_DIGITS))}")
    if not re.fullmatch(f"[0-9a-f]{{{_DIGEST_HEX_DIGITS[algorithm]}}}", digest):
        raise ValueError(
            f"checksum: {text!r}: a {algorithm} digest is {_DIGEST_HEX_DIGITS[algorithm]} hexadecimal digits"
        )
    return f"{algorithm}={digest}"


class _Given:
    """Which options were given, and not left to their defaults."""

    __slots__ = ("_given",)
    _given: frozenset[str]

    @property
    def given(self) -> dict[str, Any]:
        """The options that were given when these were made, whatever their values; all of them in a copy."""
        return {name: getattr(self, name) for name in getattr(self, "_given", _NAMES)}


class CommonOptions(TypedDict, total=False):
    """The options that every function takes as keywords: the fields of ``DownloadOptions``, all optional."""

    overwrite: bool
    wait_for_other: bool
    auto_file_renaming: bool
    file_allocation: str
    durable: bool
    decode: bool
    decode_limit: int | str
    use_github_mirror: bool
    github_mirrors: Sequence[str]
    refresh_url: Callable[[str], Url] | None
    expected_size: int | str
    split: int
    max_connection_per_server: int
    min_split_size: int | str
    max_download_limit: int | str
    user_agent: str
    headers: Mapping[str, str] | Sequence[str]
    proxy: str
    no_proxy: str
    bind_address: str
    ip_version: str
    cookies: str | os.PathLike[str]
    netrc: bool | str | os.PathLike[str]
    auth: tuple[str, str] | None
    bearer_file: str | os.PathLike[str]
    location_trusted: Sequence[str]
    ca_file: str | os.PathLike[str]
    proxy_ca_file: str | os.PathLike[str]
    certificate: str | os.PathLike[str]
    private_key: str | os.PathLike[str]
    verify_tls: bool
    http_version: str
    allow_downgrade: bool
    trace: str | os.PathLike[str]
    connect_timeout: float
    read_timeout: float
    total_timeout: float
    max_tries: int
    retry_wait: float


class FetchOptions(CommonOptions, total=False):
    """The options of ``fetch``, which has ``mirrors`` and ``checksum`` as keywords of its own."""

    save_dir: str | os.PathLike[str]
    filename: str


class StreamOptions(CommonOptions, total=False):
    """The options of ``stream``, which saves no file."""

    mirrors: Sequence[Url]
    checksum: str


class AllOptions(FetchOptions, StreamOptions, total=False):
    """All options: the fields of ``DownloadOptions``."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DownloadOptions(_Given):
    """The options of one download; immutable and hashable.

    Sizes may be ``"4M"``, ``"1.5G"`` or an int; times are seconds, 0: no limit; a path may begin with ``~``.

    Output file:
        ``save_dir``, created if missing; ``filename`` (empty: from Content-Disposition, or the last part of the URL);
        ``overwrite`` replaces an existing file of that name; ``wait_for_other`` waits while another download, of this
        process or another, writes the same file, and takes its result (without it: ``TargetLocked``);
        ``auto_file_renaming`` saves beside a different file as ``name.1.ext``, ``name.2.ext`` and so on;
        ``file_allocation`` ``"falloc"`` reserves the space at once, ``"trunc"`` only sets the length, ``"none"``
        does neither (as in aria2);
        ``decode`` undoes a content coding (gzip, deflate) that the server applied
        although nobody asked for one, up to ``decode_limit`` bytes; without it such a response is refused. Checksum and
        size are those of the bytes as they are sent. A coding that the name says (``x.tar.gz``) stays;
        ``durable`` syncs the file to disk before it gets its final name, and then its directory. Without it, a power
        failure shortly after a download can leave zeros in the file.
    Sources:
        ``mirrors`` are other URLs of the same file, each used after some of its bytes were compared;
        ``use_github_mirror`` with ``github_mirrors``, rules for rewriting GitHub's URLs (see
        ``rangefetch.net.mirrors``); ``refresh_url`` is called with the URL when a link has expired
        (401, 403, 410; 400 and 404 after good responses) and
        returns a new one.
    Verification:
        ``checksum`` as ``sha-256=HEX`` or ``sha256:HEX``; ``expected_size`` in bytes (0: unknown).
    Connections and speed:
        ``split`` connections for the file, ``max_connection_per_server`` to a host, by this download and by all of
        them together, idle ones included (a stream always gets one); another connection is opened per
        ``min_split_size`` bytes remaining.
        ``max_download_limit`` in bytes per second for this download (0: no limit).
    Requests:
        ``user_agent``; ``headers`` (a mapping or ``["Name: value"]``; never sent to another origin, by a redirect or
        to a mirror); ``proxy`` (a URL; empty: from the environment), ``no_proxy`` (hosts, separated by
        commas), ``bind_address`` (a local interface or address), ``ip_version`` (``"4"`` or
        ``"6"``), ``cookies`` (a Netscape cookie file), ``netrc`` (True for ``$NETRC`` or ``~/.netrc``, or the path of
        another file; it must not be readable by others; each entry goes to the host that it names, ``default`` only to
        hosts that you named), ``auth`` (user name and password, for Basic or Digest as the server wants),
        ``bearer_file`` (a file with a token), ``location_trusted`` (further hosts that get headers, cookies and
        credentials when a redirect leads there), ``ca_file`` (PEM; empty: from the environment or the
        system's) and ``proxy_ca_file`` for an https proxy (empty: the same), ``certificate`` and ``private_key`` (PEM,
        shown to servers that ask for one; the key may be in the file of the certificate), ``verify_tls``,
        ``http_version`` (``"1.1"``, ``"2"`` or ``"3"``: the newest version to offer on a new connection; idle
        connections are reused as they are), ``allow_downgrade`` (follow redirects from https to http).
        ``trace`` is a file to which a JSON line is appended for each transfer: when, which bytes, how long the lookup,
        the connection, TLS and the first byte took, and the outcome.
    Timeouts and retries:
        ``connect_timeout`` (until a request can be sent) and ``read_timeout`` (without data after that, or with less
        than 1 KiB within it and within 10 seconds) for a transfer; ``total_timeout`` for the download; ``max_tries``
        failures in a row (0: no limit; progress of 64 KiB, or a 64th of a smaller file, starts the count again); unless
        you give it, a host that has answered may fail for 50 times ``retry_wait`` (25 s): its server may be restarting;
        ``retry_wait`` is the upper bound of the first back-off.

    Raises ``ValueError`` or ``TypeError`` naming the option.
    """

    save_dir: str | os.PathLike[str] = "."
    filename: str = ""
    overwrite: bool = False
    wait_for_other: bool = False
    auto_file_renaming: bool = False
    file_allocation: str = "falloc"
    durable: bool = False
    decode: bool = False
    decode_limit: int | str = "10G"
    mirrors: Sequence[str] = ()
    use_github_mirror: bool = False
    github_mirrors: Sequence[str] = ()
    refresh_url: Callable[[str], Url] | None = None
    checksum: str = ""
    expected_size: int | str = 0
    split: int = 16
    max_connection_per_server: int = 16
    min_split_size: int | str = "4M"
    max_download_limit: int | str = 0
    user_agent: str = DEFAULT_USER_AGENT
    headers: Mapping[str, str] | list[str] | tuple[str, ...] = dataclasses.field(default_factory=dict)
    proxy: str = ""
    no_proxy: str = ""
    bind_address: str = ""
    ip_version: str = ""
    cookies: str | os.PathLike[str] = ""
    netrc: bool | str | os.PathLike[str] = False
    auth: tuple[str, str] | None = None
    bearer_file: str | os.PathLike[str] = ""
    location_trusted: Sequence[str] = ()
    ca_file: str | os.PathLike[str] = ""
    proxy_ca_file: str | os.PathLike[str] = ""
    certificate: str | os.PathLike[str] = ""
    private_key: str | os.PathLike[str] = ""
    verify_tls: bool = True
    http_version: str = "1.1"
    allow_downgrade: bool = False
    trace: str | os.PathLike[str] = ""
    connect_timeout: float = 30.0
    read_timeout: float = 60.0
    total_timeout: float = 0.0
    max_tries: int = DEFAULT_MAX_TRIES
    retry_wait: float = 0.5

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name}: expected True or False, not {getattr(self, name)!r}")
        for name in ("filename", "user_agent", "proxy", "no_proxy", "bind_address"):
            put(name, check_text(getattr(self, name), name))
        put("filename", for_file_system(self.filename))
        for name in ("save_dir", "trace", *(name for name in _READ_FILES if name != "netrc")):
            put(name, check_path(getattr(self, name), name))
        if self.filename in (".", "..") or "/" in self.filename or "\\" in self.filename:
            raise ValueError(f"filename: {self.filename!r} is not a plain file name; the directory goes in save_dir")
        for name, allowed in (
            ("file_allocation", ("falloc", "trunc", "none")),
            ("http_version", ("1.1", "2", "3")),
            ("ip_version", ("", "4", "6")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not one of {', '.join(allowed)}")
        if isinstance(self.mirrors, str) or not isinstance(self.mirrors, Sequence):
            raise TypeError("mirrors: expected a list of URLs")
        put("mirrors", tuple(check_url(url, "mirrors", HTTP) for url in self.mirrors))
        if isinstance(self.github_mirrors, str) or not isinstance(self.github_mirrors, Sequence):
            raise TypeError("github_mirrors: expected a list of rules")
        put("github_mirrors", tuple(_check_rule(rule) for rule in self.github_mirrors))
        if self.refresh_url is not None and not callable(self.refresh_url):
            raise TypeError("refresh_url: expected a function of a URL")
        if self.proxy:
            _check_proxy(self.proxy)
        put("checksum", _check_checksum(self.checksum))
        put("headers", _check_headers(self.headers))
        put("expected_size", parse_size(self.expected_size, "expected_size"))
        put("decode_limit", parse_size(self.decode_limit, "decode_limit"))
        put("auth", _check_auth(self.auth))
        if isinstance(self.location_trusted, str) or not isinstance(self.location_trusted, Sequence):
            raise TypeError("location_trusted: expected a list of hosts")
        put("location_trusted", tuple(_check_host(host, "location_trusted") for host in self.location_trusted))
        put("max_download_limit", parse_size(self.max_download_limit, "max_download_limit"))
        put("min_split_size", max(parse_size(self.min_split_size, "min_split_size"), 1))
        for name in ("split", "max_connection_per_server"):
            put(name, check_count(getattr(self, name), name, 1, 1024))
        put("max_tries", check_count(self.max_tries, "max_tries", 0, 1_000_000))
        for name in ("connect_timeout", "read_timeout", "total_timeout", "retry_wait"):
            put(name, check_seconds(getattr(self, name), name))
        if not isinstance(self.netrc, bool):
            put("netrc", check_path(self.netrc, "netrc"))
        if self.private_key and not self.certificate:
            raise ValueError("private_key: there is no certificate that it belongs to")
        for name in _READ_FILES:
            path = getattr(self, name)
            if (path or name == "netrc") and not isinstance(path, bool) and not Path(path).is_file():
                raise ValueError(f"{name}: there is no file {path!r}")

    @classmethod
    def of(cls, options: DownloadOptions | Mapping[str, Any] | None = None, **changes: Any) -> DownloadOptions:
        """Make options from other options or a mapping, and keywords. Raises ``TypeError`` for an unknown name."""
        if options is None:
            merged: dict[str, Any] = {}
        elif isinstance(options, DownloadOptions):
            if not changes:
                return options  # which cannot change
            merged = options.given
        elif isinstance(options, Mapping):
            merged = dict(options)
        else:
            raise TypeError(f"options: expected DownloadOptions or a mapping, not {type(options).__name__}")
        merged.update(changes)
        for name in merged:
            if name not in _NAMES:
                raise TypeError(f"{name}: unknown option")
        return cls(**merged)

    def over(self, defaults: DownloadOptions) -> DownloadOptions:
        """These options, and ``defaults`` for those that were not given."""
        return DownloadOptions.of(defaults, **self.given) if defaults.given else self

    def __repr__(self) -> str:
        """What differs from the defaults, without values of headers and accounts in URLs, which may be secrets."""
        shown = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            default = {} if field.default is dataclasses.MISSING else field.default
            if value == (parse_size(default, "") if field.name in ("min_split_size", "decode_limit") else default):
                continue
            if field.name == "headers":
                value = dict.fromkeys(value, "***")
            elif field.name == "auth":
                value = (value[0], "***")
            elif field.name in ("proxy", "mirrors", "github_mirrors"):
                value = _without_accounts(value)
            shown.append(f"{field.name}={value!r}")
        return f"DownloadOptions({', '.join(shown)})"

    @property
    def bounds_tries(self) -> bool:
        """Whether ``max_tries`` alone bounds the failures in a row, because it was given."""
        return "max_tries" in self.given

    def absolute(self) -> DownloadOptions:
        """The same options, with paths that mean the same wherever the process goes."""
        changed: dict[str, Any] = {
            name: os.fspath(Path(value).absolute())
            for name in ("save_dir", "trace", *_READ_FILES)
            if isinstance(value := getattr(self, name), str | os.PathLike) and os.fspath(value)
            if not Path(value).is_absolute()
        }
        return DownloadOptions.of(self, **changed) if changed else self

    @property
    def header_items(self) -> tuple[tuple[str, str], ...]:
        """``headers`` as pairs."""
        assert isinstance(self.headers, Mapping)  # __post_init__ has seen to it
        return tuple(self.headers.items())

    def to_dict(self) -> dict[str, Any]:
        """The options as a dict for JSON, with camelCase keys; without ``refresh_url``, which is a function."""
        values = to_camel_case_dict(self)
        del values["refreshUrl"]
        return values


_NAMES = frozenset(field.name for field in dataclasses.fields(DownloadOptions))


def _noting_what_is_given(init: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init)
    def note_and_init(self: DownloadOptions, **given: Any) -> None:
        object.__setattr__(self, "_given", frozenset(given))
        init(self, **given)

    return note_and_init


DownloadOptions.__init__ = _noting_what_is_given(DownloadOptions.__init__)  # type: ignore[method-assign]
