"""Cookies from a file in Netscape's format, as written by curl and exported by browser extensions.

Not with ``http.cookiejar``, which would drop session cookies (expiry 0) and those of hosts without a dot, and would
send a host's cookies to its subdomains.
"""

from __future__ import annotations

import math
import re
import threading
import time
from urllib.parse import urlsplit

from rangefetch import records
from rangefetch.logs import log as _log

__all__ = ["cookies_for", "read_cookies"]

_HTTP_ONLY = "#HttpOnly_"
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_MOST_NUMBERS = 10
_MOST_TOLD = 256

_told: dict[str, tuple[int, ...]] = {}  # by file: the malformed lines of which the user has been warned
_lock = threading.Lock()


@records.dataclass(frozen=True, slots=True)
class _Cookie:
    domain: str
    is_for_subdomains: bool
    path: str
    is_secure: bool
    ends_s: float  # expiry in seconds since the epoch; 0: a session cookie
    pair: str

    def is_for(self, host: str, path: str, *, is_secure: bool, now_s: float) -> bool:
        return (
            (host == self.domain or (self.is_for_subdomains and host.endswith("." + self.domain)))
            and (path == self.path or path.startswith(self.path.rstrip("/") + "/"))
            and (is_secure or not self.is_secure)
            and (not self.ends_s or self.ends_s > now_s)
        )


def read_cookies(octets: bytes, file: str) -> list[_Cookie]:
    """Parse the content of a cookie file. Malformed lines are skipped, with a warning that gives ``file`` and their
    numbers but not their content. Raises ``ValueError`` if there are only malformed lines, as in a file of another
    format.
    """
    found: list[_Cookie] = []
    malformed: list[int] = []
    for number, line in enumerate(octets.decode("utf-8-sig", "surrogateescape").split("\n"), 1):
        line = line.rstrip("\r")
        if line.strip() and (not line.startswith("#") or line.startswith(_HTTP_ONLY)):
            cookie = _parse(line.removeprefix(_HTTP_ONLY))
            if cookie is None:
                malformed.append(number)
            else:
                found.append(cookie)
    if malformed and not found:
        raise ValueError(f"no line is a cookie in Netscape format (line {malformed[0]} is the first that is not)")
    _warn(file, tuple(malformed))
    return found


def cookies_for(url: str, octets: bytes, file: str) -> str:
    """The value of the Cookie header for ``url``, from the content of ``file``; empty if no cookie matches."""
    parts = urlsplit(url)
    host, path = (parts.hostname or "").lower(), parts.path or "/"
    is_secure, now_s = parts.scheme.lower() == "https", time.time()
    cookies = read_cookies(octets, file)
    return "; ".join(each.pair for each in cookies if each.is_for(host, path, is_secure=is_secure, now_s=now_s))


def _parse(line: str) -> _Cookie | None:
    fields = line.split("\t")
    if len(fields) == 6:
        fields.append("")  # a cookie without a value, as in curl
    if len(fields) != 7 or _CONTROL.search(line):
        return None
    domain, below, path, secure, ends, name, value = fields
    domain = domain.strip().removeprefix(".").lower()
    try:
        # Browser extensions write fractions of a second, and years that no clock can represent.
        ends_s = float(ends or 0)
    except ValueError:
        return None
    if not domain or not path.startswith("/") or not name or math.isnan(ends_s):
        return None
    return _Cookie(domain, below.upper() == "TRUE", path, secure.upper() == "TRUE", ends_s, f"{name}={value}")


def _warn(file: str, malformed: tuple[int, ...]) -> None:
    """Warn once for each state of a file, since the file is read again for every origin."""
    with _lock:
        if _told.get(file, ()) == malformed:
            return
        if len(_told) >= _MOST_TOLD:
            _told.clear()
        _told[file] = malformed
    if malformed:
        numbers = ", ".join(map(str, malformed[:_MOST_NUMBERS]))
        more = f" and {len(malformed) - _MOST_NUMBERS} more" if len(malformed) > _MOST_NUMBERS else ""
        lines = "line" if len(malformed) == 1 else "lines"
        _log.warning("%s: %s %s%s: not a cookie in Netscape format; ignored", file, lines, numbers, more)
