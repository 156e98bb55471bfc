"""A stopped download resumes where it stopped, to the byte."""

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rangefetch import DownloadManager, DownloadStatus
from servers.directed import Valve
from servers.misbehaving import MisbehavingServer, content
from support.downloads import QUICK, downloaded, fetch, interrupt
from support.files import MIB, begun, names, read_state, saved_bytes
from support.waiting import until

SIZE = 9 * MIB + 12_345


def _where(target: Path) -> dict[str, object]:
    return QUICK | {"save_dir": target.parent, "filename": target.name}


@pytest.mark.parametrize("at_least", [1, 200_000, MIB + 1, 3 * MIB])
def test_what_was_saved_is_not_fetched_again(
    server: MisbehavingServer, valve: Valve, target: Path, at_least: int
) -> None:
    url = server.url("/valve/x", size=SIZE)
    kept = interrupt(url, target, at_least)
    assert kept >= at_least
    valve.open()
    server.clear()
    result = fetch(url, target, split=1)
    assert target.read_bytes() == content(SIZE)
    assert names(target.parent) == ["file.bin"]
    assert result.resumed == kept
    assert server.bytes_sent == SIZE - kept


def test_a_server_that_takes_an_end_of_0_for_none_gives_parts_all_the_same(
    server: MisbehavingServer, target: Path
) -> None:
    # The validator is weak, so the data is compared first. That begins by asking what the server has.
    url = server.url("/first-byte-is-all/x", size=SIZE, etag="none", rate=8 * MIB)
    kept = interrupt(url, target, MIB)
    result = fetch(url, target)
    assert target.read_bytes() == content(SIZE)
    assert result.resumed == kept


def test_a_pause_loses_no_byte_that_had_come(server: MisbehavingServer, target: Path) -> None:
    # Slow enough that only a few KiB are under way when the pause comes.
    rate, lanes = 100_000, 3
    url = server.url("/script/x", size=SIZE, steps="|".join([f"slow:rate={rate}"] * lanes))
    kept = interrupt(url, target, 150_000, split=lanes, min_split_size=1)
    server.wait_idle()
    under_way = lanes * rate // 20
    assert 0 <= server.bytes_sent - kept <= 2 * under_way
    before = server.bytes_sent
    result = fetch(url, target, split=1)
    assert target.read_bytes() == content(SIZE)
    assert result.resumed == kept
    assert server.bytes_sent - before == SIZE - kept


def test_it_may_be_stopped_again_and_again(server: MisbehavingServer, valve: Valve, target: Path) -> None:
    url = server.url("/valve/x", size=SIZE)
    kept = [interrupt(url, target, n * MIB, min_split_size=1) for n in range(1, 4)]
    assert kept == sorted(kept)
    valve.open()
    result = fetch(url, target)
    assert target.read_bytes() == content(SIZE)
    assert result.resumed == kept[-1]


@pytest.mark.parametrize("lanes", [1, 5])
def test_pause_and_resume_go_on_in_one_manager(
    server: MisbehavingServer, valve: Valve, target: Path, manager: DownloadManager, lanes: int
) -> None:
    url = server.url("/valve/x", size=SIZE)
    gid = manager.download(url, {**_where(target), "split": lanes})
    until(lambda: downloaded(manager, gid) > MIB)
    manager.pause(gid)
    until(lambda: manager.get_download_progress(gid).status is DownloadStatus.PAUSED)
    assert names(target.parent) == begun(target)
    kept = downloaded(manager, gid)
    assert saved_bytes(target) == kept
    server.wait_idle()
    before = server.bytes_sent
    valve.open()
    manager.resume(gid)
    result = manager.wait(gid)
    assert target.read_bytes() == content(SIZE)
    assert result.resumed == kept
    if lanes == 1:  # several lanes may help each other, so that some bytes are sent twice
        assert server.bytes_sent - before == SIZE - kept


def test_all_options_may_differ_in_the_second_run(server: MisbehavingServer, valve: Valve, target: Path) -> None:
    url = server.url("/valve/x", size=SIZE)
    kept = interrupt(url, target, MIB, split=1, file_allocation="none")
    valve.open()
    result = fetch(url, target, split=16, min_split_size=1, headers={"X-A": "b"}, durable=True, http_version="2")
    assert target.read_bytes() == content(SIZE)
    assert result.resumed == kept


@pytest.mark.parametrize("allocation", ["falloc", "trunc", "none"])
def test_each_way_to_allocate_can_be_resumed(
    server: MisbehavingServer, valve: Valve, target: Path, allocation: str
) -> None:
    url = server.url("/valve/x", size=SIZE)
    kept = interrupt(url, target, MIB, min_split_size=1, file_allocation=allocation)
    part_size = target.with_name("file.bin.part").stat().st_size
    assert part_size <= SIZE if allocation == "none" else part_size == SIZE
    valve.open()
    assert fetch(url, target, file_allocation=allocation).resumed == kept
    assert target.read_bytes() == content(SIZE)


@pytest.mark.parametrize("tag", ['"naïve"', '"\xff\xfe"', '"a\\"b"', '""', f'"{"x" * 200}"', f'"{"x" * 300}"'])
def test_an_odd_validator_survives_a_stop(server: MisbehavingServer, valve: Valve, target: Path, tag: str) -> None:
    url = server.url("/valve/x", size=SIZE, etag="none", header=f"ETag: {tag}")
    kept = interrupt(url, target, MIB)
    valve.open()
    assert fetch(url, target).resumed == kept
    assert target.read_bytes() == content(SIZE)


@pytest.mark.parametrize("route", ["no-ranges", "no-length", "chunked"])
def test_of_a_server_without_ranges_nothing_is_kept(
    server: MisbehavingServer, target: Path, manager: DownloadManager, route: str
) -> None:
    gid = manager.download(server.url(f"/{route}/x", size=SIZE, rate="1M"), _where(target))
    until(lambda: downloaded(manager, gid) > 0)
    manager.stop()
    assert names(target.parent) == []


def test_a_server_that_has_lost_its_ranges_gives_the_whole(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/script/x", size=SIZE, steps="slow:rate=500K", then="no-ranges")
    interrupt(url, target, 100_000, split=1)
    fetch(url, target)
    assert target.read_bytes() == content(SIZE)
    assert names(target.parent) == ["file.bin"]


@contextmanager
def _names_seen(directory: Path) -> Iterator[set[str]]:
    """Collects all names that are in the directory at any time."""
    seen: set[str] = set()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            seen.update(names(directory))
        seen.update(names(directory))

    looker = threading.Thread(target=look)
    looker.start()
    try:
        yield seen
    finally:
        over.set()
        looker.join()


def test_a_download_of_less_than_two_seconds_leaves_no_state(server: MisbehavingServer, target: Path) -> None:
    with _names_seen(target.parent) as seen:
        fetch(server.url("/shared-rate/x", size=6 * MIB, rate="4M"), target)
    assert seen == {"file.bin", "file.bin.part"}


def test_the_final_name_is_given_to_the_finished_part(
    server: MisbehavingServer, valve: Valve, target: Path, manager: DownloadManager
) -> None:
    gid = manager.download(server.url("/valve/x", size=2 * MIB), _where(target))
    part = target.with_name("file.bin.part")
    until(lambda: downloaded(manager, gid) > 0)
    inode = part.stat().st_ino
    assert not target.exists()
    valve.open()
    manager.wait(gid)
    assert target.stat().st_ino == inode
    assert target.stat().st_nlink == 1
    assert names(target.parent) == ["file.bin"]


def test_a_state_is_there_after_two_seconds_and_tells_no_lie(
    server: MisbehavingServer, valve: Valve, target: Path, manager: DownloadManager
) -> None:
    size = 24 * MIB
    gid = manager.download(server.url("/valve/x", size=size), _where(target))
    state_path = target.with_name("file.bin.part.json")
    until(state_path.exists)
    saved, part = read_state(target), target.with_name("file.bin.part").read_bytes()
    assert saved
    assert state_path.stat().st_mode & 0o777 == 0o600
    assert (saved.url, saved.total_size) == (server.url("/valve/x", size=size), size)
    for index, block in enumerate(saved.blocks):
        start = index * saved.block_size
        end = start + (saved.block_size if block == 2 else saved.partial.get(index, 0))
        assert part[start:end] == content(size)[start:end]
    assert saved_bytes(target) > 4 * MIB
    valve.open()
    manager.wait(gid)
    assert names(target.parent) == ["file.bin"]


@pytest.mark.parametrize("proof", ["etag", "compared", "checksum"])
def test_what_others_append_to_the_part_file_is_not_published(
    server: MisbehavingServer, valve: Valve, target: Path, proof: str
) -> None:
    url = server.url("/valve/x", size=SIZE, etag="strong" if proof == "etag" else "none")
    interrupt(url, target, 2 * MIB)
    part = target.with_name(target.name + ".part")
    with part.open("ab") as file:
        file.write(b"\xee" * SIZE)
    valve.open()
    checksum = f"sha-256={hashlib.sha256(content(SIZE)).hexdigest()}" if proof == "checksum" else ""
    assert fetch(url, target, checksum=checksum).resumed > MIB
    assert target.read_bytes() == content(SIZE)


def test_what_others_append_meanwhile_is_not_published(
    server: MisbehavingServer, valve: Valve, target: Path, manager: DownloadManager
) -> None:
    gid = manager.download(server.url("/valve/x", size=SIZE), _where(target))
    until(lambda: downloaded(manager, gid) > MIB)
    os.truncate(target.with_name(target.name + ".part"), 2 * SIZE)
    valve.open()
    manager.wait(gid, timeout=20)
    assert target.read_bytes() == content(SIZE)
