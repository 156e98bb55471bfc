"""A checksum is verified before the file gets its name; a file with a wrong one is kept aside as ``NAME.bad``."""

import errno
import hashlib
from pathlib import Path

import pytest

from rangefetch import DownloadManager
from rangefetch.errors import ChecksumMismatch
from servers.misbehaving import MisbehavingServer, content
from support.disks import without_attributes
from support.downloads import fails, fetch, interrupt, into
from support.files import MIB, names

SIZE = 13 * MIB + 3


def _digest(algorithm: str, size: int = SIZE, seed: int = 0) -> str:
    return hashlib.new(algorithm, content(size, seed)).hexdigest()


@pytest.mark.parametrize(
    ("form", "algorithm"),
    [
        ("sha-256={}", "sha256"),
        ("sha256:{}", "sha256"),
        ("SHA-256={}", "sha256"),
        ("sha-1={}", "sha1"),
        ("sha-512={}", "sha512"),
        ("md5={}", "md5"),
    ],
)
def test_the_right_checksum_passes(server: MisbehavingServer, target: Path, form: str, algorithm: str) -> None:
    checksum = form.format(_digest(algorithm).upper())
    result = fetch(server.url("/good/x", size=SIZE), target, checksum=checksum)
    assert target.read_bytes() == content(SIZE)
    assert result.checksum.endswith(f"={_digest(algorithm)}")
    assert names(target.parent) == ["file.bin"]


@pytest.mark.parametrize("route", ["good", "no-ranges", "no-length", "chunked"])
@pytest.mark.parametrize("size", [0, 1000, SIZE])
def test_a_wrong_checksum_keeps_the_data_aside_and_says_where(
    server: MisbehavingServer, target: Path, route: str, size: int
) -> None:
    wanted = f"sha-256={_digest('sha256', 10)}"
    found = f"sha-256={_digest('sha256', size)}"
    error = fails(ChecksumMismatch, server.url(f"/{route}/x", size=size), target, checksum=wanted)
    assert (error.expected, error.actual) == (wanted, found)
    assert wanted in str(error)
    assert found in str(error)
    assert names(target.parent) == ["file.bin.bad"]
    assert str(target.with_name("file.bin.bad")) in str(error)
    assert target.with_name("file.bin.bad").read_bytes() == content(size)


def test_of_what_was_kept_aside_there_is_one_for_each_target(server: MisbehavingServer, target: Path) -> None:
    target.with_name("other.bad").write_bytes(b"theirs")
    for seed in (1, 2):
        url = server.url("/good/x", size=1000, seed=seed)
        for path in (target, target.with_name("other")):
            fails(ChecksumMismatch, url, path, checksum=f"md5={_digest('md5', 10)}")
    assert names(target.parent) == ["file.bin.bad", "other.bad", "other.bad.1"]
    assert target.with_name("file.bin.bad").read_bytes() == content(1000, 2)
    assert target.with_name("other.bad").read_bytes() == b"theirs"
    assert target.with_name("other.bad.1").read_bytes() == content(1000, 2)


@pytest.mark.parametrize("error", [0, errno.EOPNOTSUPP, errno.ENOSYS])
@pytest.mark.parametrize("when", ["at once", "by another manager"])
def test_what_was_kept_aside_goes_with_the_download_on_any_file_system(
    server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch, error: int, when: str
) -> None:
    """Even if the file system has no attributes to recognise the file by, and someone else's file has that name."""
    if error:
        without_attributes(monkeypatch, error)
    theirs = target.with_name("file.bin.bad")
    theirs.write_bytes(b"theirs")
    session = target.parent.with_name("session")
    with DownloadManager(session_file=session) as manager:
        gid = manager.download(
            server.url("/good/x", size=1000), into(target, checksum=f"md5={_digest('md5', 10)}", max_tries=1)
        )
        with pytest.raises(ChecksumMismatch):
            manager.wait(gid, 30)
        assert names(target.parent) == ["file.bin.bad", "file.bin.bad.1"]
        if when == "at once":
            manager.cancel(gid, remove_files=True)
    if when != "at once":
        with DownloadManager(session_file=session) as manager:
            manager.cancel(gid, remove_files=True)
    assert names(target.parent) == ["file.bin.bad"]
    assert theirs.read_bytes() == b"theirs"


@pytest.mark.parametrize(
    "steps",
    [
        "good|cut:after=1000K|reset:after=64K|short-body",
        "good|overflow:framing=length|overflow:framing=chunked",
        "overflow:framing=close|good|cut:headers=0",
        "cut:after=5000K:ranges=0|good:ranges=0",
    ],
)
def test_what_went_wrong_on_the_way_is_not_in_the_checksum(server: MisbehavingServer, target: Path, steps: str) -> None:
    url = server.url("/script/x", size=SIZE, steps=steps)
    fetch(url, target, checksum=f"sha-256={_digest('sha256')}", split=3)
    assert target.read_bytes() == content(SIZE)


def test_the_bytes_of_an_earlier_run_are_in_the_checksum(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/script/x", size=SIZE, steps="slow:rate=1M")
    interrupt(url, target, 300_000, split=1)
    part = target.with_name("file.bin.part")
    with part.open("r+b") as file:
        file.seek(100_000)  # where the state has no sample
        file.write(b"changed by somebody else")
    error = fails(ChecksumMismatch, url, target, checksum=f"sha-256={_digest('sha256')}")
    assert error.actual != error.expected
    assert names(target.parent) == ["file.bin.bad"]


def test_without_a_validator_a_checksum_lets_a_download_go_on(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/script/x", size=SIZE, etag="none", mtime=0, steps="slow:rate=1M")
    kept = interrupt(url, target, 300_000, split=1)
    server.clear()
    result = fetch(url, target, checksum=f"sha-256={_digest('sha256')}", split=1)
    assert target.read_bytes() == content(SIZE)
    assert result.resumed == kept
    assert server.bytes_sent == SIZE - kept


def test_without_a_validator_or_a_checksum_it_begins_again_and_says_so(
    server: MisbehavingServer, target: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = server.url("/script/x", size=SIZE, etag="none", mtime=0, steps="slow:rate=1M", then="good:seed=1")
    interrupt(url, target, 300_000, split=1)
    result = fetch(url, target)
    assert target.read_bytes() == content(SIZE, 1)
    assert result.resumed == 0
    assert "starting over" in caplog.text
