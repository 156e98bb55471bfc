"""What must hold where the package is installed without its engine (the pure wheel): ``python .ci/without_engine.py``.

It uses nothing that is not installed with the package, so that it runs on any platform.
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
    """Raise if one of them does not."""
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
    """What it says against being called."""
    try:
        function()
    except EngineUnavailable as error:
        return str(error)
    raise AssertionError(f"{rangefetch.__file__} has an engine")


def fall_back() -> None:
    """Where there is an aria2c, it is used, and the reason is told; where there is none, both reasons are."""
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
    """The command says it in one line."""
    command = [sys.executable, "-m", "rangefetch", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.startswith(f"rangefetch {rangefetch.__version__}"), done.stdout
    assert done.returncode == 1, done
    (line,) = done.stderr.splitlines()
    assert REASON in line, line
    # What works instead, and nothing that would not help.
    assert "aria2" in line.partition(REASON)[2], line
    assert "pycurl" not in line, line
    print(line)


if __name__ == "__main__":
    main()
