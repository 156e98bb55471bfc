"""The target of a stream: a temporary file without a name.

The transfer and the reader meet here. Bytes that the reader has taken can never be taken back, so it gets none before
the answer that they come from was checked, and the version that it has begun to read is fixed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rangefetch import records
from rangefetch.disk import system
from rangefetch.disk.parts import Part
from rangefetch.disk.target import Target
from rangefetch.errors import ContentChanged, DiskError
from rangefetch.identity import Identity, Strength
from rangefetch.masking import mask_url

if TYPE_CHECKING:
    from rangefetch._engine import File
    from rangefetch.transfer.download import Download

__all__ = ["Nowhere", "Sink"]

_WINDOW_BYTES = 64 << 20


class Sink(Target):
    """A temporary file without a name. ``read_bytes`` is how far the reader has got, ``read_url`` and ``read_identity``
    say what it reads; its download's lock guards them.
    """

    keeps_state = False
    window_bytes = _WINDOW_BYTES

    def __init__(self, filename: str, url: str) -> None:
        """Make the temporary file. Raises ``DiskError``, with ``url``."""
        with _failing_for(url, "a temporary file could not be made"):
            fd, path = system.open_temporary()
        super().__init__(Part(fd, path, marked=True), path.with_name(filename))
        self.read_url = ""
        self.read_identity = Identity()

    def admit(self, download: Download, file: File, url: str, identity: Identity) -> None:
        """Let the reader have what ``file`` fetches: bytes of ``url``, which an answer described as ``identity``."""
        with download.lock:
            self.read_url, self.read_identity = url, identity
            download.file = file
            download.notify()

    def shorten(self, download: Download, size: int) -> None:
        """Correct the size: the server has only ``size`` bytes of the file."""
        with download.lock:
            self.read_identity = records.replace(self.read_identity, size=size)

    def hold(self, download: Download) -> None:
        """Give the reader nothing until the next ``admit``, because the download starts over.

        Raises ``ContentChanged`` if it has read something that no strong validator identifies (RFC 9110, section
        8.8.1): nothing could show that the next bytes continue it. It may still read what came before.
        """
        with download.lock:
            if self.read_bytes and self.read_identity.strength is not Strength.STRONG:
                raise ContentChanged(
                    "the stream broke off after its beginning was read, and cannot be resumed: the server gives no "
                    "strong ETag to show that the file is still the same",
                    url=mask_url(download.url),
                )
            download.file = None

    def truncate(self, size_bytes: int = 0) -> None:
        """Keep everything: the bytes will be the same when they come again, and those that were read need no space."""

    def publish(self, *, overwrite: bool, modified_time: float | None, durable: bool) -> Path:
        """Nothing to publish; the reader continues."""
        assert self.path is not None
        return self.path

    def discard(self) -> None:
        """Left to the reader, which closes the file."""

    def close(self) -> None:
        """Left to the reader, which closes the file."""

    def release(self) -> None:
        """Close the file; the reader is done."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


@contextlib.contextmanager
def _failing_for(url: str, words: str) -> Iterator[None]:
    """Turn an ``OSError`` into a ``DiskError`` of the download from ``url``."""
    try:
        yield
    except OSError as error:
        words = f"{words}: {error.strerror or error}"
        raise DiskError(words, errno=error.errno or 0, url=mask_url(url)) from error


class Nowhere(Sink):
    """Takes no bytes: for a download that only asks about a file."""

    def __init__(self, url: str) -> None:
        """Raises ``DiskError``, with ``url``."""
        with _failing_for(url, f"{os.devnull} could not be opened"):
            fd = system.open_file(os.devnull, os.O_RDWR)
        Target.__init__(self, Part(fd, Path(os.devnull), marked=True), None)
        self.read_url = ""
        self.read_identity = Identity()
