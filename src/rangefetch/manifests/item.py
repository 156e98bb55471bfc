"""The files that a manifest lists, checked: nothing in a manifest is trusted."""

from __future__ import annotations

import binascii
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, urljoin

from rangefetch import records
from rangefetch.checks import HTTP, Headers, check_checksum, check_headers, check_url
from rangefetch.disk.names import harmless_filename, is_plain_filename
from rangefetch.options import DownloadOptions

__all__ = ["ManifestItem", "Mistake", "Row", "check_path_below", "digest_of", "item_of", "strongest", "url_below"]

_NOTHING: Mapping[str, Any] = Headers({})  # an empty mapping that cannot change
_SCHEMES = (*HTTP, "ftp", "sftp", "magnet")  # not "file": a list that came over the network names no local files
_LONGEST_PATH = 4096
_MOST_MIRRORS = 256

# URLs that are certainly valid. Checking 100,000 URLs in full would take as long as fetching many files.
_SURELY_GOOD = re.compile(r"https?://[A-Za-z0-9.-]+(?::[1-9][0-9]{0,3}|:[1-5][0-9]{4})?/[!-~]*")
_HAS_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_DRIVE = re.compile(r"[A-Za-z]:")

_BY_HEX_DIGITS = {32: "md5", 40: "sha-1", 64: "sha-256", 96: "sha-384", 128: "sha-512"}
_BY_STRENGTH = ("sha-512", "sha-384", "sha-256", "blake2b", "sha-1", "md5")
_HEX = re.compile(r"[0-9A-Fa-f]+")
# The form of Subresource Integrity, which npm and others use.
_BASE64_DIGEST = re.compile(r"(sha(?:1|256|384|512)|md5)-([A-Za-z0-9+/]+={0,2})")
_NO_VALUE = frozenset({"", "-", "nan", "none", "null", "na", "n/a"})


@records.dataclass(frozen=True, slots=True)
class ManifestItem:
    """One file of a manifest.

    ``path`` is the destination, relative to the output directory, with ``/`` between directories; if it is empty or
    ends with ``/``, the server or the URL names the file. ``checksum`` is ``ALGORITHM=HEX`` or empty, ``size`` is in
    bytes (0: unknown). ``mirrors`` are other URLs of the file. ``options`` are further fields of ``DownloadOptions``.
    ``line`` is the line number (in formats without lines: the number of the entry), from 1. ``index`` is the item's
    number, from 0, also counting lines that were skipped. ``columns`` has all values of its row by column name, in
    formats with columns.
    """

    url: str
    path: str = ""
    checksum: str = ""
    size: int = 0
    mirrors: tuple[str, ...] = ()
    options: Mapping[str, Any] = _NOTHING
    line: int = 0
    index: int = 0
    columns: Mapping[str, str] = _NOTHING

    def below(self, directory: str) -> tuple[str, dict[str, Any]]:
        """An item for ``fetch_many`` that saves into ``directory``: the URL and its options."""
        own = dict(self.options) if self.options else {}
        if self.path:
            folder, _, name = self.path.rpartition("/")
            if name:
                own["filename"] = name
            if folder:
                own["save_dir"] = f"{directory}/{folder}"
        if self.checksum:
            own["checksum"] = self.checksum
        if self.size:
            own["expected_size"] = self.size
        if self.mirrors:
            own["mirrors"] = self.mirrors
        return self.url, own


class Row(NamedTuple):
    """An entry as a format has read it, not yet checked.

    ``checksum`` is a digest in any usual notation; ``size`` may be text. ``url`` and ``mirrors`` may be relative.
    """

    line: int
    url: str
    name: str = ""
    checksum: str = ""
    size: object = None
    mirrors: Sequence[str] = ()
    headers: Mapping[str, str] | Sequence[str] = ()
    options: Mapping[str, Any] = _NOTHING
    columns: Mapping[str, str] = _NOTHING


class Mistake(NamedTuple):
    """A line that cannot be used, and what is wrong with it."""

    line: int
    what: str


def item_of(row: Row, index: int, base_url: str) -> ManifestItem:
    """Check a row, and convert it to an item. Raises ``ValueError`` that says what is wrong with it."""
    url = row.url
    if not _SURELY_GOOD.fullmatch(url):
        url = _checked_url(url, base_url)
    options = row.options
    if options:
        try:
            DownloadOptions.of(options)
        except (TypeError, ValueError) as error:
            raise ValueError(str(error)) from None
    if row.headers:
        options = {**options, "headers": _checked(check_headers, row.headers)}
    mirrors: tuple[str, ...] = ()
    if row.mirrors:
        if len(row.mirrors) > _MOST_MIRRORS:
            raise ValueError(f"{len(row.mirrors)} mirrors of one file are too many; {_MOST_MIRRORS} are allowed")
        checked = dict.fromkeys(_checked_url(mirror, base_url) for mirror in row.mirrors)
        # Mirrors work over http and https only.
        mirrors = tuple(mirror for mirror in checked if mirror.startswith(("http:", "https:")))
    return ManifestItem(
        url,
        check_path_below(row.name) if row.name else "",
        digest_of(row.checksum) if row.checksum else "",
        _size_of(row.size) if row.size is not None else 0,
        mirrors,
        options,
        row.line,
        index,
        row.columns,
    )


def _checked_url(url: str, base_url: str) -> str:
    if not url:
        raise ValueError("there is no URL")
    if base_url and not _HAS_SCHEME.match(url):
        url = urljoin(base_url, url)
    checked: str = _checked(check_url, url, _SCHEMES)
    return checked


def _checked(check: Any, value: object, *more: object) -> Any:
    """Call an option's check. The message of its ``ValueError`` does not name the option."""
    try:
        return check(value, "", *more)
    except (TypeError, ValueError) as error:
        raise ValueError(str(error).removeprefix(": ")) from None


def url_below(base_url: str, name: str) -> str:
    """The URL of a file below a base URL; "" without one. Characters that a URL cannot contain are percent-encoded."""
    if not base_url:
        return ""
    name = name.removeprefix("./")
    return urljoin(base_url, "./" + quote(name, safe="/!$&'()*+,;=:@~"))


def check_path_below(name: str) -> str:
    """A relative path that stays below the output directory; each part is made harmless like a name from a server.

    A path that ends with ``/`` is a directory. Raises ``ValueError`` for a path that leads out of the output directory,
    or that no file can have.
    """
    # The great majority of paths, which none of the rules below would change.
    if len(name) <= _LONGEST_PATH and all(map(is_plain_filename, name.split("/"))):
        return name
    if len(name) > _LONGEST_PATH:
        raise ValueError(f"a name of {len(name)} characters is too long")
    parts = re.split(r"[/\\]", name)
    if parts[0] == "" or _DRIVE.match(parts[0]) or ".." in parts:
        raise ValueError(f"the name {name!r} leads out of the output directory")
    last = parts.pop()
    parts = [part for part in parts if part not in ("", ".")]
    safe = [harmless_filename(part) for part in (*parts, last)]
    if not all(safe[:-1]) or (last and not safe[-1]):
        raise ValueError(f"{name!r} is not the name of a file")
    return "/".join(safe)


def digest_of(text: str, algorithm: str = "") -> str:
    """Convert a digest to ``ALGORITHM=HEX``; "" if there is none.

    It may be ``ALGORITHM=HEX``, ``ALGORITHM:HEX``, hexadecimal digits alone (their number implies the algorithm unless
    ``algorithm`` is given), or base64 as in Subresource Integrity. Raises ``ValueError``.
    """
    text = text.strip()
    if text.lower() in _NO_VALUE:
        return ""
    if _HEX.fullmatch(text):
        algorithm = algorithm or _BY_HEX_DIGITS.get(len(text), "")
        if not algorithm:
            raise ValueError(f"{text!r} is not a digest: no algorithm has {len(text)} hexadecimal digits")
        text = f"{algorithm}={text}"
    elif match := _BASE64_DIGEST.fullmatch(text):
        text = f"{match[1]}={hex_of_base64(match[2])}"
    checked: str = _checked(check_checksum, text)
    return checked


def hex_of_base64(text: str) -> str:
    """Convert base64 to hexadecimal digits. Raises ``ValueError``."""
    try:
        return binascii.a2b_base64(text, strict_mode=True).hex()
    except binascii.Error:
        raise ValueError(f"{text!r} is not base64") from None


def strongest(digests: Mapping[str, object]) -> str:
    """The strongest of several digests, given by algorithm, as ``ALGORITHM=HEX``; "" if none can be verified.

    Values that are not digests are ignored, since catalogues contain placeholders.
    """
    usable: dict[str, str] = {}
    for algorithm, digest in digests.items():
        if isinstance(digest, str) and digest:
            try:
                usable.setdefault(*check_checksum(f"{algorithm}={digest}", "").split("="))
            except ValueError:
                continue
    return next((f"{name}={usable[name]}" for name in _BY_STRENGTH if name in usable), "")


def _size_of(value: object) -> int:
    """Parse a number of bytes; 0 if it is unknown. Raises ``ValueError``."""
    size: object = value
    if isinstance(value, str):
        text = value.strip()
        if text.lower() in _NO_VALUE:
            return 0
        # Some tools write whole numbers as 1024.0 if the column has gaps.
        digits = text.removesuffix(".0")
        size = int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 20 else value
    elif isinstance(value, float):
        if math.isnan(value):
            return 0
        size = int(value) if value.is_integer() else value
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size < 1 << 62:
        raise ValueError(f"{value!r} is not a size in bytes")
    return size
