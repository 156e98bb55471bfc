"""Check the package installed without its engine (the pure wheel): ``python .ci/without_engine.py``.

It uses only what is installed with the package, so that it runs on any platform.
"""

import logging
import subprocess
import sys
from collections.abc import Callable

import rangefetch
import rangefetch.net.libcurl
from rangefetch import DownloadManager
from rangefetch.errors import EngineUnavailable, LocalError

REASON = "not built for this platform"


def main() -> None:
    """Run all checks; raises if one fails."""
    logging.getLogger("rangefetch").addHandler(logging.NullHandler())  # the fallback is a warning
    assert issubclass(EngineUnavailable, ImportError)
    for name in rangefetch.__all__:
        getattr(rangefetch, name)
    for function in (rangefetch.net.libcurl.load, DownloadManager("native").start):
        reason = error_of(function)
        assert REASON in reason, reason
    print("the engine:", reason)
    fall_back()
    say_version()


def error_of(function: Callable[[], object]) -> str:
    """The message of the error that calling the function raises."""
    try:
        function()
    except EngineUnavailable as error:
        return str(error)
    raise AssertionError(f"{rangefetch.__file__} has an engine")


def fall_back() -> None:
    """With an aria2c, it is used and the manager gives the reason; without one, the error gives both reasons."""
    manager = DownloadManager(binary_sources=())
    try:
        manager.start()
    except LocalError as error:
        reason = str(error)
    else:
        assert manager.backend == "aria2", manager.backend
        reason = f"aria2: instead ({manager.fallback_reason})"
        manager.stop()
    assert REASON in reason, reason
    assert "aria2: " in reason, reason
    assert "pip install pycurl" not in reason, reason
    print(reason)


def say_version() -> None:
    """``--version`` reports the missing engine in one line."""
    command = [sys.executable, "-m", "rangefetch", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.startswith(f"rangefetch {rangefetch.__version__}"), done.stdout
    assert done.returncode == 1, done
    (line,) = done.stderr.splitlines()
    assert REASON in line, line
    # It names what works instead, and only that.
    assert "aria2" in line.partition(REASON)[2], line
    assert "pycurl" not in line, line
    print(line)


if __name__ == "__main__":
    main()
