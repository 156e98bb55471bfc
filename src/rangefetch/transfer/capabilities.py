"""What a backend can do, as data: whoever chooses between backends reads this, and knows nothing else of them."""

from __future__ import annotations

from collections.abc import Callable

from rangefetch import records
from rangefetch.checks import HTTP, is_metadata_url
from rangefetch.disk import system
from rangefetch.importing import no_fork
from rangefetch.options import DownloadOptions
from rangefetch.transfer.download import Entry

__all__ = ["NATIVE", "Capabilities"]


@records.dataclass(frozen=True, slots=True)
class Capabilities:
    """What one backend can do, as far as that can be said before it runs.

    ``schemes`` are those of the URLs that it serves. ``in_order``: the bytes come from the first to the last where
    somebody reads them meanwhile. ``follows``: it fetches what a torrent or Metalink describes, and not that itself.
    ``most_connections`` is how many it opens to one server at most (0: as many as the user allows). ``refusal`` says
    which option of a download it cannot honour, and why (empty: none). ``takes_as_small`` says whether it can run a
    download, and first tries it as a small file, of which there may be more at a time.
    """

    name: str
    install: str
    """How to get what it needs; see ``remedy``."""
    schemes: frozenset[str]
    in_order: bool = False
    follows: bool = False
    most_connections: int = 0
    refusal: Callable[[str, DownloadOptions], str] = lambda url, options: ""
    takes_as_small: Callable[[Entry], bool] = lambda download: False
    is_built: Callable[[], bool] = lambda: True
    """Whether this installation of the package has it at all."""

    def remedy(self) -> str:
        """What to install where it cannot run; empty: that would be of no use, since this platform has none."""
        return self.install if self.is_built() else ""

    def why_not(self, download: Entry) -> str:
        """Why it cannot run a download, as the rest of a sentence about it; empty: it can."""
        scheme = download.url.partition(":")[0].lower()
        if scheme not in self.schemes:
            return f"does not serve {scheme}"
        if download.sink is not None and not self.in_order:
            return "cannot stream"
        refused = self.refusal(download.url, download.options)
        return f"cannot honour {refused}" if refused else ""

    def falls_short(self, download: Entry) -> str:
        """What a download that it can run gets less of than it asks for, as ``why_not`` says it; empty: nothing."""
        wanted = min(download.options.max_connection_per_server, download.options.split)
        if 0 < self.most_connections < wanted:
            return f"opens at most {self.most_connections} connections to a server, not {wanted}"
        return ""


def _may_be_small(download: Entry) -> bool:
    """Whether nothing of an earlier run is to be gone on with, and nothing is asked for but that the file comes."""
    global _last
    known, plain = _last
    if download.options is not known:
        plain = _are_plain(download.options)
        _last = (download.options, plain)
    return (
        plain
        and system.CREATES_IN_DIRECTORIES
        and not (
            download.has_begun
            or download.sink is not None
            or download.asks
            or "@" in download.url
            or is_metadata_url(download.url)
            or not download.url[:8].lower().startswith(("http://", "https://"))
        )
    )


# Most downloads have the options of the one before.
_last: tuple[DownloadOptions | None, bool] = (None, False)


def _are_plain(options: DownloadOptions) -> bool:
    return not (
        options.checksum
        or options.expected_size
        or options.durable
        or options.decode
        # It may be slow because of that, and then a pause must not cost what is there.
        or options.max_download_limit
        or options.mirrors
        or options.use_github_mirror
    )


def _has_engine() -> bool:
    try:
        with no_fork:
            import rangefetch._engine  # noqa: F401 - whether it can be
    except ImportError:
        return False
    return True


NATIVE = Capabilities(
    "native",
    "pip install pycurl",
    frozenset(HTTP),
    in_order=True,
    takes_as_small=_may_be_small,
    is_built=_has_engine,
)
