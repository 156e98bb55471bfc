"""How a manager handles failures, as seen by the server: waits, fewer lanes, new links, other sources."""

import base64
import json
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import rangefetch
from rangefetch import DownloadManager, DownloadStatus, RetryPolicy, _engine
from rangefetch._engine import File
from rangefetch.disk import state
from rangefetch.errors import BadAnswer, ContentChanged, HttpStatusError, LocalError
from rangefetch.transfer.failure import Fault
from rangefetch.transfer.retry import Kind, Row
from servers.directed import Valve
from servers.misbehaving import MisbehavingServer, content, http_date
from servers.routing import ROUTES, Ask, Route
from servers.wire import Break, Reply
from support.downloads import QUICK, SIZE, SMALL, downloaded, fails, fetch, into, status_of
from support.files import MIB, names
from support.requests import gaps, paths
from support.waiting import AT_ONCE, until


@pytest.fixture
def longest_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make each backoff as long as it may be."""
    monkeypatch.setattr(random, "uniform", lambda _, most: most)


@pytest.mark.parametrize("split", [1, 4])
def test_a_range_that_never_comes_ends_the_download_when_the_others_are_done(
    server: MisbehavingServer, target: Path, split: int
) -> None:
    url = server.url("/cut/x", size="24M", at="13M", after=0)
    error = fails(BadAnswer, url, target, max_tries=4, split=split, min_split_size="1M")
    assert len(error.tried) >= 4
    assert len(server.requests) < 60
    # All other blocks were fetched, and are kept.
    saved = state.load(target.with_name("file.bin.part.json"))
    assert [block for block, found in enumerate(saved.blocks) if found != 2] == [13]


@pytest.mark.usefixtures("longest_waits")
@pytest.mark.parametrize("failure", ["status:code=503", "status:code=500", "cut:headers=0", "reset:headers=0"])
def test_what_is_temporary_is_tried_again_after_longer_and_longer_waits(
    server: MisbehavingServer, target: Path, failure: str
) -> None:
    url = server.url("/script/x", size=SMALL, steps="|".join([failure] * 3))
    result = fetch(url, target, retry_wait=0.1)
    assert target.read_bytes() == content(SMALL)
    assert result.retries == 3
    assert len(server.requests) == 4
    for gap, expected in zip(gaps(server.requests), [0.1, 0.2, 0.4], strict=True):
        assert expected <= gap < AT_ONCE


@pytest.mark.parametrize("luck", [0.0, 0.5, 1.0])
def test_a_host_that_never_answered_is_tried_for_four_seconds_at_least(
    server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch, luck: float
) -> None:
    monkeypatch.setattr(random, "uniform", lambda _, most: luck * most)
    # A tenth of the default times. Not 503, which would show that the host is reachable.
    fails(HttpStatusError, server.url("/status/x", code=500), target, retry_wait=0.05)
    assert len(server.requests) == 5
    assert sum(gaps(server.requests)) >= 0.4


@pytest.mark.parametrize("code", [400, 406, 409, 501])
@pytest.mark.parametrize("split", [1, 8])
def test_what_is_said_once_and_not_of_the_file_ends_nothing(
    server: MisbehavingServer, tmp_path: Path, code: int, split: int
) -> None:
    fetch(server.url("/status/x", code=code, size="9M", skip=1, times=2), tmp_path / "large", split=split)
    assert (tmp_path / "large").read_bytes() == content(9 * MIB)
    # From a host that has sent files: refusals of the first range, and of the request without a range.
    urls = [server.url(f"/status/{n}", code=code, size=SMALL, times=3 if n % 3 == 1 else 0) for n in range(9)]
    with DownloadManager() as manager:
        manager.download_and_wait(server.url("/good/x", size=SMALL), into(tmp_path / "x", 1))
        gids = [manager.download(url, into(tmp_path / "x", n)) for n, url in enumerate(urls, 2)]
        for gid in gids:
            assert manager.wait(gid, timeout=60).path.read_bytes() == content(SMALL)


def test_what_is_not_http_may_be_the_rest_of_an_earlier_response(
    server: MisbehavingServer, other_server: MisbehavingServer, tmp_path: Path
) -> None:
    fails(HttpStatusError, server.url("/status/first", code=404), tmp_path / "first")
    fetch(server.url("/garbage/large", size=SIZE, times=1), tmp_path / "large")
    assert (tmp_path / "large").read_bytes() == content(SIZE)
    urls = [server.url(f"/garbage/{number}", size=SMALL, times=1) for number in range(3)]
    for result in rangefetch.fetch_many(urls, tmp_path, retry_wait=0.001):
        assert result.path.read_bytes() == content(SMALL)
    # A host that has never answered does not speak HTTP.
    fails(BadAnswer, other_server.url("/garbage/x"), tmp_path / "x")
    assert len(other_server.requests) <= 2


def test_the_tries_are_a_budget(server: MisbehavingServer, target: Path) -> None:
    error = fails(HttpStatusError, server.url("/status/x", code=503), target, max_tries=3)
    assert error.status == 503
    assert len(server.requests) == 3
    assert len(error.tried) == 3


def test_progress_renews_the_budget(server: MisbehavingServer, target: Path) -> None:
    result = fetch(server.url("/cut/x", size=SIZE, after="1M"), target, split=1, max_tries=2)
    assert target.read_bytes() == content(SIZE)
    assert result.retries > 2
    assert server.bytes_sent < SIZE + result.retries * MIB // 4


class _Fuse:
    """The pace of a reply that sends 4 KiB, and then waits for ``lit`` before it breaks."""

    bytes_per_second = 20 * 4096  # a piece has the bytes of a twentieth of a second

    def __init__(self) -> None:
        self.lit = threading.Event()
        self._pieces = 0

    def reserve(self, size: int) -> float:
        self._pieces += 1
        if self._pieces > 1:
            self.lit.wait(20)
        return 0.0


def test_connections_that_break_one_after_the_other_are_one_try(
    server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two connections break, and then the two that replaced them: two tries, with two failures each.
    fuses = [_Fuse() for _ in range(4)]

    def reply_of(ask: Ask, reply: Reply) -> Reply:
        if ask.turn < len(fuses):
            reply.pace, reply.broken = fuses[ask.turn], Break("close", 8192)  # type: ignore[assignment]  # a fuse stands in for a pace
        return reply

    def await_requests(count: int) -> None:
        until(lambda: len(server.requests) >= count)

    monkeypatch.setitem(ROUTES, "fuses", Route("fuses", reply_of, {}))
    with DownloadManager() as manager:
        options = into(target, split=2, min_split_size="1M", max_tries=3, retry_wait=0.05)
        gid = manager.download(server.url("/fuses/x", size=SIZE), options)
        for sent, fuse in zip((2, 3, 4, 4), fuses, strict=True):
            await_requests(sent)
            fuse.lit.set()
        assert manager.wait(gid, timeout=30).retries == 4
    assert target.read_bytes() == content(SIZE)


@pytest.mark.usefixtures("longest_waits")
def test_connections_that_break_together_do_not_hold_up_the_one_that_tries_again(
    server: MisbehavingServer, valve: Valve, target: Path, manager: DownloadManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: list[File] = []

    def begun(*args: Any, **kwargs: Any) -> File:
        files.append(File(*args, **kwargs))
        return files[-1]

    monkeypatch.setattr(_engine, "File", begun)
    # A quick first response lets the file start with few connections.
    content(96 * MIB)
    valve.narrow(64 * MIB)
    url = server.url("/valve", size="96M")
    gid = manager.download(url, into(target, split=8, min_split_size="1M", retry_wait=1.0))
    until(lambda: bool(files) and files[0].lanes_busy == 8)
    # Eight are found to be no faster than four, to which the engine goes back. Those that are open stay open.
    valve.narrow(8 * MIB)
    until(lambda: files[0].lanes_aim != 8 or bool(files[0].effort["growth_ended"]))
    valve.open()
    server.stop()
    server.start()
    manager.wait(gid, 30)
    assert target.read_bytes() == content(96 * MIB)


def test_only_the_range_that_failed_is_asked_for_again(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/script/x", size=SIZE, steps="good|cut:after=100K|good|reset:after=200K")
    result = fetch(url, target, split=3)
    assert target.read_bytes() == content(SIZE)
    assert result.retries in (1, 2)
    assert server.bytes_sent < SIZE + 2 * MIB


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_server_is_left_alone_for_as_long_as_it_says(
    server: MisbehavingServer, target: Path, code: int, form: str
) -> None:
    # Dates have whole seconds, so this one is between one and two seconds away.
    date_s = int(time.time()) + 2
    date_is_there_s = time.monotonic() + date_s - time.time()
    retry_after = "1" if form == "seconds" else http_date(date_s)
    fetch(server.url("/status/x", size=SMALL, code=code, retry_after=retry_after, times=1), target)
    assert target.read_bytes() == content(SMALL)
    assert len(server.requests) == 2
    first, second = (request.time for request in server.requests)
    allowed_s = first + 1 if form == "seconds" else date_is_there_s
    assert allowed_s - 0.01 <= second < allowed_s + AT_ONCE


def test_a_date_that_has_passed_and_words_without_meaning_are_no_waits(server: MisbehavingServer, target: Path) -> None:
    for number, retry_after in enumerate([http_date(0), "soon", "-5", "0"]):
        url = server.url("/status/x", size=SMALL, code=429, retry_after=retry_after, times=1)
        fetch(url, target.with_name(str(number)))
    assert all(gap < AT_ONCE for gap in gaps(server.requests))


def test_what_a_server_may_ask_for_is_bounded(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/status/x", size=SMALL, code=503, retry_after=3600, times=1)
    with DownloadManager(retry_policy=RetryPolicy(longest_retry_after=0.3)) as manager:
        assert manager.download_and_wait(url, into(target)).retries == 1
    assert 0.3 <= gaps(server.requests)[0] < AT_ONCE


def test_a_host_that_asks_for_rest_gets_it_from_all_downloads(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path, manager: DownloadManager
) -> None:
    limited = manager.download(server.url("/status/x", size=SMALL, code=429, retry_after=3, times=1), into(target, 1))
    until(lambda: server.requests and server.requests[0].finished)
    time.sleep(0.1)
    same_host = manager.download(server.url("/good/x", size=SMALL), into(target, 2))
    other_host = manager.download(other_server.url("/good/x", size=SMALL), into(target, 3))
    for gid in (limited, same_host, other_host):
        assert manager.wait(gid, timeout=30).size == SMALL
    refused, *later = server.requests
    assert all(request.time - refused.time >= 2.99 for request in later)
    assert other_server.requests[0].time < min(request.time for request in later)


def test_a_download_at_work_leaves_a_limited_host_alone_too(
    server: MisbehavingServer, target: Path, manager: DownloadManager
) -> None:
    # Each range takes less than a second, so there would be many requests.
    at_work = manager.download(server.url("/short-range/x", size=SIZE, most="64K", rate="512K"), into(target, 1))
    until(lambda: downloaded(manager, at_work) > 0)
    manager.download(server.url("/status/x", size=SMALL, code=429, retry_after=30, times=1), into(target, 2))
    until(lambda: any(request.status == 429 for request in server.requests))
    time.sleep(0.3)
    before = len(server.requests)
    time.sleep(1.0)
    assert len(server.requests) == before
    manager.cancel_all(remove_files=True)


@pytest.mark.parametrize("code", [403, 429, 503])
def test_too_many_lanes_become_fewer_and_burn_no_try(server: MisbehavingServer, target: Path, code: int) -> None:
    url = server.url("/limited-connections/x", size="16M", limit=3, code=code, rate="4M")
    trace = target.with_name("trace")
    result = fetch(url, target, split=8, max_tries=1, min_split_size="1M", trace=trace)
    assert target.read_bytes() == content("16M")
    refused = [each for each in map(json.loads, trace.read_text().splitlines()) if each["status"] == code]
    assert 1 <= len(refused) <= 16
    # If a request that was to help another one is refused, that is no failure.
    assert result.retries == sum(not each["hedge"] for each in refused)


@pytest.mark.parametrize("code", [429, 503])
def test_a_lane_that_is_refused_does_not_ask_before_the_server_says_while_the_others_go_on(
    server: MisbehavingServer, target: Path, manager: DownloadManager, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr("rangefetch.native.recovery._MORE_LANES_AFTER_S", 0.1)
    url = server.url("/limited-connections/x", size="24M", limit=3, code=code, retry_after=2, rate="2M")
    gid = manager.download(url, into(target, split=8, min_split_size="1M"))

    def refused() -> list[float]:
        return [request.time for request in server.requests if request.status == code]

    until(refused)
    time.sleep(0.2)  # the manager learns of the refusal a little after the server sends it
    begins = manager.download(server.url("/good/y", size=SMALL), into(target, "later"))
    time.sleep(0.3)
    # Changed options are no reason to ask again either.
    manager.change_options(gid, split=9)
    manager.wait(gid, timeout=30)
    assert target.read_bytes() == content("24M")
    first = refused()[0]
    # Requests that were on their way together are refused together. No later one is refused before the time is up.
    assert [at - first for at in refused() if 0.3 < at - first < 1.99] == []
    worked = [request for request in server.requests if request.status == 206 and "limited" in request.path]
    assert len([request for request in worked if 0.3 < request.time - first < 1.99]) > 1
    # After that, a request finds out whether the server allows more connections by now.
    assert any(at - first >= 1.99 for at in refused())
    manager.wait(begins, timeout=30)
    (beginning,) = [request for request in server.requests if "good" in request.path]
    assert beginning.time - first >= 1.99


def test_a_mirror_that_refuses_rests_for_as_long_as_it_says(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    url = server.url("/limited-connections/x", size="16M", limit=1, code=503, retry_after=60, rate="1M")
    mirror = other_server.url("/slow/x", size="16M", rate="1M")
    fetch(url, target, mirrors=[mirror], split=8, min_split_size="1M")
    assert target.read_bytes() == content("16M")
    # The URL's only lane works until the mirror has been compared and has joined. From then on the server gets no
    # request that it would refuse.
    refused = [request.time for request in server.requests if request.status == 503]
    joined = [request.time for request in other_server.requests][3]
    assert refused
    assert all(time_s - joined < 0.5 for time_s in refused)


@pytest.mark.parametrize("expired", [401, 403, 410])
def test_a_stale_link_is_resolved_again_from_the_original_url(
    server: MisbehavingServer, target: Path, expired: int
) -> None:
    url = server.url("/redirect-signed/x", size="40M", uses=2, expired=expired)
    fetch(url, target, split=2)
    assert target.read_bytes() == content("40M")
    assert paths(server).count("redirect-signed") > 1
    assert any(request.status == expired for request in server.requests)


def test_a_link_that_is_stale_at_once_fails_in_the_end(server: MisbehavingServer, target: Path) -> None:
    error = fails(HttpStatusError, server.url("/redirect-signed/x", size=SIZE, uses=0), target)
    assert error.status == 403
    assert len(server.requests) < 20


@pytest.mark.parametrize("code", [401, 403, 410])
@pytest.mark.parametrize("split", [1, 4])
def test_the_callback_gives_a_new_url_and_the_download_goes_on(
    server: MisbehavingServer, target: Path, code: int, split: int
) -> None:
    url, new = server.url("/status/x", size=SIZE, code=code, skip=1), server.url("/good/renewed", size=SIZE)
    asked: list[str] = []

    def refresh(old: str) -> str:
        asked.append(old)
        return new

    fetch(url, target, refresh_url=refresh, split=split, min_split_size="1M")
    assert target.read_bytes() == content(SIZE)
    assert asked[0] == url
    # A lane whose request was on its way when the link was renewed may ask for another link.
    assert len(asked) <= 3
    # No byte is fetched twice, except for three samples and what a hedge of the last range may cost.
    assert server.bytes_sent < SIZE + 3 * (64 << 10) + (10_000 if split == 1 else 1 << 20)


def test_a_link_may_expire_more_than_once(server: MisbehavingServer, target: Path) -> None:
    # Each new link first gets requests for three samples.
    expiring: dict[str, Any] = {"size": SIZE, "then": "status:code=403"}
    steps = ["cut:after=1M", "good|good|good|cut:after=1M", "good|good|good|cut:after=1M"]
    urls = [server.url("/script/x", id=number, steps=each, **expiring) for number, each in enumerate(steps)]
    urls.append(server.url("/good/x", size=SIZE))
    links = iter(urls[1:])
    fetch(urls[0], target, refresh_url=lambda _: next(links), split=1)
    assert target.read_bytes() == content(SIZE)
    assert {request.path for request in server.requests} == {url.partition(str(server.port))[2] for url in urls}


def test_a_new_link_may_come_with_an_account(server: MisbehavingServer, target: Path) -> None:
    value = "Basic " + base64.b64encode(b"user:word").decode()
    new = server.url("/needs/x", value=value, size=SIZE).replace("://", "://user:word@")
    fetch(server.url("/status/x", size=SIZE, code=401, skip=1), target, refresh_url=lambda _: new, split=1)
    assert target.read_bytes() == content(SIZE)


def test_a_new_url_of_another_file_never_makes_a_mixture(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/status/x", size=SIZE, code=403, skip=1)
    other = server.url("/good/other", size=SIZE, seed=1)
    try:
        fetch(url, target, refresh_url=lambda _: other, split=1)
    except (ContentChanged, HttpStatusError):
        assert "file.bin" not in names(target.parent)
    else:
        assert target.read_bytes() == content(SIZE, 1)


@pytest.mark.parametrize("split", [1, 4])
def test_a_new_url_of_another_file_with_equal_validators_never_makes_a_mixture(
    server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch, split: int
) -> None:
    def alike(ask: Ask, reply: Reply) -> Reply:
        reply.body = memoryview(content(ask.common.size, 1))[reply.start : reply.start + len(reply.body)]
        return reply

    monkeypatch.setitem(ROUTES, "alike", Route("alike", alike, {}))
    url = server.url("/status/x", size=SIZE, code=403, skip=1)
    result = fetch(url, target, refresh_url=lambda _: server.url("/alike/x", size=SIZE), split=split)
    assert target.read_bytes() == content(SIZE, 1)
    assert result.size == SIZE


@pytest.mark.parametrize("new", ["", "ftp://127.0.0.1/x", None, ValueError("no more links")])
def test_a_callback_that_fails_leaves_the_servers_word(server: MisbehavingServer, target: Path, new: object) -> None:
    def refresh(_: str) -> str:
        if isinstance(new, Exception):
            raise type(new)(*new.args)  # a new one each time, because its traceback keeps objects alive
        return new  # type: ignore[return-value]  # wrong on purpose

    error = fails(HttpStatusError, server.url("/status/x", code=403), target, refresh_url=refresh)
    assert error.status == 403


@pytest.mark.parametrize("code", [401, 403, 404, 405, 410, 451])
def test_what_is_permanent_moves_to_the_next_source_at_once(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path, code: int
) -> None:
    mirror = other_server.url("/good/x", size=SIZE)
    started = time.monotonic()
    result = fetch(server.url("/status/x", code=code, size=SIZE), target, mirrors=[mirror], retry_wait=60.0)
    assert time.monotonic() - started < AT_ONCE
    assert target.read_bytes() == content(SIZE)
    assert result.sources == (mirror,)
    assert len(server.requests) == (2 if code in (403, 404, 405) else 1)  # the second one without a range


@pytest.mark.usefixtures("longest_waits")
def test_a_url_that_fails_once_is_asked_again_before_a_mirror_stands_in(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    mirror = other_server.url("/good/x", size=SMALL, seed=1)
    url = server.url("/status/x", size=SMALL, code=503, times=1)
    result = fetch(url, target, mirrors=[mirror], retry_wait=0.6)
    assert target.read_bytes() == content(SMALL)
    assert result.retries == 1
    assert other_server.requests == []
    assert 0.6 <= gaps(server.requests)[0] < AT_ONCE


def test_where_no_source_is_left_the_error_says_what_was_tried(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    mirror = other_server.url("/status/x", code=410)
    error = fails(HttpStatusError, server.url("/status/x", code=404), target, mirrors=[mirror])
    assert len(server.requests) == 2  # the second one without a range
    assert len(other_server.requests) == 1
    assert {word for line in error.tried for word in line.split() if word.isdigit()} == {"404", "410"}


def test_content_that_changes_is_begun_again_once(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/script/x", size=SIZE, steps="good", then="good:seed=1")
    fetch(url, target, split=1)
    assert target.read_bytes() == content(SIZE, 1)


def test_content_that_changes_again_and_again_is_fetched_as_one_response(
    server: MisbehavingServer, target: Path
) -> None:
    steps = "|".join(f"good:seed={number}" for number in range(20))
    result = fetch(server.url("/script/x", size=SIZE, steps=steps), target, split=1)
    assert target.read_bytes() in [content(SIZE, number) for number in range(20)]
    assert [request.range for request in server.requests].count(None) == 1
    assert result.identity == "one response"


@pytest.mark.parametrize("route", ["no-ranges", "range-then-200", "wrong-start", "no-content-range"])
def test_where_ranges_do_not_work_one_stream_does(server: MisbehavingServer, target: Path, route: str) -> None:
    if route in ("wrong-start", "no-content-range"):
        url = server.url(f"/{route}/x", size=SIZE, times=4)
    else:
        url = server.url(f"/{route}/x", size=SIZE)
    fetch(url, target, split=4)
    assert target.read_bytes() == content(SIZE)
    assert len([request for request in server.requests if request.status == 200]) < 12


def test_the_table_can_be_edited(server: MisbehavingServer, target: Path) -> None:
    row = Row(Kind.TEMPORARY, "this server knows its files only after a while", Fault.STATUS, frozenset({404}))
    with DownloadManager(retry_policy=RetryPolicy().first(row)) as manager:
        url = server.url("/status/x", code=404, size=SMALL, times=2)
        assert manager.download_and_wait(url, into(target)).retries == 2


@pytest.fixture(params=["temporary", "limited", "late"])
def waiting_for_its_server(
    request: pytest.FixtureRequest, server: MisbehavingServer, target: Path, manager: DownloadManager
) -> str:
    """A download that has to wait a minute."""
    url = {
        "temporary": server.url("/status/x", code=500),
        "limited": server.url("/status/x", code=429, retry_after=60),
        "late": server.url("/slow-headers/x", seconds=60),
    }[request.param]
    random.seed(5)
    return manager.download(url, QUICK | into(target, retry_wait=60.0, total_timeout=0.0))


@pytest.mark.parametrize("verb", ["pause", "cancel", "pause_all", "stop"])
def test_a_wait_ends_at_once_when_it_is_told_to(
    server: MisbehavingServer, waiting_for_its_server: str, manager: DownloadManager, verb: str
) -> None:
    until(lambda: server.requests)
    time.sleep(0.1)
    gid = waiting_for_its_server
    assert status_of(manager, gid) is DownloadStatus.ACTIVE
    started = time.monotonic()
    getattr(manager, verb)(*([gid] if verb in ("pause", "cancel") else []))
    assert time.monotonic() - started < AT_ONCE
    assert status_of(manager, gid) in (DownloadStatus.PAUSED, DownloadStatus.REMOVED)


def test_failures_at_the_same_moment_are_all_told(server: MisbehavingServer, target: Path) -> None:
    for _ in range(5):
        with DownloadManager() as manager:
            gids = [manager.download(server.url("/status/x", code=404), into(target, number)) for number in range(12)]
            for gid in gids:
                with pytest.raises(HttpStatusError):
                    manager.wait(gid, timeout=30)


def test_the_kinds_of_errors_are_of_the_tree(server: MisbehavingServer, target: Path) -> None:
    assert not issubclass(HttpStatusError, LocalError)
    fails(BadAnswer, server.url("/garbage/x"), target, max_tries=1)


@pytest.mark.parametrize("size", ["171K", "8M"])
@pytest.mark.parametrize("split", [1, 8])
@pytest.mark.parametrize("tries", [3, 5])
def test_a_server_that_sends_a_few_bytes_a_connection_is_not_asked_for_ever(
    server: MisbehavingServer, target: Path, size: str, split: int, tries: int
) -> None:
    url = server.url("/cut/x", size=size, after=100)
    error = fails(BadAnswer, url, target, split=split, max_tries=tries, min_split_size="1M")
    assert error.tried
    assert len(server.requests) <= tries * split + split


def test_a_stream_from_a_server_that_sends_a_few_bytes_a_connection_ends(server: MisbehavingServer) -> None:
    url = server.url("/cut/x", size="1M", after=100)
    with rangefetch.stream(url, max_tries=3, retry_wait=0.01) as file, pytest.raises(BadAnswer):
        file.read()
    assert len(server.requests) <= 12


def test_small_files_from_a_server_that_sends_a_few_bytes_a_connection_end(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    urls = [server.url(f"/cut/{number}", size="100K", after=100, id=number) for number in range(4)]
    errors = rangefetch.fetch_many(urls, tmp_path, on_error="return", max_tries=3, retry_wait=0.01)
    assert [type(error) for error in errors] == [BadAnswer] * 4
    assert len(server.requests) <= 4 * 8


def test_without_a_limit_of_tries_the_waits_grow_whatever_trickles_in(
    server: MisbehavingServer, target: Path, manager: DownloadManager
) -> None:
    gid = manager.download(server.url("/cut/x", size="8M", after=100), into(target, max_tries=0, retry_wait=0.05))
    until(lambda: len(server.requests) >= 4)
    time.sleep(3)
    assert len(server.requests) < 40
    manager.cancel(gid)
