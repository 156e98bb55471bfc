"""Fixtures of the engine's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.driving import Driver
from rangefetch import _engine
from rangefetch.net import libcurl


@pytest.fixture(scope="session", autouse=True)
def _libcurl_is_loaded() -> None:
    """What TLS and libcurl open once and keep must not count as a test's leak."""
    libcurl.load()


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    """An engine with one loop, of which nothing may be left."""
    with Driver(tmp_path) as running:
        yield running
    assert _engine.live_handles() == 0
