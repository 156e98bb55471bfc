"""What is in the built wheels, and how the pure one behaves. ``make wheel-test`` runs these; nothing is built here."""

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

import rangefetch

TREE = Path(__file__).parents[2]


def _built(pattern: str) -> Path:
    directory = os.environ.get("RANGEFETCH_WHEELS")
    if not directory:
        pytest.skip("RANGEFETCH_WHEELS does not name a directory with wheels; make wheel-test does")
    (found,) = Path(directory).glob(pattern)
    return found


@pytest.fixture(scope="module")
def platform_wheel() -> Iterator[zipfile.ZipFile]:
    with zipfile.ZipFile(_built("rangefetch-*-abi3-*.whl")) as wheel:
        yield wheel


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


def test_the_platform_wheel_is_for_every_python_from_3_11(platform_wheel: zipfile.ZipFile) -> None:
    assert _extensions(platform_wheel) == ["rangefetch/_engine.abi3.so"]
    for tag in _metadata(platform_wheel, "WHEEL").get_all("Tag", []):
        assert re.fullmatch(r"cp311-abi3-(manylinux_\d+_\d+|macosx_\d+_\d+)_\w+", tag)


def test_no_path_of_the_machine_that_built_it_is_in_the_extension(platform_wheel: zipfile.ZipFile) -> None:
    octets = platform_wheel.read("rangefetch/_engine.abi3.so")
    assert re.findall(rb"/(?:root|home|Users|tmp|build|work|opt|project)/[ -~]*", octets) == []


@pytest.mark.parametrize("which", ["platform_wheel", "pure_wheel"])
def test_types_and_licence_are_in_the_wheel(which: str, request: pytest.FixtureRequest) -> None:
    wheel = request.getfixturevalue(which)
    assert {"rangefetch/py.typed", "rangefetch/_engine.pyi"} <= set(wheel.namelist())
    metadata = _metadata(wheel, "METADATA")
    assert metadata["License-Expression"] == "MIT"
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert metadata["Version"] == rangefetch.__version__


def test_both_wheels_have_the_same_python_files(platform_wheel: zipfile.ZipFile, pure_wheel: zipfile.ZipFile) -> None:
    ours = [{path for path in wheel.namelist() if path.endswith(".py")} for wheel in (platform_wheel, pure_wheel)]
    assert ours[0] == ours[1]


def test_the_source_distribution_has_what_it_takes_to_build_and_to_test(sdist: set[str]) -> None:
    # The tests are at hand wherever this one runs, the rest only in the source tree.
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
    # C that was generated is generated again where it is built.
    assert not [path for path in sdist if path.startswith(("ext/", "src/")) and path.endswith(".c")]


# ---- Where there is no engine ------------------------------------------------------------------------------------


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
