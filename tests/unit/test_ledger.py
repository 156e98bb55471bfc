"""The ledger of a run as a file: all rows that are put are there, however they are divided into statements."""

from __future__ import annotations

from pathlib import Path

import pytest

from rangefetch.ledger import COMPLETE, Ledger, Row


def _row(number: int, size: int = 1) -> Row:
    return Row(
        number, number + 1, f"http://h/{number}", "h", f"/x/{number}", COMPLETE, size, "", 0.5, 1, "", 0, "", 1.5
    )


@pytest.mark.parametrize("count", [1, 249, 250, 251, 500, 4999])
def test_what_was_put_is_there_and_the_last_word_counts(tmp_path: Path, count: int) -> None:
    path = tmp_path / "ledger"
    with Ledger(path, writes=True) as ledger:
        for number in range(count):
            ledger.put(_row(number))
        ledger.put(_row(count // 2, size=7))
    with Ledger(path, writes=False) as ledger:
        assert list(ledger.rows()) == [_row(number, 7 if number == count // 2 else 1) for number in range(count)]
