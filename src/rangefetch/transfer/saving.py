"""Saves and loads a task's state, between the engine's block map and the files beside the part file.

The order is: read the map, sync the data, then write what was read. Bits read after the sync might claim bytes that it
missed. After a failed sync, no state is written any more.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rangefetch import records
from rangefetch.disk import beside, state
from rangefetch.disk.control_file import from_control_file
from rangefetch.disk.ownership import NotOurs, read_own
from rangefetch.disk.target import Target
from rangefetch.errors import DiskError
from rangefetch.logs import log as _log
from rangefetch.masking import mask_url
from rangefetch.net.sources import Sources

if TYPE_CHECKING:
    from rangefetch._engine import File

__all__ = [
    "MOST_CONTROL_BYTES",
    "as_state",
    "load",
    "read_control",
    "save",
    "save_at_the_end",
    "save_on_the_way",
    "save_state",
]

_ROOM_BYTES = 64 << 10  # more than a state takes
MOST_CONTROL_BYTES = 64 << 20
"""The largest aria2 control file that is read. It has a bit per piece (1 MiB or more), more per incomplete one."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_DONE = 2


def load(target: Target, url: str, *, provable: bool) -> state.State | None:
    """Load the saved state, if it is sound. It is not yet known whether its bytes are the remote file's, and it may
    belong to another URL whose file was given the same name.

    ``provable`` says that a checksum will verify the result; only then are aria2's leftovers used without a state of
    ours. A state that cannot be used is set aside with a warning. The control file of an aria2 that did not exit
    cleanly is converted to a state of ours. Raises ``DiskError``.
    """
    path = target.state_path
    try:
        own = _load_own(target)
    except state.StateDamaged as error:
        _log.warning("%s; set aside, starting over", error)
        with contextlib.suppress(DiskError):
            state.set_aside(path)
        return None
    try:
        found = _load_aria2s(target, url, own, provable=provable)
    except state.StateDamaged as error:
        # The bytes that our state claims were safe before aria2 started, and aria2 only adds to them.
        found = None
        _log.warning("%s; %s", error, "using the state file instead" if own is not None else "starting over")
    saved = found or own
    if saved is None:
        return None
    if own is None and not provable:
        _log.warning("%s: cannot tell whose data %s describes; starting over", mask_url(url), target.control_path.name)
        return None
    if found is not None:
        try:
            target.sync()
        except DiskError:
            beside.remove(target.control_path)  # it may claim bytes that are lost
            raise
        target.save_state(found)
        beside.remove(target.control_path)
    return saved


def _load_own(target: Target) -> state.State | None:
    """Load the state file; None if there is none. Raises ``StateDamaged``."""
    path = target.state_path
    try:
        saved = state.load(path)
    except FileNotFoundError:
        return None
    if not saved.sources:
        return None  # it only says whose the part file is
    _checked(saved, target, path)
    if saved.sample not in (0, state.sample_of(target.fd, saved)):
        raise state.StateDamaged(f"{path}: it does not describe {target.part_path}")
    return saved


def _load_aria2s(target: Target, url: str, own: state.State | None, *, provable: bool) -> state.State | None:
    """Load aria2's control file, which is newer than the state; None if there is none. Raises ``StateDamaged``.

    It names no file: the state file says which one it belongs to, or else a checksum must verify the result.
    """
    octets = read_control(target, trusted=provable)
    if octets is None:
        return None
    if own is None:
        return as_state(octets, target, url)
    found = as_state(octets, target, own.url, own.sources, own.resolved_url, own.filename)
    if own.total_size != found.total_size:
        raise state.StateDamaged(f"{target.control_path}: it is for a file of another size")
    return found


def read_control(target: Target, *, trusted: bool = False) -> bytes | None:
    """Read aria2's control file; None if there is none. Raises ``StateDamaged`` if it cannot be one."""
    path = target.control_path
    try:
        return read_own(path, MOST_CONTROL_BYTES, trusted=trusted)[0]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise state.StateDamaged(f"{path}: cannot read it: {error.strerror or error}") from error
    except NotOurs as error:
        raise state.StateDamaged(f"{path}: {error}") from error


def as_state(
    octets: bytes,
    target: Target,
    url: str,
    sources: Sequence[state.SourceState] = (),
    resolved_url: str = "",
    filename: str = "",
) -> state.State:
    """Convert a control file to a state; the arguments supply what it does not say. Raises ``StateDamaged``."""
    path = target.control_path
    name = filename or (target.path.name if target.path is not None else "")
    try:
        found = from_control_file(octets, url, sources=sources, resolved_url=resolved_url, filename=name)
    except state.StateDamaged as error:
        raise state.StateDamaged(f"{path}: {error}") from error
    return _checked(found, target, path)


def _checked(saved: state.State, target: Target, path: Path) -> state.State:
    if os.fstat(target.fd).st_size < saved.written_end:
        raise state.StateDamaged(f"{path}: {target.part_path} is shorter than it says")
    return saved


def _seen(file: File) -> tuple[bytearray, dict[int, int]]:
    """Read the block map while the engine keeps writing: the blocks, and the bytes written in unfinished ones.

    The blocks are read first. A transfer's bytes are taken back if it turns out to be wrong, so a count read before
    them might belong to a block that is missing by the time its mark is read. Bytes taken back even later are left out
    by the next save (``NativeTask.forget_bytes``).
    """
    blocks = bytearray(file.blocks)
    partial = {i: count for i, count in enumerate(file.partial.tolist()) if count and blocks[i] != _DONE}
    return blocks, partial


def save(target: Target, file: File, sources: Sources) -> int:
    """Save what is in the file. Returns the number of bytes. Raises ``DiskError``."""
    return _save(target, _state_of(target, file, sources))


def _save(target: Target, saved: state.State) -> int:
    target.sync()
    target.save_state(saved)
    return saved.written_bytes


def _state_of(target: Target, file: File, sources: Sources) -> state.State:
    blocks, partial = _seen(file)
    return state.State(
        url=sources.url,
        resolved_url=sources[0].resolved_url or sources.url,
        total_size=file.size,
        supports_range=True,
        sources=[
            state.SourceState(source.given_url, *file.validators(number))
            for number, source in enumerate(sources)
            if number < file.source_count
        ],
        block_size=file.block_size,
        blocks=bytes(blocks),
        partial=partial,
        filename=target.path.name if target.path else "",
    )


def _saved_end(target: Target) -> int:
    """The end of the bytes that the existing saved state claims."""
    try:
        return state.load(target.state_path).written_end
    except (FileNotFoundError, state.StateDamaged):
        return 0


def save_on_the_way(target: Target, file: File, sources: Sources) -> int | None:
    """Save while bytes arrive. Returns the number of bytes, or None if there was no room for the state.

    That is only a warning, because the bytes already have their space. Raises ``DiskError`` for everything else, and if
    data could not be written.
    """
    try:
        return save(target, file, sources)
    except DiskError as error:
        if error.errno not in _NO_ROOM or target.has_lost_writes:
            raise
        _log.warning("%s: the state could not be saved: %s", mask_url(sources.url), error)
        return None


def save_at_the_end(target: Target, file: File, sources: Sources) -> int:
    """Save once nothing arrives any more. Returns the number of bytes. Raises ``DiskError``."""
    return save_state(target, _state_of(target, file, sources))


def save_state(target: Target, saved: state.State) -> int:
    """Save the state of a file that nothing writes to any more. Returns the number of bytes.

    If the disk is full, the data is cut a little to make room for the state. Raises ``DiskError``. If a sync has
    failed, now or before, the last saved state stays as it is.
    """
    try:
        return _save(target, saved)
    except DiskError as error:
        if error.errno not in _NO_ROOM or target.has_lost_writes:
            raise
    beside.remove_control(target.part_path)
    # Keep the bytes that the existing state claims, since this may fail too.
    less = _cut(saved, max(saved.written_end - _ROOM_BYTES, _saved_end(target)))
    os.ftruncate(target.fd, less.written_end)
    return _save(target, less)


def _cut(saved: state.State, end: int) -> state.State:
    """The same state without anything beyond ``end``."""
    blocks, partial = bytearray(saved.blocks), dict(saved.partial)
    for index in range(end // saved.block_size, len(blocks)):
        start = index * saved.block_size
        there = saved.block_size if blocks[index] == _DONE else partial.pop(index, 0)
        blocks[index] = 0
        if left := min(there, max(0, end - start)):
            partial[index] = left
    return records.replace(saved, blocks=bytes(blocks), partial=partial)
