"""A manager's defaults: they reach every download, whichever way its options are given."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

import rangefetch
from rangefetch import DownloadManager, DownloadOptions
from servers.misbehaving import MisbehavingServer

AGENT = "of-the-manager/1"


@pytest.fixture
def manager() -> Iterator[DownloadManager]:
    with DownloadManager(defaults={"user_agent": AGENT, "split": 3}) as running:
        yield running


@pytest.fixture
def own_manager(manager: DownloadManager, monkeypatch: pytest.MonkeyPatch) -> DownloadManager:
    """The process's manager is this one."""
    for module in ("rangefetch.api", "rangefetch.bulk", "rangefetch.streaming"):
        monkeypatch.setattr(f"{module}.get_download_manager", lambda: manager)
    return manager


def agents(server: MisbehavingServer) -> set[str]:
    return {request.headers["user-agent"] for request in server.requests}


def test_what_was_not_given_is_inherited_and_what_was_given_is_not(manager: DownloadManager) -> None:
    url = "http://host.example/"
    for options in ({"split": 16}, DownloadOptions(split=16)):
        _, checked = manager.check(url, options)
        # 16 is what it would be anywhere else, but it was asked for.
        assert (checked.split, checked.user_agent) == (16, AGENT)
    assert manager.check(url, DownloadOptions())[1].split == 3
    assert manager.check(url)[1].split == 3


def test_what_was_given_survives_changes_of_other_options(manager: DownloadManager) -> None:
    options = DownloadOptions.of(DownloadOptions(split=16), max_tries=2)
    _, checked = manager.check("http://host.example/", options)
    assert (checked.split, checked.max_tries, checked.user_agent) == (16, 2, AGENT)


def test_a_copy_of_options_has_them_all(manager: DownloadManager) -> None:
    copy = pickle.loads(pickle.dumps(DownloadOptions(max_tries=2)))
    assert copy == DownloadOptions(max_tries=2)
    assert manager.check("http://host.example/", copy)[1].max_tries == 2


def test_the_same_mapping_may_have_other_values_the_next_time(manager: DownloadManager) -> None:
    options = {"split": 2, "mirrors": ["http://a.example/"]}
    assert manager.check("http://host.example/", options)[1].split == 2
    options["mirrors"].append("http://b.example/")  # type: ignore[attr-defined]
    assert len(manager.check("http://host.example/", options)[1].mirrors) == 2
    assert manager.check("http://host.example/", {"split": 1})[1].split == 1
    with pytest.raises(TypeError, match="split"):
        manager.check("http://host.example/", {"split": True})


def test_defaults_reach_small_files_and_streams(
    own_manager: DownloadManager, server: MisbehavingServer, tmp_path: Path
) -> None:
    rangefetch.fetch_many([server.url("/good/small", size=1000), server.url("/good/other", size=1000)], tmp_path)
    rangefetch.fetch_many([(server.url("/good/own", size=1000), {"max_tries": 2})], tmp_path)
    with rangefetch.stream(server.url("/good/stream", size=1000)) as reader:
        assert len(reader.read()) == 1000
    assert agents(server) == {AGENT}
