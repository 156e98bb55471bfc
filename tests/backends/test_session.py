"""The session file: a new manager with the same file lists and continues what the previous one did not finish."""

import errno
import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from backends.conftest import Make
from rangefetch import DownloadManager, DownloadStatus
from rangefetch.errors import LocalError
from rangefetch.manager import downloads_of
from servers.directed import Valve
from servers.misbehaving import MisbehavingServer, content
from support.downloads import QUICK, SIZE, SMALL, downloaded, into, status_of
from support.files import MIB, begun, names
from support.sessions import listed_in
from support.waiting import until


@pytest.fixture
def session_file(tmp_path: Path) -> Path:
    return tmp_path / "session.json"


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _listed(manager: DownloadManager) -> dict[str, DownloadStatus]:
    return {each.gid: each.status for each in manager.list_downloads()}


def test_a_new_manager_lists_the_unfinished_and_goes_on(
    manage: Make, server: MisbehavingServer, valve: Valve, target: Path, session_file: Path
) -> None:
    options = into(target, headers={"X-Token": "s3cret"}, split=2)
    with manage(session_file=session_file, max_concurrent_downloads=1) as manager:
        done = manager.download(server.url("/good/x", size=5), into(target, "done"))
        failed = manager.download(server.url("/script/x", steps="status:code=404", size=5), into(target, "failed"))
        paused = manager.download(server.url("/good/x", size=SMALL, seed=1), into(target, "paused"))
        manager.pause(paused)
        active = manager.download(server.url("/valve/x", size=SIZE), options)
        waiting = manager.download(server.url("/good/x", size=SMALL, seed=2), into(target, "waiting"))
        removed = manager.download(server.url("/good/x", size=SMALL, seed=2), into(target, "removed"))
        manager.cancel(removed)
        until(lambda: downloaded(manager, active) > MIB)
        assert status_of(manager, done) is DownloadStatus.COMPLETE
        assert status_of(manager, failed) is DownloadStatus.ERROR
    assert _mode(session_file) == 0o600
    valve.open()
    server.clear()
    with manage(session_file=session_file) as manager:
        listed = _listed(manager)
        assert listed.keys() >= {paused, active, waiting}
        assert not listed.keys() & {done, removed}
        assert listed[paused] is DownloadStatus.PAUSED
        result = manager.wait(active, timeout=30)
        assert result.path == target
        assert target.read_bytes() == content(SIZE)
        assert result.resumed > MIB
        assert {request.headers.get("x-token") for request in server.requests if "valve" in request.path} == {"s3cret"}
        assert manager.wait(waiting, timeout=30).path.read_bytes() == content(SMALL, 2)
        assert status_of(manager, paused) is DownloadStatus.PAUSED
        manager.resume(paused)
        assert manager.wait(paused, timeout=30).path.read_bytes() == content(SMALL, 1)
    assert {entry["gid"] for entry in listed_in(session_file)} <= {failed}


def test_what_had_failed_is_listed_and_can_be_tried_again(
    manage: Make, server: MisbehavingServer, target: Path, session_file: Path
) -> None:
    # After the first 404 there is a second request, without a range.
    url = server.url("/status/x", code=404, times=2, size=SMALL)
    with manage(session_file=session_file) as manager:
        gid = manager.download(url, into(target))
        until(lambda: status_of(manager, gid) is DownloadStatus.ERROR)
    with manage(session_file=session_file) as manager:
        assert gid in _listed(manager)
        manager.retry(gid)
        assert manager.wait(gid, timeout=30).path.read_bytes() == content(SMALL)


def test_it_is_written_soon_after_a_change_and_always_private(
    manage: Make, server: MisbehavingServer, valve: Valve, target: Path, session_file: Path
) -> None:
    session_file.write_text('{"version": 1, "downloads": []}')
    session_file.chmod(0o644)
    with manage(session_file=session_file) as manager:
        gid = manager.download(server.url("/valve/x?id=s3cret", size=SIZE), into(target))
        until(lambda: session_file.read_text().startswith('{"version": 2}\n') and listed_in(session_file))
        assert [entry["gid"] for entry in listed_in(session_file)] == [gid]
        assert _mode(session_file) == 0o600
        assert "s3cret" in session_file.read_text()
        manager.pause(gid)
        until(lambda: listed_in(session_file)[0]["status"] == "paused")
        manager.cancel(gid, remove_files=True)
        until(lambda: not listed_in(session_file))
    assert [name for name in names(session_file.parent) if "session" in name] == ["session.json"]


def test_it_is_not_written_while_nothing_changes(
    manage: Make, server: MisbehavingServer, valve: Valve, target: Path, session_file: Path
) -> None:
    with manage(session_file=session_file) as manager:
        manager.download(server.url("/valve/x", size="100M"), into(target))
        until(session_file.exists)
        before = session_file.stat().st_mtime_ns
        time.sleep(1.3)
        assert session_file.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe\x00",
        b'{"version": 99, "downloads": []}',
        b'{"version": 1}',
        b'{"version": 1, "downloads": [{"gid": "0123456789abcdef"}]}',
        b'{"version": 1, "downloads": [{"gid": "0123456789abcdef", "url": "file:///etc/passwd", "status": "paused",'
        b' "filename": "", "options": {}}]}',
        b'{"version": 1, "downloads": [{"gid": "0123456789abcdef", "url": "http://h/", "status": "asleep",'
        b' "filename": "", "options": {}}]}',
        b'{"version": 1, "downloads": [{"gid": "0123456789abcdef", "url": "http://h/", "status": "paused",'
        b' "filename": "", "options": {"spilt": 4}}]}',
        b'{"version": 1, "downloads": [{"gid": 5, "url": "http://h/", "status": "paused",'
        b' "filename": "", "options": {}}]}',
        b'{"version": 1, "downloads": [{"gid": "0123456789abcdef", "url": "http://h/", "status": "paused",'
        b' "filename": ["x"], "options": {}}]}',
        b'{"version": 1, "downloads": [' + b"[" * 100_000,
        b'{"version": 3}\n',
    ],
)
def test_a_damaged_one_is_set_aside_with_a_warning(
    manage: Make, session_file: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    session_file.write_bytes(damage)
    with manage(session_file=session_file) as manager:
        assert manager.list_downloads() == []
    assert session_file.with_name("session.json.bad").read_bytes() == damage
    assert "set aside" in caplog.text
    with manage(session_file=session_file):
        pass


def test_a_place_that_cannot_be_written_is_a_warning(
    manage: Make, server: MisbehavingServer, target: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with manage(session_file=tmp_path / "missing" / "session.json") as manager:
        assert manager.download_and_wait(server.url("/good/x", size=SMALL), into(target)).size == SMALL
    assert "the session cannot be saved" in caplog.text


def test_a_manager_may_be_asked_before_it_is_started(
    manage: Make, server: MisbehavingServer, valve: Valve, target: Path, session_file: Path
) -> None:
    with manage(session_file=session_file) as manager:
        gid = manager.download(server.url("/valve/x", size=SIZE), into(target))
        until(lambda: downloaded(manager, gid) > MIB)
        manager.pause(gid)
    assert names(target.parent) == begun(target)
    manager = manage(session_file=session_file)
    assert not manager.is_started
    assert _listed(manager) == {gid: DownloadStatus.PAUSED}
    assert manager.get_download_progress(gid).filename == "file.bin"
    manager.cancel(gid, remove_files=True)
    assert names(target.parent) == []
    manager.stop()
    with manage(session_file=session_file) as manager:
        assert manager.list_downloads() == []


def test_every_option_survives(
    manage: Make, target: Path, session_file: Path, tmp_path: Path, server: MisbehavingServer
) -> None:
    cookies = tmp_path / "cookies.txt"
    cookies.write_text("# Netscape HTTP Cookie File\n")
    options: dict[str, Any] = into(target) | {
        "mirrors": ("http://127.0.0.1:1/x",),
        "checksum": f"md5={'0' * 32}",
        "expected_size": 7,
        "min_split_size": "2M",
        "max_download_limit": "3M",
        "headers": {"X-A": "b"},
        "cookies": cookies,
        "github_mirrors": ("https://mirror.example/",),
        "use_github_mirror": True,
        "overwrite": True,
        "read_timeout": 7.5,
        "refresh_url": str,
    }
    with manage(session_file=session_file) as manager:
        first = manager.download(server.url("/stall/x", headers=0), options)
        manager.pause(first)
        wanted = downloads_of(manager).find(first).options
    manager = manage(session_file=session_file)
    kept = downloads_of(manager).find(first).options.to_dict()
    assert kept == wanted.to_dict() | {"saveDir": str(target.parent), "cookies": str(cookies)}


def test_a_session_that_cannot_be_read_now_is_left_alone(session_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = '{"version": 1, "downloads": []}'
    session_file.write_text(text)

    def fail(*_: object, **__: object) -> str:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", fail)
        with pytest.raises(LocalError, match="cannot be read"):
            DownloadManager(session_file=session_file).start()
    assert session_file.read_text() == text
    assert not session_file.with_name(session_file.name + ".bad").exists()


def test_a_bad_entry_costs_itself_alone(
    manage: Make, server: MisbehavingServer, target: Path, session_file: Path
) -> None:
    cookies = target.with_name("cookies.txt")
    cookies.touch()
    with manage(session_file=session_file) as manager:
        gids = [
            manager.download(server.url("/status/x", code=404, id=number), into(target, number, **options))
            for number, options in enumerate(({}, {"cookies": cookies}, {}))
        ]
        until(lambda: all(status_of(manager, gid) is DownloadStatus.ERROR for gid in gids))
    cookies.unlink()
    entries = listed_in(session_file)
    entries[2]["options"]["from_a_newer_version"] = 1
    session_file.write_text("".join(f"{json.dumps(each)}\n" for each in [{"version": 2}, *entries]))
    with manage(session_file=session_file) as manager:
        assert list(_listed(manager)) == gids[:1]
        assert status_of(manager, gids[0]) is DownloadStatus.ERROR  # it is not retried automatically
    aside = listed_in(session_file.with_name(session_file.name + ".bad"))
    assert [entry["gid"] for entry in aside] == gids[1:]


def test_another_directory_changes_nothing_that_was_submitted(
    manage: Make, server: MisbehavingServer, valve: Valve, tmp_path: Path, session_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    monkeypatch.chdir(here)
    with manage(session_file=session_file, max_concurrent_downloads=1) as manager:
        manager.download(server.url("/valve/x", size=SIZE), {"filename": "one", **QUICK})
        gid = manager.download(server.url("/good/x", size=SMALL), {"filename": "two", **QUICK})
        monkeypatch.chdir(there)
    with manage(session_file=session_file) as manager:
        valve.open()
        assert manager.wait(gid, timeout=30).path == here / "two"
        until(lambda: (here / "one").exists(), 30)
    assert list(there.iterdir()) == []
