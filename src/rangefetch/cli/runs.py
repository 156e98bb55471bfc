"""``rangefetch run show|failed|export FILE``: prints what the ledger of a run contains."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence

from rangefetch.cli.display import Quiet, amount, clock, counted
from rangefetch.cli.exporting import FORMATS, ExportError, export_lines, export_parquet
from rangefetch.errors import HostUnreachable
from rangefetch.ledger import COMPLETE, FAILED, Ledger, LedgerError

__all__ = ["tell"]

OK, USAGE_ERROR = 0, 2
_MOST_SHOWN = 10


def tell(words: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser("rangefetch run", description="Show what the ledger of a run (--run FILE) says.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in (
        ("show", "totals, failures by class and host, the slowest hosts, and the time left"),
        ("failed", "the failed items, as a list in JSON lines for -i"),
        ("export", "all items, as JSON lines, CSV or Parquet"),
    ):
        command = commands.add_parser(name, help=what, description=what)
        command.add_argument("file", metavar="FILE", help="the ledger that --run wrote")
        if name == "export":
            command.add_argument("--format", choices=FORMATS, default="jsonl", help="default: jsonl")
    given = parser.parse_args(list(words))
    display = Quiet()
    try:
        with Ledger(given.file, writes=False) as ledger:
            if given.command == "export" and given.format == "parquet":
                export_parquet(ledger)
                return OK
            lines = {"show": _shown, "failed": _failed}.get(given.command)
            for line in lines(ledger) if lines is not None else export_lines(ledger, given.format):
                display.result(line)
    except (LedgerError, ExportError) as error:
        display.error(f"run: {error}")
        return USAGE_ERROR
    return int(display.lost_results)


def _shown(ledger: Ledger) -> Iterator[str]:
    facts = {
        state: (count, size)
        for state, count, size in ledger.ask("SELECT state, count(*), sum(size) FROM item GROUP BY state")
    }
    done, size = facts.get(COMPLETE, (0, 0))
    failed, _ = facts.get(FAILED, (0, 0))
    count = int(ledger.about("count") or 0)
    of = f" of {count}" if count else ""
    yield f"complete: {done}{of}, {amount(size)}"
    yield f"failed: {failed}"
    if ledger.about("shards"):
        [[shards]] = ledger.ask("SELECT count(DISTINCT path) FROM item WHERE member != ''")
        yield f"shards: {shards}"
    if count:
        yield f"left: {max(count - done - failed, 0)}"
    begun, ended = float(ledger.about("created") or 0), ledger.ask("SELECT max(ended) FROM item")[0][0]
    if ended is not None:
        pace = done / max(ended - begun, 1e-3)
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(ended))
        yield f"last item: {when}, {pace:.1f} files a second so far"
        left = max(count - done - failed, 0)
        if left and pace:
            yield f"time left: about {clock(left / pace)}"
    for error, status, number in ledger.ask(
        f"SELECT error, status, count(*) FROM item WHERE state = '{FAILED}' GROUP BY error, status ORDER BY 3 DESC"
    ):
        yield f"failed with {error}{f' {status}' if status else ''}: {number}"
    for host, number in ledger.ask(
        f"SELECT host, count(*) FROM item WHERE state = '{FAILED}' GROUP BY host ORDER BY 2 DESC LIMIT {_MOST_SHOWN}"
    ):
        yield f"failed at {host}: {number}"
    for host, number in ledger.ask(
        f"SELECT host, count(*) FROM item WHERE error = '{HostUnreachable.__name__}' GROUP BY host "
        f"ORDER BY 2 DESC LIMIT {_MOST_SHOWN}"
    ):
        yield f"set aside: {host}, which could not be reached; {counted(number, 'file')} not tried"
    for host, number, speed in ledger.ask(
        "SELECT host, count(*), sum(size) / sum(seconds) FROM item WHERE seconds > 0 AND "
        f"state = '{COMPLETE}' GROUP BY host HAVING sum(seconds) > 0 ORDER BY 3 LIMIT {_MOST_SHOWN}"
    ):
        yield f"slowest: {host}, {amount(speed)}/s per file, {counted(number, 'file')}"


def _failed(ledger: Ledger) -> Iterator[str]:
    for row in ledger.rows(state=FAILED):
        facts = {"url": row.url, "path": row.path, "checksum": row.checksum, "size": row.size}
        told = {name: value for name, value in facts.items() if value}
        yield json.dumps(told | {"line": row.line, "error": row.error, "status": row.status or None})
