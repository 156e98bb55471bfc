"""Which bytes are fetched again and compared: a few, at random places where the data is not just padding."""

import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rangefetch.transfer.samples import (
    SAMPLE_BYTES,
    Sample,
    choose,
    finished_extents,
    first_difference,
    missing_blocks,
    read,
)
from servers.content import content
from support.files import MIB

GIB = 1 << 30


@contextmanager
def _file(data: bytes) -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        yield file.fileno()


def _chosen(data: bytes, spans: list[tuple[int, int]], seed: int = 1) -> list[Sample]:
    with _file(data) as fd:
        return read(fd, choose(len(data), spans, random.Random(seed)))


# -- the data that a block map says is there -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("blocks", "partial", "spans"),
    [
        (b"", {}, []),
        (b"\0\1\0", {}, []),
        (b"\2\2\0", {}, [(0, 2 * MIB)]),
        (b"\0\2\2", {}, [(MIB, 2 * MIB + 5)]),
        (b"\2\0\2", {1: 7}, [(0, MIB + 7), (2 * MIB, 2 * MIB + 5)]),
        (b"\0\0\0", {0: 9, 2: 3}, [(0, 9), (2 * MIB, 2 * MIB + 3)]),
        (b"\2\1\0", {0: 9, 1: 0}, [(0, MIB)]),
    ],
)
def test_finished_spans(blocks: bytes, partial: dict[int, int], spans: list[tuple[int, int]]) -> None:
    assert finished_extents(blocks, MIB, 2 * MIB + 5, partial) == spans


# -- the positions of samples -----------------------------------------------------------------------------------------


@given(
    size=st.integers(1, 200 * GIB),
    cuts=st.lists(st.floats(0, 1), max_size=8),
    seed=st.integers(0, 1 << 32),
)
def test_samples_lie_in_what_is_there_and_are_few(size: int, cuts: list[float], seed: int) -> None:
    marks = sorted({int(cut * size) for cut in cuts} | {0, size})
    spans = [(a, b) for a, b in zip(marks[::2], marks[1::2], strict=False) if a < b]
    wanted = choose(size, spans, random.Random(seed))
    assert len(wanted) <= 3
    for places in wanted:
        assert places
        for start, end in places:
            assert 0 < end - start <= SAMPLE_BYTES
            assert any(a <= start and end <= b for a, b in spans)


def test_the_same_seed_chooses_the_same_and_another_does_not() -> None:
    data = content("24M")
    one, again, other = (_chosen(data, [(0, len(data))], seed) for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_every_part_of_a_file_may_be_asked_for() -> None:
    size = 40 * MIB
    first = {choose(size, [(0, size)], random.Random(seed))[0][0][0] // (4 * MIB) for seed in range(400)}
    assert first == set(range(10))


@pytest.mark.parametrize("size", [2 * MIB, 24 * MIB + 7, 5 * GIB])
def test_the_head_is_left_out_where_there_is_more(size: int) -> None:
    for seed in range(50):
        for places in choose(size, [(0, size)], random.Random(seed)):
            assert all(start >= MIB for start, _ in places)


def test_the_last_bytes_that_are_there_are_among_them() -> None:
    size = 24 * MIB + 7
    assert choose(size, [(0, size)], random.Random(1))[1][0] == (24 * MIB, size)
    assert choose(size, [(0, 10 * MIB)], random.Random(1))[1][0] == (10 * MIB - SAMPLE_BYTES, 10 * MIB)


@pytest.mark.parametrize("there", [5 * MIB, 400 * MIB])
def test_what_the_first_response_brought_is_among_them(there: int) -> None:
    # The first request asks for 4 MiB, and the file may have changed right after it.
    for seed in range(50):
        assert all(end <= 4 * MIB for _, end in choose(400 * MIB, [(0, there)], random.Random(seed))[2])


@pytest.mark.parametrize("size", [1, 1000, SAMPLE_BYTES, SAMPLE_BYTES + 1])
def test_a_small_file_is_compared_whole(size: int) -> None:
    data = content(size)
    samples = _chosen(data, [(0, size)])
    assert b"".join(sample.octets for sample in samples) == data


def test_of_less_than_a_sample_nothing_is_compared() -> None:
    assert choose(24 * MIB, [(0, SAMPLE_BYTES - 1)], random.Random(1)) == []
    assert choose(24 * MIB, [], random.Random(1)) == []


def test_padding_is_passed_over() -> None:
    data = bytearray(16 * MIB)
    data[8 * MIB : 12 * MIB] = content("4M")
    for seed in range(20):
        told = [sample for sample in _chosen(bytes(data), [(0, len(data))], seed) if any(sample.octets)]
        if told:
            break
    assert told
    everywhere = _chosen(bytes(16 * MIB), [(0, 16 * MIB)])
    assert 2 <= len(everywhere) <= 3, "where there is nothing but padding, that is compared"


# -- comparing -------------------------------------------------------------------------------------------------------


def test_the_first_difference_is_told() -> None:
    data = content("4M")
    samples = _chosen(data, [(0, len(data))])
    assert len(samples) == 3
    with _file(data) as fd:
        assert first_difference(fd, samples) == -1
        at = samples[1].start + 77
        os.pwrite(fd, bytes([data[at] ^ 1]), at)
        assert first_difference(fd, samples) == at


def test_a_shorter_file_differs_where_it_ends() -> None:
    data = content("4M")
    samples = _chosen(data, [(0, len(data))])
    with _file(data[:-5]) as fd:
        assert first_difference(fd, samples) == len(data) - 5


def test_a_file_that_has_become_shorter_gives_fewer_samples() -> None:
    with _file(content("2M")) as fd:
        assert read(fd, [[(3 * MIB, 3 * MIB + 5)], [(MIB, MIB + 5)]]) == [Sample(MIB, content("2M")[MIB : MIB + 5])]


@given(size=st.integers(1, 10 * GIB), seed=st.integers(0, 1 << 32))
def test_the_block_map_lacks_the_samples_and_nothing_else(size: int, seed: int) -> None:
    places = choose(size, [(0, size)], random.Random(seed))
    starts = {places_[0] for places_ in places}
    samples = [Sample(start, bytes(end - start)) for start, end in sorted(starts)]
    unit, blocks, partial = missing_blocks(size, samples)
    assert len(blocks) == -(-size // unit)
    lacking = [
        (index * unit + partial[index], min((index + 1) * unit, size))
        for index, block in enumerate(blocks)
        if block != 2
    ]
    assert lacking == [(sample.start, sample.end) for sample in samples]
