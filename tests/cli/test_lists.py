"""``-i FILE``: many URLs, some of which may fail."""

import contextlib
import gzip
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from rangefetch.cli.arguments import parse
from rangefetch.cli.display import Quiet
from rangefetch.cli.lists import MOST_COMPARED, Listing
from servers.directed import Valve
from servers.misbehaving import MisbehavingServer, content
from servers.routing import ROUTES, Route
from support.command_line import errors, run, started
from support.files import names

COUNT = 200


@pytest.fixture
def urls(server: MisbehavingServer) -> list[str]:
    """Many small files; every 40th does not exist."""
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
    """Without ``--max-tries``, a host that has answered may fail more often than the default number of tries."""
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
        # The slow file cannot end before the valve opens.
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
    # 1.5 MiB in all; the first second's share (1 MiB) may arrive at once.
    begun = [request.time for request in server.requests]
    assert max(begun) - min(begun) > 0.3


def test_two_files_of_one_name_are_not_mixed(server: MisbehavingServer, place: Path) -> None:
    urls = [server.url("/good/a/file.bin", size="1K"), server.url("/good/b/file.bin", size="1K", seed=1)]
    said = run(place, "-i", "-", stdin="\n".join(urls))
    assert said.returncode == 1
    assert any(urls[1] in line for line in errors(said))
    assert (place / "file.bin").read_bytes() == content("1K")


@pytest.mark.parametrize("words", [["-i", "list"], ["-q", "-i", "list"]])
def test_a_list_without_urls_is_one_clear_line(place: Path, words: list[str]) -> None:
    (place / "list").write_text("# nothing yet\n\n")
    said = run(place, *words)
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr == "rangefetch: -i/--input-file: list: there is nothing in it\n"


WRONG = [
    (b"gopher://127.0.0.1/b\n", "'gopher://127.0.0.1/b': the scheme 'gopher' is not supported"),
    (b"out=name\n", "'out=name': no URL scheme"),
    (b"http://127.0.0.1/\xff\n", "this is not text in UTF-8"),
    (b"http://127.0.0.1:99999/\n", "malformed"),
]


@pytest.mark.parametrize(
    ("line", "what", "from_stdin"), [(*each, False) for each in WRONG] + [(*each, True) for each in WRONG[:2]]
)
def test_a_wrong_line_is_named_and_does_not_stop_the_rest(
    server: MisbehavingServer, place: Path, line: bytes, what: str, from_stdin: bool
) -> None:
    good = [server.url(f"/good/{number}.bin", size="1K") for number in range(2)]
    text = f"{good[0]}\n".encode() + line + f"{good[1]}\n".encode()
    (place / "list").write_bytes(text)
    said = run(place, "-i", "-" if from_stdin else "list", stdin=text.decode() if from_stdin else "")
    assert said.returncode == 1
    assert len(said.stdout.splitlines()) == 2
    [error] = errors(said)
    assert f"{'standard input' if from_stdin else 'list'}:2: " in error
    assert what in error
    assert said.stderr.splitlines()[-1].endswith("; 1 line could not be used")


@pytest.mark.parametrize(("line", "what"), WRONG)
def test_with_strict_a_wrong_line_is_named_before_anything_is_fetched(place: Path, line: bytes, what: str) -> None:
    (place / "list").write_bytes(b"http://127.0.0.1/a\n" + line)
    said = run(place, "--strict", "-i", "list")
    assert (said.returncode, said.stdout) == (2, "")
    [error] = errors(said)
    assert "-i/--input-file: list:2: " in error
    assert what in error
    assert names(place) == ["list"]


def test_with_strict_a_pipe_ends_at_a_wrong_line(server: MisbehavingServer, place: Path) -> None:
    said = run(place, "--strict", "-i", "-", stdin=f"{server.url('/good/a.bin', size='1K')}\nnonsense\n")
    assert said.returncode == 2
    assert "standard input:2: " in errors(said)[-1]


def test_a_list_that_cannot_be_read(place: Path) -> None:
    for name, what in (("nowhere", "nowhere: No such file"), (".", "Is a directory"), ("", "no file is given")):
        said = run(place, "-i", name)
        assert said.returncode == 2
        [error] = errors(said)
        assert what in error
    (place / "list.csv").write_text("a,b\n1,2\n")
    said = run(place, "-i", "list.csv", "--url-column", "link", "--input-format", "csv")
    assert said.returncode == 2
    [error] = errors(said)
    assert error.endswith("list.csv: there is no column 'link' (--url-column); the columns are 'a', 'b'")
    assert run(place, "-i", "list.csv", "--name", "{").returncode == 2
    assert run(place, "-i", "list.csv", "--base-url", "x").returncode == 2
    assert run(place, "-i", "list.csv", "--input-format", "xls").returncode == 2


def test_a_table_with_directories_digests_and_a_template(server: MisbehavingServer, place: Path) -> None:
    one, two = (server.url(f"/good/{number}.bin", size="1K", seed=number) for number in (1, 2))
    right = hashlib.sha256(content("1K", 1)).hexdigest()
    (place / "list.csv").write_text(f"link,label,sha256,kind\n{one},a/b/one.bin,{right},x\n{two},,{'0' * 64},y/z\n")
    words = ["--url-column", "link", "--name-column", "label", "--name", "{kind}/{index:03d}{suffix}"]
    said = run(place, "-d", "out", "-i", "list.csv", *words)
    assert said.returncode == 1
    assert said.stdout.splitlines() == [str(place / "out" / "a" / "b" / "one.bin")]
    assert any("sha-256" in line for line in errors(said))
    (place / "list.csv").write_text(f"link,kind\n{two},y/z\n")
    assert run(place, "-d", "out", "-i", "list.csv", *words[:2], *words[4:]).returncode == 0
    assert (place / "out" / "y_z" / "000.bin").read_bytes() == content("1K", 2)


def test_a_list_at_a_url_and_names_below_it(server: MisbehavingServer, place: Path) -> None:
    said = run(place, "--input-format", "urls", "-i", server.url("/status/list.txt", code=404))
    assert said.returncode == 2
    assert "404" in errors(said)[0]


def test_two_lines_of_one_name_are_told_before_anything_is_fetched(server: MisbehavingServer, place: Path) -> None:
    one, two = (server.url(f"/good/{number}.bin", size="1K", seed=number) for number in (1, 2))
    (place / "list").write_text(f"{one}\n out=x\n{two}\n out=x\n{two}\n out=y\n")
    said = run(place, "-i", "list")
    assert said.returncode == 1
    assert errors(said) == ["rangefetch: list:3: x: line 1 has this name, too"]
    assert names(place) == ["list", "x", "y"]
    said = run(place, "--strict", "-d", "strict", "-i", "list")
    assert (said.returncode, said.stdout) == (2, "")
    said = run(place, "--auto-file-renaming", "-d", "renamed", "-i", "list")
    assert said.returncode == 0
    assert names(place / "renamed") == ["x", "x.1", "y"]


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
@pytest.mark.parametrize("header", ["", "url,path\n"])
def test_of_a_long_list_little_is_read_before_the_first_is_fetched(
    place: Path, header: str, compress: Callable[[bytes], bytes]
) -> None:
    path = place / "list"

    def read_ahead(count: int) -> int:
        lines = (f"http://127.0.0.1:1/{number}" + (f",{number // 2}\n" if header else "\n") for number in range(count))
        path.write_bytes(compress((header + "".join(lines)).encode()))
        with contextlib.closing(Listing(parse(["-i", str(path)]), Quiet())) as listing:
            items = listing.items()
            assert isinstance(items, Iterable)
            next(iter(items))
            assert listing._manifest is not None
            return listing._manifest.rows

    assert read_ahead(MOST_COMPARED - 1) == MOST_COMPARED - 1
    assert read_ahead(MOST_COMPARED + 1) == 2


def test_two_urls_that_end_alike_are_told_too(server: MisbehavingServer, place: Path) -> None:
    urls = [server.url(f"/good/{folder}/file.bin", size="1K", seed=seed) for seed, folder in enumerate("ab")]
    (place / "list").write_text("\n".join(urls))
    said = run(place, "-i", "list")
    assert "rangefetch: warning: list:2: it may get the name file.bin, like line 1; use --name" in said.stderr
    [error] = errors(said)
    assert error.startswith(f"rangefetch: list:2: {urls[1]}: ")


def test_what_has_ended_is_told_while_a_pipe_has_nothing_more_yet(server: MisbehavingServer, place: Path) -> None:
    os.mkfifo(place / "pipe")
    with started(place, ["-i", "pipe"]) as process, (place / "pipe").open("w") as pipe:
        assert process.stdout is not None
        for number in range(2):
            pipe.write(server.url(f"/good/{number}.bin", size="1K") + "\n")
            pipe.flush()
            assert process.stdout.readline() == f"{place / str(number)}.bin\n"
        pipe.close()
        assert process.wait(timeout=30) == 0


def test_results_are_saved_as_they_come(server: MisbehavingServer, place: Path) -> None:
    urls = [server.url("/good/a.bin", size="1K"), server.url("/status/b.bin", code=404)]
    (place / "list").write_text("\n".join(urls))
    (place / "saved").write_text("{}\n")
    assert run(place, "-q", "-i", "list", "--save-results", "saved").returncode == 1
    assert run(place, "-q", urls[0], "--save-results", "saved").returncode == 0
    saved = [json.loads(line) for line in (place / "saved").read_text().splitlines()]
    assert saved[0] == {}
    assert {(each["url"], each["status"], each.get("line"), each["version"]) for each in saved[1:]} == {
        (urls[0], "complete", 1, 1),
        (urls[1], "error", 2, 1),
        (urls[0], "complete", None, 1),
    }
    assert run(place, "-q", urls[0], "--save-results", "no/where").returncode == 2


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
        assert "for more than one URL" in said.stderr
        (place / "two").write_text(two)
        said = run(place, *words, "-i", "two")
        assert said.returncode == 2
        assert "for 2 URLs" in said.stderr
