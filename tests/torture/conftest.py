"""Fixtures of the torture tests."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from matrix.conftest import matrix_server
from torture.zygotes import Zygote, build

__all__ = ["matrix_server"]


@pytest.fixture(scope="session")
def trying(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The preloaded library that makes system calls fail."""
    if sys.platform != "linux":
        pytest.skip("needs Linux")
    return build(tmp_path_factory.mktemp("trying"))


@pytest.fixture(scope="module")
def zygote(trying: Path) -> Iterator[Zygote]:
    """A zygote for the module."""
    with Zygote(trying) as running:
        yield running
