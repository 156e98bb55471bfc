"""Part files and their states, for tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from rangefetch.disk import state
from rangefetch.disk.state import SourceState, State
from rangefetch.disk.target import Target
from rangefetch.errors import DiskError

__all__ = ["HOLDER", "URL", "disk_error", "files", "publish", "refusing", "state_of", "written"]

URL = "https://example.org/file"

HOLDER = """if True:
    import sys
    from rangefetch.disk.target import Target
    opened = Target.open(sys.argv[1], "x", "url")
    print("open", flush=True)
    sys.stdin.readline()
    opened.publish(overwrite=False, modified_time=None, durable=False)
"""


@contextmanager
def disk_error(number: int, *parts: object) -> Iterator[None]:
    """Check that the body raises a ``DiskError`` with this errno and a one-line message that contains all ``parts``."""
    with pytest.raises(DiskError) as caught:
        yield
    assert caught.value.errno == number
    assert "\n" not in str(caught.value)
    assert all(str(part) in str(caught.value) for part in parts), str(caught.value)


def refusing(number: int) -> Callable[..., None]:
    """A function that always fails with this errno."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def written(directory: Path, filename: str = "x", octets: bytes = b"new") -> Target:
    opened = Target.open(directory, filename, URL)
    os.pwrite(opened.fd, octets, 0)
    opened.save_state(state_of(len(octets)))
    return opened


def state_of(size: int, written: int = 1) -> State:
    return State(
        url=URL,
        resolved_url=URL,
        total_size=size,
        supports_range=True,
        sources=[SourceState(URL)],
        block_size=1 << 20,
        blocks=b"\0",
        partial={0: min(written, size - 1)},
    )


def publish(opened: Target, *, overwrite: bool = False, durable: bool = False) -> Path:
    with closing(opened):
        return opened.publish(overwrite=overwrite, modified_time=1e9, durable=durable)


def files(directory: Path) -> dict[str, str]:
    """The files in the directory with their contents; for a saved state, only that it is one."""
    return {
        path.name: "state" if path.name.endswith(".part.json") and state.load(path) else path.read_text()
        for path in directory.iterdir()
    }
