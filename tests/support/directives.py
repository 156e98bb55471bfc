"""Cython's directives for the engine, for programs built from its files. Fuzzing uses this without pytest."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def directives() -> dict[str, object]:
    """The directives in ``setup.py``."""
    for node in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id == "DIRECTIVES"
        ):
            found: dict[str, object] = ast.literal_eval(node.value)
            return found
    raise LookupError("setup.py has no DIRECTIVES")
