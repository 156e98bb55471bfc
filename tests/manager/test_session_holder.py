"""One manager per session file: the holder keeps others out, and releases the file when it ends, however it ends."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from rangefetch import DownloadManager
from rangefetch.errors import LocalError
from support.files import names
from support.sessions import listed_in

HOLDER = """if True:
    import os, sys, time
    from rangefetch import DownloadManager
    manager = DownloadManager(session_file=sys.argv[1])
    if sys.argv[2] == "fork":
        here, there = os.pipe()
        if os.fork() == 0:
            os.write(there, b"1")
            time.sleep(60)
        os.read(here, 1)
    print(os.getpid(), flush=True)
    time.sleep(60)
"""


@pytest.fixture
def session_file(tmp_path: Path) -> Path:
    return tmp_path / "session.json"


@contextmanager
def held(session_file: Path, how: str = "") -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLDER, str(session_file), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as child:
        assert child.stdout is not None
        assert int(child.stdout.readline()) == child.pid
        try:
            yield child
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, 9)


@pytest.mark.parametrize("start", [False, True])
def test_a_second_manager_of_the_same_process_is_refused_until_the_first_is_stopped(
    session_file: Path, start: bool
) -> None:
    first = DownloadManager(session_file=session_file)
    if start:
        first.start()
    with pytest.raises(LocalError, match=r"session\.json: another DownloadManager of this process is using it"):
        DownloadManager(session_file=session_file)
    first.stop()
    with DownloadManager(session_file=session_file):
        with pytest.raises(LocalError, match="of this process"):
            first.start()
        assert not first.is_started
    first.start()
    first.stop()
    assert set(names(session_file.parent)) <= {"session.json"}


def test_a_second_process_is_refused_and_told_which_has_it(session_file: Path) -> None:
    with held(session_file) as child:
        with pytest.raises(LocalError, match=f"a DownloadManager of process {child.pid} is using it"):
            DownloadManager(session_file=session_file)
        child.kill()
        child.wait()
        DownloadManager(session_file=session_file).stop()


def test_a_child_that_was_forked_does_not_have_it(session_file: Path) -> None:
    with held(session_file, "fork") as child:
        with pytest.raises(LocalError, match=f"process {child.pid}"):
            DownloadManager(session_file=session_file)
        child.kill()
        child.wait()
        DownloadManager(session_file=session_file).stop()


def test_a_manager_that_is_forgotten_leaves_it(session_file: Path) -> None:
    manager = DownloadManager(session_file=session_file)
    del manager
    DownloadManager(session_file=session_file).stop()


def test_a_stopped_manager_does_not_write_over_the_session_of_the_next(
    session_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with DownloadManager(session_file=session_file, max_concurrent_downloads=1) as first:
        gid = first.download("http://127.0.0.1:1/x")
        first.pause(gid)
    with DownloadManager(session_file=session_file) as second:
        assert [each.gid for each in second.list_downloads()] == [gid]
        first.cancel(gid)
        assert "is using it" in caplog.text
    assert [each["gid"] for each in listed_in(session_file)] == [gid]


def test_where_no_lock_can_be_made_it_warns_and_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "session.json.lock").mkdir()
    DownloadManager(session_file=tmp_path / "session.json").stop()
    assert "it cannot be locked" in caplog.text
