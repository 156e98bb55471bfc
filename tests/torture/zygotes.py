"""The test's side of ``zygote.py``: runs downloads in which a system call fails or the process dies."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from support.children import environment
from support.compiling import compile_library

__all__ = ["Told", "Zygote", "build"]

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Told:
    """The result of a case. ``died``: the child did not live to report one."""

    died: bool
    outcome: str = ""
    text: str = ""
    errno: int = 0
    resumed: int = 0
    fired: int = 0
    """How often the call came that was to fail: 0 says that there are not so many."""
    seen: dict[str, int] | None = None


def build(directory: Path) -> Path:
    """Build the library that is preloaded."""
    return compile_library(_HERE / "trying.c", directory / "trying.so", "-ldl", "-lpthread")


class Zygote:
    """A context manager."""

    def __init__(self, library: Path | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "torture.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # After any library already listed, because a sanitizer must come first.
            env=environment({"LD_PRELOAD": f"{os.environ.get('LD_PRELOAD', '')} {library or ''}".strip()}),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()

    def run(
        self,
        directory: Path,
        *,
        url: str = "",
        urls: list[str] | None = None,
        call: str = "",
        number: int = 0,
        how: str = "error",
        error: int = 0,
        kill_after_s: float = 0.0,
        **more: Any,
    ) -> Told:
        """Run one case. If ``kill_after_s`` is given, the child is killed that long after it has started."""
        case = {"directory": str(directory), "call": call, "number": number, "how": how, "error": error}
        if urls:
            case |= {"program": "many", "urls": urls, "options": {}} | more
        else:
            case |= {"program": "download", "url": url, "pause_at": 0, "options": {}} | more
        return self._ask(case, kill_after_s)

    def live(self, url: str, options: dict[str, Any], *, seed: int, kill_after_s: float) -> None:
        """Run operations drawn by ``seed`` on a download, in a process that is killed after ``kill_after_s``."""
        told = self._ask({"program": "live", "url": url, "options": options, "seed": seed}, kill_after_s)
        assert told.died

    def _ask(self, case: dict[str, Any], kill_after_s: float) -> Told:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(case) + "\n")
        self._process.stdin.flush()
        told: dict[str, Any] = {}
        killer: threading.Timer | None = None
        try:
            while "ended" not in told:
                line = self._process.stdout.readline()
                assert line, "the zygote is gone"
                told |= json.loads(line)
                if "pid" in told and killer is None and kill_after_s:
                    killer = threading.Timer(kill_after_s, _kill, [told["pid"]])
                    killer.start()
        except BaseException:
            # Otherwise a late report about this case would be taken for the next one's.
            self._process.kill()
            raise
        if killer is not None:
            killer.cancel()
            killer.join()
        told.pop("pid")
        ended = told.pop("ended")
        assert ended in (0, -signal.SIGKILL), f"it ended with {ended}: {told}"
        return Told(ended != 0, **told)


def _kill(pid: int) -> None:
    """Kill a child. No other process can have its PID yet, because the zygote has not been asked for the next case."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
