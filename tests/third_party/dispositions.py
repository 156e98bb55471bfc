"""Browsers' own tables of Content-Disposition fields, extracted from the source code of their tests.

Each row is a field, whose bytes are decoded as ISO-8859-1, and the file name that this browser takes from it; the name
is empty if it takes none. Rows that depend on the page with the link, or on Windows, are left out.
"""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["TABLES", "Row"]

Row = tuple[str, str]

_STRING = r'(?:L?"(?:[^"\\\n]|\\.)*"\s*)+'
_TOKEN = re.compile(r'(L?"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\')|//[^\n]*|/\*.*?\*/', re.S)
_C_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]+)|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([0-7]{1,3})|(.))")
_C_LETTERS = {"n": "\n", "r": "\r", "t": "\t", "0": "\0"}


def _c_string(literals: str) -> str:
    """The value of adjacent C++ string literals. An escape sequence never extends into the next literal."""
    return "".join(_C_ESCAPE.sub(_c_escaped, text) for text in re.findall(r'"((?:[^"\\\n]|\\.)*)"', literals))


def _c_escaped(found: re.Match[str]) -> str:
    hexadecimal, short, long, octal, letter = found.groups()
    if octal is not None:
        return chr(int(octal, 8))
    code = hexadecimal or short or long
    return chr(int(code, 16)) if code else _C_LETTERS.get(letter, letter)


def _without_comments(text: str) -> str:
    return _TOKEN.sub(lambda found: found[1] or " ", text)


def chromium(source: Path) -> Iterator[Row]:
    """``net/http/http_content_disposition_unittest.cc``."""
    text = re.sub(r"^#if.*?^#endif[^\n]*$", "", source.read_text(), flags=re.M | re.S)
    row = re.compile(rf'\{{\s*({_STRING}),\s*(?:""|HttpContentDisposition::\w+),\s*({_STRING}),?\s*\}}')
    for field, name in row.findall(_without_comments(text)):
        yield _c_string(field), _c_string(name)


def firefox(source: Path) -> Iterator[Row]:
    """``netwerk/test/unit/test_MIME_params.js``: uses the last column, the result expected under HTTP."""
    table = re.search(r"^var tests = (\[.*?^\]);", source.read_text(), re.M | re.S)
    assert table is not None
    tree = ast.parse(_without_comments(re.sub(r"\bCr\.\w+", '""', table[1])), mode="eval")
    for row in _javascript(tree.body, {"BS": "\\", "DQUOTE": '"'}):
        yield row[0], row[-1]


def _javascript(node: ast.expr, names: dict[str, str]) -> Any:
    """The value of JavaScript that is also valid Python: lists, strings, names of strings, and their sums."""
    match node:
        case ast.List(elements):
            return [_javascript(element, names) for element in elements]
        case ast.BinOp(left, ast.Add(), right):
            return _javascript(left, names) + _javascript(right, names)
        case ast.Name(name):
            return names[name]
    return ast.literal_eval(node)


def konqueror(source: Path) -> Iterator[Row]:
    """``autotests/http/httpheaderdispositiontest.cpp`` of KDE's KIO."""
    text = re.sub(r"^#ifdef Q_OS_WIN.*?^#else[^\n]*$", "", source.read_text("latin-1"), flags=re.M | re.S)
    row = re.compile(rf"newRow\({_STRING}\)\s*<<\s*(?:[\w:]+\()?({_STRING})\)?\s*<<\s*QByteArray\(\s*({_STRING})?\)")
    for field, results in row.findall(text):
        values = dict(line.split("\t") for line in _c_string(results).split("\n") if line)
        yield _c_string(field), values.get("filename", "").encode("latin-1").decode()


TABLES: dict[str, tuple[str, str, Callable[[Path], Iterator[Row]]]] = {
    "Chromium": ("chromium", "*/net/http/http_content_disposition_unittest.cc", chromium),
    "Firefox": ("firefox-esr", "*/netwerk/test/unit/test_MIME_params.js", firefox),
    "Konqueror": ("kio", "*/autotests/http/httpheaderdispositiontest.cpp", konqueror),
}
"""For each browser: Debian's source package, the file in it, and the function that reads it."""
