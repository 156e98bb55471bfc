"""Reading session files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def listed_in(path: Path) -> list[dict[str, Any]]:
    """The downloads in a session file, each as its last line has it; none if there is no file."""
    entries: dict[str, dict[str, Any]] = {}
    lines = path.read_text().splitlines() if path.exists() else []
    for line in lines[1:]:
        entry = json.loads(line)
        if entry.get("gone"):
            del entries[entry["gid"]]
        else:
            entries[entry["gid"]] = entry
    return list(entries.values())
