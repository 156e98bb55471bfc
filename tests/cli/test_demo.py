"""``make run``, the first thing that a newcomer sees."""

from __future__ import annotations

import argparse
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from support import children

DEMO = Path(__file__).parents[2] / "benches" / "demo.py"


def demo(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DEMO), "--dir", str(directory), "--size", "24M", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=children.environment(), check=False)


@pytest.mark.parametrize("options", [["--fast"], ["--quiet-life"]], ids=["fast", "both parts"])
def test_the_demo_ends_with_the_file_as_it_was_served(tmp_path: Path, options: list[str]) -> None:
    done = demo(tmp_path, *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("matches the served file.") == (1 if options == ["--fast"] else 2)
    assert "Traceback" not in done.stderr
    assert [path.name for path in (tmp_path / "fetched").iterdir()] == []


def test_what_an_earlier_demo_has_fetched_is_gone_on_with(tmp_path: Path) -> None:
    first = demo(tmp_path, "--quiet-life", "--keep")
    assert "Creating a file of 24.0 MiB" in first.stdout
    again = demo(tmp_path, "--quiet-life")
    assert again.returncode == 0, again.stderr
    assert "Creating" not in again.stdout
    assert "Resuming its download." in again.stdout
    assert again.stdout.count("matches the served file.") == 1


def test_a_demo_for_which_the_disk_is_too_small_says_so(tmp_path: Path) -> None:
    done = demo(tmp_path, "--size", "200T")
    assert (done.returncode, done.stdout) == (1, "")
    assert " free; try --size 64M, or another --dir" in done.stderr


def test_the_demo_says_nothing_of_a_server_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trouble = runpy.run_path(str(DEMO))["_Trouble"](argparse.Namespace(quiet_life=True), tmp_path, tmp_path)
    for key in "csl":
        trouble._press(key)
    assert capsys.readouterr().out == ""


def test_the_demo_counts_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trouble = runpy.run_path(str(DEMO))["_Trouble"](argparse.Namespace(quiet_life=True), tmp_path, tmp_path)
    for retries in (0, 1, 2):
        trouble._tell_the_end({"size": 1, "resumed": 0, "retries": retries})
    said = capsys.readouterr().out.splitlines()
    assert said == ["Done: 1 B.", "Done: 1 B; 1 transfer was retried.", "Done: 1 B; 2 transfers were retried."]
