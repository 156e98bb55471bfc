"""Imports point down only: from the public modules to the shared ones, never back."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "rangefetch"
SOURCES = Path(__file__).parents[2] / "src" / PACKAGE

PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"


def lines_of(page: str) -> list[tuple[str, ...]]:
    """The modules in each line of the diagram, from the top down. Those in packages are named ``package.module``.

    A line may end with a description, which has more than one word and is separated from the names by two spaces.
    """
    diagram = page.split("## Layers", 1)[1].split("```")[1]
    lines: list[tuple[str, ...]] = [("__init__", "__main__")]
    package = ""
    for text in diagram.strip("\n").splitlines():
        names = [part for part in re.split(r"\s{2,}", text.strip()) if re.fullmatch(r"\w+/?", part)]
        if names[0].endswith("/"):
            package = names[0].rstrip("/")
            lines.append((f"{package}.__init__",))
        elif text.startswith(" "):
            lines.append(tuple(f"{package}.{name}" for name in names))
        else:
            lines.append(tuple(names))
    return lines


LAYERS = lines_of(PAGE.read_text())
# Modules without sockets, threads or clocks of their own.
PURE = {
    "checks",
    "disk.checksum",
    "disk.names",
    "errors",
    "headers",
    "identity",
    "logs",
    "masking",
    "net.manners",
    "net.mirrors",
    "options",
    "progress",
    "transfer.authority",
    "transfer.effort",
    "transfer.events",
    "transfer.lifecycle",
    "transfer.retry",
    "transfer.samples",
    "transfer.tries",
    "version",
}

# Modules that a pure module must not import. It may read files that its caller has opened.
WORLD = {"asyncio", "concurrent", "select", "selectors", "signal", "socket", "ssl", "subprocess", "threading", "time"}

# Imports only for type checkers, which may point up or form a cycle.
HANDED_OVER = "it belongs to the one that made it; at run time it is handed over"
TYPES_ONLY = {
    ("aria2.comparing", "aria2.file"): HANDED_OVER,
    ("aria2.mirroring", "aria2.file"): HANDED_OVER,
    ("aria2.file", "aria2.backend"): HANDED_OVER,
    ("aria2.folder", "aria2.backend"): HANDED_OVER,
    ("aria2.task", "aria2.backend"): HANDED_OVER,
    ("transfer.naming", "transfer.task"): HANDED_OVER,
    ("native.answering", "native.task"): HANDED_OVER,
    ("native.asking", "native.task"): HANDED_OVER,
    ("native.comparing", "native.task"): HANDED_OVER,
    ("native.mirroring", "native.task"): HANDED_OVER,
    ("native.recovery", "native.task"): HANDED_OVER,
    ("native.resort", "native.task"): HANDED_OVER,
    ("native.preparing", "native.backend"): HANDED_OVER,
    ("native.preparing", "native.small"): HANDED_OVER,
    ("native.small", "native.backend"): HANDED_OVER,
    ("native.sourcing", "native.task"): HANDED_OVER,
    ("native.starting", "native.task"): HANDED_OVER,
    ("transfer.keeping", "transfer.task"): HANDED_OVER,
    ("transfer.offline", "transfer.task"): HANDED_OVER,
    ("transfer.placing", "transfer.task"): HANDED_OVER,
    ("transfer.proving", "transfer.task"): HANDED_OVER,
    ("transfer.download", "transfer.sink"): "a download is told where its bytes go; at run time it is handed over",
}


def module_of(path: Path) -> str:
    """The module's name in the package, such as ``cli.main``."""
    return ".".join(path.relative_to(SOURCES).with_suffix("").parts)


MODULES = {
    module_of(path): path
    for path in [*SOURCES.rglob("*.py"), *SOURCES.glob("_engine.pyi")]
    if "__pycache__" not in path.parts
}


def layer_of(module: str) -> int:
    """The module's line in LAYERS, or -1."""
    return next((line for line, names in enumerate(LAYERS) if module in names), -1)


def is_for_types(test: ast.expr) -> bool:
    return "TYPE_CHECKING" in (getattr(test, "id", ""), getattr(test, "attr", ""))


def import_nodes(tree: ast.AST, types_only: bool = False) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """All imports, at any level of nesting, and whether they are only for type checkers."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, types_only
        elif isinstance(node, ast.If) and is_for_types(node.test):
            yield from import_nodes(ast.Module(node.body, []), True)
            yield from import_nodes(ast.Module(node.orelse, []), types_only)
        else:
            yield from import_nodes(node, types_only)


@functools.cache
def imported(module: str) -> tuple[tuple[str, bool], ...]:
    """The modules of the package that ``module`` imports, and whether only for type checkers."""
    found: list[tuple[str, bool]] = []
    for node, types_only in import_nodes(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            base = node.module or ""
            # "from rangefetch import state" imports a module, "from rangefetch import fetch" a name in __init__.
            names = [f"{base}.{alias.name}" for alias in node.names]
            names = [name if name.removeprefix(f"{PACKAGE}.") in known() else base for name in names]
        else:
            names = [alias.name for alias in node.names]
        for name in names:
            if name == PACKAGE:
                found.append(("__init__", types_only))
            elif name.startswith(f"{PACKAGE}."):
                other = name.removeprefix(f"{PACKAGE}.")
                found.append((other if other in MODULES else f"{other}.__init__", types_only))
    return tuple(found)


def known() -> set[str]:
    """All modules and packages."""
    return {name.removesuffix(".__init__") for name in MODULES}


def edges() -> Iterator[tuple[str, str, bool]]:
    """Each import as (importing module, imported module, only for type checkers)."""
    for module in sorted(MODULES):
        for other, types_only in imported(module):
            if module != other:
                yield module, other, types_only


@pytest.mark.parametrize("module", sorted(MODULES))
def test_every_module_has_its_layer(module: str) -> None:
    assert layer_of(module) >= 0, f"{module} is in no line of the diagram in {PAGE.name}"


def test_the_diagram_names_each_module_once_and_nothing_else() -> None:
    names = [name for line in LAYERS for name in line]
    assert len(names) == len(set(names))
    assert set(names) == set(MODULES)


@pytest.mark.parametrize("package", sorted(name for name in MODULES if name.endswith(".__init__")))
def test_every_package_says_what_belongs_in_it(package: str) -> None:
    assert ast.get_docstring(ast.parse(MODULES[package].read_text()))


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
        # A module that no remaining module imports cannot be part of a cycle.
        free = {a for a, _ in beside} - {b for _, b in beside}
        assert free, f"a circle: {sorted(beside)}"
        beside = {(a, b) for a, b in beside if a not in free}


def test_no_exception_is_out_of_date() -> None:
    used = {(a, b) for a, b, types_only in edges() if types_only}
    assert TYPES_ONLY.keys() <= used


def test_nobody_imports_the_packages_face() -> None:
    assert [(a, b) for a, b, _ in edges() if b in ("__init__", "__main__")] == []


@pytest.mark.parametrize("module", sorted(PURE))
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
ON_TOP_OF = {"torture": {"matrix"}}  # it picks the matrix's faults at random, and uses its server


@pytest.mark.parametrize("folder", sorted(path.name for path in TESTS.iterdir() if path.is_dir()))
def test_what_folders_of_tests_share_is_shared_by_all(folder: str) -> None:
    others = {path.name for path in TESTS.iterdir() if path.is_dir()} - SHARED - ON_TOP_OF.get(folder, set()) - {folder}
    for path in (TESTS / folder).rglob("*.py"):
        for node, _ in import_nodes(ast.parse(path.read_text())):
            found = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            foreign = {name.partition(".")[0] for name in found} & others
            assert not foreign, f"{path.relative_to(TESTS)} imports what is {foreign}'s: what two share is in support"


def _imports_apart_from_forks(tree: ast.AST) -> Iterator[tuple[int, bool]]:
    """The line of each import in a function, and whether it is inside ``with no_fork``."""

    def look(node: ast.AST, *, in_function: bool, is_held: bool) -> Iterator[tuple[int, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom) and in_function:
                yield child.lineno, is_held
            held = isinstance(child, ast.With) and any("no_fork" in ast.unparse(item) for item in child.items)
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from look(child, in_function=in_function or function, is_held=is_held or held)

    return look(tree, in_function=False, is_held=False)


def test_what_a_thread_may_import_is_held_apart_from_forks() -> None:
    """A child forked during an import would have half of the module, and wait forever for the thread that loads it.

    Exempt are the command, which imports in its main thread; the modules that other modules of ours import from the
    package while they are being loaded; and ``dataclasses``, which callers of that code have imported already.
    """
    without = {
        f"{path.relative_to(SOURCES)}:{line}"
        for path in sorted(SOURCES.rglob("*.py"))
        if path.parent.name != "cli" and path.name not in ("__init__.py", "progress.py", "records.py")
        for line, is_held in _imports_apart_from_forks(ast.parse(path.read_text()))
        if not is_held
    }
    assert without == set()
