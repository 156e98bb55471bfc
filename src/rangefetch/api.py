"""``fetch``, the function that most programs need."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Unpack

from rangefetch.checks import Url, check_function, check_path
from rangefetch.options import FetchOptions
from rangefetch.progress import DownloadProgress, DownloadResult
from rangefetch.shared import our_downloads

__all__ = ["fetch", "options_of"]


def fetch(
    url: Url,
    path: str | os.PathLike[str] | None = None,
    *,
    mirrors: Sequence[Url] = (),
    checksum: str | None = None,
    on_progress: Callable[[DownloadProgress], object] | None = None,
    **options: Unpack[FetchOptions],
) -> DownloadResult:
    """Download ``url`` to a file, over several connections if the server allows it, and return the result.

    ``path`` is the file to write. If it is an existing directory, or ends with a slash, the file is saved into that
    directory under the name that the server or the URL gives; None means the current directory. An interrupted download
    resumes where it stopped.

    ``mirrors`` are other URLs of the same file; each is used only after some of its bytes have been compared.
    ``checksum`` is ``sha-256=HEX`` (algorithms: md5, sha-1, sha-256, sha-384, sha-512, blake2b). ``options`` are the
    fields of ``DownloadOptions``. ``on_progress`` is called with a ``DownloadProgress`` at most every 100 ms, in the
    calling thread. The download runs on the process's manager (``get_download_manager``), which limits how many
    downloads run at a time.

    Raises ``ValueError`` or ``TypeError`` for bad options, before any file or connection is opened, and a
    ``DownloadError`` (see ``rangefetch.errors``) if the download fails. Any other exception raised during the wait, by
    Ctrl-C or by ``on_progress``, stops the download, keeps its state and propagates to the caller.
    """
    check_function(on_progress, "on_progress")
    downloads = our_downloads()
    download = downloads.submit(url, options_of(path, mirrors, checksum, options))
    with downloads.unless_interrupted(download, lambda: downloads.let_go([download])):
        return downloads.wait_for(download, None, on_progress)


def options_of(
    path: str | os.PathLike[str] | None, mirrors: Sequence[Url], checksum: str | None, options: FetchOptions
) -> dict[str, Any]:
    """Merge the arguments of ``fetch`` into one dict of options. Raises ``ValueError`` if ``path`` and an option both
    name the directory or the file, and ``TypeError`` or ``ValueError`` for a path that cannot be used.
    """
    merged: dict[str, Any] = {**options}
    if path is not None:
        for name, value in _place(path).items():
            if name in merged:
                what = "directory" if name == "save_dir" else "file name"
                raise ValueError(f"{name}: path ({os.fspath(path)!r}) already gives the {what}")
            merged[name] = value
    if mirrors:
        merged["mirrors"] = mirrors
    if checksum is not None:
        merged["checksum"] = checksum
    return merged


def _place(path: str | os.PathLike[str]) -> dict[str, str]:
    """Split a path into ``save_dir`` and ``filename``; a directory has no ``filename``."""
    where = check_path(path, "path")
    if where.endswith(("/", os.sep)) or Path(where).is_dir():
        return {"save_dir": where}
    return {"save_dir": str(Path(where).parent), "filename": Path(where).name}
