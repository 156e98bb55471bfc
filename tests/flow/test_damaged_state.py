"""What an earlier run left is used only if it is intact and fits; otherwise the download starts over and logs that."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from flow.children import as_json, child, run_child
from rangefetch import DownloadManager
from rangefetch.errors import DiskError, TargetLocked
from servers.directed import Valve
from servers.misbehaving import MisbehavingServer, content
from support.downloads import fails, fetch, interrupt
from support.files import MIB, names
from support.waiting import until

SIZE = 9 * MIB + 12_345


def _state(target: Path) -> Path:
    return target.with_name(f"{target.name}.part.json")


def _part(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def _flip_a_bit(target: Path) -> None:
    octets = bytearray(_state(target).read_bytes())
    octets[octets.index(b"bitmap") + 10] ^= 1
    _state(target).write_bytes(octets)


def _claim_all_is_done(target: Path) -> None:
    document = json.loads(_state(target).read_bytes())
    document["bitmap"] = "f" * (len(document["bitmap"]) - 2) + "c0"
    document["partial"] = {}
    _state(target).write_text(json.dumps(document))


def _write(octets: bytes) -> Callable[[Path], None]:
    return lambda target: [_state(target).write_bytes(octets)].clear()


def _cut(target: Path) -> None:
    os.truncate(_state(target), _state(target).stat().st_size // 2)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "cut": _cut,
    "a flipped bit": _flip_a_bit,
    "written by hand": _claim_all_is_done,
    "empty": _write(b""),
    "not JSON": _write(b"\x00\xff not JSON"),
    "another version": _write(b'{"version":1}\n'),
    "nested": _write(b"[" * 100_000),
    "a shorter part": lambda target: os.truncate(_part(target), MIB // 2),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_state_is_set_aside_with_a_warning(
    server: MisbehavingServer, valve: Valve, target: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = server.url("/valve/x", size=SIZE)
    interrupt(url, target, MIB)
    DAMAGE[damage](target)
    valve.open()
    result = fetch(url, target)
    assert target.read_bytes() == content(SIZE)
    assert result.resumed == 0
    assert names(target.parent) == ["file.bin", "file.bin.part.json.bad"]
    [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert str(_state(target)) in warning
    assert len(warning.splitlines()) == 1


def test_a_state_of_another_urls_file_is_dropped_with_a_warning(
    server: MisbehavingServer, valve: Valve, target: Path, caplog: pytest.LogCaptureFixture
) -> None:
    interrupt(server.url("/valve/x", size=SIZE), target, MIB)
    fetch(server.url("/good/x", size=SIZE, seed=1), target)
    assert target.read_bytes() == content(SIZE, 1)
    assert "another URL" in caplog.text
    assert names(target.parent) == ["file.bin"]


@pytest.mark.parametrize("what", ["part", "part emptied", "state"])
def test_half_of_what_was_left_is_nothing(server: MisbehavingServer, valve: Valve, target: Path, what: str) -> None:
    url = server.url("/valve/x", size=SIZE)
    interrupt(url, target, MIB)
    match what:
        case "part":
            _part(target).unlink()
        case "part emptied":
            os.truncate(_part(target), 0)
        case "state":
            _state(target).unlink()
    valve.open()
    assert fetch(url, target).resumed == 0
    assert target.read_bytes() == content(SIZE)
    assert names(target.parent) == ["file.bin"]


@pytest.mark.parametrize("what", ["directory", "link", "pipe"])
def test_a_state_that_is_no_file_is_set_aside(server: MisbehavingServer, valve: Valve, target: Path, what: str) -> None:
    url = server.url("/valve/x", size=SIZE)
    interrupt(url, target, MIB)
    elsewhere = target.parent.parent / "elsewhere"
    shutil.move(_state(target), elsewhere)
    match what:
        case "directory":
            _state(target).mkdir()
        case "link":
            _state(target).symlink_to(elsewhere)
        case "pipe":
            os.mkfifo(_state(target))
    valve.open()
    assert fetch(url, target).resumed == 0
    assert target.read_bytes() == content(SIZE)
    assert elsewhere.exists()


def test_a_part_that_is_a_link_is_not_followed(server: MisbehavingServer, target: Path) -> None:
    elsewhere = target.parent.parent / "elsewhere"
    elsewhere.write_bytes(b"precious")
    _part(target).symlink_to(elsewhere)
    fetch(server.url("/good/x", size=SIZE), target)
    assert target.read_bytes() == content(SIZE)
    assert elsewhere.read_bytes() == b"precious"
    assert _part(target).is_symlink()
    assert names(target.parent) == ["file.bin", "file.bin.part"]


def test_a_part_that_is_removed_midway_is_a_clear_error(
    server: MisbehavingServer, valve: Valve, target: Path, manager: DownloadManager
) -> None:
    gid = manager.download(server.url("/valve/x", size=SIZE), {"save_dir": target.parent, "filename": target.name})
    until(lambda: manager.get_download_progress(gid).downloaded > 0)
    _part(target).unlink()
    valve.open()
    with pytest.raises(DiskError, match="removed or replaced"):
        manager.wait(gid)
    assert not target.exists()


def test_the_second_process_on_a_target_is_refused_at_once(
    server: MisbehavingServer, valve: Valve, target: Path
) -> None:
    url = server.url("/valve/x", size=16 * MIB)
    with child("fetch", url, target, as_json()) as first:
        # It takes its lock once it has a response, before it writes anything.
        until(lambda: any(path.stat().st_size for path in target.parent.iterdir()))
        valve.narrow(256 << 10)
        error = fails(TargetLocked, url, target)
        assert str(target) in str(error)
        second = run_child("fetch", url, target)
        assert second.returncode == 1
        assert second.stdout.startswith("TargetLocked: ")
        fails(TargetLocked, server.url("/good/y", size=5), target)
        assert first.poll() is None
        valve.open()
        assert first.wait(10) == 0
    assert target.read_bytes() == content(16 * MIB)
    assert names(target.parent) == ["file.bin"]


def test_the_second_download_of_a_process_on_a_target_is_refused_at_once(
    server: MisbehavingServer, valve: Valve, target: Path, manager: DownloadManager
) -> None:
    url, where = server.url("/valve/x", size=SIZE), {"save_dir": target.parent, "filename": target.name}
    gid = manager.download(url, where)
    until(lambda: manager.get_download_progress(gid).downloaded > 0)
    with pytest.raises(TargetLocked):
        manager.download_and_wait(url, where)
    fails(TargetLocked, url, target)
    valve.open()
    manager.wait(gid)
    assert target.read_bytes() == content(SIZE)


def test_two_downloads_of_a_url_into_a_directory_do_not_mix(
    server: MisbehavingServer, valve: Valve, target: Path, manager: DownloadManager
) -> None:
    url = server.url("/valve/x", size=SIZE)
    gid = manager.download(url, {"save_dir": target.parent})
    until(lambda: manager.get_download_progress(gid).downloaded > 0)
    with pytest.raises(TargetLocked):
        manager.download_and_wait(url, {"save_dir": target.parent})
    valve.open()
    assert manager.wait(gid).path.read_bytes() == content(SIZE)
