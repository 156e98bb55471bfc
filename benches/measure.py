"""Measures what a run costs, and checks that it fetched the right bytes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Usage", "compare_files", "last_line", "run", "warm"]

_LAUNCHER = Path(__file__).with_name("launch.py")
_PIECE = 1 << 20
# ru_maxrss counts bytes on macOS and KiB elsewhere.
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Usage:
    """What a child process cost, measured from outside."""

    wall: float  # seconds from fork to exit
    user: float  # CPU seconds, children included
    system: float
    rss: int  # peak resident bytes of its largest process
    exit_code: int  # negative: the signal that ended it

    @property
    def cpu(self) -> float:
        return self.user + self.system


def run(command: Sequence[str], *, log: Path, directory: Path, env: Mapping[str, str], timeout: float) -> Usage:
    """Run ``command`` in ``directory`` to its end and return what it cost.

    Its output goes to ``log``. After ``timeout`` seconds, kills it and its children and raises ``TimeoutError``.
    """
    launcher = subprocess.Popen(
        [sys.executable, "-I", "-S", str(_LAUNCHER), str(log), *command],
        stdout=subprocess.PIPE,
        text=True,
        cwd=directory,
        env=dict(env),
        start_new_session=True,
    )
    try:
        line, _ = launcher.communicate(timeout=timeout)
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(launcher.pid, signal.SIGKILL)
        launcher.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise TimeoutError(f"not finished after {timeout:g} s") from None
        raise
    wall, user, system, rss, exit_code = line.split()
    return Usage(float(wall), float(user), float(system), int(rss) * _RSS_UNIT, int(exit_code))


def compare_files(got: Path, served: Path) -> str:
    """What is wrong with ``got``, in a few words; empty if it has exactly the bytes of ``served``."""
    try:
        with got.open("rb", buffering=0) as left, served.open("rb", buffering=0) as right:
            size, expected = os.fstat(left.fileno()).st_size, os.fstat(right.fileno()).st_size
            if size != expected:
                return f"{size} bytes instead of {expected}"
            for offset in range(0, expected, _PIECE):
                if os.pread(left.fileno(), _PIECE, offset) != os.pread(right.fileno(), _PIECE, offset):
                    return f"wrong bytes in the MiB at {offset}"
    except FileNotFoundError:
        return "no such file"
    return ""


def warm(path: Path) -> None:
    """Read ``path`` once, so that the server finds it in the page cache."""
    with path.open("rb", buffering=0) as file:
        while file.read(_PIECE):
            pass


def last_line(log: Path) -> str:
    """The last line that a program printed, shortened; usually it says why the program failed."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:160] if lines else "it printed nothing"
