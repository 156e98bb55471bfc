"""What a backend can do, as data; code that chooses between backends reads only this."""

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
    """What one backend can do, as far as is known before it runs.

    ``schemes`` are the URL schemes that it serves. ``in_order``: for a reader, it delivers the bytes from first to
    last. ``follows``: given the URL of a torrent or Metalink, it fetches the files that this describes.
    ``most_connections`` is the most it opens to one server (0: as many as the user allows). ``refusal`` says which
    option of a download it cannot honour, and why (empty: none). ``takes_as_small`` says whether it can run a download
    and first tries it as a small file, of which more may be active at a time.
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
    """Whether this installation of the package includes the backend."""

    def remedy(self) -> str:
        """What to install if the backend cannot run; empty if that would not help, since this platform has none."""
        return self.install if self.is_built() else ""

    def why_not(self, download: Entry) -> str:
        """Why it cannot run a download, as the rest of a sentence about the backend; empty if it can."""
        scheme = download.url.partition(":")[0].lower()
        if scheme not in self.schemes:
            return f"does not serve {scheme}"
        if download.sink is not None and not self.in_order:
            return "cannot stream"
        refused = self.refusal(download.url, download.options)
        return f"cannot honour {refused}" if refused else ""

    def falls_short(self, download: Entry) -> str:
        """What a download that it can run gets less of than it asks for, worded as in ``why_not``; empty if nothing."""
        wanted = min(download.options.max_connection_per_server, download.options.split)
        if 0 < self.most_connections < wanted:
            return f"opens at most {self.most_connections} connections to a server, not {wanted}"
        return ""


def _may_be_small(download: Entry) -> bool:
    """Whether a download has nothing to resume, and asks for nothing special."""
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


# Most downloads have the same options as the one before.
_last: tuple[DownloadOptions | None, bool] = (None, False)


def _are_plain(options: DownloadOptions) -> bool:
    return not (
        options.checksum
        or options.expected_size
        or options.durable
        or options.decode
        # A limit may make it slow, and then a pause must not cost the data it has.
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
