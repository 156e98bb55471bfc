"""If ranges fail but a plain request works, the file is fetched as one stream."""

from pathlib import Path
from typing import Any

import pytest

import rangefetch
from rangefetch import DownloadManager
from rangefetch.disk import state
from rangefetch.errors import BadAnswer, ContentChanged, DownloadError, HttpStatusError
from rangefetch.transfer.sink import Sink
from servers.misbehaving import MisbehavingServer, content
from servers.tls import Certificates
from support.downloads import QUICK, SIZE, SMALL, fails, fetch, interrupt, into
from support.files import MIB, names
from support.requests import gaps

REFUSALS = (202, 400, 403, 404, 405, 406, 416, 500, 501, 503, 0)
LANES: list[dict[str, Any]] = [{"split": 1}, {"split": 8, "min_split_size": "1M"}]


def plain(server: MisbehavingServer) -> int:
    """How many requests had no range."""
    return sum("range" not in request.headers for request in server.requests)


@pytest.mark.parametrize("options", LANES, ids=["one lane", "eight"])
@pytest.mark.parametrize("size", [SMALL, SIZE])
@pytest.mark.parametrize("code", REFUSALS)
def test_a_file_whose_server_refuses_ranges_comes_as_one_stream(
    server: MisbehavingServer, target: Path, code: int, size: int, options: dict[str, Any]
) -> None:
    fetch(server.url("/range-refused/x", size=size, code=code), target, **options)
    assert target.read_bytes() == content(size)
    assert names(target.parent) == ["file.bin"]


@pytest.mark.parametrize("code", REFUSALS)
def test_small_files_whose_server_refuses_ranges_come(server: MisbehavingServer, tmp_path: Path, code: int) -> None:
    urls = [server.url(f"/range-refused/{number}", size=SMALL, seed=number, code=code) for number in range(5)]
    rangefetch.fetch_many(urls, tmp_path, **QUICK)
    assert [(tmp_path / str(number)).read_bytes() == content(SMALL, number) for number in range(5)] == [True] * 5


@pytest.mark.parametrize("code", REFUSALS)
def test_a_stream_whose_server_refuses_ranges_comes(server: MisbehavingServer, code: int) -> None:
    with rangefetch.stream(server.url("/range-refused/x", size=SIZE, code=code), **QUICK) as stream:
        assert stream.read() == content(SIZE)


@pytest.mark.parametrize("code", [400, 503, 0])
def test_the_same_holds_over_https(
    tls_server: MisbehavingServer, certificates: Certificates, target: Path, code: int
) -> None:
    fetch(tls_server.url("/range-refused/x", size=SIZE, code=code), target, ca_file=certificates.ca)
    assert target.read_bytes() == content(SIZE)


@pytest.mark.parametrize("code", [400, 416, 500])
def test_a_server_that_refuses_ranges_longer_than_the_file_is_asked_for_small_ones_plainly(
    server: MisbehavingServer, tmp_path: Path, code: int
) -> None:
    # Even when it is known to send ranges of large files.
    fetch(server.url("/range-refused/large", size=SIZE, code=code, too_long=1), tmp_path / "large")
    urls = [server.url(f"/range-refused/{number}", size=SMALL, code=code, too_long=1) for number in range(3)]
    rangefetch.fetch_many(urls, tmp_path, **QUICK)
    assert (tmp_path / "large").read_bytes() == content(SIZE)
    assert {(tmp_path / str(number)).read_bytes() for number in range(3)} == {content(SMALL)}
    assert plain(server) == 3


@pytest.mark.parametrize("code", [429, 503])
def test_the_rest_period_comes_before_the_request_without_a_range(
    server: MisbehavingServer, target: Path, code: int
) -> None:
    fetch(server.url("/range-refused/x", size=SMALL, code=code, retry_after=1), target)
    assert target.read_bytes() == content(SMALL)
    assert plain(server) == 1
    assert gaps(server.requests)[0] >= 0.99


def test_a_server_that_was_busy_for_a_moment_still_gets_ranges(server: MisbehavingServer, target: Path) -> None:
    fetch(server.url("/status/x", size=4 * SIZE, code=503, times=1), target, split=8, min_split_size="1M")
    assert target.read_bytes() == content(4 * SIZE)
    assert plain(server) == 1
    assert sum(request.status == 206 for request in server.requests) > 4


@pytest.mark.parametrize("options", LANES, ids=["one lane", "eight"])
@pytest.mark.parametrize("code", [400, 403, 404, 416, 429, 500, 503, 0])
def test_a_server_that_refuses_ranges_beyond_some_offset_sends_one_stream(
    server: MisbehavingServer, target: Path, code: int, options: dict[str, Any]
) -> None:
    fetch(server.url("/range-refused/x", size=SIZE, code=code, beyond="6M"), target, **options)
    assert target.read_bytes() == content(SIZE)
    # It is not always the last request: ranges that were under way may be answered after it.
    assert plain(server) >= 1


@pytest.mark.parametrize("code", [400, 403, 404, 503, 0])
def test_a_resume_that_is_refused_is_one_stream(server: MisbehavingServer, target: Path, code: int) -> None:
    url = server.url("/script/x", size=SIZE, steps="slow:rate=1M", then=f"range-refused:code={code}")
    interrupt(url, target, MIB, split=1)
    fetch(url, target)
    assert target.read_bytes() == content(SIZE)
    assert names(target.parent) == ["file.bin"]


@pytest.mark.parametrize("code", [400, 404, 503, 0])
def test_work_is_kept_where_a_plain_request_is_refused_too(server: MisbehavingServer, target: Path, code: int) -> None:
    then = f"status:code={code}" if code else "cut:headers=0"
    url = server.url("/script/x", size=SIZE, steps="slow:rate=1M", then=then)
    kept = interrupt(url, target, MIB, split=1)
    with pytest.raises(DownloadError):
        fetch(url, target)
    assert plain(server) <= 1
    saved = state.load(target.with_name("file.bin.part.json"))
    assert saved.written_bytes == kept > 0


def test_ranges_that_fail_at_one_place_in_both_ways_cost_only_that(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/status/x", size="24M", at="13M", code=404)
    fails(HttpStatusError, url, target, split=4, min_split_size="1M")
    saved = state.load(target.with_name("file.bin.part.json"))
    assert [block for block, found in enumerate(saved.blocks) if found != 2] == [13]


@pytest.mark.parametrize("options", LANES, ids=["one lane", "eight"])
@pytest.mark.parametrize(
    ("route", "parameters"),
    [
        ("etag-flaps", {}),
        ("etag-flaps", {"if_range": 0}),
        ("mtime-now", {}),
        ("exclusive-end", {}),
        ("exclusive-end", {"said": 0}),
        ("range-length", {}),
        ("range-length", {"delta": -1000}),
        ("range-length", {"total": 1}),
        ("short-body", {"times": 5}),
        ("wrong-total", {"skip": 0, "delta": 5}),
        ("wrong-total", {"skip": 0, "delta": 5, "etag": "none"}),
        ("wrong-total", {"skip": 0, "delta": 1, "grow": 1}),
        *(("range-breaks", {"how": how}) for how in ("close", "reset", "stall", "gzip", "length", "lengths", "more")),
    ],
)
def test_whatever_is_wrong_with_ranges_the_file_comes(
    server: MisbehavingServer, target: Path, route: str, parameters: dict[str, str | float], options: dict[str, Any]
) -> None:
    fetch(server.url(f"/{route}/x", size=SIZE, **parameters), target, read_timeout=2, **options)
    assert target.read_bytes() == content(SIZE)
    assert names(target.parent) == ["file.bin"]


@pytest.mark.parametrize("how", ["close", "reset", "stall", "gzip", "length", "lengths", "more"])
def test_and_small_files_and_a_stream(server: MisbehavingServer, tmp_path: Path, how: str) -> None:
    urls = [server.url(f"/range-breaks/{number}", size=SMALL, seed=number, how=how) for number in range(3)]
    options = {**QUICK, "read_timeout": 2}
    rangefetch.fetch_many(urls, tmp_path, **options)
    assert [(tmp_path / str(number)).read_bytes() == content(SMALL, number) for number in range(3)] == [True] * 3
    with rangefetch.stream(server.url("/range-breaks/x", size=SIZE, how=how), **options) as stream:
        assert stream.read() == content(SIZE)


@pytest.mark.parametrize("parameters", [{"delta": 5}, {"delta": 5, "etag": "none"}, {"delta": 1, "grow": 1}])
def test_small_files_whose_size_is_wrong_in_every_range_come(
    server: MisbehavingServer, tmp_path: Path, parameters: dict[str, str | int]
) -> None:
    urls = [server.url(f"/wrong-total/{number}", size=SMALL, skip=0, **parameters) for number in range(4)]
    rangefetch.fetch_many(urls, tmp_path, **QUICK)
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {content(SMALL)}


@pytest.mark.parametrize("route", ["etag-flaps", "mtime-now", "exclusive-end", "range-length"])
def test_small_files_whose_ranges_are_wrong_come(server: MisbehavingServer, tmp_path: Path, route: str) -> None:
    parameters: dict[str, str | float] = {"delta": -1000} if route == "range-length" else {}
    urls = [server.url(f"/{route}/{number}", size=SMALL, **parameters) for number in range(4)]
    rangefetch.fetch_many(urls, tmp_path, **QUICK)
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {content(SMALL)}


@pytest.mark.parametrize("code", [403, 404, 405])
def test_dead_links_of_a_host_that_sends_ranges_cost_one_request(
    server: MisbehavingServer, target: Path, code: int
) -> None:
    with DownloadManager() as manager:
        manager.download_and_wait(server.url("/good/x", size=SMALL), into(target))
        server.clear()
        gids = [manager.download(server.url("/status/x", code=code, id=n), into(target, n)) for n in range(10)]
        for gid in gids:
            with pytest.raises(HttpStatusError):
                manager.wait(gid, timeout=30)
    assert len(server.requests) == 10


@pytest.mark.parametrize("code", [400, 403, 404, 501])
def test_dead_links_of_a_host_that_refused_a_plain_request_cost_one_request(
    server: MisbehavingServer, target: Path, code: int
) -> None:
    with DownloadManager() as manager:
        for number in range(10):
            with pytest.raises(HttpStatusError):
                manager.download_and_wait(server.url("/status/x", code=code, id=number), into(target, number))
    assert plain(server) == 1
    assert len(server.requests) == 11


def test_what_is_refused_to_everybody_is_not_asked_for_without_a_range(server: MisbehavingServer, target: Path) -> None:
    for number, code in enumerate((401, 402, 407, 410, 451)):
        fails(HttpStatusError, server.url("/status/x", code=code), target.with_name(str(number)))
    assert plain(server) == 0


def test_a_plain_request_that_is_answered_with_another_size_does_not_take_the_place_of_the_file(
    server: MisbehavingServer, target: Path
) -> None:
    # An error page with status 200, while ranges are refused.
    page = f"no-ranges:size={SMALL}:seed=9"
    url = server.url("/script/x", size=SIZE, steps="slow:rate=1M", then=f"{page}+range-refused:code=404")
    kept = interrupt(url, target, MIB, split=1)
    with pytest.raises(DownloadError):
        fetch(url, target, max_tries=3)
    assert not target.exists()
    assert state.load(target.with_name("file.bin.part.json")).written_bytes == kept


def test_a_body_that_is_short_either_way_is_an_error(server: MisbehavingServer, target: Path) -> None:
    fails(BadAnswer, server.url("/short-body/x", size=SIZE), target, max_tries=3)
    assert not target.exists()


@pytest.fixture
def read_before_the_second_range(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a stream's reader take some of the first 4 MiB before more is requested."""
    monkeypatch.setattr(Sink, "window_bytes", 2 * MIB)


@pytest.mark.parametrize("other", ["etag=none", "etag=weak", "seed=1:size=9M"])
@pytest.mark.usefixtures("read_before_the_second_range")
def test_a_stream_goes_on_where_a_node_answers_that_has_what_was_read(server: MisbehavingServer, other: str) -> None:
    for steps, then in ((f"good|good:{other}", "good"), (f"good|good:{other}|good:{other}", "no-ranges")):
        url = server.url("/script/x", size=SIZE, steps=steps, then=then)
        with rangefetch.stream(url, split=1, **QUICK) as stream:
            assert stream.read() == content(SIZE)


def test_a_stream_ends_where_the_server_has_no_more_whatever_its_ranges_say(server: MisbehavingServer) -> None:
    with rangefetch.stream(server.url("/wrong-total/x", size=SIZE, skip=0, delta=5), **QUICK) as stream:
        assert stream.read() == content(SIZE)


@pytest.mark.usefixtures("read_before_the_second_range")
def test_a_stream_of_which_there_is_another_version_by_now_is_an_error(server: MisbehavingServer) -> None:
    url = server.url("/script/x", size=SIZE, steps="good", then="good:seed=1")
    with rangefetch.stream(url, split=1, **QUICK) as stream, pytest.raises(ContentChanged):
        stream.read()
    assert len(server.requests) < 12
