"""A file's name if the user gave none: the server's, made safe, otherwise the URL's, otherwise a default."""

import contextlib
import os
import urllib.request
from pathlib import Path

import pytest

import rangefetch
from rangefetch import DownloadManager
from rangefetch.disk import state
from rangefetch.disk.target import Target
from servers.misbehaving import MisbehavingServer, content
from support.downloads import fetch
from support.files import names
from support.waiting import until

SIZE = 50_001


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('attachment; filename="disposed.bin"', "disposed.bin"),
        ("attachment; filename=bare.bin", "bare.bin"),
        ("inline; FileName = spaced out.bin", "spaced out.bin"),
        ("attachment; filename=ascii; filename*=UTF-8''na%C3%AFve%20%E2%82%AC.txt", "naïve €.txt"),
        ('attachment; filename="naïve.txt"', "naïve.txt"),
        ('attachment; filename="naïve €.txt"', "naïve €.txt"),
        ('attachment; filename="Ã©.txt"', "Ã©.txt"),
        ('attachment; filename="../../etc/passwd"', "passwd"),
        ('attachment; filename="/etc/passwd"', "passwd"),
        (r'attachment; filename="..\\..\\boot.ini"', "boot.ini"),
        ("attachment; filename*=UTF-8''..%2F..%2Fetc%2Fpasswd", "passwd"),
        ("attachment; filename*=UTF-8''a%00b%0Ac", "abc"),
        ('attachment; filename="tab\there"', "tabhere"),
        ('attachment; filename="vertical\x0btab"', "verticaltab"),
        ('attachment; filename="line\u2028end.bin"', "lineend.bin"),
        ('attachment; filename="next\x85line.bin"', "nextline.bin"),
        ('attachment; filename="NUL.txt"', "_NUL.txt"),
        ('attachment; filename=".."', "x"),
        ('attachment; filename=""', "x"),
        ("attachment", "x"),
        ("", "x"),
    ],
)
def test_the_name_is_that_of_content_disposition_made_safe(
    server: MisbehavingServer, target: Path, disposition: str, name: str
) -> None:
    result = fetch(server.url("/disposition/x", size=SIZE, value=disposition), target.parent)
    assert names(target.parent) == [name]
    assert names(target.parent.parent) == [target.parent.name]
    assert result.path == target.parent / name
    assert result.filename == name
    assert result.path.read_bytes() == content(SIZE)


def test_a_name_in_latin_1_is_read(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/disposition/x", size=SIZE) + '&value=attachment%3B+filename%3D"caf%E9.txt"'
    fetch(url, target.parent)
    assert names(target.parent) == ["café.txt"]


def test_a_name_that_is_too_long_is_cut_and_keeps_its_extension(server: MisbehavingServer, target: Path) -> None:
    value = f'attachment; filename="{"n" * 300}.tar.gz"'
    fetch(server.url("/disposition/x", size=SIZE, value=value), target.parent)
    assert names(target.parent) == [f"{'n' * 193}.tar.gz"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/good/file.bin", "file.bin"),
        ("/good/a/b/c.tar.gz", "c.tar.gz"),
        ("/good/my%20file%C3%A9.bin", "my fileé.bin"),
        ("/good/..%2F..%2Fevil", "evil"),
        ("/good/%2Fetc%2Fpasswd", "passwd"),
        ("/good/a%00b", "ab"),
        ("/good", "good"),
        ("/good/", "download"),
        ("/good/%2E%2E%20", "download"),
    ],
)
def test_else_it_is_that_of_the_url_else_a_default(
    server: MisbehavingServer, target: Path, path: str, name: str
) -> None:
    fetch(server.url(path, size=SIZE) + "#fragment/x", target.parent)
    assert names(target.parent) == [name]
    assert names(target.parent.parent) == [target.parent.name]
    assert (target.parent / name).read_bytes() == content(SIZE)


def test_the_final_url_names_the_file(server: MisbehavingServer, target: Path) -> None:
    fetch(server.url("/redirect/first.bin", to=f"/good/last.bin?size={SIZE}"), target.parent)
    assert names(target.parent) == ["last.bin"]


def test_where_the_final_url_has_no_name_the_first_has(server: MisbehavingServer, target: Path) -> None:
    fetch(server.url("/redirect/first.bin", to=f"/good/?size={SIZE}"), target.parent)
    assert names(target.parent) == ["first.bin"]


def test_the_users_name_goes_before_the_servers(server: MisbehavingServer, target: Path) -> None:
    fetch(server.url("/disposition/x", size=SIZE), target)
    assert names(target.parent) == ["file.bin"]


def test_no_path_means_the_working_directory(
    server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(target.parent)
    result = rangefetch.fetch(server.url("/good/x.bin", size=SIZE))
    assert names(target.parent) == ["x.bin"]
    assert result.path == target.with_name("x.bin")


def test_a_relative_path_is_of_the_directory_at_the_call(
    server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(target.parent)
    with DownloadManager() as manager:
        gid = manager.download(server.url("/slow/x", size=SIZE, rate="200K"), {"filename": "y"})
        until(lambda: manager.get_download_progress(gid).downloaded)
        monkeypatch.chdir("/")
        assert manager.wait(gid).path == target.with_name("y")


@pytest.mark.parametrize("path", ["{}", "{}/"])
def test_a_directory_or_a_trailing_slash_means_into_it(server: MisbehavingServer, target: Path, path: str) -> None:
    fetch(server.url("/good/x.bin", size=SIZE), path.format(target.parent))
    assert names(target.parent) == ["x.bin"]


def test_a_path_may_be_anything_that_is_a_path(server: MisbehavingServer, target: Path) -> None:
    entry: os.PathLike[str] = target
    rangefetch.fetch(server.url("/good/x.bin", size=SIZE), entry)
    rangefetch.fetch(server.url("/good/x.bin", size=SIZE), os.fspath(target.with_name("other")))
    assert names(target.parent) == ["file.bin", "other"]


def test_until_the_end_the_file_is_named_after_its_url_alone(
    server: MisbehavingServer, target: Path, manager: DownloadManager
) -> None:
    url = server.url("/script/x", size=2 << 20, steps="disposition+slow:rate=1M", then="disposition")
    gid = manager.download(url, {"save_dir": target.parent})
    until(lambda: manager.get_download_progress(gid).downloaded)
    [part] = names(target.parent)
    assert part.startswith("rangefetch-")
    assert part.endswith(".part")
    manager.wait(gid)
    assert names(target.parent) == ["disposed.bin"]
    assert manager.get_download_progress(gid).filename == "disposed.bin"


def test_a_download_into_a_directory_goes_on_where_it_was(server: MisbehavingServer, target: Path) -> None:
    size = 6 << 20
    url = server.url("/script/x", size=size, steps="disposition+slow:rate=512K", then="disposition")
    with DownloadManager() as manager:
        gid = manager.download(url, {"save_dir": target.parent, "split": 1})
        until(lambda: manager.get_download_progress(gid).downloaded > 100_000)
    server.clear()
    result = fetch(url, target.parent, split=1)
    assert names(target.parent) == ["disposed.bin"]
    assert result.path.read_bytes() == content(size)
    assert result.resumed > 100_000
    assert server.bytes_sent == size - result.resumed


def test_a_name_that_nobody_told_before_every_byte_was_there_is_asked_for(
    server: MisbehavingServer, target: Path
) -> None:
    url = server.url("/disposition/x", size=100_000)
    with urllib.request.urlopen(url) as answer:
        etag = answer.headers["ETag"]
    with contextlib.closing(Target.open(target.parent, "", url)) as begun:
        os.pwrite(begun.fd, content(100_000), 0)
        saved = state.State(
            url=url,
            resolved_url=url,
            total_size=100_000,
            supports_range=True,
            sources=[state.SourceState(url, etag)],
            block_size=65_536,
            blocks=b"\2\2",
            partial={},
        )
        state.save(begun.state_path, saved)
    server.clear()
    result = fetch(url, target.parent)
    assert names(target.parent) == ["disposed.bin"]
    assert result.path.read_bytes() == content(100_000)
    assert server.bytes_sent <= 2


@pytest.mark.parametrize(
    ("name", "made"),
    [
        (".bash_profile", "_bash_profile"),
        ("-rf", "_rf"),
        ("desktop.ini", "_desktop.ini"),
        ("file.bin.part", "file.bin.part_"),
        ("file.bin.PART.json", "file.bin.PART.json_"),
        ("file.bin.bad.1", "file.bin.bad.1_"),
    ],
)
@pytest.mark.parametrize("how", ["header", "redirect", "batch", "batch redirect"])
def test_a_name_from_a_server_is_harmless_and_never_one_of_ours(
    server: MisbehavingServer, target: Path, name: str, made: str, how: str
) -> None:
    if "redirect" in how:
        url = server.url("/redirect/x", to=f"/good/{name}?size={SIZE}")
    else:
        url = server.url("/disposition/x", size=SIZE, value=f'attachment; filename="{name}"')
    if "batch" in how:
        rangefetch.fetch_many([url], target.parent)
    else:
        fetch(url, target.parent)
    assert names(target.parent) == [made]


@pytest.mark.parametrize(("name", "made"), [("x.part", "x.part_"), (".gitattributes", ".gitattributes")])
@pytest.mark.parametrize("small", [False, True])
def test_the_users_own_url_may_name_a_hidden_file_and_none_of_ours(
    server: MisbehavingServer, target: Path, name: str, made: str, small: bool
) -> None:
    url = server.url(f"/good/{name}", size=SIZE)
    result = rangefetch.fetch_many([url], target.parent)[0] if small else fetch(url, target.parent)
    assert result.path == target.with_name(made)
    assert names(target.parent) == [made]
