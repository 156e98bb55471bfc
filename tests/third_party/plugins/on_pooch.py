"""pooch's own tests, with rangefetch as the downloader and pooch's test data on a local server.

The project has no adapter for pooch, and needs none: a downloader is any function of a URL, a file and a ``Pooch``, as
here. Tests that contact other hosts (DOIs), use FTP or SFTP, or depend on GitHub's compression are left out. Progress
bars and file objects are left to pooch's own downloader.
"""

import functools
import http.server
import os
from typing import Any

import pooch
import pooch.core
import pooch.downloaders
import pooch.tests.utils
import pytest

from rangefetch import DownloadError, fetch
from servers.background import Background, Handler

_ELSEWHERE = ("doi", "figshare", "dataverse", "ftp", "zenodo", "create_and_fetch", "arbitrary_progressbar")


class _Files(Handler, http.server.SimpleHTTPRequestHandler):
    pass


class Downloader(pooch.downloaders.HTTPDownloader):  # type: ignore[misc]  # pooch has no types
    """pooch's downloader, except for the transfer."""

    fetched = 0

    def __call__(self, url: str, output_file: Any, pooch_: Any, check_only: bool = False) -> Any:
        if check_only or self.progressbar or not isinstance(output_file, (str, os.PathLike)):
            return super().__call__(url, output_file, pooch_, check_only=check_only)
        try:
            # pooch has already created the file, to reserve its name.
            fetch(url, output_file, overwrite=True)
        except DownloadError as error:
            raise ValueError(str(error)) from error  # pooch retries after a ValueError
        Downloader.fetched += 1
        return None


_data = os.path.join(os.path.dirname(pooch.tests.utils.__file__), "data")  # noqa: PTH118, PTH120 - as pooch's tests write it
_server = Background(http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Files, directory=_data)))


def pytest_configure() -> None:
    """Replace the data's URL and the downloader before the tests are imported, which look both up."""
    _server.__enter__()
    pooch.tests.utils.pooch_test_url = lambda: f"http://127.0.0.1:{_server.port}/"
    pooch.downloaders.HTTPDownloader = pooch.HTTPDownloader = Downloader


def pytest_unconfigure() -> None:
    _server.__exit__()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that contact other hosts."""
    elsewhere = [item for item in items if any(word in item.name.lower() for word in _ELSEWHERE)]
    config.hook.pytest_deselected(items=elsewhere)
    items[:] = [item for item in items if item not in elsewhere]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(f"rangefetch fetched {Downloader.fetched} files")
