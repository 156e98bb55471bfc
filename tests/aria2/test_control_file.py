"""Control files: reading aria2's, writing ones that aria2 reads, and what conversion to a state and back loses."""

import contextlib
import struct
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aria2.driving import plain_aria2c
from rangefetch.disk.control_file import PIECE_BYTES, ControlFile, from_control_file, to_control_file
from rangefetch.disk.state import SourceState, State, StateDamaged
from servers.misbehaving import MisbehavingServer, content
from support.files import MIB
from support.waiting import until

BLOCK = 16 << 10
URL = "http://127.0.0.1/x"


def _state(total: int, done: set[int], partial: dict[int, int] | None = None, block_size: int = MIB) -> State:
    blocks = bytes(2 * (index in done) for index in range(-(-total // block_size)))
    return State(URL, URL, total, True, [SourceState(URL, '"e"')], block_size, blocks, partial or {})


@pytest.fixture
def stopped(aria2c: Path, server: MisbehavingServer, tmp_path: Path) -> bytes:
    """The control file of a real aria2c that was stopped in the middle of a file of 24 MiB and 7 bytes."""
    part = tmp_path / "file.bin"
    with plain_aria2c(aria2c, server.url("/slow/x", size=24 * MIB + 7, rate="3M"), part):
        until(lambda: part.exists() and part.stat().st_size > 7 * MIB)
        time.sleep(0.2)
    return part.with_name("file.bin.aria2").read_bytes()


def test_what_aria2_wrote_is_read_and_written_again_byte_for_byte(stopped: bytes) -> None:
    control = ControlFile.parse(stopped)
    assert (control.piece_length, control.total_length, control.info_hash) == (MIB, 24 * MIB + 7, b"")
    assert control.in_flight
    again = ControlFile.parse(control.to_bytes())
    assert again == control
    assert len(control.to_bytes()) == len(stopped)


def test_what_aria2_says_is_written_is_written(stopped: bytes, tmp_path: Path) -> None:
    control = ControlFile.parse(stopped)
    part, whole = (tmp_path / "file.bin").read_bytes(), content(24 * MIB + 7)
    assert control.written_bytes > 0
    for start, end in control.extents():
        assert part[start:end] == whole[start:end]


def test_a_state_from_aria2_claims_only_what_is_written(stopped: bytes, tmp_path: Path) -> None:
    saved = from_control_file(stopped, URL, sources=[SourceState(URL, '"e"')], filename="file.bin")
    part, whole = (tmp_path / "file.bin").read_bytes(), content(24 * MIB + 7)
    assert saved.written_end <= len(part)
    assert saved.sources == [SourceState(URL, '"e"')]
    for index, block in enumerate(saved.blocks):
        count = MIB if block == 2 else saved.partial.get(index, 0)
        assert part[index * MIB : index * MIB + count] == whole[index * MIB : index * MIB + count]


def test_aria2_goes_on_with_what_we_write(aria2c: Path, server: MisbehavingServer, tmp_path: Path) -> None:
    total = 12 * MIB + 7
    saved = _state(total, {0, 1, 2, 5, 12}, {3: 10 * BLOCK, 8: MIB - 1})
    part = bytearray(b"\xee" * total)
    for start, end in ControlFile.parse(to_control_file(saved)).extents():
        part[start:end] = content(total)[start:end]
    (tmp_path / "file.bin").write_bytes(part)
    (tmp_path / "file.bin.aria2").write_bytes(to_control_file(saved))
    url = server.url("/good/x", size=total)
    arguments = ["--no-conf", "--quiet", "-s1", "--use-head=true", f"--dir={tmp_path}", "--out=file.bin", url]
    subprocess.run([aria2c, *arguments], check=True, timeout=30)
    server.wait_idle()
    assert (tmp_path / "file.bin").read_bytes() == content(total)
    asked = [request.range for request in server.requests if request.range]
    # aria2 continues where our data ends, at the first missing block of 16 KiB.
    assert (3 * MIB + 10 * BLOCK) in [start for start, _ in asked]


@pytest.mark.parametrize("total", [1, BLOCK, MIB - 1, MIB, MIB + 1, 3 * MIB + BLOCK + 1])
def test_everything_and_nothing(total: int) -> None:
    count = -(-total // MIB)
    whole = ControlFile.parse(to_control_file(_state(total, set(range(count)))))
    assert whole.written_bytes == total
    assert from_control_file(whole.to_bytes(), URL).blocks == b"\x02" * count
    nothing = ControlFile.parse(to_control_file(_state(total, set())))
    assert nothing.written_bytes == 0
    assert from_control_file(nothing.to_bytes(), URL).blocks == bytes(count)


@given(st.data())
def test_there_and_back_nothing_is_invented_and_little_is_lost(data: st.DataObject) -> None:
    total = data.draw(st.integers(1, 9 * MIB))
    block_size = data.draw(st.sampled_from([MIB, 2 * MIB, 4 * MIB, 256 << 10]))
    count = -(-total // block_size)
    done = data.draw(st.sets(st.integers(0, count - 1)))
    partial = {
        index: data.draw(st.integers(0, min(block_size, total - index * block_size) - 1))
        for index in data.draw(st.sets(st.integers(0, count - 1))) - done
    }
    before = _state(total, done, partial, block_size)

    def there(state: State) -> set[int]:
        """The complete blocks of 16 KiB."""
        found: set[int] = set()
        for index, block in enumerate(state.blocks):
            start = index * state.block_size
            size = min(state.block_size, total - start)
            written = size if block == 2 else state.partial.get(index, 0)
            last = -(-written // BLOCK) if start + written == total else written // BLOCK
            found.update(range(start // BLOCK, start // BLOCK + last))
        return found

    control = ControlFile.parse(to_control_file(before))
    claimed = {block for start, end in control.extents() for block in range(start // BLOCK, -(-end // BLOCK))}
    assert claimed == there(before)
    after = from_control_file(control.to_bytes(), URL)
    assert there(after) <= there(before)
    if block_size >= MIB:
        lost = len(there(before)) - len(there(after))
        assert lost <= len(partial) * (MIB // BLOCK)


def test_a_huge_file_has_blocks_as_large_as_the_engine_makes_them() -> None:
    total = 200 << 30
    pieces = bytearray(total // MIB)
    pieces[: 4 * 1000 + 3] = b"\x02" * 4003
    saved = from_control_file(ControlFile(MIB, total, bytes(pieces)).to_bytes(), URL)
    assert saved.block_size == 4 * MIB
    assert saved.blocks.count(2) == 1000
    assert saved.partial == {1000: 3 * MIB}


def test_of_a_torrent_the_hash_is_kept() -> None:
    control = ControlFile(PIECE_BYTES, 5 * MIB, bytes(5), info_hash=bytes(range(20)), upload_length=7)
    assert ControlFile.parse(control.to_bytes()) == control


_GOOD = to_control_file(_state(10 * MIB, {0, 1}, {4: 5 * BLOCK}))


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        bytes(len(_GOOD)),
        _GOOD[:-1],
        _GOOD[:12],
        _GOOD + b"\0",
        b"\0\2" + _GOOD[2:],  # an unknown version
        _GOOD[:10] + struct.pack(">I", 0) + _GOOD[14:],  # a piece length of 0
        _GOOD[:10] + struct.pack(">I", 1 << 18) + _GOOD[14:],  # a piece length that does not match the bitmap
        _GOOD[:35] + b"\xff" + _GOOD[36:],  # bits set beyond the end
        _GOOD[:36] + struct.pack(">I", 1 << 31) + _GOOD[40:],  # more pieces in flight than the file has
        _GOOD[:40] + struct.pack(">I", 99) + _GOOD[44:],  # a piece number that does not exist
        _GOOD[:44] + struct.pack(">I", 5) + _GOOD[48:],  # a piece in flight with a wrong length
    ],
)
def test_what_is_no_control_file_is_refused(octets: bytes) -> None:
    assert ControlFile.parse(_GOOD).in_flight
    with pytest.raises(StateDamaged):
        from_control_file(octets, URL)


@given(st.binary(max_size=80))
def test_nothing_else_is_raised(octets: bytes) -> None:
    for tried in (octets, _GOOD[:10] + octets, _GOOD[:34] + octets):
        with contextlib.suppress(StateDamaged):
            from_control_file(tried, URL)


def test_a_file_without_bytes_has_none() -> None:
    with pytest.raises(ValueError, match="empty file"):
        to_control_file(_state(0, set()))


@pytest.mark.parametrize("block_size", [256 << 10, MIB, 8 * MIB])
def test_whatever_the_blocks_are_the_pieces_have_1_mib(block_size: int) -> None:
    """aria2 accepts no smaller pieces."""
    octets = to_control_file(_state(16 * MIB, {0, 1}, block_size=block_size))
    assert ControlFile.parse(octets).piece_length == PIECE_BYTES == MIB
