"""The task for a torrent, magnet link or Metalink: we fetch the torrent or Metalink, and aria2 the files in it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rangefetch.aria2.entry import Request, Status
from rangefetch.aria2.landing import FolderLanding
from rangefetch.aria2.remote import describe, is_http
from rangefetch.aria2.task import Aria2Task
from rangefetch.errors import (
    DaemonUnavailable,
)
from rangefetch.identity import Basis, Identity
from rangefetch.net.sources import URL
from rangefetch.options import DownloadOptions
from rangefetch.transfer.comparison import Finding, Question, Verdict
from rangefetch.transfer.download import Download
from rangefetch.transfer.keeping import NOTHING_KEPT
from rangefetch.transfer.lifecycle import Event

if TYPE_CHECKING:
    from rangefetch.aria2.backend import Aria2Backend

__all__ = ["FolderTask"]


class FolderTask(Aria2Task):
    """The task for what a torrent, magnet link or Metalink describes."""

    def __init__(self, backend: Aria2Backend, download: Download) -> None:
        super().__init__(backend, download)
        self._folder = FolderLanding(download, lambda: self.life.is_ending)
        self._paths: list[str] = []

    @property
    def place(self) -> FolderLanding:
        """The directory that the files are fetched into."""
        return self._folder

    def take_place(self) -> None:
        """Create the directory, or take the one that an earlier run has left."""

        def take() -> None:
            self._folder.open()
            self.keeping.kept_bytes = NOTHING_KEPT if self._folder.is_empty else 0
            self.entry.daemon = self.backend.daemon_for(self.options)

        self.do(take, lambda _: self.start())

    def take_share(self) -> int:
        """All the connections that are wanted: the hosts are not known yet, so there is nothing to share."""
        return self.wanted_connections

    def start(self) -> None:
        """Fetch the torrent or Metalink first, if it is on an HTTP server."""
        if is_http(self.sources.url):
            self.life.fire(Event.ASK)
            self._ask()
        else:
            self.fetch()

    def _ask(self) -> None:
        def described(description: tuple[bytes, str]) -> None:
            self._folder.describe(*description)
            self.turn(self.fetch)

        source, options = self.sources[URL], self.options
        self.inquire(lambda: describe(source, options), described, lambda failure: self.unanswered(failure, self._ask))

    def try_again(self) -> None:
        """Give it to aria2 again: the torrent or Metalink has been fetched by now."""
        self.add()

    def add(self) -> None:
        """Give it to aria2. If aria2c does not answer, it is given later."""
        super().add()
        if self.entry.gids and not self.download.url.lower().startswith("magnet:"):
            with contextlib.suppress(DaemonUnavailable):  # the names are checked again when everything is there
                self._folder.name(self.entry.paths())

    def request(self) -> Request:
        """The torrent, Metalink or magnet link for aria2."""
        return self._folder.request()

    def completed(self, statuses: list[Status]) -> None:
        """aria2 has fetched everything, or only a torrent's metadata: then continue with the entries that follow it."""
        if followed := [gid for status in statuses for gid in status.get("followedBy", [])]:
            self._folder.name(self.entry.follow(followed))
        else:
            self._paths = self.entry.paths()
            super().completed(statuses)

    def change(self, options: DownloadOptions) -> None:
        """Apply new options to the running download."""
        self._folder.change(options)
        super().change(options)

    def restart(self) -> None:
        """Drop all data on disk."""
        self._folder.restart()

    def compare(self) -> None:
        """Check that the files are what the caller expects. aria2 has already verified a torrent's pieces."""
        self.do(lambda: self._folder.prove(self._paths), lambda _: self.life.fire(Event.AGREED))

    @property
    def size(self) -> int:
        """The total size of the files."""
        return self._folder.size

    @property
    def url_identity(self) -> Identity:
        """Nothing is known: no server describes the files."""
        return Identity()

    def publish(self) -> Path:
        """Move the files to their destination, and return its path."""
        return self._folder.publish()

    def keep_state(self) -> int | None:
        """Keep the directory for a later run. Returns how many bytes it has, or None if it was not worth keeping."""
        return self.figures_now.downloaded if self._folder.keep() else None

    def basis(self) -> Basis:
        """How it was established that the files are the ones described."""
        is_metalink = urlsplit(self.download.url).path.lower().endswith((".metalink", ".meta4"))
        return Basis.SIZE if is_metalink and not self.options.checksum else Basis.CHECKSUM

    def ask_ranges(self, question: Question, then: Callable[[Finding], None]) -> None:
        """Report that comparing is impossible."""
        then(Finding(Verdict.UNKNOWN, "it is not a single file on a server"))
