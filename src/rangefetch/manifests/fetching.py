"""A manifest that is at a URL."""

from __future__ import annotations

from pathlib import Path

from rangefetch.api import fetch

__all__ = ["fetch_manifest"]

_MOST_BYTES = 16 << 30


def fetch_manifest(url: str, directory: str) -> Path:
    """Fetch it into ``directory`` and return the file. Raises ``DownloadError``, ``ValueError``."""
    return fetch(url, Path(directory, "manifest"), max_file_size=_MOST_BYTES).path
