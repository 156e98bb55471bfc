"""What built wheels contain, and how the pure one behaves. ``make wheel-test`` runs these; nothing is built here."""

import base64
import csv
import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import rangefetch

TREE = Path(__file__).parents[2]


def _built(pattern: str) -> Path:
    directory = os.environ.get("RANGEFETCH_WHEELS")
    if not directory:
        pytest.skip("RANGEFETCH_WHEELS does not name a directory with wheels; make wheel-test does")
    (found,) = Path(directory).glob(pattern)
    return found


def _all_built(*patterns: str) -> list[object]:
    """A parameter for each wheel that was built, for whichever platforms."""
    directory = os.environ.get("RANGEFETCH_WHEELS")
    found = [path for pattern in patterns for path in sorted(Path(directory or "/nonexistent").glob(pattern))]
    return [pytest.param(path, id=path.stem.rpartition("-")[2]) for path in found] or [
        pytest.param(None, marks=pytest.mark.skip("RANGEFETCH_WHEELS names no wheels; make wheel-test does"))
    ]


ENGINE = "rangefetch-*-abi3-*.whl"
every_wheel = pytest.mark.parametrize("path", _all_built("rangefetch-*.whl"))
every_wheel_with_an_engine = pytest.mark.parametrize("path", _all_built(ENGINE))


@pytest.fixture(scope="module")
def pure_wheel() -> Iterator[zipfile.ZipFile]:
    with zipfile.ZipFile(_built("rangefetch-*-py3-none-any.whl")) as wheel:
        yield wheel


@pytest.fixture
def sdist() -> set[str]:
    """The files in the source distribution, as paths below its top directory."""
    with tarfile.open(_built("rangefetch-*.tar.gz")) as archive:
        return {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}


def _metadata(wheel: zipfile.ZipFile, name: str) -> Message:
    (path,) = [path for path in wheel.namelist() if path.endswith(f".dist-info/{name}")]
    return Parser().parsestr(wheel.read(path).decode())


def _extensions(wheel: zipfile.ZipFile) -> list[str]:
    return [path for path in wheel.namelist() if path.endswith((".so", ".pyd", ".dylib"))]


@every_wheel_with_an_engine
def test_a_wheel_with_an_engine_is_for_every_python_from_3_11(path: Path) -> None:
    with zipfile.ZipFile(path) as wheel:
        assert _extensions(wheel) == ["rangefetch/_engine.abi3.so"]
        (tag,) = _metadata(wheel, "WHEEL").get_all("Tag", [])
    assert path.name == f"rangefetch-{rangefetch.__version__}-{tag}.whl"
    assert re.fullmatch(r"cp311-abi3-(manylinux_2_28|musllinux_1_2|macosx_11_0)_(x86_64|aarch64|arm64)", tag)


@every_wheel_with_an_engine
def test_no_path_of_the_machine_that_built_it_is_in_the_extension(path: Path) -> None:
    with zipfile.ZipFile(path) as wheel:
        octets = wheel.read("rangefetch/_engine.abi3.so")
    assert re.findall(rb"/(?:root|home|Users|tmp|build|work|opt|project)/[ -~]*", octets) == []


@every_wheel
def test_types_and_licence_are_in_the_wheel(path: Path) -> None:
    with zipfile.ZipFile(path) as wheel:
        assert {"rangefetch/py.typed", "rangefetch/_engine.pyi"} <= set(wheel.namelist())
        metadata = _metadata(wheel, "METADATA")
    assert metadata["License-Expression"] == "MIT"
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert metadata["Version"] == rangefetch.__version__


@every_wheel
def test_the_record_lists_every_file_with_its_digest(path: Path) -> None:
    with zipfile.ZipFile(path) as wheel:
        (record,) = [name for name in wheel.namelist() if name.endswith(".dist-info/RECORD")]
        rows = {name: digest for name, digest, _ in csv.reader(wheel.read(record).decode().splitlines())}
        assert sorted(rows) == sorted(wheel.namelist())
        for name, digest in rows.items():
            if name != record:
                octets = base64.urlsafe_b64encode(hashlib.sha256(wheel.read(name)).digest())
                assert digest == f"sha256={octets.decode().rstrip('=')}", name


@every_wheel
def test_a_list_of_components_is_in_the_wheel(path: Path) -> None:
    with zipfile.ZipFile(path) as wheel:
        (name,) = [name for name in wheel.namelist() if ".dist-info/sboms/" in name]
        components = json.loads(wheel.read(name))
    ours = components["metadata"]["component"]
    assert (ours["name"], ours["version"]) == ("rangefetch", rangefetch.__version__)
    assert path.name in ours["purl"]
    others = {component["name"] for component in components.get("components", [])}
    assert others == (set() if "-none-any" in path.name else {"Cython", "ziglang"})


def test_all_wheels_have_the_same_python_files(pure_wheel: zipfile.ZipFile) -> None:
    def python_files(wheel: zipfile.ZipFile) -> set[str]:
        return {path for path in wheel.namelist() if path.endswith(".py")}

    for path in Path(os.environ["RANGEFETCH_WHEELS"]).glob(ENGINE):
        with zipfile.ZipFile(path) as wheel:
            assert python_files(wheel) == python_files(pure_wheel), path.name


@every_wheel
def test_pycurl_is_asked_for_where_it_has_wheels_and_the_engine_can_be(path: Path) -> None:
    with zipfile.ZipFile(path) as wheel:
        lines = _metadata(wheel, "METADATA").get_all("Requires-Dist", [])
    found = [requirement for requirement in map(Requirement, lines) if requirement.name == "pycurl"]
    if "musllinux" in path.name:
        assert found == []
        return
    (pycurl,) = found
    assert pycurl.marker is not None

    def is_asked_for(system: str, machine: str, implementation: str = "CPython") -> bool:
        assert pycurl.marker is not None
        return pycurl.marker.evaluate(
            {"sys_platform": system, "platform_machine": machine, "platform_python_implementation": implementation}
        )

    assert all(is_asked_for("linux", machine) for machine in ("x86_64", "aarch64"))
    assert all(is_asked_for("darwin", machine) for machine in ("x86_64", "arm64"))
    assert is_asked_for("win32", "AMD64")
    assert not is_asked_for("win32", "ARM64")
    assert not is_asked_for("linux", "riscv64")
    assert not is_asked_for("linux", "x86_64", "PyPy")


def test_the_source_distribution_has_what_it_takes_to_build_and_to_test(sdist: set[str]) -> None:
    # The tests exist wherever this one runs, ext and src only in the source tree.
    suffixes = {".py", ".pyi", ".pyx", ".pxd", ".pxi", ".h"}
    for directory, further in (("ext", set()), ("src", set()), ("tests", {".c"})):
        there = {
            path.relative_to(TREE).as_posix()
            for path in (TREE / directory).rglob("*")
            if path.is_file() and path.suffix in suffixes | further
        }
        assert there <= sdist
    assert {"setup.py", "pyproject.toml", "ext/rangefetch/_engine.pyx", "ext/rangefetch/libcurl.h"} <= sdist
    assert not [path for path in sdist if path.endswith((".so", ".pyc", ".whl"))]
    # Generated C files are left out: the build generates them again.
    assert not [path for path in sdist if path.startswith(("ext/", "src/")) and path.endswith(".c")]


# ---- Without an engine -------------------------------------------------------------------------------------------


def test_the_pure_wheel_is_for_everything(pure_wheel: zipfile.ZipFile) -> None:
    assert _extensions(pure_wheel) == []
    assert _metadata(pure_wheel, "WHEEL").get_all("Tag") == ["py3-none-any"]


def test_the_pure_wheel_imports_and_its_engine_says_why_it_is_not_there(
    pure_wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    pure_wheel.extractall(tmp_path)
    done = subprocess.run(
        [sys.executable, TREE / ".ci" / "without_engine.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},  # before the installed package, which has an engine
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "_engine" in done.stdout
