"""Decides whether a file that already has the final name is the one asked for.

Size and time are not enough: files of two URLs may agree in both, and in ETags made from them. A file that was fetched
from the same URL before says so itself (``provenance``), and has its validators. Otherwise bytes decide, and what
cannot be decided counts as another file. So does whatever this process has fetched from another URL.
"""

from __future__ import annotations

import enum
import os
import random
import stat
from pathlib import Path

from rangefetch import records
from rangefetch.disk import provenance, system
from rangefetch.identity import Basis, Identity, Same, Strength, contradicts, same_validators
from rangefetch.transfer import samples
from rangefetch.transfer.samples import Sample

__all__ = ["Found", "Standing", "has_content_of", "look"]

_PIECE_BYTES = 1 << 20
_SMALL_BYTES = 1 << 20


class Standing(enum.Enum):
    """What an existing file with the final name is."""

    SAME = "same"
    """The file asked for."""
    ANOTHER = "another"
    UNCERTAIN = "uncertain"
    """Its bytes must be compared."""
    UNSIZED = "unsized"
    """The server does not say how large its file is, so all of it must be compared."""
    GONE = "gone"
    """It no longer exists."""


@records.dataclass(frozen=True, slots=True)
class Found:
    """What was found, with its ``size`` in bytes (0: not relevant).

    ``reason`` says why it is another file, ``basis`` why it is the same. If it is uncertain, ``samples`` of it are to
    be compared with the server's; if they cannot be, it counts as ``otherwise``, with ``basis`` as the reason.
    """

    standing: Standing
    reason: str = ""
    size: int = 0
    samples: tuple[Sample, ...] = ()
    otherwise: Standing = Standing.ANOTHER
    basis: Basis = Basis.COMPARED


def look(path: Path, url: str, remote: Identity, *, decodes: bool = False) -> Found:
    """Find out what the file at ``path`` is to a download of ``url``, which its server describes as ``remote``.

    ``decodes``: the file is the decoded form of what the server sends. Raises ``OSError``.
    """
    try:
        fd = system.open_file(path, os.O_RDONLY)
    except FileNotFoundError:
        return Found(Standing.GONE)
    except PermissionError:
        return Found(Standing.ANOTHER, "cannot be read")
    try:
        return _look(fd, path, url, remote, decodes=decodes)
    finally:
        os.close(fd)


def _look(fd: int, path: Path, url: str, remote: Identity, *, decodes: bool) -> Found:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        return Found(Standing.ANOTHER, "is not a regular file")
    if provenance.others_in_this_run(path, url):
        return Found(Standing.ANOTHER, "was fetched from another URL just now")
    origin = provenance.recall(fd)
    is_ours = origin is not None and origin.url == provenance.public_url(url)
    size = status.st_size
    if decodes:
        size = origin.encoded_bytes if origin is not None and is_ours else -1
    same = Same.LIKELY
    if origin is not None and is_ours and (origin.etag or origin.last_modified):
        same = same_validators(origin.etag, origin.last_modified, remote.etag, remote.last_modified)
        if same is Same.PROVEN and remote.size in (-1, size):
            return Found(Standing.SAME, basis=Basis.ETAG)
    if size >= 0 and remote.size not in (-1, size):
        return Found(Standing.ANOTHER, f"has {status.st_size} bytes, not the {remote.size} of the remote file")
    if same is Same.DIFFERENT:
        return Found(Standing.ANOTHER, "is another version of the remote file (its ETag or Last-Modified differs)")
    basis = Basis.LAST_MODIFIED if remote.strength is Strength.DATED else Basis.SIZE
    if decodes and 0 <= remote.size == size:
        return Found(Standing.SAME, basis=basis)
    if remote.size < 0 or decodes:
        words = f"has {status.st_size} bytes, and the server does not say how many it should have"
        is_worth = is_ours or status.st_size <= _SMALL_BYTES  # for small files nothing is recorded
        return Found(Standing.UNSIZED if is_worth else Standing.ANOTHER, words, status.st_size)
    if remote.size == 0:
        return Found(Standing.SAME)
    if origin is not None and not is_ours and contradicts(Identity(-1, origin.etag, origin.last_modified), remote):
        return Found(Standing.ANOTHER, "was fetched from another URL, and its ETag or Last-Modified differs")
    # What was last fetched from this URL had the same size, and the same validators or none.
    otherwise = Standing.SAME if is_ours else Standing.ANOTHER
    places = samples.choose(remote.size, [(0, remote.size)], random.SystemRandom())
    return Found(Standing.UNCERTAIN, samples=tuple(samples.read(fd, places)), otherwise=otherwise, basis=basis)


def has_content_of(path: Path, fd: int) -> bool:
    """Whether the file at ``path`` has the same bytes as the open file ``fd``. Raises ``OSError``."""
    with path.open("rb", buffering=0) as other:
        at = 0
        while octets := system.pread(fd, _PIECE_BYTES, at):
            if system.pread(other.fileno(), len(octets), at) != octets:
                return False
            at += len(octets)
        return os.fstat(other.fileno()).st_size == at
