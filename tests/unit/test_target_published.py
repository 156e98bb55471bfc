"""The end of a part file: it gets its final name, is set aside, or is discarded."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rangefetch import _engine
from rangefetch.disk.target import Target, disk_errors, free_space
from rangefetch.errors import DiskError, TargetExists
from support.files import names
from support.targets import HOLDER, URL, disk_error, files, publish, refusing, state_of, written

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("overwrite", [False, True])
def test_publishing_gives_name_and_time_in_one_go(tmp_path: Path, overwrite: bool, durable: bool) -> None:
    assert publish(written(tmp_path), overwrite=overwrite, durable=durable) == tmp_path / "x"
    assert files(tmp_path) == {"x": "new"}
    assert (tmp_path / "x").stat().st_mtime == 1e9


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_the_mode_is_that_of_any_new_file(tmp_path: Path, umask: int) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    subprocess.run(command, input="publish\n", text=True, check=True, stdout=subprocess.DEVNULL, umask=umask)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("time_s", [None, 0.0, -1e9, 1e300, float("nan"), float("inf")])
def test_no_time_is_worth_a_finished_file(tmp_path: Path, time_s: float | None) -> None:
    assert written(tmp_path).publish(overwrite=False, modified_time=time_s, durable=False).read_text() == "new"


@pytest.mark.parametrize("what", ["file", "link", "broken link"])
def test_without_overwrite_a_taken_name_is_left_alone(tmp_path: Path, what: str) -> None:
    (tmp_path / "old").write_text("old")
    final = tmp_path / "x"
    final.write_text("old") if what == "file" else final.symlink_to("old" if what == "link" else "nothing")
    with closing(written(tmp_path)) as opened:
        with pytest.raises(TargetExists, match=rf"^{final}: it exists; to replace it"):
            opened.publish(overwrite=False, modified_time=None, durable=False)
        assert (tmp_path / "old").read_text() == "old"
        assert final.is_symlink() == (what != "file")
        # Nothing is lost: the file can still be given another name.
        opened.name("y")
        assert publish(opened).read_text() == "new"


@pytest.mark.parametrize("what", ["file", "link"])
def test_with_overwrite_the_name_is_replaced_and_not_what_a_link_points_to(tmp_path: Path, what: str) -> None:
    (tmp_path / "old").write_text("old")
    (tmp_path / "x").write_text("old") if what == "file" else (tmp_path / "x").symlink_to("old")
    publish(written(tmp_path), overwrite=True)
    assert not (tmp_path / "x").is_symlink()
    assert files(tmp_path) == {"x": "new", "old": "old"}


def test_what_lies_beyond_the_end_is_dropped_and_what_is_missing_before_it_told(tmp_path: Path) -> None:
    opened = written(tmp_path, octets=b"new and more")
    opened.end_at(3)
    assert opened.part_path.read_bytes() == b"new"
    with disk_error(errno.EIO, opened.part_path):
        opened.end_at(4)
    assert publish(opened).read_bytes() == b"new"


@pytest.fixture(params=["renameat2", "links", "no links"])
def _links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that can rename without replacing, one that has only hard links, and one that has neither."""
    if request.param != "renameat2":
        monkeypatch.setattr(_engine, "rename_free", lambda *_: errno.EINVAL)
    if request.param == "no links":
        monkeypatch.setattr(Path, "hardlink_to", refusing(errno.EPERM))


@pytest.mark.usefixtures("_links")
def test_publishing_needs_no_links(tmp_path: Path) -> None:
    publish(written(tmp_path))
    assert files(tmp_path) == {"x": "new"}
    with closing(written(tmp_path)) as opened:
        with pytest.raises(TargetExists):
            opened.publish(overwrite=False, modified_time=None, durable=False)
        # The part file stays readable by its owner only.
        assert stat.S_IMODE(opened.part_path.stat().st_mode) == 0o600
    assert files(tmp_path) == {"x": "new", "x.part": "new", "x.part.json": "state"}


@pytest.mark.parametrize("way", ["renameat2", "links"])
def test_a_file_that_appears_at_the_last_instant_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    place, name = (_engine, "rename_free") if way == "renameat2" else (Path, "hardlink_to")
    take = getattr(place, name)

    def appear_first(*paths: object) -> object:
        (tmp_path / "x").write_text("somebody else's")
        return take(*paths)

    if way == "links":
        monkeypatch.setattr(_engine, "rename_free", lambda *_: errno.EINVAL)
    with closing(written(tmp_path)) as opened:
        monkeypatch.setattr(place, name, appear_first)
        with pytest.raises(TargetExists):
            publish(opened)
    assert files(tmp_path) == {"x": "somebody else's", "x.part": "new", "x.part.json": "state"}


@pytest.mark.usefixtures("_links")
@pytest.mark.parametrize("overwrite", [False, True])
def test_nothing_incomplete_ever_has_the_final_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    """After each system call that changes names, the final name has no file, or the complete one."""
    opened, seen = written(tmp_path), []

    def watch(place: Any, name: str) -> None:
        call = getattr(place, name)

        def watched(*arguments: Any, **keywords: Any) -> Any:
            try:
                return call(*arguments, **keywords)
            finally:
                seen.append((tmp_path / "x").read_text() if (tmp_path / "x").exists() else None)

        monkeypatch.setattr(place, name, watched)

    for name in ("open", "link", "rename", "replace", "unlink", "ftruncate"):
        watch(os, name)
    watch(_engine, "rename_free")
    publish(opened, overwrite=overwrite)
    assert seen
    assert set(seen) <= {None, "new"}


def test_a_rename_that_fails_leaves_everything_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_engine, "rename_free", lambda *_: errno.EIO)
    with closing(written(tmp_path)) as opened:
        with disk_error(errno.EIO, tmp_path / "x", "cannot publish"):
            opened.publish(overwrite=False, modified_time=None, durable=False)
        assert stat.S_IMODE(opened.part_path.stat().st_mode) == 0o600
    assert files(tmp_path) == {"x.part": "new", "x.part.json": "state"}


@pytest.mark.parametrize("what", ["directory", "fifo", "link to a device"])
def test_overwriting_replaces_nothing_but_plain_files(tmp_path: Path, what: str) -> None:
    final = tmp_path / "x"
    with closing(written(tmp_path)) as opened:
        if what == "directory":
            final.mkdir()
        elif what == "fifo":
            os.mkfifo(final)
        else:
            final.symlink_to("/dev/null")
        before = final.lstat()
        with disk_error(errno.EISDIR if what == "directory" else errno.EINVAL, final):
            opened.publish(overwrite=True, modified_time=None, durable=False)
        assert os.path.samestat(before, final.lstat())
        assert opened.part_path.read_text() == "new"


def test_a_publish_that_was_cut_between_link_and_unlink_is_never_written_again(tmp_path: Path) -> None:
    with closing(written(tmp_path)) as opened:
        (tmp_path / "x").hardlink_to(opened.part_path)  # as if the process was killed after this
        assert files(tmp_path)["x"] == "new"
    with closing(written(tmp_path, octets=b"other")) as opened:
        assert opened.fresh
        assert (tmp_path / "x").read_text() == "new"
        publish(opened, overwrite=True)
    assert files(tmp_path) == {"x": "other"}


def test_a_part_file_that_was_replaced_is_not_published_as_ours(tmp_path: Path) -> None:
    with closing(written(tmp_path)) as opened:
        opened.part_path.unlink()
        with disk_error(errno.ENOENT, opened.part_path, "removed or replaced"):
            publish(opened)
    opened = written(tmp_path)
    opened.part_path.unlink()
    with closing(written(tmp_path, octets=b"theirs")) as theirs:
        with disk_error(errno.ENOENT, "removed or replaced"):
            opened.set_aside("wrong")
        opened.discard()
        assert files(tmp_path) == {"x.part": "theirs", "x.part.json": "state"}
        publish(theirs)


def test_a_part_file_that_was_replaced_keeps_the_state_of_the_one_that_replaced_it(tmp_path: Path) -> None:
    with closing(written(tmp_path)) as opened:
        opened.part_path.unlink()
        with closing(written(tmp_path, octets=b"theirs")) as theirs:
            theirs.save_state(state_of(3))
            there = theirs.state_path.read_bytes()
            with disk_error(errno.ENOENT, opened.part_path, "removed or replaced"):
                opened.save_state(state_of(3))
            assert theirs.state_path.read_bytes() == there


def test_what_is_set_aside_replaces_what_was_before_and_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    kept = [written(tmp_path, octets=octets).set_aside("its checksum is wrong") for octets in (b"11", b"22", b"33")]
    assert [path.name for path in kept] == ["x.bad", "x.bad", "x.bad"]
    assert files(tmp_path) == {"x.bad": "33"}
    assert "its checksum is wrong; kept as" in caplog.text
    opened = written(tmp_path, "")
    opened.name("found")
    assert opened.set_aside("wrong").name == "found.bad"


def test_what_is_set_aside_replaces_nothing_of_others(tmp_path: Path) -> None:
    (tmp_path / "x.bad").write_text("theirs")
    (tmp_path / "x.bad.1").symlink_to("x.bad")
    kept = [written(tmp_path, octets=octets).set_aside("wrong").name for octets in (b"11", b"22")]
    assert kept == ["x.bad.2", "x.bad.2"]
    assert files(tmp_path) == {"x.bad": "theirs", "x.bad.1": "theirs", "x.bad.2": "22"}


def test_discarding_leaves_nothing(tmp_path: Path) -> None:
    with closing(written(tmp_path)) as opened:
        opened.discard()
        opened.discard()
    assert files(tmp_path) == {}


def test_truncating_drops_the_state_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(written(tmp_path)) as opened:
        with monkeypatch.context() as patch, disk_error(errno.ENOSPC, opened.part_path, "cannot truncate"):
            patch.setattr(os, "ftruncate", refusing(errno.ENOSPC))
            opened.truncate()
        assert files(tmp_path) == {"x.part": "new"}
        opened.truncate(1)
        assert files(tmp_path) == {"x.part": "n"}
        opened.truncate()
        assert files(tmp_path) == {"x.part": ""}


def test_syncing_tells_of_a_disk_that_lost_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(written(tmp_path)) as opened:
        opened.sync()
        had_lost_writes = opened.has_lost_writes
        assert not had_lost_writes
        with monkeypatch.context() as once:
            once.setattr(os, "fsync", refusing(errno.EIO))
            with disk_error(errno.EIO, opened.part_path, "cannot sync: Input/output error"):
                opened.sync()
        # Linux reports the error only once.
        with disk_error(errno.EIO, opened.part_path, "cannot sync: Input/output error"):
            opened.sync()
        for durable in (True, False):
            with disk_error(errno.EIO, opened.part_path, "cannot sync: Input/output error"):
                opened.publish(overwrite=False, modified_time=None, durable=durable)
        assert opened.has_lost_writes
    assert files(tmp_path) == {"x.part": "new", "x.part.json": "state"}


def test_free_space(tmp_path: Path) -> None:
    assert 0 < free_space(tmp_path) < 1 << 62
    with disk_error(errno.ENOENT, tmp_path / "none", "free space"):
        free_space(tmp_path / "none")


PUBLISHER = """if True:
    import os, sys
    from rangefetch.disk import publishing
    from rangefetch import _engine
    from rangefetch.disk.target import Target
    way, overwrite, stop = sys.argv[2], sys.argv[3] == "True", int(sys.argv[4])
    calls = 0
    def one_more():
        global calls
        calls += 1
        if calls == stop:
            os._exit(9)
    take = _engine.rename_free
    def rename_free(*paths):
        one_more()
        return take(*paths) if way == "renameat2" else 22
    _engine.rename_free = rename_free
    if way == "neither":
        def refuse(*_):
            raise PermissionError(1, "no links here")
        publishing.Path.hardlink_to = refuse
    def audit(event, _):
        if event in ("open", "os.rename", "os.link", "os.remove", "os.chmod", "os.utime", "os.removexattr"):
            one_more()
    opened = Target.open(sys.argv[1], "x", "https://example.org/file")
    sys.addaudithook(audit)
    opened.publish(overwrite=overwrite, modified_time=1e9, durable=True)
    os._exit(0)
"""


@pytest.mark.parametrize("way", ["renameat2", "links", "neither"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_killed_at_any_point_of_publishing_there_is_the_whole_file_or_none(
    tmp_path: Path, way: str, overwrite: bool
) -> None:
    for stop in range(1, 40):
        directory = tmp_path / str(stop)
        written(directory).close()
        if overwrite:
            (directory / "x").write_text("old")
        command = [sys.executable, "-c", PUBLISHER, str(directory), way, str(overwrite), str(stop)]
        status = subprocess.run(command, check=False, timeout=90).returncode
        final = files(directory).get("x")
        assert final in ("new", "old" if overwrite else None), f"killed before call {stop}"
        # Whatever was left, the next run cleans up.
        with closing(Target.open(directory, "x", URL)) as opened:
            assert final == "new" or os.pread(opened.fd, 9, 0) == b"new", f"killed before call {stop}"
            opened.discard()
        assert names(directory) == (["x"] if final else [])
        if status == 0:
            assert final == "new"
            break
    else:
        pytest.fail("it never comes to its end")


def test_an_error_names_the_file_that_the_system_has_refused(tmp_path: Path) -> None:
    part, state = tmp_path / "x.part", tmp_path / "x.part.json"
    with pytest.raises(DiskError) as caught, disk_errors("open", part):
        raise PermissionError(errno.EACCES, "no", str(state))
    assert caught.value.filename == str(state)
    assert str(state) in str(caught.value)
    with pytest.raises(DiskError) as caught, disk_errors("publish", part):
        raise PermissionError(errno.EACCES, "no", str(state), None, str(part))
    assert caught.value.filename == str(part)
