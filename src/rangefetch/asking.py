"""``head``: asks a server about a file without downloading it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rangefetch.checks import HTTP, Url, check_url
from rangefetch.errors import LocalError
from rangefetch.masking import mask_url
from rangefetch.options import DownloadOptions
from rangefetch.shared import our_downloads
from rangefetch.transfer.download import Download
from rangefetch.transfer.sink import Nowhere

if TYPE_CHECKING:
    from typing import Unpack

    from rangefetch.downloads import Downloads
    from rangefetch.options import CommonOptions
    from rangefetch.progress import FileInfo

__all__ = ["Question", "head"]


class Question:
    """A download that only asks about the file, running on the process's manager until ``close``.

    Raises ``ValueError`` or ``TypeError`` for bad options, and ``LocalError`` if the native engine cannot run.
    """

    def __init__(self, url: Url, options: CommonOptions) -> None:
        checked = DownloadOptions.of(options)
        for name in ("save_dir", "filename"):
            if name in options:
                raise ValueError(f"{name}: head saves no file")
        self.url = check_url(url, schemes=HTTP)
        self.downloads: Downloads = our_downloads()
        # Ask the URL itself, not a mirror.
        checked = DownloadOptions.of(checked.over(self.downloads.defaults.options), mirrors=(), use_github_mirror=False)
        if not self.downloads.can_stream():
            raise LocalError("head requires the native engine", url=mask_url(self.url))
        self.download = Download(self.url, checked)
        self.download.asks = True
        self._sink = self.download.sink = Nowhere(self.url)
        self.downloads.begin(self.download)

    def answer(self, timeout: float | None = None) -> FileInfo:
        """Wait for the answer and return it. Raises the ``DownloadError`` of a failed request, and ``WaitTimeout``."""
        self.downloads.wait_for(self.download, timeout)
        assert self.download.info is not None
        return self.download.info

    def close(self) -> None:
        """Stop the request, if there is no answer yet, and forget it."""
        self.downloads.let_go([self.download])
        self._sink.release()


def head(url: Url, **options: Unpack[CommonOptions]) -> FileInfo:
    """Ask for a file's size, name, validators, range support, digests and final URL, without downloading it.

    The request is a GET for the first byte, since links signed for GET are refused for HEAD. If the server refuses it,
    a HEAD follows, and then a GET whose body is not read. Retries, redirects, proxies and credentials work as in
    ``fetch``. ``options`` are the fields of ``DownloadOptions`` that concern requests.

    Raises ``ValueError`` or ``TypeError`` for bad options, ``LocalError`` if the native engine cannot run, and a
    ``DownloadError`` such as ``HttpStatusError`` if the server does not have the file or cannot be reached.
    """
    question = Question(url, options)
    try:
        return question.answer()
    finally:
        question.close()
