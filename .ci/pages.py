"""Generate the parts of the pages in docs/ that come from the code. ``make docs`` runs this first.

    python .ci/pages.py      rewrites the parts

A part is between ``<!-- made from the code: NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import argparse
import dataclasses
import enum
import errno
import inspect
import re
import sys
from pathlib import Path

from rangefetch.cli import arguments
from rangefetch.cli.vocabulary import names_of
from rangefetch.options import DownloadOptions
from rangefetch.transfer import retry
from rangefetch.transfer.download import MOVES
from rangefetch.transfer.failure import Curl, Fault
from rangefetch.version import __version__

DOCS = Path(__file__).resolve().parents[1] / "docs"

_PART = re.compile(r"(<!-- made from the code: (?P<name>[\w ]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    """Rewrite every part."""
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text()
        made = with_parts(text)
        if made != text:
            page.write_text(made)
            print(f"{page.relative_to(DOCS.parent)}: written anew", file=sys.stderr)


def with_parts(text: str) -> str:
    """The page with its parts regenerated."""
    return _PART.sub(lambda part: f"{part[1]}\n{_PARTS[part['name']]()}\n\n{part[3]}", text)


# ---- Parts -------------------------------------------------------------------------------------------------------


def _table(*rows: tuple[str, ...]) -> str:
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    head, *rest = ["| " + " | ".join(row) + " |" for row in escaped]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *rest])


def _numbers(numbers: frozenset[int]) -> str:
    """Format numbers as ``408, 500-504``, and codes by their names."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


def _condition(row: retry.Row) -> str:
    parts: list[str] = []
    if row.fault is Fault.STATUS:
        parts.append(f"status {_numbers(row.statuses)}" if row.statuses else "any other status")
    elif row.fault is not Fault.NONE:
        parts.append(row.fault.name.lower().replace("_", " "))
    elif row.codes:
        parts.append(", ".join(f"`{Curl(code).name}`" for code in sorted(row.codes)))
    elif row.statuses:
        parts.append(f"status {_numbers(row.statuses)} of a failed connection")
    else:
        parts.append("any other failure of a transfer")
    if row.errnos:
        parts.append("with " + ", ".join(sorted(f"`{errno.errorcode[number]}`" for number in row.errnos)))
    if row.when:
        parts.append(f"and {row.when.value}")
    return " ".join(parts)


def _retry_table() -> str:
    rows = [(_condition(row), row.kind.value, row.why) for row in retry.DEFAULT_ROWS]
    return _table(("failure", "class", "reason"), *rows)


def _member_docs(members: type[enum.Enum]) -> dict[str, str]:
    """The docstrings below the members of an enumeration."""
    found = re.findall(r'^    (\w+) = [^\n]*\n    """(.*?)"""', inspect.getsource(members), re.DOTALL | re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def _retry_classes() -> str:
    said = _member_docs(retry.Kind)
    rows = [(f"**{kind.value}**", said[kind.name]) for kind in retry.Kind]
    return _table(("class", "what happens"), *rows)


def _options() -> str:
    tables = []
    for group in arguments._parser()._action_groups:
        rows = [row for action in group._group_actions if (row := _option(action))]
        if rows:
            tables.append(f"### {(group.title or '').capitalize()}\n\n" + _table(("option", "meaning"), *rows))
    return "\n\n".join(tables)


def _option(action: argparse.Action) -> tuple[str, str] | None:
    names = names_of(action)
    if not names or "--help" in names:
        return None
    metavar = f" `{action.metavar}`" if isinstance(action.metavar, str) else ""
    help_text = (action.help or "").replace("%%", "%").replace(__version__, "VERSION")
    return ", ".join(f"`{name}`" for name in names) + metavar, help_text


def _defaults() -> str:
    rows = []
    for field in dataclasses.fields(DownloadOptions):
        value = field.default
        default = repr(value).replace(__version__, "VERSION")
        kind = str(field.type).replace(" | ", "` or `")
        rows.append((f"`{field.name}`", f"`{kind}`", f"`{default}`"))
    return _table(("option", "type", "default"), *rows)


def _states() -> str:
    """A drawing in which each state is a vertical line and each move an arrow between two of them."""
    width = 11
    middles = {status: width * place + width // 2 for place, status in enumerate(MOVES)}
    lines = ["".join(f"{status:^{width}}" for status in MOVES)]
    for before, after in ((before, after) for before in MOVES for after in MOVES if after in MOVES[before]):
        line = ["\u2502" if place in middles.values() else " " for place in range(width * len(MOVES))]
        left, right = sorted((middles[before], middles[after]))
        for place in range(left + 1, right):
            line[place] = "\u253c" if line[place] == "\u2502" else "\u2500"
        line[middles[before]] = "\u251c" if middles[before] == left else "\u2524"
        if middles[after] == right:
            line[right - 1] = "\u25b6"
        else:
            line[left + 1] = "\u25c0"
        lines.append("".join(line))
    return "```text\n" + "\n".join(line.rstrip() for line in lines) + "\n```"


_PARTS = {
    "states": _states,
    "retry classes": _retry_classes,
    "retry table": _retry_table,
    "options of the command": _options,
    "defaults": _defaults,
}


if __name__ == "__main__":
    main()
