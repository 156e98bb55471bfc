"""Several downloads whose files would have the same name: the server's name counts, and no two files share one."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from backends.conftest import Make
from rangefetch import DownloadManager, DownloadOptions, DownloadResult, DownloadStatus, bulk
from rangefetch.errors import TargetExists
from rangefetch.items import understand
from rangefetch.manager import downloads_of
from servers.directed import Valve
from servers.misbehaving import MisbehavingServer, content
from support.downloads import QUICK, SIZE, downloaded, into, status_of
from support.files import names
from support.waiting import until

SMALL = 3000


def _fetch_many(manager: DownloadManager, items: list[Any], directory: Path, **options: Any) -> list[Any]:
    """``fetch_many`` on this manager."""
    options = QUICK | options | {"save_dir": directory}
    common = DownloadOptions.of(options)
    wanted = [understand(number, item, common) for number, item in enumerate(items)]
    return list(bulk._Bulk(downloads_of(manager), wanted, common, None, None).run())


def _named(server: MisbehavingServer, number: int, name: str, size: int = SMALL) -> str:
    """The URL of a file to which the server gives this name, while its URL ends like those of the others."""
    value = f'attachment; filename="{name}"'
    return server.url("/disposition/download", size=size, seed=number, id=str(number), value=value)


def _hold_content(directory: Path, *seeds: int, size: int = SMALL) -> bool:
    """Whether the files in the directory have the contents with these seeds, whatever their names."""
    return sorted(path.read_bytes() for path in directory.iterdir()) == sorted(content(size, seed) for seed in seeds)


@pytest.mark.parametrize("how", ["disposition", "redirect"])
@pytest.mark.parametrize("size", [SMALL, SIZE])
def test_urls_that_end_alike_become_the_files_that_the_server_names(
    manage: Make, server: MisbehavingServer, target: Path, how: str, size: int
) -> None:
    urls = [
        _named(server, number, f"n{number}.bin", size)
        if how == "disposition"
        else server.url("/redirect/download", to=f"/good/n{number}.bin?size={size}&seed={number}")
        for number in range(3)
    ]
    results = _fetch_many(manage(), urls, target.parent)
    assert [result.filename for result in results] == ["n0.bin", "n1.bin", "n2.bin"]
    for number, result in enumerate(results):
        assert result.path.read_bytes() == content(size, number)
    assert names(target.parent) == ["n0.bin", "n1.bin", "n2.bin"]


@pytest.mark.parametrize("how", ["by the server", "by the URL"])
@pytest.mark.parametrize("size", [SMALL, SIZE])
def test_of_two_that_have_one_name_the_second_is_refused_before_its_bytes_are_fetched(
    manage: Make, server: MisbehavingServer, target: Path, how: str, size: int
) -> None:
    urls = [
        _named(server, number, "same.bin", size)
        if how == "by the server"
        else server.url(f"/good/{number}/same.bin", size=size, seed=number)
        for number in range(2)
    ]
    first, second = _fetch_many(manage(), urls, target.parent)
    assert isinstance(first, DownloadResult)
    assert isinstance(second, TargetExists)
    assert "same.bin" in str(second)
    assert names(target.parent) == ["same.bin"]
    assert first.path.read_bytes() == content(size, 0)
    if how == "by the URL":
        # Samples may still be fetched for a comparison with the existing file.
        server.wait_idle()
        assert sum(each.bytes_sent for each in server.requests if each.path.startswith("/good/1/")) < min(size, 1 << 20)


@pytest.mark.parametrize("size", [SMALL, SIZE])
def test_or_it_is_numbered_where_that_is_wanted_and_found_again(
    manage: Make, server: MisbehavingServer, target: Path, size: int
) -> None:
    urls = [_named(server, number, "same.tar.gz", size) for number in range(3)]
    urls += [server.url(f"/good/{number}/bare", size=size, seed=number) for number in range(3, 5)]
    results = _fetch_many(manage(), urls, target.parent, auto_file_renaming=True)
    there = ["bare", "bare.1", "same.tar.1.gz", "same.tar.2.gz", "same.tar.gz"]
    assert names(target.parent) == there
    assert results[0].filename == "same.tar.gz"
    for number, result in enumerate(results):
        assert result.path.read_bytes() == content(size, number)
    again = _fetch_many(manage(), urls, target.parent, auto_file_renaming=True)
    assert [result.path for result in again] == [result.path for result in results]
    assert all(result.already_complete for result in again)
    assert names(target.parent) == there


def test_of_two_at_work_one_gets_the_name_and_nothing_of_the_other_is_left(
    manage: Make, server: MisbehavingServer, valve: Valve, target: Path
) -> None:
    header = 'Content-Disposition: attachment; filename="same.bin"'
    manager = manage()
    options = QUICK | {"save_dir": target.parent}
    first = manager.download(server.url("/valve/x", size=SIZE, header=header), options)
    until(lambda: downloaded(manager, first) > 0)
    with pytest.raises(TargetExists, match="another download will have that name"):
        manager.download_and_wait(_named(server, 1, "same.bin", SIZE), options)
    assert status_of(manager, first) is DownloadStatus.ACTIVE
    assert not [name for name in names(target.parent) if name == "same.bin"]
    valve.open()
    assert manager.wait(first, 60).filename == "same.bin"
    assert names(target.parent) == ["same.bin"]
    assert _hold_content(target.parent, 0, size=SIZE)


def test_a_name_is_free_again_when_its_download_has_ended(
    manage: Make, server: MisbehavingServer, valve: Valve, target: Path
) -> None:
    manager = manage()
    options = QUICK | {"save_dir": target.parent}
    header = 'Content-Disposition: attachment; filename="same.bin"'
    first = manager.download(server.url("/valve/x", size=SIZE, header=header), options)
    until(lambda: downloaded(manager, first) > 0)
    manager.cancel(first, remove_files=True)
    assert manager.download_and_wait(_named(server, 1, "same.bin"), options).filename == "same.bin"


def test_a_name_that_the_user_gives_twice_is_numbered(manage: Make, server: MisbehavingServer, target: Path) -> None:
    manager = manage()
    gids = [
        manager.download(
            server.url(f"/slow/{seed}", size=SMALL, seed=seed, rate="20K"), into(target, auto_file_renaming=True)
        )
        for seed in range(3)
    ]
    assert {manager.wait(gid, 60).filename for gid in gids} == {"file.bin", "file.1.bin", "file.2.bin"}
    assert _hold_content(target.parent, 0, 1, 2)


def test_with_a_checksum_it_is_numbered_beside_another_file(
    manage: Make, server: MisbehavingServer, target: Path
) -> None:
    target.write_bytes(b"of somebody else")
    checksum = "sha-256=" + hashlib.sha256(content(SIZE)).hexdigest()
    options = into(target, auto_file_renaming=True, checksum=checksum)
    manager = manage()
    for already in (False, True):
        result = manager.download_and_wait(server.url("/good/x", size=SIZE), options)
        assert (result.filename, result.already_complete) == ("file.1.bin", already)
    assert target.read_bytes() == b"of somebody else"
    assert target.with_name("file.1.bin").read_bytes() == content(SIZE)
    assert names(target.parent) == ["file.1.bin", "file.bin"]


def test_a_file_that_gets_the_name_meanwhile_is_left_alone(
    manage: Make, server: MisbehavingServer, valve: Valve, target: Path
) -> None:
    manager = manage()
    gid = manager.download(server.url("/valve/x", size=SIZE), into(target, auto_file_renaming=True))
    until(lambda: downloaded(manager, gid) > 0)
    target.write_bytes(b"of somebody else")
    valve.open()
    assert manager.wait(gid, 60).filename == "file.1.bin"
    assert target.read_bytes() == b"of somebody else"
    assert names(target.parent) == ["file.1.bin", "file.bin"]


def test_it_resumes_under_its_number(manage: Make, server: MisbehavingServer, valve: Valve, target: Path) -> None:
    target.write_bytes(b"of somebody else")
    url, options = (
        server.url("/valve/file.bin", size=SIZE),
        QUICK | {"save_dir": target.parent, "auto_file_renaming": True},
    )
    manager = manage()
    gid = manager.download(url, options)
    until(lambda: downloaded(manager, gid) > 5 << 20)
    manager.stop()
    valve.open()
    result = manage().download_and_wait(url, options)
    assert (result.filename, result.resumed > 0) == ("file.1.bin", True)
    assert result.path.read_bytes() == content(SIZE)


def test_the_same_url_twice_is_one_file(manage: Make, server: MisbehavingServer, target: Path) -> None:
    urls = [server.url(f"/good/{number}/same.bin", size=SMALL, seed=number) for number in range(2)]
    outcomes = _fetch_many(manage(), [*urls, *urls], target.parent, auto_file_renaming=True)
    assert outcomes[:2] == outcomes[2:]
    assert names(target.parent) == ["same.1.bin", "same.bin"]
