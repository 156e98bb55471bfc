"""A refusal between good responses does not end a download, with either backend."""

from pathlib import Path
from typing import Any

import pytest

from rangefetch import DownloadManager
from rangefetch.errors import HttpStatusError
from servers.misbehaving import MisbehavingServer, content
from support.downloads import SIZE, SMALL, into

LANES: list[dict[str, Any]] = [{"split": 1}, {"split": 8, "min_split_size": "1M"}]


@pytest.mark.parametrize("options", LANES, ids=["one lane", "eight"])
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("code", [400, 403, 404, 405, 409])
def test_a_refusal_between_good_responses_is_asked_about_again(
    manager: DownloadManager,
    server: MisbehavingServer,
    target: Path,
    code: int,
    times: int,
    options: dict[str, Any],
) -> None:
    manager.download_and_wait(
        server.url("/status/x", size=SIZE, code=code, skip=1, times=times), into(target, **options)
    )
    assert target.read_bytes() == content(SIZE)


@pytest.mark.parametrize("options", LANES, ids=["one lane", "eight"])
@pytest.mark.parametrize("code", [401, 407])
def test_a_demand_for_credentials_between_good_responses_is_asked_about_once_more(
    manager: DownloadManager, server: MisbehavingServer, target: Path, code: int, options: dict[str, Any]
) -> None:
    manager.download_and_wait(server.url("/status/x", size=SIZE, code=code, skip=1, times=1), into(target, **options))
    assert target.read_bytes() == content(SIZE)


@pytest.mark.parametrize("code", [400, 406, 409, 501])
def test_what_says_nothing_of_the_file_is_doubted_of_a_host_that_has_sent_others(
    manager: DownloadManager, server: MisbehavingServer, target: Path, code: int
) -> None:
    """In a list, each file may take a single request, which is then its first."""
    manager.download_and_wait(server.url("/good/x", size=SMALL), into(target, "good"))
    for number in range(6):
        url = server.url(f"/status/{number}", size=SMALL, code=code, times=3, id=number)
        result = manager.download_and_wait(url, into(target, number))
        assert result.path.read_bytes() == content(SMALL)
    # And of dead links no more than a few are.
    server.clear()
    for number in range(20):
        with pytest.raises(HttpStatusError):
            manager.download_and_wait(server.url(f"/status/d{number}", code=code, id=number), into(target, number))
    assert len(server.requests) <= 3 * 10 + 17


@pytest.mark.parametrize("code", [403, 408, 413, 423, 425, 429, 500, 507, 599])
def test_retry_after_is_honoured(manager: DownloadManager, server: MisbehavingServer, target: Path, code: int) -> None:
    url = server.url("/status/x", size=SMALL, code=code, retry_after=1, times=1)
    manager.download_and_wait(url, into(target))
    assert target.read_bytes() == content(SMALL)
    first, second, *_ = server.requests
    assert second.time - first.time >= 0.99


def test_a_link_that_has_run_out_after_good_responses_is_renewed(
    manager: DownloadManager, server: MisbehavingServer, target: Path
) -> None:
    for number, code in enumerate((400, 401, 403, 404, 410)):
        url = server.url("/script/x", size=SIZE, steps="good|cut:after=1000000", then=f"status:code={code}")
        path = target.with_name(str(number))
        result = manager.download_and_wait(
            url, into(path, number, split=1, refresh_url=lambda _: server.url("/good/x", size=SIZE))
        )
        assert result.path.read_bytes() == content(SIZE)
