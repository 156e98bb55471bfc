"""Each system call of a download fails once with each plausible errno: no file is wrong, and the next try succeeds.

``make test`` tries some calls of each kind, ``make torture`` (``RANGEFETCH_TORTURE=1``) every one. A failed sync
behaves as on Linux: the data written since the last good sync is lost, and the next sync succeeds.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from servers.misbehaving import MisbehavingServer, content
from support.files import MIB, names
from torture.zygotes import Told, Zygote

ALL = os.environ.get("RANGEFETCH_TORTURE") == "1"
pytestmark = pytest.mark.timeout(3600 if ALL else 120)  # hundreds of downloads, one after the other
SIZE = 6 * MIB + 12_345
SMALL = 50_000
NUMBERS = range(1, 10_000) if ALL else (1, 2, 3, 5, 8, 13, 34)
"""Which calls of a kind: no more are tried when one is beyond the last."""

ERRORS = {
    "pwrite": ("ENOSPC", "EIO", "EDQUOT", "EFBIG", "EINTR"),
    "write": ("ENOSPC", "EIO", "EDQUOT", "EINTR"),
    "fsync": ("ENOSPC", "EIO", "EDQUOT"),
    "fallocate": ("ENOSPC", "EIO", "EOPNOTSUPP", "EINTR", "EFBIG", "EDQUOT"),
    "truncate": ("EIO", "EFBIG", "ENOSPC"),
    "open": ("EACCES", "EMFILE", "ENOSPC", "EROFS", "EIO", "EINTR"),
    "link": ("EPERM", "EEXIST", "EMLINK", "ENOSPC", "EIO", "EOPNOTSUPP"),
    "rename": ("ENOSPC", "EIO", "EACCES", "EINVAL", "EROFS"),
    "unlink": ("EACCES", "EIO", "EROFS"),
    "times": ("EPERM", "EIO"),
    "mode": ("EPERM", "EIO"),
    "lock": ("ENOLCK", "EINTR"),
    "read": ("EIO",),
    "mkdir": ("EACCES", "ENOSPC", "EIO"),
}
CASES = [(call, "error", error) for call, errors in ERRORS.items() for error in errors]
CASES += [("pwrite", "short", "EIO"), ("write", "short", "EIO")]


@dataclass(frozen=True)
class Kind:
    """A kind of downloads, and the system calls that they never make (which is tested too)."""

    never: frozenset[str]
    pause_at: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    route: str = "/shared-rate/x"
    query: dict[str, str | float] = field(default_factory=lambda: {"rate": "64M"})
    seed: int = 0
    """Of the content that there is in the end."""

    def url(self, server: MisbehavingServer, number: int, **more: str) -> str:
        return server.url(self.route, size=SIZE, id=number, **(self.query | more))


KINDS = {
    "paused and resumed": Kind(frozenset(), pause_at=4 * MIB + 1),
    # A download that completes before the first save is due never saves its state.
    "durable": Kind(frozenset({"write", "read"}), options={"durable": True, "split": 4}),
    "without reserving": Kind(
        frozenset({"write", "read", "fallocate", "fsync", "truncate"}),
        options={"file_allocation": "none", "overwrite": True},
    ),
    "compared by its bytes": Kind(
        frozenset({"times"}),
        pause_at=4 * MIB + 1,
        query={"rate": "64M", "etag": "weak", "mtime": 0},
        options={"split": 4},
    ),
    "another file midway": Kind(
        frozenset({"write", "read", "fsync"}),
        route="/script/x",
        query={"steps": "good", "then": "good:seed=1"},
        seed=1,
    ),
    "with a checksum": Kind(
        frozenset({"write", "fsync"}), options={"checksum": f"sha-256={hashlib.sha256(content(SIZE)).hexdigest()}"}
    ),
}
SMALL_KINDS: dict[str, tuple[frozenset[str], dict[str, Any]]] = {
    "new": (frozenset(ERRORS) - {"pwrite", "open", "link", "times", "mkdir"}, {}),
    "replacing": (
        frozenset(ERRORS) - {"pwrite", "open", "link", "times", "mkdir", "rename"},
        {"overwrite": True},
    ),
}


def _tried(kinds: dict[str, frozenset[str]]) -> list[tuple[str, str, str, str]]:
    """Every call with every error in every kind; of these ``make test`` tries every call with every error in one kind
    of downloads, and in every kind with one error."""
    every = [(*case, kind) for case in CASES for kind in kinds if case[0] not in kinds[kind]]
    if ALL:
        return every
    chosen: list[tuple[str, str, str, str]] = []
    for call in ERRORS:
        errors = [case for case in CASES if case[0] == call]
        makers = [kind for kind in kinds if call not in kinds[kind]]
        for number in range(max(len(errors), len(makers)) if makers else 0):
            chosen.append((*errors[number % len(errors)], makers[number % len(makers)]))
    return chosen


@pytest.mark.parametrize(("call", "how", "error", "kind"), _tried({name: kind.never for name, kind in KINDS.items()}))
def test_a_call_that_fails_once_never_makes_a_wrong_file(
    zygote: Zygote, server: MisbehavingServer, tmp_path: Path, call: str, how: str, error: str, kind: str
) -> None:
    octets = content(SIZE, KINDS[kind].seed)
    for directory, number in _directories(tmp_path):
        url = KINDS[kind].url(server, number)
        told = _download(zygote, directory, url, kind, call=call, number=number, how=how, error=getattr(errno, error))
        if not told.fired:
            # On a busy machine the download may be complete before it is paused.
            assert number > 1 or KINDS[kind].pause_at, "there is no such call"
            break
        _is_clear(told, url, getattr(errno, error))
        if how == "short":
            assert told.outcome == "complete", "a short write is no error"
        if told.outcome != "complete":
            # It has its name if what failed came afterwards.
            assert _is_right_or_absent(directory / "file.bin", octets)
            again = zygote.run(directory, url=url)
            assert again.outcome == "complete", again
        assert (directory / "file.bin").read_bytes() == octets
        # A file that could not be read or removed is left where it was.
        assert names(directory) == ["file.bin"] or call in ("open", "unlink", "read")


@pytest.mark.parametrize(
    ("call", "how", "error", "kind"), _tried({name: never for name, (never, _) in SMALL_KINDS.items()})
)
def test_nor_of_many_small_ones(
    zygote: Zygote, server: MisbehavingServer, tmp_path: Path, call: str, how: str, error: str, kind: str
) -> None:
    urls = [server.url(f"/good/{number}.bin", size=SMALL, seed=number) for number in range(4)]
    for directory, number in _directories(tmp_path):
        told = _download_many(
            zygote, directory, urls, kind, call=call, number=number, how=how, error=getattr(errno, error)
        )
        if not told.fired:
            assert number > 1, "there is no such call"
            break
        _is_clear(told, "http://", getattr(errno, error))
        for seed in range(4):
            octets = content(SMALL, seed)
            path = directory / f"{seed}.bin"
            assert _is_right_or_absent(path, octets) or (kind == "replacing" and path.read_bytes() == OLD)
        assert zygote.run(directory, urls=urls, options=SMALL_KINDS[kind][1]).outcome == "complete"
        assert [(directory / f"{seed}.bin").read_bytes() == content(SMALL, seed) for seed in range(4)] == [True] * 4
        assert names(directory) == [f"{seed}.bin" for seed in range(4)] or call == "unlink"


@pytest.mark.parametrize("kind", [*KINDS, *SMALL_KINDS])
def test_it_is_known_which_calls_are_never_made(
    zygote: Zygote, server: MisbehavingServer, tmp_path: Path, kind: str
) -> None:
    if kind in KINDS:
        slowly = {"rate": "3M"} if KINDS[kind].pause_at else {}
        told, never = _download(zygote, tmp_path, KINDS[kind].url(server, 0, **slowly), kind), KINDS[kind].never
    else:
        urls = [server.url(f"/good/{number}.bin", size=SMALL, seed=number) for number in range(4)]
        told, never = _download_many(zygote, tmp_path, urls, kind), SMALL_KINDS[kind][0]
    assert told.outcome == "complete"
    assert told.seen is not None
    assert {call for call, count in told.seen.items() if not count} == never


OLD = b"as it was"


def _download(zygote: Zygote, directory: Path, url: str, kind: str, **fault: Any) -> Told:
    return zygote.run(directory, url=url, pause_at=KINDS[kind].pause_at, options=KINDS[kind].options, **fault)


def _download_many(zygote: Zygote, directory: Path, urls: list[str], kind: str, **fault: Any) -> Told:
    if kind == "replacing":
        for number in range(len(urls)):
            (directory / f"{number}.bin").write_bytes(OLD)
    return zygote.run(directory, urls=urls, options=SMALL_KINDS[kind][1], **fault)


def _directories(parent: Path) -> Iterator[tuple[Path, int]]:
    """A new directory for each number."""
    for number in NUMBERS:
        directory = parent / str(number)
        directory.mkdir()
        yield directory, number


def _is_right_or_absent(path: Path, octets: bytes) -> bool:
    return not path.exists() or path.read_bytes() == octets


def _is_clear(told: Told, url: str, number: int) -> None:
    """Check that the download ended, either well or with an error that gives the reason."""
    assert not told.died
    assert told.outcome != "hangs", told.text
    if told.outcome != "complete":
        assert url in told.text
        assert len(told.text.splitlines()) == 1
        assert "Success" not in told.text
        assert told.outcome != "DiskError" or told.errno == number
