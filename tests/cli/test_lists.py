"""``-i FILE``: many URLs, of which some may fail."""

import json
from pathlib import Path

import pytest

from servers.directed import Valve
from servers.misbehaving import MisbehavingServer, content
from servers.routing import ROUTES, Route
from support.command_line import errors, run, started
from support.files import names

COUNT = 200


@pytest.fixture
def urls(server: MisbehavingServer) -> list[str]:
    """Many small files of which every 40th is not there."""
    return [
        server.url(f"/status/bad-{number}.bin", code=404)
        if number % 40 == 7
        else server.url(f"/good/file-{number}.bin", size=1000 + number, seed=number)
        for number in range(COUNT)
    ]


@pytest.mark.parametrize("from_stdin", [False, True])
def test_many_small_files_and_some_failures(place: Path, urls: list[str], from_stdin: bool) -> None:
    text = "# some files\n\n" + "\r\n".join(urls) + "\n  \n"
    (place / "list").write_text("" if from_stdin else text)
    said = run(place, "-i", "-" if from_stdin else "list", "-d", ".", stdin=text if from_stdin else "")
    bad = [url for url in urls if "/status/" in url]
    good = [number for number in range(COUNT) if number % 40 != 7]
    assert said.returncode == 1
    assert sorted(said.stdout.splitlines()) == sorted(str(place / f"file-{number}.bin") for number in good)
    for number in good:
        assert (place / f"file-{number}.bin").read_bytes() == content(1000 + number, number)
    failures, last = errors(said), said.stderr.splitlines()[-1]
    assert len(failures) == len(bad)
    for line, url in zip(sorted(failures), sorted(bad), strict=True):
        assert line.startswith(f"rangefetch: {url}: ")
        assert "404" in line
    assert last.startswith(f"rangefetch: {len(good)} files fetched, ")
    assert last.endswith(f"; {len(bad)} failed")
    assert not [name for name in names(place) if name.endswith((".part", ".json"))]


def test_a_list_has_the_patience_of_a_single_url(server: MisbehavingServer, place: Path) -> None:
    """Nobody has given a number of tries, so a host that has answered may fail for longer than the default's."""
    urls = [server.url("/good/x", size=1000), server.url("/status/y", code=503, size=1000, times=7)]
    (place / "list").write_text("\n".join(urls))
    said = run(place, "-q", "--retry-wait=0.2", "-i", "list")
    assert (said.returncode, said.stderr) == (0, "")
    assert sum(request.status == 503 for request in server.requests) == 7


def test_json_lines_and_a_second_run(server: MisbehavingServer, place: Path, urls: list[str]) -> None:
    good = [url for url in urls if "/good/" in url][:50]
    (place / "list").write_text("\n".join(good))
    for again in (False, True):
        said = run(place, "-q", "--json", "-i", "list")
        assert (said.returncode, said.stderr) == (0, "")
        told = [json.loads(line) for line in said.stdout.splitlines()]
        assert sorted(each["url"] for each in told) == sorted(good)
        assert {each["status"] for each in told} == {"complete"}
        assert {each["alreadyComplete"] for each in told} == {again}


@pytest.mark.parametrize("size", ["40K", "9M"])
def test_results_are_said_as_they_come(
    server: MisbehavingServer, place: Path, monkeypatch: pytest.MonkeyPatch, size: str
) -> None:
    valve = Valve(1)
    monkeypatch.setitem(ROUTES, "shut", Route("shut", valve, {}))
    urls = [server.url("/shut/slow.bin", size=size), server.url("/good/quick.bin", size=1000)]
    (place / "list").write_text("\n".join(urls))
    with started(place, ["--json", "-i", "list"]) as process:
        assert process.stdout is not None
        told = [json.loads(process.stdout.readline())]
        # The other one cannot end before this.
        valve.open()
        told.append(json.loads(process.stdout.readline()))
        assert process.wait(timeout=30) == 0
    assert [each["url"] for each in told] == [urls[1], urls[0]]


def test_small_and_large_listed_and_typed(server: MisbehavingServer, place: Path) -> None:
    large = server.url("/good/large.bin", size="9M")
    listed, typed = server.url("/good/listed.bin", size="1K"), server.url("/good/typed.bin", size="2K")
    (place / "list").write_text(f"\ufeff{large}\n{listed}\n{typed}\n")
    said = run(place, typed, "-i", "list")
    assert said.returncode == 0, said.stderr
    assert sorted(said.stdout.splitlines()) == [str(place / f"{name}.bin") for name in ("large", "listed", "typed")]
    assert (place / "large.bin").read_bytes() == content("9M")
    assert "1 URL given more than once, fetched once" in said.stderr


def test_options_hold_for_a_list(server: MisbehavingServer, place: Path) -> None:
    (place / "into").mkdir()
    urls = [server.url(f"/needs/{number}.bin", size="1K", name="X-Key", value="open") for number in range(5)]
    said = run(place, "-i", "-", "-d", "into", "--header", "X-Key: open", stdin="\n".join(urls))
    assert said.returncode == 0, said.stderr
    assert names(place / "into") == [f"{number}.bin" for number in range(5)]


def test_a_list_of_one_may_have_a_name(server: MisbehavingServer, place: Path) -> None:
    assert run(place, "-i", "-", "-o", "name", stdin=server.url("/good/file.bin")).returncode == 0
    assert names(place) == ["name"]


def test_an_overall_limit_holds_for_small_files(server: MisbehavingServer, place: Path) -> None:
    urls = [server.url(f"/good/{number}.bin", size="64K", seed=number) for number in range(24)]
    said = run(place, "--json", "-i", "-", "--max-overall-download-limit", "1M", stdin="\n".join(urls))
    assert said.returncode == 0, said.stderr
    # 1.5 MiB in all, of which the first second's may come at once.
    begun = [request.time for request in server.requests]
    assert max(begun) - min(begun) > 0.3


def test_two_files_of_one_name_are_not_mixed(server: MisbehavingServer, place: Path) -> None:
    urls = [server.url("/good/a/file.bin", size="1K"), server.url("/good/b/file.bin", size="1K", seed=1)]
    said = run(place, "-i", "-", stdin="\n".join(urls))
    assert said.returncode == 1
    assert any(urls[1] in line for line in errors(said))
    assert (place / "file.bin").read_bytes() == content("1K")


@pytest.mark.parametrize("words", [["-i", "list"], ["-q", "-i", "list"]])
def test_a_list_without_urls_is_no_error(place: Path, words: list[str]) -> None:
    (place / "list").write_text("# nothing yet\n\n")
    said = run(place, *words)
    assert (said.returncode, said.stdout) == (0, "")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (
            b"http://127.0.0.1/a\ngopher://127.0.0.1/b\n",
            "list:2: 'gopher://127.0.0.1/b': the scheme 'gopher' is not supported",
        ),
        (b"\n\n out=name\n", "list:3: 'out=name': there is no URL scheme"),
        (b"http://127.0.0.1/a\thttp://127.0.0.1/b", "list:1: "),
        (b"http://127.0.0.1/\xff\n", "list:1: this is not text in UTF-8"),
        (b"http://127.0.0.1:99999/\n", "list:1: "),
    ],
)
def test_a_wrong_line_is_named_before_anything_is_fetched(place: Path, text: bytes, what: str) -> None:
    (place / "list").write_bytes(text)
    said = run(place, "-i", "list")
    assert (said.returncode, said.stdout) == (2, "")
    [line] = errors(said)
    assert f"-i/--input-file: {what}" in line
    assert names(place) == ["list"]


def test_a_list_that_cannot_be_read(place: Path) -> None:
    assert "nowhere: No such file" in run(place, "-i", "nowhere").stderr
    assert "Is a directory" in run(place, "-i", ".").stderr
    assert run(place, "-i", "nowhere").returncode == 2


def test_what_is_for_one_url_is_refused_for_more(place: Path) -> None:
    two = "http://127.0.0.1:1/a\nhttp://127.0.0.1:1/b\n"
    for words in (
        ["-o", "name"],
        ["--mirror", "http://127.0.0.1:1/c"],
        ["--checksum", "md5=" + "0" * 32],
        ["--expected-size", "1K"],
    ):
        said = run(place, *words, "-i", "-", stdin=two)
        assert said.returncode == 2
        assert words[0] in said.stderr
        assert "for 2 URLs" in said.stderr
