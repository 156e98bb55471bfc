"""A server that refuses a request after good responses is asked again, but only a limited number of times."""

from pathlib import Path
from typing import Any

import pytest

import rangefetch
from rangefetch.errors import HttpStatusError
from servers.misbehaving import MisbehavingServer, content
from support.downloads import SIZE, SMALL, fails, fetch
from support.files import saved_bytes

LANES: list[dict[str, Any]] = [{"split": 1}, {"split": 8, "min_split_size": "1M"}]


@pytest.mark.parametrize("code", [401, 407])
def test_a_demand_for_credentials_that_is_repeated_is_final(server: MisbehavingServer, target: Path, code: int) -> None:
    fails(HttpStatusError, server.url("/status/x", size=SIZE, code=code, skip=1), target, split=1)
    assert len(server.requests) == 3
    assert saved_bytes(target) > 0


@pytest.mark.parametrize("code", [400, 404, 409])
def test_a_refusal_that_lasts_is_final_within_the_tries(server: MisbehavingServer, target: Path, code: int) -> None:
    fails(HttpStatusError, server.url("/status/x", size=SIZE, code=code, skip=1), target, split=1, max_tries=3)
    assert len(server.requests) == 1 + 3 + 1  # once without a range
    assert saved_bytes(target) > 0


@pytest.mark.parametrize("options", LANES, ids=["one lane", "eight"])
def test_a_range_said_not_to_be_there_in_a_file_of_the_same_size_is_asked_for_again(
    server: MisbehavingServer, target: Path, options: dict[str, Any]
) -> None:
    fetch(server.url("/same-total/x", size=SIZE, skip=1, times=1), target, **options)
    assert target.read_bytes() == content(SIZE)
    assert server.bytes_sent < SIZE + 1000


def test_a_mirror_is_asked_first(server: MisbehavingServer, other_server: MisbehavingServer, target: Path) -> None:
    url = server.url("/script/x", size=4 * SIZE, steps="slow:rate=4M|slow:rate=4M", then="status:code=404")
    mirror = other_server.url("/good/x", size=4 * SIZE, rate="8M")
    fetch(url, target, mirrors=[mirror], split=2, min_split_size="1M", retry_wait=0.5)
    assert target.read_bytes() == content(4 * SIZE)
    assert sum(request.status == 404 for request in server.requests) < 6


def test_small_files_of_which_some_are_refused_once_come(server: MisbehavingServer, tmp_path: Path) -> None:
    for number, code in enumerate((400, 404, 409)):
        url = server.url(f"/status/{number}", size=SMALL, code=code, times=1)
        rangefetch.fetch_many([url], tmp_path)
        assert (tmp_path / str(number)).read_bytes() == content(SMALL)


def test_a_new_link_is_asked_for_first(server: MisbehavingServer, target: Path) -> None:
    asked = []

    def refresh(url: str) -> str:
        asked.append(url)
        return server.url("/good/x", size=SIZE)

    for number, code in enumerate((400, 401, 403, 404)):
        path = target.with_name(str(number))
        url = server.url("/status/x", size=SIZE, code=code, skip=1)
        fetch(url, path, split=1, refresh_url=refresh, retry_wait=60.0)
        assert path.read_bytes() == content(SIZE)
    assert len(asked) == 4
