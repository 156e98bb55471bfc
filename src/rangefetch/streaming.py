"""A remote file as a binary file object: read in order, fetched as parallel ranges.

The ranges are written to an unnamed temporary file, at most a window ahead of the reader. The space of bytes that have
been read is returned to the file system, so neither memory nor disk use grows with the file.
"""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Unpack, cast

from rangefetch.checks import HTTP, Url, check_url
from rangefetch.disk import checksum, system
from rangefetch.downloads import Downloads
from rangefetch.errors import Cancelled, ChecksumMismatch, LocalError
from rangefetch.importing import no_fork
from rangefetch.masking import mask_url
from rangefetch.options import DownloadOptions, StreamOptions
from rangefetch.progress import DownloadStatus
from rangefetch.shared import our_downloads
from rangefetch.transfer.download import Download
from rangefetch.transfer.sink import Sink

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["RemoteFile", "stream"]

_BUFFER_BYTES = 1 << 20
_GIVE_BACK_BYTES = 8 << 20
_ENDED = (DownloadStatus.COMPLETE, DownloadStatus.ERROR, DownloadStatus.REMOVED, DownloadStatus.PAUSED)


class RemoteFile(io.RawIOBase):
    """A remote file, open for reading from start to end; not seekable. Use ``stream``, which adds a buffer.

    If the download fails, reading first returns the bytes that arrived before, and then raises the ``DownloadError``.
    """

    def __init__(self, downloads: Downloads, url: str, options: DownloadOptions) -> None:
        self.url = mask_url(url)
        self._downloads = downloads
        self._position = 0
        self._given_back = 0
        self._sink = Sink("stream", url)
        self._hash = checksum.new(options.checksum.partition("=")[0]) if options.checksum else None
        self._download = Download(url, options)
        self._download.sink = self._sink
        downloads.begin(self._download)

    @property
    def size(self) -> int | None:
        """The size of the file in bytes, or None while it is unknown."""
        total = self._download.progress().total
        return total or None

    @property
    def name(self) -> str:
        """The URL, without user name and password."""
        return self.url

    def __repr__(self) -> str:
        return f"<RemoteFile {self.url}: {self._position} of {self.size or 'unknown'} bytes read>"

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        """The number of bytes read so far."""
        return self._position

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer).cast("B")
        if not len(view):
            return 0
        there = self._take(len(view))
        count = system.read_into(self._sink.fd, view[: there - self._position], self._position) if there else 0
        self._position += count
        if self._hash is not None:
            self._prove(self._hash, view[:count])
        if count:
            self._move_on()
        return count

    def _prove(self, digest: checksum.Hash, piece: memoryview) -> None:
        """Hash a piece that was read. An empty piece marks the end of the file: raise if the digest is wrong."""
        if piece:
            digest.update(piece)
            return
        expected = self._download.options.checksum
        actual = f"{expected.partition('=')[0]}={digest.hexdigest()}"
        if actual != expected:
            raise ChecksumMismatch(
                f"wrong checksum: expected {expected}, got {actual}", expected=expected, actual=actual, url=self.url
            )

    def _take(self, most: int) -> int:
        """Wait for bytes beyond the position and take up to ``most``. Returns where they end, or 0 at the end of file.

        Once bytes have been taken, the download may only continue with the same version of the file. They are taken
        under the download's lock, so that it cannot start over in between.
        """
        download, position = self._download, self._position
        with download.lock:
            while True:
                there = download.file.contiguous if download.file is not None else 0
                if there > position:
                    self._sink.read_bytes = min(there, position + most)
                    return self._sink.read_bytes
                if download.status in _ENDED:
                    break
                if download.file is not None:
                    download.file.read_to(position, position + 1)
                    if download.file.contiguous > position:
                        continue
                download.wait(1.0)
        if (error := download.failure()) is not None:
            raise error from error.__cause__
        if download.status is not DownloadStatus.COMPLETE:
            raise Cancelled("the stream was stopped", url=self.url)
        return 0

    def _move_on(self) -> None:
        """Move the window forward, and return the space of what was read to the file system."""
        with no_fork:
            from rangefetch._engine import punch_hole

        file = self._download.file
        if self._position - self._given_back >= _GIVE_BACK_BYTES:
            if file is not None:
                file.read_to(self._position)
            start, self._given_back = self._given_back, self._position
            punch_hole(self._sink.fd, start, self._given_back)

    def close(self) -> None:
        """Stop the transfer and free its resources."""
        if self.closed:
            return
        super().close()
        download, downloads = self._download, self._downloads
        with contextlib.suppress(KeyError):
            try:
                downloads.let_go([downloads.find(download.gid)])
            except RuntimeError:  # in a forked child, which does not have the threads that fetch
                self._sink.release()
        # Close the descriptor only when the download has stopped: a loop that hangs may still write to it, and by then
        # the number could belong to another file.
        download.watch(self._release)
        self._release(download)

    def _release(self, download: Download) -> None:
        if download.status is not DownloadStatus.ACTIVE:
            self._sink.release()


class _Reader(io.BufferedReader):
    """The file object that ``stream`` returns."""

    def __repr__(self) -> str:
        """Show the URL and how far it has been read."""
        raw = cast(RemoteFile, self.raw)
        if self.closed:
            return f"<stream of {raw.url}: closed>"
        return f"<stream of {raw.url}: {self.tell()} of {raw.size or 'unknown'} bytes read>"


def stream(url: Url, **options: Unpack[StreamOptions]) -> io.BufferedReader:
    """Open a remote file for reading in order, while several connections fetch ahead.

    Returns a binary file object like that of ``open(path, "rb")``, except that it cannot seek;
    ``shutil.copyfileobj`` and ``tarfile.open(fileobj=…, mode="r|gz")`` work on it. At most 64 MiB are fetched ahead of
    the reader, into a temporary file whose space is freed as it is read. Closing the stream early stops the transfer.
    Any number of streams can be open and read in any order: a stream starts at once and does not count against
    ``max_concurrent_downloads``.

    ``options`` are the fields of ``DownloadOptions`` that concern the transfer. With a ``checksum``, the read that
    reaches the end raises ``ChecksumMismatch`` if the digest is wrong.

    Without a strong ETag or a ``checksum``, the file is fetched as a single response over one connection. Once data has
    been read, the stream can be continued after a failure only if size and strong ETag are still the same; otherwise
    reading raises ``ContentChanged``.

    Raises ``ValueError`` or ``TypeError`` for bad options, ``LocalError`` if the native engine cannot run, and
    ``DiskError`` if no temporary file can be made. Reading raises the ``DownloadError`` of a failed download.
    """
    checked = DownloadOptions.of(options)
    for name in ("save_dir", "filename"):
        if name in options:
            raise ValueError(f"{name}: a stream is not saved to a file")
    url = check_url(url, schemes=HTTP)
    if checked.decode:
        raise ValueError("decode: a stream returns what the server sends; decode it with gzip.open or similar")
    downloads = our_downloads()
    checked = DownloadOptions.of(checked.over(downloads.defaults.options), file_allocation="none", decode=False)
    if not downloads.can_stream():
        raise LocalError("streams require the native engine", url=mask_url(url))
    return _Reader(RemoteFile(downloads, url, checked), _BUFFER_BYTES)
