"""The engine's parsers, compiled once into a library for all tests here."""

from __future__ import annotations

import ctypes

import pytest

from fuzz import build
from support.compiling import compile_once


@pytest.fixture(scope="session")
def harness(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """``harness.pyx`` as a library. Its functions take numbers and bytes."""
    if not build.CAN_BUILD:
        pytest.skip("no compiler, or no sources, as beside an installed wheel")
    path = tmp_path_factory.mktemp("harness") / "harness.so"
    engine = (build.ROOT / "ext" / "rangefetch").glob("*.[hp]*")
    sources = [build.ROOT / "setup.py", *build.HERE.glob("*.p*"), *build.HERE.glob("*.h"), *engine]
    compile_once(path, build.build, sorted(sources))
    library = ctypes.CDLL(str(path))
    library.rf_fuzz_run.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t]
    library.rf_fuzz_is_encoded.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t]
    library.rf_take.argtypes = [ctypes.c_void_p, ctypes.c_long, ctypes.c_char_p, ctypes.c_size_t]
    return library
