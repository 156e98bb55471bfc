"""Each system call of a download fails once, with each plausible errno: no wrong file, and a good end next time.

``make test`` tries some calls of each kind, ``make torture`` (``RANGEFETCH_TORTURE=1``) every one.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from servers.misbehaving import MisbehavingServer, content
from support.files import MIB, names
from torture.zygotes import Told, Zygote

ALL = os.environ.get("RANGEFETCH_TORTURE") == "1"
SIZE = 6 * MIB + 12_345
SMALL = 50_000
NUMBERS = range(1, 10_000) if ALL else (1, 2, 3, 4, 5, 8, 13, 34)
"""Which calls of a kind: no more are tried when one is beyond the last."""

ERRORS = {
    "pwrite": ("ENOSPC", "EIO", "EDQUOT", "EFBIG"),
    "write": ("ENOSPC", "EIO"),
    "fsync": ("ENOSPC", "EIO", "EDQUOT"),
    "fallocate": ("ENOSPC", "EIO", "EOPNOTSUPP", "EINTR", "EFBIG"),
    "truncate": ("EIO", "EFBIG"),
    "open": ("EACCES", "EMFILE", "ENOSPC", "EROFS", "EIO"),
    "link": ("EPERM", "EEXIST", "EMLINK", "ENOSPC", "EIO", "EOPNOTSUPP"),
    "rename": ("ENOSPC", "EIO", "EACCES"),
    "unlink": ("EACCES", "EIO"),
    "times": ("EPERM", "EIO"),
    "mode": ("EPERM", "EIO"),
    "lock": ("ENOLCK", "EINTR"),
}
KINDS: dict[str, dict[str, Any]] = {
    "paused and resumed": {"pause_at": 4 * MIB + 1},
    "durable": {"options": {"durable": True, "split": 4}},
    "without reserving": {"options": {"file_allocation": "none", "overwrite": True}},
}
CASES = [(call, "error", error) for call, errors in ERRORS.items() for error in errors]
CASES += [("pwrite", "short", "EIO"), ("write", "short", "EIO")]
NEVER_MADE = {
    # No state is saved of what is complete before it is time to.
    "durable": {"write", "rename"},
    "without reserving": {"write", "fallocate", "fsync", "truncate"},
    "small files": {"write", "fallocate", "fsync", "truncate", "rename", "unlink", "mode", "lock", "times"},
}
"""Of each kind of downloads, the calls that there are none of."""


@pytest.mark.parametrize(
    ("call", "how", "error", "kind"),
    [(*case, kind) for case in CASES for kind in KINDS if case[0] not in NEVER_MADE.get(kind, ())],
)
def test_a_call_that_fails_once_never_makes_a_wrong_file(
    zygote: Zygote, server: MisbehavingServer, tmp_path: Path, call: str, how: str, error: str, kind: str
) -> None:
    url = server.url("/shared-rate/x", size=SIZE, rate="64M")
    for directory, number in _directories(tmp_path):
        told = zygote.run(
            directory, url=url, call=call, number=number, how=how, error=getattr(errno, error), **KINDS[kind]
        )
        if not told.fired:
            assert number > 1 or "pause_at" in KINDS[kind], "there is no such call"
            break
        _is_clear(told, url, getattr(errno, error))
        if how == "short":
            assert told.outcome == "complete", "a short write is no error"
        if told.outcome != "complete":
            # It has its name if what failed came afterwards.
            assert _is_right_or_absent(directory / "file.bin", content(SIZE))
            again = zygote.run(directory, url=url)
            assert again.outcome == "complete", again
        assert (directory / "file.bin").read_bytes() == content(SIZE)
        # What could not be read, or removed, is left where it was.
        assert names(directory) == ["file.bin"] or call in ("open", "unlink")


@pytest.mark.parametrize(("call", "how", "error"), [case for case in CASES if case[0] not in NEVER_MADE["small files"]])
def test_nor_of_many_small_ones(
    zygote: Zygote, server: MisbehavingServer, tmp_path: Path, call: str, how: str, error: str
) -> None:
    urls = [server.url(f"/good/{number}.bin", size=SMALL, seed=number) for number in range(4)]
    for directory, number in _directories(tmp_path):
        told = zygote.run(directory, urls=urls, call=call, number=number, how=how, error=getattr(errno, error))
        if not told.fired:
            assert number > 1, "there is no such call"
            break
        _is_clear(told, "http://", getattr(errno, error))
        for seed in range(4):
            assert _is_right_or_absent(directory / f"{seed}.bin", content(SMALL, seed))
        assert zygote.run(directory, urls=urls).outcome == "complete"
        assert [(directory / f"{seed}.bin").read_bytes() == content(SMALL, seed) for seed in range(4)] == [True] * 4
        assert names(directory) == [f"{seed}.bin" for seed in range(4)] or call == "unlink"


def _directories(parent: Path) -> Iterator[tuple[Path, int]]:
    """A new one for each number."""
    for number in NUMBERS:
        directory = parent / str(number)
        directory.mkdir()
        yield directory, number


def _is_right_or_absent(path: Path, octets: bytes) -> bool:
    return not path.exists() or path.read_bytes() == octets


def _is_clear(told: Told, url: str, number: int) -> None:
    """It ended, and either well or with an error that says why."""
    assert not told.died
    assert told.outcome != "hangs", told.text
    if told.outcome != "complete":
        assert url in told.text
        assert len(told.text.splitlines()) == 1
        assert "Success" not in told.text
        assert told.outcome != "DiskError" or told.errno == number
