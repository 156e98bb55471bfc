"""Merges a manager's default options with the options of each download."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rangefetch.checks import Url, check_url
from rangefetch.options import DownloadOptions

__all__ = ["Defaults", "Given"]

Given = DownloadOptions | Mapping[str, Any] | None
"""Options as users give them."""

_OF_KEYWORDS = {"download_dir": "save_dir", "ca_file": "ca_file", "verify_tls": "verify_tls"}
"""Keywords of a manager that are passed to aria2c and are also defaults of the options of every download."""


class Defaults:
    """The defaults of one manager. Remembers the last result, since loops often pass the same options repeatedly."""

    def __init__(self, defaults: Given, keywords: Mapping[str, Any]) -> None:
        if defaults is not None and not isinstance(defaults, DownloadOptions | Mapping):
            raise TypeError(f"defaults: expected DownloadOptions or a mapping, not {type(defaults).__name__}")
        named = ((_OF_KEYWORDS.get(name), value) for name, value in keywords.items())
        of_keywords = {option: value for option, value in named if option is not None and value != ""}
        self.options = DownloadOptions.of(defaults).over(DownloadOptions.of(of_keywords))
        """The default options of every download."""
        self._last_checked: tuple[object, DownloadOptions] = (None, self.options)
        # The working directory of the last call, its options, and those options with absolute paths.
        self._last_absolute = ("", self.options, self.options)

    def check(self, url: Url, options: Given = None) -> tuple[str, DownloadOptions]:
        """Check the URL and the options; return the URL, and the options merged with the defaults. Raises
        ``ValueError`` or ``TypeError``.
        """
        if options is None:
            return check_url(url), self.options
        if isinstance(options, Mapping):
            key = _key_of(options)
            known, checked = self._last_checked
            if key is None or key != known:
                checked = DownloadOptions.of(self.options, **options)
                self._last_checked = (key, checked)
            return check_url(url), checked
        return check_url(url), DownloadOptions.of(options).over(self.options)

    def in_this_directory(self, options: DownloadOptions) -> DownloadOptions:
        """The options with absolute paths, which stay valid if the process changes its working directory."""
        known, last, absolute = self._last_absolute
        if options is absolute:
            return options  # they are absolute already
        try:
            directory = os.getcwd()  # noqa: PTH109 - it is a string that is compared
        except OSError:  # the working directory no longer exists
            return options.absolute()
        if known != directory or last is not options:
            absolute = options.absolute()
            self._last_absolute = (directory, options, absolute)
        return absolute


def _key_of(options: Mapping[str, Any]) -> tuple[object, ...] | None:
    """A key by which equal options are recognised; None if a value is mutable."""
    if not all(type(value) in (str, int, float, bool) or isinstance(value, Path) for value in options.values()):
        return None
    return tuple((name, type(value), value) for name, value in options.items())
