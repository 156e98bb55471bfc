"""What the children of these tests run."""

import os
import sys
import time
from pathlib import Path

from rangefetch.aria2.config import DaemonConfig
from rangefetch.aria2.daemon import Aria2Daemon


def _daemon(directory: str, port: str) -> Aria2Daemon:
    daemon = Aria2Daemon(
        DaemonConfig(state_dir=Path(directory) / "state", download_dir=directory, rpc_port=int(port), restart_wait=0.05)
    )
    daemon.start()
    return daemon


def start_and_exit(directory: str, port: str) -> None:
    """End the interpreter without a word to the daemon."""
    daemon = _daemon(directory, port)
    print(daemon.pid)


def start_and_wait(directory: str, port: str) -> None:
    """Say the daemon's pid, and do nothing until killed."""
    daemon = _daemon(directory, port)
    print(daemon.pid, flush=True)
    time.sleep(1000)


def fork_and_stop(directory: str, port: str) -> None:
    """Stop the parent's daemon in a child, and see what that does to it."""
    daemon = _daemon(directory, port)
    child = os.fork()
    if child == 0:
        daemon.stop()
        sys.exit(0)
    os.waitpid(child, 0)
    print("healthy" if daemon.is_healthy() else "gone")
