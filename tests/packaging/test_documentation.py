"""Each snippet in README and the pages of docs/ runs as written, on its own, in an empty directory.

Whatever host a snippet names, a proxy in the environment leads its connections to one local server, whose CA the
environment trusts and which has a file at every path. Two things in a snippet are replaced: the digest ``sha-256=...``
by the file's, and the port of the SOCKS proxy by that of a running one. ``<!-- needs: NAME, NAME -->`` in the line
above a snippet names commands and modules without which it is skipped.
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
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import pytest

import rangefetch
from rangefetch import DownloadOptions
from rangefetch.cli.arguments import parse
from rangefetch.cli.vocabulary import make_parser, names_of
from rangefetch.disk import state
from servers.content import content
from servers.misbehaving import MisbehavingServer
from servers.proxies import HttpProxy, Socks5
from servers.tls import make_certificates

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])

HOSTS = ("github.com", "example.org", "*.example.org", "*.example.net", "*.example.com")

# Commands that are not run here, and what tests them.
ELSEWHERE = {
    "make run": "make fresh",
    "make test": "make fresh",
    "make ": "its own target",
    "pip install": "make wheel-test",
}

_SNIPPET = re.compile(
    r"(?:^<!-- needs: (?P<needs>[^\n]+) -->\n)?^```(?P<language>\w+)[^\n]*\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_DIGEST = re.compile(r"sha-256=(?:\.\.\.|…|HEX)")


@dataclasses.dataclass(frozen=True)
class Snippet:
    """A fenced block. ``line`` is the number of its first line of code."""

    page: Path
    line: int
    language: str
    code: str
    needs: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def _snippets(page: Path) -> Iterator[Snippet]:
    text = page.read_text(encoding="utf-8")
    for found in _SNIPPET.finditer(text):
        line = text.count("\n", 0, found.start("code")) + 1
        needs = tuple((found["needs"] or "").split(", ")) if found["needs"] else ()
        yield Snippet(page, line, found["language"], found["code"], needs)


SNIPPETS = [snippet for page in PAGES for snippet in _snippets(page)]
PYTHON = [snippet for snippet in SNIPPETS if snippet.language == "python"]
SHELL = [snippet for snippet in SNIPPETS if snippet.language in ("sh", "console")]


@dataclasses.dataclass(frozen=True)
class Internet:
    """The internet as a snippet sees it: every host has the file ``content`` at every path."""

    proxy: HttpProxy
    socks: Socks5
    content: bytes
    environment: dict[str, str]

    def here(self, code: str) -> str:
        """The code with the digest and the port that are valid here."""
        code = _DIGEST.sub("sha-256=" + hashlib.sha256(self.content).hexdigest(), code)
        return code.replace("socks5h://127.0.0.1:1080", f"socks5h://127.0.0.1:{self.socks.port}")

    def run(self, command: Sequence[str], directory: Path) -> subprocess.CompletedProcess[str]:
        """Run a program in an empty directory, which is also its home."""
        return subprocess.run(
            command,
            cwd=directory,
            env=self.environment | {"HOME": str(directory)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )


@pytest.fixture(scope="module")
def internet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    certificates = make_certificates(tmp_path_factory.mktemp("hosts"), names=HOSTS)
    with MisbehavingServer(tls=certificates.server_context()) as server:
        server.serves_any_path = True
        with HttpProxy(server.port) as proxy, Socks5(to=server.port) as socks:
            path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
            inherited = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
            own = {"PATH": path, "https_proxy": f"http://127.0.0.1:{proxy.port}", "SSL_CERT_FILE": str(certificates.ca)}
            yield Internet(proxy, socks, content(1 << 20), inherited | own)


def _require(needs: Sequence[str]) -> None:
    for name in needs:
        if shutil.which(name) is None and importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")


@pytest.mark.parametrize("snippet", PYTHON, ids=str)
def test_a_python_snippet_runs_alone(snippet: Snippet, internet: Internet, tmp_path: Path) -> None:
    _require(snippet.needs)
    program = tmp_path / "elsewhere" / "program.py"
    program.parent.mkdir()
    # Each line keeps its number, so that a traceback points into the page.
    program.write_text("\n" * (snippet.line - 1) + internet.here(snippet.code))
    directory = tmp_path / "empty"
    directory.mkdir()
    done = internet.run([sys.executable, "-W", "error", str(program)], directory)
    assert done.returncode == 0, f"{snippet.page.relative_to(ROOT)}, by the same line numbers:\n{done.stderr}"


@pytest.mark.parametrize("snippet", SHELL, ids=str)
def test_a_shell_snippet_runs_alone(snippet: Snippet, internet: Internet, tmp_path: Path) -> None:
    _require(snippet.needs)
    lines = snippet.code.splitlines()
    if snippet.language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    lines = [line for line in lines if not line.startswith(tuple(ELSEWHERE))]
    if lines:
        done = internet.run(["sh", "-eu", "-c", internet.here("\n".join(lines))], tmp_path)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize(
    "snippet",
    [each for each in SNIPPETS if each.language == "toml"],
    ids=[str(each) for each in SNIPPETS if each.language == "toml"],
)
def test_a_configuration_file_is_accepted(snippet: Snippet, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(snippet.code)
    options = parse(["--conf-path", str(path), "https://example.org/a.iso"]).options
    assert options != DownloadOptions()


def test_every_snippet_is_known_and_none_is_left_out() -> None:
    # If the pattern were wrong, no snippet would run and every test would pass.
    fences = [line for page in PAGES for line in re.findall(r"^ *```(\w+)", page.read_text("utf-8"), re.MULTILINE)]
    assert sorted(fences) == sorted(snippet.language for snippet in SNIPPETS)
    assert set(fences) == {"python", "sh", "toml", "json", "text"}
    assert not [page for page in PAGES if "not run:" in page.read_text("utf-8")]


# ---- Parts generated from the code --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    """``.ci/pages.py``, which is not in a package."""
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


# ---- What the pages say about the code ----------------------------------------------------------------------------


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
        names = set(names_of(action)) - {"-h", "--help"}
        assert not names or listed & names, names


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
    told = page.split("\n## The format\n")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", told, re.MULTILINE)) == set(json.loads(example))


def test_the_glossary_is_in_order_and_each_of_its_words_is_used() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text().partition("## Glossary")[2].partition("\n## ")[0]
    words = [found[1] for found in re.finditer(r"^\| (?!word|---)([^|]+) \|", text, re.MULTILINE)]
    assert len(words) > 30
    assert sorted({word.lower() for word in words}) == [word.lower() for word in words]
    if not (ROOT / "ext").exists():
        pytest.skip("beside an installed wheel there are no sources of the engine, where some of them are used")
    sources = [*(ROOT / "src").rglob("*.py"), *(ROOT / "ext").rglob("*.p[xy]*")]
    code = "\n".join(path.read_text() for path in sources).lower()
    assert not [word for word in words if word.lower().removesuffix(", the") not in code]
