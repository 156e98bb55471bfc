"""``~`` at the start of a path means the user's home, as in a shell, wherever a path can be given."""

from pathlib import Path

import pytest

import rangefetch
from rangefetch import DownloadManager, DownloadOptions, fetch_many
from rangefetch.aria2.config import DaemonConfig
from rangefetch.net.credentials import netrc_path
from servers.misbehaving import MisbehavingServer
from support.command_line import errors, run

SIZE = 3000


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory; the working directory is outside it."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(elsewhere)
    return home


def test_in_the_path_of_fetch(server: MisbehavingServer, home: Path) -> None:
    url = server.url("/good/x.bin", size=SIZE)
    assert rangefetch.fetch(url, "~/d/").path == home / "d" / "x.bin"
    assert rangefetch.fetch(url, "~/y.bin").path == home / "y.bin"
    assert rangefetch.fetch(url, Path("~/z.bin")).path == home / "z.bin"
    assert rangefetch.fetch(url, "~").path == home / "x.bin"
    assert not list(Path.cwd().iterdir())


def test_in_directories_and_other_files(server: MisbehavingServer, home: Path) -> None:
    url = server.url("/good/x.bin", size=SIZE)
    (home / "cookies.txt").write_text("# Netscape HTTP Cookie File\n")
    fetch_many([url, (url + "&id=2", {"save_dir": "~/own"})], "~/many", trace="~/trace", cookies="~/cookies.txt")
    assert (home / "many" / "x.bin").is_file()
    assert (home / "own" / "x.bin").is_file()
    assert (home / "trace").is_file()
    with DownloadManager(session_file="~/session", defaults={"save_dir": "~/default"}) as manager:
        assert manager.download_and_wait(url).path == home / "default" / "x.bin"
        assert manager.download_and_wait(url, {"save_dir": "~/mine"}).path == home / "mine" / "x.bin"
    assert (home / "session").is_file()
    assert not list(Path.cwd().iterdir())


def test_in_the_aria2_backends_paths(home: Path) -> None:
    assert DaemonConfig(download_dir="~/x").download_dir == str(home / "x")


@pytest.mark.parametrize("words", [["--dir=~/x"], ["-d", "~/x"], ["--output-dir", "~/x"]])
def test_on_the_command_line(server: MisbehavingServer, home: Path, words: list[str]) -> None:
    url = server.url("/good/x.bin", size=SIZE)
    (home / "list").write_text(url)
    (home / "conf.toml").write_text("split = 1\n")
    for more in ([url, "--trace=~/trace"], ["--conf-path=~/conf.toml", "-i", "~/list"]):
        said = run(Path.cwd(), *words, *more, HOME=str(home))
        assert (said.returncode, said.stdout) == (0, f"{home / 'x' / 'x.bin'}\n"), said.stderr
    assert (home / "trace").is_file()
    assert not list(Path.cwd().iterdir())


def test_without_a_home_that_is_said(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    import pwd

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("save_dir", "trace", "ca_file"):
        with pytest.raises(ValueError, match=f"{name}: .*no home directory"):
            DownloadOptions.of({name: "~/x"})
    assert not netrc_path(DownloadOptions(netrc=True)).exists()
    # If there is no such user, ``~name`` is an ordinary name.
    assert DownloadOptions(save_dir="~no-such-user/x").save_dir == "~no-such-user/x"


def test_a_home_that_is_not_there_is_named(server: MisbehavingServer, home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = run(Path.cwd(), server.url("/good/x.bin"), "--dir=~/x", HOME=str(tmp_path / "file"))
    assert said.returncode == 1
    [line] = errors(said)
    assert str(tmp_path / "file" / "x") in line
