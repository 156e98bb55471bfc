"""What README and the pages in docs/ show is run: Python blocks a page at a time, shell blocks one by one.

``https://...example.org/NAME`` (and .net, .com) is fetched from a local server, under the same name; ``sha-256=...`` is
the digest of what it serves; ``urls`` is a list of URLs where a page does not make one, and the directories in
``DIRECTORIES`` are there. A block may be left out by ``<!-- not run: REASON -->`` in the line above it, and is by
``<!-- needs: NAME, NAME -->`` where there is no such command or module.
"""

import dataclasses
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import rangefetch
from rangefetch.cli.vocabulary import make_parser
from rangefetch.disk import state
from servers.content import content
from servers.misbehaving import MisbehavingServer

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
SIZE = "1M"
DIRECTORIES = ("data", "docs", "downloads", "models")

# What is proved elsewhere, by what.
ELSEWHERE = {
    "make run": "make fresh",
    "make test": "make fresh",
    "make ": "its own target",
    "pip install": "make wheel-test",
}

_BLOCK = re.compile(
    r"(?:^<!-- (?:not run: (?P<reason>[^\n]+)|needs: (?P<needs>[^\n]+)) -->\n)?"
    r"^```(?P<language>\w+)[^\n]*\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_URL = re.compile(r"https?://(?:[^\s\"'@/]+@)?(?:[\w-]+\.)?example\.(?:org|net|com)(?=/)")
_DIGEST = re.compile(r"sha-256=(?:\.\.\.|…|HEX)")


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block that is run; ``line`` is the one of its first line of code."""

    page: Path
    line: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def _is_there(name: str) -> bool:
    return shutil.which(name) is not None or importlib.util.find_spec(name) is not None


def _blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        lacking = [name for name in (found["needs"] or "").split(", ") if name and not _is_there(name)]
        if not found["reason"] and not lacking:
            yield Block(page, text.count("\n", 0, found.start("code")) + 1, found["language"], found["code"])


SHELL = [block for page in PAGES for block in _blocks(page) if block.language in ("sh", "console")]
PYTHON = {page: [block for block in _blocks(page) if block.language == "python"] for page in PAGES}


def _here(code: str, server: MisbehavingServer) -> str:
    """The code with addresses and digests that are true here."""
    code = _URL.sub(lambda _: f"http://127.0.0.1:{server.port}/good", code)
    return _DIGEST.sub("sha-256=" + hashlib.sha256(content(SIZE)).hexdigest(), code)


def _run(command: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    for name in DIRECTORIES:
        (directory / name).mkdir()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return subprocess.run(
        command,
        cwd=directory,
        env=os.environ | {"PATH": path, "HOME": str(directory)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "page", [page for page, blocks in PYTHON.items() if blocks], ids=lambda page: str(page.relative_to(ROOT))
)
def test_the_python_of_a_page_runs(page: Path, server: MisbehavingServer, tmp_path: Path) -> None:
    urls = [server.url(f"/good/file-{number}.bin") for number in range(3)]
    # Each line keeps its number, so that a traceback points into the page.
    lines = [f"urls = {urls!r}"]
    for block in PYTHON[page]:
        lines += [""] * (block.line - 1 - len(lines)) + _here(block.code, server).splitlines()
    program = tmp_path / "program.py"
    program.write_text("\n".join(lines))
    done = _run([sys.executable, "-W", "error", str(program)], tmp_path)
    assert done.returncode == 0, f"{page.relative_to(ROOT)}, by the same line numbers:\n{done.stderr}"


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_a_shell_block_runs(block: Block, server: MisbehavingServer, tmp_path: Path) -> None:
    lines = block.code.splitlines()
    if block.language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    lines = [line for line in lines if not line.startswith(tuple(ELSEWHERE))]
    for tool in ("jq",):
        if any(re.search(rf"\b{tool}\b", line) for line in lines) and shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    if lines:
        done = _run(["sh", "-eu", "-c", _here("\n".join(lines), server)], tmp_path)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_there_is_something_to_run() -> None:
    # Were the pattern wrong, all would be well.
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    fences = re.findall(r"^```(?:python|sh|console)$", readme, re.MULTILINE)
    found = [block for block in [*SHELL, *PYTHON[ROOT / "README.md"]] if block.page.name == "README.md"]
    assert len(found) == len(fences) > 0


# ---- What is made from the code -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    """``.ci/pages.py``, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("pages", ROOT / ".ci" / "pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_parts_made_from_the_code_are_as_the_code_is(page: Path, pages: ModuleType) -> None:
    text = page.read_text(encoding="utf-8")
    assert pages.with_parts(text) == text, "make docs writes them anew"


# ---- What pages say of the code -----------------------------------------------------------------------------------


def test_every_public_name_is_in_the_reference() -> None:
    reference = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))
    shown = set(re.findall(r"^::: ([\w.]+)", reference, re.MULTILINE))
    for name in set(rangefetch.__all__) - {"__version__"}:
        value = getattr(rangefetch, name)
        home = value.__name__ if isinstance(value, ModuleType) else f"{value.__module__}.{name}"
        assert home in shown or home.rpartition(".")[0] in shown, f"{home} is on no page in docs/reference"


def test_the_readme_has_every_option_of_the_command_line() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.partition("| option | meaning | default |")[2].partition("\n\n")[0]
    listed = set(re.findall(r"`(-{1,2}[a-z][\w-]*)", table, re.IGNORECASE))
    known = {name for action in make_parser()._actions for name in action.option_strings}
    assert listed <= known
    for action in make_parser()._actions:
        positive = [name for name in action.option_strings if not name.startswith("--no-") or action.metavar]
        assert not positive or "--help" in positive or listed & set(positive), action.option_strings


@pytest.mark.parametrize("page", [ROOT / "SECURITY.md", ROOT / "docs" / "reliability.md"], ids=lambda page: page.name)
def test_the_tests_that_stand_for_a_promise_exist(page: Path) -> None:
    named = set(re.findall(r"`((?:tests/)?\w+/test_\w+\.py)`", page.read_text(encoding="utf-8")))
    assert named
    assert [name for name in sorted(named) if not (ROOT / "tests" / name.removeprefix("tests/")).is_file()] == []


@pytest.mark.parametrize(
    "page",
    [*PAGES, *(ROOT / name for name in ("SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md"))],
    ids=lambda page: page.name,
)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([\w-]+))?\)", page.read_text(encoding="utf-8")):
        path = page.parent / target if target else page
        assert path.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_saved_state_in_the_docs_is_one(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "state.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```json\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    path = tmp_path / "model.bin.part.json"
    path.write_text(example)
    saved = state.load(path)
    assert (list(saved.blocks), saved.partial, saved.total_size) == ([2, 0, 0], {2: 65536}, 2621440)
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == set(json.loads(example))
