"""Where torrents, magnet links and Metalinks land: a directory of their own, until everything in it is there.

What they bring has names of its own, and may be one file, a directory or several files. It is fetched into
``NAME.part/``, and only then moved to where it was wanted.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

if sys.platform != "win32":
    import fcntl

from rangefetch.aria2.landing import Request
from rangefetch.aria2.remote import is_http
from rangefetch.download import Download
from rangefetch.errors import BadAnswer, DiskError, TargetExists, TargetLocked
from rangefetch.names import DEFAULT_FILENAME, harmless_filename
from rangefetch.network import mask_url
from rangefetch.options import DownloadOptions
from rangefetch.publishing import umask

__all__ = ["FolderLanding"]


class FolderLanding:
    """The place of what a torrent, magnet link or Metalink brings. Methods may take long, and run on workers."""

    def __init__(self, download: Download) -> None:
        self.resumed = 0
        self._download = download
        self._options = download.options
        self._shown_url = mask_url(download.url)
        self._directory = Path(self._options.save_dir).absolute()
        stem = self._options.filename or f"rangefetch-{hashlib.sha256(download.url.encode()).hexdigest()[:16]}"
        self._folder = self._directory / f"{stem}.part"
        self._fd = -1
        self._worthless = False  # nothing of it needs to be kept
        self._description = b""
        self._base_url = ""

    def open(self) -> None:
        """Make the directory, or take the one that was left. Raises ``TargetLocked``, ``TargetExists``,
        ``DiskError``."""
        name = self._options.filename
        if name and (self._directory / name).exists() and not self._options.overwrite:
            raise self._taken(self._directory / name)
        self._download.filename = name or _display_name(self._download.url)
        with self._disk_errors():
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock()

    def _lock(self) -> None:
        if sys.platform != "win32":
            self._fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._close()
                raise TargetLocked(f"{self._folder}: another download is writing it") from None

    def clear(self) -> None:
        """Remove what an earlier run has left. Raises ``TargetLocked``, ``DiskError``."""
        if self._folder.is_dir():
            with self._disk_errors():
                self._lock()
            self.discard()

    def request(self, *, ask_head: bool) -> Request:
        """What was described, or the magnet link; aria2 never asks for the head alone. Raises ``DiskError``."""
        scheme = urlsplit(self._download.url).scheme.lower()
        request = Request(
            [self._download.url],
            {
                "dir": str(self._folder),
                # Headers are for the URL alone; what it describes is anywhere.
                "header": [],
                # What came before is gone on with, without the torrent's description being asked for again.
                "bt-save-metadata": "true",
                "bt-load-saved-metadata": "true",
            },
        )
        if scheme == "file":
            with self._disk_errors():
                self._description = Path(unquote(urlsplit(self._download.url).path)).read_bytes()
        if scheme != "magnet":
            described = base64.b64encode(self._description).decode()
            if urlsplit(self._download.url).path.lower().endswith(".torrent"):
                request.torrent = described
            else:
                request.metalink = described
                request.options["metalink-base-uri"] = self._base_url
        return request

    @property
    def lacks_description(self) -> bool:
        """Whether the torrent or Metalink is still to be fetched."""
        return is_http(self._download.url) and not self._description

    def describe(self, octets: bytes, url: str) -> None:
        """Note the content of the torrent or Metalink, and where it came from."""
        self._description, self._base_url = octets, url

    def change(self, options: DownloadOptions) -> None:
        """Use other options from now on."""
        self._options = options

    def name(self, paths: Iterable[str]) -> None:
        """Note what the files are, before they are there. Raises ``TargetExists`` if they would have no place."""
        try:
            for name in self._destinations(paths):
                self._download.filename = self._options.filename or name
        except TargetExists:
            self._worthless = True
            raise

    def restart(self) -> None:
        """Drop all that is there."""
        with self._disk_errors():
            for entry in self._folder.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()

    def finish(self, paths: Iterable[str]) -> tuple[Path, int]:
        """Move what came to where it was wanted; the path and the bytes of it.

        One file or directory gets the name that was asked for; several are put side by side, and the path is that of
        the directory in which they are. Raises ``BadAnswer`` if nothing came, ``TargetExists``, ``DiskError``.
        """
        paths = [path for path in paths if Path(path).exists()]
        if not paths:
            raise BadAnswer("aria2 finds nothing in it that it could follow", url=self._shown_url)
        places = self._destinations(paths)
        with self._disk_errors():
            size = sum(Path(path).stat().st_size for path in paths)
            for name, place in places.items():
                _make_readable(self._folder / name)
                place.parent.mkdir(exist_ok=True)
                self._move(self._folder / name, place)
            shutil.rmtree(self._folder)
        self._close()
        if len(places) == 1:
            return next(iter(places.values())), size
        return self._directory / self._options.filename, size

    def keep(self, *, complete: bool) -> None:
        """Let go of it; what is there is gone on with another time."""
        if self._worthless:
            self.discard()
        with contextlib.suppress(OSError):
            if not any(self._folder.iterdir()):
                self._folder.rmdir()
        self._close()

    def discard(self) -> None:
        """Remove all that came, and let go of it."""
        if self._fd >= 0 or sys.platform == "win32":
            shutil.rmtree(self._folder, ignore_errors=True)
        self._close()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _top(self, paths: Iterable[str]) -> list[str]:
        """The entries of the folder in which these files are. Raises ``DiskError`` for a path that is elsewhere."""
        names = []
        for path in paths:
            # "[METADATA]name" stands for the description of a torrent, which is no file.
            if path.startswith("["):
                continue
            parts = Path(path).parts[len(self._folder.parts) :]
            if not Path(path).is_relative_to(self._folder) or not parts or os.pardir in parts:
                raise DiskError(f"{path}: it is not in {self._folder}", errno=errno.EINVAL, url=self._shown_url)
            names.append(parts[0])
        return list(dict.fromkeys(names))

    def _destinations(self, paths: Iterable[str]) -> dict[str, Path]:
        """Where each entry of the folder goes. Raises ``TargetExists`` if something is there."""
        top, wanted = self._top(paths), self._options.filename
        if wanted:
            places = {name: self._directory / wanted / name for name in top}
            if len(top) == 1:
                places = {top[0]: self._directory / wanted}
        else:
            places = {name: self._directory / (harmless_filename(name) or self._folder.stem) for name in top}
        for place in places.values():
            if place.exists() and not self._options.overwrite:
                raise self._taken(place)
        return places

    def _move(self, source: Path, destination: Path) -> None:
        """Rename without replacing, unless that was asked for; a directory is replaced by nothing."""
        if source.is_dir() or destination.is_dir():
            if destination.exists():
                raise self._taken(destination)
            source.rename(destination)
        elif self._options.overwrite:
            source.replace(destination)
        else:
            try:
                destination.hardlink_to(source)
                source.unlink()
            except FileExistsError:
                raise self._taken(destination) from None
            except OSError:  # no hard links here
                source.rename(destination)

    def _taken(self, path: Path) -> TargetExists:
        return TargetExists(f"{path} exists, and overwriting was not asked for", url=self._shown_url)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except (TargetExists, TargetLocked, DiskError):
            raise
        except OSError as error:
            raise DiskError(f"{self._folder}: {error.strerror or error}", errno=error.errno or 0) from error


def _display_name(url: str) -> str:
    """What a magnet link or URL calls what it stands for, until aria2 knows better."""
    parts = urlsplit(url)
    named = parse_qs(parts.query).get("dn", [""])[0] if parts.scheme.lower() == "magnet" else parts.path
    return harmless_filename(unquote(named)) or DEFAULT_FILENAME


def _make_readable(path: Path) -> None:
    """Give files and directories the modes that new ones get: aria2c makes them for this user alone."""
    mask = umask()
    for entry in [path, *path.rglob("*")] if path.is_dir() else [path]:
        with contextlib.suppress(OSError):
            if not entry.is_symlink():
                entry.chmod((0o777 if entry.is_dir() else 0o666) & ~mask)
