"""Fixtures of what is tried."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from matrix.conftest import matrix_server
from torture.zygotes import Zygote, build

__all__ = ["matrix_server"]


@pytest.fixture(scope="session")
def trying(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library by which system calls fail."""
    compiler = shutil.which(os.environ.get("CC") or "cc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("needs Linux, and a C compiler")
    try:
        return build(tmp_path_factory.mktemp("trying"), compiler)
    except subprocess.CalledProcessError as error:
        pytest.fail(str(error))


@pytest.fixture(scope="module")
def zygote(trying: Path) -> Iterator[Zygote]:
    """One for the module."""
    with Zygote(trying) as running:
        yield running
