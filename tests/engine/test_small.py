"""Small files: what the engine does by itself, and when it holds a transfer until Python gives the file a place."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.driving import Driver
from rangefetch._engine import File
from rangefetch.disk import provenance
from servers.misbehaving import MisbehavingServer, content, modified
from support import children
from support.waiting import until

pytestmark = pytest.mark.usefixtures("no_leaks")

KIB = 1 << 10
_OUTCOMES = {"DONE", "REMOVED", "HELD", "FAILED"}

Begin = Callable[..., list[File]]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "files"
    made.mkdir()
    return made


@pytest.fixture
def begin(driver: Driver, directory: Path) -> Iterator[Begin]:
    """Starts fetching (url, name) pairs into ``directory``."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)

    def begin(items: Sequence[tuple[str, str]], **options: Any) -> list[File]:
        return [driver.small(url, fd, name, **options) for url, name in items]

    yield begin
    driver.engine.close()
    os.close(fd)


def outcomes(driver: Driver, files: Sequence[File]) -> list[str]:
    """The last event of each file, once all have ended or are held."""
    driver.until(lambda: all(_OUTCOMES.intersection(driver.names(file)) for file in files))
    return [driver.names(file)[-1] for file in files]


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_every_file_has_its_own_bytes(driver: Driver, begin: Begin, server: MisbehavingServer, directory: Path) -> None:
    sizes = [1, 1000, 16 * KIB, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 300_000, 1024 * KIB] * 8
    items = [(server.url(f"/good/{number}", size=size, seed=number), f"{number}") for number, size in enumerate(sizes)]
    files = begin(items, host_lanes=8)
    assert outcomes(driver, files) == ["DONE"] * len(sizes)
    assert [file.size for file in files] == sizes
    for number, size in enumerate(sizes):
        path = directory / str(number)
        assert path.read_bytes() == content(size, number)
        assert int(path.stat().st_mtime) == modified(number)


def test_one_request_for_each_file_and_no_more_connections_than_there_may_be(
    driver: Driver, begin: Begin, server: MisbehavingServer
) -> None:
    items = [(server.url(f"/good/{number}", size=16 * KIB, seed=number), f"{number}") for number in range(200)]
    files = begin(items, host_lanes=4)
    assert set(outcomes(driver, files)) == {"DONE"}
    assert (len(server.requests), sum(file.requests for file in files)) == (200, 200)
    assert server.connections == sum(file.connections for file in files) <= 4


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
        ("/status", {"code": 204}, 0),
    ],
)
def test_however_a_server_frames_a_small_file(
    driver: Driver,
    begin: Begin,
    server: MisbehavingServer,
    directory: Path,
    path: str,
    parameters: dict[str, Any],
    size: int,
) -> None:
    files = begin([(server.url(path, **parameters), "a"), (server.url("/good", size=10), "b")], host_lanes=1)
    assert outcomes(driver, files) == ["DONE", "DONE"]
    assert names(directory) == ["a", "b"]
    assert (directory / "a").read_bytes() == content(size)
    assert [file.size for file in files] == [size, 10]


@pytest.mark.parametrize(
    ("path", "parameters", "heard"),
    [
        ("/status", {"code": 404}, "FAILED"),
        ("/status", {"code": 503}, "FAILED"),
        ("/good", {"size": 1024 * KIB + 1}, "HELD"),
        ("/good", {"size": 64 << 20}, "HELD"),
        ("/disposition", {"size": 100}, "HELD"),
        ("/redirect", {"size": 100}, "HELD"),
        ("/redirect-loop", {}, "FAILED"),
        ("/redirect-to-file-scheme", {}, "FAILED"),
        ("/encoded", {"size": 100}, "FAILED"),
        ("/good", {"size": 100, "header": "Transfer-Encoding: gzip"}, "FAILED"),
        ("/garbage", {}, "FAILED"),
        ("/whole-206", {"size": 100, "header": "Repr-Digest: sha-256=:AAAA:"}, "HELD"),
        ("/cut", {"size": 5000, "after": 100}, "FAILED"),
        ("/cut", {"size": 5000, "headers": 0}, "FAILED"),
        ("/reset", {"size": 200_000, "after": 100_000}, "FAILED"),
        ("/short-body", {"size": 5000}, "FAILED"),
        ("/short-range", {"size": 5000, "most": 1000}, "HELD"),
        ("/wrong-start", {"size": 5000}, "FAILED"),
        ("/unknown-total", {"size": 5000}, "FAILED"),
        ("/no-content-range", {"size": 5000}, "FAILED"),
        ("/overflow", {"size": 5000, "framing": "chunked"}, "FAILED"),
        ("/overflow", {"size": 5000, "framing": "length"}, "FAILED"),
    ],
)
def test_what_is_out_of_the_ordinary_is_pythons_to_decide_and_leaves_nothing(
    driver: Driver,
    begin: Begin,
    server: MisbehavingServer,
    directory: Path,
    path: str,
    parameters: dict[str, Any],
    heard: str,
) -> None:
    before, odd, after = begin(
        [
            (server.url("/good", size=100, seed=1), "before"),
            (server.url(path, **parameters), "odd"),
            (server.url("/good", size=100, seed=2), "after"),
        ]
    )
    assert outcomes(driver, [before, odd, after]) == ["DONE", heard, "DONE"]
    assert names(directory) == ["after", "before"]
    driver.until(lambda: odd.waiting_for == "decision")
    odd.remove()
    assert driver.end(odd).name == "REMOVED"
    assert names(directory) == ["after", "before"]


# ---- A place of its own ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "size"),
    [
        ("/good", 1024 * KIB + 1),
        ("/good", 9 << 20),
        ("/disposition", 100),
        ("/redirect", 5000),
        ("/no-ranges", 3 << 20),
    ],
)
def test_with_a_place_it_goes_on_and_nothing_is_requested_twice(
    driver: Driver, begin: Begin, server: MisbehavingServer, directory: Path, path: str, size: int
) -> None:
    (file,) = begin([(server.url(path, size=size, seed=3), "a")], least_bytes=1 << 20)
    assert outcomes(driver, [file]) == ["HELD"]
    with (directory / "place").open("w+b") as place:
        file.lanes = 4
        file.place(place.fileno())
        assert driver.end(file).name == "DONE"
    assert [kind for kind in driver.names(file) if kind != "HELD"] == ["ANSWERED", "DONE"]
    assert names(directory) == ["place"]
    assert (directory / "place").read_bytes() == content(size, 3)
    assert file.responses >= 1
    starts = [request.range[0] if request.range else 0 for request in server.requests if request.status < 300]
    assert starts.count(0) == 1


@pytest.mark.parametrize(
    ("path", "parameters", "heard"),
    [
        ("/cut", {"after": 100, "times": 1}, ["ANSWERED", "FAILED"]),
        ("/reset", {"after": 100_000, "times": 1}, ["ANSWERED", "FAILED"]),
        ("/status", {"code": 503, "times": 1}, ["FAILED"]),
        ("/short-range", {"most": 70_000}, ["ANSWERED", "HELD"]),
    ],
)
def test_with_a_place_it_goes_on_from_what_had_come(
    driver: Driver,
    begin: Begin,
    server: MisbehavingServer,
    directory: Path,
    path: str,
    parameters: dict[str, Any],
    heard: list[str],
) -> None:
    (file,) = begin([(server.url(path, size=200_000, **parameters), "a")])
    outcomes(driver, [file])
    assert driver.names(file) == heard
    came = file.downloaded
    with (directory / "place").open("w+b") as place:
        file.place(place.fileno())
        file.release()
        assert driver.end(file).name == "DONE"
    assert names(directory) == ["place"]
    assert (directory / "place").read_bytes() == content(200_000)
    asked = [request.range[0] for request in server.requests if request.range]
    assert asked[:2] == [0, came]


def test_a_file_whose_name_is_taken_at_the_last_moment_is_whole_when_it_has_a_place(
    driver: Driver, begin: Begin, server: MisbehavingServer, directory: Path
) -> None:
    (file,) = begin([(server.url("/stall", size=1000, after=10, seconds=0.3), "a")])
    driver.until(lambda: server.requests)
    (directory / "a").write_bytes(b"mine")
    outcomes(driver, [file])
    with (directory / "place").open("w+b") as place:
        file.place(place.fileno())
        assert driver.end(file).name == "DONE"
    assert (directory / "place").read_bytes() == content(1000)
    assert len(server.requests) == 1


@pytest.mark.parametrize(("path", "parameters"), [("/good", {}), ("/cut", {"after": 0})])
def test_what_has_no_place_yet_can_be_removed(
    driver: Driver, begin: Begin, server: MisbehavingServer, directory: Path, path: str, parameters: dict[str, int]
) -> None:
    (file,) = begin([(server.url(path, size=9 << 20, **parameters), "a")])
    outcomes(driver, [file])
    file.remove()
    assert driver.end(file).name == "REMOVED"
    assert names(directory) == []


def test_a_large_file_is_not_read_before_it_has_a_place(
    driver: Driver, begin: Begin, server: MisbehavingServer
) -> None:
    (file,) = begin([(server.url("/good", size=64 << 20), "large")])
    assert outcomes(driver, [file]) == ["HELD"]
    assert (file.received_bytes, server.requests[0].range) == (0, (0, 4 << 20))


# ---- Names -------------------------------------------------------------------------------------------------------


def test_where_the_name_is_given_a_disposition_changes_nothing(
    driver: Driver, begin: Begin, server: MisbehavingServer, directory: Path
) -> None:
    files = begin([(server.url("/disposition", size=100), "b")], named_by_url=False)
    assert outcomes(driver, files) == ["DONE"]
    assert (directory / "b").read_bytes() == content(100)


def test_a_name_that_is_taken_or_begun_leads_to_python_without_a_request(
    driver: Driver, begin: Begin, server: MisbehavingServer, directory: Path
) -> None:
    (directory / "a").write_bytes(b"mine")
    (directory / "b").symlink_to("nowhere")
    (directory / "c.part").write_bytes(b"begun")
    files = begin([(server.url("/good", size=100), name) for name in "abcd"])
    assert outcomes(driver, files) == ["HELD", "HELD", "HELD", "DONE"]
    assert (directory / "a").read_bytes() == b"mine"
    assert len(server.requests) == 1


def test_a_name_that_is_taken_meanwhile_leads_to_python(
    driver: Driver, begin: Begin, server: MisbehavingServer, directory: Path
) -> None:
    (file,) = begin([(server.url("/stall", size=1000, after=10, seconds=0.3), "a")])
    driver.until(lambda: server.requests)
    (directory / "a").write_bytes(b"mine")
    assert outcomes(driver, [file]) == ["HELD"]
    assert names(directory) == ["a"]
    assert (directory / "a").read_bytes() == b"mine"


def test_overwriting_replaces_a_file_and_a_link_but_not_what_it_leads_to(
    driver: Driver, begin: Begin, server: MisbehavingServer, directory: Path, tmp_path: Path
) -> None:
    (directory / "a").write_bytes(b"old")
    (tmp_path / "elsewhere").write_bytes(b"kept")
    (directory / "b").symlink_to(tmp_path / "elsewhere")
    files = begin([(server.url("/good", size=100), name) for name in "ab"], overwrite=True)
    assert outcomes(driver, files) == ["DONE", "DONE"]
    assert names(directory) == ["a", "b"]
    assert (directory / "a").read_bytes() == (directory / "b").read_bytes() == content(100)
    assert (tmp_path / "elsewhere").read_bytes() == b"kept"


def test_where_it_came_from_is_kept_with_the_file(
    driver: Driver, begin: Begin, server: MisbehavingServer, directory: Path
) -> None:
    url = server.url("/good/a", size=100, seed=2)
    (file,) = begin([(url, "a")], origin=provenance.beginning(url))
    assert outcomes(driver, [file]) == ["DONE"]
    fd = os.open(directory / "a", os.O_RDONLY)
    origin = provenance.recall(fd)
    os.close(fd)
    assert origin == provenance.Origin(provenance.public_url(url), *file.validators())


# ---- The end -----------------------------------------------------------------------------------------------------


def test_what_is_removed_leaves_nothing(
    driver: Driver, begin: Begin, server: MisbehavingServer, directory: Path
) -> None:
    files = begin([(server.url("/stall", size=1000, after=500, id=number), f"{number}") for number in range(9)])
    driver.until(lambda: len(server.requests) == 9)
    for file in files:
        file.remove()
    for file in files:
        assert driver.end(file).name == "REMOVED"
        file.remove()
    assert names(directory) == []


def test_closing_the_engine_ends_it(driver: Driver, begin: Begin, server: MisbehavingServer, directory: Path) -> None:
    begin([(server.url("/stall", size=1000, after=500), "a"), (server.url("/good", size=9 << 20), "b")])
    driver.until(lambda: len(server.requests) == 2)
    driver.engine.close()
    assert names(directory) == []


def test_numbers_that_make_no_sense_are_refused(driver: Driver) -> None:
    file = File(-1, "http://127.0.0.1/", driver.profile)
    with pytest.raises(ValueError, match="largest_bytes"):
        file.be_small(0, "a", ("a.part",), largest_bytes=0)
    file.be_small(0, "a", ("a.part",))
    with pytest.raises(ValueError, match="once"):
        file.be_small(0, "a", ("a.part",))
    with pytest.raises(ValueError, match="fd"):
        file.place(-1)


ENDLESS = """
    import os, sys
    from engine.driving import Driver

    url, directory = sys.argv[1:]
    fd = os.open(directory, os.O_RDONLY)
    with Driver(directory) as driver:
        files = [driver.small(f"{url}&id={number}", fd, f"{number:04}", host_lanes=8) for number in range(2000)]
        print("running", flush=True)
        for file in files:
            driver.end(file, 60)
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


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_what_is_only_compared_takes_no_room_on_the_disk(
    driver: Driver, begin: Begin, server: MisbehavingServer, directory: Path
) -> None:
    (directory / "there").write_bytes(content(200_000))
    (file,) = begin([(server.url("/stall", size=200_000, after=100_000), "there")], compares=True)
    driver.until(lambda: file.downloaded)
    opened = {os.path.realpath(path) for path in Path("/proc/self/fd").iterdir()}
    assert any(path.startswith("/memfd:rangefetch") for path in opened)
    assert not any(path.startswith(f"{directory}/") for path in opened)
    file.remove()
    driver.end(file)


def test_files_are_added_together_up_to_one_that_cannot_be(
    driver: Driver, server: MisbehavingServer, tmp_path: Path
) -> None:
    descriptors = [os.open(tmp_path / str(number), os.O_RDWR | os.O_CREAT) for number in range(3)]
    url = server.url("/good/x", size=KIB)
    files = [File(fd, url, driver.profile) for fd in descriptors]
    with pytest.raises(ValueError, match="added already"):
        driver.engine.add_all([files[0], files[1], files[0], files[2]], [0, 0, 0, 0])
    with pytest.raises(ValueError, match="loops"):
        driver.engine.add_all(files[2:], [])
    with pytest.raises(ValueError, match="no such loop"):
        driver.engine.add_all(files[2:], [64])
    with pytest.raises(TypeError):
        driver.engine.add_all([None], [0])  # type: ignore[list-item]  # wrong on purpose
    assert outcomes(driver, files[:2]) == ["DONE", "DONE"]
    driver.engine.add_all(files[2:], [0])
    assert outcomes(driver, files) == ["DONE"] * 3
    for fd in descriptors:
        os.close(fd)


def test_small_files_that_come_whole_are_told_of_as_such(
    driver: Driver, begin: Begin, server: MisbehavingServer, directory: Path
) -> None:
    """If there is a list for them. A file that is not small, or fails, still causes an event."""
    paths = {"whole": "/good/whole", "none": "/status/404"}
    files = begin([(server.url(path, size=KIB), name) for name, path in paths.items()])
    whole: list[File] = []
    told: list[tuple[Any, ...]] = []

    def hear() -> bool:
        told.extend(driver.engine.events(whole))
        return bool(whole) and any(event[0] == "FAILED" for event in told)

    until(hear)
    assert [file.tag for file in whole] == ["whole"]
    assert {event[1].tag for event in told} == {"none"}
    assert whole[0].size == KIB
    assert whole[0].lasted_us > 0
    assert names(directory) == ["whole"]
    files[1].remove()
