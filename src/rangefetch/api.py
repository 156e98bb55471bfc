"""The functions that most programs need."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rangefetch.manager import DownloadManager
from rangefetch.options import DownloadOptions
from rangefetch.progress import DownloadProgress, DownloadResult

__all__ = ["fetch"]

# Callers of fetch() bring their own threads, so they decide how many run at a time.
_MOST_FETCHES = 1024


@functools.cache
def _shared_manager() -> DownloadManager:
    return DownloadManager(max_concurrent_downloads=_MOST_FETCHES)


# A forked child has the parent's manager, but not its threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_shared_manager.cache_clear)


def fetch(
    url: str,
    path: str | os.PathLike[str] | None = None,
    *,
    checksum: str | None = None,
    on_progress: Callable[[DownloadProgress], object] | None = None,
    **options: Any,
) -> DownloadResult:
    """Fetch ``url`` into a file, over several connections where the server allows, and return where it is.

    ``path`` is the file; an existing directory, or a trailing slash, means "into it", under the server's name; None
    means into the current directory. A download that was interrupted goes on where it was. ``checksum`` is
    ``sha-256=HEX`` (see ``DownloadOptions`` for the other algorithms and all ``options``). ``on_progress`` gets a
    ``DownloadProgress`` at most every 100 ms, in the calling thread.

    Raises ``ValueError`` or ``TypeError`` for wrong options, before anything is opened; a ``DownloadError`` (see
    ``rangefetch.errors``) for anything that goes wrong later. On Ctrl-C the state is saved and ``KeyboardInterrupt``
    goes on.
    """
    if path is not None:
        where = os.fspath(path)
        if not isinstance(where, str):
            raise TypeError(f"path: expected str or os.PathLike[str], not {type(path).__name__}")
        if where.endswith(("/", os.sep)) or Path(where).is_dir():
            options["save_dir"] = where
        else:
            options["save_dir"] = str(Path(where).parent)
            options["filename"] = Path(where).name
    if checksum is not None:
        options["checksum"] = checksum
    return _shared_manager().download_and_wait(url, DownloadOptions.of(options), on_progress)
