"""``--run FILE``: a list that can be stopped at any moment and resumed, and the contents of its ledger."""

from __future__ import annotations

import hashlib
import json
import signal
import sqlite3
import subprocess
from collections import Counter
from pathlib import Path

import pytest

import rangefetch
from rangefetch.ledger import Ledger, LedgerError, Row
from servers.misbehaving import MisbehavingServer, content, refused_port
from support.command_line import command, environment, errors, run
from support.files import names

SMALL = 3000


def url_of(server: MisbehavingServer, seed: int) -> str:
    return server.url(f"/good/{seed}.bin", size=SMALL, seed=seed)


def listed(place: Path, urls: list[str], name: str = "list") -> None:
    (place / name).write_text("".join(f"{url}\n" for url in urls))


def paths(server: MisbehavingServer) -> list[str]:
    return [request.path for request in server.requests]


def requested(server: MisbehavingServer) -> Counter[str]:
    return Counter(request.path for request in server.requests)


WORDS = ("-i", "list", "-d", "out", "--run", "run.db")


def test_what_is_complete_is_not_asked_for_again(server: MisbehavingServer, place: Path) -> None:
    listed(place, [url_of(server, seed) for seed in range(150)])
    first = run(place, *WORDS)
    assert (first.returncode, len(first.stdout.splitlines())) == (0, 150)
    asked = len(server.requests)
    (place / "out" / "7.bin").unlink()
    (place / "out" / "8.bin").write_bytes(b"short")
    again = run(place, *WORDS)
    assert len(server.requests) - asked < 10
    assert (place / "out" / "7.bin").read_bytes() == content(SMALL, 7)
    # The truncated 8.bin counts as somebody else's file that has the name.
    assert again.returncode == 1
    assert "; 148 complete before; 1 failed" in again.stderr
    (place / "out" / "8.bin").unlink()
    assert run(place, *WORDS, "--retry-failed", "TargetExists").returncode == 0
    asked = len(server.requests)
    last = run(place, *WORDS)
    assert (last.returncode, last.stdout, len(server.requests)) == (0, "", asked)
    assert "; 150 complete before" in last.stderr


def test_failures_are_tried_again_where_that_may_help(server: MisbehavingServer, place: Path) -> None:
    urls = [server.url(f"/status/{code}.bin", code=code) for code in (404, 410, 503)] + [url_of(server, 1)]
    listed(place, urls)
    words = (*WORDS, "--max-tries", "1", "--retry-wait", "0.01")
    assert run(place, *words).returncode == 1

    def tried(*more: str) -> set[str]:
        before = requested(server)
        said = run(place, *words, *more)
        assert said.returncode == 1
        return {path.partition("/status/")[2][:3] for path in requested(server) - before}

    assert tried() == {"503"}
    assert tried("--retry-failed", "none") == set()
    assert tried("--retry-failed", "404") == {"404"}
    assert tried("--retry-failed", "SourceError") == {"404", "410", "503"}
    assert tried("--retry-failed", "410", "--retry-failed", "transient") == {"410", "503"}
    assert "3 failed before and not tried again" in run(place, *words, "--retry-failed", "none").stderr
    assert run(place, *words, "--retry-failed", "Nonsense").returncode == 2
    assert run(place, "-i", "list", "--verify").returncode == 2
    assert run(place, urls[0], "--run", "run.db").returncode == 2


def test_a_ledger_that_does_not_fit_is_one_line_and_is_left_as_it_is(server: MisbehavingServer, place: Path) -> None:
    listed(place, [url_of(server, 1), url_of(server, 2)])
    listed(place, [url_of(server, 1), url_of(server, 3)], "other")
    assert run(place, *WORDS).returncode == 0
    asked = len(server.requests)

    def refused(what: str, *words: str) -> None:
        before = (place / "run.db").read_bytes()
        said = run(place, *words)
        assert (said.returncode, said.stdout) == (2, "")
        [error] = errors(said)
        assert "--run: run.db: " in error
        assert what in error
        assert (place / "run.db").read_bytes() == before

    refused("another list", "-i", "other", "-d", "out", "--run", "run.db")
    refused("the files of this run are in", "-i", "list", "-d", "elsewhere", "--run", "run.db")
    refused("another list", *WORDS, "--name", "{index}")
    # A list from a pipe is recognised only by its lines.
    said = run(place, "-i", "-", *WORDS[2:], stdin=(place / "other").read_text())
    assert said.returncode == 2
    assert "another list" in said.stderr
    with Ledger(place / "run.db", writes=True):
        refused("another process is using it", *WORDS)
    with sqlite3.connect(place / "run.db") as database:
        database.execute("PRAGMA user_version = 9")
    database.close()
    refused("version 9", *WORDS)
    (place / "run.db").write_bytes(b"a file of somebody's\n" * 20)
    refused("not the ledger of a run", *WORDS)
    database = sqlite3.connect(place / "mine.db")
    database.execute("CREATE TABLE t (x)")
    database.close()
    (place / "mine.db").replace(place / "run.db")
    refused("not the ledger of a run", *WORDS)
    assert run(place, "-i", "list", "--run", "no/where.db").returncode == 2
    assert len(server.requests) == asked


def test_verify_reads_files_again(server: MisbehavingServer, place: Path) -> None:
    rows = [f"{url_of(server, seed)},{hashlib.sha256(content(SMALL, seed)).hexdigest()}" for seed in range(4)]
    (place / "list").write_text("\n".join(["url,sha256", *rows]))
    assert run(place, *WORDS).returncode == 0
    damaged = place / "out" / "2.bin"
    damaged.write_bytes(bytes(SMALL))
    asked = len(server.requests)
    assert run(place, *WORDS).returncode == 0
    assert damaged.read_bytes() == bytes(SMALL)
    assert len(server.requests) == asked
    assert run(place, *WORDS, "--verify").returncode == 0
    assert damaged.read_bytes() == content(SMALL, 2)


def test_an_interrupted_run_says_how_to_go_on_and_goes_on(server: MisbehavingServer, place: Path) -> None:
    urls = [server.url(f"/slow/{seed}.bin", size="300K", seed=seed, rate="1M") for seed in range(60)]
    listed(place, urls)
    with subprocess.Popen(
        command(*WORDS), cwd=place, env=environment(place), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command again to continue" in err
    with Ledger(place / "run.db", writes=False) as ledger:
        known = len(list(ledger.rows(state="complete")))
    assert known >= 1
    assert run(place, *WORDS).returncode == 0
    assert len(names(place / "out")) == 60


def test_what_a_ledger_says(server: MisbehavingServer, place: Path) -> None:
    urls = [url_of(server, 1), server.url("/status/x.bin", code=404), url_of(server, 2)]
    (place / "list").write_text("".join(f"{url}\n out={number}\n" for number, url in enumerate(urls)))
    assert run(place, *WORDS).returncode == 1
    shown = run(place, "run", "show", "run.db").stdout.splitlines()
    assert shown[:3] == ["complete: 2 of 3, 5.9 KiB", "failed: 1", "left: 0"]
    assert "failed with HttpStatusError 404: 1" in shown
    assert "failed at 127.0.0.1: 1" in shown
    failed = run(place, "run", "failed", "run.db")
    [told] = [json.loads(line) for line in failed.stdout.splitlines()]
    assert told == {"url": urls[1], "path": "1", "line": 3, "error": "HttpStatusError", "status": 404}
    again = run(place, "-i", "-", "-d", "out", stdin=failed.stdout)
    assert again.returncode == 1
    assert "404" in errors(again)[0]
    exported = [json.loads(line) for line in run(place, "run", "export", "run.db").stdout.splitlines()]
    assert [(each["number"], each["state"]) for each in exported] == [(0, "complete"), (1, "failed"), (2, "complete")]
    as_csv = run(place, "run", "export", "--format", "csv", "run.db").stdout.splitlines()
    assert as_csv[0].startswith("number,line,url,")
    assert len(as_csv) == 4
    for words in (["show", "nowhere"], ["show", "list"], ["nonsense", "run.db"], []):
        assert run(place, "run", *words).returncode == 2


def test_a_ledger_that_cannot_be_written_any_more_ends_the_run_in_one_line(
    server: MisbehavingServer, place: Path, small_disk: Path
) -> None:
    """The ledger's disk is full. Fetched files stay, and the next run continues."""
    urls = [f"{url_of(server, seed)}&id={'x' * 6000}" for seed in range(1500)]
    listed(place, urls)
    words = ("-i", "list", "-d", "out", "--run", small_disk / "run.db", "-q")
    said = run(place, *words)
    assert said.returncode == 1
    [line] = errors(said)
    assert "--run: " in line
    assert "full" in line
    assert "run the same command again" in line
    fetched = len(names(place / "out"))
    assert 0 < fetched < 1500


def test_a_ledger_as_parquet(server: MisbehavingServer, place: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="the package pyarrow is not installed")
    secret = url_of(server, 0).replace("http://", "http://me:secret@")
    listed(place, [secret, server.url("/status/x.bin", code=404), url_of(server, 2)])
    assert run(place, *WORDS, "--retry-wait", "0.01").returncode == 1
    with (place / "run.parquet").open("wb") as file:
        words = command("run", "export", "--format", "parquet", "run.db")
        assert subprocess.run(words, cwd=place, env=environment(place), stdout=file, check=False).returncode == 0
    rows = parquet.read_table(place / "run.parquet").to_pylist()
    lines = [json.loads(line) for line in run(place, "run", "export", "run.db").stdout.splitlines()]
    assert rows == lines
    assert [row["state"] for row in rows] == ["complete", "failed", "complete"]
    assert "secret" not in str(rows)


def test_a_long_ledger_becomes_several_row_groups(place: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="the package pyarrow is not installed")
    count = 70_000
    with Ledger(place / "run.db", writes=True) as ledger:
        for number in range(count):
            ledger.put(Row(number, 0, "http://h/x", "h", "x", "complete", 1 << 40, "", 0.5, 1, "", 0, "", 1.5))
    with (place / "run.parquet").open("wb") as file:
        words = command("run", "export", "--format", "parquet", "run.db")
        assert subprocess.run(words, cwd=place, env=environment(place), stdout=file, check=False).returncode == 0
    told = parquet.ParquetFile(place / "run.parquet")
    assert (told.metadata.num_rows, told.metadata.num_row_groups) == (count, 2)
    told.close()


def test_parquet_that_cannot_be_written_is_one_line(place: Path) -> None:
    pytest.importorskip("pyarrow", reason="the package pyarrow is not installed")
    with Ledger(place / "run.db", writes=True) as ledger:
        ledger.put(Row(0, 0, "http://h/x", "h", "x", "complete", 1, "", 0.5, 1, "", 0, "", 1.5))
    words = command("run", "export", "--format", "parquet", "run.db")
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - no path of ours
        done = subprocess.run(
            words, cwd=place, env=environment(place), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr == "rangefetch: run: standard output: No space left on device\n"


def test_a_run_in_python(server: MisbehavingServer, place: Path) -> None:
    urls = [url_of(server, seed) for seed in range(20)]
    listed(place, urls)
    for already in (0, 20):
        with rangefetch.Run(place / "run.db") as ledger:
            fetched = list(ledger.fetch(rangefetch.read_manifest(place / "list"), place / "out"))
            assert (len(fetched), ledger.skipped) == (20 - already, already)
            assert all(each.error is None for each in fetched)
    with rangefetch.Run(place / "run.db") as ledger:
        assert [row.url for row in ledger.rows(state="complete")] == urls
        with pytest.raises(LedgerError, match="another process"):
            rangefetch.Run(place / "run.db")
        with pytest.raises(TypeError, match="ManifestItem"):
            list(ledger.fetch(["http://127.0.0.1/"], place / "out"))  # type: ignore[list-item]  # wrong on purpose
    with pytest.raises(ValueError, match="retry_failed"):
        rangefetch.Run(place / "run.db", retry_failed=["sometimes"])


def test_a_host_that_cannot_be_reached_is_named_once_and_tried_in_the_next_run(
    server: MisbehavingServer, place: Path
) -> None:
    port = refused_port()
    urls = [*(f"http://127.0.0.1:{port}/{number}" for number in range(200)), url_of(server, 7)]
    (place / "list").write_text("".join(f"{url}\n" for url in urls))
    words = ("-q", "-i", "list", "-d", "out", "--run", "run.db", "-j", "4", "-m", "1", "--retry-wait", "0.01")
    done = run(place, *words)
    assert done.returncode == 1
    assert (place / "out" / "7.bin").exists()
    said = errors(done)
    assert len(said) <= 55
    [in_all] = [line for line in said if "could not be reached; " in line]
    assert in_all.startswith(f"rangefetch: 127.0.0.1:{port}: ")
    assert not [line for line in said if "not tried, since" in line]
    shown = run(place, "run", "show", "run.db").stdout
    assert "set aside: 127.0.0.1, which could not be reached; " in shown
    with MisbehavingServer(port=port) as back:
        back.serves_any_path = True
        assert run(place, *words).returncode == 0
