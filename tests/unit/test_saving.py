"""What is saved while bytes arrive: only what is in the file, in the order in which it may be looked at."""

from __future__ import annotations

import array
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rangefetch.disk import state
from rangefetch.disk.state import DONE
from rangefetch.disk.target import Target
from rangefetch.errors import DiskError
from rangefetch.net.sources import Sources
from rangefetch.transfer import saving

URL = "http://h/x"
BLOCK = 1 << 20
MISSING, CLAIMED = 0, 1


class File:
    """The engine's file, which goes on between two looks at it: after the first, ``meanwhile`` happens."""

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
    # The second block is done by now, and was not yet when it was looked at.
    assert (found.blocks, found.partial) == (bytes([DONE, 0, 0]), {1: 1000, 2: 500})


def test_what_is_saved_was_looked_at_before_the_sync(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    file = File([DONE, MISSING, MISSING], [0, 0, 0])
    synced = Target.sync

    def sync(target: Target) -> None:
        synced(target)
        file.states[1] = DONE  # and nobody has synced that

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
    # The next sync would work.
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
    # At the end a little less of the data makes room, which is an error only where even that does not help.
    with pytest.raises(DiskError):
        saving.save_at_the_end(target, file, Sources(URL))
    assert os.fstat(target.fd).st_size < BLOCK
