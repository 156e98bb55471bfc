"""Digests of files, which can be computed while later bytes are still arriving."""

from __future__ import annotations

import binascii
import contextlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from rangefetch.disk import system
from rangefetch.errors import DiskError
from rangefetch.importing import no_fork

__all__ = ["FileHasher", "Hash", "all_stated_by_server", "digest_of", "new", "split", "stated_by_server"]

# From aria2's names to hashlib's.
_HASHLIB_NAMES = {
    "blake2b": "blake2b",
    "md5": "md5",
    "sha-1": "sha1",
    "sha-256": "sha256",
    "sha-384": "sha384",
    "sha-512": "sha512",
}

# hashlib releases the GIL for each piece, and a busy thread may then hold it for 5 ms: this limits pieces of 1 MiB to
# 0.2 GiB/s, and pieces of 4 MiB to 0.5 GiB/s. Larger ones do not fit into the cache.
_PIECE_BYTES = 4 << 20


_STEP_BYTES = 64 << 20


class Hash(Protocol):
    """The interface of hashlib's objects."""

    @property
    def digest_size(self) -> int: ...
    def update(self, data: memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


def new(algorithm: str) -> Hash:
    """A hash object for ``md5``, ``sha-1``, ``sha-256``, ``sha-384``, ``sha-512`` or ``blake2b``.

    Raises ``ValueError`` for any other.
    """
    with no_fork:
        import hashlib

    if algorithm not in _HASHLIB_NAMES:
        raise ValueError(f"checksum: {algorithm!r} is not one of {', '.join(_HASHLIB_NAMES)}")
    return hashlib.new(_HASHLIB_NAMES[algorithm], usedforsecurity=False)


def split(checksum: str) -> tuple[str, str]:
    """Split ``sha-256=HEX`` into algorithm and lower-case digest. Raises ``ValueError`` if it is malformed."""
    algorithm, _, digest = checksum.lower().partition("=")
    digest_bytes = new(algorithm).digest_size
    if len(digest) != 2 * digest_bytes or not set(digest) <= set("0123456789abcdef"):
        raise ValueError(f"checksum: {checksum!r}: {algorithm} takes {2 * digest_bytes} hexadecimal digits")
    return algorithm, digest


def all_stated_by_server(headers: Mapping[str, str], *, whole: bool, of_instance: bool = False) -> dict[str, str]:
    """The digests of the whole file that a response states, in hexadecimal by algorithm, the strongest first.

    ``Repr-Digest`` (RFC 9530, section 3) covers the whole representation even in a partial response. So does the older
    ``Digest`` (RFC 3230), but not with all servers: it and ``Content-MD5`` are taken only from a response with the
    whole file (``whole``), and ``Digest`` also from a server known to follow the RFC (``of_instance``). ``headers``
    have lower-case names.
    """
    stated: dict[str, str] = {}
    for match in re.finditer(r"([a-z0-9-]+)\s*=\s*:([A-Za-z0-9+/=]+):", headers.get("repr-digest", "")):
        stated[match[1]] = match[2]
    if not stated:
        for part in headers.get("digest", "").split(",") if whole or of_instance else ():
            name, _, value = part.strip().partition("=")
            stated[name.lower()] = value
        if whole and "content-md5" in headers:
            stated.setdefault("md5", headers["content-md5"])
    digests = {}
    for name, algorithm in (("sha-512", "sha-512"), ("sha-256", "sha-256"), ("sha", "sha-1"), ("md5", "md5")):
        if name in stated:
            with contextlib.suppress(ValueError):
                digest = binascii.a2b_base64(stated[name], strict_mode=True)
                if len(digest) == new(algorithm).digest_size:
                    digests[algorithm] = digest.hex()
    return digests


def stated_by_server(headers: Mapping[str, str], *, whole: bool, of_instance: bool = False) -> str:
    """The strongest of :func:`all_stated_by_server` as ``ALGORITHM=HEX``; "" if there is none."""
    stated = all_stated_by_server(headers, whole=whole, of_instance=of_instance)
    return next((f"{name}={digest}" for name, digest in stated.items()), "")


class FileHasher:
    """The digest of a file's first ``position`` bytes, which :meth:`advance` extends.

    For one thread at a time. ``fd`` is borrowed, and its file offset is neither used nor moved.
    """

    def __init__(self, fd: int, algorithm: str) -> None:
        """Raises ``ValueError`` for an unknown ``algorithm``."""
        self.fd = fd
        self.algorithm = algorithm
        self._buffer = memoryview(bytearray(_PIECE_BYTES))
        self.restart()

    def restart(self) -> None:
        """Start over, because the file's content has changed."""
        self.position = 0
        self._hash = new(self.algorithm)

    def advance(self, end: int) -> None:
        """Hash ``[position, end)``. Does nothing if ``end`` has already been reached.

        Raises ``DiskError`` if the file cannot be read or ends before ``end``; bytes read before that count.
        """
        while self.position < end:
            piece = self._buffer[: end - self.position]
            try:
                count = system.read_into(self.fd, piece, self.position)
            except OSError as error:
                reason = f"cannot read back what was written: {error.strerror or error}"
                raise DiskError(reason, errno=error.errno or 0) from error
            if count == 0:
                raise DiskError(f"the file ends at byte {self.position}, before {end}")
            self._hash.update(piece[:count])
            self.position += count

    def hexdigest(self) -> str:
        """The digest of ``[0, position)``, in lower-case hexadecimal digits."""
        return self._hash.hexdigest()


def digest_of(path: Path, algorithm: str, stop: Callable[[], bool]) -> str:
    """The digest of a whole file. ``stop`` is called regularly; once it returns True, the digest so far is returned."""
    with path.open("rb") as file:
        hasher = FileHasher(file.fileno(), algorithm)
        size = os.fstat(file.fileno()).st_size
        while hasher.position < size and not stop():
            hasher.advance(min(size, hasher.position + _STEP_BYTES))
    return hasher.hexdigest()
