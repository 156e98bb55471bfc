"""What tests of all kinds share: waiting for something, looking at a directory, programs of their own."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import rangefetch

MIB = 1 << 20
AT_ONCE = 10.0
"""Seconds by which also a busy machine has done what it does at once, and not what waits for something to time out."""


def until(condition: Callable[[], object], timeout: float = 10.0) -> None:
    """Wait until it holds; fail the test if it does not within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"this did not become true within {timeout:g} s: {condition}")
        time.sleep(0.002)


def names(directory: Path) -> list[str]:
    """What lies in the directory."""
    return sorted(entry.name for entry in directory.iterdir())


def python(module: str, function: str, *arguments: object) -> list[str]:
    """The command of a Python in which a function of one of the tests' modules is at work; it is given strings."""
    places = [str(Path(rangefetch.__file__).parents[1]), str(Path(__file__).parent)]
    start = f"import sys; sys.path[:0] = {places!r}; import {module}; {module}.{function}(*sys.argv[1:])"
    return [sys.executable, "-c", start, *map(str, arguments)]
