"""The extension under test is built as it is shipped, and the build leaves no files in the tree."""

from __future__ import annotations

import importlib.machinery
import os
import re
import sysconfig
from pathlib import Path

import pytest

from rangefetch import _engine

ROOT = Path(__file__).parents[2]
EXTENSION = Path(str(_engine.__file__))


def test_the_engine_is_an_extension() -> None:
    assert isinstance(_engine.__loader__, importlib.machinery.ExtensionFileLoader)
    assert _engine.__name__ == "rangefetch._engine"


@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="free-threaded Pythons have no stable ABI"
)
def test_one_extension_serves_every_python() -> None:
    assert EXTENSION.name == "_engine.abi3.so"


@pytest.mark.skipif(os.environ.get("RANGEFETCH_COVERAGE") == "1", reason="this one is built to be measured")
def test_the_extension_is_a_release_build() -> None:
    octets = EXTENSION.read_bytes()
    for tool in (b"__asan_", b"__ubsan_", b"__tsan_", b"__gcov_", b"__cyg_profile_func", b"PyEval_SetTrace"):
        assert tool not in octets, f"built for {tool!r}"
    # The debugging information includes the compiler's options.
    for options in re.findall(rb"GNU C\d* [^\0]+", octets):
        assert re.search(rb" -O[23](?! .*-O[01sg])", options), options


@pytest.mark.parametrize("directory", ["ext", "src"])
def test_generated_files_are_not_in_the_tree(directory: str) -> None:
    suffixes = {".c", ".cpp", ".html", ".o"}
    assert not [path for path in (ROOT / directory).rglob("*") if path.suffix in suffixes]
