"""Where the bytes of a stream go: a temporary file without a name, in the place of a target.

The transfer and the reader meet here. What the reader has taken can never be taken back, so it gets nothing before the
answer that it comes from was checked, and what it has begun to read is pinned.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from rangefetch import records
from rangefetch.disk import system
from rangefetch.disk.parts import Part
from rangefetch.disk.target import Target
from rangefetch.errors import ContentChanged
from rangefetch.identity import Identity, Strength
from rangefetch.masking import mask_url

if TYPE_CHECKING:
    from rangefetch._engine import File
    from rangefetch.transfer.download import Download

__all__ = ["Nowhere", "Sink"]

_WINDOW_BYTES = 64 << 20


class Sink(Target):
    """A temporary file without a name. ``read_bytes`` is how far the reader has come; its download's lock guards it,
    ``read_url`` and ``read_identity``, which say what it reads."""

    keeps_state = False
    window_bytes = _WINDOW_BYTES

    def __init__(self, filename: str) -> None:
        fd, path = system.open_temporary()
        super().__init__(Part(fd, path, marked=True), path.with_name(filename))
        self.read_url = ""
        self.read_identity = Identity()

    def admit(self, download: Download, file: File, url: str, identity: Identity) -> None:
        """The reader may have what ``file`` brings: bytes of ``url``, of which an answer said ``identity``."""
        with download.lock:
            self.read_url, self.read_identity = url, identity
            download.file = file
            download.notify()

    def shorten(self, download: Download, size: int) -> None:
        """The file was said to be longer than the ``size`` bytes that the server has of it."""
        with download.lock:
            self.read_identity = records.replace(self.read_identity, size=size)

    def hold(self, download: Download) -> None:
        """The download starts over: until the next ``admit`` the reader gets nothing.

        Raises ``ContentChanged`` if it has read something that no strong validator identifies (RFC 9110, section
        8.8.1): what comes next could not be shown to continue it. It may read on what had come before.
        """
        with download.lock:
            if self.read_bytes and self.read_identity.strength is not Strength.STRONG:
                raise ContentChanged(
                    "the stream broke off after its beginning was read, and cannot be continued: the server gives no "
                    "strong ETag that would show that the file is still the same",
                    url=mask_url(download.url),
                )
            download.file = None

    def truncate(self, size_bytes: int = 0) -> None:
        """The bytes that come again will be the same; what was read of them needs no place."""

    def publish(self, *, overwrite: bool, modified_time: float | None, durable: bool) -> Path:
        """There is nothing to publish; the reader goes on reading."""
        assert self.path is not None
        return self.path

    def discard(self) -> None:
        """The reader closes it."""

    def close(self) -> None:
        """The reader closes it."""

    def release(self) -> None:
        """The reader is done."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


class Nowhere(Sink):
    """Where no byte is to go: for a download that only asks what there is."""

    def __init__(self) -> None:
        fd = system.open_file(os.devnull, os.O_RDWR)
        Target.__init__(self, Part(fd, Path(os.devnull), marked=True), None)
        self.read_url = ""
        self.read_identity = Identity()
