"""Chooses file names, and sanitises names from outside.

A name from a URL, a header, a torrent or a Metalink is untrusted. It is turned into one path component that is safe to
create and never looks like one of the files that a download keeps beside its target: a server that could use those
names could plant the data and state of another download.
"""

from __future__ import annotations

import contextlib
import functools
import re
import unicodedata
from urllib.parse import unquote_to_bytes

from rangefetch.disk import system
from rangefetch.encoding import for_file_system

__all__ = [
    "DEFAULT_FILENAME",
    "MAX_NAME_BYTES",
    "choose_filename",
    "filename_from_content_disposition",
    "filename_from_url",
    "harmless_filename",
    "is_filename",
    "is_plain_filename",
    "numbered",
    "safe_filename",
]

DEFAULT_FILENAME = "download"

MAX_NAME_BYTES = 200
"""File systems allow 255; the rest is reserved for suffixes such as ``.1.part.json.tmp`` and ``.bad.12``."""

# Control, format (zero width, bidi overrides), surrogates, line and paragraph separators.
_INVISIBLE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Letters and marks that are also invisible (Default_Ignorable_Code_Point of the Unicode database). File systems that
# ignore case ignore these as well.
_INVISIBLE = frozenset(
    map(chr, (0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0, *range(0x180B, 0x1810), *range(0xFE00, 0xFE10)))
) | frozenset(map(chr, range(0xE0000, 0xE1000)))
_EXTENSION = re.compile(r"(?:\.tar)?\.[^.\s]{1,16}\Z", re.IGNORECASE)
_DEVICE = re.compile(
    r"(?:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|CLOCK\$|(?:COM|LPT)[0-9\xb9\xb2\xb3]) *(?:\.|\Z)", re.IGNORECASE
)
_RESERVED = system.NOT_IN_NAMES - frozenset("/\\")  # both of which are taken for separators on every system

# Suffixes of the files beside a target: the part file, its state, aria2's control file, files set aside, and temporary
# files.
_OUR_SUFFIX = re.compile(r"\.(?:part|part\.json|aria2|aria2__temp|bad(?:\.\d+)?|tmp)\Z")

# Hidden files, which often configure something; names that look like options; names that shells expand to a home.
_HARMFUL_START = (".", "-", "~")
# Files that desktops and web servers act upon in any directory.
_ACTED_UPON = frozenset({"autorun.inf", "desktop.ini", "folder.htt", "thumbs.db", "web.config"})

# RFC 6266, section 4.1, and what servers really send: unquoted values with spaces, and unterminated quotes.
_PARAMETER = re.compile(r';\s*([^\s=;]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)(?:"|\\?\Z)|([^;]*))', re.DOTALL)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
# A Windows path, in which backslashes are separators and escape nothing.
_WINDOWS_PATH = re.compile(r"(?:[a-z]:)?\\[^\\\"]", re.IGNORECASE)
_QUERY = re.compile(r"[?#]")
_ORIGIN = re.compile(r"\A[^:/]+://[^/]*")
_EXTENDED_VALUE = re.compile(r"([a-z0-9_.:-]{1,40})'[^']*'((?:[^%]|%[0-9a-f]{2})*)", re.IGNORECASE | re.DOTALL)
# What browsers take these labels to mean (WHATWG Encoding).
_LABELS = {"iso-8859-1": "windows-1252", "latin1": "windows-1252", "us-ascii": "windows-1252", "ascii": "windows-1252"}

# The great majority of names, which none of the rules below would change.
_PLAIN = re.compile(r"(?!(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\.|\Z))[a-z0-9_](?:[a-z0-9_.+~-]{0,150}[a-z0-9_])?")


def choose_filename(url: str, resolved_url: str = "", disposition: str = "") -> str:
    """The name for a file that the user has not named: from the header, else from the URL after redirects, else from
    ``url``, else ``download``.

    A name other than that of ``url`` itself is made harmless (:func:`harmless_filename`).
    """
    if not (resolved_url or disposition):
        name = filename_from_url(url) or DEFAULT_FILENAME
        return name if name.isascii() else for_file_system(name)
    return for_file_system(_chosen(url, resolved_url, disposition))


def _chosen(url: str, resolved_url: str, disposition: str) -> str:
    own = filename_from_url(url)
    said = filename_from_content_disposition(disposition) if disposition else ""
    for name in (said, filename_from_url(resolved_url) if resolved_url else ""):
        if name:
            return name if name == own else harmless_filename(name)
    return own or DEFAULT_FILENAME


def safe_filename(name: str) -> str:
    """One path component that is safe to create, from any name that a server or URL gives; "" if nothing is left.

    Only the part after the last separator (``/`` or ``\\``) is kept (RFC 6266, section 4.3). The result is NFC, has no
    invisible characters, does not begin with a space or end with a space or dot, is not a Windows device (``NUL.txt``
    becomes ``_NUL.txt``), does not end like the files beside a target (``x.part`` becomes ``x.part_``, in upper and
    lower case), and has at most 200 bytes of UTF-8; if it is shortened, its extension is kept.
    """
    # Before NFC, since an invisible mark between a letter and its accent would keep them from being composed.
    visible = "".join(
        c
        for c in name
        if unicodedata.category(c) not in _INVISIBLE_CATEGORIES and c not in _INVISIBLE and c not in _RESERVED
    )
    component = re.split(r"[/\\]", unicodedata.normalize("NFC", visible))[-1].lstrip(" ").rstrip(" .")
    if _DEVICE.match(component):
        component = "_" + component
    component = _shortened(component)
    if _OUR_SUFFIX.search(component.casefold()):
        component = _shortened(component + "_")
    return component


def harmless_filename(name: str) -> str:
    """A safe name for a file that a stranger has named and whose name the user may never see; "" if nothing is left.

    In addition to :func:`safe_filename`, the name is not hidden, does not look like a command-line option, and is none
    of the few files that desktops and web servers act upon: ``.bashrc`` becomes ``_bashrc``, ``-rf`` ``_rf``,
    ``desktop.ini`` ``_desktop.ini``.
    """
    name = safe_filename(name)
    if name.startswith(_HARMFUL_START):
        return "_" + name[1:]
    return "_" + name if name.casefold() in _ACTED_UPON else name


def is_filename(name: str) -> bool:
    """Whether the system accepts it as a file name: one component and, on Windows, not a device name and without
    trailing spaces or dots, which would be dropped.
    """
    if name in ("", ".", "..") or not system.NOT_IN_NAMES.isdisjoint(name):
        return False
    return not (system.RESERVES_NAMES and (name.endswith((" ", ".")) or _DEVICE.match(name)))


def is_plain_filename(name: str) -> bool:
    """Whether a quick check shows that the name is safe. For code that handles many names: the full rules are slow."""
    folded = name.lower()
    return name.isascii() and _PLAIN.fullmatch(folded) is not None and _OUR_SUFFIX.search(folded) is None


def numbered(name: str, number: int) -> str:
    """``name.1.ext``, aria2's scheme for names that are taken."""
    stem, _, extension = name.rpartition(".")
    return f"{stem}.{number}.{extension}" if stem and extension else f"{name}.{number}"


def filename_from_content_disposition(header: str) -> str:
    """The safe file name from a Content-Disposition field (RFC 6266); "" if it has none.

    ``filename*`` (RFC 8187, in any charset that Python knows) takes precedence over ``filename``, unless its value is
    malformed. Backslashes in a Windows path are separators, not escapes. The first of repeated parameters counts.
    Non-ASCII octets are taken for UTF-8 if they are valid UTF-8.
    """
    parameters: dict[str, str] = {}
    # The extra ";" makes fields without a disposition type work as well.
    for name, quoted, token in _PARAMETER.findall(";" + header):
        if not _WINDOWS_PATH.match(quoted):
            quoted = _QUOTED_PAIR.sub(r"\1", quoted)
        parameters.setdefault(name.lower(), quoted or token.strip())
    extended = safe_filename(_decode_extended(parameters.get("filename*", "")))
    return extended or safe_filename(_octets_as_text(parameters.get("filename", "")))


def _shortened(name: str) -> str:
    """The name, shortened to 200 bytes if it is longer, with its extension."""
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    match = _EXTENSION.search(name)
    extension = match[0] if match else ""
    stem = name.removesuffix(extension).encode()[: MAX_NAME_BYTES - len(extension.encode())]
    return (stem.decode(errors="ignore") + extension).rstrip(" .")


def _decode_extended(value: str) -> str:
    """The text of ``charset'language'percent-encoded`` (RFC 8187, section 3.2); "" if it is malformed."""
    with contextlib.suppress(UnicodeError, LookupError):
        if match := _EXTENDED_VALUE.fullmatch(value):
            label = match[1].lower()
            return unquote_to_bytes(match[2].encode("latin-1")).decode(_LABELS.get(label, label))
    return ""


def _octets_as_text(octets: str) -> str:
    """Text that was decoded as ISO-8859-1, decoded as UTF-8 instead if it is valid UTF-8."""
    with contextlib.suppress(UnicodeError):
        return octets.encode("latin-1").decode("utf-8")
    return octets


@functools.lru_cache(maxsize=256)  # called twice for each small file
def filename_from_url(url: str) -> str:
    """The last segment of the URL's path, percent-decoded and safe; "" if there is none."""
    path = _QUERY.split(url, maxsplit=1)[0] if "?" in url or "#" in url else url
    last = _ORIGIN.sub("", path).rpartition("/")[2]
    if is_plain_filename(last):
        return last
    octets = unquote_to_bytes(last.encode(errors="replace"))
    return safe_filename(_octets_as_text(octets.decode("latin-1")))
