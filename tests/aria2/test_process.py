"""An aria2c process that ignores signals."""

import subprocess
import sys
from pathlib import Path

import pytest

from rangefetch.aria2.process import Process
from rangefetch.errors import ProcessManagementError

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"


def test_what_cannot_be_ended_is_an_error_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process([sys.executable, "-c", DEAF], 1, directory=tmp_path, on_end=lambda: None)
    while process.is_alive and "deaf" not in process.console():
        pass
    # Nothing can ignore SIGKILL, but a process that hangs in the kernel does not end. Here, kill() does nothing.
    monkeypatch.setattr("rangefetch.aria2.process._KILL_S", 0.2)
    monkeypatch.setattr(subprocess.Popen, "kill", lambda self: None)
    with pytest.raises(ProcessManagementError, match=rf"still running: {process.pid}\b"):
        process.end(0.1)
    monkeypatch.undo()
    process.end(0.1)
    assert not process.is_alive
