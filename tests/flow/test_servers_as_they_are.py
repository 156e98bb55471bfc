"""Servers differ in what they can do and in how they say it; the file is the same."""

from pathlib import Path

import pytest

import rangefetch
from rangefetch.errors import BadAnswer
from servers.misbehaving import ROUTES, MisbehavingServer, content, modified
from support.downloads import FIRST_RANGE, QUICK, fails, fetch
from support.files import MIB, names
from support.requests import paths, sent

SMALL = 100_001
LARGE = 6 * MIB + 12_345

ALLOWED: list[tuple[str, dict[str, str | float]]] = [
    ("good", {}),
    ("no-ranges", {}),
    ("no-length", {}),
    ("chunked", {}),
    ("chunked", {"trailer": "X-Digest: none"}),
    ("chunked-ranges", {}),
    ("chunked-ranges", {"trailer": "X-Digest: none"}),
    ("close-each", {}),
    ("http10", {}),
    ("odd-headers", {}),
    ("early-hints", {}),
    ("short-range", {}),
    ("short-range", {"most": 1_000_003}),
    ("unknown-total", {}),
    ("no-validator", {}),
    ("weak-etag", {}),
    ("disposition", {}),
    ("huge-headers", {}),
    ("slow-headers", {"seconds": 0.1}),
    ("limited-connections", {"limit": 1}),
    ("limited-connections", {"limit": 2, "code": 429}),
    ("limited-connections", {"limit": 3, "code": 403}),
    ("redirect", {}),
    ("redirect-signed", {"uses": 1000}),
]
UNTRUE_BUT_USABLE: list[tuple[str, dict[str, str | float]]] = [
    ("wrong-start", {}),
    ("wrong-start", {"shift": -1, "at": 0}),
    ("wrong-start", {"shift": MIB}),
    ("no-content-range", {}),
    ("whole-206", {}),
    ("overflow", {"framing": "excess"}),
    ("encoded", {"coding": "identity"}),
    ("encoded", {"coding": "none"}),
    ("encoded", {"coding": "None, Identity", "header": "Content-Encoding: identity"}),
    ("range-then-200", {}),
    ("if-range-200", {}),
]


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize(("route", "parameters"), ALLOWED + UNTRUE_BUT_USABLE)
def test_every_usable_server_gives_the_right_bytes_and_nothing_else_lies_there(
    server: MisbehavingServer, target: Path, route: str, parameters: dict[str, str | float], size: int
) -> None:
    result = fetch(server.url(f"/{route}/x", size=size, **parameters), target)
    assert target.read_bytes() == content(size)
    assert names(target.parent) == ["file.bin"]
    assert (result.path, result.filename, result.size) == (target, "file.bin", size)
    assert not result.already_complete


def test_no_route_of_the_server_is_forgotten() -> None:
    tests = "".join(file.read_text() for file in Path(__file__).parents[1].rglob("test_*.py"))
    assert [route for route in ROUTES if f'"{route}"' not in tests and f'"/{route}/' not in tests] == []


@pytest.mark.parametrize("route", ["empty", "empty-200", "no-length", "chunked", "redirect"])
def test_an_empty_file_is_a_file(server: MisbehavingServer, target: Path, route: str) -> None:
    result = fetch(server.url(f"/{route}/x", size=0), target)
    assert target.read_bytes() == b""
    assert names(target.parent) == ["file.bin"]
    assert result.size == 0
    # That the file is empty must be confirmed by a plain request, which goes to the redirect's target.
    assert len(server.requests) == {"redirect": 3}.get(route, 2)


@pytest.mark.parametrize(
    "odd",
    [
        {"said": "bytes 0--1/0"},  # as socketify says it
        {"said": "bytes 0--1/0", "status": 200},
        {"said": "bytes 0-0/0", "length": 1},  # as civetweb does
    ],
)
def test_an_empty_file_is_one_whatever_its_range_is_said_to_be(
    server: MisbehavingServer, tmp_path: Path, odd: dict[str, str | float]
) -> None:
    fetch(server.url("/empty-odd/one", **odd), tmp_path / "one")
    assert (tmp_path / "one").read_bytes() == b""
    rangefetch.fetch_many([server.url(f"/empty-odd/{name}", **odd) for name in ("two", "three")], tmp_path, **QUICK)
    with rangefetch.stream(server.url("/empty-odd/four", **odd), **QUICK) as stream:
        assert stream.read() == b""
    assert [path.stat().st_size for path in sorted(tmp_path.iterdir())] == [0, 0, 0]


def test_an_empty_body_that_names_a_part_of_a_larger_file_is_not_the_file(
    server: MisbehavingServer, target: Path
) -> None:
    fails(BadAnswer, server.url("/empty-odd/x", said="bytes 0-9/100", status=200), target, max_tries=2)
    assert not target.exists()


@pytest.mark.parametrize(
    "size", [1, MIB - 1, MIB, MIB + 1, FIRST_RANGE - 1, FIRST_RANGE, FIRST_RANGE + 1, 5 * MIB - 1, 5 * MIB + 1]
)
@pytest.mark.parametrize("split", [1, 16])
def test_no_byte_is_lost_at_a_border(server: MisbehavingServer, target: Path, size: int, split: int) -> None:
    fetch(server.url("/good/x", size=size), target, split=split, min_split_size=1)
    assert target.read_bytes() == content(size)
    assert server.bytes_sent == size or split > 1


@pytest.mark.parametrize("size", [1, SMALL, FIRST_RANGE])
def test_a_small_file_costs_one_request_and_no_probe(server: MisbehavingServer, target: Path, size: int) -> None:
    fetch(server.url("/good/x", size=size), target)
    assert [request.method for request in server.requests] == ["GET"]
    assert server.bytes_sent == size
    assert server.connections == 1


def test_one_connection_asks_for_each_byte_of_a_large_file_once(server: MisbehavingServer, target: Path) -> None:
    # Several lanes may help each other at the end, and request some bytes twice.
    size = 32 * MIB + 5
    fetch(server.url("/good/x", size=size), target, split=1)
    assert target.read_bytes() == content(size)
    asked = sorted(request.range for request in server.requests if request.range)
    assert len(asked) == len(server.requests)
    ends = [min(end, size) for _, end in asked]
    assert [start for start, _ in asked] == [0, *ends[:-1]]
    assert ends[-1] == server.bytes_sent == size


@pytest.mark.parametrize("route", ["no-ranges", "no-length", "chunked", "http10"])
def test_a_server_without_ranges_is_asked_once(server: MisbehavingServer, target: Path, route: str) -> None:
    result = fetch(server.url(f"/{route}/x", size=LARGE), target)
    assert target.read_bytes() == content(LARGE)
    assert len(server.requests) == server.connections == result.connections == 1
    assert server.bytes_sent == LARGE


@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({"split": 4}, 4),
        ({"max_connection_per_server": 3}, 3),
        ({"split": 1}, 1),
        # One, because the file is smaller than that, and one to help if the server is slow.
        ({"min_split_size": "64M"}, 2),
    ],
)
def test_connections_serve_one_range_after_the_other(
    server: MisbehavingServer, target: Path, options: dict[str, int | str], most: int
) -> None:
    size = 48 * MIB
    result = fetch(server.url("/good/x", size=size), target, **options)
    assert target.read_bytes() == content(size)
    assert server.connections <= most < len(server.requests)
    assert result.connections == server.connections


def test_several_connections_work_at_once(server: MisbehavingServer, target: Path) -> None:
    size = 8 * MIB
    fetch(server.url("/good/x", size=size, rate="8M"), target, split=4, min_split_size="1M")
    assert target.read_bytes() == content(size)
    assert server.connections == 4


def test_files_of_one_server_share_a_connection(server: MisbehavingServer, target: Path) -> None:
    for number in range(4):
        fetch(server.url("/good/x", size=SMALL, seed=number), target.with_name(f"{number}"))
        assert target.with_name(f"{number}").read_bytes() == content(SMALL, number)
    assert server.connections == 1
    assert len(server.requests) == 4


def test_a_server_that_closes_each_connection_gets_a_new_one_per_range(server: MisbehavingServer, target: Path) -> None:
    fetch(server.url("/close-each/x", size=LARGE), target, split=2)
    assert target.read_bytes() == content(LARGE)
    assert server.connections == len(server.requests) > 1


def test_short_answers_are_taken_and_the_rest_is_asked_for(server: MisbehavingServer, target: Path) -> None:
    fetch(server.url("/short-range/x", size=MIB, most="64K"), target)
    assert target.read_bytes() == content(MIB)
    assert len(server.requests) == 16
    assert server.bytes_sent == MIB


def test_a_cache_that_once_sends_the_whole_file_does_not_end_the_ranges(
    server: MisbehavingServer, target: Path
) -> None:
    size = 12 * MIB
    fetch(server.url("/range-then-200/x", size=size, times=1), target, split=2)
    assert target.read_bytes() == content(size)
    whole = [request for request in server.requests if request.status == 200]
    assert len(whole) == 1
    assert sent(request for request in server.requests if request.status == 206) >= size


@pytest.mark.parametrize("seed", [0, 7])
def test_the_file_has_the_time_of_last_modified(server: MisbehavingServer, target: Path, seed: int) -> None:
    fetch(server.url("/good/x", size=SMALL, seed=seed), target)
    assert target.stat().st_mtime == modified(seed)


def test_a_server_with_another_http_version_is_no_hindrance(server: MisbehavingServer, target: Path) -> None:
    fetch(server.url("/http10/x", size=SMALL), target, http_version="2")
    assert target.read_bytes() == content(SMALL)
    assert paths(server) == ["http10"]


def test_a_server_that_expects_a_header_gets_it(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/needs/x", size=LARGE, name="X-Token", value="T 1", code=403)
    fetch(url, target, headers={"X-Token": "T 1", "X-Empty": ""}, user_agent="tests/1")
    assert target.read_bytes() == content(LARGE)
    assert {request.headers["user-agent"] for request in server.requests} == {"tests/1"}
    assert {request.headers["x-empty"] for request in server.requests} == {""}


@pytest.mark.parametrize(
    "date",
    [
        "garbage",
        "",
        "0",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Mon, 01 Jan 1601 00:00:00 GMT",
        "Wed, 01 Jan 2020 00:00:00",
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "Sat, 99 Foo 2020 99:99:99 GMT",
    ],
)
def test_an_odd_date_does_no_harm(server: MisbehavingServer, target: Path, date: str) -> None:
    url = server.url("/good/x", size=LARGE, mtime=0, header=f"Last-Modified: {date}")
    fetch(url, target)
    assert target.read_bytes() == content(LARGE)
    assert names(target.parent) == ["file.bin"]


def test_the_scheme_may_be_in_capitals(server: MisbehavingServer, target: Path) -> None:
    fetch(server.url("/good/x", size=LARGE).replace("http://127", "HTTP://127"), target)
    assert target.read_bytes() == content(LARGE)
