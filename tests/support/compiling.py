"""Small libraries in C, for tests that put something of their own in the place of libc or libcurl."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

__all__ = ["compile_library"]


def compile_library(source: Path, library: Path, *options: str | os.PathLike[str]) -> Path:
    """Skips the test where there is no compiler, as beside an installed wheel; a warning is an error."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler: apt-get install gcc")
    flags = ["-Wall", "-Werror", "-shared", "-fPIC", "-O1"]
    subprocess.run([compiler, *flags, "-o", library, source, *options], check=True)
    return library
