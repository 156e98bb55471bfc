"""Where published files came from: URL and validators, recorded with each file, and a list of files that this process
has published.

The record is an extended attribute, which stays with the file when it is moved. It includes the file's size and time,
so that it is ignored once the file has changed. File systems without extended attributes keep no record.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import re
import threading
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from rangefetch import records
from rangefetch.disk import system
from rangefetch.identity import Identity
from rangefetch.importing import no_fork

__all__ = [
    "Origin",
    "beginning",
    "others_in_this_run",
    "public_url",
    "recall",
    "record",
    "url_of",
    "wrote",
    "wrote_all",
]

_NAME = "user.rangefetch.origin"
_VERSION = "1"
_MOST_BYTES = 4096
_MOST_REMEMBERED, _FORGOTTEN_TOGETHER = 1 << 15, 1 << 12
# The great majority of URLs, which ``public_url`` leaves as they are.
_PUBLIC = re.compile(r"https?://[a-z0-9.:-]+/[!-\"$->@-~]*")


@records.dataclass(frozen=True, slots=True)
class Origin:
    """``url`` in the form of :func:`public_url`, and the validators from its responses. If the file was decoded after
    the transfer, ``encoded_bytes`` is the length of the encoded form, otherwise -1."""

    url: str
    etag: str = ""
    last_modified: str = ""
    encoded_bytes: int = -1


@functools.lru_cache(1024)
def public_url(url: str) -> str:
    """A URL without anything that may be secret: no user name and password, no fragment, and a hash instead of the
    query.

    Two URLs have the same result if they differ only in the parts left out or in the case of scheme and host; others
    have different results, barring hash collisions.
    """
    if _PUBLIC.fullmatch(url):
        return url
    parts = urlsplit(url)
    authority = parts.netloc.rpartition("@")[2].lower()
    query = ""
    if parts.query:
        with no_fork:
            import hashlib

        query = "?" + hashlib.sha256(parts.query.encode(errors="surrogateescape")).hexdigest()[:16]
    return f"{parts.scheme.lower()}://{authority}{parts.path or '/'}{query}"


def record(fd: int, url: str, identity: Identity, modified_time: float | None, encoded_bytes: int = -1) -> None:
    """Record in an open file's attribute that it is the file at ``url``, and set its modification time (None leaves
    it), which the record includes. ``encoded_bytes`` is as in :class:`Origin`.

    Errors are ignored: the record is optional.
    """
    with contextlib.suppress(OSError, OverflowError, ValueError):
        if modified_time is not None:
            system.set_time(fd, modified_time)
    status = os.fstat(fd)
    lines = (
        identity.etag,
        identity.last_modified,
        f"{status.st_size} {status.st_mtime_ns}",
        *([str(encoded_bytes)] if encoded_bytes >= 0 else []),
    )
    value = b"\n".join([beginning(url), *(line.encode(errors="surrogateescape") for line in lines)])
    with contextlib.suppress(OSError):
        if len(value) <= _MOST_BYTES:
            system.set_attribute(fd, _NAME, value)
        else:
            # An old record would describe other bytes.
            system.remove_attribute(fd, _NAME)


def beginning(url: str) -> bytes:
    """The first lines of a record, which are known before the response; the engine adds the others (``platform.h``)."""
    # Most URLs match, and all are different, so the cache of public_url() would be of no use.
    public = url if _PUBLIC.fullmatch(url) else public_url(url)
    return f"{_VERSION}\n{public}".encode(errors="surrogateescape")


def recall(fd: int) -> Origin | None:
    """Where an open file came from. None if it has no record, was changed since, or belongs to another user."""
    try:
        status = os.fstat(fd)
        lines = system.attribute(fd, _NAME).decode(errors="surrogateescape").split("\n")
        version, url, etag, last_modified, state = lines[:5]
        encoded_bytes = int(*lines[5:]) if len(lines) > 5 else -1
    except (OSError, ValueError, TypeError):
        return None
    if version != _VERSION or not system.is_own(status) or state != f"{status.st_size} {status.st_mtime_ns}":
        return None
    return Origin(url, etag, last_modified, encoded_bytes)


def url_of(path: str) -> str:
    """The URL in a file's record, even if the file was changed since; "" if it has none. Follows no symbolic link."""
    try:
        lines = system.attribute(path, _NAME).decode(errors="surrogateescape").split("\n", 2)
    except OSError:
        return ""
    return lines[1] if len(lines) == 3 and lines[0] == _VERSION else ""


# -- this process ------------------------------------------------------------------------------------------------------

# From a case-insensitive key to a flat tuple of path, URL, path, URL ...; the most recently written key is last. The
# values are plain tuples because one is made for each file, and there may be 100,000 files.
_written: dict[str, tuple[str, ...]] = {}
_lock = threading.Lock()


def wrote(path: str | os.PathLike[str], url: str) -> None:
    """Note that this process has published the file of ``url`` at ``path``."""
    wrote_all([(os.fspath(path), url)])


def wrote_all(files: Iterable[tuple[str, str]]) -> None:
    """Call ``wrote`` for several pairs of path and URL."""
    with _lock:
        for file in files:
            path = file[0]
            key = path.lower() if path.isascii() else _key(path)
            if key in _written:
                known = _written.pop(key)
                others = {known[at]: known[at + 1] for at in range(0, len(known), 2) if known[at] != path}
                _written[key] = (*itertools.chain(*others.items()), *file)
            else:
                _written[key] = file
        if len(_written) > _MOST_REMEMBERED:
            # Delete many at a time: finding a dict's first key takes longer the more keys before it were deleted.
            for key in list(itertools.islice(_written, len(_written) - _MOST_REMEMBERED + _FORGOTTEN_TOGETHER)):
                del _written[key]


def others_in_this_run(path: str | os.PathLike[str], url: str) -> bool:
    """Whether this process has published the file at ``path`` for another URL, possibly under a different spelling that
    the file system takes for the same name (upper and lower case, composed and decomposed accents).
    """
    text = os.fspath(path)
    key = text.lower() if text.isascii() else _key(text)
    with _lock:
        found = _written.get(key)
    if found is None:
        return False
    mine = public_url(url)
    for written, of in zip(found[::2], found[1::2], strict=True):
        with contextlib.suppress(OSError):
            if public_url(of) != mine and (written == text or Path(written).samefile(text)):
                return True
    return False


def _key(text: str) -> str:
    """The key of a path that is not all ASCII. For ASCII paths ``lower`` gives the same result."""
    return unicodedata.normalize("NFKC", text).casefold()
