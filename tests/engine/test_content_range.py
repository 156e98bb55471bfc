"""The parser of Content-Range, which decides whether a byte may be written."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rangefetch._engine import content_range

LARGEST = 1 << 48
FORM = re.compile(rb"bytes +(?:([0-9]+)-([0-9]+)|\*)/([0-9]+|\*)", re.IGNORECASE)

sizes = st.integers(min_value=1, max_value=LARGEST)


@st.composite
def satisfied(draw: st.DrawFn) -> tuple[int, int, int]:
    """A half-open range of a file, and the file's size."""
    total = draw(sizes)
    start = draw(st.integers(0, total - 1))
    return start, draw(st.integers(start + 1, total)), total


@st.composite
def nearly_right(draw: st.DrawFn) -> bytes:
    """A valid value with a few octets changed."""
    start, end, total = draw(satisfied())
    value = bytearray(f"bytes {start}-{end - 1}/{draw(st.sampled_from([str(total), '*']))}".encode())
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(value) - 1))
        value[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
        value = value or bytearray(b"b")
    return bytes(value)


@given(satisfied())
@example((0, 1, 1))
@example((LARGEST - 1, LARGEST, LARGEST))
def test_a_range_comes_back_half_open(parts: tuple[int, int, int]) -> None:
    start, end, total = parts
    assert content_range(f"bytes {start}-{end - 1}/{total}".encode()) == parts
    assert content_range(f"bytes {start}-{end - 1}/*".encode()) == (start, end, -1)


@given(st.integers(0, LARGEST))
def test_a_refused_range_tells_the_size(total: int) -> None:
    assert content_range(f"bytes */{total}".encode()) == (-1, -1, total)


@given(satisfied(), st.integers(1, LARGEST))
def test_a_range_beyond_the_end_is_refused(parts: tuple[int, int, int], beyond: int) -> None:
    start, _, total = parts
    assert content_range(f"bytes {start}-{total - 1 + beyond}/{total}".encode()) is None


@given(satisfied())
def test_a_range_that_ends_before_it_starts_is_refused(parts: tuple[int, int, int]) -> None:
    start, end, total = parts
    assert content_range(f"bytes {end}-{start}/{total}".encode()) is None


@given(st.integers(min_value=LARGEST + 1, max_value=1 << 200))
@example((1 << 63) - 1)
@example(1 << 63)
@example((1 << 64) - 1)
@example(1 << 64)
@example((1 << 64) + 1)
@example(int("9" * 300))
def test_numbers_that_do_not_fit_are_refused(number: int) -> None:
    assert content_range(f"bytes 0-0/{number}".encode()) is None
    assert content_range(f"bytes 0-{number}/*".encode()) is None
    assert content_range(f"bytes {number}-{number}/*".encode()) is None
    assert content_range(f"bytes */{number}".encode()) is None


@given(st.binary(max_size=64) | nearly_right())
@example(b"")
@example(b"bytes")
@example(b"bytes ")
@example(b"bytes -")
@example(b"bytes */*")
@example(b"bytes 0-/1")
@example(b"bytes -0/1")
@example(b"bytes 0-0/")
@example(b"bytes 0-0/1 ")
@example(b"bytes 0 -0/1")
@example(b"bytes +0-0/1")
@example(b"bytes=0-0/1")
@example(b"bytes0-0/1")
@example(b"items 0-0/1")
@example(b"bytes 0-0x1")
@example(b"bytes *:1")
def test_whatever_a_server_sends_is_understood_or_refused(value: bytes) -> None:
    # A zero octet ends the value; libcurl passes none on.
    match = FORM.fullmatch(value.partition(b"\0")[0])
    found = content_range(value)
    if found is None:
        assert match is None or not makes_sense(match)
    else:
        assert match is not None
        assert found == numbers(match)


def numbers(match: re.Match[bytes]) -> tuple[int, int, int]:
    first, last, total = match.groups()
    return (
        -1 if first is None else int(first),
        -1 if last is None else int(last) + 1,
        -1 if total == b"*" else int(total),
    )


def makes_sense(match: re.Match[bytes]) -> bool:
    start, end, total = numbers(match)
    small = all(int(group) <= LARGEST for group in match.groups() if group not in (None, b"*"))
    return small and start < max(end, 0) and (start >= 0 or total >= 0) and (total < 0 or end <= total)


@pytest.mark.parametrize("unit", ["bytes", "Bytes", "BYTES"])
def test_the_unit_is_case_insensitive(unit: str) -> None:
    # RFC 9110, section 14.1.
    assert content_range(f"{unit} 0-99/200".encode()) == (0, 100, 200)


@pytest.mark.parametrize("value", ["bytes 0-0/1", None, 1])
def test_only_octets_are_parsed(value: object) -> None:
    with pytest.raises(TypeError):
        content_range(value)  # type: ignore[arg-type]  # wrong on purpose
