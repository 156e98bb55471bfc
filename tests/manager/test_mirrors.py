"""A mirror is used once samples of its bytes have matched the file; a mirror with another file is never used."""

import hashlib
import logging
import threading
from pathlib import Path
from typing import Any

import pytest

import rangefetch
from rangefetch import DownloadManager
from rangefetch.errors import BadAnswer, DownloadError, HttpStatusError
from rangefetch.transfer.samples import SAMPLE_BYTES
from servers.content import etag
from servers.directed import Valve
from servers.misbehaving import MisbehavingServer, content
from servers.routing import ROUTES, Ask, Route
from servers.wire import Pace, Reply
from support.downloads import fetch, into
from support.files import MIB, names, saved_bytes
from support.waiting import until

SIZE = 12 * MIB + 12_345
LARGE = 24 * MIB + 12_345
"""Too much to come through the valve before a mirror has joined."""
LANES: dict[str, Any] = {"max_connection_per_server": 2, "min_split_size": "1M"}


def _alike(ask: Ask, reply: Reply) -> Reply:
    """A file with the same validators and the same first MiB as the good one, and other bytes after that."""
    other = bytearray(content(ask.common.size))
    other[MIB:] = content(ask.common.size, 1)[MIB:]
    end = reply.start + len(reply.body)
    reply.body = memoryview(bytes(other[reply.start : end]))
    return reply


@pytest.fixture(autouse=True)
def _alike_route(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROUTES, "alike", Route("alike", _alike, {}))


def _warned(caplog: pytest.LogCaptureFixture, url: str) -> bool:
    return any(url in record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING)


@pytest.mark.parametrize("route", ["good", "alike"])
@pytest.mark.parametrize("checksum", [False, True])
def test_a_mirror_with_another_file_of_that_size_is_left_out_and_named(
    server: MisbehavingServer,
    other_server: MisbehavingServer,
    target: Path,
    caplog: pytest.LogCaptureFixture,
    route: str,
    checksum: bool,
) -> None:
    parameters = {"seed": 1} if route == "good" else {}
    mirror = other_server.url(f"/{route}/x", size=SIZE, rate="8M", **parameters)
    digest = f"sha-256={hashlib.sha256(content(SIZE)).hexdigest()}" if checksum else ""
    good = server.url("/good/x", size=SIZE, rate="4M")
    result = fetch(good, target, mirrors=[mirror], checksum=digest, **LANES)
    assert target.read_bytes() == content(SIZE)
    assert result.sources == (good,)
    assert _warned(caplog, mirror)
    other_server.wait_idle()
    assert other_server.bytes_sent < MIB
    assert len(other_server.requests) <= 3
    assert names(target.parent) == ["file.bin"]


def test_a_good_mirror_beside_a_bad_one_is_used(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    # The URL is so slow that the mirrors are compared long before it has sent the whole file.
    bad = other_server.url("/good/x", size=SIZE, seed=1)
    good = other_server.url("/good/y", size=SIZE, rate="4M")
    result = fetch(server.url("/good/x", size=SIZE, rate="512K"), target, mirrors=[bad, good], **LANES)
    assert target.read_bytes() == content(SIZE)
    assert set(result.sources) == {server.url("/good/x", size=SIZE, rate="512K"), good}


def test_a_mirror_that_is_overloaded_once_is_used(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    mirror = other_server.url("/status/x", size=SIZE, code=503, times=1, rate="4M")
    result = fetch(server.url("/good/x", size=SIZE, rate="512K"), target, mirrors=[mirror], **LANES)
    assert target.read_bytes() == content(SIZE)
    assert mirror in result.sources


@pytest.mark.parametrize("route", ["no-ranges", "stall", "status"])
def test_a_mirror_that_cannot_be_compared_holds_nothing_up(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path, route: str
) -> None:
    parameters = {"after": 1000} if route == "stall" else {}
    mirror = other_server.url(f"/{route}/x", size=SIZE, **parameters)
    # With these timeouts, waiting for the mirror would take longer than the download may.
    waits: dict[str, Any] = {"connect_timeout": 300, "read_timeout": 300, "total_timeout": 60}
    result = fetch(server.url("/good/x", size=SIZE, rate="4M"), target, mirrors=[mirror], **LANES, **waits)
    assert target.read_bytes() == content(SIZE)
    assert len(result.sources) == 1


def test_where_the_url_is_gone_a_mirror_stands_in_and_the_others_are_held_to_it(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # The mirrors are on two hosts, because the first one uses all connections to its host.
    first = other_server.url("/good/x", size=SIZE, rate="4M")
    second = server.url("/good/y", size=SIZE, seed=1, rate="4M")
    gone = server.url("/status/x", code=404)
    result = fetch(gone, target, mirrors=[first, second], **LANES)
    assert target.read_bytes() == content(SIZE)
    assert result.sources == (first,)
    assert _warned(caplog, second)


def test_where_the_url_goes_midway_a_mirror_takes_over_if_it_has_the_bytes(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    url = server.url("/script/x", size=SIZE, steps="slow:rate=8M", then="status:code=404")
    bad, good = (other_server.url(f"/good/{seed}", size=SIZE, seed=seed) for seed in (1, 0))
    result = fetch(url, target, mirrors=[bad, good], max_connection_per_server=1)
    assert target.read_bytes() == content(SIZE)
    assert set(result.sources) == {url, good}


def test_where_the_url_goes_midway_and_no_mirror_has_its_bytes_that_is_the_urls_error(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    url = server.url("/script/x", size=SIZE, steps="slow:rate=8M", then="status:code=404")
    bad = other_server.url("/good/x", size=SIZE, seed=1)
    with pytest.raises(HttpStatusError) as caught:
        fetch(url, target, mirrors=[bad], max_connection_per_server=1)
    assert caught.value.status == 404
    assert saved_bytes(target) >= MIB


def test_of_a_file_of_one_block_what_is_there_is_compared(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    size = 900_000
    for seed in (1, 0):
        url = server.url("/script/x", size=size, steps="cut:after=300K", then="status:code=404", id=str(seed))
        mirror = other_server.url(f"/good/{seed}", size=size, seed=seed)
        if seed:
            with pytest.raises(DownloadError):
                fetch(url, target, mirrors=[mirror], max_tries=2)
        else:
            fetch(url, target, mirrors=[mirror], max_tries=2)
            assert target.read_bytes() == content(size)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_mirror_is_compared_with_what_an_earlier_run_has_left(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path, seed: int
) -> None:
    url = server.url("/script/x", size=SIZE, steps="slow:rate=4M", then="status:code=503")
    mirror = other_server.url("/good/x", size=SIZE, seed=seed)
    with DownloadManager() as manager:
        gid = manager.download(url, into(target, max_connection_per_server=1))
        until(lambda: manager.get_download_progress(gid).downloaded > 3 * MIB)
    assert saved_bytes(target) > 2 * MIB
    if seed:
        with pytest.raises(DownloadError):
            fetch(url, target, mirrors=[mirror], max_tries=3)
        assert saved_bytes(target) > 2 * MIB
    else:
        result = fetch(url, target, mirrors=[mirror], max_tries=3)
        assert target.read_bytes() == content(SIZE)
        assert result.resumed > 2 * MIB


@pytest.mark.parametrize("seed", [0, 1])
def test_a_mirror_that_is_added_on_the_way_is_compared_first(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path, manager: DownloadManager, seed: int
) -> None:
    mirror = other_server.url("/good/x", size=SIZE, seed=seed, rate="4M")
    gid = manager.download(server.url("/slow/x", size=SIZE, rate="3M"), into(target, **LANES))
    until(lambda: manager.get_download_progress(gid).downloaded > MIB)
    manager.change_options(gid, mirrors=[mirror])
    result = manager.wait(gid, timeout=30)
    assert target.read_bytes() == content(SIZE)
    assert (mirror in result.sources) == (seed == 0)


def test_a_stream_is_never_fed_by_a_mirror_with_another_file(
    server: MisbehavingServer, other_server: MisbehavingServer
) -> None:
    bad, good = (other_server.url(f"/good/{seed}", size=SIZE, seed=seed, rate="4M") for seed in (1, 0))
    with rangefetch.stream(server.url("/slow/x", size=SIZE, rate="3M"), mirrors=[bad, good], **LANES) as remote:
        assert remote.read() == content(SIZE)
    other_server.wait_idle()
    sent = {url: sum(r.bytes_sent for r in other_server.requests if r.path in url) for url in (bad, good)}
    assert sent[bad] < MIB < sent[good]


@pytest.mark.parametrize("options", [{"split": 1}, {"max_connection_per_server": 1}, {"max_download_limit": "6M"}])
def test_comparing_keeps_to_the_options(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path, options: dict[str, object]
) -> None:
    mirrors = [other_server.url(f"/good/{seed}", size=SIZE, seed=seed, rate="6M") for seed in (1, 2)]
    most = 0
    with DownloadManager() as manager:
        gid = manager.download(server.url("/slow/x", size=SIZE, rate="6M"), into(target, mirrors=mirrors, **options))
        while manager.get_download_progress(gid).status in ("waiting", "active"):
            most = max(most, manager.get_download_progress(gid).connections)
        result = manager.wait(gid, timeout=30)
    assert target.read_bytes() == content(SIZE)
    assert len(result.sources) == 1
    if options.get("split") == 1:
        assert most <= 1
        assert other_server.requests == []
    if "max_download_limit" in options:
        assert result.seconds > (SIZE / MIB - 2) / 6


@pytest.mark.parametrize("verb", ["pause", "cancel", "stop"])
def test_a_comparison_under_way_holds_no_end_up(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path, verb: str
) -> None:
    mirror = other_server.url("/stall/x", size=SIZE, after=1000)
    with DownloadManager() as manager:
        gid = manager.download(server.url("/slow/x", size=SIZE, rate="2M"), into(target, mirrors=[mirror]))
        until(lambda: other_server.requests)
        if verb == "pause":
            manager.pause(gid)
            assert manager.get_download_progress(gid).status == "paused"
        elif verb == "cancel":
            manager.cancel(gid, remove_files=True)
            assert names(target.parent) == []
    if verb != "cancel":
        assert saved_bytes(target) > 0


# ---- A mirror that is good when it is compared, and bad afterwards ---------------------------------------------------


@pytest.fixture
def turning(monkeypatch: pytest.MonkeyPatch, valve: Valve) -> None:
    """The route ``/turns``, for a mirror that turns bad. Small ranges, as comparisons request them, come from the file.
    A large range comes from another file, and its end opens the valve that slows down the URL.

    ``etags`` are the ETags before and after the first large range; ``then`` is what comparisons get after it.
    """
    turned = threading.Event()

    def turns(ask: Ask, reply: Reply, *, etags: str = '"a" "a"', then: str = "good") -> Reply:
        tags = etags.split(" ")
        if len(reply.body) > SAMPLE_BYTES:
            turned.set()
            reply = ask.good(seed=1)
            reply.pace, reply.on_end = Pace(8 * MIB), valve.open
        elif turned.is_set() and then == "refuses":
            reply = Reply(403)
        reply.headers["ETag"] = tags[turned.is_set()]
        if not reply.headers["ETag"]:
            del reply.headers["ETag"]
        reply.headers.pop("Last-Modified", None)
        return reply

    monkeypatch.setitem(ROUTES, "turns", Route("turns", turns, {}))


@pytest.mark.usefixtures("turning")
@pytest.mark.parametrize(
    ("etags", "then"),
    [('"a" "a"', "good"), ('"a" "a"', "refuses"), ('"a" "b"', "good"), (" ", "good"), (" ", "refuses")],
)
def test_what_a_mirror_has_sent_is_compared_with_the_url(
    server: MisbehavingServer,
    other_server: MisbehavingServer,
    target: Path,
    caplog: pytest.LogCaptureFixture,
    etags: str,
    then: str,
) -> None:
    mirror = other_server.url("/turns/x", size=LARGE, etags=etags, then=then)
    result = fetch(server.url("/valve/x", size=LARGE), target, mirrors=[mirror], **LANES)
    assert target.read_bytes() == content(LARGE)
    assert _warned(caplog, mirror)
    assert mirror not in result.sources
    assert any(request.bytes_sent > SAMPLE_BYTES for request in other_server.requests)


@pytest.mark.usefixtures("turning")
def test_a_resume_compares_what_a_mirror_may_have_sent(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    url = server.url("/slow/x", size=LARGE, rate="1M")
    with DownloadManager() as manager:
        mirror = other_server.url("/turns/x", size=LARGE)
        gid = manager.download(url, into(target, mirrors=[mirror], **LANES))
        until(lambda: manager.get_download_progress(gid).downloaded > 8 * MIB)
    assert saved_bytes(target) > 7 * MIB
    server.clear()
    result = fetch(url, target)
    assert target.read_bytes() == content(LARGE)
    assert result.sources == (url,)


@pytest.mark.usefixtures("turning")
def test_a_stream_takes_from_a_mirror_only_the_version_that_was_compared(
    server: MisbehavingServer, other_server: MisbehavingServer
) -> None:
    url = server.url("/valve/x", size=LARGE)
    mirror = other_server.url("/turns/x", size=LARGE, etags=f'{etag(LARGE)} "b"')
    with rangefetch.stream(url, mirrors=[mirror], **LANES) as remote:
        assert remote.read() == content(LARGE)


@pytest.mark.parametrize("kind", ["strong", "weak", "none"])
def test_where_the_url_is_gone_in_the_end_the_result_says_that_mirrors_have_sent_some_of_it(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path, kind: str
) -> None:
    url = server.url("/script/x", size=LARGE, steps="slow:rate=8M", then="status:code=404", etag=kind)
    mirror = other_server.url("/good/x", size=LARGE)
    result = fetch(url, target, mirrors=[mirror], max_connection_per_server=1)
    assert target.read_bytes() == content(LARGE)
    assert result.identity == "mirrors"


@pytest.mark.parametrize("framing", ["close", "length", "chunked"])
def test_a_url_that_only_sends_too_much_is_not_believed_because_a_mirror_has_helped(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path, framing: str
) -> None:
    url = server.url("/script/x", size=SIZE, steps="good", then=f"overflow:framing={framing}", etag="none")
    mirror = other_server.url("/good/x", size=SIZE)
    with pytest.raises(BadAnswer, match="more bytes than it announced"):
        # Its tries last until the mirror has sent the rest.
        fetch(url, target, mirrors=[mirror], max_connection_per_server=1, max_tries=100)
    assert saved_bytes(target) == SIZE
    # Where its tries are used up, mirrors alone decide.
    result = fetch(url, target.with_name("other"), mirrors=[mirror], max_connection_per_server=1, max_tries=1)
    assert result.path.read_bytes() == content(SIZE)
    assert result.identity == "mirrors"


def test_an_empty_file_at_a_mirror_says_nothing_of_the_urls_ranges(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    server.stop()
    with DownloadManager() as manager:
        gid = manager.download(
            server.url("/good/x", size=SIZE),
            into(target, mirrors=[other_server.url("/range-of-nothing/x", code=204, delay=2)], retry_wait=0.5, **LANES),
        )
        until(lambda: other_server.requests)
        server.start()
        manager.wait(gid, timeout=60)
    assert target.read_bytes() == content(SIZE)
    assert sum(request.status == 206 for request in server.requests) > 1
