"""Entries of a session file: a download as a line of JSON. One version may read what another has written."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rangefetch.checks import check_url
from rangefetch.errors import DownloadError
from rangefetch.masking import mask_url
from rangefetch.options import DownloadOptions
from rangefetch.progress import DownloadStatus
from rangefetch.transfer.download import Download, Entry, Queued

__all__ = ["SENSELESS", "Reader", "Writer"]

SENSELESS = (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError)
"""The exceptions that reading a malformed entry raises."""

_GID = re.compile("[0-9a-f]{16}")


class Writer:
    """Writes entries. Remembers the last options as JSON: many entries share them, and they are the slowest part."""

    def __init__(self) -> None:
        self._options: tuple[DownloadOptions | None, str] = (None, "")

    def line_of(self, entry: Entry) -> bytes:
        """The line of a download, with its newline."""
        # The next manager is to continue what this one did not finish.
        status = DownloadStatus.WAITING if entry.cut_short else entry.status
        text = (
            f'{{"gid": "{entry.gid}", "url": {json.dumps(entry.url)}, "status": "{status.value}",'
            f' "filename": {json.dumps(entry.filename)}, "options": {self._words_of(entry.options)}'
        )
        if entry.has_begun:
            text += ', "begun": true'
        else:
            text += ', "begun": false'
        if entry.kept_aside is not None:
            text += f', "kept_aside": {json.dumps(os.fspath(entry.kept_aside))}'
        if entry.status is DownloadStatus.ERROR and entry.error is not None:
            text += f', "error": {json.dumps(entry.error.reason)}'
        return f"{text}}}\n".encode()

    @staticmethod
    def line_of_gone(gid: str) -> bytes:
        """The line that removes a download from the list."""
        return f'{{"gid": "{gid}", "gone": true}}\n'.encode()

    def _words_of(self, options: DownloadOptions) -> str:
        known, words = self._options
        if known is not options:
            words = json.dumps(_given(options))
            self._options = (options, words)
        return words


class Reader:
    """Reads entries. Entries with equal options share one object."""

    def __init__(self) -> None:
        self._options: dict[str, DownloadOptions] = {}

    def read(self, entry: Any) -> Entry:
        """Make a download from an entry; an active one becomes waiting. Raises one of ``SENSELESS`` for an entry that
        cannot be used here, for example because it names a file that is gone or an option of a newer version.
        """
        gid, url, filename = entry["gid"], entry["url"], entry["filename"]
        if not isinstance(gid, str) or not _GID.fullmatch(gid) or not isinstance(filename, str):
            raise ValueError(f"{gid!r}: not a download")
        if "/" in filename or "\0" in filename or filename in (".", ".."):
            raise ValueError(f"{filename!r}: not the name of a file")
        url, options = check_url(url), self._options_of(entry["options"])
        status = DownloadStatus(entry["status"])
        begun, kept_aside = bool(entry.get("begun", True)), entry.get("kept_aside")
        if status is DownloadStatus.ACTIVE:
            status = DownloadStatus.WAITING
        if not begun and not kept_aside and status in (DownloadStatus.WAITING, DownloadStatus.PAUSED):
            queued = Queued(url, options, gid=gid)
            if status is DownloadStatus.PAUSED:
                queued.move(status)
            return queued
        download = Download(url, options, gid=gid)
        download.filename = filename
        download.has_begun = begun
        download.kept_aside = Path(str(kept_aside)) if kept_aside else None
        if status is DownloadStatus.PAUSED:
            download.move(status)
        elif status is DownloadStatus.ERROR:
            # It stays failed until somebody retries it.
            words = str(entry.get("error") or "it failed in an earlier run")
            download.move(status, error=DownloadError(words, url=mask_url(url)))
        elif status is not DownloadStatus.WAITING:
            raise ValueError(f"{gid!r}: it is {status}")
        return download

    def _options_of(self, values: Any) -> DownloadOptions:
        key = json.dumps(values)
        options = self._options.get(key)
        if options is None:
            options = self._options[key] = DownloadOptions.of(values)
        return options


def _given(options: DownloadOptions) -> dict[str, Any]:
    """The options that were given, as JSON values, without ``refresh_url``: a function cannot be saved."""
    values = {name: value for name, value in options.given.items() if name != "refresh_url"}
    for name, value in values.items():
        if isinstance(value, Mapping):
            values[name] = dict(value)
        elif isinstance(value, os.PathLike):
            values[name] = os.fspath(value)
    return values
