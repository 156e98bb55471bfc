"""Whether a file that already has the final name is the one to download, before any bytes are compared."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from rangefetch.disk import provenance
from rangefetch.identity import Basis, Identity
from rangefetch.transfer.existing import Standing, look

URL = "http://h/x"
SIZE = 100_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "x"
    path.write_bytes(os.urandom(SIZE))
    return path


def _is_from(path: Path, url: str, identity: Identity) -> None:
    """Mark the file as fetched from ``url`` by an earlier process."""
    fd = os.open(path, os.O_RDWR)
    try:
        provenance.record(fd, url, identity, None)
        if provenance.recall(fd) is None:
            pytest.skip("the file system has no extended attributes")
    finally:
        os.close(fd)


@pytest.mark.parametrize("size", [SIZE - 1, SIZE + 1, 0])
@pytest.mark.parametrize("validators", [{}, {"etag": 'W/"a"'}, {"last_modified": "Sat, 28 Nov 2026 00:00:00 GMT"}])
def test_another_size_is_another_file_whatever_else_is_equal(path: Path, size: int, validators: dict[str, Any]) -> None:
    _is_from(path, URL, Identity(**validators))
    found = look(path, URL, Identity(size, **validators))
    assert found.standing is Standing.ANOTHER
    assert f"has {SIZE} bytes" in found.reason


def test_the_same_strong_etag_of_the_same_url_is_the_same_file(path: Path) -> None:
    _is_from(path, URL, Identity(etag='"a"'))
    found = look(path, URL, Identity(SIZE, etag='"a"'))
    assert (found.standing, found.basis) == (Standing.SAME, Basis.ETAG)
    assert look(path, URL, Identity(SIZE + 1, etag='"a"')).standing is Standing.ANOTHER
    assert look(path, URL, Identity(SIZE, etag='"b"')).standing is Standing.ANOTHER
    assert look(path, "http://h/y", Identity(SIZE, etag='"a"')).standing is Standing.UNCERTAIN


def test_what_another_users_file_says_of_itself_does_not_count(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _is_from(path, URL, Identity(etag='"a"'))
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    assert look(path, URL, Identity(SIZE, etag='"a"')).standing is Standing.UNCERTAIN


@pytest.mark.parametrize("remote", [Identity(SIZE, etag='W/"a"'), Identity(SIZE)])
def test_weak_validators_leave_it_to_the_bytes_and_then_to_the_record(path: Path, remote: Identity) -> None:
    _is_from(path, URL, Identity(etag=remote.etag))
    found = look(path, URL, remote)
    assert (found.standing, found.otherwise, found.basis) == (Standing.UNCERTAIN, Standing.SAME, Basis.SIZE)
    assert found.samples


@pytest.mark.parametrize(("url", "standing"), [(URL, Standing.UNSIZED), (URL + "?2", Standing.ANOTHER)])
def test_without_a_size_a_file_of_that_url_is_worth_fetching_to_compare(
    path: Path, url: str, standing: Standing
) -> None:
    path.write_bytes(bytes(2 << 20))
    _is_from(path, URL, Identity())
    assert look(path, url, Identity()).standing is standing


def test_a_small_file_always_is(path: Path) -> None:
    assert look(path, URL, Identity()).standing is Standing.UNSIZED


def test_of_a_file_that_nobody_knows_the_bytes_decide_and_nothing_else(path: Path) -> None:
    found = look(path, URL, Identity(SIZE, etag='"a"'))
    assert (found.standing, found.otherwise) == (Standing.UNCERTAIN, Standing.ANOTHER)


def test_what_is_no_regular_file_is_another_and_what_is_gone_is_gone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert look(tmp_path / "fifo", URL, Identity(0)).standing is Standing.ANOTHER
    assert look(tmp_path / "nothing", URL, Identity(0)).standing is Standing.GONE
