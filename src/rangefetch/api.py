"""The functions that most programs need."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rangefetch.manager import get_download_manager
from rangefetch.options import check_function, check_text
from rangefetch.progress import DownloadProgress, DownloadResult

__all__ = ["fetch", "place"]


def fetch(
    url: str,
    path: str | os.PathLike[str] | None = None,
    *,
    mirrors: Sequence[str] = (),
    checksum: str | None = None,
    on_progress: Callable[[DownloadProgress], object] | None = None,
    **options: Any,
) -> DownloadResult:
    """Fetch ``url`` into a file, over several connections where the server allows, and return where it is.

    ``path`` is the file; an existing directory, or a trailing slash, means "into it", under the server's name; None
    means into the current directory. A download that was interrupted goes on where it was. ``mirrors`` are further
    URLs of the same file, each used once some of its bytes were compared. ``checksum`` is ``sha-256=HEX`` (see
    ``DownloadOptions`` for the other algorithms and all ``options``). ``on_progress`` gets a ``DownloadProgress`` at
    most every 100 ms, in the calling thread. It runs on the process's manager (``get_download_manager``), which has so
    many downloads at a time.

    Raises ``ValueError`` or ``TypeError`` for wrong options, before anything is opened; a ``DownloadError`` (see
    ``rangefetch.errors``) for anything that goes wrong later. On Ctrl-C the state is saved and ``KeyboardInterrupt``
    goes on.
    """
    check_function(on_progress, "on_progress")
    if path is not None:
        options |= place(path)
    if mirrors:
        options["mirrors"] = mirrors
    if checksum is not None:
        options["checksum"] = checksum
    manager = get_download_manager()
    download = manager.submit(url, options)
    try:
        return manager.wait_for(download, None, on_progress)
    except (KeyboardInterrupt, SystemExit):
        manager.let_go([download])
        raise


def place(path: str | os.PathLike[str]) -> dict[str, str]:
    """``save_dir`` and ``filename`` for the ``path`` of ``fetch``; without ``filename`` where it is a directory."""
    where = check_text(path, "path")
    if where.endswith(("/", os.sep)) or Path(where).is_dir():
        return {"save_dir": where}
    return {"save_dir": str(Path(where).parent), "filename": Path(where).name}
