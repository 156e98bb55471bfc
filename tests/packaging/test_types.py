"""What type checkers say of a user's program that uses the installed package, and of the package."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import rangefetch
from servers.content import content
from servers.misbehaving import MisbehavingServer

pytestmark = pytest.mark.timeout(600)  # the first use of pyright fetches it

PROGRAM = Path(__file__).with_name("users_program.py")


def _run(module: str, arguments: Sequence[object], directory: Path) -> subprocess.CompletedProcess[str]:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed; it is in the dependency group 'types'")
    # pyright asks the "python" on the PATH where the packages are.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=directory,  # without our configuration files
        env=os.environ | {"PATH": path, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_mypy_is_content_with_a_users_program(tmp_path: Path) -> None:
    done = _run("mypy", ["--strict", "--python-executable", sys.executable, PROGRAM], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


MISTAKES = """
import asyncio
import rangefetch
from rangefetch import aio

class Url:  # as yarl's and httpx's
    scheme: str = "http"
    host: str | None = "h"

rangefetch.fetch("http://h/a", splitt=4)  # unknown
rangefetch.fetch("http://h/a", split="4")  # wrong
rangefetch.fetch("http://h/a", split=4, headers={"A": "b"}, max_download_limit="4M", mirrors=[Url()], checksum="md5=0")
rangefetch.fetch(Url(), save_dir="data", auth=("me", "secret"))
rangefetch.fetch_many(["http://h/a"], "data", durable=1)  # wrong
rangefetch.fetch_many(["http://h/a"], "data", filename="a")  # unknown
rangefetch.fetch_many(["http://h/a"], "data", durable=True)
rangefetch.stream("http://h/a", save_dir="data")  # unknown
rangefetch.stream(Url(), checksum="md5=0")
rangefetch.head("http://h/a", connect_timeout="3")  # wrong
rangefetch.head(Url(), connect_timeout=3)
asyncio.run(aio.fetch("http://h/a", splitt=4))  # unknown
asyncio.run(aio.fetch("http://h/a", split=4))
asyncio.run(aio.head("http://h/a", split=None))  # wrong
rangefetch.get_download_manager().change_options("0", splitt=4)  # unknown
rangefetch.get_download_manager().change_options("0", split=4, filename="a", mirrors=["http://h/b"])
"""


def test_mypy_finds_an_option_that_is_unknown_or_wrong(tmp_path: Path) -> None:
    program = tmp_path / "mistakes.py"
    program.write_text(MISTAKES)
    done = _run("mypy", ["--strict", "--python-executable", sys.executable, program], tmp_path)
    found = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error: " in line}
    expected = {
        number for number, line in enumerate(MISTAKES.splitlines(), 1) if line.endswith(("# unknown", "# wrong"))
    }
    assert found == expected, done.stdout


@pytest.fixture(scope="module")
def pyright(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip if pyright cannot run: it is a Node.js program that the Python package fetches when first used. It takes a
    minute of processor time.
    """
    done = _run("pyright", ["--version"], tmp_path_factory.mktemp("pyright"))
    if done.returncode != 0:
        pytest.skip(f"pyright cannot be fetched: {done.stderr.strip().splitlines()[-1:]}")


@pytest.mark.usefixtures("pyright")
def test_pyright_is_content_with_a_users_program(tmp_path: Path) -> None:
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "strict", "include": [str(PROGRAM)]}))
    done = _run("pyright", [], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.usefixtures("pyright")
def test_pyright_is_content_with_the_package(tmp_path: Path) -> None:
    # pyright does not check installed packages, so give it a copy.
    package = shutil.copytree(Path(rangefetch.__file__).parent, tmp_path / "rangefetch")
    report: dict[str, Any] = json.loads(_run("pyright", ["--outputjson"], tmp_path).stdout)
    assert report["summary"]["filesAnalyzed"] >= len(list(package.rglob("*.py")))
    assert report["generalDiagnostics"] == []


@pytest.mark.usefixtures("pyright")
def test_no_public_type_is_unknown(tmp_path: Path) -> None:
    done = _run("pyright", ["--verifytypes", "rangefetch", "--ignoreexternal", "--outputjson"], tmp_path)
    report: dict[str, Any] = json.loads(done.stdout)["typeCompleteness"]
    counts = report["exportedSymbolCounts"]
    assert counts["withKnownType"] > 0
    assert counts["withUnknownType"] == 0, [each["name"] for each in report["symbols"] if not each["isTypeKnown"]]


def test_the_users_program_runs(server: MisbehavingServer, tmp_path: Path) -> None:
    urls = [server.url("/good/a.bin", size="2M"), server.url("/good/b.bin", size="3M", seed=1)]
    done = subprocess.run(
        [sys.executable, PROGRAM, *urls, tmp_path], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    one, other = content("2M"), content("3M", 1)
    expected = {
        "one.bin": one,
        "a.bin": one,
        "b.bin": other,
        "list/a.bin": one,
        "list/b.bin": other,
        "awaited.bin": one,
        "awaited/b.bin": other,
        "watched.bin": one,
    }
    found = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == expected
    size, *paths = done.stdout.splitlines()[-1 - len(expected) :]
    assert size == str(len(one))
    assert paths == [str(tmp_path / name) for name in expected]
