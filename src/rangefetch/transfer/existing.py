"""A file that has the final name already: is it the one that is asked for?

Size and time do not tell: two URLs may have files that are equal in both, and ETags that are made of them. A file that
was fetched from the same URL before says so itself (``provenance``) and has its validators. Otherwise bytes decide, and
what cannot be decided is another file. What this process has fetched from another URL always is.
"""

from __future__ import annotations

import dataclasses
import enum
import os
import random
import stat
from pathlib import Path

from rangefetch.disk import provenance
from rangefetch.identity import Basis, Identity, Same, contradicts, same_validators
from rangefetch.transfer import samples
from rangefetch.transfer.samples import Sample

__all__ = ["Found", "Standing", "look"]


class Standing(enum.Enum):
    """What a file that has the name is."""

    SAME = "same"
    """The one that is asked for."""
    ANOTHER = "another"
    UNCERTAIN = "uncertain"
    """Its bytes must be compared."""
    GONE = "gone"
    """There is none any more."""


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """What is there.

    ``reason`` says why it is another file, ``basis`` why it is the same. Where it is uncertain, ``samples`` of it are
    to be compared with the server's, and ``otherwise`` is what it counts as if they cannot be.
    """

    standing: Standing
    reason: str = ""
    samples: tuple[Sample, ...] = ()
    otherwise: Standing = Standing.ANOTHER
    basis: Basis = Basis.COMPARED


def look(path: Path, url: str, remote: Identity) -> Found:
    """What the file at ``path`` is to a download of ``url``, which its server describes as ``remote``.

    Raises ``OSError``.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return Found(Standing.GONE)
    except PermissionError:
        return Found(Standing.ANOTHER, "cannot be read")
    try:
        return _look(fd, path, url, remote)
    finally:
        os.close(fd)


def _look(fd: int, path: Path, url: str, remote: Identity) -> Found:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        return Found(Standing.ANOTHER, "is not a regular file")
    if provenance.others_in_this_run(path, url):
        return Found(Standing.ANOTHER, "was fetched from another URL just now")
    origin = provenance.recall(fd)
    is_ours = origin is not None and origin.url == provenance.public_url(url)
    same = Same.LIKELY
    if origin is not None and is_ours and (origin.etag or origin.last_modified):
        same = same_validators(origin.etag, origin.last_modified, remote.etag, remote.last_modified)
        if same is Same.PROVEN and remote.size in (-1, status.st_size):
            return Found(Standing.SAME, basis=Basis.ETAG)
    if remote.size != status.st_size:
        known = f"not the {remote.size} of the remote file" if remote.size >= 0 else "and the server states no size"
        return Found(Standing.ANOTHER, f"has {status.st_size} bytes, {known}")
    if same is Same.DIFFERENT:
        return Found(Standing.ANOTHER, "is another version of the remote file (its ETag or Last-Modified differs)")
    if remote.size == 0:
        return Found(Standing.SAME)
    if origin is not None and not is_ours and contradicts(Identity(-1, origin.etag, origin.last_modified), remote):
        return Found(Standing.ANOTHER, "was fetched from another URL, and its ETag or Last-Modified differs")
    otherwise = Standing.ANOTHER
    if is_ours and (remote.etag or remote.last_modified):
        # What has been fetched from there last had the same validators, though they are weak ones.
        otherwise = Standing.SAME
    places = samples.choose(remote.size, [(0, remote.size)], random.SystemRandom())
    return Found(Standing.UNCERTAIN, samples=tuple(samples.read(fd, places)), otherwise=otherwise)
