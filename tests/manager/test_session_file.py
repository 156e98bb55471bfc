"""Changes are appended to the session file, and whatever happens to the file, its intact entries can be read."""

from __future__ import annotations

import json
import logging
import os
import random
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rangefetch import DownloadManager, DownloadStatus
from rangefetch.manager import downloads_of
from support.sessions import listed_in
from support.waiting import until

HEADER = '{"version": 2}\n'


@pytest.fixture
def session_file(tmp_path: Path) -> Path:
    return tmp_path / "session"


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of a server that accepts connections but never responds."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def _entry(number: int, **other: object) -> str:
    entry = {
        "gid": f"{number:016x}", "url": f"http://127.0.0.1:1/{number}", "status": "paused", "filename": "",
        "options": {}, "begun": False,
    } | other  # fmt: skip
    return json.dumps(entry) + "\n"


def _gids(manager: DownloadManager) -> list[int]:
    return [int(each.gid, 16) for each in manager.list_downloads()]


def _listed(path: Path) -> list[int]:
    manager = DownloadManager(session_file=path)
    gids = _gids(manager)
    manager.stop()
    return gids


def test_a_change_costs_its_line_however_many_there_are(silent: str, session_file: Path) -> None:
    with DownloadManager("native", session_file=session_file, max_concurrent_downloads=1) as manager:
        options = {"save_dir": session_file.parent / "into"}
        gids = [manager.download(f"{silent}/f{number}", options) for number in range(2000)]
        until(lambda: len(listed_in(session_file)) == 2000)
        until(lambda: not downloads_of(manager)._session._changed)  # type: ignore[union-attr]  # it has a session
        inode, size = session_file.stat().st_ino, session_file.stat().st_size
        manager.pause(gids[1500])
        until(lambda: session_file.stat().st_size > size)
        assert session_file.stat().st_ino == inode
        assert session_file.stat().st_size - size < 1000
    assert session_file.stat().st_ino == inode  # nor is it rewritten at the end
    assert session_file.stat().st_size - size < 5000
    manager = DownloadManager("native", session_file=session_file)
    assert [each.gid for each in manager.list_downloads()] == gids
    assert [each.gid for each in manager.list_downloads(DownloadStatus.PAUSED)] == [gids[1500]]
    manager.stop()


def test_it_is_written_anew_before_most_of_it_is_pointless(session_file: Path) -> None:
    manager = DownloadManager("native", session_file=session_file)
    manager.stop()
    session_file.write_text(HEADER + "".join(map(_entry, range(3))))
    session_file.chmod(0o600)
    manager = DownloadManager("native", session_file=session_file)
    gid = f"{1:016x}"
    for number in range(1200):
        manager.change_options(gid, max_tries=number)
    assert len(session_file.read_text().splitlines()) < 1100
    manager.stop()
    assert [each["options"].get("max_tries") for each in listed_in(session_file)] == [None, 1199, None]


def test_a_file_of_version_1_is_read_and_becomes_one_of_version_2(session_file: Path) -> None:
    entries = [json.loads(_entry(number)) | {"kept_aside": "", "error": ""} for number in range(3)]
    session_file.write_text(json.dumps({"version": 1, "downloads": entries}))
    manager = DownloadManager("native", session_file=session_file)
    assert _gids(manager) == [0, 1, 2]
    manager.cancel(f"{1:016x}")
    manager.stop()
    assert session_file.read_text().startswith(HEADER)
    assert _listed(session_file) == [0, 2]


def test_wherever_it_was_cut_off_only_the_last_entry_is_lost(session_file: Path) -> None:
    text = (HEADER + "".join(map(_entry, range(3)))).encode()
    ends = [place + 1 for place, octet in enumerate(text) if octet == ord("\n")]
    places = random.Random(1).sample(range(len(HEADER), len(text)), 25)
    for place in sorted({*places, *ends, ends[1] - 1, ends[1] + 1}):
        session_file.write_bytes(text[:place])
        session_file.chmod(0o600)
        manager = DownloadManager("native", session_file=session_file)
        whole = sum(end <= place for end in ends) - 1
        assert _gids(manager) == list(range(whole))
        # The next entry is not appended to the cut-off line.
        if whole:
            manager.change_options(f"{0:016x}", max_tries=77)
        manager.stop()
        assert _listed(session_file) == list(range(whole))
    assert not session_file.with_name("session.bad").exists()


@pytest.mark.parametrize(
    "line",
    [
        b"\0" * 4096 + b"\n",
        b"\xff\xfe{}\n",
        b"[]\n",
        b"null\n",
        b"{}\n",
        b'{"gone": true}\n',
        b'{"gid": ["x"], "gone": true}\n',
        b'{"gid": {}, "url": "http://h/"}\n',
        b"[" * 100_000 + b"\n",
        b'{"gid": "' + b"x" * (3 << 20) + b'"}\n',
        _entry(9, url="file:///etc/passwd").encode(),
        _entry(9, status="complete").encode(),
        _entry(9, options={"spilt": 4}).encode(),
        _entry(9, options=[1]).encode(),
        _entry(9, gid="../../../../etc").encode(),
        _entry(9, filename={"a": 1}).encode(),
        b'{"gid": "0000000000000009", "url": 5}\n',
    ],
)
def test_a_line_that_says_nothing_costs_itself_and_is_set_aside(
    session_file: Path, line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    session_file.write_bytes(HEADER.encode() + _entry(1).encode() + line + _entry(2).encode())
    manager = DownloadManager("native", session_file=session_file)
    assert _gids(manager) == [1, 2]
    assert "set aside" in caplog.text
    assert session_file.with_name("session.bad").read_bytes().startswith(HEADER.encode() + line[:40])
    manager.cancel(f"{1:016x}")
    manager.stop()
    caplog.clear()
    assert _listed(session_file) == [2]
    assert "set aside" not in caplog.text


def test_the_last_line_of_a_download_counts(session_file: Path) -> None:
    gone = '{"gid": "0000000000000002", "gone": true}\n'
    lines = [_entry(1), _entry(2), _entry(3), _entry(1, status="waiting"), gone]
    session_file.write_text(HEADER + "".join(lines))
    manager = DownloadManager("native", session_file=session_file)
    assert [(int(each.gid, 16), each.status) for each in manager.list_downloads()] == [(1, "waiting"), (3, "paused")]
    manager.stop()


def test_one_that_others_may_read_is_replaced_before_anything_is_added(session_file: Path) -> None:
    session_file.write_text(HEADER + _entry(1))
    session_file.chmod(0o644)
    inode = session_file.stat().st_ino
    manager = DownloadManager("native", session_file=session_file)
    manager.change_options(f"{1:016x}", headers={"X-Token": "s3cret"})
    manager.stop()
    assert session_file.stat().st_mode & 0o777 == 0o600
    assert session_file.stat().st_ino != inode


@pytest.mark.parametrize("how", ["removed", "replaced", "cut", "longer"])
def test_what_others_do_to_it_costs_nothing_that_this_manager_has(session_file: Path, how: str) -> None:
    session_file.write_text(HEADER + "".join(map(_entry, range(3))))
    session_file.chmod(0o600)
    manager = DownloadManager("native", session_file=session_file)
    manager.change_options(f"{0:016x}", max_tries=3)
    match how:
        case "removed":
            session_file.unlink()
        case "replaced":
            session_file.rename(session_file.with_name("away"))
            session_file.write_text("other")
        case "cut":
            os.truncate(session_file, 5)
        case "longer":
            with session_file.open("a") as file:
                file.write("other")
    manager.change_options(f"{1:016x}", max_tries=4)
    manager.stop()
    assert [each["options"].get("max_tries") for each in listed_in(session_file)] == [3, 4, None]


def test_where_there_is_no_room_it_is_as_it_was_and_saved_later(
    session_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    session_file.write_text(HEADER + "".join(map(_entry, range(3))))
    session_file.chmod(0o600)
    manager = DownloadManager("native", session_file=session_file)
    manager.change_options(f"{0:016x}", max_tries=3)
    before = session_file.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 30, hard))
        manager.change_options(f"{1:016x}", max_tries=4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert "the session cannot be saved" in caplog.text
    assert session_file.read_bytes() == before
    manager.change_options(f"{2:016x}", max_tries=5)
    manager.stop()
    assert [each["options"]["max_tries"] for each in listed_in(session_file)] == [3, 4, 5]


def test_whoever_is_killed_loses_at_most_the_last_entry(session_file: Path) -> None:
    script = """if True:
        import sys
        from rangefetch import DownloadManager
        manager = DownloadManager("native", session_file=sys.argv[1])
        gids = [each.gid for each in manager.list_downloads()]
        print("ready", flush=True)
        for number in range(100_000):
            manager.change_options(gids[number % len(gids)], max_tries=number % 500)
            print(number, flush=True)
    """
    session_file.write_text(HEADER + "".join(map(_entry, range(20))))
    for _ in range(4):
        with subprocess.Popen([sys.executable, "-c", script, session_file], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            for _ in range(200):
                said = child.stdout.readline()
            child.kill()
            rest = child.stdout.read().splitlines()
        last = int((rest or [said])[-1] if (rest or [said])[-1].isdigit() else said)
        manager = DownloadManager("native", session_file=session_file)
        assert _gids(manager) == list(range(20))
        saved = {
            int(each.gid, 16): downloads_of(manager).find(each.gid).options.max_tries
            for each in manager.list_downloads()
        }
        manager.stop()
        # Every change that the child reported as done is in the file.
        for number in range(last - 19, last):
            assert saved[number % 20] in (number % 500, (number + 20) % 500, (last + 1) % 500)


def test_what_is_at_work_or_waits_when_it_is_stopped_waits_in_the_next(silent: str, session_file: Path) -> None:
    options = {"save_dir": session_file.parent / "into"}
    with DownloadManager("native", session_file=session_file, max_concurrent_downloads=1) as manager:
        gids = [manager.download(f"{silent}/f{number}", options) for number in range(5)]
        manager.pause(gids[3])
        until(lambda: manager.get_download_progress(gids[0]).status is DownloadStatus.ACTIVE)
    manager.cancel(gids[4])  # rewrites the file, or appends a line
    expected = ["waiting", "waiting", "waiting", "paused"]
    assert [each["status"] for each in listed_in(session_file)] == expected
    following = DownloadManager("native", session_file=session_file)
    assert [each.status.value for each in following.list_downloads()] == expected
    following.stop()


def test_where_no_lock_can_be_had_a_change_is_a_line_all_the_same(
    session_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    session_file.with_name("session.lock").mkdir()
    session_file.write_text(HEADER + "".join(map(_entry, range(3))))
    session_file.chmod(0o600)
    manager = DownloadManager("native", session_file=session_file)
    inode = session_file.stat().st_ino
    manager.change_options(f"{0:016x}", max_tries=3)
    assert session_file.stat().st_ino == inode
    manager.stop()
    assert "it cannot be locked" in caplog.text
