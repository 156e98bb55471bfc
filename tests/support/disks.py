"""Fixtures: disks that fill up soon, or cannot be written to."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

__all__ = ["small_disk", "unwritable_directory", "without_attributes"]


def without_attributes(monkeypatch: pytest.MonkeyPatch, error: int = errno.EOPNOTSUPP) -> None:
    """Make all calls for extended attributes fail from now on, as on exFAT."""

    def refused(*_: object, **__: object) -> NoReturn:
        raise OSError(error, os.strerror(error))

    for name in ("setxattr", "getxattr", "removexattr", "listxattr"):
        monkeypatch.setattr(os, name, refused, raising=False)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    yield from _mounted(tmp_path, "size=8M")


@pytest.fixture
def unwritable_directory(tmp_path: Path) -> Iterator[Path]:
    """A directory in which not even this user can create a file."""
    if os.geteuid() == 0:
        yield from _mounted(tmp_path, "ro")
    else:
        directory = tmp_path / "unwritable"
        directory.mkdir(mode=0o500)
        yield directory


def _mounted(tmp_path: Path, options: str) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    directory = tmp_path / "disk"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "none", str(directory)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("root may not mount a file system here")
    try:
        yield directory
    finally:
        # Lazily, because a failing test may have left a file open.
        subprocess.run(["umount", "--lazy", str(directory)], check=True)
