"""A manager's defaults apply to every download, however its options are given."""

from __future__ import annotations

import asyncio
import multiprocessing
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import rangefetch
from rangefetch import DownloadError, DownloadManager, DownloadOptions, aio, shared
from rangefetch.manager import downloads_of
from rangefetch.net.proxies import VARIABLES
from rangefetch.transfer.failure import Fault
from rangefetch.transfer.retry import Kind, RetryPolicy, Row
from servers.misbehaving import MisbehavingServer
from support.downloads import QUICK, SIZE, SMALL
from support.effects import EFFECTS, OF_FILES, Scene
from support.files import names

AGENT = "of-the-manager/1"


@pytest.fixture
def manager() -> Iterator[DownloadManager]:
    with DownloadManager(defaults={"user_agent": AGENT, "split": 3}) as running:
        yield running


def test_what_was_not_given_is_inherited_and_what_was_given_is_not(manager: DownloadManager) -> None:
    url = "http://host.example/"
    for options in ({"split": 16}, DownloadOptions(split=16)):
        _, checked = downloads_of(manager).defaults.check(url, options)
        # 16 is the general default, but here it was given explicitly.
        assert (checked.split, checked.user_agent) == (16, AGENT)
    assert downloads_of(manager).defaults.check(url, DownloadOptions())[1].split == 3
    assert downloads_of(manager).defaults.check(url)[1].split == 3


def test_what_was_given_survives_changes_of_other_options(manager: DownloadManager) -> None:
    options = DownloadOptions.of(DownloadOptions(split=16), max_tries=2)
    _, checked = downloads_of(manager).defaults.check("http://host.example/", options)
    assert (checked.split, checked.max_tries, checked.user_agent) == (16, 2, AGENT)


def test_a_copy_of_options_has_them_all(manager: DownloadManager) -> None:
    copy = pickle.loads(pickle.dumps(DownloadOptions(max_tries=2)))
    assert copy == DownloadOptions(max_tries=2)
    assert downloads_of(manager).defaults.check("http://host.example/", copy)[1].max_tries == 2


def test_the_same_mapping_may_have_other_values_the_next_time(manager: DownloadManager) -> None:
    options = {"split": 2, "mirrors": ["http://a.example/"]}
    assert downloads_of(manager).defaults.check("http://host.example/", options)[1].split == 2
    options["mirrors"].append("http://b.example/")  # type: ignore[attr-defined]  # wrong on purpose
    assert len(downloads_of(manager).defaults.check("http://host.example/", options)[1].mirrors) == 2
    assert downloads_of(manager).defaults.check("http://host.example/", {"split": 1})[1].split == 1
    with pytest.raises(TypeError, match="split"):
        downloads_of(manager).defaults.check("http://host.example/", {"split": True})


# ---- Every option, with each way to start a download ---------------------------------------------------------------

Way = Callable[[DownloadManager, str], bytes]


def _by_an_instance(manager: DownloadManager, url: str) -> bytes:
    return manager.download_and_wait(url, DownloadOptions()).path.read_bytes()


def _by_fetch(manager: DownloadManager, url: str) -> bytes:
    return rangefetch.fetch(url).path.read_bytes()


def _by_fetch_many(manager: DownloadManager, url: str) -> bytes:
    [outcome] = rangefetch.fetch_many([url], on_error="return")
    if isinstance(outcome, DownloadError):
        raise outcome
    return outcome.path.read_bytes()


def _by_a_stream(manager: DownloadManager, url: str) -> bytes:
    with rangefetch.stream(url) as reader:
        return reader.read()


WAYS = {
    "an instance": (_by_an_instance, SIZE, EFFECTS.keys()),
    "fetch": (_by_fetch, SMALL, EFFECTS.keys()),
    "fetch_many": (_by_fetch_many, SMALL, EFFECTS.keys()),
    "stream": (_by_a_stream, SIZE, EFFECTS.keys() - OF_FILES),
}
"""A way to start a download, the size of its file, and the options that it supports."""


@pytest.fixture
def no_global(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(shared, "_manager", None)
    monkeypatch.setattr(shared, "_config", {})
    yield
    if shared._manager is not None:
        shared._manager.stop()


@pytest.mark.usefixtures("no_global")
@pytest.mark.parametrize(
    ("way", "option"), [(way, option) for way in WAYS for option in EFFECTS if option in WAYS[way][2]]
)
def test_a_default_has_its_effect(scene: Scene, monkeypatch: pytest.MonkeyPatch, way: str, option: str) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    ask, scene.size, _ = WAYS[way]

    def fetch(url: str, /, **options: Any) -> bytes:
        manager = rangefetch.init_download_manager(defaults=QUICK | {"save_dir": scene.place} | options)
        return ask(manager, url)

    scene.fetch = fetch
    EFFECTS[option](scene)


# ---- Where there is another manager --------------------------------------------------------------------------------


def _agents(server: MisbehavingServer) -> set[str]:
    return {request.headers["user-agent"] for request in server.requests}


@pytest.mark.usefixtures("no_global")
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_number_for_one_call_leaves_the_defaults_as_they_are(
    server: MisbehavingServer, target: Path, asynchronous: bool
) -> None:
    policy = RetryPolicy().first(Row(Kind.PERMANENT, "it never passes here", Fault.STATUS, frozenset({503})))
    defaults = {"user_agent": AGENT, "save_dir": target.parent, "max_tries": 5, "retry_wait": 0.01}
    rangefetch.init_download_manager(defaults=defaults, retry_policy=policy)
    urls = [server.url(f"/good/{number}", size=1000) for number in range(3)]
    several: dict[str, Any] = {"max_concurrent_downloads": 2, "on_error": "return"}
    if asynchronous:
        asyncio.run(aio.fetch_many(urls, **several))
    else:
        rangefetch.fetch_many(urls, **several)
    assert _agents(server) == {AGENT}
    assert names(target.parent) == ["0", "1", "2"]
    server.clear()
    rangefetch.fetch_many([server.url("/status/x", code=503)], **several)
    # A request without a range shows that the range is not the reason for the refusal.
    assert [request.range is None for request in server.requests] == [False, True]


@pytest.mark.usefixtures("no_global")
@pytest.mark.parametrize("kind", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_workers_have_them_too(server: MisbehavingServer, target: Path, kind: Callable[..., Executor]) -> None:
    rangefetch.init_download_manager(defaults={"user_agent": AGENT, "save_dir": target.parent})
    own = {"mp_context": multiprocessing.get_context("spawn")} if kind is ProcessPoolExecutor else {}
    with kind(1, **own) as workers:
        rangefetch.fetch_many([server.url("/good/x", size=1000)], executor=workers)
    assert _agents(server) == {AGENT}
    assert names(target.parent) == ["x"]


@pytest.mark.usefixtures("no_global")
def test_a_directory_that_is_named_goes_before_that_of_the_defaults(server: MisbehavingServer, target: Path) -> None:
    rangefetch.init_download_manager(defaults={"save_dir": target.parent / "default"})
    rangefetch.fetch_many([server.url("/good/x", size=1000)], target.parent / "named")
    assert names(target.parent) == ["named"]
    assert names(target.parent / "named") == ["x"]


@pytest.mark.usefixtures("no_global")
def test_head_has_them(server: MisbehavingServer) -> None:
    rangefetch.init_download_manager(defaults={"user_agent": AGENT, "decode": True, "filename": "x"})
    assert rangefetch.head(server.url("/good/x", size=1000)).size == 1000
    assert _agents(server) == {AGENT}
