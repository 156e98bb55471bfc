"""``pytest --workers``: each test is run once and reported, whatever happens to the worker that runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

CONFTEST = """
import os, pytest
from support.alone import *
from support.workers import *

@pytest.fixture(scope="session", autouse=True)
def for_all():
    yield
    if os.environ.get("FAILS_AT_THE_END"):
        raise RuntimeError("what is for all tests could not be ended")

@pytest.fixture(scope="module", autouse=True)
def for_a_file(request, tmp_path_factory):
    with open("log", "a") as log:
        log.write(f"began {request.module.__name__} {os.getpid()}\\n")
    yield tmp_path_factory.mktemp("same name")
    with open("log", "a") as log:
        log.write(f"ended {request.module.__name__} {os.getpid()}\\n")
"""
GOOD = """
import os, pytest

@pytest.mark.parametrize("number", range(20))
def test_good(number, tmp_path, capfd):
    os.write(1, b"its own")
    assert capfd.readouterr().out == "its own"
    (tmp_path / "file").touch(exist_ok=False)

@pytest.mark.xdist_group("together")
@pytest.mark.parametrize("number", range(3))
def test_group(number):
    with open("log", "a") as log:
        log.write(f"group {os.getpid()}\\n")
"""
MORE = """
import os, pytest

@pytest.mark.parametrize("number", range(10))
def test_more(number):
    if number == WHICH:
        WHAT
"""


def _run(directory: Path, *arguments: str, which: int = -1, what: str = "pass", **environment: str) -> str:
    (directory / "conftest.py").write_text(CONFTEST)
    (directory / "test_good.py").write_text(GOOD)
    (directory / "test_more.py").write_text(MORE.replace("WHICH", str(which)).replace("WHAT", what))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--workers", "3", "-p", "no:cacheprovider", "--rootdir", ".", *arguments],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])} | environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert "INTERNALERROR" not in done.stdout + done.stderr
    return done.stdout


def test_each_test_runs_once_and_what_is_for_a_file_ends_with_it(tmp_path: Path) -> None:
    assert "33 passed" in _run(tmp_path)
    log = (tmp_path / "log").read_text().split("\n")
    began, ended = ([line[6:] for line in log if line.startswith(word)] for word in ("began", "ended"))
    assert sorted(began) == sorted(ended)
    assert {line.split()[0] for line in began} == {"test_good", "test_more"}
    assert len({line for line in log if line.startswith("group")}) == 1


def test_a_failure_is_told_with_its_output(tmp_path: Path) -> None:
    told = _run(tmp_path, which=7, what="print('what it says'); assert number == 6")
    assert "1 failed, 32 passed" in told
    assert "what it says" in told
    assert "assert 7 == 6" in told


def test_a_worker_that_dies_fails_the_test_that_it_ran_alone(tmp_path: Path) -> None:
    told = _run(tmp_path, which=3, what="os.kill(os.getpid(), 9)")
    assert "1 failed, 32 passed" in told
    assert "_ test_more[3] _" in told
    assert "the process in which it ran has ended with -9" in told


def test_a_test_that_takes_too_long_fails_with_where_it_was(tmp_path: Path) -> None:
    told = _run(tmp_path, "-o", "timeout=2", which=4, what="__import__('time').sleep(60)")
    assert "1 failed, 32 passed" in told
    assert "_ test_more[4] _" in told
    assert re.search(r"> +__import__\('time'\).sleep\(60\)\nE +Failed: Timeout", told)


def test_what_cannot_be_ended_is_an_error(tmp_path: Path) -> None:
    told = _run(tmp_path, FAILS_AT_THE_END="1")
    assert re.search(r"33 passed, \d errors", told)
    assert "what is for all tests could not be ended" in told


def test_the_first_failure_ends_the_run_where_that_is_wanted(tmp_path: Path) -> None:
    told = _run(tmp_path, "-x", which=0, what="assert False")
    assert "stopping after 1 failures" in told
    assert "1 failed" in told
