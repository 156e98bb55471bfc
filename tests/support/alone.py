"""Tests that run alone: those marked ``alone`` measure time, or count something that belongs to the whole machine.

With several workers, such a test runs while no other does: every test holds a shared lock while it runs, and these
hold it exclusively. Each test passes a turnstile before it takes the lock, so that a stream of shared locks cannot
starve an exclusive one. Tests that run alone come last and on one worker, since each makes all others wait.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

__all__ = ["pytest_collection_modifyitems", "pytest_configure", "pytest_configure_node", "pytest_runtest_protocol"]


def pytest_configure(config: pytest.Config) -> None:
    """Create the directory for the locks in the main process; pytest-xdist's workers are given its path."""
    if hasattr(config, "workerinput"):
        config.stash[_DIRECTORY] = config.workerinput["locks"]
    else:
        directory = tempfile.TemporaryDirectory(prefix="rangefetch-tests-")
        config.add_cleanup(directory.cleanup)
        config.stash[_DIRECTORY] = directory.name


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Pass the directory to each worker of pytest-xdist."""
    node.workerinput["locks"] = node.config.stash[_DIRECTORY]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the tests that run alone last, in one group."""
    if hasattr(config, "workerinput") or config.option.workers:
        for item in filter(_alone, items):
            item.add_marker(pytest.mark.xdist_group("alone"))
        items.sort(key=_alone)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Hold the lock around a test and its fixtures. Waiting for it does not count towards the test's timeout."""
    with _turn(Path(item.config.stash[_DIRECTORY]), _alone(item)):
        return (yield)


_DIRECTORY = pytest.StashKey[str]()


def _alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None


@contextlib.contextmanager
def _turn(locks: Path, alone: bool) -> Iterator[None]:
    import fcntl  # missing on Windows, where there is only one worker

    with (locks / "tests").open("w") as tests:
        with (locks / "turnstile").open("w") as turnstile:
            fcntl.flock(turnstile, fcntl.LOCK_EX)
            fcntl.flock(tests, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
