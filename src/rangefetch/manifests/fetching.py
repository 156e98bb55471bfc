"""Fetches manifests from URLs, and finds their further pages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rangefetch.api import fetch
from rangefetch.asking import head
from rangefetch.errors import BadAnswer
from rangefetch.masking import mask_url
from rangefetch.net.sources import origin_of
from rangefetch.options import DownloadOptions

__all__ = ["fetch_manifest", "next_page"]

_MOST_BYTES = 16 << 30

_OF_FILES = frozenset(
    {
        *("save_dir", "filename", "overwrite", "wait_for_other", "auto_file_renaming", "file_allocation", "durable"),
        *("mirrors", "use_github_mirror", "github_mirrors", "refresh_url", "checksum", "expected_size"),
        *("max_file_size", "max_download_limit", "split", "min_split_size", "decode", "decode_limit"),
    }
)
"""Options that apply to the files of a list, as opposed to how servers are asked."""


def _asked_with(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in DownloadOptions.of(options).given.items() if name not in _OF_FILES}


def fetch_manifest(url: str, path: Path, options: Mapping[str, Any]) -> Path:
    """Fetch the manifest to ``path`` with those ``options`` that do not apply to files, and return its path. Raises
    ``DownloadError``, ``ValueError``."""
    return fetch(url, path, max_file_size=_MOST_BYTES, overwrite=True, **_asked_with(options)).path


def next_page(url: str, options: Mapping[str, Any]) -> str:
    """The URL of the page after this one; "" if it is the last. Raises ``DownloadError``.

    The next page is requested with the credentials for ``url``, so it must have the same origin.
    """
    found = head(url, **_asked_with(options)).links.get("next", ())
    if not found:
        return ""
    if origin_of(found[0]) != origin_of(url):
        raise BadAnswer(f"its next page is on another server, not fetched: {mask_url(found[0])}", url=mask_url(url))
    return found[0]
