"""Builds the one extension; everything else about the package is in pyproject.toml.

The extension is abi3 (CPython 3.11+) and needs only a C compiler: no curl headers, and no libcurl to link, because the
engine loads libcurl when it starts (see ``ext/rangefetch/libcurl.h``).

``RANGEFETCH_PURE=1`` in the environment leaves it out. The package then installs anywhere, and reports that it has no
engine. It is always left out on Pythons other than CPython, and on Windows without zig.

For Windows, zig (``pip install ziglang``) is the compiler, both there and on any other system where the platform is set
to ``win-amd64`` (``_PYTHON_HOST_PLATFORM``), so that what is released is what was tested.

The dependencies are here because one of them depends on the target: pycurl, whose wheels bring the libcurl that the
engine uses. There are none for musl, and no environment marker (PEP 508) distinguishes musl from glibc. So a wheel that
is built for musl does not depend on pycurl, and its engine uses the system's libcurl.
"""

import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
FOR_WINDOWS = sysconfig.get_platform() == "win-amd64" and importlib.util.find_spec("ziglang") is not None
PURE = (
    os.environ.get("RANGEFETCH_PURE") == "1"
    or sys.implementation.name != "cpython"
    or (sys.platform == "win32" and (FREE_THREADED or not FOR_WINDOWS))
)

# Whether to build for musl: .ci/wheels.py puts it into the platform, and a Python on musl has it in its configuration.
MUSL = "musllinux" in sysconfig.get_platform() or "musl" in (sysconfig.get_config_var("HOST_GNU_TYPE") or "")

DEPENDENCIES = ["platformdirs>=4", "psutil>=6", "rich>=13"]
if not MUSL:
    # Where pycurl has wheels and the engine can run. 7.49 is the first whose OpenSSL ignores the host's openssl.cnf.
    DEPENDENCIES.append(
        "pycurl>=7.49; platform_python_implementation == 'CPython' and (sys_platform == 'darwin'"
        " or (sys_platform == 'linux' and (platform_machine == 'x86_64' or platform_machine == 'aarch64'))"
        " or (sys_platform == 'win32' and platform_machine == 'AMD64'))"
    )

# Keep paths of the build machine out of the wheel, so that the same sources give the same bytes anywhere.
UNTRACED = [f"-ffile-prefix-map={sysconfig.get_path('include')}=python", f"-ffile-prefix-map={Path.cwd()}=."]

# Line numbers for backtraces, unless CFLAGS has -g0: the mapping above does not cover the folders that a cross-compiler
# records of itself.
DEBUGGING = [] if "-g0" in os.environ.get("CFLAGS", "").split() else ["-g1"]

# These apply to the .pxd files too: there, a division that checked for zero would take the GIL to raise an error.
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
    # Free-threaded CPython has no stable ABI before 3.15, so its wheel is for a single version.
    define_macros=[] if FREE_THREADED else [("Py_LIMITED_API", "0x030B0000")],
    py_limited_api=not FREE_THREADED,
    extra_compile_args=["-std=gnu11", "-O2", *DEBUGGING, "-Wall", "-Wextra", "-Wno-unused-parameter", *UNTRACED],
)


def without_inspect(extension: Extension) -> Extension:
    """Import ``codeflags`` instead of ``inspect`` in the generated C code.

    With the limited API, Cython's start-up code imports ``inspect`` for seven constants. ``codeflags`` has them, and
    takes a hundredth of the time. If another version of Cython words this differently, nothing is changed.
    """
    for path in map(Path, extension.sources):
        written = path.read_text()
        changed = written.replace('PyImport_ImportModule("inspect")', 'PyImport_ImportModule("rangefetch.codeflags")')
        if changed != written:
            path.write_text(changed)
    return extension


class BuildForWindows(build_ext):
    """Builds with zig. Linking needs only the names of the symbols in python3.dll, not the library itself."""

    def get_ext_filename(self, fullname: str) -> str:
        return str(Path(*fullname.split("."))) + ".pyd"

    def build_extension(self, ext: Extension) -> None:
        work, made = Path(self.build_temp), Path(self.get_ext_fullpath(ext.name))
        work.mkdir(parents=True, exist_ok=True)
        made.parent.mkdir(parents=True, exist_ok=True)
        zig = [sys.executable, "-m", "ziglang"]
        compiler = [*zig, "cc", "-target", "x86_64-windows-gnu"]
        headers = [*ext.include_dirs, sysconfig.get_path("include")]
        compiled, names, library = work / "_engine.o", work / "python3.def", work / "libpython3.a"
        subprocess.run(
            [
                *(*compiler, "-c", *ext.sources, "-o", compiled, *ext.extra_compile_args, "-DNDEBUG", "-fwrapv"),
                *("-include", "ext/rangefetch/python_windows.h", *(f"-I{path}" for path in headers)),
                *(f"-D{name}={value}" for name, value in ext.define_macros),
            ],
            check=True,
        )
        # Only the names that the object file uses.
        wanted = sorted(set(re.findall(rb"(?<=\0)(?:__imp_)?(_?Py[A-Za-z]*_\w+)(?=\0)", compiled.read_bytes())))
        names.write_bytes(b"\n".join([b"LIBRARY python3.dll", b"EXPORTS", *wanted, b""]))
        subprocess.run([*zig, "dlltool", "-m", "i386:x86-64", "-d", names, "-l", library], check=True)
        # Strip debugging information, which names folders of this machine.
        link = ["-shared", "-lws2_32", "-Wl,-s"]
        subprocess.run([*compiler, compiled, library, *link, "-o", made], check=True)
        made.with_suffix(".lib").unlink(missing_ok=True)  # only for programs that would link with the module


if PURE:
    setup(install_requires=DEPENDENCIES)
else:
    from Cython.Build import cythonize

    written = cythonize([engine], include_path=["ext"], build_dir="build/cython", compiler_directives=DIRECTIVES)
    setup(
        install_requires=DEPENDENCIES,
        ext_modules=[without_inspect(extension) for extension in written],
        cmdclass={"build_ext": BuildForWindows} if FOR_WINDOWS else {},
        options={"bdist_wheel": {"py_limited_api": False if FREE_THREADED else "cp311"}},
    )
