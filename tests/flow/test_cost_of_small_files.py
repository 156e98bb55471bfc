"""What a small file costs, counted."""

from __future__ import annotations

import gc
import threading
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import rangefetch
from rangefetch import DownloadManager
from rangefetch._engine import File
from rangefetch.native.small import Small
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


def test_what_costs_most_is_not_done_for_each_file(urls: list[str], tmp_path: Path) -> None:
    """On the backend's thread, on which all that is done is done for every file in turn."""
    calls: Counter[str] = Counter()

    def note(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call":
            calls[frame.f_code.co_qualname] += 1

    threading.setprofile(note)
    try:
        with DownloadManager("native") as manager:
            for gid in [manager.download(url, {"save_dir": tmp_path}) for url in urls]:
                manager.wait(gid)
    finally:
        threading.setprofile(None)
    assert calls["Small.handle"] >= COUNT
    assert {name for name in COSTLY if calls[name] >= COUNT // 2} == set()


def test_small_files_leave_no_cycles(urls: list[str], tmp_path: Path) -> None:
    """Nothing of them has to wait for the collector, which looks through a whole program to find it."""
    rangefetch.fetch_many(urls[:1], tmp_path / "before")
    gc.collect()
    gc.disable()
    try:
        results = rangefetch.fetch_many(urls, tmp_path)
        until(lambda: not any(isinstance(each, Small | File | Download) for each in gc.get_objects()))
    finally:
        gc.enable()
    assert [result.size for result in results] == [len(str(number)) for number in range(COUNT)]
