"""Build driver.pyx, the engine without Python, with zig: for Windows, or for this machine to check that it works.

PYTHONPATH=tests python tests/windows/build.py PROGRAM.exe
PYTHONPATH=tests python tests/windows/build.py PROGRAM
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import sysconfig
from pathlib import Path

from support.directives import directives

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CAN_BUILD = (ROOT / "ext").is_dir() and importlib.util.find_spec("ziglang") is not None


def build(output: Path) -> None:
    """Compile the program together with the engine's own sources. A name that ends in .exe is built for Windows."""
    code = output.with_suffix(".c")
    words = [word for name, value in directives().items() for word in ("-X", f"{name}={value}")]
    cython = [sys.executable, "-m", "cython", *words, "-I", ROOT / "ext", "-o", code, HERE / "driver.pyx"]
    subprocess.run([*map(str, cython)], check=True)
    include = [ROOT / "ext" / "rangefetch", output.parent, sysconfig.get_path("include")]
    common = ["-std=gnu11", "-O1", "-g1", "-w", "-DPy_LIMITED_API=0x030B0000", "-DCYTHON_NO_PYINIT_EXPORT"]
    common += [f"-I{path}" for path in include]
    zig = [sys.executable, "-m", "ziglang", "cc"]
    if output.suffix == ".exe":
        zig += ["-target", "x86_64-windows-gnu", "-include", str(ROOT / "ext" / "rangefetch" / "python_windows.h")]
        libraries = ["-lws2_32"]
    else:
        libraries = ["-ldl", "-lpthread"]
    subprocess.run([*zig, *common, str(code), "-o", str(output), *libraries], check=True)


if __name__ == "__main__":
    build(Path(sys.argv[1]).absolute())
