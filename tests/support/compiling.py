"""Small libraries in C, for tests that put something of their own in the place of libc or libcurl."""

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
    """Skips the test where there is no compiler, as beside an installed wheel; a warning is an error."""
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
    """What ``compile_to`` makes of ``sources``, at ``library``. Each worker of a run wants it for itself: what was
    compiled before from the same files, in the same way, is copied.
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
