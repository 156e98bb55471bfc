"""Runs functions of ``flow.programs`` in separate processes."""

import json
import os
import subprocess
from contextlib import AbstractContextManager
from typing import Any

from support.children import at_work, python

__all__ = ["as_json", "child", "run_child"]


def child(program: str, *arguments: object) -> AbstractContextManager[subprocess.Popen[str]]:
    """Run the function in a separate process, and kill the process afterwards."""
    return at_work("flow.programs", program, *arguments)


def run_child(program: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the function in a separate process and wait until it ends."""
    return subprocess.run(
        python("flow.programs", program, *arguments),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env=os.environ | environment,
    )


def as_json(**options: Any) -> str:
    """Options as a child's command-line argument."""
    return json.dumps(options)
