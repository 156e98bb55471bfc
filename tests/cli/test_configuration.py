"""The configuration file: what it may contain, where it is, and the messages about a wrong one."""

from pathlib import Path

import pytest

from rangefetch.cli.arguments import USAGE_ERROR, Request, parse
from servers.misbehaving import MisbehavingServer
from support.command_line import run
from support.files import names

URL = "https://example.org/file.bin"


@pytest.fixture
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of the configuration file, which does not exist yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "rangefetch").mkdir()
    return tmp_path / "rangefetch" / "config.toml"


def test_no_file_is_as_well(configuration: Path) -> None:
    assert parse([URL]) == Request(urls=(URL,))


def test_keys_are_the_long_names(configuration: Path) -> None:
    configuration.write_text(
        'backend = "auto"\nsplit = 4\nmin-split-size = "1M"\ncheck-certificate = false\nquiet = true\nretry = 2\n'
        'header = ["A: 1", "B: 2"]\nuser-agent = "me/1"\ntimeout = 2.5\nlimit-rate = 1024\ndir = "/data"\n'
        "max-concurrent-downloads = 3\nmax-overall-download-limit = '1M'\nno-clobber = true\n"
    )
    request = parse([URL])
    options = request.options
    assert (request.backend, request.prefer) == ("auto", "native")
    assert (request.quiet, request.max_concurrent_downloads, request.max_overall_download_limit) == (True, 3, 1 << 20)
    assert (options.split, options.min_split_size, options.verify_tls, options.max_tries) == (4, 1 << 20, False, 3)
    assert options.headers == {"A": "1", "B": "2"}
    assert (options.user_agent, options.read_timeout, options.max_download_limit) == ("me/1", 2.5, 1024)
    assert (options.save_dir, options.overwrite) == ("/data", False)


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("insecure = true", "verify_tls", False),
        ("insecure = false", "verify_tls", True),
        ("no-clobber = true", "overwrite", False),
        ("no-clobber = false", "overwrite", True),
    ],
)
def test_a_switch_is_on_or_off(configuration: Path, text: str, field: str, value: bool) -> None:
    configuration.write_text(text)
    assert getattr(parse([URL]).options, field) is value


def test_what_is_typed_comes_after(configuration: Path) -> None:
    configuration.write_text('split = 4\nquiet = true\nheader = "A: 1"\n')
    request = parse(["-s", "9", "--quiet=false", "-H", "A: 2", URL])
    assert (request.options.split, request.quiet, request.options.headers) == (9, False, {"A": "2"})


def test_another_file_or_none(configuration: Path, tmp_path: Path) -> None:
    configuration.write_text("split = 4\n")
    other = tmp_path / "other.toml"
    other.write_text("split = 5\n")
    assert parse([URL]).options.split == 4
    assert parse(["--conf-path", str(other), URL]).options.split == 5
    assert parse(["--no-conf", URL]).options.split == 16


def test_it_is_in_the_home_directory_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".config" / "rangefetch").mkdir(parents=True)
    (tmp_path / ".config" / "rangefetch" / "config.toml").write_text("split = 4\n")
    for elsewhere in ("", "relative"):
        monkeypatch.setenv("XDG_CONFIG_HOME", elsewhere)
        assert parse([URL]).options.split == 4


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("splitt = 4", "splitt: unknown option"),
        ("max_tries = 4", "max_tries: unknown option"),
        ("clobber = true", "clobber: unknown option"),
        ("no-quiet = true", "no-quiet: unknown option"),
        ("split = 0", "split: 0 is out of range"),
        ("split = true", "split: True is not a string or a number"),
        ("split = [4]", "split: [4] is not a string or a number"),
        ("split = 'many'", "split: "),
        ("max-concurrent-downloads = 0", "max-concurrent-downloads: "),
        ("max-overall-download-limit = 'x'", "max-overall-download-limit: "),
        ("quiet = 'yes'", "quiet: 'yes' is neither true nor false"),
        ("insecure = 1", "insecure: 1 is neither true nor false"),
        ("header = ['A: 1', 2020-01-01]", "header: "),
        ("header = 'no colon'", "header: a header has no colon; write 'Name: value'"),
        ("backend = 'curl'", "backend: "),
        ("out = 'name'", "out: this belongs on the command line"),
        ("conf-path = 'x'", "conf-path: this belongs on the command line"),
        ("version = true", "version: this belongs on the command line"),
        ("[split]\nx = 1", "split: "),
        ("split 4", "not valid TOML"),
        ("proxy = 'http://me:Hunter2@[::1'\nsplit = 'x'", "proxy: "),
    ],
)
def test_a_wrong_file_is_one_line_that_names_it_and_the_key(
    configuration: Path, capsys: pytest.CaptureFixture[str], text: str, what: str
) -> None:
    configuration.write_text(text)
    with pytest.raises(SystemExit) as ended:
        parse([URL])
    assert ended.value.code == USAGE_ERROR
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"rangefetch: {configuration}: {what}")
    assert "Hunter2" not in said
    configuration.unlink()
    assert parse([URL]) == Request(urls=(URL,))


def test_a_named_file_must_be_there(configuration: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path, what in ((tmp_path / "nowhere", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(SystemExit) as ended:
            parse(["--conf-path", str(path), URL])
        assert ended.value.code == USAGE_ERROR
        assert f"rangefetch: {path}: {what}" in capsys.readouterr().err


def test_a_wrong_file_does_not_hide_the_version(configuration: Path) -> None:
    configuration.write_text("splitt = 4")
    assert parse(["--version"]).version


def test_the_program_reads_it(server: MisbehavingServer, place: Path, tmp_path: Path) -> None:
    (tmp_path / "rangefetch").mkdir()
    (tmp_path / "rangefetch" / "config.toml").write_text('quiet = true\nuser-agent = "me/1"\n')
    said = run(place, server.url("/good/file.bin"), XDG_CONFIG_HOME=str(tmp_path))
    assert (said.returncode, said.stderr) == (0, "")
    assert {request.headers["user-agent"] for request in server.requests} == {"me/1"}
    assert names(place) == ["file.bin"]
