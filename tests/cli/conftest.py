"""Fixtures of the command line's tests."""

from pathlib import Path

import pytest


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory to be in that holds nothing."""
    directory = tmp_path / "place"
    directory.mkdir()
    return directory
