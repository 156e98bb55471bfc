"""Programs that these tests run in child processes."""

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
    """Start a daemon, and exit without stopping it."""
    daemon = _daemon(directory, port)
    print(daemon.pid)


def start_and_wait(directory: str, port: str) -> None:
    """Print the daemon's pid, and do nothing until killed."""
    daemon = _daemon(directory, port)
    print(daemon.pid, flush=True)
    time.sleep(1000)


def fork_and_stop(directory: str, port: str) -> None:
    """Call ``stop()`` on the parent's daemon in a forked child, and check that the daemon is unaffected."""
    daemon = _daemon(directory, port)
    child = os.fork()
    if child == 0:
        daemon.stop()
        sys.exit(0)
    os.waitpid(child, 0)
    print("healthy" if daemon.is_healthy() else "gone")
