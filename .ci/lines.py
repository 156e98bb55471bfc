"""Report which lines of the package the tests run, with coverage.py for Python and gcov for the engine (``make
coverage``).

    python .ci/lines.py [ARGUMENTS OF PYTEST]

If all tests are run, less than ``PYTHON_PERCENT`` or ``ENGINE_PERCENT`` is a failure.

The engine's loops run without the interpreter, so Cython's own tracing cannot see them. Its C is compiled with gcov's
counters instead, and with ``#line`` directives that map counts to lines of .pyx and .pxd files. Counts of a child
process that was killed are lost.

A line with ``pragma: no cover`` is left out, and if it ends in a colon, so is the block below it; the text after the
pragma is the reason, and is reported.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "ext"
WORK = ROOT / "build" / "coverage"
PYTHON = WORK / "venv" / "bin" / "python"

PYTHON_PERCENT = 95
ENGINE_PERCENT = 90

# A child process imports more modules when its coverage is measured.
_ABOUT_IMPORTS = ("--deselect", "tests/unit/test_state.py::test_neither_numpy_nor_logging_is_imported")
_LEFT_OUT = re.compile(r"pragma: no cover\W*(?P<reason>.*?)\s*(?:\*/)?$")


def main() -> int:
    """Build, run the tests, report. Returns 1 if a test failed or coverage is too low."""
    for_pytest = sys.argv[1:]
    python_percent, engine_percent = (0, 0) if for_pytest else (PYTHON_PERCENT, ENGINE_PERCENT)

    install()
    for old in [*WORK.glob("*.gcda"), *WORK.glob(".coverage*")]:
        old.unlink()
    # Tests of the engine as it is shipped check RANGEFETCH_COVERAGE.
    environment = os.environ | {"COVERAGE_FILE": str(WORK / ".coverage"), "RANGEFETCH_COVERAGE": "1"}
    environment.pop("PYTHONPATH", None)

    def coverage(*words: str) -> int:
        return subprocess.run([PYTHON, "-m", "coverage", *words], cwd=ROOT, env=environment, check=False).returncode

    tests_failed = coverage("run", "-m", "pytest", *_ABOUT_IMPORTS, *for_pytest)
    coverage("combine", "--quiet")
    print("\nPython lines", flush=True)
    python_failed = coverage("report", f"--fail-under={python_percent}")
    print("\nEngine lines", flush=True)
    share = report(engine_counts())
    if share < engine_percent:
        print(f"The tests run less than {engine_percent} % of the engine's lines.")
    return 1 if tests_failed or python_failed or share < engine_percent else 0


def install() -> None:
    """Install the package with the counting engine in a separate environment."""
    if not PYTHON.exists():
        _run(sys.executable, "-m", "venv", WORK / "venv")
        _run(PYTHON, "-m", "pip", "install", "--quiet", "--upgrade", "pip")
    _run(PYTHON, "-m", "pip", "install", "--quiet", "--group", "dev", "--group", "coverage")
    for old in (ROOT / "build").glob("lib*"):
        shutil.rmtree(old)  # or its files would get into the package
    # Without the engine, which is built below.
    _run(PYTHON, "-m", "pip", "install", "--quiet", ".", RANGEFETCH_PURE="1")
    find = "import sysconfig, rangefetch; print(sysconfig.get_path('include')); print(*rangefetch.__path__)"
    include, package = subprocess.check_output([PYTHON, "-c", find], cwd=WORK, text=True).splitlines()
    directives = [word for name, value in _directives().items() for word in ("-X", f"{name}={value}")]
    for source in SOURCES.rglob("*.pyx"):
        generated = WORK / f"{source.stem}.c"
        _run(PYTHON, "-m", "cython", *directives, "--line-directives", "-I", SOURCES, "-o", generated, source)
        # Cython's functions that follow one of ours would otherwise count for our lines.
        generated.write_text(re.sub(r"(?m)^}$", '}\n#line 1 "generated"', generated.read_text()))
        # Atomic counters, because the loops' threads count too.
        flags = ["-std=gnu11", "-O0", "--coverage", "-fprofile-update=atomic", "-fPIC", "-shared"]
        where = [f"-I{source.parent}", f"-I{include}", "-DPy_LIMITED_API=0x030B0000"]
        _run("gcc", *flags, *where, generated, "-o", Path(package) / f"{source.stem}.abi3.so", "-dumpdir", f"{WORK}/")


def _directives() -> dict[str, object]:
    """Cython's directives from setup.py."""
    for statement in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "DIRECTIVES":
            found: dict[str, object] = ast.literal_eval(statement.value)
            return found
    raise LookupError("setup.py has no DIRECTIVES")


def engine_counts() -> dict[Path, dict[int, int]]:
    """How often each executable line of the engine's sources was run: file -> line -> count."""
    counts: dict[Path, dict[int, int]] = {}
    found = sorted(WORK.glob("*.gcda"))
    if not found:
        return counts
    told = subprocess.check_output(["gcov", "--json-format", "--stdout", *found], cwd=WORK, text=True)
    for document in map(json.loads, told.splitlines()):
        for file in document["files"]:
            path = (SOURCES / file["file"]).resolve()
            if path.is_relative_to(SOURCES) and path.is_file():
                lines = counts.setdefault(path, {})
                for line in file["lines"]:
                    number = line["line_number"]
                    lines[number] = max(lines.get(number, 0), line["count"])
    return counts


def report(counts: dict[Path, dict[int, int]]) -> float:
    """Print a table of files with the missed lines, and what was left out. Returns the coverage in percent."""
    print(f"{'Name':<40} {'Lines':>6} {'Missed':>6} {'Run':>5}   Missing")
    lines_total = missed_total = 0
    reasons: list[str] = []
    for path, lines in sorted(counts.items()):
        name = path.relative_to(ROOT).as_posix()
        left_out = dict(_left_out(path.read_text().splitlines()))
        reasons += [f"{name}:{number}: {reason}" for number, reason in left_out.items() if reason]
        countable = {number: count for number, count in lines.items() if number not in left_out}
        missed = [number for number, count in countable.items() if not count]
        lines_total += len(countable)
        missed_total += len(missed)
        print(f"{name:<40} {_columns(len(countable), len(missed))}   {_spans(missed, countable)}".rstrip())
    print(f"{'TOTAL':<40} {_columns(lines_total, missed_total)}")
    if reasons:
        print("\nLeft out", *reasons, sep="\n")
    return _share(lines_total, missed_total)


def _left_out(lines: list[str]) -> Iterator[tuple[int, str]]:
    """The numbers of excluded lines, with the reason at the first line of a block."""
    depth: int | None = None
    for number, line in enumerate(lines, 1):
        indent = len(line) - len(line.lstrip())
        if depth is not None and line.strip():
            if indent > depth:
                yield number, ""
                continue
            depth = None
        found = _LEFT_OUT.search(line)
        if found:
            yield number, found["reason"] or "no reason is given"
            if line.partition("#")[0].rstrip().endswith(":"):
                depth = indent


def _share(lines: int, missed: int) -> float:
    return 100 * (lines - missed) / lines if lines else 0.0


def _columns(lines: int, missed: int) -> str:
    return f"{lines:>6} {missed:>6} {_share(lines, missed):>4.0f}%"


def _spans(missed: Iterable[int], countable: Iterable[int]) -> str:
    """Format lines as ``3-5, 9``; lines with no executed line between them form one span."""
    spans: list[list[int]] = []
    wanted, last_missed = set(missed), False
    for number in sorted(countable):
        if number in wanted:
            if last_missed:
                spans[-1][1] = number
            else:
                spans.append([number, number])
        last_missed = number in wanted
    return ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in spans)


def _run(*command: object, **environment: str) -> None:
    subprocess.run([str(word) for word in command], cwd=ROOT, env=os.environ | environment, check=True)


if __name__ == "__main__":
    sys.exit(main())
