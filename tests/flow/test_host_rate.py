"""``host_rate`` limits the requests to a host, whatever they are for."""

from __future__ import annotations

import bisect
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from rangefetch import DownloadManager, fetch, fetch_iter, fetch_many, stream
from rangefetch.errors import HttpStatusError
from servers.counting import CountingServer
from servers.misbehaving import MisbehavingServer, content
from support.downloads import QUICK
from support.files import MIB

LATE_S = 0.1
"""How long after it was sent a request may arrive, so that the next one may seem to follow it at once."""


def most_within(times_s: Sequence[float], seconds: float) -> int:
    """The largest number of requests that came in any period of this length."""
    times_s = sorted(times_s)
    return max(bisect.bisect_left(times_s, at_s + seconds) - first for first, at_s in enumerate(times_s))


def must_be_spaced(times_s: Sequence[float], rate: float) -> None:
    """Check that no period of 0.5 s or 1 s has more requests than the rate allows."""
    for seconds in (0.5, 1.0):
        assert most_within(times_s, seconds) <= rate * (seconds + LATE_S) + 1


def times(server: MisbehavingServer | CountingServer) -> list[float]:
    if isinstance(server, CountingServer):
        return [each.time_s for each in server.seen]
    return [each.time for each in server.requests]


@pytest.mark.parametrize("how", ["fetch_many", "fetch_iter"])
def test_many_small_files(tmp_path: Path, how: str) -> None:
    with CountingServer() as server:
        urls = [server.url(f"f{number:03}") for number in range(30)]
        began_s = time.monotonic()
        if how == "fetch_many":
            fetch_many(urls, tmp_path, host_rate="20/s")
        else:
            assert all(each.result for each in fetch_iter(urls, tmp_path, host_rate="20/s"))
        assert time.monotonic() - began_s >= 29 / 20
        assert len(server.seen) == 30
        must_be_spaced(times(server), 20)


def test_what_the_rate_allows_is_used(tmp_path: Path) -> None:
    """Slow responses do not lower the rate."""
    with CountingServer(delay_s=0.5) as server:
        fetch_many([server.url(f"f{number:03}") for number in range(60)], tmp_path, host_rate="30/s")
        came_s = sorted(times(server))
        assert came_s[-1] - came_s[0] >= 59 / 30 - LATE_S
        assert server.most_requests >= 8  # fifteen, where nothing else delays them


def test_all_managers_of_a_process_together(tmp_path: Path) -> None:
    with CountingServer() as server, DownloadManager() as one, DownloadManager() as other:
        options = {"save_dir": tmp_path, "host_rate": "20/s"}
        gids = [
            (each, each.download(server.url(f"{name}{number}"), options))
            for number in range(15)
            for name, each in (("one", one), ("other", other))
        ]
        for manager, gid in gids:
            manager.wait(gid, timeout=30)
        must_be_spaced(times(server), 20)


def test_each_range_of_a_large_file_counts(tmp_path: Path, server: MisbehavingServer) -> None:
    url = server.url("/good/large.bin", size=32 * MIB)
    result = fetch(url, tmp_path / "large.bin", host_rate=10, min_split_size="1M", split=8, **QUICK)
    assert result.path.read_bytes() == content(32 * MIB)
    assert len(server.requests) > 1
    must_be_spaced(times(server), 10)


def test_tries_again_count(tmp_path: Path, server: MisbehavingServer) -> None:
    with pytest.raises(HttpStatusError):
        fetch(server.url("/status/x", code=500), tmp_path / "x", host_rate="10/s", **QUICK | {"max_tries": 6})
    assert len(server.requests) >= 6
    must_be_spaced(times(server), 10)


def test_redirects_count_at_the_host_to_which_they_lead(tmp_path: Path, server: MisbehavingServer) -> None:
    with MisbehavingServer() as other:
        urls = [
            server.url(f"/redirect/{number}", to=other.url("/good/x", size=100, seed=number)) for number in range(10)
        ]
        fetch_many([(url, f"{n}.bin") for n, url in enumerate(urls)], tmp_path, host_rate="10/s", **QUICK)
        for each in (server, other):
            assert len(each.requests) == 10
            must_be_spaced(times(each), 10)


def test_a_redirect_within_one_host_is_two_requests(tmp_path: Path, server: MisbehavingServer) -> None:
    urls = [server.url(f"/redirect/{number}", to=f"/good/x?size=100&seed={number}") for number in range(5)]
    fetch_many([(url, f"{n}.bin") for n, url in enumerate(urls)], tmp_path, host_rate="10/s", **QUICK)
    assert len(server.requests) == 10
    must_be_spaced(times(server), 10)


def test_streams(server: MisbehavingServer) -> None:
    for number in range(4):
        with stream(server.url("/good/x", size=1000, seed=number), host_rate="10/s") as opened:
            assert opened.read() == content(1000, number)
    must_be_spaced(times(server), 10)
    assert max(times(server)) - min(times(server)) >= 0.3 - LATE_S


def test_a_slow_host_holds_no_other_back(tmp_path: Path) -> None:
    """The slow host's files are first in the list, and there are more of them than places."""
    with CountingServer() as slow, CountingServer() as other:
        urls = [slow.url(f"s{number:03}") for number in range(400)] + [other.url(f"o{n:03}") for n in range(40)]
        done = 0
        items = [(url, {"host_rate": "2/s" if url.startswith(slow.url("")) else "200/s"}) for url in urls]
        with_results = fetch_iter(items, tmp_path)
        for fetched in with_results:
            assert fetched.result
            done += urls[fetched.number].startswith(other.url(""))
            if done == 40:
                break
        with_results.close()
        assert len(slow.seen) <= 20
        must_be_spaced(times(slow), 2)


def test_a_rate_below_one_a_second(tmp_path: Path) -> None:
    with CountingServer() as server:
        fetch_many([server.url(f"f{number}") for number in range(3)], tmp_path, host_rate="60/m")
        came_s = sorted(times(server))
        assert came_s[2] - came_s[0] >= 2 - LATE_S


def test_what_has_no_rate_waits_for_nobody(tmp_path: Path) -> None:
    with CountingServer() as server, DownloadManager() as manager:
        spaced = [
            manager.download(server.url(f"f{number}"), {"save_dir": tmp_path, "host_rate": "1/h"}) for number in "ab"
        ]
        manager.wait(spaced[0], timeout=20)
        plain = manager.download(server.url("plain"), {"save_dir": tmp_path})
        assert manager.wait(plain, timeout=20).size == server.size
        assert len(server.seen) == 2
