"""Data that an earlier run fetched from another URL: finds it, and takes it over if it belongs to the wanted file.

Links expire, and the same file is requested with a new signature, or from another host. Size and validators can only
show that it is not the same file; bytes decide, as for a file that has the final name (``existing``). The data is taken
over only after that, so that a file that turns out to be another one does not destroy anybody's data.
"""

from __future__ import annotations

import random
from pathlib import Path

from rangefetch import records
from rangefetch.disk import state
from rangefetch.disk.beside import state_path_of
from rangefetch.disk.ownership import opened_regular
from rangefetch.disk.parts import other_urls_part
from rangefetch.disk.state import SourceState, State
from rangefetch.disk.target import Target, disk_errors
from rangefetch.identity import Identity, contradicts
from rangefetch.transfer import samples
from rangefetch.transfer.samples import Sample, finished_extents

__all__ = ["Earlier", "find", "of_url", "read_samples", "take"]


@records.dataclass(frozen=True, slots=True)
class Earlier:
    """Another URL's part file and its saved state. ``is_in_place``: it is already the part file of the download that is
    to use it, because the user gave both the same name.
    """

    part_path: Path
    saved: State
    is_in_place: bool

    def contradicts(self, remote: Identity) -> bool:
        """Whether it cannot be part of the file that ``remote`` describes."""
        known = self.saved.identity_of(self.saved.url) or Identity(self.saved.total_size)
        return remote.size < 0 or contradicts(known, remote)


def find(directory: Path, url: str) -> Earlier | None:
    """Find what another URL's download has left in the directory, if both URLs' paths end in the same name. Raises
    ``DiskError``

    .
    """
    with disk_errors("list the directory", directory):
        path = other_urls_part(directory, url)
        saved = _saved(path) if path is not None else None
    return Earlier(path, saved, is_in_place=False) if path is not None and saved is not None else None


def read_samples(earlier: Earlier) -> list[Sample]:
    """Samples of the data; none if there is none, or no longer."""
    saved = earlier.saved
    extents = finished_extents(saved.blocks, saved.block_size, saved.total_size, saved.partial)
    with opened_regular(earlier.part_path) as found:
        if found is None:
            return []
        return samples.read(found[0], samples.choose(saved.total_size, extents, random.SystemRandom()))


def take(earlier: Earlier, url: str) -> Target | None:
    """Take over the data as the target of ``url``. None if another download has it, or has changed it. Raises
    ``DiskError``

    .
    """
    target = Target.take(earlier.part_path, url)
    if target is None:
        return None
    if _saved(earlier.part_path) == earlier.saved:
        return target
    target.close()
    return None


def of_url(earlier: Earlier, url: str, remote: Identity, filename: str) -> State:
    """Its state, rewritten for ``url``, whose server describes the file as ``remote``."""
    source = SourceState(url, remote.etag, remote.last_modified)
    return records.replace(earlier.saved, url=url, resolved_url=url, sources=[source], filename=filename)


def _saved(part_path: Path) -> State | None:
    """Load a state that matches the part file, as far as can be told without the lock."""
    try:
        saved = state.load(state_path_of(part_path))
    except (OSError, state.StateDamaged):
        return None
    if not saved.sources or not saved.written_end:
        return None
    with opened_regular(part_path) as found:
        if found is None or found[1].st_size < saved.written_end:
            return None
        return saved if saved.sample in (0, state.sample_of(found[0], saved)) else None
