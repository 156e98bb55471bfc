"""How command-line arguments are parsed."""

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from rangefetch.cli.arguments import USAGE_ERROR, Request, parse, spell_switches
from rangefetch.cli.vocabulary import Switch, make_parser
from rangefetch.manager import DownloadManager
from rangefetch.options import DownloadOptions

URL = "https://example.org/file.bin"
DIGEST = "sha-256=" + "0" * 64


@pytest.fixture(autouse=True)
def _no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's own configuration file out of the tests."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-configuration"))


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Parse a wrong command line, and return the message after checking its form and the exit status."""
    with pytest.raises(SystemExit) as ended:
        parse(words)
    assert ended.value.code == USAGE_ERROR
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("rangefetch: ")
    assert said.err.count("\n") == 1
    return said.err


def test_a_url_alone_has_the_default_options() -> None:
    assert parse([URL]) == Request(urls=(URL,), options=DownloadOptions())


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (["-d", "/data"], "save_dir", "/data"),
        (["--dir=/data"], "save_dir", "/data"),
        (["--dir", "/data"], "save_dir", "/data"),
        (["--output-dir", "/data"], "save_dir", "/data"),
        (["-o", "name"], "filename", "name"),
        (["--out=name"], "filename", "name"),
        (["-x", "32"], "max_connection_per_server", 32),
        (["-x32"], "max_connection_per_server", 32),
        (["--max-connection-per-server=32"], "max_connection_per_server", 32),
        (["-s", "5"], "split", 5),
        (["--split=5"], "split", 5),
        (["-k", "1M"], "min_split_size", 1 << 20),
        (["-k1.5K"], "min_split_size", 1536),
        (["--min-split-size", "4096"], "min_split_size", 4096),
        (["--checksum", DIGEST], "checksum", DIGEST),
        (["--checksum", DIGEST.replace("=", ":")], "checksum", DIGEST),
        (["--header", "A: 1", "-H", "B: 2"], "headers", {"A": "1", "B": "2"}),
        (["-U", "me/1"], "user_agent", "me/1"),
        (["--user-agent=me/1"], "user_agent", "me/1"),
        (["--ca-certificate", __file__], "ca_file", __file__),
        (["--cacert", __file__], "ca_file", __file__),
        (["--load-cookies", __file__], "cookies", __file__),
        (["--all-proxy", "http://proxy:1"], "proxy", "http://proxy:1"),
        (["--proxy=http://proxy:1"], "proxy", "http://proxy:1"),
        (["-t", "2.5"], "read_timeout", 2.5),
        (["--timeout=0"], "read_timeout", 0.0),
        (["--connect-timeout", "3"], "connect_timeout", 3.0),
        (["-m", "0"], "max_tries", 0),
        (["--max-tries=7"], "max_tries", 7),
        (["--check-certificate=false"], "verify_tls", False),
        (["--no-check-certificate"], "verify_tls", False),
        (["--insecure"], "verify_tls", False),
        (["--insecure", "--check-certificate=true"], "verify_tls", True),
        (["--allow-overwrite"], "overwrite", True),
        (["--allow-overwrite=true"], "overwrite", True),
        (["--allow-overwrite", "--allow-overwrite=false"], "overwrite", False),
        (["--file-allocation=none"], "file_allocation", "none"),
        (["--http-version", "2"], "http_version", "2"),
        (["-c"], "overwrite", False),
        (["--no-clobber"], "overwrite", False),
        (["--allow-overwrite", "--no-clobber"], "overwrite", False),
        (["--mirror", f"{URL}?1", f"--mirror={URL}?2"], "mirrors", (f"{URL}?1", f"{URL}?2")),
        (["--github-mirror", "https://m.example/"], "github_mirrors", ("https://m.example/",)),
        (["--expected-size=1M"], "expected_size", 1 << 20),
        (["--max-file-size=1M"], "max_file_size", 1 << 20),
        (["--max-filesize", "2K"], "max_file_size", 2048),
        (["--private-addresses=named"], "private_addresses", "named"),
        (["--durable"], "durable", True),
        (["--max-download-limit", "1M"], "max_download_limit", 1 << 20),
        (["--limit-rate=2K"], "max_download_limit", 2048),
        (["--netrc"], "netrc", True),
        (["--netrc-path", __file__], "netrc", __file__),
        (["--no-netrc=false"], "netrc", True),
        (["--netrc", "--no-netrc=true"], "netrc", False),
        (["--referer", "https://example.org/"], "headers", {"Referer": "https://example.org/"}),
        (["--allow-downgrade"], "allow_downgrade", True),
        (["--http-user=me", "--http-passwd", "s3cret"], "auth", ("me", "s3cret")),
        (["--http-user=me"], "auth", ("me", "")),
        (["--bearer-file", __file__], "bearer_file", __file__),
        (["--location-trusted=a.example", "--location-trusted", "B:8"], "location_trusted", ("a.example", "b:8")),
        (["--decode"], "decode", True),
        (["--decode-limit=1M"], "decode_limit", 1 << 20),
        (["--total-timeout", "60"], "total_timeout", 60.0),
        (["--max-time=1.5"], "total_timeout", 1.5),
        (["--retry-wait", "2"], "retry_wait", 2.0),
        (["--retry-delay=0"], "retry_wait", 0.0),
        (["--continue=true"], "overwrite", False),
    ],
)
@pytest.mark.parametrize("url_first", [False, True])
def test_an_option_becomes_a_field(words: list[str], field: str, value: object, url_first: bool) -> None:
    request = parse([URL, *words] if url_first else [*words, URL])
    assert request.urls == (URL,)
    assert request.options == DownloadOptions.of({field: value})


def test_curl_does_not_count_the_first_try() -> None:
    assert parse(["--retry", "0", URL]).options.max_tries == 1
    assert parse(["--retry=4", URL]).options.max_tries == 5


def test_options_of_the_run() -> None:
    request = parse(["-q", "--json", "-j", "7", URL])
    assert (request.quiet, request.json, request.max_concurrent_downloads) == (True, True, 7)
    assert parse(["--network-wait=7", URL]).network_wait == 7.0
    assert parse([URL]).network_wait is None
    request = parse(["--quiet=false", "--json=true", "--max-concurrent-downloads=1", URL])
    assert (request.quiet, request.json, request.max_concurrent_downloads) == (False, True, 1)
    request = parse(["--backend=native", "--prefer", "aria2", "--max-overall-download-limit", "1M", URL])
    assert (request.backend, request.prefer, request.max_overall_download_limit) == ("native", "aria2", 1 << 20)


def test_as_many_at_once_as_a_managers_default() -> None:
    defaults = inspect.signature(DownloadManager).parameters
    assert parse([URL]).max_concurrent_downloads == defaults["max_concurrent_downloads"].default


def test_every_option_of_a_download_can_be_typed() -> None:
    typed = {action.dest for action in make_parser()._actions}
    fields = {field.name for field in dataclasses.fields(DownloadOptions)}
    assert fields - typed == {"refresh_url", "auth"}  # auth is two options on the command line


def test_mirrors_of_github_need_a_rule(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--github-mirror" in refusal(capsys, "--use-github-mirror", URL)
    options = parse(["--use-github-mirror", "--github-mirror", "https://m.example/", URL]).options
    assert options.use_github_mirror


def test_one_letter_options_can_stand_together() -> None:
    request = parse(["-cqx4", URL])
    assert request.quiet
    assert request.options.max_connection_per_server == 4


def test_urls_and_options_may_be_mixed() -> None:
    request = parse([f"{URL}?1", "-x", "2", f"{URL}?2", "--json", f"{URL}?3"])
    assert request.urls == (f"{URL}?1", f"{URL}?2", f"{URL}?3")


def test_a_url_given_again_is_repeated() -> None:
    request = parse([URL, f"{URL}?1", URL, URL])
    assert request.urls == (URL, f"{URL}?1")
    assert request.repeated == (URL,)


def test_one_name_fits_one_url_given_twice() -> None:
    assert parse(["-o", "name", URL, URL]).options.filename == "name"


def test_after_two_dashes_all_are_urls(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(["-q", "--", URL]).urls == (URL,)
    assert "'--json=true'" in refusal(capsys, "--", "--json=true")


def test_what_takes_no_value_is_a_switch() -> None:
    assert [
        each.option_strings for each in make_parser()._actions if each.nargs == 0 and not isinstance(each, Switch)
    ] == []


def _switches() -> list[Switch]:
    return [action for action in make_parser()._actions if isinstance(action, Switch)]


@pytest.mark.parametrize("switch", _switches(), ids=lambda switch: switch.shown[-1])
def test_every_switch_is_turned_on_and_off_in_each_way(switch: Switch, capsys: pytest.CaptureFixture[str]) -> None:
    """``--name``, ``--no-name``, and each with ``=true`` and ``=false``."""
    if "--help" in switch.shown or "--continue" in switch.shown:
        return  # tested below
    positive = next(name for name in switch.option_strings if name.startswith("--") and name[:5] != "--no-")
    negative = f"--no-{positive[2:]}"
    ways: dict[bool, list[str]] = {
        True: [positive, f"{positive}=true", f"{negative}=false"],
        False: [negative, f"{negative}=true", f"{positive}=false"],
    }
    read = {
        is_on: {repr(vars(make_parser().parse_args(spell_switches(make_parser(), [word])))) for word in words}
        for is_on, words in ways.items()
    }
    assert len(read[True]) == len(read[False]) == 1
    assert read[True] != read[False]
    for word in ways[True] + ways[False]:
        if switch.dest != "version" and "conf" not in switch.dest and "github" not in switch.dest:
            assert parse([word, URL]).urls == parse([URL, word]).urls == (URL,)
    assert "neither true nor false" in refusal(capsys, f"{positive}=perhaps", URL)
    assert "neither true nor false" in refusal(capsys, f"{negative}=perhaps", URL)


def test_a_switch_of_one_letter_takes_true_and_false_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(["-q=true", "-c=true", URL]).quiet
    assert not parse(["-q", "-q=false", URL]).quiet
    assert "--continue" in refusal(capsys, "-c=false", URL)
    assert refusal(capsys, "-q=perhaps", URL) == "rangefetch: -q: 'perhaps' is neither true nor false\n"


def test_to_continue_cannot_be_turned_off(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("-c", "--continue", "--continue=true", "--no-continue=false"):
        assert parse([word, URL]).urls == (URL,)
    for word in ("--no-continue", "--continue=false", "--no-continue=true"):
        assert "--continue" in refusal(capsys, word, URL)


@pytest.mark.parametrize("word", ["-h", "--help", "--help=true", "--no-help=false"])
def test_help_is_a_switch_too(capsys: pytest.CaptureFixture[str], word: str) -> None:
    with pytest.raises(SystemExit) as ended:
        parse([word])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: rangefetch")
    assert parse(["--help=false", URL]).urls == parse(["--no-help", URL]).urls == (URL,)


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (["--insecure"], "verify_tls", False),
        (["--insecure=true"], "verify_tls", False),
        (["--insecure=false"], "verify_tls", True),
        (["--no-insecure"], "verify_tls", True),
        (["--check-certificate=false", "--no-insecure"], "verify_tls", True),
        (["--no-check-certificate"], "verify_tls", False),
        (["--no-clobber"], "overwrite", False),
        (["--no-clobber=false"], "overwrite", True),
        (["--clobber"], "overwrite", True),
        (["--allow-overwrite", "--no-clobber"], "overwrite", False),
    ],
)
def test_a_switch_that_is_the_opposite_of_another(words: list[str], field: str, value: bool) -> None:
    assert getattr(parse([*words, URL]).options, field) is value


def test_help_shows_each_switch_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"])
    said = capsys.readouterr().out
    assert "--no-clobber" in said
    assert "--no-conf" in said
    for name in ("--no-json", "--no-quiet", "--clobber,", "--no-insecure", "--no-no-"):
        assert name not in said


def test_version_needs_no_url() -> None:
    assert parse(["--version"]).version
    assert parse(["-v"]).version


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["-x", "0", URL], "-x/--max-connection-per-server"),
        (["-x", "many", URL], "-x/--max-connection-per-server"),
        (["-s", "-1", URL], "-s/--split"),
        (["-s", "1.5", URL], "-s/--split"),
        (["-k", "big", URL], "-k/--min-split-size"),
        (["-j", "0", URL], "-j/--max-concurrent-downloads"),
        (["-j", "x", URL], "-j/--max-concurrent-downloads"),
        (["-o", "a", URL, f"{URL}?1"], "-o/--out"),
        (["-o", "a/b", URL], "-o/--out"),
        (["-o", "..", URL], "-o/--out"),
        (["--out"], "-o/--out"),
        (["-m", "-1", URL], "-m/--max-tries"),
        (["--retry", "-1", URL], "--retry"),
        (["-t", "soon", URL], "-t/--timeout"),
        (["-t", "nan", URL], "-t/--timeout"),
        (["--connect-timeout=-1", URL], "--connect-timeout"),
        (["--checksum", "sha-256=0", URL], "--checksum"),
        (["--header", "no colon", URL], "-H/--header"),
        (["--header", "A: 1\nB: 2", URL], "-H/--header"),
        (["--header", "Range: bytes=0-1", URL], "-H/--header"),
        (["--cacert", "/no/such/file", URL], "--ca-certificate/--cacert"),
        (["--load-cookies", "/no/such/file", URL], "--load-cookies"),
        (["--file-allocation=prealloc", URL], "--file-allocation"),
        (["--http-version", "0.9", URL], "--http-version"),
        (["--allow-overwrite=perhaps", URL], "--allow-overwrite"),
        (["--continue=false", URL], "-c/--continue"),
        (["--limit-rate", "fast", URL], "--max-download-limit/--limit-rate"),
        (["--max-overall-download-limit=fast", URL], "--max-overall-download-limit"),
        (["--mirror", "ftp://example.org/", URL], "--mirror"),
        (["--mirror", URL, f"{URL}?1", f"{URL}?2"], "--mirror"),
        (["--checksum", DIGEST, f"{URL}?1", f"{URL}?2"], "--checksum"),
        (["--github-mirror", "example.org", URL], "--github-mirror"),
        (["--backend", "curl", URL], "--backend"),
        (["--prefer=auto", URL], "--prefer"),
        (["--total-timeout=-1", URL], "--total-timeout"),
        (["--no-netrc=perhaps", URL], "--no-netrc"),
        (["--no-such-option", URL], "--no-such-option"),
        (["--max-conn", "4", URL], "--max-conn"),
        ([], "no URL"),
        (["gopher://example.org/file"], "'gopher'"),
        (["example.org/file"], "no URL scheme"),
        (["https://"], "no host"),
        (["https://example.org:99999/"], "malformed"),
        (["https://example.org/a\nb"], "control character"),
    ],
)
def test_a_wrong_command_line_is_one_line_that_names_what_is_wrong(
    capsys: pytest.CaptureFixture[str], words: list[str], option: str
) -> None:
    assert option in refusal(capsys, *words)


@pytest.mark.parametrize("words", [["-k", URL], [URL, "-k"], ["-k", URL, URL]])
def test_who_means_curls_k_is_told(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert "--insecure" in refusal(capsys, *words)


def test_options_are_not_named_as_in_python(capsys: pytest.CaptureFixture[str]) -> None:
    assert "save_dir" not in refusal(capsys, "-o", "a/b", URL)


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for option in ("--dir", "--out", "-x", "-s", "-k", "-j", "--checksum", "--header", "--json", "--version"):
        assert option in said


@pytest.mark.parametrize("words", [["--help"], ["-i", "/no/such/file"], ["-x", "0", URL]])
def test_what_needs_no_engine_is_quick_to_start(words: list[str]) -> None:
    """Help and usage errors import nothing heavy."""
    script = (
        "import sys; from rangefetch.cli.main import run\n"
        "try: run()\n"
        "finally: print({'numpy', 'rich', 'pycurl', 'psutil', 'asyncio', 'rangefetch._engine'} & set(sys.modules))\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=False)
    assert ended.returncode in (0, USAGE_ERROR)
    assert ended.stdout.endswith("set()\n")
