"""Finds files that an earlier process of a run finished but did not record in the ledger, because it was killed after
giving the file its name and before committing its row.

The file itself records where it came from (``disk.provenance``). Most files have the name that their line in the list
gives. Those that were named by the server, or numbered, are found by their URL; the directory is scanned once for that.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from rangefetch.disk import checksum, provenance, system
from rangefetch.disk.names import filename_from_url
from rangefetch.manifests.item import ManifestItem
from rangefetch.progress import DownloadResult

__all__ = ["Finished", "has_digest"]

_PIECE_BYTES = 1 << 20


class Finished:
    """Such files below ``directory`` that are not older than ``since_s`` (seconds since 1970). ``decodes``: files were
    decoded after the transfer, so their digests are not those of the bytes as sent.
    """

    def __init__(self, directory: str, since_s: float, *, decodes: bool) -> None:
        self._directory = directory
        self._since_s = since_s - 1  # a file system's clock may differ
        self._decodes = decodes
        self._renamed: dict[str, dict[str, str]] = {}  # by directory: URL to name, if the URL does not end in the name

    def find(self, item: ManifestItem) -> DownloadResult | None:
        """The file of an item as a result, or None if it does not exist or cannot be shown to be the item's."""
        folder, _, name = item.path.rpartition("/")
        directory = f"{self._directory}/{folder}" if folder else self._directory
        if found := self._file(item, f"{directory}/{name or filename_from_url(item.url)}"):
            return found
        if name:
            return None
        renamed = self._renamed.get(directory)
        if renamed is None:
            renamed = self._renamed[directory] = _renamed_in(directory, self._since_s)
        other = renamed.get(provenance.public_url(item.url))
        return self._file(item, f"{directory}/{other}") if other else None

    def _file(self, item: ManifestItem, path: str) -> DownloadResult | None:
        try:
            fd = system.open_file(path, os.O_RDONLY | system.NO_LINK)
        except OSError:
            return None
        try:
            status = os.fstat(fd)
            origin = provenance.recall(fd) if stat.S_ISREG(status.st_mode) else None
        finally:
            os.close(fd)
        if (
            origin is None
            or origin.url != provenance.public_url(item.url)
            or status.st_ctime < self._since_s
            or (item.size and item.size != status.st_size and origin.encoded_bytes < 0)
            or (item.checksum and (self._decodes or not has_digest(path, item.checksum)))
        ):
            return None
        name = path.rpartition("/")[2]
        return DownloadResult(Path(path), name, status.st_size, "", item.checksum, already_complete=True)


def _renamed_in(directory: str, since_s: float) -> dict[str, str]:
    """Map URL to name for the files of a directory whose name is not the last part of their URL."""
    found: dict[str, str] = {}
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_ctime >= since_s:
                    url = provenance.url_of(entry.path)
                    if url and filename_from_url(url) != entry.name:
                        found[url] = entry.name
    except OSError:
        pass  # the directory does not exist yet, or cannot be read
    return found


def has_digest(path: str, wanted: str) -> bool:
    """Whether a file has the digest ``ALGORITHM=HEX``."""
    algorithm, _, digest = wanted.partition("=")
    try:
        found = checksum.new(algorithm)
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a string, for one file of a list
            while octets := file.read(_PIECE_BYTES):
                found.update(memoryview(octets))
    except OSError:
        return False
    return found.hexdigest() == digest
