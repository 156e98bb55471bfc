"""Fixtures of the tests over both backends."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rangefetch import DownloadManager
from servers.directed import Valve
from servers.misbehaving import MisbehavingServer
from support.ports import PORTS
from support.stage import Stage

Make = Callable[..., DownloadManager]


@pytest.fixture
def daemon(aria2c: Path, tmp_path: Path) -> dict[str, Any]:
    """Keywords for a manager that make aria2 quick and keep its files in the test's directory."""
    return {
        "aria2_path": aria2c,
        "rpc_port": next(PORTS),
        "state_dir": tmp_path / "state",
        "health_check_interval": 0.5,
        "restart_wait": 0.05,
    }


@pytest.fixture
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes managers that are stopped afterwards."""
    made = []

    def make(backend: str = "auto", **options: Any) -> DownloadManager:
        daemon = {} if backend == "native" else request.getfixturevalue("daemon")
        made.append(DownloadManager(backend, **(daemon | options)))
        return made[-1]

    yield make
    for manager in made:
        manager.stop()


# ---- Tests that run over both ------------------------------------------------------------------------------------


@pytest.fixture(params=["native", "aria2"])
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend in turn. A test for only one of them gives the reason (``only``)."""
    return str(request.param)


@pytest.fixture
def manage(make: Make, backend: str) -> Make:
    """Makes managers over the backend."""
    return functools.partial(make, backend)


@pytest.fixture
def manager(manage: Make) -> Iterator[DownloadManager]:
    with manage() as running:
        yield running


@pytest.fixture
def stage(manage: Make, backend: str, server: MisbehavingServer, valve: Valve, target: Path) -> Iterator[Stage]:
    """A manager with one active download at a time, and its downloads in any state."""
    with manage(max_concurrent_downloads=1) as running:
        yield Stage(running, server, valve, target)
