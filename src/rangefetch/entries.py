"""What a session file says of a download, as a line of JSON: written by one version, read by another."""

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
"""What reading an entry that makes no sense raises."""

_GID = re.compile("[0-9a-f]{16}")


class Writer:
    """Writes entries. Many have the same options, and those take the longest to write down."""

    def __init__(self) -> None:
        self._options: tuple[DownloadOptions | None, str] = (None, "")

    def line_of(self, entry: Entry) -> bytes:
        """One line, with its newline."""
        # The next manager goes on with what this one did not finish.
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
        """It is not to be listed any more."""
        return f'{{"gid": "{gid}", "gone": true}}\n'.encode()

    def _words_of(self, options: DownloadOptions) -> str:
        known, words = self._options
        if known is not options:
            words = json.dumps(_given(options))
            self._options = (options, words)
        return words


class Reader:
    """Reads entries. Those with the same options share one object."""

    def __init__(self) -> None:
        self._options: dict[str, DownloadOptions] = {}

    def read(self, entry: Any) -> Entry:
        """What was at work is waiting again. Raises one of ``SENSELESS`` for what cannot be used here: a file that is
        gone, an option of a newer version.
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
            # It failed, and stays so until somebody wants it to be tried again.
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
    """The options that were given, as JSON values; a function cannot be kept."""
    values = {name: value for name, value in options.given.items() if name != "refresh_url"}
    for name, value in values.items():
        if isinstance(value, Mapping):
            values[name] = dict(value)
        elif isinstance(value, os.PathLike):
            values[name] = os.fspath(value)
    return values
