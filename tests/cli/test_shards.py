"""``--into-tar``: small files are put into tar files that WebDataset can read."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rangefetch.ledger import Ledger, Row
from rangefetch.manifests.item import ManifestItem
from rangefetch.progress import DownloadResult
from rangefetch.shards import Packer, Shards
from servers.misbehaving import MisbehavingServer, content, modified
from support.command_line import errors, run
from support.files import MIB, names

COUNT, SMALL = 50, 3000
WORDS = ("-i", "list", "-d", "out", "--run", "run.db", "--into-tar", "shard-{:03d}.tar")


def listed(server: MisbehavingServer, place: Path, count: int = COUNT) -> dict[str, bytes]:
    """Write a table of ``count`` files, and return the members that the shards must have."""
    lines = ["url,path,sha256,caption"]
    found = {}
    for number in range(count):
        octets = content(SMALL, number)
        url = server.url("/good/x", size=SMALL, seed=number)
        lines.append(f"{url},{number % 3}/{number:04}.jpg,{hashlib.sha256(octets).hexdigest()},picture {number}")
        found[f"{number % 3}/{number:04}.jpg"] = octets
    (place / "list").write_text("\n".join(lines))
    return found


def members(path: Path) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(path, "r:") as tar:
        for info in tar:
            file = tar.extractfile(info)
            assert file is not None
            yield info, file.read()


def grouped(path: Path) -> list[dict[str, str | bytes]]:
    """The samples of a shard, grouped by WebDataset's rule: consecutive members with the same key, which is the name up
    to the first dot in its last component."""
    samples: list[dict[str, str | bytes]] = []
    for info, octets in members(path):
        match = re.fullmatch(r"((?:.*/|)[^.]+)[.]([^/]*)", info.name)
        assert match is not None
        if not samples or samples[-1]["__key__"] != match[1]:
            samples.append({"__key__": match[1]})
        assert match[2] not in samples[-1]
        samples[-1][match[2]] = octets
    return samples


READER = """
import hashlib, sys, webdataset
for sample in webdataset.WebDataset(sys.argv[1:], shardshuffle=False):
    print(sample["__key__"], hashlib.sha256(sample["jpg"]).hexdigest())
"""


def all_of(out: Path) -> dict[str, bytes]:
    found = {}
    for path in sorted(out.glob("*.tar")):
        for info, octets in members(path):
            assert info.name not in found
            found[info.name] = octets
    return found


def test_files_go_into_shards_and_a_second_run_fetches_nothing(server: MisbehavingServer, place: Path) -> None:
    wanted = listed(server, place)
    said = run(place, *WORDS, "--tar-count", "20")
    assert said.returncode == 0, said.stderr
    assert names(place / "out") == ["shard-000.tar", "shard-001.tar", "shard-002.tar"]
    assert all_of(place / "out") == wanted
    for info, _ in members(place / "out" / "shard-000.tar"):
        assert (info.uid, info.gid, info.uname, info.gname, info.mode) == (0, 0, "", "", 0o644)
        assert info.mtime == modified(int(info.name[2:6]))
    asked = len(server.requests)
    assert run(place, *WORDS, "--tar-count", "20").returncode == 0
    assert len(server.requests) == asked
    assert names(place / "out") == ["shard-000.tar", "shard-001.tar", "shard-002.tar"]


def test_the_ledger_knows_where_each_file_is(server: MisbehavingServer, place: Path) -> None:
    wanted = listed(server, place)
    assert run(place, *WORDS, "--tar-count", "20", "--tar-json").returncode == 0
    with Ledger(place / "run.db", writes=False) as ledger:
        rows = list(ledger.rows())
    assert {row.member for row in rows} == set(wanted)
    for row in rows:
        with Path(row.path).open("rb") as file:
            file.seek(row.offset)
            assert file.read(row.size) == wanted[row.member]
    exported = [json.loads(line) for line in run(place, "run", "export", "run.db").stdout.splitlines()]
    assert {each["member"] for each in exported} == set(wanted)
    assert "shards: 3" in run(place, "run", "show", "run.db").stdout


def test_what_webdataset_makes_of_it(server: MisbehavingServer, place: Path) -> None:
    wanted = listed(server, place)
    assert run(place, *WORDS, "--tar-size", "64K", "--tar-json").returncode == 0
    shards = sorted((place / "out").iterdir())
    assert len(shards) > 2
    assert all(path.stat().st_size <= 64 << 10 for path in shards)
    samples = [sample for path in shards for sample in grouped(path)]
    assert {f"{sample['__key__']!s}.jpg": sample["jpg"] for sample in samples} == wanted
    for sample in samples:
        told = json.loads(sample["json"])
        assert told["caption"] == f"picture {int(str(sample['__key__']).partition('/')[2])}"
        assert told["url"].startswith(server.url("/good/x"))
    pytest.importorskip("webdataset", reason="the package webdataset, which is to read them, is not installed")
    # In a separate process, because webdataset leaves files open.
    done = subprocess.run(
        [sys.executable, "-c", READER, *map(str, shards)], capture_output=True, text=True, check=True, timeout=120
    )
    digests = {f"{name}.jpg": digest for name, digest in map(str.split, done.stdout.splitlines())}
    assert digests == {name: hashlib.sha256(octets).hexdigest() for name, octets in wanted.items()}


def test_one_larger_than_a_shard_has_its_own(server: MisbehavingServer, place: Path) -> None:
    sizes = {"a": 1000, "b": 3 * MIB, "c": 1000}
    (place / "list").write_text("".join(f"{server.url(f'/good/{name}', size=size)}\n" for name, size in sizes.items()))
    assert run(place, *WORDS, "--tar-size", "1M", "-j", "1").returncode == 0
    assert {name: len(octets) for name, octets in all_of(place / "out").items()} == {
        f"{name}.bin": size for name, size in sizes.items()
    }
    for path in (place / "out").iterdir():
        assert path.stat().st_size <= MIB or len(list(members(path))) == 1


def test_the_same_files_make_the_same_shard(server: MisbehavingServer, place: Path) -> None:
    listed(server, place, 1)
    for out in ("one", "two"):
        assert run(place, "-i", "list", "-d", out, "--run", f"{out}.db", *WORDS[-2:]).returncode == 0
    one, two = ((place / out / "shard-000.tar").read_bytes() for out in ("one", "two"))
    assert one == two


def test_what_cannot_be_used_is_one_line(server: MisbehavingServer, place: Path) -> None:
    listed(server, place, 3)
    for template in ("shard.tar", "{}-{}.tar", "{name}.tar", "../{}.tar", "{}", "{:x}.tar", "{"):
        said = run(place, *WORDS[:-1], template)
        assert said.returncode == 2, template
        assert len(errors(said)) == 1
        with pytest.raises(ValueError, match=r"shard|ingle"):
            Shards(template)
    assert run(place, "-i", "list", "--into-tar", "{}.tar").returncode == 2
    assert run(place, server.url("/good/x"), "--into-tar", "{}.tar").returncode == 2
    assert run(place, "-i", "list", "--run", "run.db", "--tar-count", "3").returncode == 2
    # A file of the user's own is left as it is.
    (place / "out").mkdir()
    (place / "out" / "shard-000.tar").write_bytes(b"mine")
    said = run(place, *WORDS)
    assert said.returncode == 2
    assert "not a shard of this run" in errors(said)[0]
    assert (place / "out" / "shard-000.tar").read_bytes() == b"mine"


def test_a_ledger_of_files_is_not_one_of_shards(server: MisbehavingServer, place: Path) -> None:
    listed(server, place, 3)
    assert run(place, *WORDS).returncode == 0
    said = run(place, *WORDS[:-2])
    assert said.returncode == 2
    assert "the files of this run are in tar files" in errors(said)[0]
    assert run(place, *WORDS[:-1], "other-{}.tar").returncode == 2


@pytest.mark.parametrize("more", [(), ("--tar-json",)])
def test_what_was_put_into_shards_is_verified(server: MisbehavingServer, place: Path, more: tuple[str, ...]) -> None:
    wanted = listed(server, place)
    words = (*WORDS, "--tar-count", "20", *more)
    assert run(place, *words).returncode == 0
    asked = len(server.requests)
    said = run(place, *words, "--verify")
    assert (said.returncode, len(server.requests)) == (0, asked), said.stderr
    assert f"; {COUNT} complete before" in said.stderr
    out = place / "out"
    with Ledger(place / "run.db", writes=False) as ledger:
        rows = list(ledger.rows())
    for row in rows:
        with open(row.path, "rb") as file:  # noqa: PTH123 - a string
            file.seek(row.offset)
            octets = file.read(row.size)
        assert row.checksum == f"sha-256={hashlib.sha256(octets).hexdigest()}"
    bad = out / "shard-001.tar"
    row = next(row for row in rows if row.path == str(bad))
    with bad.open("r+b") as file:
        file.seek(row.offset + 1000)
        octet = file.read(1)
        file.seek(row.offset + 1000)
        file.write(bytes([octet[0] ^ 1]))
    # Without --verify, only the shard's size is checked.
    assert run(place, *words).returncode == 0
    assert len(server.requests) == asked
    said = run(place, *words, "--verify")
    assert said.returncode == 0, said.stderr
    assert f"{row.member} in it is damaged; set aside as {bad}.damaged" in said.stderr
    assert len(server.requests) - asked == 20
    assert names(out) == ["shard-000.tar", "shard-001.tar.damaged", "shard-002.tar", "shard-003.tar"]
    found = {name: octets for name, octets in all_of(out).items() if not name.endswith(".json")}
    assert found == wanted
    asked = len(server.requests)
    assert run(place, *words, "--verify").returncode == 0
    assert len(server.requests) == asked


def test_an_unfinished_shard_is_verified_before_it_is_continued(server: MisbehavingServer, place: Path) -> None:
    listed(server, place, 10)
    with Ledger(place / "run.db", writes=True) as ledger:
        packer = Packer(Shards("shard-{:03d}.tar"), str(place / "out"), ledger)
        Path(packer.staged).mkdir(parents=True)
        for number in range(3):
            path = Path(packer.staged, f"{number}.bin")
            path.write_bytes(content(SMALL, number))
            item = ManifestItem(f"http://example.org/{number}.bin")
            result = DownloadResult(path, path.name, SMALL, "")
            placed = packer.add(item, result)
            ledger.put(
                Row(
                    *(
                        number,
                        0,
                        item.url,
                        "",
                        placed.shard,
                        "complete",
                        SMALL,
                        placed.checksum,
                        0.0,
                        1,
                        "",
                        0,
                        "",
                        0.0,
                    ),
                    *(placed.member, placed.offset),
                )
            )
        packer.close()
    part = place / "out" / "shard-000.tar.part"
    with part.open("r+b") as file:
        file.seek(placed.offset)
        file.write(b"other")
    with Ledger(place / "run.db", writes=True) as ledger:
        packer = Packer(Shards("shard-{:03d}.tar"), str(place / "out"), ledger, verify=True)
        assert [packer.has(row) for row in ledger.rows()] == [False] * 3
        packer.close()
    assert [name for name in names(place / "out") if "tar" in name] == ["shard-000.tar.damaged"]
