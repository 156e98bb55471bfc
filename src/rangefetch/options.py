"""The options of a download, checked before any file or connection is opened.

Each is a field of ``DownloadOptions``, with its default, its check and, where it may hold secrets, how it is shown.
"""

from __future__ import annotations

import functools
import operator
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypedDict

from rangefetch import records
from rangefetch.checks import (
    HTTP,
    Check,
    Headers,
    Url,
    check_auth,
    check_checksum,
    check_file,
    check_filename,
    check_flag,
    check_function,
    check_headers,
    check_host,
    check_path,
    check_proxy,
    check_rule,
    check_seconds,
    check_text,
    check_url,
    count_of,
    list_of,
    one_of,
    parse_rate,
    parse_size,
)
from rangefetch.errors import DiskError
from rangefetch.progress import to_camel_case_dict
from rangefetch.version import __version__

__all__ = [
    "DEFAULT_MAX_TRIES",
    "DEFAULT_USER_AGENT",
    "AllOptions",
    "CommonOptions",
    "DownloadOptions",
    "FetchOptions",
    "StreamOptions",
    "absolute_path",
]

DEFAULT_USER_AGENT = f"rangefetch/{__version__}"
DEFAULT_MAX_TRIES = 5
_ACCOUNT = re.compile(r"(^|//)[^/?#]*@")


def absolute_path(path: str) -> Path:
    """A path that means the same wherever the process goes. Raises ``DiskError`` where it is relative to a working
    directory that is gone.
    """
    try:
        return Path(path).absolute()
    except OSError as error:
        words = f"{path}: the current directory cannot be used: {error.strerror}"
        raise DiskError(words, errno=error.errno or 0, filename=path) from error


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
    max_file_size: int | str
    split: int
    max_connection_per_server: int
    min_split_size: int | str
    max_download_limit: int | str
    host_rate: float | str
    robots: bool
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
    private_addresses: str
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


def _option(default: Any, check: Check, *, shown: Callable[[Any], object] = lambda value: value) -> Any:
    """A field of ``DownloadOptions``; ``shown`` is what people may see of its value."""
    return records.field(default=default, metadata={"check": check, "shown": shown})


def _at_least_one_byte(value: object, option: str) -> int:
    return max(parse_size(value, option), 1)


def _check_http_url(value: object, option: str) -> str:
    return check_url(value, option, HTTP)


def _check_netrc(value: object, option: str) -> bool | str:
    if isinstance(value, str | os.PathLike):
        return check_file(value, option) or check_flag(value, option)
    return check_flag(value, option)


def _without_accounts(urls: Any) -> Any:
    if isinstance(urls, str):
        return _ACCOUNT.sub(r"\1***@", urls)
    return tuple(_without_accounts(each) for each in urls)


def _without_values(headers: Mapping[str, str]) -> dict[str, str]:
    return dict.fromkeys(headers, "***")


def _without_password(auth: tuple[str, str]) -> tuple[str, str]:
    return auth[0], "***"


class _Made:
    """How options were made: which of them were given, and not left to their defaults, and of which others."""

    __slots__ = ("_given", "_manner")
    _given: frozenset[str]
    _manner: DownloadOptions

    @property
    def given(self) -> dict[str, Any]:
        """The options that were given when these were made, whatever their values; all of them in a copy."""
        return {name: getattr(self, name) for name in getattr(self, "_given", _NAMES)}


@records.dataclass(frozen=True, slots=True, kw_only=True)
class DownloadOptions(_Made):
    """The options of one download; immutable and hashable.

    Sizes may be ``"4M"``, ``"1.5G"`` or an int; times are seconds, 0: no limit; a path may begin with ``~``.

    Output file:
        ``save_dir``, created if missing; ``filename`` (empty: from Content-Disposition, or the last part of the URL);
        ``overwrite`` replaces an existing file of that name; ``wait_for_other`` waits while another download, in
        this process or another, has the file or will have its name, and takes its result (without it:
        ``TargetLocked``, ``TargetExists``);
        ``auto_file_renaming`` saves beside a different file as ``name.1.ext``, ``name.2.ext`` and so on;
        ``file_allocation`` ``"falloc"`` reserves the space at once, ``"trunc"`` only sets the length, ``"none"``
        does neither (as in aria2);
        ``decode`` undoes a content coding (gzip, deflate) that the server applied although none was requested, up to
        ``decode_limit`` bytes; without it such a response is refused. Checksum and size are those of the bytes as
        sent. A coding that is part of the name (``x.tar.gz``) stays;
        ``durable`` syncs the file to disk before it gets its final name, and then its directory. Without it, a power
        failure shortly after a download can leave zeros in the file.
    Sources:
        ``mirrors`` are other URLs of the same file, each used after some of its bytes were compared;
        ``use_github_mirror`` with ``github_mirrors``, rules for rewriting GitHub's URLs (see
        ``rangefetch.net.mirrors``); ``refresh_url`` is called with the URL when a link has expired
        (401, 403, 410; 400 and 404 after good responses) and
        returns a new one.
    Verification:
        ``checksum`` as ``sha-256=HEX`` or ``sha256:HEX``; ``expected_size`` in bytes (0: unknown); ``max_file_size`` in
        bytes: a larger file is refused (``FileTooLarge``), even if the server does not state its size (0: no limit).
    Connections and speed:
        ``split`` connections for the file, ``max_connection_per_server`` to a host, by this download and by all of
        them together, idle ones included (a stream always gets one); another connection is opened per
        ``min_split_size`` bytes remaining.
        ``max_download_limit`` in bytes per second for this download (0: no limit);
        ``host_rate`` is how many requests a host may get, by all downloads with this option together: ``"10/s"``,
        ``"30/m"``, ``"100/h"`` or a number of them a second (0: no limit). Each request counts, also those of retries,
        redirects (at the host to which they lead) and the ranges of one file; they are evenly spaced. With aria2, each
        try counts, and so does the request before it;
        ``robots`` fetches each origin's robots.txt first and obeys it (RFC 9309): what it forbids fails
        (``RobotsRefused``), and its Crawl-delay is a ``host_rate``. Needs ``rangefetch[robots]``.
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
        connections are reused as they are), ``allow_downgrade`` (follow redirects from https to http),
        ``private_addresses`` (whether to connect to addresses outside the public Internet, such as loopback and local
        networks: ``"allow"``, ``"named"`` only at hosts that you named, not where redirects lead, or
        ``"refuse"``; downloads through a proxy, which resolves names itself, are refused too).
        ``trace`` is a file to which a JSON line is appended for each transfer: when, which bytes, how long the lookup,
        the connection, TLS and the first byte took, and the outcome.
    Timeouts and retries:
        ``connect_timeout`` (until a request can be sent) and ``read_timeout`` (without data after that, or with less
        than 1 KiB within it and within 10 seconds) for a transfer; ``total_timeout`` for the download; ``max_tries``
        failures in a row (0: no limit; progress of 64 KiB, or a 64th of a smaller file, starts the count again); unless
        you give it, a host that has answered (a 503 is an answer) may fail for 50 times ``retry_wait`` (25 s), since
        its server may be restarting; ``retry_wait`` is the upper bound of the first back-off.

    Raises ``ValueError`` or ``TypeError`` naming the option.
    """

    save_dir: str | os.PathLike[str] = _option(".", check_path)
    filename: str = _option("", check_filename)
    overwrite: bool = _option(False, check_flag)
    wait_for_other: bool = _option(False, check_flag)
    auto_file_renaming: bool = _option(False, check_flag)
    file_allocation: str = _option("falloc", one_of("falloc", "trunc", "none"))
    durable: bool = _option(False, check_flag)
    decode: bool = _option(False, check_flag)
    decode_limit: int | str = _option("10G", parse_size)
    mirrors: Sequence[str] = _option((), list_of("URLs", _check_http_url), shown=_without_accounts)
    use_github_mirror: bool = _option(False, check_flag)
    github_mirrors: Sequence[str] = _option((), list_of("rules", check_rule), shown=_without_accounts)
    refresh_url: Callable[[str], Url] | None = _option(None, check_function)
    checksum: str = _option("", check_checksum)
    expected_size: int | str = _option(0, parse_size)
    max_file_size: int | str = _option(0, parse_size)
    split: int = _option(16, count_of(1, 1024))
    max_connection_per_server: int = _option(16, count_of(1, 1024))
    min_split_size: int | str = _option("4M", _at_least_one_byte)
    max_download_limit: int | str = _option(0, parse_size)
    host_rate: float | str = _option(0.0, parse_rate)
    robots: bool = _option(False, check_flag)
    user_agent: str = _option(DEFAULT_USER_AGENT, check_text)
    headers: Mapping[str, str] | Sequence[str] = _option(Headers({}), check_headers, shown=_without_values)
    proxy: str = _option("", check_proxy, shown=_without_accounts)
    no_proxy: str = _option("", check_text)
    bind_address: str = _option("", check_text)
    ip_version: str = _option("", one_of("", "4", "6"))
    cookies: str | os.PathLike[str] = _option("", check_file)
    netrc: bool | str | os.PathLike[str] = _option(False, _check_netrc)
    auth: tuple[str, str] | None = _option(None, check_auth, shown=_without_password)
    bearer_file: str | os.PathLike[str] = _option("", check_file)
    location_trusted: Sequence[str] = _option((), list_of("hosts", check_host))
    ca_file: str | os.PathLike[str] = _option("", check_file)
    proxy_ca_file: str | os.PathLike[str] = _option("", check_file)
    certificate: str | os.PathLike[str] = _option("", check_file)
    private_key: str | os.PathLike[str] = _option("", check_file)
    verify_tls: bool = _option(True, check_flag)
    http_version: str = _option("1.1", one_of("1.1", "2", "3"))
    allow_downgrade: bool = _option(False, check_flag)
    private_addresses: str = _option("allow", one_of("allow", "named", "refuse"))
    trace: str | os.PathLike[str] = _option("", check_path)
    connect_timeout: float = _option(30.0, check_seconds)
    read_timeout: float = _option(60.0, check_seconds)
    total_timeout: float = _option(0.0, check_seconds)
    max_tries: int = _option(DEFAULT_MAX_TRIES, count_of(0, 1_000_000))
    retry_wait: float = _option(0.5, check_seconds)

    def __post_init__(self) -> None:
        for field in records.fields(self):
            value = getattr(self, field.name)
            checked = _DEFAULTS[field.name] if value is field.default else field.metadata["check"](value, field.name)
            object.__setattr__(self, field.name, checked)
        self._check_together()

    def _check_together(self) -> None:
        if self.private_key and not self.certificate:
            raise ValueError("private_key: needs a certificate")

    @classmethod
    def of(cls, options: DownloadOptions | Mapping[str, Any] | None = None, **changes: Any) -> DownloadOptions:
        """Make options from other options or a mapping, and keywords. Raises ``TypeError`` for an unknown name."""
        if options is None:
            merged: dict[str, Any] = {}
        elif isinstance(options, DownloadOptions):
            if not changes:
                return options  # which cannot change
            if type(options) is cls:
                return options._changed(changes)
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

    def _changed(self, changes: Mapping[str, Any]) -> Self:
        """The same with some other values, which alone are checked: the others have been, and files in a long list have
        each a name of its own.
        """
        made = object.__new__(type(self))
        for name, value in zip(_FIELDS, _values_of(self), strict=True):
            object.__setattr__(made, name, value)
        for name, value in changes.items():
            if name not in _FIELDS:
                raise TypeError(f"{name}: unknown option")
            field = _FIELDS[name]
            checked = _DEFAULTS[name] if value is field.default else field.metadata["check"](value, name)
            object.__setattr__(made, name, checked)
        made._check_together()
        object.__setattr__(made, "_given", getattr(self, "_given", _NAMES) | changes.keys())
        if _OF_THE_PLACE.issuperset(changes):
            object.__setattr__(made, "_manner", self.manner)
        return made

    @property
    def manner(self) -> DownloadOptions:
        """Options by which servers are asked in the same way: those of which these were made, where they differ in the
        place of the file alone, else these. Whoever has found out how to ask knows it for all that have the same.
        """
        return getattr(self, "_manner", self)

    def over(self, defaults: DownloadOptions) -> DownloadOptions:
        """These options, and ``defaults`` for those that were not given."""
        return DownloadOptions.of(defaults, **self.given) if defaults.given else self

    def __repr__(self) -> str:
        """What differs from the defaults, without values of headers and accounts in URLs, which may be secrets."""
        shown = (
            f"{field.name}={field.metadata['shown'](value)!r}"
            for field in records.fields(self)
            if (value := getattr(self, field.name)) != _DEFAULTS[field.name]
        )
        return f"DownloadOptions({', '.join(shown)})"

    @property
    def request_every_us(self) -> int:
        """Microseconds from one request to a host to the next (``host_rate``); 0: no time at all."""
        rate = float(self.host_rate)
        return round(1e6 / rate) if rate else 0

    @property
    def bounds_tries(self) -> bool:
        """Whether ``max_tries`` alone bounds the failures in a row, because it was given."""
        return "max_tries" in self.given

    def absolute(self) -> DownloadOptions:
        """The same options, with paths that mean the same wherever the process goes. Raises ``DiskError``."""
        changed: dict[str, Any] = {
            name: os.fspath(absolute_path(value))
            for name in _PATHS
            if isinstance(value := getattr(self, name), str) and value and not value.startswith(os.sep)
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


_FIELDS: dict[str, Any] = {field.name: field for field in records.fields(DownloadOptions)}
_NAMES = frozenset(_FIELDS)
_PATHS = tuple(
    name for name, field in _FIELDS.items() if field.metadata["check"] in (check_path, check_file, _check_netrc)
)
_OF_THE_PLACE = frozenset({"save_dir", "filename", "overwrite", "expected_size"})
_values_of = operator.attrgetter(*_FIELDS)
_DEFAULTS = {
    field.name: field.metadata["check"](field.default, field.name) for field in records.fields(DownloadOptions)
}


def _noting_what_is_given(init: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init)
    def note_and_init(self: DownloadOptions, **given: Any) -> None:
        object.__setattr__(self, "_given", frozenset(given))
        init(self, **given)

    return note_and_init


DownloadOptions.__init__ = _noting_what_is_given(DownloadOptions.__init__)  # type: ignore[method-assign]  # it is made by records, and wrapped once
