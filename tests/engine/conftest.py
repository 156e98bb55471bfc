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
    """Load libcurl first, so that descriptors which it and TLS open once and keep do not count as a test's leak."""
    libcurl.load()


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    """An engine with one loop. Fails the test if anything of it is left."""
    with Driver(tmp_path) as running:
        yield running
    assert _engine.live_handles() == 0
