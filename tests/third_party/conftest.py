"""What only ``make third-party`` runs: RANGEFETCH_THIRD_PARTY=1 says that tests may fetch and install."""

import os
from pathlib import Path

import pytest

_TIMEOUT_S = 900  # a suite is one test here, and may have to be fetched first

collect_ignore_glob = [] if os.environ.get("RANGEFETCH_THIRD_PARTY") == "1" else ["*"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """More time, for those in this folder that do not say how much they need."""
    here = str(Path(__file__).parent) + os.sep  # compared as text: there are ten thousand of them
    for item in items:
        if str(item.path).startswith(here) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_TIMEOUT_S))
