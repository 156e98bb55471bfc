"""The extensions in the built wheels, examined as files, since most of them cannot be loaded here.

``make wheel-test`` runs these; nothing is built here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

DIRECTORY = os.environ.get("RANGEFETCH_WHEELS")
MACHINES = {"x86_64": "X86_64", "aarch64": "AARCH64", "arm64": "ARM64"}


def _wheels(pattern: str) -> list[object]:
    return [pytest.param(path, id=path.stem.rpartition("-")[2]) for path in sorted(Path(DIRECTORY or "").glob(pattern))]


if DIRECTORY is None:
    pytest.skip("RANGEFETCH_WHEELS names no wheels; make wheel-test does", allow_module_level=True)

lief = pytest.importorskip("lief", reason="the dependency group structure has lief; make wheel-test installs it")


def _extension(path: Path) -> Any:
    with zipfile.ZipFile(path) as wheel:
        return lief.parse(list(wheel.read("rangefetch/_engine.abi3.so")))


def _is_pythons(symbol: str) -> bool:
    return symbol.startswith(("Py", "_Py"))


@pytest.mark.parametrize("path", _wheels("rangefetch-*-abi3-*.whl"))
def test_functions_keep_their_names_and_there_is_no_debugging_information(path: Path) -> None:
    # Backtraces and the search in tests/engine/test_no_gil.py need the names.
    extension = _extension(path)
    assert any(symbol.name.endswith("loop_run") for symbol in extension.symbols)
    assert not [section.name for section in extension.sections if "debug" in section.name]


@pytest.mark.parametrize("path", _wheels("rangefetch-*linux_*.whl"))
def test_linux_needs_the_c_library_and_python_alone(path: Path) -> None:
    extension = _extension(path)
    assert extension.header.machine_type.name == MACHINES[path.stem.partition("linux_")[2].split("_", 2)[2]]
    if "musllinux" in path.name:
        assert set(extension.libraries) == {"libc.so"}
        return
    # In glibc 2.28, the last two are still separate files.
    assert set(extension.libraries) <= {"libc.so.6", "libpthread.so.0", "libdl.so.2"}
    needed = {
        version.name for library in extension.symbols_version_requirement for version in library.get_auxiliary_symbols()
    }
    assert needed
    assert max(tuple(map(int, name.removeprefix("GLIBC_").split("."))) for name in needed) <= (2, 28)
    versioned = {symbol.name for symbol in extension.dynamic_symbols if symbol.imported and symbol.has_version}
    for symbol in extension.dynamic_symbols:
        if symbol.imported and symbol.name and not _is_pythons(symbol.name):
            assert symbol.name in versioned


@pytest.mark.parametrize("path", _wheels("rangefetch-*-musllinux_*_x86_64.whl"))
def test_musls_own_linker_lacks_nothing_but_pythons_symbols(path: Path, tmp_path: Path) -> None:
    linker = shutil.which("ld-musl-x86_64.so.1", path="/lib")
    if linker is None:
        pytest.skip("there is no musl: apt-get install musl")
    with zipfile.ZipFile(path) as wheel:
        extension = wheel.extract("rangefetch/_engine.abi3.so", tmp_path)
    done = subprocess.run([linker, "--list", extension], capture_output=True, text=True, check=False)
    lines = done.stderr.splitlines()
    lacking = [found[1] for line in lines if (found := re.search(r": (\w+): symbol not found$", line))]
    assert len(lacking) == len(lines), done.stderr
    assert "PyObject_GetAttr" in lacking
    assert [symbol for symbol in lacking if not _is_pythons(symbol)] == []


@pytest.mark.parametrize("path", _wheels("rangefetch-*linux_*.whl"))
def test_on_linux_the_stack_is_not_executable_and_addresses_are_bound_at_once(path: Path) -> None:
    extension = _extension(path)
    assert extension.has_nx
    assert any(entry.tag.name == "FLAGS_1" and entry.has(type(entry).FLAG.NOW) for entry in extension.dynamic_entries)
    assert any(segment.type.name == "GNU_RELRO" for segment in extension.segments)


@pytest.mark.parametrize("path", _wheels("rangefetch-*macosx_*.whl"))
def test_macos_11_can_load_it_and_it_needs_libsystem_and_python_alone(path: Path) -> None:
    extension = _extension(path)
    assert extension.header.cpu_type.name == MACHINES[path.stem.partition("macosx_11_0_")[2]]
    assert extension.build_version.platform.name == "MACOS"
    assert extension.build_version.minos == [11, 0, 0]
    own, *needed = [library.name for library in extension.libraries]
    assert own == "@rpath/_engine.abi3.so"
    assert needed == ["/usr/lib/libSystem.B.dylib"]
    # Symbols that zig found in libSystem are bound to it (ordinal 1); all others are looked up in every loaded image
    # when the extension is loaded (-2).
    bound = [(found.symbol.name, found.library_ordinal) for found in extension.dyld_info.bindings if found.has_symbol]
    assert {ordinal for _, ordinal in bound} == {1, -2}
    for symbol, ordinal in bound:
        assert (ordinal == -2) == _is_pythons(symbol.removeprefix("_")), symbol


@pytest.mark.parametrize("path", _wheels("rangefetch-*macosx_*_arm64.whl"))
def test_for_arm64_macos_it_is_signed(path: Path) -> None:
    # The linker signs ad hoc: the kernel there loads nothing without a signature.
    extension = _extension(path)
    assert extension.has_code_signature
    assert extension.code_signature.data_size > 0
