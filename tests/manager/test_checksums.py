"""Digests: all algorithms, digests that a server states, and hashing while the bytes arrive."""

import base64
import hashlib
import time
from pathlib import Path

import pytest

from rangefetch import DownloadManager
from rangefetch.disk import checksum
from rangefetch.errors import ChecksumMismatch
from servers.misbehaving import MisbehavingServer, content
from support.downloads import SIZE, fails, fetch, into
from support.files import MIB, names

ALGORITHMS = {
    "sha-256": "sha256",
    "sha-1": "sha1",
    "sha-384": "sha384",
    "sha-512": "sha512",
    "md5": "md5",
    "blake2b": "blake2b",
}


def _hex(algorithm: str, seed: int = 0) -> str:
    return hashlib.new(ALGORITHMS[algorithm], content(SIZE, seed)).hexdigest()


def _base64(algorithm: str, seed: int = 0) -> str:
    return base64.b64encode(bytes.fromhex(_hex(algorithm, seed))).decode()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("route", ["good", "no-ranges"])
def test_the_right_digest_proves_the_file(server: MisbehavingServer, target: Path, algorithm: str, route: str) -> None:
    wanted = f"{algorithm}={_hex(algorithm)}"
    assert fetch(server.url(f"/{route}/x", size=SIZE), target, checksum=wanted).checksum == wanted


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_wrong_digest_is_an_error_that_names_both(server: MisbehavingServer, target: Path, algorithm: str) -> None:
    wanted, found = (f"{algorithm}={_hex(algorithm, seed)}" for seed in (1, 0))
    error = fails(ChecksumMismatch, server.url("/good/x", size=SIZE), target, checksum=wanted)
    assert (error.expected, error.actual) == (wanted, found)
    assert wanted in str(error)
    assert found in str(error)
    assert names(target.parent) == ["file.bin.bad"]


# A header that states a digest, the route, and whether the digest counts there.
STATED = [
    ("Repr-Digest: sha-256=:{sha-256}:", "good", True),
    ("Repr-Digest: sha-512=:{sha-512}:", "good", True),
    ("Repr-Digest: sha-256=:{sha-256}:", "no-ranges", True),
    ("Digest: sha-256={sha-256}", "no-ranges", True),
    ("Digest: SHA-256={sha-256}", "no-ranges", True),
    ("Digest: md5={md5}", "no-ranges", True),
    ("Content-MD5: {md5}", "no-ranges", True),
    # In a partial response, these describe the part, or it is unclear what they describe.
    ("Digest: sha-256={sha-256}", "good", False),
    ("Content-MD5: {md5}", "good", False),
    # A malformed digest, or one of an unsupported algorithm, proves nothing.
    ("Repr-Digest: sha-256=:AAAA:", "good", False),
    ("Repr-Digest: unixsum=:{md5}:", "good", False),
    ("Content-MD5: nonsense", "no-ranges", False),
]


@pytest.mark.parametrize(("header", "route", "counts"), STATED)
def test_a_digest_that_the_server_states_is_held_against_the_file(
    server: MisbehavingServer, target: Path, header: str, route: str, counts: bool
) -> None:
    right, wrong = (header.format_map({name: _base64(name, seed) for name in ALGORITHMS}) for seed in (0, 1))
    result = fetch(server.url(f"/{route}/x", size=SIZE, header=right), target)
    assert target.read_bytes() == content(SIZE)
    assert bool(result.checksum) is counts
    target.unlink()
    url = server.url(f"/{route}/x", size=SIZE, header=wrong)
    if counts:
        error = fails(ChecksumMismatch, url, target)
        assert error.actual.endswith(_hex(error.actual.partition("=")[0]))
        assert names(target.parent) == ["file.bin.bad"]
    else:
        fetch(url, target)
        assert target.read_bytes() == content(SIZE)


def test_the_strongest_of_several_stated_digests_counts(server: MisbehavingServer, target: Path) -> None:
    header = f"Repr-Digest: md5=:{_base64('md5')}:, sha-512=:{_base64('sha-512')}:, sha-256=:{_base64('sha-256')}:"
    assert fetch(server.url("/good/x", size=SIZE, header=header), target).checksum == f"sha-512={_hex('sha-512')}"


def test_the_users_digest_goes_before_the_servers(server: MisbehavingServer, target: Path) -> None:
    header = f"Repr-Digest: sha-512=:{_base64('sha-512', 1)}:"
    wanted = f"sha-256={_hex('sha-256')}"
    assert fetch(server.url("/good/x", size=SIZE, header=header), target, checksum=wanted).checksum == wanted


def test_a_server_that_contradicts_the_users_digest_is_not_asked_for_the_rest(
    server: MisbehavingServer, target: Path
) -> None:
    header = f"Repr-Digest: sha-256=:{_base64('sha-256', 1)}:"
    url = server.url("/slow/x", size=SIZE, header=header, rate="4M")
    error = fails(ChecksumMismatch, url, target, checksum=f"sha-256={_hex('sha-256')}")
    assert _hex("sha-256", 1) in str(error)
    assert server.bytes_sent < SIZE // 2
    assert names(target.parent) == []


def test_the_hash_follows_the_bytes_while_they_arrive(
    server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch, manager: DownloadManager
) -> None:
    positions: list[tuple[float, int]] = []
    advance = checksum.FileHasher.advance

    def noted(self: checksum.FileHasher, end: int) -> None:
        positions.append((time.monotonic(), self.position))
        advance(self, end)

    monkeypatch.setattr(checksum.FileHasher, "advance", noted)
    size = 64 * MIB
    wanted = f"sha-256={hashlib.sha256(content(size)).hexdigest()}"
    manager.download_and_wait(
        server.url("/shared-rate/x", size=size, rate="32M"), into(target, checksum=wanted, split=3)
    )
    times = [when for when, _ in positions]
    assert len(positions) >= 4
    assert times[-1] - times[0] > 0.8
    # When hashing of the last piece started, the pieces before it had already been hashed.
    assert positions[-1][1] > size // 2
    # Each byte is read once.
    assert [position for _, position in positions] == sorted({position for _, position in positions})


def test_a_retry_of_wrong_bytes_begins_anew(server: MisbehavingServer, target: Path, manager: DownloadManager) -> None:
    url = server.url("/script/x", size=SIZE, steps="no-ranges:seed=1", etag="none", mtime=0)
    gid = manager.download(url, into(target, checksum=f"md5={_hex('md5')}"))
    with pytest.raises(ChecksumMismatch):
        manager.wait(gid, timeout=30)
    manager.retry(gid)
    assert manager.wait(gid, timeout=30).path.read_bytes() == content(SIZE)
