"""A CPython for Windows that runs under wine, with this package and its dependencies.

It does without CPython's installers, because PyPI has the parts: panda3d's wheels for Windows contain python311.dll and
the compiled modules of the standard library. The pure Python modules are copied from the interpreter that runs this,
which must be a 3.11 too. ``python.exe`` calls ``Py_Main``; ``python3.dll`` forwards every name to python311.dll.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

from windows.build import ROOT

__all__ = ["BUILD", "ENVIRONMENT", "install", "make_python", "wheel_of_this"]

BUILD = ROOT / "build" / "windows"
ENVIRONMENT = {"WINEPREFIX": str(BUILD / "wine"), "WINEDEBUG": "-all", "WINEDLLOVERRIDES": "mscoree,mshtml="}
# The dependencies of the package and of the aria2 backend, listed because pip would resolve them for this system.
NEEDED = (
    *("platformdirs", "psutil", "pycurl", "rich", "markdown-it-py", "mdurl", "pygments"),
    *("aria2p", "loguru", "win32-setctime", "colorama", "requests", "urllib3", "idna", "certifi", "charset-normalizer"),
    *("tomli", "websocket-client", "aria2==0.0.1b0"),
)
_PANDA = "panda3d==1.10.16"
_LEFT_OUT = ("site-packages", "test", "lib-dynload", "idlelib", "tkinter", "ensurepip", "lib2to3", "__pycache__")
_MAIN = """
#include <wchar.h>
__declspec(dllimport) int Py_Main(int, wchar_t **);
int wmain(int argc, wchar_t **argv) { return Py_Main(argc, argv); }
"""
# wine does not say which process owns a socket, and psutil reports no sockets: make it raise AccessDenied instead.
_SITE = """
import psutil
def _untold(self, kind="inet"):
    raise psutil.AccessDenied(self.pid)
psutil.Process.net_connections = _untold
"""


def make_python(directory: Path) -> Path:
    """Assemble it in ``directory``, without this package, and return the path of ``python.exe``. Raises
    ``subprocess.CalledProcessError`` if pip cannot fetch the parts.
    """
    work = directory.with_name(directory.name + ".new")
    shutil.rmtree(work, ignore_errors=True)
    (work / "DLLs").mkdir(parents=True)
    fetched = work / "fetched"
    _pip("download", "--dest", fetched, _PANDA)
    (wheel,) = fetched.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            folder, _, name = member.rpartition("/")
            if folder == "deploy_libs" and not name.startswith(("api-ms", "tcl", "tk", "_tkinter")):
                place = work / name if name.lower().startswith(("python", "vcruntime")) else work / "DLLs" / name
                place.write_bytes(archive.read(member))
    shutil.rmtree(fetched)
    shutil.copytree(sysconfig.get_path("stdlib"), work / "Lib", ignore=shutil.ignore_patterns(*_LEFT_OUT, "config-3*"))
    _link(work)
    site = work / "Lib" / "site-packages"
    _pip("install", "--target", site, *NEEDED)
    (site / "sitecustomize.py").write_text(_SITE)
    work.rename(directory)
    return directory / "python.exe"


def wheel_of_this(directory: Path) -> Path:
    """Build this package's wheel for Windows in ``directory``, and return its path."""
    tools, source = BUILD / "tools", directory / "source"
    if not tools.exists():
        new = BUILD / "tools.new"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(new), "--upgrade"]
        subprocess.run([*pip, "setuptools>=77", "wheel", "Cython>=3.1"], check=True)
        new.rename(tools)
    source.mkdir(parents=True)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("ext", "src"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info"))
    told = {"PYTHONPATH": str(tools), "_PYTHON_HOST_PLATFORM": "win-amd64"}
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(directory)]
    subprocess.run([*pip, str(source)], env=os.environ | told, check=True)
    (wheel,) = directory.glob("rangefetch-*.whl")
    return wheel


def install(wheel: Path, python: Path) -> None:
    """Install a wheel of this package in place of the version that is there, if any."""
    site = python.parent / "Lib" / "site-packages"
    for old in site.glob("rangefetch*"):
        shutil.rmtree(old)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)


def _link(work: Path) -> None:
    zig = [sys.executable, "-m", "ziglang"]
    compiler = [*zig, "cc", "-target", "x86_64-windows-gnu"]
    runtime = (work / "python311.dll").read_bytes()
    names = sorted(set(re.findall(rb"(?<=\0)(_?Py[A-Z_]\w+)(?=\0)", runtime)))
    exports = b"".join(b"%s = python311.%s\n" % (name, name) for name in names)
    (work / "python3.def").write_bytes(b"LIBRARY python3.dll\nEXPORTS\n" + exports)
    (work / "python311.def").write_text("LIBRARY python311.dll\nEXPORTS\nPy_Main\n")
    (work / "main.c").write_text(_MAIN)
    (work / "nothing.c").write_text("int rangefetch_nothing;\n")
    for command in (
        [*zig, "dlltool", "-m", "i386:x86-64", "-d", "python311.def", "-l", "python311.a"],
        [*compiler, "-municode", "-Wl,-s", "main.c", "python311.a", "-o", "python.exe"],
        [*compiler, "-shared", "-Wl,-s", "nothing.c", "python3.def", "-o", "python3.dll"],
    ):
        subprocess.run(command, cwd=work, check=True)


def _pip(command: str, *arguments: object) -> None:
    platform = ["--platform", "win_amd64", "--python-version", "3.11", "--only-binary", ":all:", "--no-deps"]
    subprocess.run([sys.executable, "-m", "pip", command, "--quiet", *platform, *map(str, arguments)], check=True)
