"""Where a published file came from: its URL and validators, kept with the file, and what this process has written.

An extended attribute goes along when the file is moved, and says nothing once the file was changed: it names the size
and the time that the file had. Where the file system has no such attributes nothing is kept.
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
# Most URLs there are, of which nothing is left out.
_PUBLIC = re.compile(r"https?://[a-z0-9.:-]+/[!-\"$->@-~]*")


@records.dataclass(frozen=True, slots=True)
class Origin:
    """``url`` as :func:`public_url` gives it, and the validators that its responses had. ``encoded_bytes`` is the
    length of what was sent, if the file is the decoded form of that (-1: it is what was sent)."""

    url: str
    etag: str = ""
    last_modified: str = ""
    encoded_bytes: int = -1


@functools.lru_cache(1024)
def public_url(url: str) -> str:
    """A URL without what may be a secret: no user name and password, no fragment, a hash in the place of the query.

    Equal for equal URLs and, as far as the hash goes, for no others.
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
    """Keep with an open file that it is what ``url`` had, and set its time (None: as it is), which is a part of that.
    ``encoded_bytes``: it is the decoded form of so many bytes.

    Where that is not possible, nothing happens.
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
            # What an earlier file left would be of other bytes.
            system.remove_attribute(fd, _NAME)


def beginning(url: str) -> bytes:
    """The lines of what is kept that are known before the response; the engine adds the others (``platform.h``)."""
    # Most are kept as they are, and no two are the same.
    public = url if _PUBLIC.fullmatch(url) else public_url(url)
    return f"{_VERSION}\n{public}".encode(errors="surrogateescape")


def recall(fd: int) -> Origin | None:
    """Where an open file came from. None: nothing was kept, it was changed since, or it is another user's."""
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
    """The URL that a file keeps, whether it was changed since or not; "": none. Not through a symbolic link."""
    try:
        lines = system.attribute(path, _NAME).decode(errors="surrogateescape").split("\n", 2)
    except OSError:
        return ""
    return lines[1] if len(lines) == 3 and lines[0] == _VERSION else ""


# -- this process ------------------------------------------------------------------------------------------------------

# By a key that ignores case, the last one last: paths, and the URL of each, in turns. Where 100,000 files come, it is
# made 100,000 times.
_written: dict[str, tuple[str, ...]] = {}
_lock = threading.Lock()


def wrote(path: str | os.PathLike[str], url: str) -> None:
    """This process has published the file of ``url`` at ``path``."""
    wrote_all([(os.fspath(path), url)])


def wrote_all(files: Iterable[tuple[str, str]]) -> None:
    """``wrote`` for several: their paths and URLs."""
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
            # Many at a time: to find the first takes longer the more there were before it.
            for key in list(itertools.islice(_written, len(_written) - _MOST_REMEMBERED + _FORGOTTEN_TOGETHER)):
                del _written[key]


def others_in_this_run(path: str | os.PathLike[str], url: str) -> bool:
    """Whether the file at ``path`` was published by this process, for another URL. Its name may have been another one
    where the file system takes both for the same (upper and lower case, ways to write an accent).
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
    """Of what is not all ASCII; there, lower case is the same."""
    return unicodedata.normalize("NFKC", text).casefold()
