"""What is on the disk: the names in a directory, and the saved state of an unfinished download."""

import shutil
import tempfile
from pathlib import Path

from rangefetch.disk import state

__all__ = ["MIB", "begun", "names", "read_state", "saved_bytes"]

MIB = 1 << 20


def names(directory: Path) -> list[str]:
    """The names in the directory."""
    return sorted(entry.name for entry in directory.iterdir())


def begun(path: Path) -> list[str]:
    """The names of the files that an unfinished download of ``path`` may leave."""
    return [f"{path.name}.part", f"{path.name}.part.json"]


def read_state(path: Path) -> state.State | None:
    """The saved state of ``path``, if there is one. Also works while the download runs."""
    with tempfile.TemporaryDirectory() as directory:
        # Loading a state also tidies up beside it, so load a copy.
        copy = Path(directory) / "state"
        try:
            shutil.copyfile(path.with_name(f"{path.name}.part.json"), copy)
        except FileNotFoundError:
            return None
        return state.load(copy)


def saved_bytes(path: Path) -> int:
    """The bytes that the saved state of ``path`` says are in its part file; 0 if there is no state."""
    saved = read_state(path)
    if saved is None:
        return 0
    done = [index for index, block in enumerate(saved.blocks) if block == 2]
    sizes = [min(saved.block_size, saved.total_size - index * saved.block_size) for index in done]
    return sum(sizes) + sum(saved.partial.values())
