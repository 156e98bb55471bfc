"""Hosts: where a connection goes, for how long one is left alone, and who gets how many lanes."""

from __future__ import annotations

import itertools

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
    """One that no other test has to do with."""
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
