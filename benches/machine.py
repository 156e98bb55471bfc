"""Facts about this machine, without which the figures mean nothing."""

from __future__ import annotations

import datetime
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["describe", "file_system", "nginx_version"]


def _cpu_model() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return platform.processor()
    return found[1] if found else platform.processor()


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def file_system(directory: Path) -> str:
    """The type of the file system that ``directory`` is on, if the system tells."""
    try:
        lines = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return "unknown"
    mounts = {fields[1]: fields[2] for fields in (line.split() for line in lines)}
    places = [directory.resolve(), *directory.resolve().parents]
    return next((mounts[str(place)] for place in places if str(place) in mounts), "unknown")


def nginx_version() -> str:
    program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if program is None:
        return ""
    done = subprocess.run([program, "-v"], capture_output=True, text=True, check=False)
    return done.stderr.strip().rpartition("/")[2]


def describe(directory: Path) -> dict[str, object]:
    """The facts for the JSON report; downloads are saved to ``directory``."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "system": platform.system(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu": _cpu_model(),
        "cores": _usable_cores(),
        "loadAverage": [round(load, 2) for load in os.getloadavg()],
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "fileSystem": file_system(directory),
        "python": sys.version.split()[0],
        "nginx": nginx_version(),
    }
