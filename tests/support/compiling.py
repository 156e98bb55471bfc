"""Small libraries in C, for tests that put something of their own in the place of libc or libcurl."""

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

__all__ = ["compile_library"]

_COMPILED = Path(__file__).parents[2] / "build" / "libraries"
_FLAGS = ("-Wall", "-Werror", "-shared", "-fPIC", "-O1")


def compile_library(source: Path, library: Path, *options: str | os.PathLike[str]) -> Path:
    """Skips the test where there is no compiler, as beside an installed wheel; a warning is an error.

    What was compiled from the same files is copied: each worker of a run wants the library for itself.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler: apt-get install gcc")
    _COMPILED.mkdir(parents=True, exist_ok=True)
    compiled = _COMPILED / f"{source.stem}-{_digest(compiler, source, *options)}.so"
    with compiled.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not compiled.exists():
            subprocess.run([compiler, *_FLAGS, "-o", library, source, *options], check=True)
            unfinished = compiled.with_suffix(".tmp")
            shutil.copy(library, unfinished)
            unfinished.replace(compiled)
    shutil.copy(compiled, library)
    return library


def _digest(*parts: str | os.PathLike[str]) -> str:
    """Of what is compiled, the headers beside it, and how."""
    sources = [Path(part) for part in parts if Path(part).suffix == ".c"]
    headers = {header for source in sources for header in source.parent.glob("*.h")}
    digest = hashlib.sha256(repr((_FLAGS, [os.fspath(part) for part in parts if part not in sources])).encode())
    for path in (*sources, *sorted(headers)):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]
