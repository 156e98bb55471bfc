"""The saved state: it is loaded exactly as it was saved, or not at all."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import random
import stat
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rangefetch.disk import state, system
from rangefetch.disk.replacing import remove_what_was_cut_short
from rangefetch.disk.state import DONE, SourceState, State, StateDamaged, StateForeign
from rangefetch.errors import DiskError
from support.files import MIB

in_one_directory = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def example(**changes: Any) -> State:
    """Nine blocks and a short one; 0, 2 and 9 are complete, 1 and 8 partial."""
    values: dict[str, Any] = {
        "url": "https://example.org/model.bin",
        "resolved_url": "https://cdn.example.org/abc?signature=secret",
        "total_size": 9 * MIB + 1000,
        "supports_range": True,
        "sources": [SourceState("https://example.org/model.bin", '"abc"', "Sun, 06 Nov 1994 08:49:37 GMT")],
        "block_size": MIB,
        "blocks": bytes([2, 0, 2, 0, 0, 0, 0, 0, 0, 2]),
        "partial": {1: 1234, 8: MIB - 1},
        "filename": "modèle.bin",
        "last_updated": 1_700_000_000.25,
    }
    return State(**(values | changes))


@st.composite
def states(draw: st.DrawFn) -> State:
    block_size = draw(st.integers(1, 1 << 32))
    block_count = draw(st.integers(0, 70))
    short_by = draw(st.integers(0, block_size - 1)) if block_count else 0
    total_size = block_count * block_size - short_by
    blocks = bytes(draw(st.lists(st.sampled_from([0, DONE]), min_size=block_count, max_size=block_count)))
    partial = {
        index: draw(st.integers(0, min(block_size, total_size - index * block_size) - 1))
        for index, block in enumerate(blocks)
        if block != DONE and draw(st.booleans())
    }
    return State(
        url=draw(st.text(min_size=1)),
        resolved_url=draw(st.text()),
        total_size=total_size,
        supports_range=draw(st.booleans()),
        sources=draw(st.lists(st.builds(SourceState, st.text(), st.text(), st.text()), max_size=3)),
        block_size=block_size,
        blocks=blocks,
        partial=partial,
        filename=draw(st.sampled_from(["", "a.bin", "名前", "..."])),
        last_updated=draw(st.floats(0, 1e12)),
    )


@given(saved=states())
@in_one_directory
def test_what_is_saved_is_what_is_loaded(tmp_path: Path, saved: State) -> None:
    state.save(tmp_path / "s.json", saved)
    assert state.load(tmp_path / "s.json") == saved
    assert [path.name for path in tmp_path.iterdir()] == ["s.json"]


def test_the_file_has_the_keys_that_the_documentation_names(tmp_path: Path) -> None:
    state.save(tmp_path / "s.json", example())
    document = json.loads((tmp_path / "s.json").read_bytes())
    # Block 0 is the highest bit, as in aria2's bitfield.
    assert document.pop("bitmap") == f"{0b10100000_01000000:04x}"
    assert document.pop("partial") == {"1": 1234, "8": MIB - 1}
    crc32 = document.pop("crc32")
    assert document == {
        "version": 2,
        "url": "https://example.org/model.bin",
        "resolved_url": "https://cdn.example.org/abc?signature=secret",
        "total_size": 9 * MIB + 1000,
        "supports_range": True,
        "sources": [
            {
                "url": "https://example.org/model.bin",
                "etag": '"abc"',
                "last_modified": "Sun, 06 Nov 1994 08:49:37 GMT",
            }
        ],
        "block_size": MIB,
        "filename": "modèle.bin",
        "sample": 0,
        "last_updated": 1_700_000_000.25,
    }
    unsigned = json.loads((tmp_path / "s.json").read_bytes())
    del unsigned["crc32"]
    assert crc32 == zlib.crc32(json.dumps(unsigned, sort_keys=True, separators=(",", ":")).encode())


def test_the_bitmap_is_numpys_packbits(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy", reason="the package numpy, with which it is compared, is not installed")
    blocks = bytes(random.Random(1).choices([0, DONE], k=65_535))
    state.save(tmp_path / "s.json", example(blocks=blocks, total_size=65_535 * MIB, partial={}))
    packed = numpy.packbits(numpy.frombuffer(blocks, numpy.uint8) == DONE)
    assert json.loads((tmp_path / "s.json").read_bytes())["bitmap"] == packed.tobytes().hex()
    assert state.load(tmp_path / "s.json").blocks == blocks


def test_claimed_blocks_are_saved_as_missing(tmp_path: Path) -> None:
    state.save(tmp_path / "s.json", example(blocks=bytes([2, 1, 2, 1, 0, 0, 0, 0, 1, 2])))
    loaded = state.load(tmp_path / "s.json")
    assert loaded.blocks == bytes([2, 0, 2, 0, 0, 0, 0, 0, 0, 2])
    assert loaded.partial == {1: 1234, 8: MIB - 1}


def test_partial_counts_of_blocks_that_got_done_meanwhile_are_left_out(tmp_path: Path) -> None:
    saved = example(partial={0: 500, 1: 600, 9: 1000})
    state.save(tmp_path / "s.json", saved)
    assert state.load(tmp_path / "s.json").partial == {1: 600}
    assert saved.partial == {0: 500, 1: 600, 9: 1000}


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({}, 9 * MIB + 1000),
        ({"blocks": bytes([2, 0, 2, 0, 0, 0, 0, 0, 0, 0])}, 9 * MIB - 1),
        ({"blocks": bytes(10), "partial": {1: 5}}, MIB + 5),
        ({"blocks": bytes(10), "partial": {1: 0}}, 0),
        ({"blocks": b"", "partial": {}, "total_size": 0}, 0),
    ],
)
def test_written_end_is_how_long_the_part_file_must_be(changes: dict[str, Any], end: int) -> None:
    assert example(**changes).written_end == end


def test_last_updated_is_now_unless_given() -> None:
    fields = dataclasses.asdict(example())
    del fields["last_updated"]
    assert State(**fields).last_updated > 1_700_000_000


def test_no_file_is_file_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        state.load(tmp_path / "s.json")


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
def test_it_is_for_its_owner_alone(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "s.json"
    path.touch()
    before = os.umask(umask)
    try:
        state.save(path, example())
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 & ~umask


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("elsewhere.json")])
def test_what_is_no_file_is_not_read(tmp_path: Path, make: Callable[[Path], object]) -> None:
    state.save(tmp_path / "elsewhere.json", example())
    make(tmp_path / "s.json")
    with pytest.raises(StateDamaged):
        state.load(tmp_path / "s.json")
    assert state.set_aside(tmp_path / "s.json") == tmp_path / "s.json.bad"
    assert not os.path.lexists(tmp_path / "s.json")


def test_saving_follows_no_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (tmp_path / "s.json").symlink_to(victim)
    (tmp_path / "s.json.tmp").symlink_to(victim)
    state.save(tmp_path / "s.json", example())
    assert victim.read_text() == "untouched"
    assert not (tmp_path / "s.json").is_symlink()
    assert state.load(tmp_path / "s.json") == example()


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_save_that_fails_leaves_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "s.json"
    state.save(path, example())
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse) if broken == "fsync" else patch.setattr(system, "replace", refuse)
        with pytest.raises(DiskError, match=f"^{path}: cannot save it: No space left") as caught:
            state.save(path, example(filename="other"))
    assert caught.value.errno == errno.ENOSPC
    assert state.load(path) == example()
    assert [path.name for path in tmp_path.iterdir()] == ["s.json"]


def test_a_missing_directory_is_a_disk_error(tmp_path: Path) -> None:
    with pytest.raises(DiskError) as caught:
        state.save(tmp_path / "none" / "s.json", example())
    assert caught.value.errno == errno.ENOENT


def test_the_content_is_synced_before_the_rename_and_the_directory_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, system.replace

    def seen_fsync(fd: int) -> None:
        events.append("sync directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "sync file")
        fsync(fd)

    def seen_replace(path: Path, to: Path) -> None:
        events.append("rename")
        replace(path, to)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(system, "replace", seen_replace)
    state.save(tmp_path / "s.json", example())
    assert events == ["sync file", "rename", "sync directory"]


def test_what_a_killed_save_left_does_not_stop_the_next_and_can_be_removed(tmp_path: Path) -> None:
    (tmp_path / "s.json.tmp").write_text("half a sta")
    state.save(tmp_path / "s.json", example())
    assert state.load(tmp_path / "s.json") == example()
    assert (tmp_path / "s.json.tmp").read_text() == "half a sta"
    remove_what_was_cut_short(tmp_path / "s.json")
    assert [path.name for path in tmp_path.iterdir()] == ["s.json"]


def test_saves_at_the_same_time_do_not_disturb_each_other(tmp_path: Path) -> None:
    script = """if True:
        import sys, threading
        from rangefetch.disk import state, system
        old = state.load(sys.argv[1])
        def save():
            for _ in range(50):
                state.save(sys.argv[1], old)
                assert state.load(sys.argv[1]) == old
        threads = [threading.Thread(target=save) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    """
    path = tmp_path / "s.json"
    state.save(path, example())
    command: list[str | Path] = [sys.executable, "-c", script, path]
    children = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]
    assert [child.communicate()[1] for child in children] == [b"", b""]
    assert [path.name for path in tmp_path.iterdir()] == ["s.json"]


@pytest.mark.parametrize("change", ["mode", "owner", "content"])
def test_what_others_may_have_written_is_not_trusted(tmp_path: Path, change: str) -> None:
    path = tmp_path / "s.json"
    state.save(path, example())
    if change == "mode":
        path.chmod(0o620)
    elif change == "owner":
        if os.geteuid() != 0:
            pytest.skip("only root may give files away")
        os.chown(path, 12345, 12345)
    else:
        path.unlink()
        path.write_text("somebody's notes")
    with pytest.raises(StateForeign):
        state.load(path)


def test_where_all_files_look_alike_owners_say_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.json"
    state.save(path, example())
    look = os.fstat

    def fat_fstat(fd: int) -> os.stat_result:
        fields: list[Any] = list(look(fd))
        fields[0] |= 0o777
        fields[4] = 12345
        return os.stat_result(fields)

    monkeypatch.setattr(os, "fstat", fat_fstat)
    assert state.load(path) == example()
    assert [path.name for path in tmp_path.iterdir()] == ["s.json"]


def test_a_sample_tells_a_part_file_from_another(tmp_path: Path) -> None:
    saved = example()
    content = bytearray(os.urandom(saved.total_size))
    with (tmp_path / "part").open("wb+") as file:

        def sample() -> int:
            file.seek(0)
            file.write(content)
            file.flush()
            return state.sample_of(file.fileno(), saved)

        before = sample()
        assert before == sample() != 0
        content[3 * MIB] ^= 1  # in a block that is not complete
        assert sample() == before
        content[2 * MIB] ^= 1
        assert sample() != before


@pytest.mark.parametrize(
    "changes",
    [
        {"blocks": bytes(9)},
        {"blocks": bytes(11)},
        {"url": ""},
        {"total_size": -1},
        {"block_size": 0},
        {"partial": {3: MIB}},
        {"partial": {3: -1}},
        {"partial": {10: 1}},
        {"partial": {-1: 1}},
        {"filename": "../up"},
        {"last_updated": float("nan")},
        {"url": "x" * (8 << 20)},
    ],
)
def test_a_state_that_could_not_be_loaded_is_not_saved(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        state.save(tmp_path / "s.json", example(**changes))
    assert not list(tmp_path.iterdir())


def test_a_save_that_is_killed_leaves_the_old_state_or_the_new_one(tmp_path: Path) -> None:
    script = """if True:
        import dataclasses, sys
        from rangefetch.disk import state, system
        old = state.load(sys.argv[1])
        print("saving", flush=True)
        for number in range(1_000_000):
            state.save(sys.argv[1], dataclasses.replace(old, last_updated=float(number)))
    """
    path = tmp_path / "s.json"
    state.save(path, example())
    for delay in range(10):
        with subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(delay * 0.0037)
            child.kill()
        loaded = state.load(path)
        assert loaded == example(last_updated=loaded.last_updated)
        remove_what_was_cut_short(path)
        assert [path.name for path in tmp_path.iterdir()] == ["s.json"]


def test_set_aside_replaces_an_older_one_of_ours_and_says_where(tmp_path: Path) -> None:
    for words in ("older", "damaged"):
        state.save(tmp_path / "s.json", example())
        with (tmp_path / "s.json").open("r+") as file:
            file.write(words)
        assert state.set_aside(tmp_path / "s.json").read_text().startswith(words)
    (tmp_path / "s.json.bad").unlink()
    (tmp_path / "s.json.bad").write_text("not ours")
    state.save(tmp_path / "s.json", example())
    assert state.set_aside(tmp_path / "s.json").read_text() == "not ours"
    assert [path.name for path in tmp_path.iterdir()] == ["s.json.bad"]
    with pytest.raises(DiskError, match="cannot set it aside: No such file"):
        state.set_aside(tmp_path / "s.json")


def test_neither_numpy_nor_logging_is_imported() -> None:
    script = "import sys; from rangefetch.disk import state, target, checksum; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    assert not {"numpy", "logging", "hashlib"} & set(loaded)


@given(st.integers(1, 40), st.lists(st.sampled_from([0, 1, 2]), min_size=1, max_size=40), st.data())
def test_the_bytes_that_are_there_are_counted(last: int, blocks: list[int], data: st.DataObject) -> None:
    total = (len(blocks) - 1) * 40 + last
    lengths = [min(40, total - index * 40) for index in range(len(blocks))]
    begun = [index for index, block in enumerate(blocks) if block != 2]
    partial = {index: data.draw(st.integers(0, lengths[index])) for index in begun}
    saved = example(total_size=total, block_size=40, blocks=bytes(blocks), partial=partial)
    there = sum(length for length, block in zip(lengths, blocks, strict=True) if block == 2)
    assert saved.written_bytes == there + sum(partial.values())


def test_a_state_that_cannot_be_read_now_says_nothing_of_what_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.part.json"
    path.write_text("anything")

    def fail(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
            state.load(path)
    assert path.read_text() == "anything"
