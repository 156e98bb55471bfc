"""A process that has imported everything and forks for each case: a download in which one system call fails, or dies.

Calls can fail if ``trying.c`` is preloaded. Cases are read from stdin as lines of JSON. For each case, the child's line
(if it lived to write one) and the zygote's line about how the child ended are written to stdout.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from torture.operations import Operations

CALLS = (
    "pwrite",
    "write",
    "fsync",
    "fallocate",
    "truncate",
    "open",
    "link",
    "rename",
    "unlink",
    "times",
    "mode",
    "lock",
    "read",
    "mkdir",
)
HOWS = ("error", "short", "die before", "die after")


def main() -> None:
    """Run cases until stdin is closed."""
    import numpy  # noqa: F401 - before the forks

    import rangefetch
    import rangefetch.native.backend
    import rangefetch.native.task  # noqa: F401 - before the forks

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                case = json.loads(line)
                _say(_PROGRAMS[case.pop("program")](**case))
                status = 0
            except BaseException:
                traceback.print_exc()
                raise
            finally:
                os._exit(status)
        _say({"pid": child})
        _, status = os.waitpid(child, 0)
        _say({"ended": os.waitstatus_to_exitcode(status)})


def _say(told: dict[str, Any]) -> None:
    """Write a line with one call, since parent and child write at the same time."""
    os.write(1, json.dumps(told).encode() + b"\n")


def _download(
    url: str, directory: str, call: str, number: int, how: str, error: int, pause_at: int, options: dict[str, Any]
) -> dict[str, Any]:
    """Fetch the file, and pause and resume once on the way if told to. With an empty ``call`` nothing fails."""
    from rangefetch import DownloadManager

    def fetch() -> int:
        with DownloadManager("native") as manager:
            gid = manager.download(url, {"save_dir": directory, "filename": "file.bin", "retry_wait": 0.01} | options)
            if pause_at:
                deadline_s = time.monotonic() + 30
                while (now := manager.get_download_progress(gid)).status == "active" and now.downloaded < pause_at:
                    if time.monotonic() > deadline_s:
                        raise TimeoutError(f"it has {now.downloaded} bytes and does not come to {pause_at}")
                    time.sleep(0.001)
                manager.pause(gid)
                manager.resume(gid)
            return manager.wait(gid, timeout=30).resumed

    return _tried(fetch, directory, call, number, how, error)


def _many(
    urls: list[str], directory: str, call: str, number: int, how: str, error: int, options: dict[str, Any]
) -> dict[str, Any]:
    """The same, with many small files."""
    import rangefetch

    return _tried(
        lambda: len(rangefetch.fetch_many(urls, directory, **({"retry_wait": 0.01} | options))),
        directory,
        call,
        number,
        how,
        error,
    )


def _live(url: str, options: dict[str, Any], seed: int) -> dict[str, Any]:
    """Do random operations on a download until this process is killed."""
    own = Operations(random.Random(seed), url, options)
    while True:
        own.act()


_PROGRAMS: dict[str, Callable[..., dict[str, Any]]] = {"download": _download, "many": _many, "live": _live}


def _tried(
    fetch: Callable[[], int], directory: str, call: str, number: int, how: str, number_of_error: int
) -> dict[str, Any]:
    from rangefetch import DownloadError

    library = ctypes.CDLL(None)
    armed = CALLS.index(call) if call else -1
    library.try_arm(directory.encode(), armed, ctypes.c_long(number), HOWS.index(how), number_of_error)
    told: dict[str, Any] = {"outcome": "complete", "text": "", "errno": 0, "resumed": 0}
    try:
        told["resumed"] = fetch()
    except (DownloadError, ExceptionGroup) as caught:
        error = caught if isinstance(caught, DownloadError) else next(iter(caught.exceptions))
        told |= {"outcome": type(error).__name__, "text": str(error), "errno": getattr(error, "errno", 0) or 0}
    except TimeoutError as caught:
        told |= {"outcome": "hangs", "text": str(caught)}
    library.try_disarm()
    told["fired"] = library.try_fired()
    told["seen"] = {name: library.try_seen(index) for index, name in enumerate(CALLS)}
    return told


if __name__ == "__main__":
    main()
