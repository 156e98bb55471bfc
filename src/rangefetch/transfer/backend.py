"""What the manager asks of a backend, and what it hears from it; and what a task asks of its backend.

A backend runs downloads; which ones, when and in what state is the manager's. Both sides may be called from any
thread.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from rangefetch.errors import DownloadError
from rangefetch.options import DownloadOptions
from rangefetch.progress import DownloadResult, DownloadStatus
from rangefetch.transfer.download import Download
from rangefetch.transfer.space import Sizes

if TYPE_CHECKING:
    from rangefetch._engine import File, Profile
    from rangefetch.net.manners import Manners
    from rangefetch.net.network import Network
    from rangefetch.net.sources import Source
    from rangefetch.transfer.retry import RetryPolicy
    from rangefetch.transfer.workers import Outcome

__all__ = ["Backend", "EngineServices", "Growth", "Listener", "Services", "Timer"]

R = TypeVar("R", contravariant=True)


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
        ...

    def has_notifications(self) -> bool:
        """Whether it hears at once what happens, and need not ask."""
        ...

    def begin(self, *downloads: Download) -> None:
        """Start some, or go on where they were; they are active already. The listener hears how each ends."""

    def halt(self, download: Download) -> None:
        """Its ``intent`` is set: stop its transfers, and save what there is, or remove it where that is wanted.
        ``halted`` follows, unless it ended before.
        """

    def change(self, download: Download) -> None:
        """Its ``options`` have changed: apply what can change while it runs."""

    def go_on(self, download: Download) -> None:
        """It has its turn, where ``Listener.grows`` or ``Listener.comes_back`` were asked for that."""

    def limit(self, bytes_per_s: int) -> None:
        """Limit all downloads together; 0: no limit."""

    def later(self, delay_s: float, function: Callable[[], None]) -> bool:
        """Have the backend's thread call ``function`` in so many seconds; False: it is stopped."""
        ...


class Growth(enum.Enum):
    """When a download that is not as small as it was taken for goes on as any other."""

    NOW = "now"
    SOON = "when ``go_on`` is called"
    LATER = "in its turn after others: it is to be halted"


class Timer(Protocol):
    """A call that is due later."""

    def cancel(self) -> None:
        """Never make it."""


class Services(Protocol[R]):
    """What one download at work (a task) asks of its backend, on the backend's thread."""

    policy: RetryPolicy
    listener: Listener
    network: Network

    def call_later(self, task: R, delay_s: float, function: Callable[[], None]) -> Timer:
        """Have ``function`` called as a step of the task, ``delay_s`` seconds from now."""
        ...

    def work(self, task: R, job: Callable[[], Any], then: Callable[[Outcome[Any]], None]) -> None:
        """Do ``job`` on a worker, and then ``then`` with its outcome as a step of the task."""

    def look(self, task: R, job: Callable[[], Any], then: Callable[[Outcome[Any]], None]) -> None:
        """``work`` for what may never return: neither a pause nor ``stop`` waits for it."""

    sizes: Sizes
    """Those of what is at work."""

    def lacking_beside(self, download: Download, device: int) -> int:
        """What the downloads at work but this one still need of a filesystem."""
        ...

    def task_ended(self, task: R) -> None:
        """Nothing more comes of it."""


class EngineServices(Services[R], Protocol[R]):
    """... and of the native one, which has the engine."""

    manners: Manners

    def profile(self, options: DownloadOptions, source: Source, *, head: bool = False) -> Profile:
        """How the engine is to ask a source, by HEAD or by GET."""
        ...

    def add_file(self, file: File) -> int:
        """Give the file to a loop; returns which, for ``file_gone``."""
        ...

    def file_gone(self, file: File, loop: int) -> None:
        """The loop has let go of a file."""


class Listener(Protocol):
    """Who hears how a download ended."""

    def completed(self, download: Download, result: DownloadResult) -> None: ...
    def completed_together(self, whole: Sequence[tuple[Download, DownloadResult]]) -> None:
        """``completed`` for each of some that have ended at about the same time; what follows is done once for all."""

    def failed(self, download: Download, error: DownloadError) -> None: ...
    def halted(self, download: Download) -> None: ...
    def directed(self, download: Download, status: DownloadStatus) -> None:
        """Somebody has told the backend what a download that is paused is to become: waiting again, or removed."""

    def puts_off(self, download: Download, rest_s: float = 0.0) -> bool:
        """Its host has not answered yet, or is to be left alone for ``rest_s`` seconds. Whether others wait for hosts
        that could serve them, so that it is to be halted. It gets its turn after them, or when the rest is over.

        The first happens to a download once.
        """
        ...

    def grows(self, download: Download, *, answered: bool) -> Growth:
        """It is not as small as it was taken for: whether it may go on as any other download. ``answered``: there is a
        good answer, and perhaps a transfer that waits for that.
        """
        ...

    def makes_way(self, download: Download) -> bool:
        """It waits for a place with a connection that one which has a place lacks. Whether it is to be halted, so that
        it waits in line instead.
        """
        ...

    def steps_aside(self, download: Download) -> bool:
        """It can do nothing for now: it waits for a function of the user's, or its host rests. Whether another download
        may have its place until ``comes_back``.
        """
        ...

    def comes_back(self, download: Download) -> bool:
        """It could go on. Whether it has a place; otherwise ``Backend.go_on`` follows when it has."""
        ...
