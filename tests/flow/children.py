"""Functions of ``flow.programs`` in processes of their own."""

import json
import os
import subprocess
from contextlib import AbstractContextManager
from typing import Any

from support.children import at_work, python

__all__ = ["as_json", "child", "run_child"]


def child(program: str, *arguments: object) -> AbstractContextManager[subprocess.Popen[str]]:
    """The function at work in a process of its own, which is gone afterwards."""
    return at_work("flow.programs", program, *arguments)


def run_child(program: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """The same from its beginning to its end."""
    return subprocess.run(
        python("flow.programs", program, *arguments),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env=os.environ | environment,
    )


def as_json(**options: Any) -> str:
    """Options as an argument of a child."""
    return json.dumps(options)
