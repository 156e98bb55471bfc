"""Saving while bytes arrive: only bytes that are in the file are saved, which depends on the order of reading."""

from __future__ import annotations

import array
import dataclasses
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rangefetch.disk import state
from rangefetch.disk.control_file import to_control_file
from rangefetch.disk.state import DONE, SourceState, State
from rangefetch.disk.target import Target
from rangefetch.errors import DiskError
from rangefetch.net.sources import Sources
from rangefetch.transfer import saving

URL = "http://h/x"
BLOCK = 1 << 20
MISSING, CLAIMED = 0, 1


class File:
    """The engine's file, which changes while it is read: ``meanwhile`` is called after the first of two reads."""

    block_size = BLOCK
    size = 3 * BLOCK
    source_count = 1

    def __init__(self, states: list[int], written: list[int], meanwhile: Callable[[File], None] | None = None) -> None:
        self.states = states
        self.written = written
        self._meanwhile = meanwhile

    def _looked(self) -> None:
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is not None:
            meanwhile(self)

    @property
    def blocks(self) -> bytes:
        seen = bytes(self.states)
        self._looked()
        return seen

    @property
    def partial(self) -> array.array[int]:
        seen = array.array("I", self.written)
        self._looked()
        return seen

    def validators(self, _: int) -> tuple[str, str]:
        return ('"a"', "")


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    target = Target.open(tmp_path, "file.bin", URL)
    os.ftruncate(target.fd, File.size)
    yield target
    target.close()


def saved(target: Target, file: Any, save: Callable[..., object] = saving.save) -> state.State:
    save(target, file, Sources(URL))
    return state.load(target.state_path)


def test_bytes_that_are_taken_back_between_the_two_looks_are_not_saved(target: Target) -> None:
    def take_back(file: File) -> None:
        file.states[1], file.written[1] = MISSING, 0

    found = saved(target, File([DONE, CLAIMED, MISSING], [0, 1000, 0], take_back))
    assert (found.blocks, found.partial) == (bytes([DONE, 0, 0]), {})


def test_bytes_that_arrive_between_the_two_looks_do_no_harm(target: Target) -> None:
    def go_on(file: File) -> None:
        file.states[1], file.written[2] = DONE, 500

    found = saved(target, File([DONE, CLAIMED, CLAIMED], [0, 1000, 0], go_on))
    # The second block is complete by now, but was not when its state was read.
    assert (found.blocks, found.partial) == (bytes([DONE, 0, 0]), {1: 1000, 2: 500})


def test_what_is_saved_was_looked_at_before_the_sync(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    file = File([DONE, MISSING, MISSING], [0, 0, 0])
    synced = Target.sync

    def sync(target: Target) -> None:
        synced(target)
        file.states[1] = DONE  # this block was not synced

    monkeypatch.setattr(Target, "sync", sync)
    assert saved(target, file).blocks == bytes([DONE, 0, 0])


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("save", [saving.save_on_the_way, saving.save_at_the_end])
def test_after_a_failed_sync_nothing_is_saved_and_no_byte_given_up(
    target: Target, monkeypatch: pytest.MonkeyPatch, save: Callable[..., object], error: int
) -> None:
    file = File([DONE, MISSING, MISSING], [0, 0, 0])
    before = saved(target, file)
    file.states[1] = DONE
    with monkeypatch.context() as patch:

        def failing(_: int) -> None:
            raise OSError(error, os.strerror(error))

        patch.setattr(os, "fsync", failing)
        with pytest.raises(DiskError) as caught:
            saved(target, file, save)
        assert caught.value.errno == error
    # The next fsync would succeed.
    with pytest.raises(DiskError):
        saved(target, file, save)
    assert state.load(target.state_path) == before
    assert os.fstat(target.fd).st_size == file.size


def test_a_state_for_which_there_is_no_room_is_a_warning_on_the_way(
    target: Target, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise DiskError("no room", errno=errno.ENOSPC)

    monkeypatch.setattr(state, "save", full)
    file: Any = File([DONE, MISSING, MISSING], [0, 0, 0])
    assert saving.save_on_the_way(target, file, Sources(URL)) is None
    assert "the state could not be saved" in caplog.text
    # At the end, some data is given up to make room for the state. It is an error only if even that does not help.
    with pytest.raises(DiskError):
        saving.save_at_the_end(target, file, Sources(URL))
    assert os.fstat(target.fd).st_size < BLOCK


# ---- Data from an earlier run --------------------------------------------------------------------------------------


def left(target: Target, blocks: list[int], partial: dict[int, int] | None = None) -> State:
    """A state of three blocks, and a part file with bytes for them."""
    os.pwrite(target.fd, bytes(range(256)) * (File.size // 256), 0)
    return State(
        url=URL,
        resolved_url=URL,
        total_size=File.size,
        supports_range=True,
        sources=[SourceState(URL, '"a"', "")],
        block_size=BLOCK,
        blocks=bytes(blocks),
        partial=partial or {},
        filename="file.bin",
    )


def test_where_nothing_was_left_there_is_nothing(target: Target, caplog: pytest.LogCaptureFixture) -> None:
    assert saving.load(target, URL, provable=True) is None
    assert saving.load(target, URL, provable=False) is None
    assert caplog.text == ""


def test_what_was_saved_comes_back(target: Target) -> None:
    target.save_state(left(target, [DONE, 0, 0], {1: 1000}))
    found = saving.load(target, URL, provable=False)
    assert found is not None
    assert (found.blocks, found.partial, found.sources[0].etag) == (bytes([DONE, 0, 0]), {1: 1000}, '"a"')


def test_a_state_that_only_says_whose_the_part_file_is_is_none(target: Target) -> None:
    target.save_state(dataclasses.replace(left(target, [DONE, 0, 0]), sources=[]))
    assert saving.load(target, URL, provable=True) is None
    assert target.state_path.exists(), "it is no damaged one"


def test_a_part_file_that_is_shorter_or_another_is_not_used(target: Target, caplog: pytest.LogCaptureFixture) -> None:
    target.save_state(left(target, [DONE, DONE, 0]))
    os.ftruncate(target.fd, 2 * BLOCK - 1)
    assert saving.load(target, URL, provable=False) is None
    assert "is shorter than it says" in caplog.text
    target.save_state(left(target, [DONE, DONE, 0]))
    os.pwrite(target.fd, bytes(4096), 0)
    assert saving.load(target, URL, provable=False) is None
    assert "it does not describe" in caplog.text
    assert not target.state_path.exists()


def test_what_aria2_has_added_is_used_and_becomes_a_state(target: Target) -> None:
    target.save_state(left(target, [DONE, 0, 0]))
    target.control_path.write_bytes(to_control_file(left(target, [DONE, DONE, 0])))
    target.control_path.chmod(0o600)
    found = saving.load(target, URL, provable=False)
    assert found is not None
    assert found.written_bytes == 2 * BLOCK
    assert found.sources == [SourceState(URL, '"a"', "")]
    assert not target.control_path.exists()
    assert state.load(target.state_path).written_bytes == 2 * BLOCK


def test_what_aria2_has_left_alone_is_used_only_where_a_checksum_will_prove_it(
    target: Target, caplog: pytest.LogCaptureFixture
) -> None:
    octets = to_control_file(left(target, [DONE, DONE, 0]))
    target.control_path.write_bytes(octets)
    target.control_path.chmod(0o600)
    assert saving.load(target, URL, provable=False) is None
    assert "cannot tell whose data" in caplog.text
    assert target.control_path.read_bytes() == octets
    found = saving.load(target, URL, provable=True)
    assert found is not None
    assert found.written_bytes == 2 * BLOCK


def test_a_control_file_of_another_size_is_not_used(target: Target, caplog: pytest.LogCaptureFixture) -> None:
    target.save_state(left(target, [DONE, 0, 0]))
    other = left(target, [DONE, DONE, DONE])
    other.total_size -= 1
    target.control_path.write_bytes(to_control_file(other))
    target.control_path.chmod(0o600)
    found = saving.load(target, URL, provable=True)
    assert found is not None
    assert found.written_bytes == BLOCK
    assert "of another size" in caplog.text


@pytest.mark.parametrize(
    ("end", "blocks", "partial"),
    [
        (3 * BLOCK, [DONE, 0, DONE], {1: 700}),
        (2 * BLOCK + 5, [DONE, 0, 0], {1: 700, 2: 5}),
        (2 * BLOCK, [DONE, 0, 0], {1: 700}),
        (BLOCK + 700, [DONE, 0, 0], {1: 700}),
        (BLOCK + 600, [DONE, 0, 0], {1: 600}),
        (BLOCK, [DONE, 0, 0], {}),
        (1, [0, 0, 0], {0: 1}),
        (0, [0, 0, 0], {}),
    ],
)
def test_what_is_given_up_for_room_is_what_lies_behind(
    target: Target, end: int, blocks: list[int], partial: dict[int, int]
) -> None:
    less = saving._cut(left(target, [DONE, 0, DONE], {1: 700}), end)
    assert (list(less.blocks), less.partial) == (blocks, partial)
    assert less.written_end <= end
