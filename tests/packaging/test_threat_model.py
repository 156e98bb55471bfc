"""Each promise in docs/threat-model.md and SECURITY.md is backed by tests that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_NAMED = re.compile(r"`([a-z0-9_]+/test_[a-z0-9_]+\.py)(?:::(test_[a-z0-9_]+))?`")
_ROW = re.compile(r"^\| (?!promise |---)(.+?) \| (.+?) \|$", re.MULTILINE)
PAGES = ["SECURITY.md", "docs/threat-model.md"]


@pytest.mark.parametrize("page", PAGES)
def test_every_promise_names_its_tests(page: str) -> None:
    rows = _ROW.findall((ROOT / page).read_text(encoding="utf-8"))
    assert len(rows) > 10
    assert [promise for promise, tests in rows if not _NAMED.search(tests)] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_is_named_is_there(page: str) -> None:
    lacking = []
    for path, name in _NAMED.findall((ROOT / page).read_text(encoding="utf-8")):
        file = ROOT / "tests" / path
        if not file.is_file() or (name and f"def {name}(" not in file.read_text(encoding="utf-8")):
            lacking.append(f"{path}::{name}")
    assert lacking == []
