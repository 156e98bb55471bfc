"""What a session file says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def listed_in(path: Path) -> list[dict[str, Any]]:
    """The downloads in it, each as its last line says; none where there is no file."""
    entries: dict[str, dict[str, Any]] = {}
    lines = path.read_text().splitlines() if path.exists() else []
    for line in lines[1:]:
        entry = json.loads(line)
        if entry.get("gone"):
            del entries[entry["gid"]]
        else:
            entries[entry["gid"]] = entry
    return list(entries.values())
