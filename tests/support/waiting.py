"""Waiting for a condition."""

import time
from collections.abc import Callable

import pytest

__all__ = ["AT_ONCE", "until"]

AT_ONCE = 10.0
"""Seconds by which also a busy machine has done what it does at once, and not what waits for something to time out."""


def until(condition: Callable[[], object], timeout: float = 30.0) -> None:
    """Wait until ``condition`` is true; fail the test if that takes more than ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    pause = 0.001
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"this did not become true within {timeout:g} s: {condition}")
        time.sleep(pause)
        pause = min(1.1 * pause, 0.01)  # check less often as time passes
