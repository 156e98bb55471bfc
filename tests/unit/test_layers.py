"""Imports point down only: from the faces of the package to what everyone shares, never back."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "rangefetch"
SOURCES = Path(__file__).parents[2] / "src" / PACKAGE

# From the top down. A module may import what stands in a lower line; modules of one line, only what the others of it
# do not import back. A package stands for all of its modules. New modules belong here before they can be imported.
LAYERS = (
    ("__init__", "__main__"),
    ("cli", "rpc", "integrations"),
    ("api", "aio", "bulk", "manifest", "streaming"),
    ("manager",),
    ("selection",),
    (
        "native",
        "run",
        "starting",
        "answering",
        "sourcing",
        "recovery",
        "resort",
        "mirroring",
        "comparing",
        "aria2",
    ),
    ("dispatching", "atwork", "placing", "keeping", "proving"),
    (
        "backend",
        "capabilities",
        "governor",
        "comparison",
        "guarding",
        "timers",
        "lifecycle",
        "existing",
        "provenance",
        "jobs",
        "workers",
        "verification",
        "decoding",
        "saving",
        "control_file",
        "sources",
        "sink",
        "space",
        "network",
        "credentials",
        "proxies",
        "target",
        "parts",
        "leftovers",
        "beside",
        "publishing",
        "ownership",
        "replacing",
        "state",
        "session",
        "download",
        "libcurl",
    ),
    (
        "bitmap",
        "plan",
        "retry",
        "mirrors",
        "checksum",
        "effort",
        "identity",
        "authority",
        "samples",
        "names",
        "events",
        "tries",
        "manners",
    ),
    ("errors", "logs", "options", "progress", "version", "_engine"),
    ("masking",),
)
PURE = LAYERS[-3] + LAYERS[-1]

# What a pure module has no business with. Files that somebody else has opened may be read.
WORLD = {"asyncio", "concurrent", "select", "selectors", "signal", "socket", "ssl", "subprocess", "threading", "time"}

# Imports for type checkers alone that point up or in a circle.
TYPES_ONLY = {
    ("mirroring", "run"): "it acts on the run that made it; at run time it is handed over",
    ("answering", "run"): "a part of the run that made it; at run time it is handed over",
    ("comparing", "run"): "a part of the run that made it; at run time it is handed over",
    ("starting", "run"): "a part of the run that made it; at run time it is handed over",
    ("sourcing", "run"): "a part of the run that made it; at run time it is handed over",
    ("resort", "run"): "a part of the run that made it; at run time it is handed over",
    ("recovery", "run"): "a recovery acts on the run that made it; at run time it is handed over",
    ("keeping", "atwork"): "a part of the download that made it; at run time it is handed over",
    ("placing", "atwork"): "a part of the download that made it; at run time it is handed over",
    ("proving", "atwork"): "a part of the download that made it; at run time it is handed over",
    ("guarding", "atwork"): "whose steps it guards is handed over at run time",
    ("download", "sink"): "a download is told where its bytes go instead of into a file; at run time it is handed over",
}


def module_of(path: Path) -> str:
    """The module's name in the package, as ``cli.main``."""
    return ".".join(path.relative_to(SOURCES).with_suffix("").parts)


MODULES = {
    module_of(path): path
    for path in [*SOURCES.rglob("*.py"), *SOURCES.glob("_engine.pyi")]
    if "__pycache__" not in path.parts
}


def layer_of(module: str) -> int:
    """The line of LAYERS; -1: none."""
    name = module.partition(".")[0]
    return next((line for line, names in enumerate(LAYERS) if name in names), -1)


def is_for_types(test: ast.expr) -> bool:
    return "TYPE_CHECKING" in (getattr(test, "id", ""), getattr(test, "attr", ""))


def import_nodes(tree: ast.AST, types_only: bool = False) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """All imports, wherever they stand, and whether they are for type checkers alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, types_only
        elif isinstance(node, ast.If) and is_for_types(node.test):
            yield from import_nodes(ast.Module(node.body, []), True)
            yield from import_nodes(ast.Module(node.orelse, []), types_only)
        else:
            yield from import_nodes(node, types_only)


def imported(module: str) -> Iterator[tuple[str, bool]]:
    """The modules of the package that ``module`` imports, and whether for type checkers alone."""
    for node, types_only in import_nodes(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            base = node.module or ""
            # "from rangefetch import state" names a module, "from rangefetch import fetch" something in __init__.
            names = [f"{base}.{alias.name}" for alias in node.names]
            names = [name if name.removeprefix(f"{PACKAGE}.") in known() else base for name in names]
        else:
            names = [alias.name for alias in node.names]
        for name in names:
            if name == PACKAGE:
                yield "__init__", types_only
            elif name.startswith(f"{PACKAGE}."):
                yield name.removeprefix(f"{PACKAGE}."), types_only


def known() -> set[str]:
    """All modules and packages."""
    return {name.removesuffix(".__init__") for name in MODULES}


def edges() -> Iterator[tuple[str, str, bool]]:
    """Each import once, packages as a whole; what a package imports of itself is its own affair."""
    for module in sorted(MODULES):
        for other, types_only in imported(module):
            upper, lower = module.partition(".")[0], other.partition(".")[0]
            if upper != lower:
                yield upper, lower, types_only


@pytest.mark.parametrize("module", sorted(MODULES))
def test_every_module_has_its_layer(module: str) -> None:
    assert layer_of(module) >= 0, f"{module} is in no line of LAYERS"


def test_a_module_stands_in_one_layer() -> None:
    names = [name for line in LAYERS for name in line]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_down(module: str) -> None:
    for other, types_only in imported(module):
        allowed = layer_of(other) >= layer_of(module) or (types_only and (module, other) in TYPES_ONLY)
        assert allowed, f"{module} imports {other}, which stands above it"


def test_no_two_modules_of_a_layer_need_each_other() -> None:
    beside = {
        (upper, lower)
        for upper, lower, types_only in edges()
        if layer_of(upper) == layer_of(lower) and not (types_only and (upper, lower) in TYPES_ONLY)
    }
    while beside:
        # Whoever is imported by nobody that is left cannot be part of a circle.
        free = {a for a, _ in beside} - {b for _, b in beside}
        assert free, f"a circle: {sorted(beside)}"
        beside = {(a, b) for a, b in beside if a not in free}


def test_no_exception_is_out_of_date() -> None:
    used = {(a, b) for a, b, types_only in edges() if types_only}
    assert TYPES_ONLY.keys() <= used


def test_nobody_imports_the_packages_face() -> None:
    assert [(a, b) for a, b, _ in edges() if b in ("__init__", "__main__")] == []


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name in PURE))
def test_pure_modules_know_nothing_of_the_world(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text())
    names: set[str] = set()
    for node, _ in import_nodes(tree):
        found = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        names |= {name.partition(".")[0] for name in found}
    assert not names & WORLD


# ---- The tests ---------------------------------------------------------------------------------------------------

TESTS = Path(__file__).parents[1]
SHARED = {"servers", "support"}
ON_TOP_OF = {"torture": {"matrix"}}  # it asks the matrix's server for the matrix's faults, at random


@pytest.mark.parametrize("folder", sorted(path.name for path in TESTS.iterdir() if path.is_dir()))
def test_what_folders_of_tests_share_is_shared_by_all(folder: str) -> None:
    others = {path.name for path in TESTS.iterdir() if path.is_dir()} - SHARED - ON_TOP_OF.get(folder, set()) - {folder}
    for path in (TESTS / folder).rglob("*.py"):
        for node, _ in import_nodes(ast.parse(path.read_text())):
            found = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            foreign = {name.partition(".")[0] for name in found} & others
            assert not foreign, f"{path.relative_to(TESTS)} imports what is {foreign}'s: what two share is in support"
