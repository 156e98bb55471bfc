"""What a backend can do, as data: whoever chooses between backends reads this, and knows nothing else of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from urllib.parse import urlsplit

from rangefetch.options import HTTP, DownloadOptions
from rangefetch.transfer.download import Download

__all__ = ["NATIVE", "Capabilities"]


@dataclasses.dataclass(frozen=True, slots=True)
class Capabilities:
    """What one backend can do, as far as that can be said before it runs.

    ``schemes`` are those of the URLs that it serves. ``streams``: its bytes can be read while they come. ``batches``:
    it takes many small files at once. ``follows``: it fetches what a torrent or Metalink describes, and not that
    itself. ``refusal`` says which option of a download it cannot honour, and why (empty: none).
    """

    name: str
    install: str
    """How to get what it needs."""
    schemes: frozenset[str]
    streams: bool = False
    batches: bool = False
    follows: bool = False
    refusal: Callable[[str, DownloadOptions], str] = lambda url, options: ""

    def why_not(self, download: Download) -> str:
        """Why it cannot run a download, as the rest of a sentence about it; empty: it can."""
        scheme = urlsplit(download.url).scheme.lower()
        if scheme not in self.schemes:
            return f"does not serve {scheme}"
        if download.sink is not None and not self.streams:
            return "cannot stream"
        refused = self.refusal(download.url, download.options)
        return f"cannot honour {refused}" if refused else ""


NATIVE = Capabilities("native", "pip install pycurl", frozenset(HTTP), streams=True, batches=True)
