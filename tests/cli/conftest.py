"""Fixtures for the tests of the command line."""

from pathlib import Path

import pytest


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An empty directory in which the command runs."""
    directory = tmp_path / "place"
    directory.mkdir()
    return directory
