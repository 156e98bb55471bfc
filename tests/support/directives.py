"""What the engine is translated with, for programs made of its files. Fuzzing has no pytest, so nor has this."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def directives() -> dict[str, object]:
    """Those of ``setup.py``."""
    for node in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id == "DIRECTIVES"
        ):
            found: dict[str, object] = ast.literal_eval(node.value)
            return found
    raise LookupError("setup.py has no DIRECTIVES")
