"""Opens a manifest as a stream, from a file, standard input, a URL or an open file; decompresses it, and peeks at its
beginning.

It is read only as needed, since a manifest may be larger than memory. The amount held in memory is bounded, since a few
kilobytes may decompress to any size.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

from rangefetch.importing import no_fork, ready_tempfile
from rangefetch.manifests.item import Mistake
from rangefetch.masking import mask_url

__all__ = ["LONGEST_LINE_BYTES", "MOST_DOCUMENT_BYTES", "ManifestError", "Source"]

LONGEST_LINE_BYTES = 1 << 20
"""A longer line is reported and skipped."""
MOST_DOCUMENT_BYTES = 128 << 20
"""The largest manifest in formats that must be read at once (JSON, TOML)."""
_MOST_PAGES = 100_000
_HEAD_BYTES = 1 << 16
_BUFFER_BYTES = 1 << 18
_MOST_COUNTED_BYTES = 64 << 20


class ManifestError(ValueError):
    """The manifest or, with ``strict``, one of its lines cannot be used; the message names the file and the line."""


class Source:
    """An open manifest. A context manager.

    ``shown`` is its name in messages, ``base_url`` the base of its relative URLs, and ``path`` its uncompressed file,
    if there is one. Raises ``ManifestError``.
    """

    def __init__(
        self, source: str | os.PathLike[str] | BinaryIO, base_url: str, options: Mapping[str, Any] | None = None
    ) -> None:
        self.base_url = base_url
        self._options = dict(options or {})
        self.url = ""
        """The URL it was fetched from, if any."""
        self.path: Path | None = None
        self.named: Path | None = None
        """Its file, compressed or not, if there is one."""
        self._closing = contextlib.ExitStack()
        try:
            self.shown, raw = self._open(source)
            self.is_regular = _is_regular(raw)
            self.named = self.path
            self.head, self.stream = _with_head(raw, whole=self.is_regular)
            if opener := _decompressor(self.head):
                plain = self._closing.enter_context(opener(self.stream))
                self.head, self.stream = _with_head(plain, whole=self.is_regular)
                self.path = None
        except (ManifestError, TypeError):
            self.close()
            raise
        except (OSError, EOFError, ValueError) as error:
            self.close()
            raise ManifestError(f"{self.shown}: {_reason(error)}") from None

    def _open(self, source: str | os.PathLike[str] | BinaryIO) -> tuple[str, BinaryIO]:
        if not isinstance(source, str | os.PathLike):
            if not hasattr(source, "read"):
                raise TypeError(f"source: expected a path, a URL or a binary file, not {type(source).__name__}")
            return self._named(str(getattr(source, "name", "manifest"))), source
        name = os.fspath(source)
        if name == "-":
            self.shown = "standard input"
            if sys.stdin is None:
                raise ManifestError("standard input is closed")
            return self.shown, sys.stdin.buffer
        if name.startswith(("http://", "https://")):
            return self._named(mask_url(name)), self._fetched(name)
        self._named(name)
        self.path = Path(name)
        return name, self._closing.enter_context(self.path.open("rb"))

    def _named(self, shown: str) -> str:
        self.shown = shown
        return shown

    def _fetched(self, url: str) -> BinaryIO:
        """Fetch the manifest into a temporary directory, and open it."""
        ready_tempfile()
        with no_fork:
            import tempfile

            from rangefetch.manifests.fetching import fetch_manifest

        self._directory = self._closing.enter_context(tempfile.TemporaryDirectory(prefix="rangefetch-"))
        with self._said_of_urls():
            self.path = fetch_manifest(url, Path(self._directory, "manifest"), self._options)
        self.url = url
        self.base_url = self.base_url or url
        return self._closing.enter_context(self.path.open("rb"))

    @contextlib.contextmanager
    def _said_of_urls(self) -> Iterator[None]:
        with no_fork:
            from rangefetch.errors import DownloadError

        try:
            yield
        except DownloadError as error:
            raise ManifestError(str(error) if error.url else f"{self.shown}: {error}") from None

    def further_pages(self) -> Iterator[bytes]:
        """Yield the pages that follow (``Link: rel="next"``), each fetched when it is asked for. Raises
        ``ManifestError``."""
        with no_fork:
            from rangefetch.manifests.fetching import fetch_manifest, next_page

        url, seen = self.url, {self.url}
        while True:
            with self._said_of_urls():
                url = next_page(url, self._options)
                if not url:
                    return
                if url in seen or len(seen) > _MOST_PAGES:
                    raise ManifestError(f"{mask_url(url)}: its pages form a circle, or there are too many")
                seen.add(url)
                page = fetch_manifest(url, Path(self._directory, "page"), self._options)
            octets = page.read_bytes() if page.stat().st_size <= MOST_DOCUMENT_BYTES else b""
            if not octets:
                raise ManifestError(f"{mask_url(url)}: a page is empty, or too large")
            yield octets

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close everything that this object has opened."""
        self._closing.close()

    def octet_lines(self) -> Iterator[tuple[int, bytes | Mistake]]:
        """Yield the lines with their numbers, from 1. Raises ``ManifestError``."""
        read = self.stream.readline
        number = 0
        try:
            while line := read(LONGEST_LINE_BYTES):
                number += 1
                if len(line) == LONGEST_LINE_BYTES and not line.endswith(b"\n"):
                    while (rest := read(LONGEST_LINE_BYTES)) and not rest.endswith(b"\n"):
                        pass
                    yield number, Mistake(number, f"the line is longer than {LONGEST_LINE_BYTES} bytes")
                else:
                    yield number, line
        except (OSError, EOFError, ValueError) as error:
            raise ManifestError(f"{self.shown}:{number + 1}: {_reason(error)}") from None

    def lines(self) -> Iterator[tuple[int, str | Mistake]]:
        """Yield the lines as text, without line endings. Raises ``ManifestError``."""
        for number, line in self.octet_lines():
            if isinstance(line, Mistake):
                yield number, line
                continue
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError:
                yield number, Mistake(number, "this is not text in UTF-8")

    def counts_lines(self, most: int) -> int | None:
        """The number of lines left, up to ``most``; None if counting would take too long. This consumes the lines."""
        count = octets = 0
        try:
            while count < most and (piece := self.stream.read(_BUFFER_BYTES)):
                octets += len(piece)
                if octets > _MOST_COUNTED_BYTES:
                    return None
                count += piece.count(b"\n")
        except (OSError, EOFError, ValueError):
            return None  # the error will be reported when the lines are read
        return min(count, most)

    def document(self) -> bytes:
        """Read the whole manifest. Raises ``ManifestError``, also if it is larger than ``MOST_DOCUMENT_BYTES``."""
        try:
            octets = self.stream.read(MOST_DOCUMENT_BYTES + 1)
        except (OSError, EOFError, ValueError) as error:
            raise ManifestError(f"{self.shown}: {_reason(error)}") from None
        if len(octets) > MOST_DOCUMENT_BYTES:
            raise ManifestError(f"{self.shown}: a document of more than {MOST_DOCUMENT_BYTES >> 20} MiB is too large")
        return octets


class _Rest(io.RawIOBase):
    """A stream of the bytes that were already read, followed by the rest."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head = memoryview(head)
        self._read = _reader(stream)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._head:
            count = min(len(buffer), len(self._head))
            buffer[:count] = self._head[:count]
            self._head = self._head[count:]
            return count
        octets = self._read(len(buffer))
        buffer[: len(octets)] = octets
        return len(octets)


def _reader(stream: BinaryIO) -> Callable[[int], bytes]:
    """A function that reads up to a given number of bytes. It raises ``OSError``, ``EOFError`` and ``ValueError``."""
    read_some: Callable[[int], bytes] = getattr(stream, "read1", stream.read)

    def read(size: int) -> bytes:
        try:
            octets: object = read_some(size)
        except (OSError, EOFError, ValueError):
            raise
        except Exception as error:  # decompressors have their own exception classes
            raise ValueError(str(error)) from None
        if not isinstance(octets, bytes):
            raise ValueError("the file is open in text mode; open it with mode 'rb'")
        return octets

    return read


def _with_head(stream: BinaryIO, *, whole: bool) -> tuple[bytes, BinaryIO]:
    """The first bytes of a stream, and a stream that still has them. If the stream is not ``whole`` (a pipe), this
    waits for the first line only.
    """
    read = _reader(stream)
    head = b""
    while len(head) < _HEAD_BYTES and (octets := read(_HEAD_BYTES - len(head))):
        head += octets
        if not whole and b"\n" in head:
            break
    return head, io.BufferedReader(_Rest(head, stream), _BUFFER_BYTES)


def _is_regular(stream: BinaryIO) -> bool:
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (OSError, AttributeError):
        return isinstance(stream, io.BytesIO)


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


# -- compressed forms --------------------------------------------------------------------------------------------------


def _gzip(stream: BinaryIO) -> BinaryIO:
    with no_fork:
        import gzip

    return cast(BinaryIO, gzip.GzipFile(fileobj=stream))


def _bzip2(stream: BinaryIO) -> BinaryIO:
    with no_fork:
        import bz2

    return cast(BinaryIO, bz2.BZ2File(stream))


def _xz(stream: BinaryIO) -> BinaryIO:
    with no_fork:
        import lzma

    return cast(BinaryIO, lzma.LZMAFile(stream))


def _zstandard(stream: BinaryIO) -> BinaryIO:
    with no_fork:
        import importlib

    # Not the package zstandard, whose reader does not notice that a file is truncated.
    for name in ("compression.zstd", "backports.zstd"):
        with contextlib.suppress(ImportError):
            return cast(BinaryIO, importlib.import_module(name).ZstdFile(stream))
    raise ValueError("a manifest in zstd needs a package: pip install 'rangefetch[zstd]'")


_MAGIC: tuple[tuple[bytes, Callable[[BinaryIO], BinaryIO]], ...] = (
    (b"\x1f\x8b", _gzip),
    (b"BZh", _bzip2),
    (b"\xfd7zXZ\x00", _xz),
    (b"\x28\xb5\x2f\xfd", _zstandard),
)


def _decompressor(head: bytes) -> Callable[[BinaryIO], BinaryIO] | None:
    return next((opener for magic, opener in _MAGIC if head.startswith(magic)), None)
