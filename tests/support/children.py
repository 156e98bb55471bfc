"""Separate Python processes, for code that would kill the test's process or must be observed from outside."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import rangefetch

__all__ = ["at_work", "environment", "python", "run", "run_module", "start"]

_PATHS = [str(Path(str(rangefetch.__file__)).parents[1]), str(Path(__file__).parents[1])]
_TIMEOUT_S = 90.0  # only to catch hangs: a busy machine may take long to start a Python


def environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment, set up so that the child can import the package under test and the tests' modules."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(_PATHS), **(changes or {})}


def _command(code: str, arguments: tuple[object, ...]) -> list[str]:
    # faulthandler prints a traceback if the child crashes, otherwise nothing.
    return [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(code), *map(str, arguments)]


def run(
    code: str, *arguments: object, env: Mapping[str, str] | None = None, timeout_s: float = _TIMEOUT_S
) -> subprocess.CompletedProcess[str]:
    """Run ``code``, with ``arguments`` as ``sys.argv[1:]``, and wait until it ends."""
    return subprocess.run(
        _command(code, arguments), capture_output=True, text=True, timeout=timeout_s, env=environment(env), check=False
    )


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start the same without waiting. The result is a context manager."""
    return subprocess.Popen(
        _command(code, arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def run_module(
    *arguments: object, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m rangefetch`` and wait until it ends."""
    return subprocess.run(
        [sys.executable, "-m", "rangefetch", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        env=environment(env),
        cwd=cwd,
        check=False,
    )


# ---- A function of one of the tests' modules ---------------------------------------------------------------------


def python(module: str, function: str, *arguments: object) -> list[str]:
    """The command line of a Python that calls a function in one of the tests' modules, with strings as arguments."""
    start = f"import sys; sys.path[:0] = {_PATHS!r}; import {module}; {module}.{function}(*sys.argv[1:])"
    return [sys.executable, "-c", start, *map(str, arguments)]


@contextmanager
def at_work(module: str, function: str, *arguments: object, **changes: str) -> Iterator[subprocess.Popen[str]]:
    """Run the function in a process with these changes to the environment, and kill the process afterwards."""
    with subprocess.Popen(
        python(module, function, *arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | changes,
    ) as process:
        try:
            yield process
        finally:
            process.kill()
