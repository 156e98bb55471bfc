"""Downloads large files, and large numbers of files, over HTTP(S).

Most programs need only ``fetch``; ``DownloadManager`` adds a queue and finer control. Public names are loaded on first
use, which keeps ``import rangefetch`` fast.
"""

from __future__ import annotations

from rangefetch.importing import no_fork
from rangefetch.version import __version__

TYPE_CHECKING = False  # type checkers treat it like typing.TYPE_CHECKING; importing typing would take 7 ms

if TYPE_CHECKING:
    from rangefetch import aio, errors
    from rangefetch.api import fetch
    from rangefetch.asking import head
    from rangefetch.bulk import fetch_many
    from rangefetch.errors import DownloadError
    from rangefetch.iterating import Fetched, fetch_iter
    from rangefetch.manager import DownloadManager
    from rangefetch.manifests.item import ManifestItem
    from rangefetch.manifests.opening import ManifestError
    from rangefetch.manifests.reading import read_manifest
    from rangefetch.options import DownloadOptions
    from rangefetch.progress import DownloadProgress, DownloadResult, DownloadStatus, FileInfo
    from rangefetch.running import Run
    from rangefetch.shards import Shards
    from rangefetch.shared import get_download_manager, init_download_manager
    from rangefetch.streaming import stream
    from rangefetch.transfer.retry import RetryPolicy

__all__ = [
    "DownloadError",
    "DownloadManager",
    "DownloadOptions",
    "DownloadProgress",
    "DownloadResult",
    "DownloadStatus",
    "Fetched",
    "FileInfo",
    "ManifestError",
    "ManifestItem",
    "RetryPolicy",
    "Run",
    "Shards",
    "__version__",
    "aio",
    "errors",
    "fetch",
    "fetch_iter",
    "fetch_many",
    "get_download_manager",
    "head",
    "init_download_manager",
    "read_manifest",
    "stream",
]

_HOMES = {
    "DownloadError": "rangefetch.errors",
    "DownloadManager": "rangefetch.manager",
    "RetryPolicy": "rangefetch.transfer.retry",
    "DownloadOptions": "rangefetch.options",
    "DownloadProgress": "rangefetch.progress",
    "DownloadResult": "rangefetch.progress",
    "DownloadStatus": "rangefetch.progress",
    "Fetched": "rangefetch.iterating",
    "FileInfo": "rangefetch.progress",
    "ManifestError": "rangefetch.manifests.opening",
    "ManifestItem": "rangefetch.manifests.item",
    "Run": "rangefetch.running",
    "Shards": "rangefetch.shards",
    "fetch": "rangefetch.api",
    "fetch_iter": "rangefetch.iterating",
    "fetch_many": "rangefetch.bulk",
    "get_download_manager": "rangefetch.shared",
    "head": "rangefetch.asking",
    "init_download_manager": "rangefetch.shared",
    "read_manifest": "rangefetch.manifests.reading",
    "stream": "rangefetch.streaming",
}


# Modules that programs use by these names, wherever they are in the package.
_MODULES = {
    "aio": "rangefetch.aio",
    "errors": "rangefetch.errors",
    "libcurl": "rangefetch.net.libcurl",
    "retry": "rangefetch.transfer.retry",
    "state": "rangefetch.disk.state",
}


def __getattr__(name: str) -> object:
    """Load a public name from the module that defines it (PEP 562)."""
    value: object
    if name in _MODULES:
        # Modules of this package import these while they are being loaded themselves, and must not wait for the lock.
        import importlib

        value = importlib.import_module(_MODULES[name])
    elif name in _HOMES:
        with no_fork:
            import importlib

            value = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
