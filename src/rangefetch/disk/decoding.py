"""Decoding content codings (RFC 9110, section 8.4) that a server has applied without being asked to.

The file is decoded once it is complete, since ranges are ranges of the encoded form. A few encoded bytes may expand to
any number, so the size is limited. Data that ends before its coding does is damaged.
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
# The same rule as in ``coding.pxd``: the codings, and the suffixes of files that are themselves in that format.
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
    """The codings in the field, in the order in which to undo them, without those that belong to the file itself
    according to one of its ``names``. Raises ``BadAnswer`` for one that this Python cannot decode.
    """
    listed = re.split("[ \t,]+", content_encoding.lower())
    undone = []
    for word in reversed(listed):
        if word in _NONE or (word not in _OWN and word not in _OTHERS):
            continue
        if any(_is_the_files_own(word, name) for name in names):
            continue
        if _decoder(word, b"") is None:
            raise BadAnswer(f"the server sent the file encoded ({word}), and rangefetch has no decoder for that here")
        undone.append(word)
    return tuple(undone)


def _is_the_files_own(coding: str, name: str) -> bool:
    """Whether, according to its name, the file itself is in this format. A name such as ``.gz`` has no suffix."""
    return any(len(name) > len(ending) and name.lower().endswith(ending) for ending in _OWN.get(coding, ()))


def decode(target: Target, codings: Sequence[str], most_bytes: int) -> int:
    """Decode a part file in place, and return its new size.

    The decoded form is first written to an unnamed temporary file in the same directory. Raises ``BadAnswer`` if the
    data is damaged or decodes to more than ``most_bytes``, and ``DiskError``. The part file is then unchanged, also if
    the disk was full.
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
                # Write beyond the encoded bytes first: if the disk is full, they are still intact.
                _copy(decoded.fileno(), target.fd, encoded_bytes, length)
            except OSError:
                os.ftruncate(target.fd, encoded_bytes)
                raise
            # This also removes the state, which describes the encoded bytes.
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
    """Copy the bytes ``[start, end)`` to the same offsets."""
    at = start
    for piece in _read(source_fd, start, end):
        left = memoryview(piece)
        while left:
            written = system.pwrite(fd, left, at)
            left, at = left[written:], at + written


def _undo(coding: str, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Undo one coding, yielding pieces of bounded size. Consecutive gzip members form one file (RFC 1952)."""
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
    """A new decoder for data that begins with ``head``; None if there is none for the coding."""
    if coding in ("gzip", "x-gzip"):
        return zlib.decompressobj(zlib.MAX_WBITS | 16)
    if coding == "deflate":
        # It should be in zlib format, but is often sent without (RFC 9110, section 8.4.1.2).
        wrapped = len(head) < 2 or (head[0] & 15 == 8 and (head[0] << 8 | head[1]) % 31 == 0)
        return zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)
    return None
