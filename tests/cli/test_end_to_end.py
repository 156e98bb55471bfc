"""The whole program as a user runs it: files, output and exit status."""

import contextlib
import hashlib
import json
import os
import re
import select
import shlex
import signal
import subprocess
import termios
import time
from pathlib import Path

import pytest

from servers.directed import Valve
from servers.misbehaving import MisbehavingServer, content, modified
from servers.tls import Certificates
from support.command_line import command, environment, errors, on_a_terminal, run
from support.files import names

SIZE = 3_000_001
BODY = content(SIZE)
DIGEST = hashlib.sha256(BODY).hexdigest()


def test_a_url_becomes_a_file(server: MisbehavingServer, place: Path) -> None:
    said = run(place, server.url("/good/file.bin", size=SIZE))
    path = place / "file.bin"
    assert (said.returncode, said.stdout) == (0, f"{path}\n")
    assert path.read_bytes() == BODY
    assert path.stat().st_mtime == modified()
    assert names(place) == ["file.bin"]


def test_stderr_has_plain_lines_where_it_is_no_terminal(server: MisbehavingServer, place: Path) -> None:
    url = server.url("/good/file.bin", size=SIZE)
    said = run(place, url)
    begun, ended = said.stderr.splitlines()
    assert begun == f"{url}: started"
    assert re.fullmatch(r"file\.bin: 2\.9 MiB in [\d.]+ s, .*/s over \d+ connections?", ended)


def test_options_say_where_how_and_what(server: MisbehavingServer, place: Path) -> None:
    (place / "into").mkdir()
    url = server.url("/needs/file.bin", size=SIZE, name="X-Key", value="open")
    said = run(
        place, "-d", "into", "-o", "name", "-x", 2, "-s", 2, "-k", "1M", "--header", "X-Key: open",
        "--user-agent", "me/1", f"--checksum=sha-256={DIGEST}", "--expected-size", SIZE, "--durable", url,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert (place / "into" / "name").read_bytes() == BODY
    assert "sha-256 verified" in said.stderr
    assert {request.headers["user-agent"] for request in server.requests} == {"me/1"}
    assert len({request.connection for request in server.requests}) <= 2


@pytest.mark.parametrize("options", [[], ["-j", 1], ["--backend", "aria2"]])
def test_two_urls_of_one_name_are_not_one_file(server: MisbehavingServer, place: Path, options: list[object]) -> None:
    # The two responses differ only in a header that says nothing about the file.
    urls = [server.url(f"/good/{n}/data.bin", size=SIZE, id=str(n), header=f"X-Is: {n}") for n in (1, 2)]
    said = run(place, *options, *urls)
    assert said.returncode != 0
    assert "already complete" not in said.stderr
    assert len(said.stdout.splitlines()) == 1
    assert (place / "data.bin").read_bytes() == BODY
    again = run(place, urls[0])
    assert again.returncode == 0
    assert "already complete" in again.stderr


def test_several_urls_are_several_files(server: MisbehavingServer, place: Path) -> None:
    urls = [server.url(f"/good/{number}.bin", size=SIZE, seed=number) for number in range(3)]
    said = run(place, *urls)
    assert said.returncode == 0
    assert sorted(said.stdout.splitlines()) == [str(place / f"{number}.bin") for number in range(3)]
    for number in range(3):
        assert (place / f"{number}.bin").read_bytes() == content(SIZE, number)


def test_what_is_complete_is_not_fetched_again(server: MisbehavingServer, place: Path) -> None:
    words = [server.url("/good/file.bin", size="24M", rate="16M")]
    assert run(place, *words).returncode == 0
    server.wait_idle()
    server.clear()
    said = run(place, *words)
    assert (said.returncode, said.stdout) == (0, f"{place / 'file.bin'}\n")
    assert "file.bin: already complete" in said.stderr
    server.wait_idle()
    assert server.bytes_sent < 12 << 20  # only data that was in flight before the name was known


def test_a_mirror_helps_out(server: MisbehavingServer, other_server: MisbehavingServer, place: Path) -> None:
    bad, good = server.url("/status/file.bin", code=404), other_server.url("/good/file.bin", size=SIZE)
    said = run(place, bad, "--mirror", good)
    assert said.returncode == 0, said.stderr
    assert (place / "file.bin").read_bytes() == BODY


def test_json_is_an_object_a_line_for_each_file(server: MisbehavingServer, place: Path) -> None:
    good, bad = server.url("/good/file.bin", size=SIZE), server.url("/status/gone.bin", code=404)
    said = run(place, "--json", good, bad)
    assert said.returncode == 1
    told = {each["url"]: each for each in map(json.loads, said.stdout.splitlines())}
    assert told.keys() == {good, bad}
    assert told[good].items() >= {"status": "complete", "path": str(place / "file.bin"), "size": SIZE}.items()
    assert told[bad].items() >= {"status": "error", "errorType": "HttpStatusError", "httpStatus": 404}.items()
    assert "404" in told[bad]["error"]


def test_json_has_the_same_facts_of_each_file(server: MisbehavingServer, place: Path) -> None:
    urls = [server.url("/good/a.bin"), server.url("/status/b.bin", code=404), "http://127.0.0.1:1/c.bin"]
    said = run(place, "-q", "--json", "-m", 1, *urls)
    assert said.returncode == 1
    told = {each["url"]: each for each in map(json.loads, said.stdout.splitlines())}
    facts = {"url", "status", "error", "errorType", "httpStatus", "seconds", "connections"}
    assert all(facts <= set(each) for each in told.values())
    done, missing, refused = (told[url] for url in urls)
    assert (done["status"], done["error"], done["errorType"], done["httpStatus"]) == ("complete", None, None, None)
    # Both requests may use the same connection.
    assert done["connections"] + missing["connections"] in (1, 2)
    assert (missing["status"], missing["errorType"], missing["httpStatus"]) == ("error", "HttpStatusError", 404)
    assert (refused["status"], refused["errorType"], refused["httpStatus"]) == ("error", "ConnectionFailed", None)
    assert all(0 < each["seconds"] < 60 for each in told.values())


def test_short_files_are_explained(server: MisbehavingServer, place: Path) -> None:
    url = server.url("/good/a.bin", size=1000)
    short = r"rangefetch: a\.bin: (too short to tell what limited its speed \(\d\.\d\d s\)|what limited its speed: .*)"
    assert re.search(short, run(place, "--explain", url).stderr)
    assert "rangefetch: a.bin: nothing was fetched" in run(place, "--explain", url).stderr


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["-o", "a.bin", "URL"], ["--json", "-o", "b.bin", "URL"]])
def test_output_that_is_lost_is_an_error_in_one_line(server: MisbehavingServer, place: Path, words: list[str]) -> None:
    words = [server.url("/good/a.bin") if word == "URL" else word for word in words]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command("-q", *words),
            cwd=place,
            env=environment(place),
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "rangefetch: standard output: No space left on device\n"


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["URL"], ["--json", "URL"], ["-i", "-"]])
@pytest.mark.parametrize("lost", ["stdout", "stderr", "both"])
def test_a_pipe_that_is_closed_early_is_no_error(
    server: MisbehavingServer, place: Path, words: list[str], lost: str
) -> None:
    urls = [server.url(f"/good/{number}.bin") for number in range(2)]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            command(*(word for each in words for word in (urls if each == "URL" else [each]))),
            cwd=place,
            env=environment(place),
            input="\n".join(urls).encode(),
            stdout=subprocess.PIPE if lost == "stderr" else writer,
            stderr=subprocess.PIPE if lost == "stdout" else writer,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writer)
    assert done.returncode == 0
    assert b"Traceback" not in (done.stderr or b"") + (done.stdout or b"")
    if words != ["--version"] and words != ["--help"]:
        assert names(place) == ["0.bin", "1.bin"]


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_streams_that_are_closed_from_the_start_are_no_error(
    server: MisbehavingServer, place: Path, closed: tuple[int, ...]
) -> None:
    redirections = " ".join({0: "<&-", 1: ">&-", 2: "2>&-"}[number] for number in closed)
    words = " ".join(map(shlex.quote, command(server.url("/good/a.bin"))))
    done = subprocess.run(
        ["sh", "-c", f"{words} {redirections}"],
        cwd=place,
        env=environment(place),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert names(place) == ["a.bin"]
    assert (place / "a.bin").read_bytes() == content(1 << 20)


def test_a_terminal_may_shrink_and_grow(server: MisbehavingServer, place: Path) -> None:
    urls = [server.url(f"/shared-rate/{number}.bin", size="1M", rate="512K", id=number) for number in range(3)]
    sizes = [(24, 100), (5, 20), (1, 1), (2, 200), (24, 80)]
    main_end, end = os.openpty()
    shown = b""
    termios.tcsetwinsize(end, sizes[0])
    process = subprocess.Popen(
        command(*urls), cwd=place, env=environment(place, TERM="xterm-256color"), stdin=end, stdout=end, stderr=end
    )
    os.close(end)
    try:
        for size in sizes:
            termios.tcsetwinsize(main_end, size)
            process.send_signal(signal.SIGWINCH)
            until = time.monotonic() + 0.4
            while (left := until - time.monotonic()) > 0 and select.select([main_end], [], [], left)[0]:
                shown += os.read(main_end, 1 << 16)
        with contextlib.suppress(OSError):  # the terminal's other end is closed
            while data := os.read(main_end, 1 << 16):
                shown += data
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(main_end)
    assert b"Traceback" not in shown
    assert names(place) == ["0.bin", "1.bin", "2.bin"]


@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
@pytest.mark.parametrize("listed", [False, True])
def test_a_terminal_that_is_closed_keeps_no_download_from_ending(
    server: MisbehavingServer, valve: Valve, place: Path, term: str, listed: bool
) -> None:
    url = server.url("/valve/file.bin", size=SIZE)
    (place / "list").write_text(f"{url}\n{server.url('/good/other.bin')}\n")
    with on_a_terminal(place, *(["-i", "list"] if listed else [url]), TERM=term) as (process, screen):
        os.read(screen, 1)
        os.close(screen)
        valve.open()
        assert process.wait(60) == 0
    assert (place / "file.bin").read_bytes() == content(SIZE)


def test_quiet_says_errors_only(server: MisbehavingServer, place: Path) -> None:
    said = run(place, "-q", server.url("/good/file.bin", size=SIZE))
    assert (said.returncode, said.stderr) == (0, "")
    said = run(place, "-q", server.url("/status/gone.bin", code=404))
    assert said.returncode == 1
    assert len(said.stderr.splitlines()) == 1


@pytest.mark.parametrize("trusted", [False, True])
def test_https_by_the_environments_certificates(
    tls_server: MisbehavingServer,
    certificates: Certificates,
    unrelated_certificates: Certificates,
    place: Path,
    trusted: bool,
) -> None:
    ca = certificates.ca if trusted else unrelated_certificates.ca
    url = tls_server.url("/good/file.bin", size=SIZE)
    said = run(place, url, SSL_CERT_FILE=str(ca))
    if trusted:
        assert said.returncode == 0, said.stderr
        assert (place / "file.bin").read_bytes() == BODY
    else:
        assert said.returncode == 1
        [line] = errors(said)
        assert url in line
        assert "certificate" in line
        assert names(place) == []
        assert run(place, "--ca-certificate", certificates.ca, url).returncode == 0


def test_version_says_which_libcurl(place: Path) -> None:
    said = run(place, "--version")
    assert said.returncode == 0
    assert re.search(r"^libcurl \d+\.\d+\.\d+ with \S+.*, from .*: /", said.stdout, re.MULTILINE)
    named = re.search(r"^libcurl .*: (/.*)$", said.stdout, re.MULTILINE)
    assert named is not None
    again = run(place, "--version", RANGEFETCH_LIBCURL=named[1])
    assert again.returncode == 0
    assert "RANGEFETCH_LIBCURL" in again.stdout


def test_a_libcurl_that_is_not_there_is_one_clear_line(server: MisbehavingServer, place: Path) -> None:
    for words in (["--version"], ["--backend", "native", server.url("/good/file.bin")]):
        said = run(place, *words, RANGEFETCH_LIBCURL="/nowhere")
        assert said.returncode == 1
        [line] = errors(said)
        assert "/nowhere" in line
    assert names(place) == []


def test_a_backend_that_is_not_there_is_named(server: MisbehavingServer, place: Path) -> None:
    said = run(place, server.url("/good/file.bin"), RANGEFETCH_BACKEND="carrier-pigeon")
    assert said.returncode == 2
    assert said.stderr.count("\n") == 1
    assert "RANGEFETCH_BACKEND: 'carrier-pigeon'" in said.stderr


def test_aria2_does_it_when_asked(server: MisbehavingServer, aria2c: Path, place: Path) -> None:
    pytest.importorskip("aria2p", reason="the package aria2p, whose client is tried, is not installed")
    said = run(place, "--backend", "aria2", server.url("/good/file.bin", size=SIZE))
    assert said.returncode == 0, said.stderr
    assert (place / "file.bin").read_bytes() == BODY


@pytest.mark.usefixtures("aria2c")
def test_what_aria2_does_not_say_is_not_explained(server: MisbehavingServer, place: Path) -> None:
    pytest.importorskip("aria2p", reason="the package aria2p, whose client is tried, is not installed")
    said = run(place, "--backend", "aria2", "--explain", server.url("/good/file.bin", size=SIZE))
    assert "rangefetch: file.bin: what limited its speed is not known\n" in said.stderr


def test_it_explains_and_traces(server: MisbehavingServer, place: Path) -> None:
    url = server.url("/good/file.bin", size="2M")
    said = run(place, "--explain", "--trace", "trace", "--limit-rate", "1M", url)
    assert said.returncode == 0, said.stderr
    assert "rangefetch: file.bin: what limited its speed: the configured limit" in said.stderr
    assert [json.loads(line) for line in (place / "trace").read_text().splitlines()]


def test_the_trace_has_what_was_fetched_to_compare(server: MisbehavingServer, place: Path) -> None:
    url = server.url("/good/file.bin", size="6M", etag="none")
    for _ in range(2):
        assert run(place, "--trace", "trace", url).returncode == 0
    lines = [json.loads(line) for line in (place / "trace").read_text().splitlines()]
    # All requests: those of the download, and those of the second run that found the file complete.
    assert len(lines) == len(server.requests)
    assert {line["url"] for line in lines} == {url}


@pytest.mark.parametrize("json_too", [[], ["--json"]])
def test_a_password_is_never_shown(server: MisbehavingServer, place: Path, json_too: list[str]) -> None:
    def with_password(url: str) -> str:
        return url.replace("://", "://me:Hunter2@")

    good = with_password(server.url("/good/file.bin", size=SIZE))
    bad = with_password(server.url("/status/gone.bin", code=404))
    shown = run(place, *json_too, good, bad, good)
    assert shown.returncode == 1
    listed = run(place, *json_too, "-i", "-", stdin=f"{good}\n{bad}\n{good}\n")
    assert listed.returncode == 1
    wrong = [
        run(place, bad.replace("http:", "gopher:")),
        run(place, f"{good} "),
        run(place, "http://me:Hunter2@[::1/x"),
        run(place, good, "--mirror", "gopher://me:Hunter2@127.0.0.1/"),
        run(place, good, "--proxy", "http://me:Hunter2@127.0.0.1:1", "--retry", 0, "-o", "x"),
        run(place, "-i", "-", stdin="gopher://me:Hunter2@127.0.0.1/\n"),
    ]
    assert all(each.returncode in (1, 2) for each in wrong)
    for each in (shown, listed, *wrong):
        assert "Hunter2" not in each.stdout + each.stderr
    assert "***@" in shown.stderr


def _on_a_terminal(directory: Path, *words: object, **changes: str) -> tuple[int, str, str]:
    """Run the program with stderr on a pseudo-terminal. Returns exit status, stdout, and the terminal's output."""
    screen, terminal = os.openpty()
    with subprocess.Popen(
        command(*words),
        cwd=directory,
        env=environment(directory, TERM="xterm-256color", COLUMNS="100", LINES="24", **changes),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
    ) as process:
        os.close(terminal)
        shown = b""
        deadline_s = time.monotonic() + 20
        while time.monotonic() < deadline_s and select.select([screen], [], [], 10)[0]:
            try:
                more = os.read(screen, 1 << 16)
            except OSError:  # on Linux: every descriptor of the other end is closed
                break
            if not more:
                break
            shown += more
        os.close(screen)
        out, _ = process.communicate(timeout=10)
    return process.returncode, out, shown.decode()


@pytest.mark.parametrize("listed", [False, True])
def test_a_terminal_has_a_live_bar(server: MisbehavingServer, place: Path, listed: bool) -> None:
    url = server.url("/slow/file.bin", size="3M", rate="512K")
    (place / "list").write_text(f"{url}\n{server.url('/good/other.bin')}\n")
    status, out, shown = _on_a_terminal(place, *(["-i", "list"] if listed else [url]), "-x", 4, "-k", "256K")
    assert status == 0, shown
    assert str(place / "file.bin") in out.splitlines()
    assert shown.count("\x1b[2K") > 2  # redrawn several times
    assert "━" in shown
    assert re.search(r"\x1b\[[0-9;]*3[0-9]", shown)
    if listed:
        assert "of 2 files done" in shown
        assert "2 files fetched" in shown
    else:
        assert re.search(r"\d+ %", shown)
        assert "file.bin: 3.0 MiB in" in shown


def test_no_color_is_honoured(server: MisbehavingServer, place: Path) -> None:
    url = server.url("/slow/file.bin", size="1M", rate="1M")
    status, _, shown = _on_a_terminal(place, url, NO_COLOR="1")
    assert status == 0
    assert "━" in shown
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", shown)
