"""Fixtures of the tests of the aria2 backend."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aria2.driving import Desk
from rangefetch.aria2.backend import Aria2Backend
from rangefetch.aria2.config import DaemonConfig
from support.ports import PORTS

Configure = Callable[..., DaemonConfig]


def _configure(aria2c: Path, directory: Path) -> Configure:
    port = next(PORTS)

    def make(**options: Any) -> DaemonConfig:
        defaults: dict[str, Any] = {
            "aria2_path": aria2c,
            "rpc_port": port,
            "state_dir": directory / "state",
            "download_dir": directory,
            "health_check_interval": 0.5,
            "restart_wait": 0.05,
        }
        return DaemonConfig(**defaults | options)

    return make


@pytest.fixture
def configure(tmp_path: Path, aria2c: Path) -> Configure:
    """Makes configs with short waits, whose files are all in the test's directory."""
    return _configure(aria2c, tmp_path)


@pytest.fixture(scope="module")
def desk(aria2c: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A desk with a running aria2 backend that all tests of the module share."""
    desk = Desk()
    backend = desk.backend = Aria2Backend(desk, _configure(aria2c, tmp_path_factory.mktemp("aria2"))())
    backend.start()
    yield desk
    backend.stop()


@pytest.fixture
def own_desk(configure: Configure) -> Iterator[Desk]:
    """A desk with a running aria2 backend that only this test uses."""
    desk = Desk()
    backend = desk.backend = Aria2Backend(desk, configure())
    backend.start()
    yield desk
    backend.stop()
