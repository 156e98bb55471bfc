"""Exports a ledger for other programs, as JSON lines, CSV or Parquet."""

from __future__ import annotations

import csv
import importlib
import io
import itertools
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import get_type_hints

from rangefetch.ledger import Ledger, Row
from rangefetch.masking import without_userinfo

__all__ = ["FORMATS", "ExportError", "export_lines", "export_parquet"]

FORMATS = ("jsonl", "csv", "parquet")

_GROUP_ROWS = 1 << 16


class ExportError(ValueError):
    """The ledger cannot be exported in this format or to this output."""


def export_lines(ledger: Ledger, form: str) -> Iterator[str]:
    """Yield the items as JSON lines or CSV (``form``)."""
    if form == "csv":
        yield _as_csv(Row._fields)
    for row in _rows(ledger):
        yield _as_csv(row) if form == "csv" else json.dumps(row._asdict())


def export_parquet(ledger: Ledger) -> None:
    """Write the items to standard output as Parquet, a row group at a time. Raises ``ExportError``."""
    try:
        arrow = importlib.import_module("pyarrow")
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise ExportError("Parquet needs a package: pip install 'rangefetch[parquet]'") from None
    if sys.stdout is None or sys.stdout.isatty():
        raise ExportError(
            "cannot print Parquet to a terminal; use: rangefetch run export --format parquet FILE > FILE.parquet"
        )
    kinds = {int: arrow.int64(), float: arrow.float64(), str: arrow.string()}
    schema = arrow.schema([(name, kinds[kind]) for name, kind in get_type_hints(Row).items()])
    rows = _rows(ledger)
    try:
        with open(os.dup(sys.stdout.fileno()), "wb") as file, parquet.ParquetWriter(file, schema) as writer:  # noqa: PTH123 - a descriptor
            while group := list(itertools.islice(rows, _GROUP_ROWS)):
                columns = zip(*group, strict=True)
                arrays = [arrow.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
                writer.write_table(arrow.table(arrays, schema=schema))
    except OSError as error:
        raise ExportError(f"standard output: {error.strerror or error}") from None


def _rows(ledger: Ledger) -> Iterator[Row]:
    """The items, without user names and passwords in URLs."""
    for row in ledger.rows():
        yield row._replace(url=without_userinfo(row.url))


def _as_csv(fields: Sequence[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(fields)
    return text.getvalue()
