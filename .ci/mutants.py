"""Breaks the guards one at a time and checks that a test notices each.

    .ci/mutants.py [--list] [--only EXPRESSION] [--jobs N]

A mutant is an ``if`` whose branch is never taken, or a function returning ``bint`` or ``bool`` that always returns the
same value. All mutants are compiled into one engine, in a copy of the tree under build/mutants; the environment
variable ``RANGEFETCH_MUTANT`` activates one of them, and without it the copy behaves like the original. For each mutant
the tests of its file run, quickest first, until one fails. That test then runs again alone, since some also fail when
the machine is busy; if it fails again, the mutant was noticed. A mutant that no test notices has survived, and is
printed at the end. ``HARMLESS`` lists the mutants that change nothing observable, each with its reason; they are not
tried.

The tests mostly wait, so two processors are enough for ``--jobs 6``.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "mutants"
TREE = WORK / "tree"
PYTHON = WORK / "venv" / "bin" / "python"
LONGEST_S = 900  # a mutant that makes tests hang counts as noticed

_ANSWERS = ["fuzz/test_answers.py", "engine/test_content_range.py", "unit/test_identity.py", "engine/test_sizes.py"]
_FLOWS = [f"flow/test_{each}.py" for each in ("identity", "faults", "codings_and_statuses", "stated_sizes")]
TESTS: dict[str, list[list[str]]] = {
    "ext/rangefetch/answer.pxd": [
        _ANSWERS,
        ["flow/test_max_file_size.py", *_FLOWS],
        ["flow/test_servers_as_they_are.py", "flow/test_resume.py", "engine/test_lanes.py", "engine/test_huge.py"],
        ["matrix/test_matrix.py"],
    ],
    "ext/rangefetch/disk.pxd": [
        ["fuzz/test_corpora.py", "simulator/test_simulator.py"],
        ["engine/test_writes.py", "engine/test_pauses.py", "engine/test_failing_calls.py"],
        ["flow/test_disk.py", "engine/test_small.py"],
    ],
    "ext/rangefetch/outcome.pxd": [
        ["simulator/test_simulator.py"],
        ["flow/test_redirects.py", "flow/test_private_addresses.py", "engine/test_whole.py"],
        ["engine/test_sizes.py", "engine/test_floods.py", "engine/test_hosts.py"],
        ["engine/test_schedule.py", "engine/test_life.py", "engine/test_small.py", "engine/test_service.py"],
        ["engine/test_failing_calls.py", "flow/test_hosts.py", *_FLOWS],
        ["flow/test_small_files.py", "flow/test_head.py", "matrix/test_matrix.py"],
    ],
    "ext/rangefetch/sizes.pxd": [_ANSWERS],
    "ext/rangefetch/reach.pxd": [["flow/test_private_addresses.py"]],
    "src/rangefetch/transfer/saving.py": [
        ["unit/test_saving.py", "backends/test_failed_syncs.py"],
        ["manager/test_held_back.py", "flow/test_taken_back.py", "flow/test_resume.py", "flow/test_disk.py"],
    ],
    "src/rangefetch/identity.py": [["unit/test_identity.py", "flow/test_identity.py"]],
}

HARMLESS: dict[tuple[str, str], str] = {
    ("ext/rangefetch/disk.pxd", "if room > BUFFER_BYTES - lane.buffered:"): (
        "the buffer is emptied at each border, so that what is in it and the room before the next one fit it together"
    ),
    ("ext/rangefetch/outcome.pxd", "if target != NULL:"): (
        "where a redirect leads is worked out from its Location then, by libcurl's own rules"
    ),
    ("ext/rangefetch/outcome.pxd", "if location == NULL:"): (
        "libcurl makes no address of it either: a part that is set to nothing is cleared (curl_url_set(3))"
    ),
    ("ext/rangefetch/outcome.pxd", "if host_admits(loop, lane.file, source):"): (
        "the lane is set free then, and sent again in the same round"
    ),
    ("src/rangefetch/transfer/saving.py", "if TYPE_CHECKING"): "it is never taken when the program runs",
}
"""By file and what is broken: why no test can notice."""

_C_GUARD = re.compile(r"^(?P<indent> +)(?P<word>if|elif) (?P<rest>.*)$")
_C_QUESTION = re.compile(r"^cdef inline bint (?P<name>\w+)\(")


@dataclasses.dataclass(frozen=True)
class Mutant:
    number: int
    file: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.number:4}  {self.file}:{self.line}  {self.what}"


class Breaker:
    """Inserts mutants into the sources and numbers them."""

    def __init__(self) -> None:
        self.mutants: list[Mutant] = []

    def add(self, file: str, line: int, what: str) -> int:
        self.mutants.append(Mutant(len(self.mutants) + 1, file, line, what))
        return len(self.mutants)

    def cython(self, file: str, text: str) -> str:
        """The text with its mutants inserted."""
        out: list[str] = []
        lines = text.split("\n")
        question, waiting = "", 0  # a function whose signature or docstring has not ended yet
        imported = False
        for number, line in enumerate(lines, 1):
            if found := _C_QUESTION.match(line):
                question, waiting = found["name"], 1
            if waiting == 1 and line.rstrip().endswith(":"):
                out.append(line)
                waiting = 2
                continue
            if waiting in (2, 3):
                begins, quotes = line.strip().startswith('"""'), line.count('"""')
                if (waiting == 2 and begins and quotes == 1) or (waiting == 3 and quotes == 0):
                    waiting = 3
                    out.append(line)
                    continue
                if (waiting == 2 and begins) or waiting == 3:
                    waiting = 4
                    out.append(line)
                    continue
                waiting = 4
            if waiting == 4 and not line.strip().startswith(("cdef ", "#")) and line.strip():
                for answer in ("True", "False"):
                    mutant = self.add(file, number, f"{question}() is always {answer}")
                    out += [f"    if rf_mutated({mutant}):", f"        return {answer}"]
                waiting = 0
            if (found := _C_GUARD.match(line)) and not line.rstrip().endswith("\\"):
                what = f"{found['word']} {found['rest'].strip()}"
                if found["rest"].endswith(":"):
                    mutant = self.add(file, number, what)
                    line = f"{found['indent']}{found['word']} not rf_mutated({mutant}) and ({found['rest'][:-1]}):"
                elif found["rest"].endswith("("):
                    mutant = self.add(file, number, f"{what} {lines[number].strip()} ...")
                    line = f"{found['indent']}{found['word']} not rf_mutated({mutant}) and {found['rest']}"
            out.append(line)
            if not imported and line.startswith("from libc"):
                out.append("from rangefetch.mutants cimport rf_mutated")
                imported = True
        if not imported:
            at = next(i for i, line in enumerate(out) if line.startswith(("from ", "cimport ")))
            out.insert(at, "from rangefetch.mutants cimport rf_mutated")
        return "\n".join(out)

    def python(self, file: str, text: str) -> str:
        breaker = self

        class Visitor(ast.NodeTransformer):
            def visit_If(self, node: ast.If) -> ast.If:
                mutant = breaker.add(file, node.lineno, f"if {ast.unparse(node.test)}")
                self.generic_visit(node)
                node.test = ast.parse(f"(not rf_mutated({mutant})) and ({ast.unparse(node.test)})", mode="eval").body
                return node

            def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
                self.generic_visit(node)
                if isinstance(node.returns, ast.Name) and node.returns.id == "bool":
                    at = 1 if ast.get_docstring(node) is not None else 0
                    for answer in (True, False):
                        mutant = breaker.add(file, node.lineno, f"{node.name}() is always {answer}")
                        node.body[at:at] = ast.parse(f"if rf_mutated({mutant}):\n    return {answer}").body
                return node

        tree = ast.fix_missing_locations(Visitor().visit(ast.parse(text)))
        future = [
            i for i, each in enumerate(tree.body) if isinstance(each, ast.ImportFrom) and each.module == "__future__"
        ]
        tree.body[future[0] + 1 : future[0] + 1] = ast.parse("from rangefetch._mutants import rf_mutated").body
        return ast.unparse(tree)


HEADER = """#ifndef RF_MUTANTS_H
#define RF_MUTANTS_H
#include <stdlib.h>
static int rf_mutated(int number) {
    static int awake = -1;
    if (awake < 0) {
        const char *text = getenv("RANGEFETCH_MUTANT");
        awake = text ? atoi(text) : 0;
    }
    return awake == number;
}
#endif
"""
DECLARATION = 'cdef extern from "mutants.h" nogil:\n    bint rf_mutated(int number)\n'
MODULE = """import os

_AWAKE = int(os.environ.get("RANGEFETCH_MUTANT") or 0)


def rf_mutated(number: int) -> bool:
    return number == _AWAKE
"""


def mutants_of() -> list[Mutant]:
    """All mutants, without writing anything."""
    breaker = Breaker()
    for name in TESTS:
        text = (ROOT / name).read_text(encoding="utf-8")
        (breaker.cython if name.endswith(".pxd") else breaker.python)(name, text)
    return breaker.mutants


def make() -> list[Mutant]:
    """Write a copy of the tree that contains all mutants, each inactive."""
    shutil.rmtree(TREE, ignore_errors=True)
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in names.split("\0"):
        if name and (ROOT / name).is_file():
            (TREE / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, TREE / name)
    breaker = Breaker()
    for name in TESTS:
        text = (TREE / name).read_text(encoding="utf-8")
        broken = breaker.cython(name, text) if name.endswith(".pxd") else breaker.python(name, text)
        (TREE / name).write_text(broken, encoding="utf-8")
    (TREE / "ext/rangefetch/mutants.h").write_text(HEADER)
    (TREE / "ext/rangefetch/mutants.pxd").write_text(DECLARATION)
    (TREE / "src/rangefetch/_mutants.py").write_text(MODULE)
    return breaker.mutants


def install() -> None:
    if not PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", str(WORK / "venv")], check=True)
        subprocess.run([str(PYTHON), "-m", "pip", "install", "--quiet", "--upgrade", "pip"], check=True)
    subprocess.run([str(PYTHON), "-m", "pip", "install", "--quiet", "--group", "test", "Cython"], cwd=TREE, check=True)
    environment = os.environ | {"CFLAGS": "-O1"}
    command = [str(PYTHON), "-m", "pip", "install", "--quiet", "--editable", "."]
    subprocess.run(command, cwd=TREE, check=True, env=environment)


def noticing(mutant: int, files: list[str]) -> str:
    """The first of these tests that fails; empty if none does."""
    present = [f"tests/{file}" for file in files if (TREE / "tests" / file.partition("::")[0]).is_file()]
    environment = os.environ | {"RANGEFETCH_MUTANT": str(mutant)}
    command = [str(PYTHON), "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *present]
    try:
        done = subprocess.run(command, cwd=TREE, env=environment, capture_output=True, timeout=LONGEST_S, check=False)
    except subprocess.TimeoutExpired:
        return f"no end in {LONGEST_S} s"
    if done.returncode == 0:
        return ""
    said = done.stdout.decode(errors="replace")
    failed = re.search(r"^(?:FAILED|ERROR) (?:tests/)?(.+?)(?: - |$)", said, re.MULTILINE)
    return failed[1] if failed else f"pytest ended with {done.returncode}"


def noticing_again(mutant: int, files: list[str]) -> str:
    """The same, ignoring tests that fail only once. A failure without a test's name, because pytest died, counts."""
    by = noticing(mutant, files)
    return by if "::" not in by or noticing(mutant, [by]) else ""


def judge(mutant: Mutant) -> tuple[Mutant, str, float]:
    began_s = time.monotonic()
    by = next(filter(None, (noticing_again(mutant.number, files) for files in TESTS[mutant.file])), "")
    return mutant, by, time.monotonic() - began_s


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="name the mutants, and run nothing")
    parser.add_argument("--only", default="", help="those whose line in the list this regular expression finds")
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time")
    arguments = parser.parse_args()
    wanted = re.compile(arguments.only)
    mutants = [mutant for mutant in (mutants_of() if arguments.list else make()) if wanted.search(str(mutant))]
    if arguments.list:
        print(*mutants, sep="\n")
        return 0
    install()
    for file in dict.fromkeys(mutant.file for mutant in mutants):
        for files in TESTS[file]:
            if by := noticing(0, files):
                print(f"without any mutant {by} fails, which is to notice those of {file}", file=sys.stderr)
                return 2
    harmless = [mutant for mutant in mutants if (mutant.file, mutant.what) in HARMLESS]
    survivors = []
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for mutant, by, seconds in pool.map(judge, [mutant for mutant in mutants if mutant not in harmless]):
            print(f"{'noticed ' if by else 'SURVIVED'} {seconds:6.1f} s  {mutant}  {by and 'by ' + by}", flush=True)
            if not by:
                survivors.append(mutant)
    noticed = len(mutants) - len(harmless) - len(survivors)
    print(f"{len(mutants)} mutants, {noticed} noticed, {len(harmless)} harmless, {len(survivors)} survived")
    print(*survivors, sep="\n")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
