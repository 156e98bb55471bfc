"""What the manager asks of a backend, and what it hears from it: the seam between the two.

A backend runs downloads; which ones, when and in what state is the manager's. Both sides may be called from any
thread.
"""

from __future__ import annotations

from typing import Protocol

from rangefetch.download import Download
from rangefetch.errors import DownloadError
from rangefetch.progress import DownloadResult

__all__ = ["Backend", "Listener"]


class Backend(Protocol):
    """Runs downloads; their figures are read through ``Download.figures`` while they are active."""

    name: str
    """``native`` or ``aria2``."""

    def start(self) -> None:
        """Get ready. Raises a ``LocalError`` where this backend cannot run here."""

    def stop(self) -> None:
        """Halt every download, wait until all are saved and let go of, and free everything."""

    def serves(self, url: str) -> bool:
        """Whether this backend can fetch such a URL (by its scheme)."""

    def hears(self) -> bool:
        """Whether it hears at once what happens, and need not ask."""

    def begin(self, download: Download) -> None:
        """Start it, or go on where it was; it is active already. The listener hears the end, whatever it is."""

    def halt(self, download: Download, *, remove_files: bool = False) -> None:
        """Stop its transfers, and save what there is or remove it; ``halted`` follows, unless it ended before."""

    def change(self, download: Download) -> None:
        """Its ``options`` have changed: apply what can change while it runs."""

    def limit(self, bytes_per_s: int) -> None:
        """Limit all downloads together; 0: no limit."""


class Listener(Protocol):
    """Who hears how a download ended."""

    def completed(self, download: Download, result: DownloadResult) -> None: ...
    def failed(self, download: Download, error: DownloadError) -> None: ...
    def halted(self, download: Download) -> None: ...
