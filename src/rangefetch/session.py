"""The session: which downloads a manager had, so that a new one can list them and go on.

The file is JSON, mode 0600 since URLs and headers may be secrets, and is replaced in one step. A file that cannot be
read is set aside with a warning, never trusted and never fatal.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from rangefetch.download import Download
from rangefetch.errors import DiskError
from rangefetch.logs import log as _log
from rangefetch.options import DownloadOptions, check_url
from rangefetch.progress import DownloadStatus

__all__ = ["load", "save"]

_VERSION = 1


def save(path: Path, downloads: Iterable[Download], waiting: Collection[str] = ()) -> None:
    """Write down those that are not finished, those with a gid in ``waiting`` as waiting. Raises ``DiskError``."""
    document = {
        "version": _VERSION,
        "downloads": [
            {
                "gid": download.gid,
                "url": download.url,
                "status": (DownloadStatus.WAITING if download.gid in waiting else download.status).value,
                "filename": download.filename,
                "options": _changed(download.options),
            }
            for download in downloads
            if download.status not in (DownloadStatus.COMPLETE, DownloadStatus.REMOVED)
        ],
    }
    beside = path.with_name(path.name + ".tmp")
    try:
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump(document, file)
            file.flush()
            os.fsync(fd)
        beside.replace(path)
    except OSError as error:
        raise DiskError(f"{path}: the session cannot be saved: {error.strerror}", errno=error.errno or 0) from error


def load(path: Path) -> list[Download]:
    """The downloads that were saved, in their order; those that were at work are waiting again."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document.get("version") != _VERSION:
            raise ValueError(f"its version is {document.get('version')!r}, not {_VERSION}")
        return [_download(entry) for entry in document["downloads"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        _log.warning("%s: the session cannot be read (%s); set aside", path, error)
        with contextlib.suppress(OSError):
            path.replace(path.with_name(path.name + ".bad"))
        return []


def _changed(options: DownloadOptions) -> dict[str, Any]:
    """The options that are not the default's, as JSON values; a function cannot be kept."""
    default = DownloadOptions()
    values = {}
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if value != getattr(default, field.name) and field.name != "refresh_url":
            values[field.name] = os.fspath(value) if isinstance(value, os.PathLike) else value
    return values


def _download(entry: dict[str, Any]) -> Download:
    if not re.fullmatch("[0-9a-f]{16}", entry["gid"]) or not isinstance(entry["filename"], str):
        raise ValueError(f"{entry['gid']!r}: not a download")
    download = Download(check_url(entry["url"]), DownloadOptions.of(entry["options"]), gid=entry["gid"])
    download.filename = entry["filename"]
    status = DownloadStatus(entry["status"])
    if status is DownloadStatus.PAUSED:
        download.move(DownloadStatus.PAUSED)
    return download
