"""Fixtures of the manager's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from flow.helpers import Valve, script
from manager.helpers import Stage
from rangefetch import DownloadManager
from servers.misbehaving import MisbehavingServer
from servers.routing import ROUTES, Route


@pytest.fixture(autouse=True)
def _script_route(monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers know ``/script`` while these tests run."""
    monkeypatch.setitem(ROUTES, "script", Route("script", script, {}))


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
def stage(server: MisbehavingServer, valve: Valve, target: Path) -> Iterator[Stage]:
    """A manager that has one active download at a time, and downloads of it in any state."""
    with DownloadManager(max_concurrent_downloads=1) as running:
        yield Stage(running, server, valve, target)
