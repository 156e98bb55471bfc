"""Checks of option values. Each check returns the value in the form that is used from then on, and raises ``TypeError``
or ``ValueError`` naming the option.
"""

from __future__ import annotations

import math
import numbers
import operator
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from rangefetch.encoding import for_file_system
from rangefetch.masking import mask_url

__all__ = [
    "HTTP",
    "Check",
    "Headers",
    "Url",
    "UrlObject",
    "as_string",
    "check_auth",
    "check_checksum",
    "check_count",
    "check_file",
    "check_filename",
    "check_flag",
    "check_function",
    "check_headers",
    "check_host",
    "check_path",
    "check_proxy",
    "check_rule",
    "check_seconds",
    "check_text",
    "check_url",
    "count_of",
    "is_metadata_url",
    "list_of",
    "one_of",
    "parse_size",
]

HTTP = ("http", "https")
_SCHEMES = (*HTTP, "ftp", "sftp", "magnet", "file")
_PROXY_SCHEMES = (*HTTP, "socks4", "socks4a", "socks5", "socks5h")
_DESCRIPTIONS = (".torrent", ".metalink", ".meta4")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
# The number of digits is bounded, since int() and float() have limits.
_SIZE = re.compile(r"(\d{1,30}(?:\.\d{1,30})?|\.\d{1,30})\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_RATE = re.compile(r"(\d+(?:\.\d+)?)(?:/([smhd]))?", re.ASCII)
_PERIODS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# Includes surrogates that cannot be encoded, but not those that stand for bytes that are not UTF-8 (os.fsdecode).
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udc7f\udd00-\udfff]")
# RFC 9110, section 5.1: a field name is a token.
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# In FTP and SFTP URLs, whose parts are decoded and sent in command lines (RFC 1738, section 3.2.2).
_ENDS_A_COMMAND = re.compile(r"%0[0ad]", re.IGNORECASE)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")  # RFC 3986, section 3.1
_DIGEST_HEX_DIGITS = {"md5": 32, "sha-1": 40, "sha-256": 64, "sha-384": 96, "sha-512": 128, "blake2b": 128}

Check = Callable[[Any, str], Any]
"""A check of one value; its second argument is the name of the option."""


class UrlObject(Protocol):
    """A URL as an object whose ``str()`` is the URL: ``yarl.URL``, ``httpx.URL`` and the like."""

    @property
    def scheme(self) -> str: ...
    @property
    def host(self) -> str | None: ...


Url = str | UrlObject
"""The types accepted as a URL."""


class Headers(Mapping[str, str]):
    """Header fields in the order given. Immutable and hashable, unlike a dict; equal to a dict with the same fields."""

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
        """Hide the values, which may be secrets."""
        return repr(dict.fromkeys(self._fields, "***"))

    def __reduce__(self) -> tuple[type[Headers], tuple[dict[str, str]]]:
        return Headers, (self._fields,)


def _whole_number(value: object) -> int | None:
    """The value as an int, if it is an integer (including NumPy's) and not a bool; otherwise None."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]  # it raises TypeError for other types
    except TypeError:
        return None


def as_string(text: str) -> str:
    """Convert an instance of a subclass of ``str``, such as NumPy's or a string enum, to a plain ``str``: the engine
    accepts nothing else.
    """
    return text if type(text) is str else str.__str__(text)


def parse_size(value: object, option: str) -> int:
    """Parse a size in bytes: ``"4M"``, ``"1.5G"`` (powers of 1024, as in aria2) or a number.

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


def parse_rate(value: object, option: str) -> float:
    """Parse a rate and return it per second: ``"10/s"``, ``"30/m"``, ``"100/h"``, ``"500/d"`` or a number per second
    (0: no limit).

    Raises ``TypeError`` or ``ValueError`` naming ``option``.
    """
    if isinstance(value, str):
        match = _RATE.fullmatch(value.strip())
        if match is None:
            raise ValueError(f"{option}: {value!r} is not a rate; write 10/s, 30/m or 100/h")
        rate = float(match[1]) / _PERIODS_S[match[2] or "s"]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        rate = float(value)
    else:
        raise TypeError(f"{option}: a rate is a string such as '10/s' or a number, not {type(value).__name__}")
    if rate and not 1 / _PERIODS_S["d"] <= rate <= 1e6:
        raise ValueError(f"{option}: {value!r} is out of range")
    return rate


def is_metadata_url(url: str) -> bool:
    """Whether the URL is that of a description of files: a magnet link, a torrent or a Metalink."""
    lowered = url.lower()
    if lowered.startswith("magnet:"):
        return True
    # A quick test first: every URL is checked, and few contain these letters.
    return (".torrent" in lowered or ".meta" in lowered) and urlsplit(lowered).path.endswith(_DESCRIPTIONS)


def check_url(url: object, option: str = "url", schemes: Sequence[str] = _SCHEMES) -> str:
    """Check a URL and return it as a string. It must have one of the ``schemes``, a host (except magnet links) and no
    spaces or control characters. The scheme ``file`` is only for torrents and Metalinks on this machine.

    An object is converted with ``str()``, if that gives an absolute URL. Raises ``TypeError`` or ``ValueError`` naming
    ``option``.
    """
    if not isinstance(url, str):
        kind = type(url).__name__
        is_path = isinstance(url, os.PathLike)  # a path would turn "//" into "/"
        url = str(url)
        if is_path or not _SCHEME.match(url):
            raise TypeError(f"{option}: a URL is a string, not {kind}")
    url = as_string(url)
    shown = mask_url(url)
    if _CONTROL.search(url) or " " in url:
        raise ValueError(f"{option}: {shown!r} has a space or a control character in it; percent-encode it")
    try:
        parts = urlsplit(url)
        if parts.port == 0:
            raise ValueError("port 0 is not valid")
    except ValueError as error:
        raise ValueError(f"{option}: {shown!r} is malformed: {error}") from None
    scheme = parts.scheme.lower()
    if scheme not in schemes:
        is_named = scheme and shown.lower().startswith(f"{scheme}:")  # rather than "user:password@host"
        what = f"the scheme {parts.scheme!r} is not supported" if is_named else "no URL scheme"
        raise ValueError(f"{option}: {shown!r}: {what}; use {', '.join(schemes[:-1])} or {schemes[-1]}")
    if scheme == "file":
        if not is_metadata_url(url) or parts.netloc not in ("", "localhost"):
            raise ValueError(f"{option}: {shown!r}: file: URLs may only name torrents and Metalinks on this machine")
    elif scheme == "magnet":
        if "urn:btih:" not in unquote(url).lower():
            raise ValueError(f"{option}: {shown!r}: this magnet link names no torrent (xt=urn:btih:)")
    elif not parts.hostname:
        raise ValueError(f"{option}: {shown!r} has no host")
    elif scheme not in HTTP and _ENDS_A_COMMAND.search(url):
        raise ValueError(
            f"{option}: {shown!r} has an encoded line break, which {scheme} would read as a second command"
        )
    return url


def check_rule(rule: object, option: str) -> str:
    """Check a rule for rewriting URLs (``net.mirrors``). Raises ``TypeError`` or ``ValueError`` naming ``option``."""
    if not isinstance(rule, str):
        raise TypeError(f"{option}: a rule is a string, not {type(rule).__name__}")
    head, _, tail = rule.rpartition("=http")
    target = "http" + tail if head else rule
    for part in (head, target) if head else (target,):
        parts = urlsplit(part)
        if parts.scheme not in HTTP or not parts.hostname:
            raise ValueError(f"{option}: {rule!r} is neither https://PREFIX/ nor https://FROM/=https://TO/")
    return as_string(rule)


def check_proxy(value: object, option: str) -> str:
    """Check the URL of a proxy, or "". Raises ``TypeError`` or ``ValueError`` naming ``option``."""
    if not isinstance(value, str | os.PathLike) and _SCHEME.match(str(value)):
        value = str(value)  # a URL object, as in check_url
    proxy = check_text(value, option)
    if not proxy:
        return ""
    shown = mask_url(proxy.rpartition("@")[2])  # without user name and password
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        _ = parts.port
    except ValueError:
        raise ValueError(f"{option}: {shown!r} is malformed") from None
    if parts.scheme not in _PROXY_SCHEMES or not parts.hostname or " " in proxy:
        schemes = [f"{scheme}://" for scheme in _PROXY_SCHEMES]
        known = f"{', '.join(schemes[:-1])} or {schemes[-1]}"
        raise ValueError(f"{option}: {shown!r} is not the URL of a proxy; use {known} and a host")
    return proxy


def check_function(value: Any, option: str) -> Any:
    """Check for a function, or None. Raises ``TypeError`` naming ``option``."""
    if value is not None and not callable(value):
        raise TypeError(f"{option}: expected a function, not {type(value).__name__}")
    return value


def check_flag(value: object, option: str) -> bool:
    """Check for True or False. Raises ``TypeError`` naming ``option``."""
    if isinstance(value, bool):
        return value
    if getattr(value, "dtype", None) == "bool" and getattr(value, "ndim", None) == 0:  # NumPy's
        return bool(value)
    raise TypeError(f"{option}: expected True or False, not {value!r}")


def check_text(value: object, option: str) -> str:
    """Check for a string or path without control characters. Raises ``TypeError`` or ``ValueError``."""
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{option}: expected a string, not {type(value).__name__}")
    text = os.fspath(value)
    if not isinstance(text, str):
        raise TypeError(f"{option}: expected a string, not a {type(value).__name__} of bytes")
    if _CONTROL.search(text):
        raise ValueError(f"{option}: {text!r} has a control character in it")
    return as_string(text)


def check_path(value: object, option: str) -> str:
    """Check a path and return it as a string, with a ``~`` at the start expanded as in a shell. "" stays "".

    Raises ``TypeError`` or ``ValueError``, also if the home directory is not known.
    """
    path = os.path.expanduser(for_file_system(check_text(value, option)))  # noqa: PTH111 - it keeps the slash of "a/"
    if path == "~" or path.startswith("~/"):
        raise ValueError(f"{option}: {path!r}: this user has no home directory; give the full path, or set HOME")
    return path


def check_file(value: object, option: str) -> str:
    """Check for the path of an existing file, or "". Raises ``TypeError`` or ``ValueError``."""
    path = check_path(value, option)
    if path and not Path(path).is_file():
        raise ValueError(f"{option}: there is no file {path!r}")
    return path


def check_filename(value: object, option: str) -> str:
    """Check for a file name without a directory, or "". Raises ``TypeError`` or ``ValueError``."""
    name = for_file_system(check_text(value, option))
    if name in (".", "..") or "/" in name or "\\" in name:
        raise ValueError(f"{option}: {name!r} is not a plain file name; the directory goes in save_dir")
    return name


def check_count(value: object, option: str, low: int, high: int) -> int:
    """Check for an int from ``low`` to ``high``. Raises ``TypeError`` or ``ValueError``."""
    number = _whole_number(value)
    if number is None:
        raise TypeError(f"{option}: expected an int, not {type(value).__name__}")
    if not low <= number <= high:
        raise ValueError(f"{option}: {number} is out of range; {low} to {high} is allowed")
    return number


def check_seconds(value: object, option: str) -> float:
    """Check for a time in seconds; 0 is allowed. Raises ``TypeError`` or ``ValueError``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{option}: expected a number of seconds, not {type(value).__name__}")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    if not 0 <= seconds < 1e9:  # also rejects NaN
        raise ValueError(f"{option}: {value} is out of range; use seconds, or 0 for no limit")
    return seconds


def check_headers(value: object, option: str) -> Headers:
    """Check header fields. Raises ``TypeError`` or ``ValueError``."""
    if isinstance(value, Mapping):
        pairs = list(value.items())
    elif isinstance(value, (list, tuple)):
        pairs = []
        for line in value:
            if not isinstance(line, str):
                raise TypeError(f"{option}: expected 'Name: value' strings, not {type(line).__name__}")
            name, colon, text = line.partition(":")
            if not colon:
                raise ValueError(f"{option}: a header has no colon; write 'Name: value'")  # it may be a secret
            pairs.append((name.strip(), text.strip()))
    else:
        raise TypeError(f"{option}: expected a mapping or a list of 'Name: value', not {type(value).__name__}")
    headers: dict[str, str] = {}
    for name, text in pairs:
        if not isinstance(name, str) or not isinstance(text, str):
            raise TypeError(f"{option}: names and values must be strings")
        if not _FIELD_NAME.fullmatch(name):
            word = name.split()[0] if name.split() else ""  # the rest may be a secret
            raise ValueError(f"{option}: {word!r} is not a header name, or has no colon after it")
        if _CONTROL.search(text.replace("\t", " ")):
            raise ValueError(f"{option}: the value of {name!r} has a control character in it")
        if name.lower() in ("range", "if-range", "accept-encoding", "content-length", "transfer-encoding"):
            raise ValueError(f"{option}: {name!r} is set by rangefetch and cannot be changed")
        headers[as_string(name)] = as_string(text)
    return Headers(headers)


def check_auth(value: object, option: str) -> tuple[str, str] | None:
    """Check for a user name and a password, or None. Raises ``TypeError`` or ``ValueError``."""
    if value is None:
        return None
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{option}: expected a user name and a password, not {type(value).__name__}")
    user, password = (check_text(each, option) if isinstance(each, str) else None for each in value)
    if user is None or password is None:
        raise TypeError(f"{option}: the user name and the password must be strings")
    if ":" in user:
        # RFC 7617, section 2: the first colon ends the user name.
        raise ValueError(f"{option}: the user name must not contain a colon")
    return user, password


def check_host(value: object, option: str) -> str:
    """Check for a host, optionally with a port. Raises ``TypeError`` or ``ValueError``."""
    host = check_text(value, option)
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        raise ValueError(f"{option}: {host!r} is not HOST or HOST:PORT") from None
    if not parts.hostname or parts.netloc != host or "@" in host or " " in host:
        raise ValueError(f"{option}: {host!r} is not HOST or HOST:PORT")
    return host.lower()


def check_checksum(value: object, option: str) -> str:
    """Check a digest, or "", and return it as ``ALGORITHM=HEX`` in lower case. Raises ``TypeError``, ``ValueError``."""
    text = check_text(value, option)
    if not text:
        return ""
    algorithm, separator, digest = text.replace(":", "=", 1).partition("=")
    algorithm = algorithm.strip().lower()
    algorithm = {"sha1": "sha-1", "sha256": "sha-256", "sha384": "sha-384", "sha512": "sha-512"}.get(
        algorithm, algorithm
    )
    digest = digest.strip().lower()
    if not separator or algorithm not in _DIGEST_HEX_DIGITS:
        raise ValueError(f"{option}: {text!r} is not ALGORITHM=HEX with one of {', '.join(sorted(_DIGEST_HEX_DIGITS))}")
    if not re.fullmatch(f"[0-9a-f]{{{_DIGEST_HEX_DIGITS[algorithm]}}}", digest):
        raise ValueError(
            f"{option}: {text!r}: a {algorithm} digest has {_DIGEST_HEX_DIGITS[algorithm]} hexadecimal digits"
        )
    return f"{algorithm}={digest}"


def one_of(*allowed: str) -> Check:
    """Return a check that a value is one of these."""

    def check(value: object, option: str) -> object:
        if value not in allowed:
            raise ValueError(f"{option}: {value!r} is not one of {', '.join(allowed)}")
        return value

    return check


def list_of(what: str, check_each: Check) -> Check:
    """Return a check of a list of ``what``, which applies ``check_each`` to each element and returns a tuple."""

    def check(values: object, option: str) -> tuple[Any, ...]:
        if isinstance(values, str) or not isinstance(values, Sequence):
            raise TypeError(f"{option}: expected a list of {what}")
        return tuple(check_each(each, option) for each in values)

    return check


def count_of(low: int, high: int) -> Check:
    """Return a check of a count with these bounds."""
    return lambda value, option: check_count(value, option, low, high)
