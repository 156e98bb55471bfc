"""The threads of the engine, as the system lists them."""

import contextlib
import time
from pathlib import Path

__all__ = ["loop_threads", "loops_become"]


def loop_threads() -> list[str]:
    """The thread IDs of this process's loops; only Linux lists them."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # the thread has just ended
            if (task / "comm").read_text() == "rangefetch-loop\n":
                found.append(task.name)
    return found


def loops_become(count: int, seconds: float = 3.0) -> bool:
    """Whether there are ``count`` loops within ``seconds``. A thread sets its name only after it has started, and is
    listed for a moment after it has ended."""
    deadline = time.monotonic() + seconds
    while len(loop_threads()) != count and time.monotonic() < deadline:
        time.sleep(0.002)
    return len(loop_threads()) == count
