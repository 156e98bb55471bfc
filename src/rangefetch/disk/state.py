"""The saved state of an unfinished download, by which it resumes after any kind of stop.

The file is one line of JSON with a CRC-32 of itself. It is trusted as a whole or not at all: a state that is damaged,
was written by another version, or contradicts itself is refused. Only the holder of the target's lock saves and loads
it. A file that cannot be shown to be ours is left alone.
"""

from __future__ import annotations

import errno
import math
import os
import re
import stat
import time
import zlib
from pathlib import Path
from typing import Any

from rangefetch import records
from rangefetch.disk import system
from rangefetch.disk.ownership import NotOurs, is_marked_file, mark, read_own
from rangefetch.disk.replacing import replace_file
from rangefetch.errors import DiskError
from rangefetch.identity import Identity
from rangefetch.importing import no_fork

__all__ = [
    "DONE",
    "LARGEST_BLOCK_BYTES",
    "LARGEST_FILE_BYTES",
    "SourceState",
    "State",
    "StateDamaged",
    "StateForeign",
    "load",
    "sample_of",
    "save",
    "set_aside",
]

LARGEST_FILE_BYTES = 1 << 48
LARGEST_BLOCK_BYTES = 1 << 32
"""The engine has the same limits, and refuses larger values from servers and states alike."""

_VERSION = 2
DONE = 2  # a finished block, as in the engine's block map
_UNREADABLE_NOW = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EINTR})
# Nine times the size of a state in which each of 65,536 blocks is unfinished.
_MAX_FILE_BYTES = 1 << 23
_SAMPLES = 16
_SAMPLE_BYTES = 64

_FIELD_TYPES: dict[str, type] = {
    "version": int,
    "url": str,
    "resolved_url": str,
    "total_size": int,
    "supports_range": bool,
    "sources": list,
    "block_size": int,
    "bitmap": str,
    "partial": dict,
    "filename": str,
    "sample": int,
    "last_updated": float,
    "crc32": int,
}
_SOURCE_TYPES = {"url": str, "etag": str, "last_modified": str}
MOST_VALIDATOR_BYTES = 1023  # the longest validator that the engine keeps
_BLOCK_INDEX = re.compile("0|[1-9][0-9]{0,18}")
_HEX_BYTES = re.compile("(?:[0-9a-f]{2})*")
_BLOCK_TO_DIGIT = bytes(ord("1") if block == DONE else ord("0") for block in range(256))
_DIGIT_TO_BLOCK = bytes(DONE if digit == ord("1") else 0 for digit in range(256))


class StateDamaged(ValueError):
    """The saved state cannot be trusted; the message names the file and the reason."""


class StateForeign(StateDamaged):
    """The file cannot be shown to be a saved state of this user's, so it may be somebody else's and is left alone."""


@records.dataclass(slots=True)
class SourceState:
    """A URL that can serve the file, and the validators from its responses (empty if none)."""

    url: str
    etag: str = ""
    last_modified: str = ""


@records.dataclass(slots=True)
class State:
    """One download at one moment.

    ``url`` is what the user asked for, ``resolved_url`` that URL after redirects. ``blocks`` has one byte per block of
    ``block_size`` bytes, as in memory: 2 means done, anything else not; the last block ends at ``total_size``.
    ``partial`` maps an unfinished block to the number of bytes written at its start. ``filename`` is the final name,
    if known. ``sample`` is the result of :func:`sample_of` for the part file when the state was saved (0: not
    computed). ``last_updated`` is in seconds since the epoch.
    """

    url: str
    resolved_url: str
    total_size: int
    supports_range: bool
    sources: list[SourceState]
    block_size: int
    blocks: bytes
    partial: dict[int, int]
    filename: str = ""
    sample: int = 0
    last_updated: float = records.field(default_factory=time.time)

    def identity_of(self, url: str) -> Identity | None:
        """The identity of the file according to a source; None if that source was not asked."""
        known = (Identity(self.total_size, each.etag, each.last_modified) for each in self.sources if each.url == url)
        return next(known, None)

    @property
    def written_bytes(self) -> int:
        """The number of bytes written."""
        beyond = len(self.blocks) * self.block_size - self.total_size if self.blocks[-1:] == bytes([DONE]) else 0
        return self.blocks.count(DONE) * self.block_size - beyond + sum(self.partial.values())

    @property
    def written_end(self) -> int:
        """The end of the last written byte. A part file that is shorter does not belong to this state."""
        done_end = min((self.blocks.rfind(DONE) + 1) * self.block_size, self.total_size)
        partial_ends = [index * self.block_size + count for index, count in self.partial.items() if count]
        return max([done_end, *partial_ends])


def save(path: str | os.PathLike[str], state: State) -> None:
    """Save ``state`` at ``path``, mode 0600, replacing any older one. A crash leaves either the old or the new state.

    The bytes that ``state`` lists as written must have been synced to disk. Entries of ``partial`` for blocks that are
    done are dropped. Raises ``DiskError``, and ``ValueError`` for a state that :func:`load` would refuse.
    """
    unfinished = {i: count for i, count in state.partial.items() if state.blocks[i : i + 1] != bytes([DONE])}
    state = records.replace(state, partial=unfinished)
    _check(state)
    octets = _encode(_to_document(state))
    if len(octets) > _MAX_FILE_BYTES:
        raise ValueError(f"it has more than {_MAX_FILE_BYTES} bytes")
    path = Path(path)
    try:
        # If a power failure brings an older state back, it lists fewer bytes, but none wrongly.
        replace_file(path, octets, prepare=lambda fd: mark(fd, state.url))
    except OSError as error:
        raise _disk_error(path, "save it", error) from error


def load(path: str | os.PathLike[str]) -> State:
    """Load and check the state saved at ``path``.

    Raises ``FileNotFoundError`` if there is none; another ``OSError`` if a file that is ours, or may be, cannot be read
    at the moment, whatever its content; ``StateForeign`` for a file that another user or program may have written; and
    ``StateDamaged`` for anything else that is not, byte for byte, what :func:`save` writes.
    """
    path = Path(path)
    is_ours = False
    try:
        octets, is_ours = read_own(path, _MAX_FILE_BYTES)
        document = _decode(octets)
        # One comparison checks both the CRC and that every byte is as we would write it.
        if _encode(document) != octets:
            raise ValueError("its CRC-32 is wrong")
        state = _from_document(document)
        _check(state)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in _UNREADABLE_NOW or _is_own(path):
            raise
        raise StateForeign(f"{path}: cannot read it: {error.strerror or error}") from error
    except NotOurs as error:
        raise StateForeign(f"{path}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise (StateDamaged if is_ours else StateForeign)(f"{path}: {error}") from error
    return state


def _is_own(path: Path) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and system.is_own(status)


def sample_of(fd: int, state: State) -> int:
    """A CRC-32 of a few bytes of the part file, by which it can be told from another one. Never 0.

    The bytes are among those that ``state`` lists as written, which do not change any more. Raises ``OSError``.
    """
    done = [match.start() for match in re.finditer(b"\2", state.blocks)]
    starts = [index * state.block_size for index in done[:: max(1, len(done) // _SAMPLES)]]
    ends = [state.total_size] * len(starts)
    for index, written in sorted(state.partial.items())[:_SAMPLES]:
        starts.append(index * state.block_size)
        ends.append(index * state.block_size + written)
    crc = 0
    for start, end in zip(starts, ends, strict=True):
        crc = zlib.crc32(system.pread(fd, min(_SAMPLE_BYTES, end - start), start), crc)
    return crc or 1


def set_aside(path: str | os.PathLike[str]) -> Path:
    """Rename the file, which must be ours, to ``NAME.bad``, replacing an older one of ours. Returns that path.

    If something else has that name, the file is deleted instead. Raises ``DiskError``.
    """
    path = Path(path)
    bad_path = path.with_name(path.name + ".bad")
    try:
        if os.path.lexists(bad_path) and not is_marked_file(bad_path):
            path.unlink()
            return bad_path
        system.replace(path, bad_path)
        return bad_path
    except OSError as error:
        raise _disk_error(path, "set it aside", error) from error


def _check(state: State) -> None:
    """Raise ``ValueError`` unless ``state`` is consistent."""
    if not state.url:
        raise ValueError("url is empty")
    if not 0 <= state.total_size <= LARGEST_FILE_BYTES:
        raise ValueError(f"total_size {state.total_size} is out of range")
    if not 1 <= state.block_size <= LARGEST_BLOCK_BYTES:
        raise ValueError(f"block_size {state.block_size} is out of range")
    block_count = -(-state.total_size // state.block_size)
    if len(state.blocks) != block_count:
        raise ValueError(f"{len(state.blocks)} blocks, but total_size and block_size make {block_count}")
    for index, written in state.partial.items():
        if not 0 <= index < block_count or state.blocks[index] == DONE:
            raise ValueError(f"partial: block {index} is not an unfinished one")
        if not 0 <= written < min(state.block_size, state.total_size - index * state.block_size):
            raise ValueError(f"partial: {written} bytes of block {index} is out of range")
    if state.filename in (".", "..") or "/" in state.filename or "\0" in state.filename:
        raise ValueError("filename is not a plain file name")
    for source in state.sources:
        for value in (source.etag, source.last_modified):
            if len(value.encode("utf-8", "surrogatepass")) > MOST_VALIDATOR_BYTES:
                raise ValueError("a validator is too long")
    if not (math.isfinite(state.last_updated) and state.last_updated >= 0):
        raise ValueError(f"last_updated {state.last_updated} is out of range")


def _to_document(state: State) -> dict[str, Any]:
    document = {field.name: getattr(state, field.name) for field in records.fields(state)}
    del document["blocks"]
    document["version"] = _VERSION
    document["sources"] = [
        {field.name: getattr(source, field.name) for field in records.fields(source)} for source in state.sources
    ]
    document["bitmap"] = _pack(state.blocks)
    document["partial"] = {str(index): written for index, written in state.partial.items()}
    document["last_updated"] = float(state.last_updated)
    return document


def _from_document(document: dict[str, Any]) -> State:
    """Convert a decoded document to a state, checking all types. Raises ``ValueError``."""
    document.pop("options", None)  # earlier versions wrote it, and none has ever read it
    if document.keys() != _FIELD_TYPES.keys():
        raise ValueError(f"its fields are not those of version {_VERSION}")
    for name, expected in _FIELD_TYPES.items():
        if type(document[name]) is not expected:
            raise ValueError(f"{name} is not of type {expected.__name__}")
    for source in document["sources"]:
        if type(source) is not dict or {name: type(source[name]) for name in source} != _SOURCE_TYPES:
            raise ValueError("sources: each needs url, etag and last_modified, all strings")
    partial: dict[int, int] = {}
    for key, written in document["partial"].items():
        if not _BLOCK_INDEX.fullmatch(key) or type(written) is not int:
            raise ValueError("partial does not map block numbers to bytes")
        partial[int(key)] = written
    if not _HEX_BYTES.fullmatch(document["bitmap"]):
        raise ValueError("bitmap is not hexadecimal")
    block_count = -(-document["total_size"] // max(document["block_size"], 1))
    blocks = _unpack(document["bitmap"])
    if len(blocks) != -(-block_count // 8) * 8 or any(blocks[block_count:]):
        raise ValueError("bitmap does not fit total_size and block_size")
    fields = {name: document[name] for name in _FIELD_TYPES.keys() - {"version", "bitmap", "crc32"}}
    fields["sources"] = [SourceState(**source) for source in document["sources"]]
    fields["partial"] = partial
    return State(blocks=blocks[:block_count], **fields)


# No numpy: importing it would take 0.1 s, and these functions take 0.1 ms for 65,536 blocks.
def _pack(blocks: bytes) -> str:
    """A bitmap of the done blocks in hexadecimal, first block in the highest bit, padded with zeros to whole bytes."""
    byte_count = -(-len(blocks) // 8)
    digits = blocks.translate(_BLOCK_TO_DIGIT).ljust(byte_count * 8, b"0")
    return int(b"0" + digits, 2).to_bytes(byte_count, "big").hex()


def _unpack(bitmap: str) -> bytes:
    """The blocks of a bitmap, including the padding of its last byte."""
    octets = bytes.fromhex(bitmap)
    digits = f"{int.from_bytes(octets, 'big'):0{len(octets) * 8}b}" if octets else ""
    return digits.encode().translate(_DIGIT_TO_BLOCK)


def _encode(document: dict[str, Any]) -> bytes:
    """The file's content: the fields in alphabetical order, with a CRC-32 over all the others."""
    with no_fork:
        import json

    def dump(fields: dict[str, Any]) -> bytes:
        return json.dumps(fields, allow_nan=False, separators=(",", ":"), sort_keys=True).encode("ascii")

    fields = {name: value for name, value in document.items() if name != "crc32"}
    return dump(fields | {"crc32": zlib.crc32(dump(fields))}) + b"\n"


def _decode(octets: bytes) -> dict[str, Any]:
    with no_fork:
        import json
    try:
        document = json.loads(octets.decode("ascii"))
    except ValueError:
        raise ValueError("it is not JSON") from None
    if type(document) is not dict:
        raise ValueError("it is not a JSON object")
    if document.get("version") != _VERSION:
        raise ValueError(f"its version is {document.get('version')!r}, not {_VERSION}")
    return document


def _disk_error(path: Path, action: str, error: OSError) -> DiskError:
    words = f"{path}: cannot {action}: {error.strerror or error}"
    return DiskError(words, errno=error.errno or 0, filename=path)
