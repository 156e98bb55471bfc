"""The part file's life: its lock, what stands in its way, and the step to its final name."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from rangefetch import _engine
from rangefetch.disk import parts, state
from rangefetch.disk.state import SourceState, State
from rangefetch.disk.target import Target, disk_errors, free_space
from rangefetch.errors import DiskError, LocalError, TargetExists, TargetLocked
from support.files import names

pytestmark = pytest.mark.usefixtures("no_leaks")

URL = "https://example.org/file"


@contextmanager
def disk_error(number: int, *parts: object) -> Iterator[None]:
    """The body raises a ``DiskError`` with this errno, and one line that has all ``parts`` in it."""
    with pytest.raises(DiskError) as caught:
        yield
    assert caught.value.errno == number
    assert "\n" not in str(caught.value)
    assert all(str(part) in str(caught.value) for part in parts), str(caught.value)


def refusing(number: int) -> Callable[..., None]:
    """A function that fails with this errno, whatever it is asked."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def written(directory: Path, filename: str = "x", octets: bytes = b"new") -> Target:
    opened = Target.open(directory, filename, URL)
    os.pwrite(opened.fd, octets, 0)
    opened.save_state(state_of(len(octets)))
    return opened


def state_of(size: int, written: int = 1) -> State:
    return State(
        url=URL,
        resolved_url=URL,
        total_size=size,
        supports_range=True,
        sources=[SourceState(URL)],
        block_size=1 << 20,
        blocks=b"\0",
        partial={0: min(written, size - 1)},
    )


def publish(opened: Target, *, overwrite: bool = False, durable: bool = False) -> Path:
    with closing(opened):
        return opened.publish(overwrite=overwrite, modified_time=1e9, durable=durable)


def files(directory: Path) -> dict[str, str]:
    """What lies there; of a saved state only that it is one."""
    return {
        path.name: "state" if path.name.endswith(".part.json") and state.load(path) else path.read_text()
        for path in directory.iterdir()
    }


def test_opening_makes_an_empty_private_part_file(tmp_path: Path) -> None:
    with closing(Target.open(tmp_path, "x", URL)) as opened:
        assert opened.part_path == tmp_path / "x.part"
        assert opened.state_path == tmp_path / "x.part.json"
        assert (opened.path, opened.directory, opened.fresh) == (tmp_path / "x", tmp_path, True)
        assert not os.get_inheritable(opened.fd)
        assert stat.S_IMODE(opened.part_path.stat().st_mode) == 0o600
    opened.close()
    assert opened.fd == -1
    assert files(tmp_path) == {"x.part": ""}


def _hashed(text: str) -> str:
    return f"rangefetch-{hashlib.sha256(text.encode()).hexdigest()[:16]}.part"


def test_without_a_name_the_part_file_is_named_after_the_urls_path(tmp_path: Path) -> None:
    with closing(written(tmp_path, "")) as opened:
        assert opened.part_path.name == _hashed("/" + URL.rpartition("/")[2])
        assert opened.path is None
        with pytest.raises(ValueError, match="no final name yet"):
            publish(opened)
    with closing(Target.open(tmp_path, "", URL)) as opened:
        assert not opened.fresh
        assert opened.name("found.txt") == opened.path == tmp_path / "found.txt"
        assert publish(opened) == tmp_path / "found.txt"
    assert files(tmp_path) == {"found.txt": "new"}


@pytest.mark.parametrize("marks", [True, False])
def test_without_a_name_two_urls_never_share_a_part_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, marks: bool
) -> None:
    if not marks:
        monkeypatch.delattr(os, "setxattr")
    other = URL + "?signature=2"
    with closing(Target.open(tmp_path, "", URL)) as first, closing(Target.open(tmp_path, "", other)) as second:
        assert second.part_path.name == _hashed(other)
        os.pwrite(first.fd, b"first", 0)
        os.pwrite(second.fd, b"second", 0)
        first.save_state(state_of(len(b"first")))
        for url in (URL, other):
            with pytest.raises(TargetLocked):
                Target.open(tmp_path, "", url)
    for url, octets in ((other, b"second"), (URL, b"first")):
        with closing(Target.open(tmp_path, "", url)) as again:
            assert os.pread(again.fd, 10, 0) == octets


def test_what_another_url_has_left_without_a_state_is_used_by_the_next(tmp_path: Path) -> None:
    other = URL + "?signature=2"
    first = Target.open(tmp_path, "", URL)
    os.pwrite(first.fd, b"first", 0)
    with closing(Target.open(tmp_path, "", other)) as second:
        assert second.part_path != first.part_path  # which somebody has
        second.discard()
    first.close()  # as if it had been killed before anything was saved
    with closing(Target.open(tmp_path, "", other)) as second:
        assert second.part_path == first.part_path
        assert not second.fresh
        with closing(Target.open(tmp_path, "", URL)) as third:
            assert third.part_path != first.part_path
            third.discard()
        second.truncate()
        second.discard()
    assert names(tmp_path) == []


def test_a_name_without_room_for_suffixes_works_too(tmp_path: Path) -> None:
    longest = "n" * 255
    with closing(written(tmp_path, longest)) as opened:
        with pytest.raises(TargetLocked):
            Target.open(tmp_path, longest, "https://elsewhere.example/")
        assert publish(opened) == tmp_path / longest
    assert written(tmp_path, longest).set_aside("wrong").name.startswith("rangefetch-")


def test_what_is_there_is_kept_and_a_state_without_its_part_file_is_not(tmp_path: Path) -> None:
    written(tmp_path).close()
    with closing(Target.open(tmp_path, "x", URL)) as opened:
        assert not opened.fresh
        assert os.pread(opened.fd, 9, 0) == b"new"
    assert files(tmp_path) == {"x.part": "new", "x.part.json": "state"}
    opened.part_path.unlink()
    Target.open(tmp_path, "x", URL).close()
    assert files(tmp_path) == {"x.part": ""}


def test_paths_survive_a_change_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    opened = written(Path("sub"))
    monkeypatch.chdir("/")
    assert publish(opened) == tmp_path / "sub" / "x"


@pytest.mark.parametrize("filename", [".", "..", "a/b", "/a", "a\0b"])
def test_a_name_that_is_no_plain_name_is_refused(tmp_path: Path, filename: str) -> None:
    with disk_error(errno.EINVAL, "not a plain file name"):
        Target.open(tmp_path, filename, URL)
    with closing(Target.open(tmp_path, "", URL)) as opened, disk_error(errno.EINVAL, "not a plain file name"):
        opened.name(filename)


def test_a_system_without_such_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(LocalError, match="Windows"):
        Target.open(tmp_path, "x", URL)
    assert not list(tmp_path.iterdir())


def test_what_stands_in_the_way_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    (tmp_path / "to-directory").symlink_to("directory")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "to-device").symlink_to("/dev/null")
    with disk_error(errno.ENOTDIR, tmp_path / "file" / "none", "Not a directory"):
        Target.open(tmp_path / "file" / "none", "x", URL)
    with disk_error(errno.ENOTDIR, tmp_path / "file", "Not a directory"):
        Target.open(tmp_path / "file", "x", URL)
    for name in ("directory", "to-directory"):
        with disk_error(errno.EISDIR, tmp_path / name, "it is a directory"):
            Target.open(tmp_path, name, URL)
    for name in ("fifo", "to-device"):
        with disk_error(errno.EINVAL, tmp_path / name, "it is not a regular file"):
            Target.open(tmp_path, name, URL)
    assert not list(tmp_path.glob("*.part*"))


@pytest.mark.parametrize("name", ["n" * 256, "é" * 128, "\udcff" * 256])
def test_a_name_that_the_file_system_refuses_is_told_at_once(tmp_path: Path, name: str) -> None:
    with disk_error(errno.ENAMETOOLONG, "cannot use the name"):
        Target.open(tmp_path, name, URL)
    assert not list(tmp_path.iterdir())
    with closing(Target.open(tmp_path, "", URL)) as opened, disk_error(errno.ENAMETOOLONG, "cannot use the name"):
        opened.name(name)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EILSEQ])
def test_a_character_that_the_file_system_refuses_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    create = os.open

    def create_as_fat(path: str | os.PathLike[str], flags: int, *arguments: int, **keywords: int) -> int:
        if ":" in os.fspath(path) and flags & os.O_CREAT:
            raise OSError(number, os.strerror(number))
        return create(path, flags, *arguments, **keywords)

    monkeypatch.setattr(os, "open", create_as_fat)
    with closing(Target.open(tmp_path, "", URL)) as opened, disk_error(number, "a:b", "cannot use the name"):
        opened.name("a:b")
    with disk_error(number, "a:b", "cannot use the name"):
        Target.open(tmp_path, "a:b", URL)


# A child process that opens the target, says so, and then does what it is told.
HOLDER = """if True:
    import sys
    from rangefetch.disk.target import Target
    opened = Target.open(sys.argv[1], "x", "url")
    print("open", flush=True)
    sys.stdin.readline()
    opened.publish(overwrite=False, modified_time=None, durable=False)
"""


@contextmanager
def held(directory: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLDER, str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        try:
            yield child
        finally:
            child.kill()


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    with held(tmp_path) as child:
        with pytest.raises(TargetLocked, match=rf"^{tmp_path}/x\.part: a download of process {child.pid} is "):
            Target.open(tmp_path, "x", URL)
        with closing(Target.open(tmp_path, "y", URL)):
            child.kill()  # SIGKILL: nothing is cleaned up, and yet the lock goes
            child.wait()
        Target.open(tmp_path, "x", URL).close()


def test_the_same_process_is_refused_too_and_a_forked_child_keeps_no_lock(tmp_path: Path) -> None:
    with closing(Target.open(tmp_path, "x", URL)) as opened:
        copy = os.dup(opened.fd)  # the same open file, which is what a fork leaves
        with pytest.raises(TargetLocked):
            Target.open(tmp_path, "x", URL)
    Target.open(tmp_path, "x", URL).close()
    os.close(copy)


def test_a_part_file_published_between_open_and_lock_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flock = fcntl.flock
    with held(tmp_path) as child:

        def flock_after_publish(fd: int, operation: int) -> None:
            if child.poll() is None:
                child.communicate("publish\n")
            flock(fd, operation)

        monkeypatch.setattr(fcntl, "flock", flock_after_publish)
        with closing(written(tmp_path)) as opened:
            assert os.path.samestat(os.fstat(opened.fd), opened.part_path.stat())
    assert files(tmp_path) == {"x": "", "x.part": "new", "x.part.json": "state"}


def test_a_part_file_that_never_stays_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path).close()
    monkeypatch.setattr(parts, "is_open_on", lambda *_: False)
    with pytest.raises(TargetLocked, match="keep taking it"):
        Target.open(tmp_path, "x", URL)


def test_without_locks_it_goes_on_and_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fcntl, "flock", refusing(errno.ENOSYS))
    publish(written(tmp_path))
    assert "this file system has no locks" in caplog.text


def test_many_processes_and_one_name(tmp_path: Path) -> None:
    script = """if True:
        import os, sys
        from rangefetch.errors import TargetExists, TargetLocked
        from rangefetch.disk.target import Target
        for number in range(60):
            try:
                opened = Target.open(sys.argv[1], f"x{number}", "url")
                assert os.pread(opened.fd, 1, 0) in (b"", b"!"), "a published file was opened as a part file"
                os.ftruncate(opened.fd, 0)
                os.pwrite(opened.fd, b"!", 0)
                opened.publish(overwrite=False, modified_time=None, durable=False)
                print(number)
            except TargetLocked:
                pass
            except TargetExists:
                opened.discard()
    """
    command = [sys.executable, "-c", script, str(tmp_path)]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    winners = sorted(int(line) for child in children for line in child.communicate()[0].split())
    assert [child.returncode for child in children] == [0] * 4
    assert winners == list(range(60))
    assert files(tmp_path) == {f"x{number}": "!" for number in range(60)}


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
        # Nothing is lost: it can still have another name.
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
    """A file system that renames without replacing, one that has hard links only, and one that has neither."""
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
        # What was refused is nobody else's to read.
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
    """What is at the final name, after each system call that changes names, is nothing, or the whole file."""
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
        (tmp_path / "x").hardlink_to(opened.part_path)  # and then the process was killed
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
        # Linux would tell of it once.
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
        # Whatever it was, the next run clears up.
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
