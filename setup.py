"""Build the one extension; everything else about the package is in pyproject.toml.

The extension is abi3 (CPython 3.11+) and needs a C compiler alone: no curl headers, no libcurl to link, because
the engine loads libcurl when it starts (see ``ext/rangefetch/libcurl.h``).
"""

from Cython.Build import cythonize
from setuptools import Extension, setup

engine = Extension(
    "rangefetch._engine",
    ["ext/rangefetch/_engine.pyx"],
    include_dirs=["ext/rangefetch"],
    define_macros=[("Py_LIMITED_API", "0x030B0000")],
    py_limited_api=True,
    extra_compile_args=["-std=gnu11", "-O2", "-g1", "-Wall", "-Wextra", "-Wno-unused-parameter"],
)

setup(
    ext_modules=cythonize([engine], include_path=["ext"], build_dir="build/cython"),
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
