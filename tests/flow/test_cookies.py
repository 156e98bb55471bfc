"""Cookies are sent only where they belong, and only for the downloads that they belong to."""

from pathlib import Path
from typing import Any

import pytest

from rangefetch import DownloadManager
from servers.misbehaving import MisbehavingServer, content
from support.files import MIB

SMALL = 100_001
LARGE = 9 * MIB + 5


class Fetcher:
    """Downloads files with one manager, which has no cookies at first."""

    def __init__(self, manager: DownloadManager, directory: Path) -> None:
        self.directory = directory
        self._manager = manager
        self._count = 0

    def __call__(self, url: str, **options: Any) -> bytes:
        self._count += 1
        options |= {"save_dir": self.directory, "filename": f"{self._count}"}
        return self._manager.download_and_wait(url, options).path.read_bytes()

    def cookie_file(self, *lines: str) -> Path:
        """Write a cookie file in Netscape format."""
        self._count += 1
        file = self.directory / f"{self._count}.txt"
        file.write_text("\n".join(["# Netscape HTTP Cookie File", *lines, ""]))
        return file


COOKIE = "127.0.0.1\tFALSE\t/\tFALSE\t0\tsession\ts3cret"


@pytest.fixture
def fetcher(manager: DownloadManager, tmp_path: Path) -> Fetcher:
    return Fetcher(manager, tmp_path)


def _cookies_seen(server: MisbehavingServer) -> list[str | None]:
    return [request.headers.get("cookie") for request in server.requests]


def test_cookies_of_a_file_are_sent_with_each_range(server: MisbehavingServer, fetcher: Fetcher) -> None:
    url = server.url("/good/x", size=LARGE)
    assert fetcher(url, cookies=fetcher.cookie_file(COOKIE)) == content(LARGE)
    assert _cookies_seen(server) == ["session=s3cret"] * len(server.requests)


def test_cookies_of_another_host_are_not_sent(server: MisbehavingServer, fetcher: Fetcher) -> None:
    cookies = fetcher.cookie_file(COOKIE.replace("127.0.0.1", "example.org"))
    assert fetcher(server.url("/good/x", size=LARGE), cookies=cookies) == content(LARGE)
    assert not any(_cookies_seen(server))


def test_no_cookie_of_a_file_reaches_another_origin(
    server: MisbehavingServer, other_server: MisbehavingServer, fetcher: Fetcher
) -> None:
    url = server.url("/redirect/x", to=other_server.url("/good/x", size=LARGE))
    assert fetcher(url, cookies=fetcher.cookie_file(COOKIE)) == content(LARGE)
    assert _cookies_seen(server) == ["session=s3cret"]
    assert not any(_cookies_seen(other_server))


def test_cookies_of_one_download_are_not_sent_by_the_next(server: MisbehavingServer, fetcher: Fetcher) -> None:
    fetcher(server.url("/good/x", size=SMALL), cookies=fetcher.cookie_file(COOKIE))
    server.clear()
    assert fetcher(server.url("/good/y", size=SMALL)) == content(SMALL)
    assert _cookies_seen(server) == [None]


def test_cookies_that_a_server_has_set_are_sent_by_the_next_with_the_same_credentials(
    server: MisbehavingServer, fetcher: Fetcher
) -> None:
    fetcher(server.url("/good/x", size=SMALL, header="Set-Cookie: session=s3cret"), headers={"X-User": "one"})
    server.clear()
    assert fetcher(server.url("/good/y", size=SMALL), headers={"X-User": "one"}) == content(SMALL)
    assert fetcher(server.url("/good/y", size=SMALL), headers={"X-User": "two"}) == content(SMALL)
    assert _cookies_seen(server) == ["session=s3cret", None]


def test_a_cookie_that_a_server_has_set_is_not_kept_beyond_the_manager(
    server: MisbehavingServer, fetcher: Fetcher, tmp_path: Path
) -> None:
    fetcher(server.url("/good/x", size=LARGE, header="Set-Cookie: session=s3cret"))
    server.clear()
    with DownloadManager() as other:
        Fetcher(other, tmp_path / "other")(server.url("/good/y", size=SMALL))
    assert _cookies_seen(server) == [None]
