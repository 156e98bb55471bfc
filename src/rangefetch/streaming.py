"""A remote file as a binary file object: read in order, fetched by parallel ranges.

The ranges go into a nameless temporary file, at most a window ahead of the reader, and what was read is given back to
the filesystem, so that neither memory nor disk grows with the file.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rangefetch import checksum
from rangefetch.download import Download
from rangefetch.errors import Cancelled, ChecksumMismatch, LocalError
from rangefetch.manager import DownloadManager, get_download_manager
from rangefetch.network import mask_url
from rangefetch.options import HTTP, DownloadOptions, check_url
from rangefetch.parts import Part
from rangefetch.progress import DownloadStatus
from rangefetch.target import Target

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["RemoteFile", "stream"]

WINDOW_BYTES = 64 << 20
_BUFFER_BYTES = 1 << 20
_GIVE_BACK_BYTES = 8 << 20
_ENDED = (DownloadStatus.COMPLETE, DownloadStatus.ERROR, DownloadStatus.REMOVED, DownloadStatus.PAUSED)


class _Sink(Target):
    """A temporary file without a name, in the place of a target."""

    keeps_state = False
    window_bytes = WINDOW_BYTES

    def __init__(self, filename: str) -> None:
        fd, name = tempfile.mkstemp(prefix="rangefetch-")
        path = Path(name)
        path.unlink()
        super().__init__(Part(fd, path, marked=True), path.with_name(filename))

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


class RemoteFile(io.RawIOBase):
    """A remote file, open for reading from start to end; not seekable. Use ``stream``, which buffers it.

    Reading raises the ``DownloadError`` that ended the download, after the bytes that had come before.
    """

    def __init__(self, manager: DownloadManager, url: str, options: DownloadOptions) -> None:
        self.url = mask_url(url)
        self._manager = manager
        self._position = 0
        self._given_back = 0
        self._sink = _Sink("stream")
        self._hash = checksum.new(options.checksum.partition("=")[0]) if options.checksum else None
        self._download = Download(url, options)
        self._download.sink = self._sink
        manager.begin(self._download)

    @property
    def size(self) -> int | None:
        """Bytes in all, None while that is not known."""
        total = self._download.progress().total
        return total or None

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        """How many bytes were read."""
        return self._position

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer).cast("B")
        if not len(view):
            return 0
        there = self._wait_for_more()
        count = os.preadv(self._sink.fd, [view[: there - self._position]], self._position) if there else 0
        self._position += count
        if self._hash is not None:
            self._prove(self._hash, view[:count])
        if count:
            self._sink.read_bytes = self._position
            self._move_on()
        return count

    def _prove(self, digest: checksum.Hash, piece: memoryview) -> None:
        """Take in what is read; at the end, without a piece, it must be what was asked for."""
        if piece:
            digest.update(piece)
            return
        expected = self._download.options.checksum
        actual = f"{expected.partition('=')[0]}={digest.hexdigest()}"
        if actual != expected:
            raise ChecksumMismatch(
                f"the checksum is {actual}, and {expected} was expected", expected=expected, actual=actual, url=self.url
            )

    def _wait_for_more(self) -> int:
        """Wait for a byte beyond the position; how many are there from the start, 0 at the end of the file."""
        download = self._download
        while True:
            file = download.file
            if file is not None:
                there = file.contiguous
                if there > self._position:
                    return there
            with download.lock:
                if download.status in _ENDED:
                    break
                if file is not None:
                    file.read_to(self._position, self._position + 1)
                    if file.contiguous > self._position:
                        continue
                download.lock.wait(1.0)
        if download.file is not None and download.file.contiguous > self._position:
            return download.file.contiguous
        if download.error is not None:
            raise download.error
        if download.status is not DownloadStatus.COMPLETE:
            raise Cancelled("the stream was stopped", url=self.url)
        return 0

    def _move_on(self) -> None:
        """Let the window follow, and give back the space of what was read."""
        from rangefetch import _engine

        file = self._download.file
        if self._position - self._given_back >= _GIVE_BACK_BYTES:
            if file is not None:
                file.read_to(self._position)
            start, self._given_back = self._given_back, self._position
            _engine.punch_hole(self._sink.fd, start, self._given_back)

    def close(self) -> None:
        """Stop the transfer, and free everything."""
        if self.closed:
            return
        super().close()
        download, manager = self._download, self._manager
        with contextlib.suppress(KeyError):
            try:
                manager.cancel(download.gid)
                manager.remove(download.gid)
            except RuntimeError:  # this is a child that was forked, without the threads that fetch
                self._sink.release()
        # A loop that hangs may still write, and the number of the descriptor would be another file's by then.
        download.watch(self._release)
        self._release(download)

    def _release(self, download: Download) -> None:
        if download.status is not DownloadStatus.ACTIVE:
            self._sink.release()


def stream(url: str, **options: Any) -> io.BufferedReader:
    """Open a remote file for reading, in order, fed by parallel ranges.

    Returns a binary file object as ``open(path, "rb")`` does, but not seekable; ``shutil.copyfileobj`` and
    ``tarfile.open(fileobj=…, mode="r|gz")`` work on it. At most 64 MiB come ahead of the reader, through a temporary
    file whose space is given back behind it. Closing it early stops the transfer. Any number may be open and read in
    any order: a stream starts at once, and neither waits for a place among the manager's downloads nor takes one.
    ``options`` are those of ``DownloadOptions`` that concern the transfer; with a ``checksum`` the read that comes to
    the end raises ``ChecksumMismatch`` if the bytes were others.

    Raises ``ValueError`` or ``TypeError`` for wrong options, ``LocalError`` where the native engine does not run;
    reading raises the ``DownloadError`` of a download that fails.
    """
    checked = DownloadOptions.of({**options, "file_allocation": "none"})
    check_url(url, schemes=HTTP)
    manager = get_download_manager()
    if manager.native_backend() is None:
        raise LocalError("streams need the native engine", url=mask_url(url))
    return io.BufferedReader(RemoteFile(manager, url, checked), _BUFFER_BYTES)
