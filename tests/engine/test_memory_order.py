"""Fields shared between threads are stored with release and loaded with acquire order on every processor."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "ext" / "rangefetch"

# x86-64 orders stores by itself, so no test there can notice a store with too weak an order.
CODE = """
    #include "platform.h"
    void stores(int64_t *where) { rf_store(where, 1); }
    int64_t loads(int64_t *where) { return rf_load(where); }
    int64_t adds(int64_t *where) { return rf_add(where, 1); }
    int swaps(int64_t *where) { return rf_swap_if(where, 1, 2); }
"""
RELEASE, ACQUIRE = r"stl\w+", r"lda\w+"
BOTH = r"ldaddal|casal|ldaxr\b.*?\bstlxr|__aarch64_\w+_acq_rel"
ORDERED = {"stores": rf"\b{RELEASE}\s", "loads": rf"\b{ACQUIRE}\s", "adds": BOTH, "swaps": BOTH}

# Functions in which no other thread has the struct yet, or any more.
ALONE = {
    "__cinit__",
    "_add_source",
    "add_source",
    "blocks_init",
    "blocks_recall",
    "blocks_free",
    "_recall",
    "file_is_home",
    "guest_new",
}


def sources() -> dict[str, str]:
    found = {path.name: path.read_text() for path in sorted(SOURCES.glob("*.p[xy][dix]"))}
    if not found:
        pytest.skip("beside an installed wheel there are no sources of the engine")
    return found


@pytest.fixture(scope="module")
def assembly(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The aarch64 assembly of each function in ``CODE``."""
    pytest.importorskip("ziglang", reason="zig compiles for other processors: pip install ziglang")
    sources()
    directory = tmp_path_factory.mktemp("assembly")
    (directory / "code.c").write_text(CODE)
    compiler = (sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-gnu.2.28", "-O2", "-S")
    subprocess.run([*compiler, f"-I{SOURCES}", "-o", "code.s", "code.c"], cwd=directory, check=True)
    text = (directory / "code.s").read_text()
    return {name: text.partition(f"\n{name}:")[2].partition(".Lfunc_end")[0] for name in ORDERED}


@pytest.mark.parametrize("function", ORDERED)
def test_aarch64_is_told_the_order(assembly: dict[str, str], function: str) -> None:
    assert re.search(ORDERED[function], assembly[function], re.DOTALL), assembly[function]


def test_no_other_words_for_what_threads_share() -> None:
    for name, text in sources().items():
        assert not re.search(r"__atomic|__sync|_Atomic|volatile", text), name


def accesses(pattern: str) -> Iterator[tuple[str, str, str]]:
    """Function, struct and field of each match of the pattern, as named in the text."""
    for text in sources().values():
        function = ""
        for line in text.splitlines():
            if head := re.match(r"\s*c?p?def\b[^=(]*?(\w+)\(", line):
                function = head[1]
            for found in re.finditer(pattern, line):
                yield function, found["struct"], found["field"]


WORDS = r"\brf_(?:store|load|note|count|peek|add|swap_if)"
FIELD = r"(?P<struct>\w+)\.(?P<field>\w+)(?:\[\w+\])?"


def test_what_threads_share_is_stored_in_no_other_way() -> None:
    shared = {(struct, field) for _, struct, field in accesses(rf"{WORDS}\(&(?:\w+\.)*?{FIELD}\b(?!\.)")}
    assert {("blocks", "state"), ("file", "size"), ("counters", "requests"), ("host", "taken")} <= shared
    plain = set(accesses(rf"^\s*(?:\w+\.)*?{FIELD} (?:[-+*|]|//)?= "))
    assert len(plain) > 100
    assert not [each for each in plain if each[1:] in shared and each[0] not in ALONE]
