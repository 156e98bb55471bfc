"""Compile the engine with more warnings than a build uses; any warning is an error.

The engine is translated again with #line directives for its sources, and compiled with the warnings about constants
that do not fit and about conversions that change a number. Only GNU's gcc has all of them. Code for other systems is
compiled by zig, once for each of them.
"""

import ast
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension

WARNINGS = [
    *("-Wall", "-Wextra", "-Wconversion", "-Wsign-conversion", "-Wshift-overflow=2"),
    "-Wno-unused-parameter",  # libcurl decides the parameters of callbacks
]
CYTHONS_OWN = {
    r"^cython_utility:.*-Wshift-overflow": "its limits of integer types, computed with shifts into the sign",
    r"short unsigned int:10.*-Wconversion": "the table of a class's properties, filled by an initializer",
}
BUILD = Path("build/warnings")
# A target for each branch of the preprocessor, with its compiler options. -Wunused-const-variable would report code
# that Cython generates. The headers of this machine's Python need definitions that describe Windows.
ELSEWHERE = {
    "aarch64-macos.11.0": [],
    "aarch64-linux-musl": [],
    "x86_64-windows-gnu": ["-include", "ext/rangefetch/python_windows.h"],
}
ELSEWHERE_WARNINGS = ["-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-unused-const-variable"]
ELSEWHERE_WARNINGS += ["-Wno-unused-command-line-argument"]  # about options that zig itself adds
COMMON = ["-std=gnu11", "-DPy_LIMITED_API=0x030B0000", "-isystem", sysconfig.get_path("include")]
COMMON += ["-iquote", "ext/rangefetch", "-I", "ext/rangefetch"]


def main() -> int:
    source = _translate()
    wrong = []
    compiler = shutil.which("gcc")
    if compiler is not None and "Free Software" in _output(compiler, "--version"):
        wrong += _complaints(compiler, "-O2", "-c", "-o", BUILD / "engine.o", *WARNINGS, source)
    else:
        print("There is no GNU gcc, which alone has these warnings.")
    for target, told in ELSEWHERE.items():
        # Without zig's sanitizers, with which compiling takes seven times as long.
        zig = (sys.executable, "-m", "ziglang", "cc", "-target", target, "-O0", "-fno-sanitize=all", "-c")
        wrong += _complaints(*zig, "-o", BUILD / "elsewhere.o", *told, *ELSEWHERE_WARNINGS, source)
    print("\n".join(wrong) or "No warnings.")
    return 1 if wrong else 0


def _complaints(*command: object) -> list[str]:
    """The compiler's messages, or the reason why it could not be run."""
    done = subprocess.run([*map(str, command), *COMMON], capture_output=True, text=True, check=False)
    said = (done.stdout + done.stderr).splitlines()
    found = [
        line
        for line in said
        if re.search(r": (warning|error|fatal error): ", line)
        and not any(re.search(pattern, line) for pattern in CYTHONS_OWN)
    ]
    return found or (said if done.returncode != 0 else [])


def _translate() -> str:
    tree = ast.parse(Path("setup.py").read_text())
    (directives,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "DIRECTIVES"
    )
    (extension,) = cythonize(
        [Extension("rangefetch._engine", ["ext/rangefetch/_engine.pyx"])],
        include_path=["ext"],
        build_dir=str(BUILD),
        compiler_directives=directives,
        emit_linenums=True,
        quiet=True,
    )
    return str(extension.sources[0])


def _output(*command: object) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


if __name__ == "__main__":
    sys.exit(main())
