"""Runs other people's test suites with pytest, each in a separate process."""

import os
import subprocess
import sys
import xml.etree.ElementTree
from collections.abc import Sequence
from pathlib import Path

__all__ = ["run_suite"]

_TESTS = Path(__file__).parents[1]


def run_suite(
    plugin: str, tests: Sequence[str], *, packages: Path, directory: Path, report: Path
) -> dict[str, tuple[str, str]]:
    """Run a suite, and return the outcome of each test: ``passed``, ``failed`` or ``skipped``, and why.

    ``packages`` and our own tests are its PYTHONPATH; it runs in ``directory``.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "COVERAGE_"))}
    environment["PYTHONPATH"] = os.pathsep.join((str(packages), str(_TESTS)))
    command = [sys.executable, "-m", "pytest", "-q", "-p", f"third_party.plugins.{plugin}", "-c", os.devnull]
    command += ["--rootdir", ".", "-p", "no:cacheprovider", "-o", "junit_family=xunit1", f"--junitxml={report}", *tests]
    done = subprocess.run(
        command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    print(done.stdout[-2000:], done.stderr[-2000:])
    assert done.returncode in (0, 1), "it ran"
    outcomes = {}
    for case in xml.etree.ElementTree.parse(report).iter("testcase"):
        outcome, why = "passed", ""
        for child in case:
            if child.tag in ("failure", "error", "skipped"):
                outcome = "skipped" if child.tag == "skipped" else "failed"
                why = child.get("message", "")
        outcomes[f"{case.get('classname')}::{case.get('name')}"] = outcome, why
    return outcomes
