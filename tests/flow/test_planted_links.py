"""In directories that others may write to, links with the names that a download uses are never written through."""

import os
from pathlib import Path

import pytest

from servers.misbehaving import MisbehavingServer, content
from support.downloads import fetch
from support.files import MIB

LARGE = 5 * MIB + 3
SUFFIXES = [".part", ".part.json", ".part.json.tmp", ".aria2"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("size", [1000, LARGE])
def test_a_hard_link_under_the_name_of_a_part_file_is_not_written_to(
    server: MisbehavingServer, target: Path, tmp_path: Path, suffix: str, size: int
) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    os.link(precious, f"{target}{suffix}")
    fetch(server.url("/good/x", size=size), target)
    assert precious.read_bytes() == b"precious"
    assert target.read_bytes() == content(size)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("size", [1000, LARGE])
def test_a_symbolic_link_under_the_name_of_a_part_file_is_not_followed(
    server: MisbehavingServer, target: Path, tmp_path: Path, suffix: str, size: int
) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    Path(f"{target}{suffix}").symlink_to(precious)
    fetch(server.url("/good/x", size=size), target)
    assert precious.read_bytes() == b"precious"
    assert target.read_bytes() == content(size)
