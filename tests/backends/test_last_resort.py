"""A file whose server refuses ranges is fetched as one stream, with either backend."""

from pathlib import Path

import pytest

from rangefetch import DownloadManager
from rangefetch.errors import HttpStatusError
from servers.misbehaving import MisbehavingServer, content
from support.downloads import SIZE, SMALL, into
from support.files import names

REFUSALS = [400, 403, 404, 405, 406, 500, 501, 503, 0]


@pytest.mark.parametrize("size", [SMALL, SIZE])
@pytest.mark.parametrize("code", REFUSALS)
def test_a_file_whose_server_refuses_ranges_comes_as_one_stream(
    manager: DownloadManager, server: MisbehavingServer, target: Path, code: int, size: int
) -> None:
    manager.download_and_wait(server.url("/range-refused/x", size=size, code=code), into(target))
    assert target.read_bytes() == content(size)
    assert names(target.parent) == ["file.bin"]


@pytest.mark.parametrize("code", [200, 204, 416])
def test_a_file_whose_ranges_come_empty_comes_as_one_stream(
    manager: DownloadManager, server: MisbehavingServer, target: Path, code: int
) -> None:
    url = server.url("/range-of-nothing/x", size=SIZE, code=code, times=1000)
    manager.download_and_wait(url, into(target))
    assert target.read_bytes() == content(SIZE)


@pytest.mark.parametrize("code", [429, 503])
def test_the_rest_period_comes_before_the_request_without_a_range(
    manager: DownloadManager, server: MisbehavingServer, target: Path, code: int
) -> None:
    url = server.url("/range-refused/x", size=SMALL, code=code, retry_after=1)
    manager.download_and_wait(url, into(target))
    assert target.read_bytes() == content(SMALL)
    first, second, *_ = server.requests
    assert second.range is None
    assert second.time - first.time >= 0.99


def test_dead_links_of_a_host_that_sends_ranges_cost_one_request(
    manager: DownloadManager, server: MisbehavingServer, target: Path
) -> None:
    manager.download_and_wait(server.url("/good/x", size=SIZE), into(target, 1))
    for code in (403, 404):
        server.clear()
        with pytest.raises(HttpStatusError):
            manager.download_and_wait(server.url("/status/x", code=code), into(target, 2))
        assert len(server.requests) == 1
