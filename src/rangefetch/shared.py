"""The process's manager, which ``fetch``, ``fetch_many``, ``stream`` and others use."""

from __future__ import annotations

import threading
from typing import Any, Unpack

from rangefetch.downloads import Downloads
from rangefetch.importing import after_fork
from rangefetch.manager import DownloadManager, ManagerOptions, downloads_of
from rangefetch.progress import DownloadStatus

__all__ = ["get_download_manager", "init_download_manager", "manager_like_ours", "our_downloads"]

_manager: DownloadManager | None = None
_config: dict[str, Any] = {}
_lock = threading.RLock()


def init_download_manager(
    backend: str = "auto", *, prefer: str = "native", **config: Unpack[ManagerOptions]
) -> DownloadManager:
    """Create the process's manager, which ``fetch`` uses, or return the existing one if the arguments are the same.

    The arguments are those of ``DownloadManager``. The environment variable ``RANGEFETCH_BACKEND`` applies if the
    backend is ``"auto"``. If a manager with other arguments exists, it is stopped and replaced; raises ``RuntimeError``
    if it has active or waiting downloads.
    """
    global _manager, _config
    wanted: dict[str, Any] = {"backend": backend, "prefer": prefer, **config}
    with _lock:
        if _manager is not None:
            if wanted == _config:
                return _manager
            for status in (DownloadStatus.ACTIVE, DownloadStatus.WAITING):
                if _manager.list_downloads(status):
                    raise RuntimeError("the download manager cannot be replaced while it has downloads")
            _manager.stop()
        _manager = DownloadManager(**wanted)
        downloads_of(_manager).is_shared = True
        _config = wanted
        return _manager


def get_download_manager() -> DownloadManager:
    """Return the process's manager. It is created with the defaults unless ``init_download_manager`` was called."""
    with _lock:
        return _manager if _manager is not None else init_download_manager()


def our_downloads() -> Downloads:
    """The ``Downloads`` object of the process's manager."""
    return downloads_of(get_download_manager())


def manager_like_ours(**changes: Unpack[ManagerOptions]) -> DownloadManager:
    """Create another manager with the arguments of the process's one, except its session file and these ``changes``."""
    with _lock:
        get_download_manager()
        config: dict[str, Any] = {**_config, "session_file": None, **changes}
        return DownloadManager(**config)


def _forget_parent() -> None:
    """In a forked child: drop the parent's manager, which cannot work here."""
    global _manager, _lock
    _lock = threading.RLock()
    _manager = None


after_fork(_forget_parent)
