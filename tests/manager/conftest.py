"""Fixtures for the tests of the manager."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rangefetch import DownloadManager
from servers.directed import Valve
from servers.misbehaving import MisbehavingServer
from support.stage import Stage


@pytest.fixture
def stage(server: MisbehavingServer, valve: Valve, target: Path) -> Iterator[Stage]:
    """A manager with one active download at a time, and its downloads in any state."""
    with DownloadManager(max_concurrent_downloads=1) as running:
        yield Stage(running, server, valve, target)
