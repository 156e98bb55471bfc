"""The options of a download, checked before any file or connection is opened.

Each option is a field of ``DownloadOptions``, with its default, its check and, if it may hold secrets, a function that
masks them in ``repr``.
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
    """Make a path absolute. Raises ``DiskError`` if it is relative and the working directory no longer exists."""
    try:
        return Path(path).absolute()
    except OSError as error:
        words = f"{path}: the current directory cannot be used: {error.strerror}"
        raise DiskError(words, errno=error.errno or 0, filename=path) from error


class CommonOptions(TypedDict, total=False):
    """The fields of ``DownloadOptions`` that every function accepts as keywords. All are optional."""

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
    """The options of ``fetch``. Its ``mirrors`` and ``checksum`` are not here, since they are named parameters."""

    save_dir: str | os.PathLike[str]
    filename: str


class StreamOptions(CommonOptions, total=False):
    """The options of ``stream``, which saves no file."""

    mirrors: Sequence[Url]
    checksum: str


class AllOptions(FetchOptions, StreamOptions, total=False):
    """All options: the fields of ``DownloadOptions``."""


def _option(default: Any, check: Check, *, shown: Callable[[Any], object] = lambda value: value) -> Any:
    """Define a field of ``DownloadOptions``; ``shown`` returns its value with secrets masked, for ``repr``."""
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
    """Remembers how options were made: which were given rather than defaulted, and which options they derive from."""

    __slots__ = ("_given", "_manner")
    _given: frozenset[str]
    _manner: DownloadOptions

    @property
    def given(self) -> dict[str, Any]:
        """The options that were given explicitly, even where they equal the default. A copy counts all as given."""
        return {name: getattr(self, name) for name in getattr(self, "_given", _NAMES)}


@records.dataclass(frozen=True, slots=True, kw_only=True)
class DownloadOptions(_Made):
    """The options of one download; immutable and hashable.

    Sizes are an int or a string such as ``"4M"`` or ``"1.5G"``. Times are in seconds; 0 means no limit. Paths may begin
    with ``~``.

    Output file:
        ``save_dir`` is the directory, which is created if missing. ``filename`` is the file's name in it (empty: from
        Content-Disposition, or the last part of the URL). ``overwrite`` replaces an existing file of that name.
        ``wait_for_other`` waits if another download, in this process or another, has the same file or will have its
        name, and uses its result; without it such a download fails with ``TargetLocked`` or ``TargetExists``.
        ``auto_file_renaming`` saves as ``name.1.ext``, ``name.2.ext`` and so on if a different file has the name.
        ``file_allocation`` is ``"falloc"``, which reserves the space at once, ``"trunc"``, which only sets the file's
        length, or ``"none"``, which does neither (the names are aria2's).
        ``decode`` undoes a content coding (gzip, deflate) that the server applied although none was requested, up to
        ``decode_limit`` bytes; without it such a response is refused. Checksum and size are still those of the bytes as
        sent. A coding that is part of the file's name (``x.tar.gz``) is kept.
        ``durable`` syncs the file to disk before it gets its final name, and its directory afterwards. Without it, a
        power failure shortly after a download can leave zeros in the file.
    Sources:
        ``mirrors`` are other URLs of the same file; each is used only after some of its bytes have been compared.
        ``use_github_mirror`` turns on ``github_mirrors``, which are rules for rewriting GitHub's URLs (see
        ``rangefetch.net.mirrors``). ``refresh_url`` is called with the URL when a link has expired (status 401, 403 or
        410; also 400 and 404 after good responses) and returns a new one.
    Verification:
        ``checksum`` is ``sha-256=HEX`` or ``sha256:HEX``. ``expected_size`` is in bytes (0: unknown).
        ``max_file_size`` is in bytes: a larger file is refused with ``FileTooLarge``, even if the server does not state
        its size (0: no limit).
    Connections and speed:
        ``split`` is the maximum number of connections for the file. ``max_connection_per_server`` is the maximum to one
        host, for this download and for all downloads together, including idle ones; a stream always gets one.
        ``min_split_size``: another connection is opened per this many bytes remaining.
        ``max_download_limit`` limits this download, in bytes per second (0: no limit).
        ``host_rate`` limits the requests to one host, for all downloads with this option together: ``"10/s"``,
        ``"30/m"``, ``"100/h"`` or a number per second (0: no limit). Requests are evenly spaced. Every request counts,
        including retries, redirects (for the host they lead to) and each range of a file. With aria2, each try counts,
        and so does the request before it.
        ``robots`` fetches each origin's robots.txt first and obeys it (RFC 9309): a forbidden download fails with
        ``RobotsRefused``, and a Crawl-delay acts as a ``host_rate``. Needs ``rangefetch[robots]``.
    Requests:
        ``user_agent`` is the User-Agent header. ``headers`` is a mapping or a list such as ``["Name: value"]``; these
        headers are never sent to another origin, neither by a redirect nor to a mirror.
        ``proxy`` is a URL (empty: from the environment), and ``no_proxy`` lists hosts to contact without it, separated
        by commas. ``bind_address`` is a local interface or address. ``ip_version`` is ``"4"`` or ``"6"`` (empty:
        either).
        ``cookies`` is a Netscape cookie file. ``netrc`` is True for ``$NETRC`` or ``~/.netrc``, or the path of another
        file. The file must not be readable by others; each entry is sent to the host that it names, and the ``default``
        entry only to hosts that you named. ``auth`` is a user name and password, for Basic or Digest as the server
        wants. ``bearer_file`` is a file with a token. ``location_trusted`` names further hosts that get headers,
        cookies and credentials when a redirect leads there.
        ``ca_file`` has the trusted certificates (PEM; empty: from the environment or the system), and
        ``proxy_ca_file`` those for an https proxy (empty: the same). ``certificate`` and ``private_key`` (PEM) are
        presented to servers that ask for a certificate; the key may be in the certificate's file. ``verify_tls=False``
        turns off verification of the server's certificate.
        ``http_version`` is the newest version to offer on a new connection, ``"1.1"``, ``"2"`` or ``"3"``; idle
        connections are reused whatever their version. ``allow_downgrade`` follows redirects from https to http.
        ``private_addresses`` says whether to connect to addresses outside the public Internet, such as loopback and
        local networks: ``"allow"``, ``"named"`` (only at hosts that you named, not where redirects lead) or
        ``"refuse"``. Where such addresses are not allowed, requests through a proxy are refused too, since the proxy
        resolves names itself.
        ``trace`` is a file to which a JSON line is appended for each transfer: when it ran, which bytes it requested,
        how long the lookup, the connection, TLS and the first byte took, and how it ended.
    Timeouts and retries:
        ``connect_timeout`` bounds the time until a request can be sent. ``read_timeout`` is how long a transfer may
        receive nothing after that; one that receives less than 1 KiB in that time, or in 10 seconds if that is longer,
        is given up as well. ``total_timeout`` bounds the whole download. ``max_tries`` is how many failures in a row
        end the download (0: no limit); progress of 64 KiB, or of a 64th of a smaller file, restarts the count. Unless
        you set ``max_tries``, a host that has answered (a 503 is an answer) may keep failing for 50 times
        ``retry_wait`` (25 s by default), since its server may be restarting. ``retry_wait`` is the upper bound of the
        delay before the first retry.

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
        """Make options from other options or a mapping, changed by keywords. Raises ``TypeError`` for an unknown name,
        and ``TypeError`` or ``ValueError`` for a bad value.
        """
        if options is None:
            merged: dict[str, Any] = {}
        elif isinstance(options, DownloadOptions):
            if not changes:
                return options  # they are immutable
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
        """A copy with some values changed. Only these are checked, since the others have been: in a long list each file
        has a copy with its own name.
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
        """An options object shared by all options that make the same requests: the original, if these differ from it
        only in where the file goes, otherwise these. What was worked out for one can be reused for all with the same.
        """
        return getattr(self, "_manner", self)

    def over(self, defaults: DownloadOptions) -> DownloadOptions:
        """These options, with ``defaults`` filling in those that were not given."""
        return DownloadOptions.of(defaults, **self.given) if defaults.given else self

    def __repr__(self) -> str:
        """The options that differ from the defaults, with header values, passwords and accounts in URLs masked."""
        shown = (
            f"{field.name}={field.metadata['shown'](value)!r}"
            for field in records.fields(self)
            if (value := getattr(self, field.name)) != _DEFAULTS[field.name]
        )
        return f"DownloadOptions({', '.join(shown)})"

    @property
    def request_every_us(self) -> int:
        """Microseconds between requests to a host (``host_rate``); 0: no limit."""
        rate = float(self.host_rate)
        return round(1e6 / rate) if rate else 0

    @property
    def bounds_tries(self) -> bool:
        """Whether ``max_tries`` was given, and thus alone bounds the failures in a row."""
        return "max_tries" in self.given

    def absolute(self) -> DownloadOptions:
        """The same options with absolute paths. Raises ``DiskError`` if the working directory no longer exists."""
        changed: dict[str, Any] = {
            name: os.fspath(absolute_path(value))
            for name in _PATHS
            if isinstance(value := getattr(self, name), str) and value and not value.startswith(os.sep)
        }
        return DownloadOptions.of(self, **changed) if changed else self

    @property
    def header_items(self) -> tuple[tuple[str, str], ...]:
        """``headers`` as (name, value) pairs."""
        assert isinstance(self.headers, Mapping)  # __post_init__ made it one
        return tuple(self.headers.items())

    def to_dict(self) -> dict[str, Any]:
        """The options as a dict for JSON, with camelCase keys, but without ``refresh_url``, which is a function."""
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


DownloadOptions.__init__ = _noting_what_is_given(DownloadOptions.__init__)  # type: ignore[method-assign]  # records generates it, and it is wrapped once
