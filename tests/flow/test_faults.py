"""Passing failures are retried as often as requested; permanent ones end with one clear line."""

import time
from pathlib import Path

import pytest

from rangefetch.errors import (
    BadAnswer,
    ConnectionFailed,
    DownloadError,
    HttpStatusError,
    TimedOut,
)
from servers.misbehaving import MisbehavingServer, content, refused_port
from support.downloads import FIRST_RANGE, fails, fetch
from support.files import MIB, begun, names, saved_bytes
from support.requests import sent
from support.waiting import AT_ONCE

SMALL = 100_001
LARGE = 6 * MIB + 12_345
TRIES = 3


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize(
    ("route", "parameters"),
    [
        ("cut", {"after": "64K"}),
        ("cut", {"after": 0}),
        ("cut", {"headers": 0}),
        ("cut", {"ranges": 0}),
        ("reset", {"after": "64K"}),
        ("reset", {"headers": 0}),
        ("stall", {"after": "64K"}),
        ("stall", {"headers": 0}),
        ("short-body", {}),
        ("overflow", {"framing": "close"}),
        ("overflow", {"framing": "length"}),
        ("overflow", {"framing": "chunked"}),
        ("status", {"code": 503}),
        ("status", {"code": 429}),
        ("status", {"code": 500}),
        ("wrong-total", {"skip": 1}),
        ("range-then-200", {"skip": 1}),
        ("no-content-range", {"skip": 1}),
    ],
)
def test_a_fault_that_passes_costs_nothing_but_another_try(
    server: MisbehavingServer, target: Path, route: str, parameters: dict[str, str | int], size: int
) -> None:
    fetch(server.url(f"/{route}/x", size=size, times=1, **parameters), target, read_timeout=0.3, connect_timeout=0.3)
    assert target.read_bytes() == content(size)
    assert names(target.parent) == ["file.bin"]


@pytest.mark.parametrize("route", ["cut", "reset"])
def test_a_connection_that_always_breaks_is_tried_while_it_brings_something(
    server: MisbehavingServer, target: Path, route: str
) -> None:
    url = server.url(f"/{route}/x", size=MIB, after="64K")
    result = fetch(url, target, max_tries=TRIES)
    assert target.read_bytes() == content(MIB)
    assert len(server.requests) == 16
    assert result.retries == 15


def test_the_read_timeout_begins_when_the_request_is_sent(server: MisbehavingServer, target: Path) -> None:
    started = time.monotonic()
    url = server.url("/stall/x", size=SMALL, headers=0)
    fails(TimedOut, url, target, read_timeout=0.5, connect_timeout=60.0, max_tries=1)
    assert 0.5 <= time.monotonic() - started < AT_ONCE


HOPELESS: list[tuple[str, dict[str, str | int], type[DownloadError]]] = [
    ("cut", {"headers": 0}, BadAnswer),
    ("cut", {"after": 0}, BadAnswer),
    ("cut", {"ranges": 0}, BadAnswer),
    ("reset", {"headers": 0}, ConnectionFailed),
    ("reset", {"after": 0}, ConnectionFailed),
    ("stall", {"headers": 0}, TimedOut),
    ("stall", {"after": 0}, TimedOut),
    ("overflow", {"framing": "close"}, BadAnswer),
    ("overflow", {"framing": "length"}, BadAnswer),
    ("overflow", {"framing": "chunked"}, BadAnswer),
    ("script", {"then": "chunked+cut:after=50K"}, BadAnswer),
    ("script", {"then": "no-length+reset:after=50K"}, ConnectionFailed),
    ("status", {"code": 500}, HttpStatusError),
    ("status", {"code": 503}, HttpStatusError),
    ("status", {"code": 429}, HttpStatusError),
]


@pytest.mark.parametrize(("route", "parameters", "kind"), HOPELESS)
def test_what_never_works_is_given_up_after_the_asked_tries_and_leaves_nothing(
    server: MisbehavingServer, target: Path, route: str, parameters: dict[str, str | int], kind: type[DownloadError]
) -> None:
    # One lane, since another would try on its own. Only silence needs a timeout; elsewhere a busy machine must not
    # cause one.
    timeout = 0.1 if route == "stall" else 60.0
    url = server.url(f"/{route}/x", size=SMALL, **parameters)
    error = fails(kind, url, target, max_tries=TRIES, split=1, read_timeout=timeout)
    assert names(target.parent) == []
    # If a range response is too long, one plain request follows.
    assert len(server.requests) == TRIES + (route == "overflow")
    assert len(error.tried) == TRIES
    assert str(error).endswith(f"(after {TRIES} tries)")


@pytest.mark.parametrize(
    ("route", "parameters", "kind"),
    [
        ("garbage", {}, BadAnswer),
        ("encoded", {}, BadAnswer),
        ("encoded", {"coding": "br", "ranges": 0}, BadAnswer),
        ("encoded", {"coding": "identity, gzip"}, BadAnswer),
        ("encoded", {"coding": "identity", "header": "Content-Encoding: gzip"}, BadAnswer),
        ("good", {"header": "Transfer-Encoding: gzip"}, BadAnswer),
        ("chunked", {"header": "Transfer-Encoding: gzip"}, BadAnswer),
        ("redirect-loop", {}, BadAnswer),
        ("redirect-to-file-scheme", {}, BadAnswer),
        ("redirect-to-file-scheme", {"to": "ftp://127.0.0.1/x"}, BadAnswer),
    ],
)
def test_an_answer_that_no_further_try_would_mend_is_given_up_at_once_and_leaves_nothing(
    server: MisbehavingServer, target: Path, route: str, parameters: dict[str, str | int], kind: type[DownloadError]
) -> None:
    fails(kind, server.url(f"/{route}/x", size=SMALL, **parameters), target)
    assert names(target.parent) == []
    # If a range comes encoded, the whole file may still come without encoding.
    encoded_part = route == "encoded" and parameters.get("ranges", 1)
    assert len(server.requests) == (21 if route == "redirect-loop" else 2 if encoded_part else 1)


@pytest.mark.parametrize("code", [400, 401, 403, 404, 405, 410, 451, 501, 505])
def test_a_refusal_costs_no_request_in_vain_and_leaves_nothing(
    server: MisbehavingServer, target: Path, code: int
) -> None:
    error = fails(HttpStatusError, server.url("/status/x", code=code), target)
    assert error.status == code
    assert str(code) in str(error)
    assert names(target.parent) == []
    # If the range may have been the reason, the file is requested without one.
    assert len(server.requests) == (1 if code in (401, 410, 451) else 2)


@pytest.mark.parametrize("code", [205, 304, 300, 416])
def test_a_status_that_carries_no_file_leaves_none(server: MisbehavingServer, target: Path, code: int) -> None:
    error = fails(HttpStatusError, server.url("/status/x", code=code), target)
    assert error.status == code
    assert names(target.parent) == []


def test_a_refused_connection_is_said_so(target: Path) -> None:
    error = fails(ConnectionFailed, f"http://127.0.0.1:{refused_port()}/x", target, max_tries=TRIES)
    assert isinstance(error, ConnectionError)
    assert len(error.tried) == TRIES
    assert names(target.parent) == []


def test_a_name_that_does_not_resolve_is_said_so(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Otherwise, on a machine without network, the download would wait for the network to come back.
    monkeypatch.setattr("rangefetch.net.network.Network.is_there", lambda self, urls, told: True)
    error = fails(ConnectionFailed, "http://no-such-host.invalid/x", target, max_tries=2)
    assert "no-such-host.invalid" in error.reason
    assert names(target.parent) == []


def test_too_many_headers_are_refused(server: MisbehavingServer, target: Path) -> None:
    with pytest.raises(DownloadError, match="huge-headers"):
        fetch(server.url("/huge-headers/x", lines=1000), target, max_tries=2)
    assert names(target.parent) == []


@pytest.mark.parametrize("grow", [0, 1])
def test_a_file_whose_ranges_are_said_to_be_of_a_larger_one_is_fetched_as_one_response(
    server: MisbehavingServer, target: Path, grow: int
) -> None:
    result = fetch(server.url("/wrong-total/x", size=LARGE, grow=grow), target)
    assert target.read_bytes() == content(LARGE)
    assert result.identity == "one response"


def test_a_file_whose_etag_is_another_each_time_is_fetched_as_one_response(
    server: MisbehavingServer, target: Path
) -> None:
    result = fetch(server.url("/etag-flaps/x", size=LARGE), target)
    assert target.read_bytes() == content(LARGE)
    assert result.identity == "one response"


def _go_on_until_it_works(server: MisbehavingServer, url: str, target: Path) -> tuple[int, int]:
    """Fetch until the server's faults are used up. Returns how many bytes the last run found, and how many of the rest
    it was sent."""
    for _ in range(40):
        kept, before = saved_bytes(target), len(server.requests)
        try:
            result = fetch(url, target, split=1)
        except DownloadError:
            assert names(target.parent) == begun(target)
            assert saved_bytes(target) >= kept
        else:
            assert result.resumed == kept
            # Requests without a range do not count: one made only to see whether it is answered is broken off.
            return kept, sent(request for request in server.requests[before:] if request.status == 206)
    pytest.fail("the faults do not end")


def test_a_body_that_is_always_a_byte_short_is_an_error_and_keeps_what_came(
    server: MisbehavingServer, target: Path
) -> None:
    url = server.url("/short-body/x", size=LARGE, times=20)
    fails(BadAnswer, url, target, split=1, max_tries=TRIES)
    assert names(target.parent) == begun(target)
    assert saved_bytes(target) > 0
    kept, rest = _go_on_until_it_works(server, url, target)
    assert target.read_bytes() == content(LARGE)
    assert rest == LARGE - kept


@pytest.mark.parametrize("then", ["status:code=404", "status:code=503", "cut:headers=0", "garbage", "encoded"])
def test_a_failure_midway_keeps_what_can_be_continued(server: MisbehavingServer, target: Path, then: str) -> None:
    url = server.url("/script/x", size=LARGE, steps="|".join(["good", *[then] * 12]))
    with pytest.raises(DownloadError):
        fetch(url, target, split=1, max_tries=2)
    assert names(target.parent) == begun(target)
    assert saved_bytes(target) == FIRST_RANGE
    kept, rest = _go_on_until_it_works(server, url, target)
    assert target.read_bytes() == content(LARGE)
    assert kept == FIRST_RANGE
    assert rest == LARGE - FIRST_RANGE


def test_retry_after_is_waited_for(server: MisbehavingServer, target: Path) -> None:
    started = time.monotonic()
    fetch(server.url("/status/x", size=SMALL, code=503, retry_after=1, times=1), target)
    assert 1.0 <= time.monotonic() - started < AT_ONCE
    assert target.read_bytes() == content(SMALL)


def test_the_whole_may_be_given_a_time(server: MisbehavingServer, target: Path) -> None:
    started = time.monotonic()
    error = fails(TimedOut, server.url("/slow/x", size=LARGE, rate="100K"), target, total_timeout=0.5)
    assert time.monotonic() - started < AT_ONCE
    assert isinstance(error, TimeoutError)
    assert names(target.parent) == begun(target)


def test_a_host_that_wants_to_be_left_alone_does_not_outlast_the_time_for_the_whole(
    server: MisbehavingServer, target: Path
) -> None:
    busy = server.url("/status/x", code=429, retry_after=60)
    fails(TimedOut, busy, target, total_timeout=0.5)
    started = time.monotonic()
    fails(TimedOut, busy, target, total_timeout=0.5)
    assert time.monotonic() - started < AT_ONCE
    assert names(target.parent) == []


@pytest.mark.parametrize("code", [503, 429, 403, 0])
@pytest.mark.parametrize("limit", [1, 3])
def test_a_server_that_allows_few_connections_gives_the_file(
    server: MisbehavingServer, target: Path, limit: int, code: int
) -> None:
    size = 24 * MIB
    url = server.url("/limited-connections/x", size=size, limit=limit, code=code, rate="64M")
    fetch(url, target, split=8, min_split_size="1M")
    assert target.read_bytes() == content(size)


def test_fewer_lanes_and_failures_together_do_not_stop_a_download(server: MisbehavingServer, target: Path) -> None:
    # One lane stalls and then fails. Two wait as long as the server says, and the fourth is refused as one too many.
    waiting = "status:code=500:retry_after=1:delay=0.1"
    steps = f"stall:after=64K|{waiting}|{waiting}|status:code=503:delay=0.4"
    fetch(
        server.url("/script/x", size=LARGE, steps=steps),
        target,
        split=4,
        min_split_size=1,
        read_timeout=1.4,
        total_timeout=6.0,
    )
    assert target.read_bytes() == content(LARGE)
