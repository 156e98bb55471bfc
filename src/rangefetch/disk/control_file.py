"""aria2's control files (``NAME.aria2``), which list the bytes of an unfinished file that are on disk.

A control file has a bitmap of the complete pieces and, for each piece in progress, a bitmap of its blocks of 16 KiB
(aria2 manual, "Technical Notes"). All numbers are big-endian. It contains neither the URL nor a validator, and no
checksum of itself, so it can be relied on only together with a saved state, or with a checksum of the whole file.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rangefetch import records
from rangefetch.disk.state import DONE, LARGEST_FILE_BYTES, SourceState, State, StateDamaged

__all__ = ["PIECE_BYTES", "ControlFile", "block_size", "from_control_file", "to_control_file"]

PIECE_BYTES = 1 << 20
"""The piece length in the control files that we write. It is aria2's default, and the smallest that aria2 accepts."""

_BLOCK_BYTES = 16 << 10
_VERSION = 1
_MOST_BLOCKS = 65_536
_HEAD = struct.Struct(">HII")
_SIZES = struct.Struct(">IQQI")
_COUNT = struct.Struct(">I")
_PIECE = struct.Struct(">III")
_RUN = re.compile(rb"\x02+")
_DIGIT_TO_MARK = bytes(DONE if digit == ord("1") else 0 for digit in range(256))
_MARK_TO_DIGIT = bytes(ord("1") if mark == DONE else ord("0") for mark in range(256))

Extent = tuple[int, int]
"""A range of written bytes, half-open."""


@records.dataclass(frozen=True, slots=True)
class ControlFile:
    """The content of a control file.

    ``pieces`` has one byte per piece of ``piece_length`` bytes, 2 for complete pieces; the last piece ends at
    ``total_length``. ``in_flight`` maps the index of a piece in progress to its blocks of 16 KiB, marked likewise.
    """

    piece_length: int
    total_length: int
    pieces: bytes
    in_flight: Mapping[int, bytes] = records.field(default_factory=dict)
    upload_length: int = 0
    info_hash: bytes = b""

    @classmethod
    def parse(cls, octets: bytes) -> ControlFile:
        """Parse a control file. Raises ``StateDamaged`` if it is malformed or contradicts itself."""
        try:
            return cls._parse(octets)
        except struct.error:
            raise StateDamaged("the control file ends early") from None
        except ValueError as error:
            raise StateDamaged(f"the control file: {error}") from None

    @classmethod
    def of_bitfield(cls, piece_length: int, total_length: int, bitfield: bytes, count: int) -> ControlFile:
        """Make one from the ``bitfield`` of ``count`` pieces that aria2 reports (aria2 manual, ``aria2.tellStatus``).

        Raises ``ValueError`` if the arguments contradict each other.
        """
        if piece_length < 1 or total_length < 1 or count != -(-total_length // piece_length):
            raise ValueError(f"{count} pieces of {piece_length} bytes do not add up to {total_length} bytes")
        return cls(piece_length, total_length, _unpack(bitfield, count))

    @classmethod
    def _parse(cls, octets: bytes) -> ControlFile:
        version, _, hash_length = _HEAD.unpack_from(octets)
        if version != _VERSION:
            raise ValueError(f"its version is {version}, not {_VERSION}")
        at = _HEAD.size + hash_length
        info_hash = octets[_HEAD.size : at]
        piece_length, total_length, upload_length, bitmap_length = _SIZES.unpack_from(octets, at)
        at += _SIZES.size
        if not (piece_length and 0 < total_length <= LARGEST_FILE_BYTES):
            raise ValueError(f"{total_length} bytes in pieces of {piece_length} is not a possible size")
        piece_count = -(-total_length // piece_length)
        if bitmap_length != -(-piece_count // 8):
            raise ValueError(f"a bitmap of {bitmap_length} bytes does not fit {piece_count} pieces")
        pieces = _unpack(octets[at : at + bitmap_length], piece_count)
        at += bitmap_length
        (in_flight_count,) = _COUNT.unpack_from(octets, at)
        at += _COUNT.size
        in_flight: dict[int, bytes] = {}
        for _ in range(in_flight_count):
            index, length, bitmap_length = _PIECE.unpack_from(octets, at)
            at += _PIECE.size
            if index >= piece_count or index in in_flight:
                raise ValueError(f"piece {index} in flight is out of range or listed twice")
            block_count = -(-min(piece_length, total_length - index * piece_length) // _BLOCK_BYTES)
            if length != min(piece_length, total_length - index * piece_length):
                raise ValueError(f"piece {index} has {length} bytes, which does not fit the file's size")
            if bitmap_length != -(-block_count // 8):
                raise ValueError(f"piece {index}: a bitmap of {bitmap_length} bytes does not fit {block_count} blocks")
            in_flight[index] = _unpack(octets[at : at + bitmap_length], block_count)
            at += bitmap_length
        if at != len(octets):
            raise ValueError(f"it has {len(octets)} bytes, but should have {at}")
        return cls(piece_length, total_length, pieces, in_flight, upload_length, info_hash)

    def to_bytes(self) -> bytes:
        """The file's content, as aria2 writes it."""
        bitmap = _pack(self.pieces)
        parts = [
            # The extension field says whether there is an info hash, which only BitTorrent has.
            _HEAD.pack(_VERSION, 1 if self.info_hash else 0, len(self.info_hash)),
            self.info_hash,
            _SIZES.pack(self.piece_length, self.total_length, self.upload_length, len(bitmap)),
            bitmap,
            _COUNT.pack(len(self.in_flight)),
        ]
        for index, blocks in sorted(self.in_flight.items()):
            bits = _pack(blocks)
            parts += [_PIECE.pack(index, self._end(index) - index * self.piece_length, len(bits)), bits]
        return b"".join(parts)

    @property
    def written_bytes(self) -> int:
        """The number of bytes listed as written."""
        return sum(end - start for start, end in self.extents())

    def extents(self) -> list[Extent]:
        """The written extents, in order."""
        extents = [
            (match.start() * self.piece_length, min(match.end() * self.piece_length, self.total_length))
            for match in _RUN.finditer(self.pieces)
        ]
        for index, blocks in self.in_flight.items():
            start = index * self.piece_length
            extents += [
                (start + match.start() * _BLOCK_BYTES, min(start + match.end() * _BLOCK_BYTES, self._end(index)))
                for match in _RUN.finditer(blocks)
            ]
        return _merged(extents)

    def _end(self, index: int) -> int:
        return min((index + 1) * self.piece_length, self.total_length)


def to_control_file(state: State) -> bytes:
    """Convert ``state`` to the content of a control file.

    Written bytes that do not fill a block of 16 KiB are left out. Raises ``ValueError`` if ``total_size`` is 0.
    """
    total = state.total_size
    if total <= 0:
        raise ValueError("aria2 has no control file for an empty file")
    pieces = bytearray(-(-total // PIECE_BYTES))
    in_flight: dict[int, bytearray] = {}

    def mark(start: int, end: int) -> None:
        """Mark the blocks of an extent that lies within one piece but does not fill it."""
        index = start // PIECE_BYTES
        first = -(-(start - index * PIECE_BYTES) // _BLOCK_BYTES)
        left = end - index * PIECE_BYTES
        last = -(-left // _BLOCK_BYTES) if end == total else left // _BLOCK_BYTES
        if first < last:
            block_count = -(-min(PIECE_BYTES, total - index * PIECE_BYTES) // _BLOCK_BYTES)
            blocks = in_flight.setdefault(index, bytearray(block_count))
            blocks[first:last] = bytes([DONE]) * (last - first)

    for start, end in _state_extents(state):
        first = -(-start // PIECE_BYTES)
        last = -(-end // PIECE_BYTES) if end == total else end // PIECE_BYTES
        if first < last:
            pieces[first:last] = bytes([DONE]) * (last - first)
            if start < first * PIECE_BYTES:
                mark(start, first * PIECE_BYTES)
            if last * PIECE_BYTES < end:
                mark(last * PIECE_BYTES, end)
        else:
            border = min(first * PIECE_BYTES, end)
            for part in ((start, border), (border, end)):
                if part[0] < part[1]:
                    mark(*part)
    return ControlFile(
        PIECE_BYTES, total, bytes(pieces), {index: bytes(blocks) for index, blocks in in_flight.items()}
    ).to_bytes()


def from_control_file(
    octets: bytes,
    url: str,
    *,
    sources: Sequence[SourceState] = (),
    resolved_url: str = "",
    filename: str = "",
) -> State:
    """Convert a control file to a state; the arguments supply what it does not contain.

    A state can only list bytes at the start of an unfinished block; bytes that aria2 has written elsewhere in one are
    left out. Raises ``StateDamaged``.
    """
    control = ControlFile.parse(octets)
    total = control.total_length
    size = block_size(total)
    blocks = bytearray(-(-total // size))
    partial: dict[int, int] = {}
    for start, end in control.extents():
        first = -(-start // size)
        last = len(blocks) if end == total else end // size
        if first < last:
            blocks[first:last] = bytes([DONE]) * (last - first)
        rest = max(first, last)
        if rest * size < end < total:
            partial[rest] = end - rest * size
    return State(
        url=url,
        resolved_url=resolved_url or url,
        total_size=total,
        supports_range=True,
        sources=list(sources) or [SourceState(url)],
        block_size=size,
        blocks=bytes(blocks),
        partial=partial,
        filename=filename,
    )


def block_size(total: int) -> int:
    """The engine's block size for a file: 1 MiB, doubled until there are at most 65,536 blocks."""
    size = PIECE_BYTES
    while -(-total // size) > _MOST_BLOCKS:
        size *= 2
    return size


def _state_extents(state: State) -> list[Extent]:
    def extents() -> Iterator[Extent]:
        for match in _RUN.finditer(state.blocks):
            yield match.start() * state.block_size, min(match.end() * state.block_size, state.total_size)
        for index, written in state.partial.items():
            if written and state.blocks[index] != DONE:
                yield index * state.block_size, index * state.block_size + written

    return _merged(extents())


def _merged(extents: Iterable[Extent]) -> list[Extent]:
    merged: list[Extent] = []
    for start, end in sorted(extents):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _unpack(bitmap: bytes, count: int) -> bytes:
    """One mark for each of the first ``count`` bits. Raises ``ValueError`` if there are fewer, or any bit is set beyond
    them."""
    if len(bitmap) != -(-count // 8):
        raise ValueError("a bitmap ends early")
    digits = f"{int.from_bytes(bitmap, 'big'):0{len(bitmap) * 8}b}"
    if "1" in digits[count:]:
        raise ValueError("a bitmap has bits set beyond its end")
    return digits[:count].encode().translate(_DIGIT_TO_MARK)


def _pack(marks: bytes) -> bytes:
    byte_count = -(-len(marks) // 8)
    digits = bytes(marks).translate(_MARK_TO_DIGIT).ljust(byte_count * 8, b"0")
    return int(b"0" + digits, 2).to_bytes(byte_count, "big")
