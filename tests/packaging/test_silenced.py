"""Wherever a check is silenced, a comment gives the reason."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

SILENCED = re.compile(
    r"(?:#|//|/\*) *(?:ruff: *|pragma: *)?(?:noqa|(?:type|pyright): *ignore|no-cython-lint|no cover)\b"
)
WITH_REASON = re.compile(
    r"# (?:ruff: )?noqa: [A-Z]+\d+(?:, [A-Z]+\d+)* - \w"
    r"|# (?:type|pyright): ignore\[[\w, -]+\] +# \w"
    r"|(?:no-cython-lint|no cover) - \w"
)
LEFT_OUT = re.compile(r"pytest\.(?:importorskip|mark\.(?:skipif|xfail))\((?:[^()]|\([^()]*\))*\)")


def texts(*folders: str) -> Iterator[tuple[str, str]]:
    """The name and text of each source file in these folders. Beside an installed wheel, only the tests exist."""
    for folder in folders:
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".pyi", ".pyx", ".pxd", ".pxi", ".h", ".c"):
                yield str(path.relative_to(ROOT)), path.read_text()


def test_a_silenced_check_has_a_reason() -> None:
    assert [
        f"{name}: {line}"
        for name, text in texts("src", "tests", "benches", "ext", ".ci")
        for line in text.splitlines()
        if SILENCED.search(line) and not WITH_REASON.search(line)
    ] == []


def test_a_test_that_is_left_out_says_what_it_lacks() -> None:
    """Without a reason, ``importorskip`` would only say that a module was not found."""
    calls = [f"{name}: {call[0]}" for name, text in texts("tests") for call in LEFT_OUT.finditer(text)]
    assert calls
    assert [call for call in calls if "reason=" not in call] == []
