"""The part file: how it is opened and locked, and what can prevent it."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from rangefetch.disk import parts
from rangefetch.disk.target import Target
from rangefetch.errors import TargetLocked
from support.files import names
from support.targets import HOLDER, URL, disk_error, files, publish, refusing, state_of, written

pytestmark = pytest.mark.usefixtures("no_leaks")


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
        assert second.part_path != first.part_path  # the first one is locked
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


# A child process that opens the target, reports that, and then follows instructions.


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
            child.kill()  # SIGKILL: nothing is cleaned up, but the lock is released
            child.wait()
        Target.open(tmp_path, "x", URL).close()


def test_the_same_process_is_refused_too_and_a_forked_child_keeps_no_lock(tmp_path: Path) -> None:
    with closing(Target.open(tmp_path, "x", URL)) as opened:
        copy = os.dup(opened.fd)  # the same open file description, as after a fork
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
    with pytest.raises(TargetLocked, match="keep locking it"):
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
