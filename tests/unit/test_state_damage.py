"""A damaged state, or a file that is not a state, is refused with one clear line, and nothing else happens."""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rangefetch.disk import state
from rangefetch.disk.state import SourceState, State, StateDamaged
from support.files import MIB

# Nine blocks and a short one; 0, 2 and 9 are complete, 1 and 8 partial.
EXAMPLE = State(
    url="https://example.org/model.bin",
    resolved_url="https://cdn.example.org/abc?signature=secret",
    total_size=9 * MIB + 1000,
    supports_range=True,
    sources=[SourceState("https://example.org/model.bin", '"abc"')],
    block_size=MIB,
    blocks=bytes([2, 0, 2, 0, 0, 0, 0, 0, 0, 2]),
    partial={1: 1234, 8: MIB - 1},
    last_updated=1_700_000_000.25,
)

in_one_directory = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("state") / "s.json"
    state.save(path, EXAMPLE)
    return path.read_bytes()


def assert_damaged(path: Path, octets: bytes, reason: str = "") -> None:
    path.write_bytes(octets)
    with pytest.raises(StateDamaged) as caught:
        state.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert reason in message
    assert "\n" not in message
    assert "secret" not in message


def test_every_truncation_is_refused(tmp_path: Path, intact: bytes) -> None:
    for length in range(len(intact)):
        assert_damaged(tmp_path / "s.json", intact[:length])


def test_every_flipped_bit_is_refused(tmp_path: Path, intact: bytes) -> None:
    for position in range(len(intact)):
        for bit in range(8):
            flipped = bytes([intact[position] ^ 1 << bit])
            assert_damaged(tmp_path / "s.json", intact[:position] + flipped + intact[position + 1 :])


@given(data=st.data())
@in_one_directory
def test_any_other_damage_is_refused(tmp_path: Path, intact: bytes, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(intact)), label="start")
    end = data.draw(st.integers(start, len(intact)), label="end")
    octets = intact[:start] + data.draw(st.binary(max_size=40), label="instead") + intact[end:]
    if octets != intact:
        assert_damaged(tmp_path / "s.json", octets)


@given(octets=st.binary(max_size=200))
@in_one_directory
def test_a_foreign_file_is_refused(tmp_path: Path, octets: bytes) -> None:
    assert_damaged(tmp_path / "s.json", octets)


def signed(document: dict[str, Any]) -> bytes:
    """The document with a correct CRC, whatever it contains."""

    def dump(fields: dict[str, Any]) -> bytes:
        return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()

    return dump(document | {"crc32": zlib.crc32(dump(document))}) + b"\n"


def edited(intact: bytes, edit: Callable[[dict[str, Any]], object]) -> bytes:
    document = json.loads(intact)
    del document["crc32"]
    edit(document)
    return signed(document)


def test_a_file_that_was_signed_here_is_accepted(tmp_path: Path, intact: bytes) -> None:
    (tmp_path / "s.json").write_bytes(edited(intact, lambda document: None))
    assert state.load(tmp_path / "s.json") == EXAMPLE


BAD_VALUES = [
    ("version", 1, "its version is 1, not 2"),
    ("version", None, "its version is None"),
    ("version", True, "version"),
    ("version", 1.0, "version"),
    ("url", "", "url is empty"),
    ("url", None, "url is not of type str"),
    ("resolved_url", 1, "resolved_url is not of type str"),
    ("total_size", -1, "total_size"),
    ("total_size", 1 << 62, "bitmap"),
    ("total_size", float(9 * MIB), "total_size is not of type int"),
    ("total_size", True, "total_size is not of type int"),
    ("total_size", 7 * MIB, "bitmap"),
    ("total_size", 9 * MIB, "bitmap"),  # one block less: the bit of block 9 is beyond the end
    ("supports_range", 1, "supports_range is not of type bool"),
    ("block_size", 0, "bitmap"),
    ("block_size", -1, "bitmap"),
    ("block_size", 2 * MIB, "bitmap"),
    ("block_size", 1, "bitmap"),
    ("bitmap", "a0", "bitmap"),
    ("bitmap", "a0400", "hexadecimal"),
    ("bitmap", "a04000", "bitmap"),
    ("bitmap", "a060", "bitmap"),
    ("bitmap", "xyzw", "hexadecimal"),
    ("bitmap", "", "bitmap"),
    ("bitmap", None, "bitmap is not of type str"),
    ("partial", [], "partial is not of type dict"),
    ("partial", {"0": 5}, "block 0 is not an unfinished one"),
    ("partial", {"10": 5}, "block 10"),
    ("partial", {"-1": 5}, "partial"),
    ("partial", {"01": 5}, "partial"),
    ("partial", {"+1": 5}, "partial"),
    ("partial", {"1 ": 5}, "partial"),
    ("partial", {"٣": 5}, "partial"),
    ("partial", {"": 5}, "partial"),
    ("partial", {"1" * 5000: 5}, "partial"),
    ("partial", {"1": MIB}, f"{MIB} bytes of block 1"),
    ("partial", {"1": -1}, "partial"),
    ("partial", {"1": 1.0}, "partial"),
    ("partial", {"1": True}, "partial"),
    ("filename", "a/b", "filename"),
    ("filename", "..", "filename"),
    ("filename", "a\0b", "filename"),
    ("filename", None, "filename is not of type str"),
    ("last_updated", 1, "last_updated is not of type float"),
    ("last_updated", -1.0, "last_updated"),
    ("last_updated", float("nan"), ""),
    ("last_updated", float("inf"), ""),
    ("sources", {}, "sources is not of type list"),
    ("sources", [None], "sources"),
    ("sources", ["http://example.org/"], "sources"),
    ("sources", [{"url": "u", "etag": ""}], "sources"),
    ("sources", [{"url": "u", "etag": "", "last_modified": "", "more": ""}], "sources"),
    ("sources", [{"url": "u", "etag": None, "last_modified": ""}], "sources"),
]


@pytest.mark.parametrize(("name", "value", "reason"), BAD_VALUES)
def test_a_value_that_makes_no_sense_is_refused_even_with_a_right_crc(
    tmp_path: Path, intact: bytes, name: str, value: object, reason: str
) -> None:
    octets = edited(intact, lambda document: document.update({name: value}))
    assert_damaged(tmp_path / "s.json", octets, reason)


def test_the_last_blocks_partial_count_is_below_its_own_length(tmp_path: Path, intact: bytes) -> None:
    def unfinish(document: dict[str, Any]) -> None:
        document["bitmap"] = "a000"
        document["partial"] = {"9": count}

    count = 999
    (tmp_path / "s.json").write_bytes(edited(intact, unfinish))
    assert state.load(tmp_path / "s.json").partial == {9: 999}
    count = 1000
    assert_damaged(tmp_path / "s.json", edited(intact, unfinish), "1000 bytes of block 9 is out of range")


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(State) if field.name != "blocks"])
def test_a_missing_field_is_refused(tmp_path: Path, intact: bytes, name: str) -> None:
    assert_damaged(tmp_path / "s.json", edited(intact, lambda document: document.pop(name)), "fields")


def test_an_unknown_field_is_refused(tmp_path: Path, intact: bytes) -> None:
    assert_damaged(tmp_path / "s.json", edited(intact, lambda document: document.update(more=1)), "fields")


@pytest.mark.parametrize("octets", [b"[]\n", b"null\n", b"1\n", b'"x"\n', b"[" * 100_000, b'{"a":' * 100_000])
def test_json_that_is_no_state_is_refused(tmp_path: Path, octets: bytes) -> None:
    assert_damaged(tmp_path / "s.json", octets)


def test_the_same_in_another_layout_is_refused(tmp_path: Path, intact: bytes) -> None:
    assert_damaged(tmp_path / "s.json", json.dumps(json.loads(intact)).encode(), "CRC-32")
    assert_damaged(tmp_path / "s.json", intact + b"\n", "CRC-32")


def test_an_endless_file_is_refused_without_reading_it_all(tmp_path: Path) -> None:
    with (tmp_path / "s.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(StateDamaged, match="more than"):
        state.load(tmp_path / "s.json")
