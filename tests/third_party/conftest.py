"""Tests that only ``make third-party`` runs: RANGEFETCH_THIRD_PARTY=1 allows them to fetch and install packages."""

import os
from pathlib import Path

import pytest

_TIMEOUT_S = 900  # a whole suite is one test here, and may have to be fetched first

collect_ignore_glob = [] if os.environ.get("RANGEFETCH_THIRD_PARTY") == "1" else ["*"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests in this folder more time, except those that set their own timeout."""
    here = str(Path(__file__).parent) + os.sep  # compared as text, since there are ten thousand items
    for item in items:
        if str(item.path).startswith(here) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_TIMEOUT_S))
