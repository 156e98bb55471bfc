"""What a torrent, magnet link or Metalink describes, at work: that is fetched here, and what it brings by aria2."""

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
    """What a torrent, magnet link or Metalink describes, at work."""

    def __init__(self, backend: Aria2Backend, download: Download) -> None:
        super().__init__(backend, download)
        self._folder = FolderLanding(download, lambda: self.life.is_ending)
        self._paths: list[str] = []

    @property
    def place(self) -> FolderLanding:
        """Its directory."""
        return self._folder

    def take_place(self) -> None:
        """Make the directory, or take the one that an earlier run has left."""

        def take() -> None:
            self._folder.open()
            self.keeping.kept_bytes = NOTHING_KEPT if self._folder.is_empty else 0
            self.entry.daemon = self.backend.daemon_for(self.options)

        self.do(take, lambda _: self.start())

    def take_share(self) -> int:
        """What is described comes from hosts that nobody knows yet."""
        return self.wanted_connections

    def start(self) -> None:
        """Fetch the torrent or Metalink first, where it is at a server."""
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
        """What was described is known by now."""
        self.add()

    def add(self) -> None:
        """Give it to aria2. If nobody answers, it is given later."""
        super().add()
        if self.entry.gids and not self.download.url.lower().startswith("magnet:"):
            with contextlib.suppress(DaemonUnavailable):  # they are looked at again when all is there
                self._folder.name(self.entry.paths())

    def request(self) -> Request:
        """What was described, or the magnet link."""
        return self._folder.request()

    def completed(self, statuses: list[Status]) -> None:
        """aria2 has all of it, or what describes it: then that follows."""
        if followed := [gid for status in statuses for gid in status.get("followedBy", [])]:
            self._folder.name(self.entry.follow(followed))
        else:
            self._paths = self.entry.paths()
            super().completed(statuses)

    def change(self, options: DownloadOptions) -> None:
        """Apply new options to what runs."""
        self._folder.change(options)
        super().change(options)

    def restart(self) -> None:
        """Drop all that is there."""
        self._folder.restart()

    def compare(self) -> None:
        """A torrent has digests of its pieces; see that what it brought is what the caller expects."""
        self.do(lambda: self._folder.prove(self._paths), lambda _: self.life.fire(Event.AGREED))

    @property
    def size(self) -> int:
        """The bytes of all that came."""
        return self._folder.size

    @property
    def url_identity(self) -> Identity:
        """Nothing is said of what is described."""
        return Identity()

    def publish(self) -> Path:
        """Move what came to where it was wanted."""
        return self._folder.publish()

    def keep_state(self) -> int | None:
        """What is there is gone on with another time."""
        return self.figures_now.downloaded if self._folder.keep() else None

    def basis(self) -> Basis:
        """How it was established that what came is what was described."""
        is_metalink = urlsplit(self.download.url).path.lower().endswith((".metalink", ".meta4"))
        return Basis.SIZE if is_metalink and not self.options.checksum else Basis.CHECKSUM

    def ask_ranges(self, question: Question, then: Callable[[Finding], None]) -> None:
        """Nothing of it can be compared."""
        then(Finding(Verdict.UNKNOWN, "it is not one file of a server"))
