"""Many small files in one go: what the engine does itself, and what it returns for Python to do."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.driving import Driver
from rangefetch._engine import Batch
from servers.misbehaving import MisbehavingServer, content, etag, http_date, modified
from support import children

pytestmark = pytest.mark.usefixtures("no_leaks")

DONE, RETURNED = 2, 3
KIB = 1 << 10


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "files"
    made.mkdir()
    return made


@pytest.fixture
def run(driver: Driver, directory: Path) -> Iterator[Callable[..., Batch]]:
    """Fetches (url, name) pairs into ``directory``, up to the end unless ``wait=False``."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)

    def run(items: list[tuple[str, str]], *, wait: bool = True, **options: Any) -> Batch:
        batch = Batch(fd, items, driver.profile, **options)
        driver.engine.add_batch(batch)
        if wait:
            assert driver.end(batch).kind == "DONE"
        return batch

    yield run
    driver.engine.close()
    os.close(fd)


def outcome(batch: Batch, directory: Path) -> tuple[list[int], list[str]]:
    """The items' states, and the names that are there."""
    return list(batch.states), sorted(path.name for path in directory.iterdir())


def test_every_file_has_its_own_bytes(run: Callable[..., Batch], server: MisbehavingServer, directory: Path) -> None:
    sizes = [1, 1000, 16 * KIB, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 300_000, 1024 * KIB] * 8
    items = [(server.url(f"/good/{number}", size=size, seed=number), f"{number}") for number, size in enumerate(sizes)]
    batch = run(items)
    assert set(batch.states) == {DONE}
    assert list(batch.sizes) == sizes
    for number, size in enumerate(sizes):
        path = directory / str(number)
        assert path.read_bytes() == content(size, number)
        assert int(path.stat().st_mtime) == modified(number)


def test_one_request_for_each_file_and_one_connection_for_each_lane(
    run: Callable[..., Batch], server: MisbehavingServer
) -> None:
    items = [(server.url(f"/good/{number}", size=16 * KIB, seed=number), f"{number}") for number in range(200)]
    batch = run(items, lanes=4)
    assert (len(server.requests), batch.requests) == (200, 200)
    assert server.connections == batch.connections <= 4


def test_the_next_batch_uses_the_connections_of_the_last(run: Callable[..., Batch], server: MisbehavingServer) -> None:
    for turn in range(5):
        run([(server.url("/good", size=1000, seed=turn), f"{turn}-{number}") for number in range(20)], lanes=3)
    assert server.connections <= 3


def test_what_was_said_of_an_item_that_comes_back_is_told(
    run: Callable[..., Batch], server: MisbehavingServer, directory: Path
) -> None:
    paths: list[tuple[str, dict[str, Any]]] = [
        ("/good", {}),
        ("/cut", {"after": 100}),
        ("/cut", {"after": 100, "etag": "none", "mtime": 0}),
        ("/status", {}),
    ]
    items = [(server.url(path, size=16 * KIB, **more), f"{at}") for at, (path, more) in enumerate(paths)]
    batch = run([*items, (server.url("/good", size=2048 * KIB), "large")])
    assert list(batch.states) == [DONE, RETURNED, RETURNED, RETURNED, RETURNED]
    tag, date = etag(16 * KIB, 0), http_date(modified(0))
    assert batch.told(0) is None
    assert batch.told(1) == (16 * KIB, tag, date)
    assert batch.told(2) == (16 * KIB, "", "")
    assert batch.told(3) is None
    assert batch.told(4) == (2048 * KIB, etag(2048 * KIB, 0), date)
    for place in (-1, 5):
        with pytest.raises(IndexError):
            batch.told(place)


def test_there_are_never_more_requests_at_a_time_than_lanes(
    run: Callable[..., Batch], server: MisbehavingServer
) -> None:
    url = server.url("/limited-connections", size=1000, limit=3, delay=0.001)
    batch = run([(url, f"{number}") for number in range(60)], lanes=3)
    assert set(batch.states) == {DONE}
    assert {request.status for request in server.requests} == {206}


def test_a_batch_of_nothing_is_over_at_once(run: Callable[..., Batch]) -> None:
    assert list(run([]).states) == []


@pytest.mark.parametrize(
    ("path", "parameters", "size"),
    [
        ("/empty", {}, 0),
        ("/empty-200", {}, 0),
        ("/no-ranges", {"size": 5000}, 5000),
        ("/no-length", {"size": 5000}, 5000),
        ("/chunked", {"size": 200_000}, 200_000),
        ("/chunked-ranges", {"size": 5000, "trailer": "X-Sum: 1"}, 5000),
        ("/http10", {"size": 5000}, 5000),
        ("/close-each", {"size": 5000}, 5000),
        ("/odd-headers", {"size": 5000}, 5000),
        ("/early-hints", {"size": 5000}, 5000),
        ("/weak-etag", {"size": 5000}, 5000),
    ],
)
def test_however_a_server_frames_a_small_file(
    run: Callable[..., Batch],
    server: MisbehavingServer,
    directory: Path,
    path: str,
    parameters: dict[str, Any],
    size: int,
) -> None:
    batch = run([(server.url(path, **parameters), "a"), (server.url("/good", size=10), "b")], lanes=1)
    assert outcome(batch, directory) == ([DONE, DONE], ["a", "b"])
    assert (directory / "a").read_bytes() == content(size)
    assert list(batch.sizes) == [size, 10]


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("/status", {"code": 404}),
        ("/status", {"code": 503}),
        ("/status", {"code": 416, "header": "Content-Range: bytes */100"}),
        ("/good", {"size": 1024 * KIB + 1}),
        ("/good", {"size": 64 << 20}),
        ("/disposition", {"size": 100}),
        ("/redirect", {"size": 100}),
        ("/redirect-loop", {}),
        ("/redirect-to-file-scheme", {}),
        ("/encoded", {"size": 100}),
        ("/good", {"size": 100, "header": "Transfer-Encoding: gzip"}),
        ("/garbage", {}),
        ("/whole-206", {"size": 100, "header": "Repr-Digest: sha-256=:AAAA:"}),
        ("/cut", {"size": 5000, "after": 100}),
        ("/cut", {"size": 5000, "headers": 0}),
        ("/reset", {"size": 200_000, "after": 100_000}),
        ("/short-body", {"size": 5000}),
        ("/short-range", {"size": 5000, "most": 1000}),
        ("/wrong-start", {"size": 5000}),
        ("/unknown-total", {"size": 5000}),
        ("/no-content-range", {"size": 5000}),
        ("/overflow", {"size": 5000, "framing": "chunked"}),
        ("/overflow", {"size": 5000, "framing": "length"}),
    ],
)
def test_what_is_out_of_the_ordinary_is_returned_and_leaves_nothing(
    run: Callable[..., Batch], server: MisbehavingServer, directory: Path, path: str, parameters: dict[str, Any]
) -> None:
    items = [
        (server.url("/good", size=100, seed=1), "before"),
        (server.url(path, **parameters), "odd"),
        (server.url("/good", size=100, seed=2), "after"),
    ]
    batch = run(items, lanes=1)
    assert outcome(batch, directory) == ([DONE, RETURNED, DONE], ["after", "before"])
    assert [batch.sizes[place] for place in (0, 2)] == [100, 100]
    assert (directory / "after").read_bytes() == content(100, 2)


@pytest.mark.parametrize("code", [204, 416])
def test_what_is_said_to_be_empty_is_asked_for_without_a_range(
    run: Callable[..., Batch], server: MisbehavingServer, directory: Path, code: int
) -> None:
    said: dict[str, Any] = {"code": code, "header": "Content-Range: bytes */0"}
    items = [
        (server.url("/status/a", **said), "empty"),
        (server.url("/range-of-nothing", size=200, code=code), "not empty"),
        (server.url("/good", size=100), "after"),
    ]
    batch = run(items, lanes=1)
    assert list(batch.states) == [DONE, DONE, DONE]
    assert (directory / "empty").read_bytes() == b""
    assert (directory / "not empty").read_bytes() == content(200)
    assert [(request.range is None, request.status) for request in server.requests] == [
        (False, code),
        (True, code),
        (False, code),
        (True, 200),
        (False, 206),
    ]
    assert server.connections == 1


def test_a_large_file_is_not_read_to_its_end(run: Callable[..., Batch], server: MisbehavingServer) -> None:
    run([(server.url("/good", size=64 << 20), "large")])
    server.wait_idle()
    assert server.bytes_sent <= 1024 * KIB
    assert server.requests[0].range == (0, 1024 * KIB)


def test_where_names_are_given_redirects_and_dispositions_change_nothing(
    run: Callable[..., Batch], server: MisbehavingServer, directory: Path
) -> None:
    items = [(server.url("/redirect", size=100), "a"), (server.url("/disposition", size=100), "b")]
    assert outcome(run(items, named_by_url=False), directory) == ([DONE, DONE], ["a", "b"])
    assert (directory / "a").read_bytes() == (directory / "b").read_bytes() == content(100)


def test_a_name_that_is_taken_is_returned_without_a_request(
    run: Callable[..., Batch], server: MisbehavingServer, directory: Path
) -> None:
    (directory / "a").write_bytes(b"mine")
    (directory / "b").symlink_to("nowhere")
    items = [(server.url("/good", size=100), name) for name in "abc"]
    assert outcome(run(items), directory) == ([RETURNED, RETURNED, DONE], ["a", "b", "c"])
    assert (directory / "a").read_bytes() == b"mine"
    assert len(server.requests) == 1


def test_a_name_that_is_taken_meanwhile_is_returned(
    run: Callable[..., Batch], driver: Driver, server: MisbehavingServer, directory: Path
) -> None:
    batch = run([(server.url("/stall", size=1000, after=10, seconds=0.3), "a")], wait=False)
    driver.until(lambda: server.requests)
    (directory / "a").write_bytes(b"mine")
    driver.end(batch)
    assert outcome(batch, directory) == ([RETURNED], ["a"])
    assert (directory / "a").read_bytes() == b"mine"


def test_overwriting_replaces_a_file_and_a_link_but_not_what_it_leads_to(
    run: Callable[..., Batch], server: MisbehavingServer, directory: Path, tmp_path: Path
) -> None:
    (directory / "a").write_bytes(b"old")
    (tmp_path / "elsewhere").write_bytes(b"kept")
    (directory / "b").symlink_to(tmp_path / "elsewhere")
    batch = run([(server.url("/good", size=100), name) for name in "ab"], overwrite=True)
    assert outcome(batch, directory) == ([DONE, DONE], ["a", "b"])
    assert (directory / "a").read_bytes() == (directory / "b").read_bytes() == content(100)
    assert (tmp_path / "elsewhere").read_bytes() == b"kept"


def test_removing_a_batch_keeps_what_is_whole_and_returns_the_rest(
    run: Callable[..., Batch], driver: Driver, server: MisbehavingServer, directory: Path
) -> None:
    items = [(server.url("/good", size=1000, seed=number), f"{number}") for number in range(5)]
    items += [(server.url("/stall", size=1000, after=500, id=number), f"stalled-{number}") for number in range(9)]
    batch = run(items, wait=False, lanes=2)
    driver.until(lambda: sum(state == DONE for state in batch.states) == 5 and len(server.requests) == 7)
    batch.remove()
    assert driver.end(batch).kind == "REMOVED"
    assert outcome(batch, directory) == ([DONE] * 5 + [RETURNED] * 9, [f"{number}" for number in range(5)])
    batch.remove()


def test_closing_the_engine_ends_a_batch(
    run: Callable[..., Batch], driver: Driver, server: MisbehavingServer, directory: Path
) -> None:
    batch = run([(server.url("/stall", size=1000, after=500), "a")], wait=False)
    driver.until(lambda: server.requests)
    driver.engine.close()
    assert outcome(batch, directory) == ([RETURNED], [])


def test_files_of_two_batches_may_come_at_once(
    run: Callable[..., Batch], driver: Driver, server: MisbehavingServer, directory: Path
) -> None:
    batches = [
        run([(server.url("/good", size=5000, seed=seed), f"{seed}-{n}") for n in range(40)], wait=False)
        for seed in range(3)
    ]
    for batch in batches:
        driver.end(batch)
    assert {state for batch in batches for state in batch.states} == {DONE}
    assert all((directory / f"{seed}-{n}").read_bytes() == content(5000, seed) for seed in range(3) for n in range(40))


def test_a_batch_is_added_once(run: Callable[..., Batch], driver: Driver) -> None:
    batch = run([])
    with pytest.raises(ValueError, match="once"):
        driver.engine.add_batch(batch)


@pytest.mark.parametrize("wrong", [{"lanes": 0}, {"first_bytes": 0}])
def test_numbers_that_make_no_sense_are_refused(driver: Driver, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Batch(0, [], driver.profile, **wrong)  # type: ignore[arg-type]


ENDLESS = """
    import os, sys
    from engine.driving import Driver
    from rangefetch._engine import Batch

    url, directory = sys.argv[1:]
    fd = os.open(directory, os.O_RDONLY)
    with Driver(directory) as driver:
        items = [(f"{url}&id={number}", f"{number:04}") for number in range(5000)]
        batch = Batch(fd, items, driver.profile, lanes=8)
        driver.engine.add_batch(batch)
        print("running", flush=True)
        driver.end(batch, 60)
"""


def test_a_kill_leaves_whole_files_and_nothing_else(server: MisbehavingServer, directory: Path) -> None:
    url = server.url("/slow", size=40_000, rate=800_000)
    with children.start(ENDLESS, url, directory) as child:
        assert child.stdout is not None
        child.stdout.readline()
        while len(list(directory.iterdir())) < 20:
            assert child.poll() is None, child.stderr and child.stderr.read()
        os.kill(child.pid, signal.SIGKILL)
    files = sorted(directory.iterdir())
    assert len(files) >= 20
    assert {path.read_bytes() for path in files} == {content(40_000)}
    assert all(len(path.name) == 4 for path in files)
