"""Hosts: which one a connection goes to, how long a host rests, and how connections are divided."""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Iterator

import pytest

from rangefetch.net.proxies import VARIABLES
from rangefetch.options import DownloadOptions
from rangefetch.transfer import governor

numbers = itertools.count(1)


@pytest.fixture(autouse=True)
def _no_proxy_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def host() -> int:
    """A host that no other test uses."""
    return governor.host_of_connection(f"http://{next(numbers)}.governor.example/", DownloadOptions())


@pytest.mark.parametrize(
    "other",
    [
        "http://HOST.example/other?query#fragment",
        "http://host.example:80",
        "http://user:password@host.example/",
        "HTTP://host.example/",
    ],
)
def test_a_host_is_scheme_name_and_port(other: str) -> None:
    options = DownloadOptions()
    host = governor.host_of_connection("http://host.example/", options)
    assert governor.host_of_connection(other, options) == host
    for different in ("https://host.example/", "http://host.example:81/", "http://host.example.org/"):
        assert governor.host_of_connection(different, options) != host


def test_behind_a_proxy_all_are_one_host_but_those_that_are_exempt() -> None:
    options = DownloadOptions(proxy="http://proxy.example:3128", no_proxy="inside.example")
    proxy = governor.host_of_connection("http://proxy.example:3128", DownloadOptions())
    assert governor.host_of_connection("http://one.example/", options) == proxy
    assert governor.host_of_connection("https://two.example/", options) == proxy
    assert governor.host_of_connection("http://a.inside.example/", options) != proxy


def test_a_rest_ends_by_itself_and_a_shorter_one_does_not_end_it(host: int) -> None:
    assert governor.rests_for(host) == 0
    governor.rest(host, 50)
    governor.rest(host, 1)
    assert 40 < governor.rests_for(host) <= 50


def test_a_host_that_bears_no_more_is_left_alone_by_who_begins(host: int) -> None:
    governor.rest(host, 50, at_work=False)
    assert 40 < governor.rests_for(host) <= 50


def test_a_host_with_few_connections_is_one_loops() -> None:
    assert [governor.loop_of(host, 7, 0, 4) for host in (4, 5, 11)] == [0, 1, 3]
    assert governor.loop_of(5, 8, 7, 4) is None
    assert governor.loop_of(5, 1, 0, 1) == 0


def test_a_host_with_as_many_files_as_connections_is_one_loops() -> None:
    assert [governor.loop_of(5, 16, files, 4) for files in (0, 15, 16, 128)] == [None, None, 1, 1]


@pytest.mark.parametrize(
    ("wanted", "shares"),
    [
        ([], []),
        ([16], [16]),
        ([16, 16], [8, 8]),
        ([16, 2], [8, 2]),
        ([1, 1, 1], [1, 1, 1]),
        ([2, 2, 2], [1, 1, 1]),
    ],
)
def test_what_one_alone_may_have_all_have_together(wanted: list[int], shares: list[int]) -> None:
    assert list(governor.divide(dict(enumerate(wanted))).values()) == shares


@pytest.mark.parametrize("without_engine", [False, True])
def test_a_rest_shorter_than_a_second_is_one(host: int, monkeypatch: pytest.MonkeyPatch, without_engine: bool) -> None:
    if without_engine:
        monkeypatch.setattr(governor, "_hosts", functools.cache(governor._Table))
    governor.rest(host, 0.9)
    assert 0 < governor.rests_for(host) <= 0.9
    assert 0 < governor.wait_before_asking(host) <= 0.9


# ---- Without an engine -------------------------------------------------------------------------------------------


@pytest.fixture
def _no_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The engine is missing, as where it cannot be built, and only aria2 sends requests."""
    monkeypatch.setitem(sys.modules, "rangefetch._engine", None)
    governor._hosts.cache_clear()
    yield
    governor._hosts.cache_clear()


@pytest.mark.usefixtures("_no_engine")
def test_hosts_rest_without_the_engine_too() -> None:
    options = DownloadOptions()
    one, other = (governor.host_of_connection(f"http://{name}.example/", options) for name in ("one", "other"))
    assert one != other
    assert governor.host_of_connection("http://user:word@one.example:80/file?query", options) == one
    governor.rest(one, 50)
    governor.rest(one, 1)
    assert 40 < governor.rests_for(one) <= 50
    assert 40 < governor.wait_before_asking(one) <= 50
    assert governor.rests_for(other) == governor.wait_before_asking(other) == 0


@pytest.mark.usefixtures("_no_engine")
def test_one_request_finds_out_whether_the_host_is_back_without_the_engine_too() -> None:
    host = governor.host_of_connection("http://turn.example/", DownloadOptions())
    governor.rest(host, 0)
    assert governor.wait_before_asking(host) == 0
    assert governor.wait_before_asking(host) > 0
    governor.was_asked(host, is_back=False)
    assert governor.wait_before_asking(host) == 0
    governor.was_asked(host, is_back=True)
    assert [governor.wait_before_asking(host) for _ in range(3)] == [0, 0, 0]


@pytest.mark.usefixtures("_no_engine")
def test_nothing_is_known_of_hosts_where_the_engine_counts_no_answers() -> None:
    host = governor.host_of_connection("http://known.example/", DownloadOptions())
    assert not governor.has_answered(host)
    assert not governor.has_sent(host)
