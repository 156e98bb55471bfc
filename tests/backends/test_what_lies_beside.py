"""Foreign files whose names a part file's companions need are never written, replaced or waited for."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from backends.conftest import Make
from rangefetch.errors import DiskError
from servers.directed import Valve
from servers.misbehaving import MisbehavingServer, content
from support.downloads import QUICK, downloaded
from support.files import MIB
from support.waiting import until

SIZE = 9 * MIB
SUFFIXES = (".part.aria2", ".part.aria2__temp", ".part.aria2.tmp", ".part.json.tmp")


def _link(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"mine")
    path.symlink_to(other)


def _hard_link(path: Path) -> None:
    _link(path)
    path.unlink()
    path.hardlink_to(path.with_name("other"))


KINDS: dict[str, Callable[[Path], object]] = {
    "file": lambda path: path.write_bytes(b"mine"),
    "directory": Path.mkdir,
    "fifo": os.mkfifo,
    "link": _link,
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "hard link": _hard_link,
}


def _seen(directory: Path) -> dict[str, tuple[int, int, bytes]]:
    """Inode number, type and content of the files in the directory."""
    found = {}
    for path in directory.iterdir():
        status = path.lstat()
        octets = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[path.name] = (status.st_ino, stat.S_IFMT(status.st_mode), octets)
    return found


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_new_download_leaves_it_alone(
    make: Make, backend: str, server: MisbehavingServer, target: Path, suffix: str, kind: str
) -> None:
    KINDS[kind](target.with_name(target.name + suffix))
    before = _seen(target.parent)
    result = make(backend).download_and_wait(
        server.url("/good/x", size=SIZE), QUICK | {"save_dir": target.parent, "filename": target.name}
    )
    assert result.path.read_bytes() == content(SIZE)
    after = _seen(target.parent)
    del after[target.name]
    assert after == before


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", KINDS)
def test_resuming_leaves_it_alone_or_is_refused(
    make: Make, backend: str, server: MisbehavingServer, valve: Valve, target: Path, suffix: str, kind: str
) -> None:
    manager = make(backend)
    url = server.url("/valve/x", size=SIZE)
    gid = manager.download(url, QUICK | {"save_dir": target.parent, "filename": target.name})
    until(lambda: downloaded(manager, gid) > MIB)
    manager.stop()
    valve.open()
    ours = _seen(target.parent)
    KINDS[kind](target.with_name(target.name + suffix))
    theirs = {name: seen for name, seen in _seen(target.parent).items() if name not in ours}
    manager = make(backend)
    options = QUICK | {"save_dir": target.parent, "filename": target.name}
    if backend == "aria2" and suffix != ".part.json.tmp":
        # aria2c writes to exactly these names, even through links.
        with pytest.raises(DiskError, match="not created by rangefetch"):
            manager.download_and_wait(url, options)
        assert set(_seen(target.parent)) == set(ours) | set(theirs), "what was fetched is kept"
    else:
        assert manager.download_and_wait(url, options).resumed
        assert target.read_bytes() == content(SIZE)
    assert {name: seen for name, seen in _seen(target.parent).items() if name in theirs} == theirs
