"""Every public function says which of its arguments is wrong, in one line, before anything is opened or started."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rangefetch
from rangefetch import DownloadManager, aio
from rangefetch.aria2.config import DaemonConfig, DaemonOptions
from rangefetch.manager import ManagerOptions
from rangefetch.transfer.retry import RetryPolicy
from support.files import names
from support.waiting import until

URL = "http://127.0.0.1:9/x"  # nothing listens there, and nothing may connect to it

NO_FUNCTION: list[Any] = [5, "print", []]
NO_COUNT: list[Any] = [0, -1, 1_000_001, 1.5, "10", True, [1]]
NO_SIZE: list[Any] = [None, -1, 1.5, True, "many", [1]]
NO_PATH: list[Any] = [5, b"octets", ["x"], 1.5]
NO_SECONDS: list[Any] = [None, -1.0, "5", True, float("nan"), [1]]

MANAGER: dict[str, list[Any]] = {
    "backend": [None, 5, "", "curl", ["native"]],
    "prefer": [None, 5, "", "auto"],
    "max_concurrent_downloads": NO_COUNT,
    "max_overall_download_limit": NO_SIZE,
    "defaults": [5, "split=4", [("split", 4)]],
    "retry_policy": [5, RetryPolicy, {"longest_wait": 5}],
    "session_file": [*NO_PATH, "", "a directory", "a fifo", "nul\0"],
    "max_download_results": [None, -1, 1_000_001, 1.5, "10", True],
    "rpc_port": [80, "6800", None, 65_536],
    "no_such_thing": [1],
}
POLICY: dict[str, list[Any]] = {
    "rows": [None, 5, "rows", (5,), ("row",)],
    "longest_wait": NO_SECONDS,
    "longest_retry_after": NO_SECONDS,
    "network_check": NO_SECONDS,
    "network_wait": NO_SECONDS,
    "network_hosts": [None, 5, "8.8.8.8:53", (5,), ("8.8.8.8",), ("8.8.8.8:dns",), (":53",), ("h:65536",)],
}
FETCH: dict[str, list[Any]] = {
    "url": [None, 5, b"http://h/x", "", "h/x", ["http://h/x"]],
    "path": [*NO_PATH, "nul\0", "a\nb"],
    "mirrors": ["http://h/x", 5, [5], ["h"]],
    "checksum": [5, "md5=0", b"md5=0"],
    "on_progress": NO_FUNCTION,
    "split": [0, "4"],
    "no_such_thing": [1],
}
STREAM: dict[str, list[Any]] = {
    "url": [*FETCH["url"], "ftp://h/x", "magnet:?xt=urn:btih:" + "0" * 40],
    "checksum": FETCH["checksum"],
    "file_allocation": ["always", None],
    "max_download_limit": NO_SIZE,
    "no_such_thing": [1],
}
FETCH_MANY: dict[str, list[Any]] = {
    "items": [
        None,
        5,
        URL,
        URL.encode(),
        {URL: {}},
        [5],
        [None],
        [(URL,)],
        [(URL, 5)],
        [(URL, {5: 5})],
        [(URL, {"splitt": 4})],
        [(URL, {"split": 0})],
        [{"split": 4}],
        [{"url": 5}],
        ["h/x"],
    ],
    "directory": [*NO_PATH, "nul\0"],
    "max_concurrent_downloads": NO_COUNT,
    "on_error": [None, 5, "", "ignore"],
    "executor": [5, "threads", list],
    "on_progress": NO_FUNCTION,
    "on_result": NO_FUNCTION,
    "split": [0, "4"],
    "no_such_thing": [1],
}


@pytest.fixture(autouse=True)
def _nothing_comes_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Check that a refused call leaves no file, no directory, and no thread: not even the process's manager starts."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a directory").mkdir()
    (tmp_path / "a directory" / "precious").write_bytes(b"of the user's")
    os.mkfifo(tmp_path / "a fifo")
    before = set(threading.enumerate())
    yield
    assert names(tmp_path) == ["a directory", "a fifo"]
    assert names(tmp_path / "a directory") == ["precious"]
    until(lambda: set(threading.enumerate()) <= before)


def _is_refused(call: Callable[[], object], *said: str) -> None:
    """Check that the call is refused with one line that starts with the name of an argument in ``said``."""
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    line = str(caught.value)
    assert line.startswith(tuple(f"{name}: " for name in said)), line
    assert len(line.splitlines()) == 1
    assert line.isprintable()


def _each(table: dict[str, list[Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("name", "value"),
        [(name, value) for name, values in table.items() for value in values],
        ids=lambda value: ascii(value)[:30] if not isinstance(value, type) else value.__name__,
    )


@_each(MANAGER)
def test_a_managers_arguments(name: str, value: Any) -> None:
    _is_refused(lambda: DownloadManager(**{name: value}), name)
    _is_refused(lambda: aio.DownloadManager(**{name: value}), name)


def test_a_managers_typed_keywords_are_those_that_it_takes() -> None:
    taken = {field.name for field in dataclasses.fields(DaemonConfig)} - {"session_file"}
    own = set(inspect.signature(DownloadManager).parameters) - {"backend", "prefer", "config"}
    assert set(DaemonOptions.__annotations__) == taken
    assert set(ManagerOptions.__annotations__) == taken | own
    assert DaemonOptions.__required_keys__ == ManagerOptions.__required_keys__ == frozenset()


@pytest.mark.parametrize("make", [DownloadManager, aio.DownloadManager, rangefetch.init_download_manager])
def test_an_option_of_downloads_is_referred_to_defaults(make: Any) -> None:
    with pytest.raises(TypeError, match="split: this is an option of downloads; pass it in defaults"):
        make(split=4)


@_each(POLICY)
def test_a_retry_policys(name: str, value: Any) -> None:
    _is_refused(lambda: RetryPolicy(**{name: value}), name)


@_each(FETCH)
def test_those_of_fetch(name: str, value: Any) -> None:
    given = {"url": URL, "path": "file.bin"} | {name: value}
    # A path becomes two options, and the message may name either.
    said = (name, "filename", "save_dir") if name == "path" else (name,)
    _is_refused(lambda: rangefetch.fetch(**given), *said)
    _is_refused(lambda: asyncio.run(aio.fetch(**given)), *said)


@pytest.mark.parametrize(
    ("path", "options", "said"),
    [
        ("a.bin", {"filename": "b.bin"}, "filename"),
        ("a.bin", {"filename": "a.bin"}, "filename"),
        (Path("a/b.bin"), {"filename": "b.bin"}, "filename"),
        ("a.bin", {"save_dir": "b"}, "save_dir"),
        ("a/", {"save_dir": "a/"}, "save_dir"),
        ("a/b.bin", {"save_dir": "c", "filename": "d.bin"}, "save_dir"),
        ("a directory", {"save_dir": "b"}, "save_dir"),
    ],
)
def test_a_path_and_an_option_that_says_the_same_contradict(path: Any, options: dict[str, Any], said: str) -> None:
    _is_refused(lambda: rangefetch.fetch(URL, path, **options), said)
    _is_refused(lambda: asyncio.run(aio.fetch(URL, path, **options)), said)


@pytest.mark.parametrize("option", [{"save_dir": "a"}, {"filename": "a"}])
def test_a_stream_is_not_saved(option: dict[str, Any]) -> None:
    _is_refused(lambda: rangefetch.stream(URL, **option), *option)


@_each({name: values for name, values in STREAM.items() if name not in ("checksum", "mirrors", "decode")})
def test_those_of_head(name: str, value: Any) -> None:
    given = {"url": URL} | {name: value}
    _is_refused(lambda: rangefetch.head(**given), name)
    _is_refused(lambda: asyncio.run(aio.head(**given)), name)


@_each({name: values for name, values in FETCH.items() if name in ("url", "on_progress")})
def test_those_of_download_and_wait(name: str, value: Any) -> None:
    given = {"url": URL} | {name: value}
    _is_refused(lambda: DownloadManager().download_and_wait(**given), name)
    _is_refused(lambda: asyncio.run(aio.DownloadManager().download_and_wait(**given)), name)


@_each({"url": FETCH["url"], "options": [5, "split=4", {"split": 0}, {"splitt": 4}]})
def test_those_of_download(name: str, value: Any) -> None:
    given = {"url": URL} | {name: value}
    _is_refused(lambda: DownloadManager().download(**given), name, "split", "splitt")
    _is_refused(lambda: asyncio.run(aio.DownloadManager().download(**given)), name, "split", "splitt")


@_each(STREAM)
def test_those_of_stream(name: str, value: Any) -> None:
    _is_refused(lambda: rangefetch.stream(**({"url": URL} | {name: value})), name)


@_each(FETCH_MANY)
def test_those_of_fetch_many(name: str, value: Any) -> None:
    given = {"items": [URL], "directory": "made"} | {name: value}
    # For a wrong item, the message gives its index.
    said = ("items", "items[0]") if name == "items" else (name,)
    _is_refused(lambda: rangefetch.fetch_many(**given), *said)
    _is_refused(lambda: asyncio.run(aio.fetch_many(**given)), *said)
