"""Chooses the backend of each download: the first that can run, or the other for downloads that this one cannot do.

With ``auto`` the native engine comes first, and aria2 is the fallback; ``prefer="aria2"`` reverses the order. If a
backend is named, only that one is used. The reason for a fallback is logged and kept.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from rangefetch.aria2.abilities import ARIA2
from rangefetch.checks import HTTP, is_metadata_url
from rangefetch.errors import (
    BinaryDownloadFailed,
    DaemonUnavailable,
    DownloadError,
    LocalError,
    ProcessManagementError,
    ProcessStartFailed,
)
from rangefetch.importing import no_fork
from rangefetch.logs import log as _log
from rangefetch.masking import mask_url
from rangefetch.options import DownloadOptions
from rangefetch.progress import DownloadResult, DownloadStatus
from rangefetch.transfer.backend import Backend, Growth, Listener
from rangefetch.transfer.capabilities import NATIVE
from rangefetch.transfer.download import Download, Entry
from rangefetch.transfer.retry import RetryPolicy

__all__ = ["BACKENDS", "BackendRouter"]

CAPABILITIES = {each.name: each for each in (NATIVE, ARIA2)}
BACKENDS = tuple(CAPABILITIES)

_OF_A_BACKEND = (BinaryDownloadFailed, DaemonUnavailable, ProcessManagementError, ProcessStartFailed)
"""Errors of a backend itself, after which the other backend may succeed."""


class BackendRouter:
    """Presents the backends of one manager as one: a ``Backend`` to the manager, and the ``Listener`` of both.

    Raises ``ValueError`` or ``TypeError`` for an unknown name or keyword. ``name`` is the backend that gets all
    downloads that it can do, and ``reason`` says why it is not the first choice (empty if it is).

    The other backend is started in a separate thread when it is first needed, since that may take seconds. Downloads
    for it are held until then.
    """

    def __init__(
        self, listener: Listener, backend: str, prefer: str, policy: RetryPolicy, config: Mapping[str, Any]
    ) -> None:
        if backend == "auto":
            backend = os.environ.get("RANGEFETCH_BACKEND") or "auto"
        for option, value, allowed in (("backend", backend, ("auto", *BACKENDS)), ("prefer", prefer, BACKENDS)):
            if value not in allowed:
                raise ValueError(f"{option}: {value!r} is not one of {', '.join(allowed)}")
        self.name = prefer if backend == "auto" else backend
        self.reason = ""
        self._order = [backend] if backend != "auto" else [prefer, *(each for each in BACKENDS if each != prefer)]
        self._listener = listener
        self._policy = policy
        self._config = dict(config)
        self._limit = 0
        self._starting = threading.Lock()  # one start at a time
        self._running: dict[str, Backend] = {}
        self._unusable: set[str] = set()  # backends not used until the next start
        self._troubles: dict[str, str] = {}  # by backend: why it is not used
        self._backend_of: dict[str, Backend] = {}
        self._lock = threading.Lock()  # guards what follows; no backend or listener is called while it is held
        self._held: dict[str, Download] = {}  # downloads that wait for a backend to start, in order
        self._starter: threading.Thread | None = None
        self._stopping = False
        if config:
            _make_aria2(self, policy, self._config)

    # -- called by the manager ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the first backend that can run. Raises a ``LocalError`` with the reasons if none can."""
        self._stopping = False
        self._unusable, self._troubles = set(), {}
        usable = []
        for name in self._order:
            try:
                backend = self._start(name)
            except LocalError as error:
                if len(self._order) == 1:
                    raise
                self._unusable.add(name)
                self._troubles[name] = str(error)
                continue
            usable.append(name)
            if backend.has_notifications():
                self._choose(name)
                return
            # It works, but its events are noticed late. Use it only if no other backend can run.
            self._troubles[name] = "its notifications cannot be received (no WebSocket connection)"
        if not usable:
            raise LocalError(self._nothing_runs())
        self._choose(usable[0])

    def stop(self) -> None:
        """Stop all running backends and halt their downloads."""
        with self._lock:
            self._stopping = True
            held, self._held = self._held, {}
            starter = self._starter
        for download in held.values():
            self._listener.halted(download)
        if starter not in (None, threading.current_thread()):
            starter.join()
        with self._starting:
            running, self._running = self._running, {}
        for backend in running.values():
            backend.stop()

    def limit(self, bytes_per_s: int) -> None:
        """Limit all downloads together, in bytes per second (0: no limit)."""
        self._limit = bytes_per_s
        for backend in list(self._running.values()):
            backend.limit(bytes_per_s)

    def begin(self, *downloads: Download) -> None:
        """Start or continue downloads, each on the first backend that can do it."""
        groups: dict[str, list[Download]] = {}
        for download in downloads:
            # For a small file it has already been checked that the running backend takes it.
            names = [self.name] if download.is_small else self._names_for(download)
            backend = self._running.get(names[0]) if names else None
            if backend is None:
                self._hold(download)
            else:
                self._backend_of[download.gid] = backend
                groups.setdefault(names[0], []).append(download)
        for name, group in groups.items():
            if (backend := self._running.get(name)) is not None:
                backend.begin(*group)
            else:  # the backend was stopped meanwhile
                for download in group:
                    self.halted(download)

    def halt(self, download: Download) -> None:
        """Stop the transfers of a download whose ``intent`` has been set, and save its data, or remove it if that was
        requested. The listener's ``halted`` is called afterwards, unless the download ended first.
        """
        with self._lock:
            held = self._held.pop(download.gid, None)
            backend = self._backend_of.get(download.gid)
        if held is not None:
            if download.remove_files:
                try:
                    self.remove_leftovers(download)
                except LocalError as error:
                    _log.warning("%s: %s", mask_url(download.url), error)
            self._listener.halted(download)
        elif backend is not None:
            backend.halt(download)

    @property
    def can_stream(self) -> bool:
        """Whether a backend that can stream is usable, as far as is known."""
        return any(CAPABILITIES[name].in_order for name in self._order if name not in self._unusable)

    def later(self, delay_s: float, function: Callable[[], None]) -> bool:
        """Call ``function`` on a running backend's thread after ``delay_s`` seconds. Returns False if none is running.

        The first thread that gets to it calls it, since another may be waiting for a response from aria2c.
        """
        due = deque([function])

        def call() -> None:
            try:
                first = due.pop()
            except IndexError:
                return
            first()

        taken = [backend.later(delay_s, call) for backend in list(self._running.values())]
        return any(taken)

    def takes_as_small(self, download: Entry) -> bool:
        """Whether the running backend first tries the download as a small file."""
        return self.name in self._running and CAPABILITIES[self.name].takes_as_small(download)

    def go_on(self, download: Download) -> None:
        """Let an active download continue that has waited for its turn."""
        backend = self._backend_of.get(download.gid)
        if backend is not None:
            backend.go_on(download)

    def change(self, download: Download) -> None:
        """Apply changed ``options`` to an active download, as far as they can change while it runs."""
        backend = self._backend_of.get(download.gid)
        if backend is not None:
            backend.change(download)

    @staticmethod
    def remove_leftovers(download: Download) -> None:
        """Delete what an inactive download has left on disk, whichever backend it ran on.

        Raises ``TargetLocked`` if the download is active, and ``DiskError``.
        """
        with no_fork:
            from rangefetch.aria2.backend import remove_leftovers

        remove_leftovers(download)

    @staticmethod
    def move_leftovers(download: Download, options: DownloadOptions) -> None:
        """Move what an inactive download has left on disk to where a download with these options looks for it.

        Raises ``TargetLocked`` if the download is active, ``TargetExists`` if something else is there, and
        ``DiskError``.
        """
        with no_fork:
            from rangefetch.aria2.backend import move_leftovers

        move_leftovers(download, options)

    # -- called by the backends ---------------------------------------------------------------------------------

    def completed(self, download: Download, result: DownloadResult) -> None:
        self._backend_of.pop(download.gid, None)
        self._listener.completed(download, result)

    def completed_together(self, whole: Sequence[tuple[Download, DownloadResult]]) -> None:
        for download, _ in whole:
            self._backend_of.pop(download.gid, None)
        self._listener.completed_together(whole)

    def halted(self, download: Download) -> None:
        self._backend_of.pop(download.gid, None)
        self._listener.halted(download)

    def steps_aside(self, download: Download) -> bool:
        return self._listener.steps_aside(download)

    def comes_back(self, download: Download) -> bool:
        return self._listener.comes_back(download)

    def directed(self, download: Download, status: DownloadStatus) -> None:
        self._listener.directed(download, status)

    def grows(self, download: Download, *, answered: bool) -> Growth:
        return self._listener.grows(download, answered=answered)

    def makes_way(self, download: Download) -> bool:
        return self._listener.makes_way(download)

    def puts_off(self, download: Download, rest_s: float = 0.0) -> bool:
        return self._listener.puts_off(download, rest_s)

    def failed(self, download: Download, error: DownloadError) -> None:
        backend = self._backend_of.pop(download.gid, None)
        if backend is None or not isinstance(error, _OF_A_BACKEND) or len(self._order) == 1:
            self._listener.failed(download, error)
            return
        self._give_up(backend.name, error.reason)
        # Only aria2 follows torrents and Metalinks; the other backend would fetch the description itself.
        if is_metadata_url(download.url) or not self._names_for(download):
            self._listener.failed(download, error)
        else:
            _log.warning("%s: continuing without %s (%s)", mask_url(download.url), backend.name, error.reason)
            self._hold(download)

    # -- internals ----------------------------------------------------------------------------------------------

    def _names_for(self, download: Download) -> list[str]:
        """The backends that may do the download, best first, as far as is known before they are started."""
        able = [name for name in self._order if not CAPABILITIES[name].why_not(download)]
        follows = is_metadata_url(download.url)
        return sorted(
            (name for name in able if name not in self._unusable),
            key=lambda name: (
                not follows and CAPABILITIES[name].falls_short(download) != "",
                not (CAPABILITIES[name].follows if follows else name == self.name),
            ),
        )

    def _hold(self, download: Download) -> None:
        """Hold a download until a backend for it has been started. Halt it instead if it was told to stop."""
        with self._lock:
            goes_on = download.intent is None and not self._stopping
            if goes_on:
                self._held[download.gid] = download
                download.waits = lambda: "a backend to start"
                if self._starter is None:
                    self._starter = threading.Thread(target=self._begin_late, name="rangefetch-starter", daemon=True)
                    self._starter.start()
        if not goes_on:
            self._listener.halted(download)

    def _begin_late(self) -> None:
        """Start the held downloads one after another until none is left. Body of the starter thread."""
        while True:
            with self._lock:
                if not self._held:
                    self._starter = None
                    return
                download = next(iter(self._held.values()))
            backend, why_not = self._backend_for(download)
            with self._lock:
                if self._held.get(download.gid) is not download:
                    continue  # the download was told to stop meanwhile
                del self._held[download.gid]
                if backend is not None:
                    self._backend_of[download.gid] = backend
            if backend is not None:
                backend.begin(download)
            else:
                self._listener.failed(download, LocalError(why_not, url=mask_url(download.url)))

    def _backend_for(self, download: Download) -> tuple[Backend | None, str]:
        """The backend for a download, started if necessary, or None and the reason."""
        shown_url = mask_url(download.url)
        for name in self._names_for(download):
            if download.intent is not None or self._stopping:
                break
            try:
                backend = self._start(name)
            except Exception as error:
                if not isinstance(error, LocalError):
                    _log.exception("internal error")
                _log.warning("%s: the %s backend cannot be used: %s", shown_url, name, error)
                self._give_up(name, str(error))
                continue
            if backend.serves(download.url):
                if name != self.name:
                    _log.info("%s: using the %s backend", shown_url, name)
                return backend, ""
        return None, self._why_none(download)

    def _why_none(self, download: Download) -> str:
        """Why no backend can do the download."""
        scheme = urlsplit(download.url).scheme.lower()
        what = "it" if scheme in HTTP else scheme
        reasons = {name: each.why_not(download) for name, each in CAPABILITIES.items()}
        able = [name for name, reason in reasons.items() if not reason]
        against = "; ".join(f"the {name} backend {reasons[name]}" for name in self._order if reasons[name])
        if not able:
            return against
        if not set(able) & set(self._order):
            if not (hint := CAPABILITIES[able[0]].remedy()):
                return f"{against}; the {able[0]} backend does, but is not built for this platform"
            return f"{against}; the {able[0]} backend does ({hint}, and backend='auto')"
        if able == list(BACKENDS):
            return self._nothing_runs()
        if able[0] in self._unusable:
            words = f"{what} needs the {able[0]} backend, which cannot run here ({self._troubles[able[0]]})"
            return f"{words}; {against}" if against else words
        return f"{what} needs an {able[0]} built with support for it ({CAPABILITIES[able[0]].install})"

    def _nothing_runs(self) -> str:
        hints = " or ".join(filter(None, (each.remedy() for each in CAPABILITIES.values())))
        return f"no backend can run here ({self._reasons()}); {hints}"

    def _reasons(self) -> str:
        return "; ".join(f"{name}: {reason}" for name, reason in self._troubles.items())

    def _give_up(self, name: str, reason: str) -> None:
        """Stop using a backend until the manager is started again."""
        if name not in self._unusable:
            self._unusable.add(name)
            self._troubles[name] = reason
            left = [each for each in self._order if each not in self._unusable]
            if name == self.name and left:
                self._choose(left[0])

    def _choose(self, name: str) -> None:
        self.name = name
        self.reason = self._reasons() if name != self._order[0] else ""
        if self.reason:
            _log.warning("the %s backend is used instead (%s)", name, self.reason)

    def _start(self, name: str) -> Backend:
        with self._starting:
            backend = self._running.get(name)
            if backend is None:
                with no_fork:
                    backend = _MAKERS[name](self, self._policy, self._config)
                backend.start()
                backend.limit(self._limit)
                self._running[name] = backend
            return backend


def _make_native(router: BackendRouter, policy: RetryPolicy, _config: Mapping[str, Any]) -> Backend:
    with no_fork:
        from rangefetch.native.backend import NativeBackend

    return NativeBackend(router, policy)


def _make_aria2(router: BackendRouter, policy: RetryPolicy, config: Mapping[str, Any]) -> Backend:
    """Make the aria2 backend. Raises ``ValueError`` or ``TypeError`` for an unknown keyword."""
    with no_fork:
        from rangefetch.aria2.backend import Aria2Backend
        from rangefetch.aria2.config import DaemonConfig

    return Aria2Backend(router, DaemonConfig.of(config), policy)


_MAKERS = {"native": _make_native, "aria2": _make_aria2}
