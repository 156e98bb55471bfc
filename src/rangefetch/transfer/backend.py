"""The interfaces between the manager and a backend, and between a task and its backend.

A backend runs downloads; the manager decides which ones, when, and in what state. Both may be called from any thread.
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
    """Runs downloads. While they are active, their figures are read through ``Download.figures``."""

    name: str
    """``native`` or ``aria2``."""

    def start(self) -> None:
        """Get ready. Raises a ``LocalError`` if this backend cannot run here."""

    def stop(self) -> None:
        """Halt every download, wait until all are saved and closed, and free everything."""

    def serves(self, url: str) -> bool:
        """Whether this backend can fetch the URL, going by its scheme."""
        ...

    def has_notifications(self) -> bool:
        """Whether it is notified of events at once, and need not poll."""
        ...

    def begin(self, *downloads: Download) -> None:
        """Start or resume downloads that are already active. The listener is told how each ends."""

    def halt(self, download: Download) -> None:
        """Stop the transfers, and save or remove the data as ``intent``, already set, and ``remove_files`` say.
        ``halted`` follows unless the download had already ended.
        """

    def change(self, download: Download) -> None:
        """Apply the download's new ``options``, as far as they can change while it runs."""

    def go_on(self, download: Download) -> None:
        """Continue a download that got the turn it asked for with ``Listener.grows`` or ``Listener.comes_back``."""

    def limit(self, bytes_per_s: int) -> None:
        """Limit the speed of all downloads together, in bytes per second; 0: no limit."""

    def later(self, delay_s: float, function: Callable[[], None]) -> bool:
        """Have the backend's thread call ``function`` in ``delay_s`` seconds. False: the thread is stopped."""
        ...


class Growth(enum.Enum):
    """When a download that turned out not to be small may continue as a normal one."""

    NOW = "now"
    SOON = "when ``go_on`` is called"
    LATER = "in its turn, after others; it must be halted until then"


class Timer(Protocol):
    """A call that is due later."""

    def cancel(self) -> None:
        """Never make the call."""


class Services(Protocol[R]):
    """What a download at work (a task) needs from its backend; called on the backend's thread."""

    policy: RetryPolicy
    listener: Listener
    network: Network

    def call_later(self, task: R, delay_s: float, function: Callable[[], None]) -> Timer:
        """Call ``function`` as a step of the task, ``delay_s`` seconds from now."""
        ...

    def work(self, task: R, job: Callable[[], Any], then: Callable[[Outcome[Any]], None]) -> None:
        """Run ``job`` on a worker, then call ``then`` with its outcome as a step of the task."""

    def look(self, task: R, job: Callable[[], Any], then: Callable[[Outcome[Any]], None]) -> None:
        """Like ``work``, for jobs that may never return: neither a pause nor ``stop`` waits for them."""

    sizes: Sizes
    """The sizes of the downloads at work."""

    def lacking_beside(self, download: Download, device: int) -> int:
        """Bytes that the other downloads at work still need on a file system."""
        ...

    def task_ended(self, task: R) -> None:
        """Forget a task that has ended."""


class EngineServices(Services[R], Protocol[R]):
    """What a task of the native backend needs as well."""

    manners: Manners

    def profile(self, options: DownloadOptions, source: Source, *, head: bool = False) -> Profile:
        """The profile with which the engine asks a source, for HEAD or GET requests."""
        ...

    def add_file(self, file: File) -> int:
        """Give the file to a loop. Returns the loop, for ``file_gone``."""
        ...

    def file_gone(self, file: File, loop: int) -> None:
        """Record that the loop has let go of a file."""


class Listener(Protocol):
    """Told by the backends how downloads end, and asked about their turns."""

    def completed(self, download: Download, result: DownloadResult) -> None: ...
    def completed_together(self, whole: Sequence[tuple[Download, DownloadResult]]) -> None:
        """Like ``completed``, for several that ended at about the same time; follow-up work is done once for all."""

    def failed(self, download: Download, error: DownloadError) -> None: ...
    def halted(self, download: Download) -> None: ...
    def directed(self, download: Download, status: DownloadStatus) -> None:
        """Called if somebody has told the backend itself to make a paused download wait again, or remove it."""

    def puts_off(self, download: Download, rest_s: float = 0.0) -> bool:
        """Called if the download's host has not answered yet, or is to be left alone for ``rest_s`` seconds.

        Returns whether the download is to be halted, because others wait for hosts that could serve them. It gets its
        turn after them, or when the rest is over. A download is put off only once because its host has not answered.
        """
        ...

    def grows(self, download: Download, *, answered: bool) -> Growth:
        """Called if a download turned out not to be small. Returns when it may continue as a normal one.

        ``answered``: there is a good answer, and perhaps a transfer held until this is decided.
        """
        ...

    def makes_way(self, download: Download) -> bool:
        """Called if a download that waits for a place has a connection that an active one lacks. Returns whether it is
        to be halted, so that it waits in line instead.
        """
        ...

    def steps_aside(self, download: Download) -> bool:
        """Called if the download can do nothing for now: it waits for a user's function, or its host rests. Returns
        whether another download may have its place until ``comes_back``.
        """
        ...

    def comes_back(self, download: Download) -> bool:
        """Called if the download could continue. Returns whether it has a place; if not, ``go_on`` follows."""
        ...
