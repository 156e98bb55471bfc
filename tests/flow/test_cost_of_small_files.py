"""The cost of a small file, in function calls and objects."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import rangefetch
from rangefetch import DownloadManager
from rangefetch._engine import File
from rangefetch.manager import downloads_of
from rangefetch.native.small import Small
from rangefetch.transfer import dispatching
from rangefetch.transfer.download import Download
from servers.nginx import Nginx
from support.waiting import until

COUNT = 200
COSTLY = ("urlsplit", "_fscodec.<locals>.fsencode", "Condition.__init__", "PurePath.__str__", "PurePath.__truediv__")


@pytest.fixture
def urls(nginx: Nginx) -> list[str]:
    for number in range(COUNT):
        nginx.write(f"/small/{number}.bin", b"%d" % number)
    return [nginx.url(f"/small/{number}.bin") for number in range(COUNT)]


@contextlib.contextmanager
def counted() -> Iterator[Counter[str]]:
    """Counts the calls of each function on threads started in the meantime, which are the backend's."""
    calls: Counter[str] = Counter()

    def note(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call":
            calls[frame.f_code.co_qualname] += 1

    threading.setprofile(note)
    try:
        yield calls
    finally:
        threading.setprofile(None)


def test_what_costs_most_is_not_done_for_each_file(urls: list[str], tmp_path: Path) -> None:
    with counted() as calls, DownloadManager("native") as manager:
        for gid in [manager.download(url, {"save_dir": tmp_path}) for url in urls]:
            manager.wait(gid)
    assert calls["Small.__init__"] >= COUNT
    assert {name for name in COSTLY if calls[name] >= COUNT // 2} == set()


def test_few_functions_are_called_for_each_file(
    urls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the backend's thread. Each call takes at least 0.1 µs, during which no other Python code runs."""
    monkeypatch.setattr(dispatching, "_TICK_S", 3600.0)  # the number of ticks depends on the machine's speed
    with counted() as calls, DownloadManager("native") as manager:
        starts = downloads_of(manager).starts
        stopped: list[Download] = []

        def fetch(paths: list[str]) -> None:
            items = [(url, downloads_of(manager).defaults.check(url, {"save_dir": tmp_path})[1]) for url in paths]
            downloads = downloads_of(manager).submit_all(items, starts, stopped.append)
            until(lambda: len(stopped) == len(downloads))
            stopped.clear()

        fetch(urls[:1])  # work that is only done once, such as imports
        before = calls.total()
        fetch(urls[1:])
        assert calls["Small.__init__"] == COUNT
        # 23 if many begin at the same time, 32 if they begin in twos and threes; it used to be 95.
        assert calls.total() - before < 40 * COUNT


def test_how_to_ask_is_found_out_once_for_files_with_names_of_their_own(urls: list[str], tmp_path: Path) -> None:
    with counted() as calls, DownloadManager("native") as manager:
        options = [{"save_dir": tmp_path, "filename": f"other{number}"} for number in range(COUNT)]
        for gid in [manager.download(url, each) for url, each in zip(urls, options, strict=True)]:
            manager.wait(gid)
    assert calls["Small.__init__"] >= COUNT
    assert calls["profile_settings"] < COUNT // 4  # once a second


def test_small_files_leave_no_cycles(urls: list[str], tmp_path: Path) -> None:
    """Nothing of them is left to the garbage collector, which would have to search all objects of the program."""

    def there() -> int:
        return sum(isinstance(each, Small | File | Download) for each in gc.get_objects())

    rangefetch.fetch_many(urls[:1], tmp_path / "before")
    gc.collect()
    before = there()  # left by other tests
    gc.disable()
    try:
        results = rangefetch.fetch_many(urls, tmp_path)
        until(lambda: there() <= before)
    finally:
        gc.enable()
    assert [result.size for result in results] == [len(str(number)) for number in range(COUNT)]
