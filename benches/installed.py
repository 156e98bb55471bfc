"""Which downloaders are installed, and their versions."""

from __future__ import annotations

import atexit
import importlib.metadata
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from functools import cache
from pathlib import Path

__all__ = ["package_version", "program", "program_version", "rangefetch_version", "rawsockets"]


@cache
def program(name: str) -> str:
    """The path of a program: beside this interpreter, else on PATH; empty if it is not installed."""
    beside = Path(sysconfig.get_path("scripts"), name)
    return str(beside) if beside.exists() else shutil.which(name) or ""


@cache
def program_version(name: str, *arguments: str) -> str:
    if not program(name):
        return ""
    done = subprocess.run([program(name), *arguments], capture_output=True, text=True, check=False, timeout=20)
    first = next(iter((done.stdout + done.stderr).splitlines()), "")
    found = re.search(r"\d+(?:\.\d+)+\S*", first)
    return found[0] if found else "unknown"


@cache
def package_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


@cache
def rangefetch_version() -> str:
    """Its version, and those of its libcurl and OpenSSL, which matter as much."""
    done = subprocess.run(
        [sys.executable, "-m", "rangefetch", "--version"],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    if done.returncode:
        return ""
    ours, libcurl, tls = (
        re.search(pattern, done.stdout) for pattern in (r"rangefetch (\S+)", r"libcurl\D(\S+)", r"OpenSSL[\w./]*")
    )
    parts = [ours[1] if ours else "unknown", f"libcurl/{libcurl[1]}" if libcurl else "", tls[0] if tls else ""]
    return " ".join(part for part in parts if part)


@cache
def rawsockets() -> str:
    """Compile rawsockets.c into a program that is deleted at exit; returns its path, empty without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return ""
    directory = Path(tempfile.mkdtemp(prefix="rangefetch-bench-cc-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    compiled, source = str(directory / "rawsockets"), str(Path(__file__).with_name("rawsockets.c"))
    done = subprocess.run([compiler, "-O2", "-o", compiled, source], check=False, capture_output=True)
    return compiled if done.returncode == 0 else ""
