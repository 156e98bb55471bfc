"""Parquet, read in batches with pyarrow. Tables of plain values and lists are supported."""

from __future__ import annotations

import contextlib
import importlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

from rangefetch.importing import ready_tempfile
from rangefetch.manifests.columns import Plan
from rangefetch.manifests.formats import Asked, Look
from rangefetch.manifests.item import Mistake, Row
from rangefetch.manifests.opening import ManifestError

__all__ = ["NAME", "read", "recognises"]

NAME = "parquet"

_ROWS_AT_ONCE = 4096


def recognises(look: Look) -> bool:
    """Whether it begins with the magic number of the format (Apache Parquet, "File format")."""
    return look.head.startswith(b"PAR1")


def read(look: Look, asked: Asked) -> Iterator[Row | Mistake]:
    """Yield the rows. ``line`` is the number of the row. Raises ``ManifestError``."""
    shown = look.source.shown
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise ManifestError(f"{shown}: Parquet needs a package: pip install 'rangefetch[parquet]'") from None
    number = 0
    try:
        with contextlib.ExitStack() as closing:
            source: Any = look.source.path
            if source is None:  # the index is at the end, so a pipe or a compressed file is first copied to a file
                ready_tempfile()
                source = closing.enter_context(tempfile.TemporaryFile(prefix="rangefetch-"))
                shutil.copyfileobj(look.source.stream, source)
                source.seek(0)
            file = closing.enter_context(parquet.ParquetFile(source, memory_map=False))
            plan = Plan(list(file.schema_arrow.names), asked, shown)
            for batch in file.iter_batches(_ROWS_AT_ONCE):
                rows: list[dict[str, Any]] = batch.to_pylist()
                for row in rows:
                    number += 1
                    yield from plan.rows(number, row)
    except ManifestError:
        raise
    except Exception as error:  # pyarrow raises many classes
        words = str(error).partition("\n")[0]
        raise ManifestError(f"{shown}: row {number + 1}: this Parquet cannot be read: {words}") from None
