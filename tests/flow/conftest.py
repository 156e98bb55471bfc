"""Fixtures of the flow tests."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flow.helpers import Valve, script
from rangefetch import DownloadManager
from servers.routing import ROUTES, Route


@pytest.fixture(autouse=True, scope="session")
def _script_route() -> Iterator[None]:
    """The servers know ``/script`` while these tests run."""
    ROUTES["script"] = Route("script", script, {})
    yield
    del ROUTES["script"]


@pytest.fixture
def valve(monkeypatch: pytest.MonkeyPatch) -> Valve:
    """4 MiB a second until it is opened, by all replies of ``/valve`` together."""
    valve = Valve(4 << 20)
    monkeypatch.setitem(ROUTES, "valve", Route("valve", valve, {}))
    return valve


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A name in a directory that holds nothing else."""
    directory = tmp_path / "downloads"
    directory.mkdir()
    return directory / "file.bin"


@pytest.fixture
def manager() -> Iterator[DownloadManager]:
    with DownloadManager() as running:
        yield running


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
        # Lazily: a failing test may have left a file open.
        subprocess.run(["umount", "--lazy", str(directory)], check=True)
