"""Build the one extension; everything else about the package is in pyproject.toml.

The extension is abi3 (CPython 3.11+) and needs a C compiler alone: no curl headers, no libcurl to link, because
the engine loads libcurl when it starts (see ``ext/rangefetch/libcurl.h``).

``RANGEFETCH_PURE=1`` in the environment leaves it out. The package then installs anywhere, and says itself that its
engine is not there. On Windows and on other Pythons than CPython it is always so.

The dependencies are here because one of them depends on what is built: pycurl, whose wheels bring the libcurl that the
engine runs on. There are none for musl, and no environment marker (PEP 508) tells musl from glibc, so a wheel that is
built for musl does not ask for pycurl, and its engine runs on the system's libcurl.
"""

import os
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
PURE = os.environ.get("RANGEFETCH_PURE") == "1" or sys.platform == "win32" or sys.implementation.name != "cpython"

# What is built for: .ci/wheels.py says it in the platform; a Python on musl has it in its configuration.
MUSL = "musllinux" in sysconfig.get_platform() or "musl" in (sysconfig.get_config_var("HOST_GNU_TYPE") or "")

DEPENDENCIES = ["platformdirs>=4", "psutil>=6", "rich>=13"]
if not MUSL:
    # Where it has wheels and the engine can be. 7.49 is the first whose OpenSSL does not read the host's openssl.cnf.
    DEPENDENCIES.append(
        "pycurl>=7.49; platform_python_implementation == 'CPython' and (sys_platform == 'darwin'"
        " or (sys_platform == 'linux' and (platform_machine == 'x86_64' or platform_machine == 'aarch64')))"
    )

# No path of the machine that built it gets into the wheel: the same sources make the same bytes anywhere.
UNTRACED = [f"-ffile-prefix-map={sysconfig.get_path('include')}=python", f"-ffile-prefix-map={Path.cwd()}=."]

# Line numbers for a backtrace, unless CFLAGS asks for nothing: what a compiler for another machine says of its own
# folders is not mapped above.
DEBUGGING = [] if "-g0" in os.environ.get("CFLAGS", "").split() else ["-g1"]

# For the .pxd files, too: a division there that checked for zero would take the GIL to say so.
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "auto_pickle": False,
    "autotestdict": False,
}

engine = Extension(
    "rangefetch._engine",
    ["ext/rangefetch/_engine.pyx"],
    include_dirs=["ext/rangefetch"],
    # A free-threaded CPython has no stable ABI before 3.15; its wheel is for the one version.
    define_macros=[] if FREE_THREADED else [("Py_LIMITED_API", "0x030B0000")],
    py_limited_api=not FREE_THREADED,
    extra_compile_args=["-std=gnu11", "-O2", *DEBUGGING, "-Wall", "-Wextra", "-Wno-unused-parameter", *UNTRACED],
)


def without_inspect(extension: Extension) -> Extension:
    """Where the API is limited, Cython's start-up code imports ``inspect`` for seven constants; ``codeflags`` has them,
    and takes a hundredth of the time. Should another Cython word it differently, nothing is changed.
    """
    for path in map(Path, extension.sources):
        written = path.read_text()
        changed = written.replace('PyImport_ImportModule("inspect")', 'PyImport_ImportModule("rangefetch.codeflags")')
        if changed != written:
            path.write_text(changed)
    return extension


if PURE:
    setup(install_requires=DEPENDENCIES)
else:
    from Cython.Build import cythonize

    written = cythonize([engine], include_path=["ext"], build_dir="build/cython", compiler_directives=DIRECTIVES)
    setup(
        install_requires=DEPENDENCIES,
        ext_modules=[without_inspect(extension) for extension in written],
        options={"bdist_wheel": {"py_limited_api": False if FREE_THREADED else "cp311"}},
    )
