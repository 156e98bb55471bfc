"""The items of ``fetch_many``: their forms, and that a wrong one is named before anything is started."""

import multiprocessing
import threading
import time
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from rangefetch import DownloadError, DownloadOptions, DownloadResult, fetch_many
from servers.counting import CountingServer
from servers.misbehaving import MisbehavingServer, content
from support.downloads import QUICK
from support.files import names
from support.waiting import until

SIZE = 3000
GOOD = "http://127.0.0.1:9/good.bin"


@pytest.mark.parametrize(
    "make",
    [
        lambda url: (url, "name.bin"),
        lambda url: [url, "name.bin"],
        lambda url: (url, Path("name.bin")),
        lambda url: (url, {"filename": "name.bin"}),
        lambda url: [url, {"filename": "name.bin"}],
        lambda url: (url, DownloadOptions(filename="name.bin")),
        lambda url: {"url": url, "filename": "name.bin"},
    ],
)
def test_an_item_may_have_a_name_or_options(server: MisbehavingServer, tmp_path: Path, make: Any) -> None:
    items = [make(server.url("/good/x.bin", size=SIZE)), server.url("/good/other.bin", size=SIZE)]
    assert [result.filename for result in fetch_many(items, tmp_path, **QUICK)] == ["name.bin", "other.bin"]
    assert (tmp_path / "name.bin").read_bytes() == content(SIZE)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("http://127.0.0.1:99999/file.bin", r"items\[2\]: .*Port out of range"),
        ("http://127.0.0.1:60000000/x", r"items\[2\]: .*Port out of range"),
        ("http://127.0.0.1:0/file.bin", r"items\[2\]: .*port 0"),
        ("http://127.0.0.1:abc/x", r"items\[2\]: .*Port could not be cast"),
        ("http://127.0.0.1:-1/x", r"items\[2\]: "),
        ("", r"items\[2\]: .*no URL scheme"),
        ("http://127.0.0.1/a b", r"items\[2\]: .*space"),
        (5, r"items\[2\]: "),
        (None, r"items\[2\]: expected a URL, \(url, name\), \(url, options\), or a mapping"),
        (b"http://127.0.0.1/x", r"items\[2\]: expected a URL"),
        ((GOOD, 5), r"items\[2\]: expected a URL, \(url, name\)"),
        ((GOOD,), r"items\[2\]: expected a URL.* not 1 values"),
        ((GOOD, "a", "b"), r"items\[2\]: expected a URL.* not 3 values"),
        ((GOOD, "d/name"), r"items\[2\]: filename: .*save_dir"),
        ((GOOD, {"split": 0}), r"items\[2\]: split: 0 is out of range"),
        ((GOOD, {"splitt": 4}), r"items\[2\]: 'splitt': unknown option"),
        ((GOOD, {"options": None}), r"items\[2\]: 'options': unknown option"),
        ((GOOD, {5: 4}), r"items\[2\]: 5: unknown option"),
        ({"link": GOOD}, r"items\[2\]: .* has no 'url'"),
        ({"url": 5}, r"items\[2\]: "),
    ],
)
def test_a_wrong_item_is_named_by_its_place_and_nothing_is_begun(
    server: MisbehavingServer, tmp_path: Path, item: Any, words: str
) -> None:
    directory = tmp_path / "directory"
    urls = [server.url(f"/good/{number}.bin", size=SIZE) for number in range(2)]
    with pytest.raises((ValueError, TypeError), match=words):
        fetch_many([*urls, item, urls[0]], directory)
    assert not directory.exists()
    assert server.requests == []


@pytest.mark.parametrize("items", [GOOD, GOOD.encode(), {GOOD: "name"}, None, 5])
def test_what_is_no_list_is_refused_with_that_word(items: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="expected a list"):
        fetch_many(items, tmp_path)


def test_one_name_for_many_is_an_error(server: MisbehavingServer, tmp_path: Path) -> None:
    urls = [server.url(f"/good/{number}.bin", size=SIZE) for number in range(2)]
    one_name: Any = {"filename": "x"}
    with pytest.raises(ValueError, match="filename: 'x' is one name for 2 files"):
        fetch_many(urls, tmp_path, **one_name)
    assert names(tmp_path) == []
    assert fetch_many(urls[:1], tmp_path, **one_name)[0].filename == "x"


# ---- Workers -----------------------------------------------------------------------------------------------------


def _die_when(executor: Executor, is_due: Any) -> threading.Thread:
    """Start a thread that kills a worker once ``is_due()`` is true."""

    def kill() -> None:
        until(is_due)
        assert isinstance(executor, ProcessPoolExecutor)
        psutil.Process(next(iter(executor._processes))).kill()

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


def test_a_worker_that_is_lost_costs_what_it_had_not_finished(tmp_path: Path) -> None:
    with (
        CountingServer(delay_s=0.1) as server,
        ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as executor,
    ):
        urls = [server.url(f"f{number:03}.bin") for number in range(400)]
        thread = _die_when(executor, lambda: len(names(tmp_path)) > 40)
        outcomes = fetch_many(urls, tmp_path, executor=executor, on_error="return", max_concurrent_downloads=8)
        thread.join()
    done = [outcome for outcome in outcomes if isinstance(outcome, DownloadResult)]
    assert len(done) > 20
    assert all(result.path.read_bytes() == b"x" * server.size for result in done)
    lost = [outcome for outcome in outcomes if isinstance(outcome, DownloadError)]
    assert lost
    assert all("worker" in str(error) for error in lost)
    assert {error.url for error in lost} == {
        url for url, outcome in zip(urls, outcomes, strict=True) if outcome in lost
    }


def test_a_pool_that_is_broken_already_is_no_exception_of_its_own(tmp_path: Path) -> None:
    executor = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    executor.submit(time.sleep, 0).result()
    psutil.Process(next(iter(executor._processes))).kill()
    until(lambda: executor._broken)
    [outcome] = fetch_many([GOOD], tmp_path, executor=executor, on_error="return")
    assert isinstance(outcome, DownloadError)
    executor.shutdown()
