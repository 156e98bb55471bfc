"""Build harness.pyx: as a program with clang's libFuzzer, or as a shared library for the tests of the corpora.

PYTHONPATH=tests python tests/fuzz/build.py PROGRAM       clang, with the sanitizers for memory and undefined behaviour
PYTHONPATH=tests python tests/fuzz/build.py LIBRARY.so    the system's C compiler
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from support.directives import directives

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CAN_BUILD = (ROOT / "ext").is_dir() and bool(shutil.which("cc"))
SANITIZERS = ["-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]


def build(output: Path) -> None:
    """Compile the harness together with the engine's own sources."""
    work = output.parent
    code = work / (output.stem + ".c")
    words = [word for name, value in directives().items() for word in ("-X", f"{name}={value}")]
    cython = [
        sys.executable,
        "-m",
        "cython",
        *words,
        "-I",
        str(ROOT / "ext"),
        "-o",
        str(code),
        str(HERE / "harness.pyx"),
    ]
    subprocess.run(cython, check=True)
    include = [f"-I{ROOT / 'ext' / 'rangefetch'}", f"-I{HERE}", f"-I{work}", f"-I{sysconfig.get_path('include')}"]
    common = ["-std=gnu11", "-g1", "-w", *include, str(code), "-o", str(output)]
    if output.suffix == ".so":
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", *common], check=True)
        return
    directory = sysconfig.get_config_var("LIBDIR")
    version = sysconfig.get_config_var("LDVERSION")
    link = [f"-L{directory}", f"-Wl,-rpath,{directory}", f"-lpython{version}", "-ldl", "-lpthread", "-lm"]
    subprocess.run(["clang", "-O1", *SANITIZERS, *common, *link], check=True)


if __name__ == "__main__":
    build(Path(sys.argv[1]).absolute())
