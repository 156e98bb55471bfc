"""Compiling small C libraries, for tests that replace functions of libc or libcurl."""

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

__all__ = ["compile_library", "compile_once"]

_COMPILED = Path(__file__).parents[2] / "build" / "libraries"
_FLAGS = ("-Wall", "-Werror", "-shared", "-fPIC", "-O1")


def compile_library(source: Path, library: Path, *options: str | os.PathLike[str]) -> Path:
    """Compile a library; warnings are errors. Skips the test if there is no compiler, as when testing a wheel."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler: apt-get install gcc")
    sources = [Path(part) for part in (source, *options) if Path(part).suffix == ".c"]
    headers = {header for each in sources for header in each.parent.glob("*.h")}
    how = [*_FLAGS, compiler, *(os.fspath(option) for option in options if option not in sources)]

    def compile_to(output: Path) -> None:
        subprocess.run([compiler, *_FLAGS, "-o", output, source, *options], check=True)

    return compile_once(library, compile_to, [*sources, *sorted(headers)], how)


def compile_once(
    library: Path, compile_to: Callable[[Path], object], sources: Iterable[Path], how: Iterable[str] = ()
) -> Path:
    """Have ``compile_to`` make ``library`` from ``sources``. Each worker needs its own copy, so a library that was
    already compiled from the same files in the same way is copied.
    """
    digest = hashlib.sha256(repr(list(how)).encode())
    for path in sources:
        digest.update(path.name.encode() + path.read_bytes())
    _COMPILED.mkdir(parents=True, exist_ok=True)
    compiled = _COMPILED / f"{library.stem}-{digest.hexdigest()[:16]}.so"
    with compiled.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not compiled.exists():
            compile_to(library)
            unfinished = compiled.with_suffix(".tmp")
            shutil.copy(library, unfinished)
            unfinished.replace(compiled)
    shutil.copy(compiled, library)
    return library
