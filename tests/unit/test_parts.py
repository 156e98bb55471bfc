"""The part file is used if it is ours, and otherwise left alone."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rangefetch.disk import ownership, parts, state
from rangefetch.disk.control_file import to_control_file
from rangefetch.disk.state import SourceState, State
from rangefetch.disk.target import Target

pytestmark = pytest.mark.usefixtures("no_leaks")

URL = "https://example.org/file"
SIZE = 3 << 20
CONTENT = bytes(range(256)) * (SIZE // 256)


def state_of(url: str = URL, blocks: bytes = b"\2\2\0") -> State:
    return State(
        url=url,
        resolved_url=url,
        total_size=SIZE,
        supports_range=True,
        sources=[SourceState(url, '"etag"')],
        block_size=1 << 20,
        blocks=blocks,
        partial={},
    )


def leave(directory: Path, filename: str = "x", url: str = URL) -> None:
    """Leave what an unfinished download leaves: two thirds of a file, and the state."""
    with closing(Target.open(directory, filename, url)) as opened:
        os.pwrite(opened.fd, CONTENT[: 2 << 20], 0)
        opened.save_state(state_of(url))


def look(directory: Path) -> dict[str, tuple[int, int, bytes]]:
    """The files in the directory: inode, mode and content of each."""

    def content(path: Path) -> bytes:
        if path.is_symlink():
            return os.fsencode(path.readlink())
        return path.read_bytes() if path.is_file() else b"".join(sorted(os.fsencode(each) for each in path.rglob("*")))

    return {
        path.name: (path.lstat().st_ino, path.lstat().st_mode, b"" if path.is_fifo() else content(path))
        for path in directory.iterdir()
    }


def _chown(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may give files away")
    os.chown(path, 12345, 12345)


def _as_directory(path: Path) -> None:
    path.mkdir()
    (path / "wedding.jpg").write_bytes(b"mine")


def _of_another_user(path: Path) -> None:
    leave(path.parent)
    _chown(path)


def _writable_by_others(path: Path) -> None:
    leave(path.parent)
    path.chmod(0o620)


def _with_a_foreign_state(path: Path) -> None:
    leave(path.parent)
    path.with_name("x.part.json").unlink()
    path.with_name("x.part.json").write_text("notes")


def _with_a_state_that_others_wrote(path: Path) -> None:
    leave(path.parent)
    path.with_name("x.part.json").chmod(0o666)


def _beside_a_state_of_ours(path: Path) -> None:
    """Our part file was deleted by hand, its state was not, and a browser took the name."""
    leave(path.parent)
    path.unlink()
    path.write_bytes(b"browser" * SIZE)


FOREIGN: dict[str, Callable[[Path], object]] = {
    "file": lambda path: path.write_bytes(b"browser" * 1000),
    "empty file": lambda path: path.touch(),
    "private file": lambda path: path.touch(0o600),
    "directory": _as_directory,
    "fifo": os.mkfifo,
    "link": lambda path: path.symlink_to("victim"),
    "link to a device": lambda path: path.symlink_to("/dev/null"),
    "state alone": lambda path: path.with_name("x.part.json").write_text("notes"),
    "directory as state": lambda path: path.with_name("x.part.json").mkdir(),
    "control file alone": lambda path: path.with_name("x.part.aria2").write_bytes(b"aria2"),
    "ours, now of another user": _of_another_user,
    "ours, writable by others": _writable_by_others,
    "ours, with a foreign state": _with_a_foreign_state,
    "ours, with a state that others may have written": _with_a_state_that_others_wrote,
    "theirs, beside a state of ours": _beside_a_state_of_ours,
}


@pytest.mark.parametrize("what", FOREIGN)
@pytest.mark.parametrize("marks", [True, False])
def test_what_is_not_ours_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, marks: bool
) -> None:
    if not marks:
        without_marks(monkeypatch)
    (tmp_path / "victim").write_bytes(b"victim")
    FOREIGN[what](tmp_path / "x.part")
    before = look(tmp_path)

    def others_are_untouched() -> None:
        now = look(tmp_path)
        assert {name: now.get(name) for name in before} == before

    with closing(Target.open(tmp_path, "x", URL)) as opened:
        assert opened.fresh
        assert opened.part_path.name.startswith("rangefetch-")
        os.pwrite(opened.fd, CONTENT, 0)
        opened.save_state(state_of())
        others_are_untouched()
    # The part file is found again.
    with closing(Target.open(tmp_path, "x", URL)) as opened:
        assert os.pread(opened.fd, SIZE, 0) == CONTENT
        opened.publish(overwrite=False, modified_time=None, durable=False)
    others_are_untouched()
    assert set(look(tmp_path)) - set(before) == {"x"}
    # It can also be discarded, with everything that it created.
    with closing(Target.open(tmp_path, "x", URL)) as opened:
        opened.discard()
    others_are_untouched()


def without_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a file system without extended attributes."""
    for module in (parts, state):
        monkeypatch.setattr(module, "mark", lambda *_: False)
    monkeypatch.setattr(parts, "is_marked", lambda _: False)
    monkeypatch.setattr(parts, "is_of", lambda *_: False)
    monkeypatch.setattr(ownership, "is_marked", lambda _: False)


@pytest.fixture(params=["marks", "no marks", "no nameless files", "neither"])
def _file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param in ("no marks", "neither"):
        without_marks(monkeypatch)
    if request.param in ("no nameless files", "neither"):
        monkeypatch.delattr(os, "O_TMPFILE")


@pytest.mark.usefixtures("_file_system")
def test_ours_is_found_again(tmp_path: Path) -> None:
    leave(tmp_path)
    with closing(Target.open(tmp_path, "x", URL)) as opened:
        assert not opened.fresh
        assert opened.part_path == tmp_path / "x.part"
        assert state.load(opened.state_path).blocks == b"\2\2\0"
        opened.truncate()
    # It is also found after that, without a state of its progress.
    with closing(Target.open(tmp_path, "x", URL)) as opened:
        assert opened.part_path == tmp_path / "x.part"
        os.pwrite(opened.fd, b"not saved", 0)
    with closing(Target.open(tmp_path, "x", URL)) as opened:
        assert opened.part_path == tmp_path / "x.part"
        opened.discard()
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("_file_system")
def test_it_is_found_again_also_when_what_stood_in_its_way_is_gone(tmp_path: Path) -> None:
    (tmp_path / "x.part").touch()
    leave(tmp_path)
    (tmp_path / "x.part").unlink()
    with closing(Target.open(tmp_path, "x", URL)) as opened:
        assert not opened.fresh


@pytest.mark.parametrize("how", ["renamed", "copied", "copied without attributes"])
def test_ours_is_found_again_when_the_directory_has_moved(tmp_path: Path, how: str) -> None:
    (tmp_path / "old").mkdir()
    leave(tmp_path / "old")
    new = tmp_path / "new"
    if how == "renamed":
        (tmp_path / "old").rename(new)
    else:
        shutil.copytree(tmp_path / "old", new)
        for path in new.iterdir():
            if "without" in how:
                os.removexattr(path, "user.rangefetch.unfinished")
    with closing(Target.open(new, "x", URL)) as opened:
        assert not opened.fresh
        assert opened.part_path == new / "x.part"


def test_a_part_file_of_another_name_is_not_taken(tmp_path: Path) -> None:
    for name in ("x.1", "x.2", "x.part"):
        leave(tmp_path, name)
    (tmp_path / "x.part").touch()
    with closing(Target.open(tmp_path, "x", URL)) as opened:
        assert opened.fresh


@pytest.mark.usefixtures("_file_system")
def test_where_all_files_look_alike_ours_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On FAT and exFAT, every file has the owner and the mode set when mounting."""
    see = os.fstat

    def fat_fstat(fd: int) -> os.stat_result:
        fields: list[Any] = list(see(fd))
        if stat.S_ISREG(fields[0]):
            fields[0] |= 0o777
            fields[4] = 4711
        return os.stat_result(fields)

    monkeypatch.setattr(os, "fstat", fat_fstat)
    leave(tmp_path)
    with closing(Target.open(tmp_path, "x", URL)) as opened:
        assert not opened.fresh
        assert opened.part_path == tmp_path / "x.part"


@pytest.mark.parametrize("mode", [0o644, 0o664])
def test_what_aria2_has_begun_is_taken_when_that_is_asked_for(tmp_path: Path, mode: int) -> None:
    part, control = tmp_path / "x.part", tmp_path / "x.part.aria2"
    part.write_bytes(CONTENT)
    part.chmod(mode)
    control.write_bytes(to_control_file(state_of()))
    before = look(tmp_path)
    with closing(Target.open(tmp_path, "x", URL)) as opened:
        assert opened.fresh
        opened.discard()
    assert look(tmp_path) == before
    with closing(Target.open(tmp_path, "x", URL, adopt=True)) as opened:
        assert (opened.part_path, opened.fresh) == (part, False)
    # From now on it is ours.
    with closing(Target.open(tmp_path, "x", URL)) as opened:
        assert (opened.part_path, opened.fresh) == (part, False)
        opened.discard()
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("_file_system")
def test_what_a_download_has_left_is_found_and_nothing_is_created(tmp_path: Path) -> None:
    assert Target.find(tmp_path / "none", "x", URL) is None
    assert Target.find(tmp_path, "x", URL) is None
    (tmp_path / "y.part").touch()
    assert Target.find(tmp_path, "y", URL) is None
    leave(tmp_path)
    assert Target.find(tmp_path, "x", "https://example.org/other") is None
    found = Target.find(tmp_path, "x", URL)
    assert found is not None
    found.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["y.part"]


CREATORS = """if True:
    import os, sys
    from rangefetch.disk import parts
    from rangefetch.disk.target import Target
    import rangefetch.logs, hashlib, fcntl
    marks, nameless = sys.argv[2] == "marks", sys.argv[3] == "nameless"
    if not marks:
        parts.mark = parts.state.mark = lambda *_: False
    if not nameless:
        del os.O_TMPFILE
    CALLS = ("open", "os.rename", "os.link", "os.remove", "os.setxattr", "fcntl.flock", "os.truncate")

    def create(directory, stop):
        calls = 0
        def audit(event, _):
            nonlocal calls
            calls += event in CALLS
            if calls == stop:
                os._exit(9)
        sys.addaudithook(audit)
        opened = Target.open(directory, "x", "https://example.org/file")
        os.pwrite(opened.fd, b"some", 0)
        os._exit(0)

    status = 9
    stop = 0
    while status == 9:
        stop += 1
        os.mkdir(f"{sys.argv[1]}/{stop}")
        child = os.fork()
        if child == 0:
            create(f"{sys.argv[1]}/{stop}", stop)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(stop)
    sys.exit(status)
"""
"""Kills one process before its first call, another before its second, and so on, until one finishes."""


@pytest.mark.parametrize("marks", ["marks", "no marks"])
@pytest.mark.parametrize("nameless", ["nameless", "named"])
def test_killed_at_any_point_of_its_creation_it_leaves_nothing_that_is_not_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, marks: str, nameless: str
) -> None:
    if marks == "no marks":
        without_marks(monkeypatch)
    if nameless == "named":
        monkeypatch.delattr(os, "O_TMPFILE")
    done = subprocess.run(
        [sys.executable, "-c", CREATORS, str(tmp_path), marks, nameless], check=True, timeout=90, stdout=subprocess.PIPE
    )
    for stop in range(1, int(done.stdout) + 1):
        directory = tmp_path / str(stop)
        with closing(Target.open(directory, "x", URL)) as opened:
            assert opened.part_path.name == "x.part", f"killed before call {stop}"
            opened.discard()
        assert not list(directory.iterdir()), f"killed before call {stop}"


@pytest.mark.parametrize("refused", range(2))
def test_a_part_that_could_not_be_made_is_held_by_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: int
) -> None:
    """On a full disk, the state that marks the part file as ours cannot be saved, before or after the file exists."""
    without_marks(monkeypatch)
    monkeypatch.setattr(parts, "_create_marked", lambda *_: None)
    save, saved = state.save, [0]

    def full(*args: Any) -> None:
        saved[0] += 1
        if saved[0] > refused:
            raise OSError(errno.ENOSPC, "full")
        save(*args)

    monkeypatch.setattr(state, "save", full)
    for _ in range(3):
        with pytest.raises(OSError, match="full"):
            parts.open_part(tmp_path, "x", "http://h/x", adopt=False)
    monkeypatch.setattr(state, "save", save)
    os.close(parts.open_part(tmp_path, "x", "http://h/x", adopt=False).fd)
