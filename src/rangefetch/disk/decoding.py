"""Undoing content codings (RFC 9110, section 8.4) that a server applied although nobody asked for one.

It is done once every byte is there, since the ranges are those of the encoded form. A few bytes may stand for any
number of them, so there is a limit, and what does not end where its coding ends is damaged.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from rangefetch.disk import system
from rangefetch.disk.target import Target
from rangefetch.errors import BadAnswer, DiskError, DownloadError
from rangefetch.importing import no_fork, ready_tempfile

__all__ = ["codings_to_undo", "decode"]

_PIECE_BYTES = 1 << 20
_NONE = frozenset({"", "identity", "none"})
# The rule of ``coding.pxd``: what names a coding, and the names of files that have it themselves.
_GZIP_NAMES = (".gz", ".tgz", ".svgz", ".taz", ".emz", ".wmz", ".bgz", ".cpgz", ".crate")
_OWN = {
    "gzip": _GZIP_NAMES,
    "x-gzip": _GZIP_NAMES,
    "compress": (".z", *_GZIP_NAMES),
    "x-compress": (".z", *_GZIP_NAMES),
    "br": (".br",),
    "zstd": (".zst", ".tzst", ".zstd"),
    "bzip2": (".bz2", ".tbz", ".tbz2"),
    "x-bzip2": (".bz2", ".tbz", ".tbz2"),
    "xz": (".xz", ".txz"),
    "x-xz": (".xz", ".txz"),
}
_OTHERS = frozenset({"deflate", "dcb", "dcz", "exi", "aes128gcm", "pack200-gzip", "lzma"})


def codings_to_undo(content_encoding: str, names: Sequence[str]) -> tuple[str, ...]:
    """The codings in the field that are no part of a file which has one of ``names``, in the order in which they are to
    be undone. Raises ``BadAnswer`` for those that this Python cannot undo.
    """
    listed = re.split("[ \t,]+", content_encoding.lower())
    undone = []
    for word in reversed(listed):
        if word in _NONE or (word not in _OWN and word not in _OTHERS):
            continue
        if any(_is_the_files_own(word, name) for name in names):
            continue
        if _decoder(word, b"") is None:
            raise BadAnswer(f"the server sent the file encoded ({word}), and there is no decoder for that here")
        undone.append(word)
    return tuple(undone)


def _is_the_files_own(coding: str, name: str) -> bool:
    """Whether a name says that the file itself has this coding. An ending alone (``.gz``) is a name, and no ending."""
    return any(len(name) > len(ending) and name.lower().endswith(ending) for ending in _OWN.get(coding, ()))


def decode(target: Target, codings: Sequence[str], most_bytes: int) -> int:
    """Replace what a part file holds by its decoded form; returns how many bytes that is.

    The decoded form is written beside it first, without a name. Raises ``BadAnswer`` for what is damaged or longer than
    ``most_bytes``, and ``DiskError``; the part file is as it was then, also where the disk is full.
    """
    ready_tempfile()
    with no_fork:
        import tempfile

    length = 0
    try:
        with tempfile.TemporaryFile(dir=target.directory) as decoded:
            pieces = _read(target.fd, 0, os.fstat(target.fd).st_size)
            for coding in codings:
                pieces = _undo(coding, pieces)
            for piece in pieces:
                length += len(piece)
                if length > most_bytes:
                    raise BadAnswer(f"the decoded file is larger than {most_bytes} bytes (--decode-limit)")
                decoded.write(piece)
            decoded.flush()
            encoded_bytes = os.fstat(target.fd).st_size
            try:
                # What lies behind the encoded bytes first: if there is no room for it, they are still there.
                _copy(decoded.fileno(), target.fd, encoded_bytes, length)
            except OSError:
                os.ftruncate(target.fd, encoded_bytes)
                raise
            # From here on nothing speaks of the encoded bytes any more.
            target.truncate(length)
            _copy(decoded.fileno(), target.fd, 0, min(encoded_bytes, length))
    except OSError as error:
        if isinstance(error, DownloadError):
            raise
        words = f"{target.part_path}: cannot decode it: {error.strerror or error}"
        raise DiskError(words, errno=error.errno or 0, filename=target.part_path) from error
    return length


def _read(fd: int, start: int, end: int) -> Iterator[bytes]:
    while start < end and (piece := system.pread(fd, min(_PIECE_BYTES, end - start), start)):
        yield piece
        start += len(piece)


def _copy(source_fd: int, fd: int, start: int, end: int) -> None:
    """Copy these bytes to the same places."""
    at = start
    for piece in _read(source_fd, start, end):
        left = memoryview(piece)
        while left:
            written = system.pwrite(fd, left, at)
            left, at = left[written:], at + written


def _undo(coding: str, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """One coding undone, a bounded piece at a time. Several gzip members in a row are one file (RFC 1952)."""
    decoder: Any = None
    for piece in pieces:
        left = piece
        while left:
            decoder = decoder if decoder is not None else _decoder(coding, left)
            try:
                decoded = decoder.decompress(left, _PIECE_BYTES)
            except Exception as error:
                raise BadAnswer(f"the server sent {coding} data that cannot be decoded: {error}") from None
            if decoded:
                yield decoded
            if decoder.eof:
                left, decoder = decoder.unused_data, None
            else:
                left = decoder.unconsumed_tail
    while decoder is not None and not decoder.eof and (decoded := decoder.decompress(b"", _PIECE_BYTES)):
        yield decoded
    if decoder is not None and not decoder.eof:
        raise BadAnswer(f"the server sent {coding} data that ends too early")


def _decoder(coding: str, head: bytes) -> Any:
    """A new decoder for data that begins with ``head``; None where there is none."""
    if coding in ("gzip", "x-gzip"):
        return zlib.decompressobj(zlib.MAX_WBITS | 16)
    if coding == "deflate":
        # Meant to be in zlib's format, and often sent without it (RFC 9110, section 8.4.1.2).
        wrapped = len(head) < 2 or (head[0] & 15 == 8 and (head[0] << 8 | head[1]) % 31 == 0)
        return zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)
    return None
