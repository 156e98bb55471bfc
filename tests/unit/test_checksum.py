"""Digests: the names, the parsing of ``algorithm=HEX``, and hashing a file that is still growing."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rangefetch.disk import checksum
from rangefetch.errors import DiskError

ALGORITHMS: dict[str, Callable[[], Any]] = {
    "blake2b": hashlib.blake2b,
    "md5": hashlib.md5,
    "sha-1": hashlib.sha1,
    "sha-256": hashlib.sha256,
    "sha-384": hashlib.sha384,
    "sha-512": hashlib.sha512,
}


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "data", os.O_CREAT | os.O_RDWR)
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_new_is_the_algorithm_of_that_name(algorithm: str) -> None:
    ours, theirs = checksum.new(algorithm), ALGORITHMS[algorithm]()
    ours.update(memoryview(b"some bytes"))
    theirs.update(b"some bytes")
    assert ours.hexdigest() == theirs.hexdigest()


@pytest.mark.parametrize("algorithm", ["", "sha256", "SHA-256", "crc32", "shake_128"])
def test_new_refuses_other_names(algorithm: str) -> None:
    with pytest.raises(ValueError, match=r"^checksum: .* is not one of blake2b, md5, sha-1"):
        checksum.new(algorithm)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_split_takes_what_new_makes(algorithm: str) -> None:
    digest = checksum.new(algorithm).hexdigest()
    assert checksum.split(f"{algorithm}={digest}") == (algorithm, digest)
    assert checksum.split(f"{algorithm}={digest}".upper()) == (algorithm, digest)


@pytest.mark.parametrize(
    "text",
    ["", "=", "md5", "md5=", "md5=00", "md5=" + "g" * 32, "md5=" + " " * 32, "md4=" + "0" * 32, "0" * 64],
)
def test_split_refuses_what_is_no_checksum(text: str) -> None:
    with pytest.raises(ValueError, match=r"^checksum: "):
        checksum.split(text)


@given(data=st.binary(max_size=200), steps=st.lists(st.integers(0, 250), max_size=6), piece=st.integers(1, 64))
def test_in_whatever_steps_the_digest_is_that_of_the_bytes(data: bytes, steps: list[int], piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checksum, "_PIECE_BYTES", piece)
        fd = os.memfd_create("data") if hasattr(os, "memfd_create") else pytest.skip("needs memfd")
        try:
            os.pwrite(fd, data, 0)
            hasher = checksum.FileHasher(fd, "sha-256")
            for end in [*(min(step, len(data)) for step in steps), len(data)]:
                hasher.advance(end)
                assert hasher.hexdigest() == hashlib.sha256(data[: hasher.position]).hexdigest()
            assert hasher.position == len(data)
        finally:
            os.close(fd)


def test_it_follows_a_growing_file_and_leaves_the_file_offset(fd: int) -> None:
    hasher = checksum.FileHasher(fd, "md5")
    os.pwrite(fd, b"first ", 0)
    hasher.advance(6)
    os.pwrite(fd, b"second", 6)
    hasher.advance(12)
    assert hasher.hexdigest() == hashlib.md5(b"first second").hexdigest()
    assert os.lseek(fd, 0, os.SEEK_CUR) == 0


def test_restart_forgets(fd: int) -> None:
    os.pwrite(fd, b"old", 0)
    hasher = checksum.FileHasher(fd, "sha-1")
    hasher.advance(3)
    os.pwrite(fd, b"new", 0)
    hasher.restart()
    assert hasher.position == 0
    hasher.advance(3)
    assert hasher.hexdigest() == hashlib.sha1(b"new").hexdigest()


def test_a_file_that_ends_too_early_is_an_error_and_not_a_digest(fd: int) -> None:
    os.pwrite(fd, b"short", 0)
    hasher = checksum.FileHasher(fd, "sha-256")
    with pytest.raises(DiskError, match="ends at byte 5, before 9"):
        hasher.advance(9)
    assert hasher.position == 5


def test_a_read_error_keeps_its_number(fd: int) -> None:
    hasher = checksum.FileHasher(fd, "sha-256")
    hasher.fd = -1
    with pytest.raises(DiskError, match="cannot read back") as caught:
        hasher.advance(1)
    assert caught.value.errno == errno.EBADF


def test_without_preadv_it_reads_the_same(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "preadv", raising=False)
    monkeypatch.setattr(checksum, "_PIECE_BYTES", 7)
    os.pwrite(fd, b"x" * 100, 0)
    hasher = checksum.FileHasher(fd, "sha-256")
    hasher.advance(100)
    assert hasher.hexdigest() == hashlib.sha256(b"x" * 100).hexdigest()
