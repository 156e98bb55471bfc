"""The part folder of a torrent, magnet link or Metalink.

These determine the names of their own files, and bring one file, a directory or several files. Everything is fetched
into a directory ``NAME.part/``, and moved to its destination when it is complete.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from urllib.request import url2pathname

from rangefetch.aria2.entry import Request
from rangefetch.disk import checksum, publishing, state, system
from rangefetch.disk.names import DEFAULT_FILENAME, harmless_filename
from rangefetch.disk.ownership import is_trusted, mark
from rangefetch.disk.parts import claim, is_open_on, is_part_of, lock, part_path, state_path_of
from rangefetch.disk.state import StateDamaged
from rangefetch.disk.target import disk_errors
from rangefetch.errors import (
    HOW_TO_REPLACE,
    BadAnswer,
    ChecksumMismatch,
    ContentChanged,
    DiskError,
    LocalError,
    TargetExists,
    TargetLocked,
)
from rangefetch.logs import log as _log
from rangefetch.masking import mask_url
from rangefetch.options import DownloadOptions
from rangefetch.transfer.download import Download

__all__ = ["FolderLanding"]


class FolderLanding:
    """The place of a torrent's, magnet link's or Metalink's files. Methods may block, and run on workers."""

    has_lost_writes = False

    def __init__(self, download: Download, stopping: Callable[[], bool] = lambda: False) -> None:
        self.fd = -1
        self.size = 0
        """The total size of the files, set by ``prove``."""
        self._download = download
        self._options = download.options
        self._shown_url = mask_url(download.url)
        self._directory = Path(self._options.save_dir).absolute()
        self._folder = part_path(self._directory, self._options.filename, self._download.url)
        self._worthless = False  # whether nothing needs to be kept
        self._halted: Callable[[], bool] = stopping
        self._description = b""
        self._base_url = ""
        self._places: dict[str, Path] = {}

    def open(self) -> None:
        """Create the directory, or take the one that an earlier run has left. If something else has its name, that is
        left alone and another name is used. Raises ``TargetLocked``, ``TargetExists``, ``DiskError``."""
        name = self._options.filename
        if name:
            self._check_free(self._directory / name)
        self._download.filename = name or _display_name(self._download.url)
        with disk_errors("use", self._folder):
            self._directory.mkdir(parents=True, exist_ok=True)
            for folder in self._candidates():
                self._folder = folder
                if os.path.lexists(folder):
                    if self._take():
                        return
                    _log.info("%s: not created by rangefetch; left alone", folder)
                elif not os.path.lexists(state_path_of(folder)):
                    self._make()
                    return
        words = f"{self._folder}: not created by rangefetch, and the alternative names are taken too; move it away"
        raise DiskError(words, errno=errno.EEXIST, filename=self._folder)

    def clear(self) -> None:
        """Remove the directory that an earlier run has left. Raises ``TargetLocked``, ``DiskError``."""
        with disk_errors("use", self._folder):
            for folder in self._candidates():
                self._folder = folder
                if os.path.lexists(folder) and self._take():
                    self.discard()

    def move(self, options: DownloadOptions) -> None:
        """Move the directory of an earlier run to where a task with these options looks for it. Across file systems it
        is copied. Raises ``TargetLocked``, ``TargetExists``, ``DiskError``.
        """
        there = FolderLanding(self._download)
        there._directory, there._options = Path(options.save_dir).absolute(), options
        with disk_errors("use", self._folder):
            there._directory.mkdir(parents=True, exist_ok=True)
            for folder in self._candidates():
                self._folder = folder
                if os.path.lexists(folder) and self._take():
                    with contextlib.closing(self):
                        self._move_to(there._candidates())
                    return

    def _move_to(self, places: Iterable[Path]) -> None:
        """Move to the first free one of ``places``, or stay if it is already at one that comes earlier."""
        usable = (folder for folder in places if folder == self._folder or not _is_taken(folder))
        folder = next(usable, None)
        if folder is None:
            words = f"{self._folder}: its destination already exists"
            raise TargetExists(words, url=self._shown_url, filename=self._folder)
        if folder == self._folder:
            return
        if folder.parent.stat().st_dev == os.fstat(self.fd).st_dev:
            publishing.rename_free(self._folder, folder)
        else:
            shutil.copytree(self._folder, folder, symlinks=True)
            shutil.rmtree(self._folder)
        state_path_of(self._folder).unlink(missing_ok=True)
        fd = _open_directory(folder)
        try:
            if not mark(fd, self._download.url):
                state.save(state_path_of(folder), claim(self._download.url))
        finally:
            os.close(fd)

    @property
    def is_empty(self) -> bool:
        """Whether the directory is empty."""
        return not any(self._folder.iterdir())

    def close(self) -> None:
        """Close the directory, which releases its lock. Closing twice is fine."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def _candidates(self) -> Iterator[Path]:
        """The names that the directory may have, the preferred one first."""
        yield part_path(self._directory, self._options.filename, self._download.url)
        if self._options.filename:
            yield part_path(self._directory, "", self._download.url)

    def _make(self) -> None:
        """Create and lock the directory, and mark it as this download's by an attribute or by a claim beside it."""
        self._folder.mkdir(mode=0o700)
        self.fd = _open_directory(self._folder)
        if not mark(self.fd, self._download.url):
            state.save(state_path_of(self._folder), claim(self._download.url))
        self._lock()

    def _take(self) -> bool:
        """Open and lock the directory, if it is from an earlier run of this download. Raises ``TargetLocked``."""
        try:
            self.fd = _open_directory(self._folder)
        except OSError:
            return False
        if not is_trusted(os.fstat(self.fd), self._directory) or not is_part_of(
            self.fd, self._folder, self._download.url
        ):
            self.close()
            return False
        self._lock()
        return True

    def _lock(self) -> None:
        try:
            lock(self.fd, self._folder)
        except TargetLocked:
            self.close()
            raise

    def request(self) -> Request:
        """The torrent, Metalink or magnet link for aria2. Raises ``DiskError``."""
        scheme = urlsplit(self._download.url).scheme.lower()
        request = Request(
            [self._download.url],
            {
                "dir": str(self._folder),
                # Headers are for the URL only; the files may come from anywhere.
                "header": [],
                # On resuming a magnet link, reuse the saved torrent metadata instead of fetching it again.
                "bt-save-metadata": "true",
                "bt-load-saved-metadata": "true",
            },
        )
        if scheme == "file":
            with disk_errors("use", self._folder):
                self._description = Path(url2pathname(urlsplit(self._download.url).path)).read_bytes()
        if scheme != "magnet":
            described = base64.b64encode(self._description).decode()
            if urlsplit(self._download.url).path.lower().endswith(".torrent"):
                request.torrent = described
            else:
                request.metalink = described
                request.options["metalink-base-uri"] = self._base_url
        return request

    def describe(self, octets: bytes, url: str) -> None:
        """Set the content of the torrent or Metalink, and the URL it came from."""
        self._description, self._base_url = octets, url

    def change(self, options: DownloadOptions) -> None:
        """Use these options from now on."""
        self._options = options

    def name(self, paths: Iterable[str]) -> None:
        """Set the download's name from the paths of its files, before they are fetched. Raises ``TargetExists`` if a
        destination is taken."""
        try:
            for name in self._destinations(paths):
                self._download.filename = self._options.filename or name
        except TargetExists:
            self._worthless = True
            raise

    def restart(self) -> None:
        """Delete everything in the directory. Raises ``DiskError``."""
        with disk_errors("use", self._folder):
            for entry in self._folder.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()

    def prove(self, paths: Iterable[str]) -> None:
        """Check that the received files are what the caller expects, and that their destinations are free.

        Raises ``BadAnswer`` if there are no files, ``ChecksumMismatch``, ``ContentChanged`` for a wrong size,
        ``LocalError`` if a checksum was given and there are several files, ``TargetExists``, ``DiskError``.
        """
        files = [Path(path) for path in paths if Path(path).exists()]
        if not files:
            raise BadAnswer("aria2 found nothing to download in it", url=self._shown_url)
        self._places = self._destinations(map(str, files))
        with disk_errors("use", self._folder):
            self.size = sum(file.stat().st_size for file in files)
        options = self._options
        if options.expected_size not in (0, self.size):
            raise ContentChanged(f"received {self.size} bytes, not {options.expected_size}", url=self._shown_url)
        if not options.checksum:
            return
        if len(files) > 1:
            raise LocalError(
                f"checksum: it is for one file, but {len(files)} were downloaded, into {self._folder}",
                url=self._shown_url,
            )
        algorithm, _, wanted = options.checksum.partition("=")
        found = checksum.digest_of(files[0], algorithm, stop=self._halted)
        if found != wanted:
            raise ChecksumMismatch(
                f"wrong checksum: expected {options.checksum}, got {algorithm}={found}",
                expected=options.checksum,
                actual=f"{algorithm}={found}",
                url=self._shown_url,
            )

    def publish(self) -> Path:
        """Move the checked files to their destination, and return its path.

        A single file or directory gets the name that was asked for. Several are put side by side, and the path is that
        of the directory that contains them. Raises ``TargetExists``, ``DiskError``.
        """
        places = self._places
        with disk_errors("use", self._folder):
            for name, place in places.items():
                _make_readable(self._folder / name)
                if self._options.durable:
                    _sync_all(self._folder / name)
                place.parent.mkdir(exist_ok=True)
                self._move(self._folder / name, place)
                if self._options.durable:
                    system.sync_directory(place.parent)
            self._remove()
        self.close()
        return next(iter(places.values())) if len(places) == 1 else self._directory / self._options.filename

    def keep(self) -> bool:
        """Close the directory and keep it for a later run, or delete it if there is nothing worth keeping.

        Returns whether it was kept.
        """
        if self.fd < 0:
            return False
        is_worth_it = not self._worthless and not self.is_empty
        if not is_worth_it:
            self.discard()
        self.close()
        return is_worth_it

    def discard(self) -> None:
        """Remove the directory with everything in it, and close it."""
        if self.fd >= 0:
            with disk_errors("use", self._folder):
                self._remove()
        self.close()

    def _remove(self) -> None:
        """Remove the directory and its claim, unless another program has replaced the directory."""
        if is_open_on(self.fd, self._folder):
            shutil.rmtree(self._folder, ignore_errors=True)
            with contextlib.suppress(FileNotFoundError, StateDamaged):
                if state.load(state_path_of(self._folder)).url == self._download.url:
                    state_path_of(self._folder).unlink()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _top(self, paths: Iterable[str]) -> list[str]:
        """The top-level entries of the folder that contain these files. Raises ``DiskError`` for a path outside it."""
        names = []
        for path in paths:
            # "[METADATA]name" is a torrent's metadata, which is not a file.
            if path.startswith("["):
                continue
            parts = Path(path).parts[len(self._folder.parts) :]
            if not Path(path).is_relative_to(self._folder) or not parts or os.pardir in parts:
                words = f"{path}: it is not in {self._folder}"
                raise DiskError(words, errno=errno.EINVAL, url=self._shown_url, filename=path)
            names.append(parts[0])
        return list(dict.fromkeys(names))

    def _destinations(self, paths: Iterable[str]) -> dict[str, Path]:
        """The destination of each entry of the folder. Raises ``TargetExists`` if one is taken, and ``BadAnswer`` if
        several entries would get the same name."""
        top, wanted = self._top(paths), self._options.filename
        if wanted:
            places = {name: self._directory / wanted / (harmless_filename(name) or name) for name in top}
            if len(top) == 1:
                places = {top[0]: self._directory / wanted}
        else:
            places = {name: self._directory / (harmless_filename(name) or self._folder.stem) for name in top}
        if len(set(places.values())) < len(places):
            raise BadAnswer("several of its files would get the same name here", url=self._shown_url)
        for place in places.values():
            self._check_free(place)
        return places

    def _check_free(self, place: Path) -> None:
        """Raises ``TargetExists`` if something is there, unless it is a plain file and may be overwritten."""
        if os.path.lexists(place) and not (self._options.overwrite and place.is_file()):
            raise self._taken(place)

    def _move(self, source: Path, destination: Path) -> None:
        """Rename without replacing anything, or on request replace a plain file by a plain file."""
        try:
            if self._options.overwrite and not source.is_dir():
                publishing.replace(source, destination)
            else:
                publishing.rename_free(source, destination)
        except (TargetExists, IsADirectoryError):
            raise self._taken(destination) from None

    def _taken(self, path: Path) -> TargetExists:
        return TargetExists(f"{path} exists; {HOW_TO_REPLACE}", url=self._shown_url, filename=path)


def _open_directory(path: Path) -> int:
    return system.open_directory(path, system.NO_LINK)


def _sync_all(path: Path) -> None:
    """Sync the file, or the directory with everything in it, to disk. Raises ``OSError``."""
    for entry in [path, *path.rglob("*")] if path.is_dir() else [path]:
        if entry.is_dir():
            system.sync_directory(entry)
        else:
            system.sync_file(entry)


def _is_taken(folder: Path) -> bool:
    return os.path.lexists(folder) or os.path.lexists(state_path_of(folder))


def _display_name(url: str) -> str:
    """The name that a magnet link or URL gives its content, for use until aria2 reports the real one."""
    parts = urlsplit(url)
    named = parse_qs(parts.query).get("dn", [""])[0] if parts.scheme.lower() == "magnet" else parts.path
    return harmless_filename(unquote(named)) or DEFAULT_FILENAME


def _make_readable(path: Path) -> None:
    """Give files and directories the usual modes of new ones: aria2c creates them accessible to this user only."""
    mask = system.umask()
    for entry in [path, *path.rglob("*")] if path.is_dir() else [path]:
        with contextlib.suppress(OSError):
            if not entry.is_symlink():
                entry.chmod((0o777 if entry.is_dir() else 0o666) & ~mask)
