"""Chooses and reads samples of a file, to tell whether two copies of it are the same.

A sample is at most 64 KiB. The places are chosen at random, so that no server knows in advance what it will be asked
for again. The head of a file is avoided, because files of one format begin alike, and so are runs of a single byte,
because padding is the same everywhere.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from rangefetch.disk import system

__all__ = [
    "HEAD_BYTES",
    "SAMPLE_BYTES",
    "Extent",
    "Sample",
    "choose",
    "finished_extents",
    "first_difference",
    "missing_blocks",
    "read",
]

SAMPLE_BYTES = 64 << 10
HEAD_BYTES = 1 << 20  # file formats, archives and images begin alike
_EARLY_BYTES = 3 << 20  # what the first response of a download brings beyond the head
_MOST_UNITS = 1 << 16
_TRIES = 8  # places tried for one sample before a run of a single byte is accepted

Extent = tuple[int, int]
"""A byte range, half-open."""


class Sample(NamedTuple):
    """Bytes of one copy: their offset in the file, and their content."""

    start: int
    octets: bytes

    @property
    def end(self) -> int:
        return self.start + len(self.octets)


def finished_extents(
    blocks: bytes, block_size: int, size: int, partial: Mapping[int, int] | None = None
) -> list[Extent]:
    """The extents that a block map marks as written, in file order.

    ``blocks`` has a byte per block (2: done); ``partial`` maps an unfinished block's index to the bytes written at its
    start.
    """
    extents = [
        (match.start() * block_size, min(match.end() * block_size, size)) for match in re.finditer(b"\2+", blocks)
    ]
    for index, written in (partial or {}).items():
        if written and blocks[index] != 2:
            extents.append((index * block_size, index * block_size + written))
    joined: list[Extent] = []
    for start, end in sorted(extents):
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def choose(size: int, extents: Iterable[Extent], chance: random.Random) -> list[list[Extent]]:
    """Choose places for up to three samples from ``extents`` of a file of ``size`` bytes.

    One is from anywhere, one from the end of the extents, and one from their beginning, which was fetched first. Each
    has several places in order of preference, for :func:`read` to try. The head of the file is used only if there is
    nothing else. Empty if the extents hold no whole sample.
    """
    unit = _unit_bytes(size)
    units = list(_whole_units(size, unit, extents))
    head = -(-HEAD_BYTES // unit)
    beyond = [(max(first, head), last) for first, last in units if last > head]
    units = beyond or units
    if not units:
        return []
    last_unit = units[-1][1] - 1
    begin = units[0][0]
    early = [
        (first, min(last, begin + max(1, _EARLY_BYTES // unit)))
        for first, last in units
        if first < begin + max(1, _EARLY_BYTES // unit)
    ]
    wanted = [
        _at_random(units, chance),
        list(range(last_unit, max(units[-1][0] - 1, last_unit - _TRIES), -1)),
        _at_random(early, chance),
    ]
    return [[_sample_extent(size, unit, index) for index in places] for places in wanted]


def read(fd: int, wanted: Sequence[Sequence[Extent]]) -> list[Sample]:
    """Read the samples at the places that :func:`choose` named, in file order, no place twice.

    Of the places for one sample, the first that holds more than one byte value is taken. A file that has become shorter
    gives fewer samples. Raises ``OSError``.
    """
    taken: dict[int, Sample] = {}
    for places in wanted:
        dull: Sample | None = None
        for start, end in places:
            if start in taken:
                continue
            octets = system.pread(fd, end - start, start)
            if len(octets) != end - start:
                continue
            if octets.count(octets[0]) != len(octets):
                taken[start] = Sample(start, octets)
                break
            dull = dull or Sample(start, octets)
        else:
            if dull is not None:
                taken[dull.start] = dull
    return [taken[start] for start in sorted(taken)]


def first_difference(fd: int, samples: Iterable[Sample]) -> int:
    """The first offset at which another copy, open as ``fd``, differs from the samples; -1 if none. Raises
    ``OSError``

    .
    """
    for start, octets in samples:
        others = system.pread(fd, len(octets), start)
        if others != octets:
            pairs = zip(others, octets, strict=False)
            return start + next((at for at, (one, other) in enumerate(pairs) if one != other), len(others))
    return -1


def missing_blocks(size: int, samples: Iterable[Sample]) -> tuple[int, bytes, dict[int, int]]:
    """A block map with which the engine fetches only the samples: block size, blocks, partial."""
    unit = _unit_bytes(size)
    blocks = bytearray(b"\2" * -(-size // unit))
    partial: dict[int, int] = {}
    for sample in samples:
        index = sample.start // unit
        blocks[index] = 0
        partial[index] = sample.start - index * unit
    return unit, bytes(blocks), partial


def _unit_bytes(size: int) -> int:
    """Samples end at multiples of this, or with the file: one sample, doubled until the file has few enough."""
    unit = SAMPLE_BYTES
    while -(-size // unit) > _MOST_UNITS:
        unit *= 2
    return unit


def _sample_extent(size: int, unit: int, index: int) -> Extent:
    end = min((index + 1) * unit, size)
    return max(index * unit, end - SAMPLE_BYTES), end


def _whole_units(size: int, unit: int, extents: Iterable[Extent]) -> Iterable[Extent]:
    """The runs of unit numbers that lie entirely in one extent."""
    for start, end in extents:
        first = -(-start // unit)
        last = -(-end // unit) if end == size else end // unit
        if first < last:
            yield first, last


def _at_random(units: Sequence[Extent], chance: random.Random) -> list[int]:
    """A few unit numbers, chosen uniformly."""
    count = sum(last - first for first, last in units)
    places: list[int] = []
    for place in chance.sample(range(count), min(count, _TRIES)):
        for first, last in units:
            if place < last - first:
                places.append(first + place)
                break
            place -= last - first
    return places
