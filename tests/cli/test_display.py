"""What the command displays, given the progress of its downloads."""

import io
import os
import re
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import pytest

from rangefetch import records
from rangefetch.cli import display
from rangefetch.cli.display import Live, Plain, Quiet, choose, printable, summary, together
from rangefetch.progress import DownloadProgress, DownloadResult, DownloadStatus

URL = "https://example.org/big.bin"
GIB = 1 << 30


class Terminal(io.StringIO):
    """A text buffer that claims to be a terminal."""

    def isatty(self) -> bool:
        return True

    @property
    def text(self) -> str:
        """What was written, without escape sequences for cursor and colours."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.getvalue())


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal of 100 columns. Tests redirect stderr to it themselves: pytest replaces stderr before each test."""
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "24"}.items():
        monkeypatch.setenv(name, value)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    return Terminal()


def progress(
    downloaded: int = GIB // 4,
    total: int = GIB,
    *,
    status: DownloadStatus = DownloadStatus.ACTIVE,
    filename: str = "big.bin",
    note: str = "",
    connections: int = 8,
    waiting_for: str = "",
) -> DownloadProgress:
    return DownloadProgress(
        gid="1" * 16,
        downloaded=downloaded,
        total=total,
        speed=100 << 20,
        percentage=100 * downloaded / total if total else 0.0,
        eta=75.0 if total else None,
        filename=filename,
        status=status,
        connections=connections,
        note=note,
        waiting_for=waiting_for,
    )


WHOLE = DownloadProgress(
    gid="",
    downloaded=3 << 20,
    total=0,
    speed=1 << 20,
    percentage=60.0,
    eta=None,
    filename="3 of 5 files",
    status=DownloadStatus.ACTIVE,
    connections=2,
)


def result(*, resumed: int = 0, checksum: str = "", already_complete: bool = False) -> DownloadResult:
    return DownloadResult(
        path=Path("/data/big.bin"),
        filename="big.bin",
        size=GIB,
        gid="1" * 16,
        seconds=2.0,
        connections=8,
        resumed=resumed,
        checksum=checksum,
        already_complete=already_complete,
    )


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (150 << 20, "150 MiB"),
        (GIB, "1.0 GiB"),
        (3 << 40, "3.0 TiB"),
    ],
)
def test_amount(size: int, text: str) -> None:
    assert display.amount(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (9.6, "0:10"),
        (75, "1:15"),
        (600, "10:00"),
        (3600, "1:00:00"),
        (None, "-:--"),
        (1e9, "-:--"),
    ],
)
def test_clock(seconds: float | None, text: str) -> None:
    assert display.clock(seconds) == text


def test_nothing_moves_the_cursor() -> None:
    assert printable("naïve \x1b[2J\r\nname\u202e") == r"naïve \x1b[2J\r\nname\u202e"


def test_all_together() -> None:
    waiting, ended, failed = DownloadStatus.WAITING, DownloadStatus.COMPLETE, DownloadStatus.ERROR
    whole = together([progress(100, 400), progress(200, 200, status=ended), progress(50, 900, status=failed)])
    assert (whole.downloaded, whole.total, whole.connections) == (350, 650, 24)
    assert whole.eta == 300 / (100 << 20)
    assert together([progress(100, 400), progress(0, 0, status=waiting)]).total == 0
    assert together([progress(7, 0, status=ended)]).percentage == 100.0
    assert together([]).eta is None


def test_summary() -> None:
    assert summary({URL: progress()}) == "big.bin: 25 % of 1.0 GiB, 100 MiB/s, 0:08 left, 8 connections"
    assert summary({URL: progress(total=0, filename="")}) == "big.bin: 256 MiB, 100 MiB/s, 8 connections"
    several = {URL: progress(), f"{URL}?2": progress(GIB, GIB, status=DownloadStatus.COMPLETE)}
    assert summary(several).startswith("1 of 2 files done: 62 % of 2.0 GiB")


def test_failures_are_counted_by_themselves() -> None:
    def several(*status: DownloadStatus) -> dict[str, DownloadProgress]:
        return {f"{URL}?{number}": progress(status=each) for number, each in enumerate(status)}

    done, failed, active = DownloadStatus.COMPLETE, DownloadStatus.ERROR, DownloadStatus.ACTIVE
    assert summary(several(done, failed, active, active)).startswith("1 done, 1 failed of 4 files: ")
    assert summary(several(failed, failed)).startswith("0 done, 2 failed of 2 files: ")
    assert summary(several(done, active, active)).startswith("1 of 3 files done: ")
    assert display.how_many(0, 1, 1) == "0 done, 1 failed of 1 file"


def test_live_counts_failures_by_themselves(terminal: Terminal) -> None:
    with redirect_stderr(terminal), Live() as live:
        live.update({URL: progress(status=DownloadStatus.ERROR), f"{URL}?1": progress()})
    assert "0 done, 1 failed of 2 files" in terminal.text


@pytest.mark.parametrize(("number", "text"), [(0, "0 connections"), (1, "1 connection"), (2, "2 connections")])
def test_what_is_counted_agrees_with_its_number(number: int, text: str) -> None:
    assert display.counted(number, "connection") == text
    assert summary({URL: progress(connections=number)}).endswith(f", {text}")


def test_outcome() -> None:
    assert display.outcome(result()) == "big.bin: 1.0 GiB in 2.0 s, 512 MiB/s over 8 connections"
    continued = display.outcome(result(resumed=GIB // 2, checksum="sha-256=" + "0" * 64))
    assert "256 MiB/s" in continued
    assert continued.endswith(", 512 MiB was there before, sha-256 verified")
    assert display.outcome(result(already_complete=True)) == "big.bin: already complete, 1.0 GiB"


def test_quiet_says_results_and_errors_only(capsys: pytest.CaptureFixture[str]) -> None:
    with Quiet() as quiet:
        quiet.note("by the way")
        quiet.update({URL: progress()})
        quiet.ended(URL, result())
        quiet.result("/data/big.bin")
        quiet.error(f"{URL}: 404 Not Found\nreally")
    assert capsys.readouterr() == ("/data/big.bin\n", f"rangefetch: {URL}: 404 Not Found\\nreally\n")


def test_plain_says_when_a_file_begins_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    other = "https://me:secret@example.org/other"
    with Plain() as plain:
        plain.update({URL: progress(), other: progress(0, 0, status=DownloadStatus.WAITING)})
        plain.update({URL: progress(), other: progress(0, 0, status=DownloadStatus.WAITING)})
        plain.ended(URL, result())
        plain.ended(other, result(already_complete=True))
        plain.note("by the way")
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        f"{URL}: started",
        "big.bin: 1.0 GiB in 2.0 s, 512 MiB/s over 8 connections",
        "https://***@example.org/other: started",
        "big.bin: already complete, 1.0 GiB",
        "rangefetch: by the way",
    ]


def test_plain_sums_up_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    plain = Plain()
    for _ in range(24):  # one update every 0.5 s
        now += 0.5
        plain.update({URL: progress()})
    assert capsys.readouterr().err.count("25 %") == 2


def test_live_draws_a_row_for_each_file_and_one_for_all(terminal: Terminal) -> None:
    with redirect_stderr(terminal), Live() as live:
        live.update({URL: progress(), "https://example.org/other": progress(total=0, filename="")})
    [frame, *_] = terminal.text.split("files done")
    assert re.search(r"big\.bin .*25 % +1\.0 GiB +100 MiB/s +1:15 +8 conn\.", frame)
    assert re.search(r"other .*256 MiB +100 MiB/s +-:-- +8 conn\.", frame)
    assert "0 of 2 files done" in terminal.text


def test_live_has_no_sum_for_one_file(terminal: Terminal) -> None:
    with redirect_stderr(terminal), Live() as live:
        live.update({URL: progress()})
    assert "files done" not in terminal.text


def test_live_fits_a_narrow_terminal(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    with redirect_stderr(terminal), Live() as live:
        live.update({URL: progress(filename="a-name-that-is-longer-than-there-is-space-for.bin")})
    assert "25 %" in terminal.text
    assert "100 MiB/s" in terminal.text
    assert max(len(line) for line in re.split(r"[\r\n]", terminal.text)) <= 40


def test_live_leaves_room_for_what_a_terminal_prints_for_ctrl_c(terminal: Terminal) -> None:
    with redirect_stderr(terminal), Live() as live:
        live.update({URL: progress(), f"{URL}?2": progress()})
    assert max(len(line) for line in re.split(r"[\r\n]", terminal.text)) == 100 - len("^C")


def test_live_draws_no_more_rows_than_there_are_lines(terminal: Terminal) -> None:
    with redirect_stderr(terminal), Live() as live:
        live.update({f"{URL}?{number}": progress() for number in range(100)})
    [frame, *_] = terminal.text.split("0 of 100 files done")
    assert 0 < frame.count("big.bin") < 24


def test_live_leaves_colours_out_when_asked(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    with redirect_stderr(terminal), Live() as live:
        live.update({URL: progress()})
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", terminal.getvalue())


def test_live_keeps_results_on_stdout(terminal: Terminal, capsys: pytest.CaptureFixture[str]) -> None:
    with redirect_stderr(terminal), Live() as live:
        live.update({URL: progress()})
        live.ended(URL, result())
        live.result("/data/big.bin")
        live.error("what [red]it[/red] was")
    assert capsys.readouterr().out == "/data/big.bin\n"
    assert "/data/big.bin" not in terminal.text
    assert "512 MiB/s over 8 connections" in terminal.text
    assert "rangefetch: what [red]it[/red] was" in terminal.text


def test_live_writes_above_the_bars_where_both_are_the_terminal(terminal: Terminal) -> None:
    stdout = Terminal()
    with redirect_stdout(stdout), redirect_stderr(terminal), Live() as live:
        live.result("/data/" + "long/" * 40 + "big.bin")
    assert stdout.getvalue() == ""
    assert "/data/" + "long/" * 40 + "big.bin\n" in terminal.text


def test_the_display_that_fits(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    with redirect_stderr(terminal):
        assert type(choose(quiet=True)) is Quiet
        assert type(choose(quiet=False)) is Live
        monkeypatch.setenv("TERM", "dumb")
        assert type(choose(quiet=False)) is Plain
    monkeypatch.setenv("TERM", "xterm")
    for no_terminal in (io.StringIO(), None):
        with redirect_stderr(no_terminal):
            assert type(choose(quiet=False)) is Plain


def run_with_stdout(stdout: int, script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)


SAY_TWO_RESULTS = """
from rangefetch.cli.display import Quiet, flush
quiet = Quiet()
quiet.result("one")
quiet.result("two")
flush()
raise SystemExit(quiet.lost_results)
"""


def test_a_reader_that_has_gone_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = run_with_stdout(writer, SAY_TWO_RESULTS)
    finally:
        os.close(writer)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_results_that_could_not_be_written_are_an_error() -> None:
    with Path("/dev/full").open("w") as full:
        ended = run_with_stdout(full.fileno(), SAY_TWO_RESULTS)
    assert (ended.returncode, ended.stderr) == (1, "rangefetch: standard output: No space left on device\n")


def test_plain_says_once_what_holds_a_file_up(capsys: pytest.CaptureFixture[str]) -> None:
    with Plain() as plain:
        for note in ("", "waiting for the network", "waiting for the network", "", "waiting for the network"):
            plain.update({URL: progress(note=note)})
    assert capsys.readouterr().err.splitlines() == [f"{URL}: started", *["big.bin: waiting for the network"] * 2]


def test_plain_says_in_one_line_what_holds_several_files_up(capsys: pytest.CaptureFixture[str]) -> None:
    def waiting(number: int, note: str) -> DownloadProgress:
        return records.replace(progress(filename=f"{number}.bin", note=note), gid=f"{number:016}")

    notes = ["waiting for the network"] * 3 + ["waiting for another download"]
    plain = Plain()
    for count in (2, 4, 4):
        active = [waiting(number, note) for number, note in enumerate(notes[:count])]
        plain.update_whole("", WHOLE, active.copy)
    assert capsys.readouterr().err.splitlines() == [
        "0.bin and 1 more: waiting for the network",
        "2.bin: waiting for the network",
        "3.bin: waiting for another download",
    ]


def test_plain_explains_what_a_file_waits_for_once_that_lasts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(display, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    with Plain(explains=True) as plain:
        for clock[0], connections, words in (
            (0.1, 0, "the disk"),  # too short to be reported
            (0.2, 8, "8 transfers"),
            (1.0, 0, "the time of the next try"),
            (2.9, 0, "the time of the next try"),
            (3.1, 0, "the time of the next try"),
            (4.0, 0, "the time of the next try"),
        ):
            plain.update({URL: progress(connections=connections, waiting_for=words)})
    assert capsys.readouterr().err.splitlines() == [f"{URL}: started", "big.bin: waiting for the time of the next try"]


def test_without_being_asked_to_explain_plain_says_nothing_of_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(display._Waits, "worth_saying_s", 0.0)
    with Plain() as plain:
        plain.update({URL: progress(connections=0, waiting_for="the disk")})
        plain.update({URL: progress(connections=0, waiting_for="the disk")})
    assert capsys.readouterr().err.splitlines() == [f"{URL}: started"]


@pytest.mark.parametrize("columns", ["100", "60"])
def test_live_shows_what_holds_a_file_up(terminal: Terminal, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    with redirect_stderr(terminal), Live() as live:
        live.update({URL: progress(note="waiting\x1b")})
    assert r"waiting\x1b" in terminal.text


def test_plain_sums_up_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    plain = Plain()
    plain._next_summary = 0.0
    for _ in range(2):
        plain.update_whole("3 of 5 files done", WHOLE, lambda: [progress(note="waiting for the network")])
    assert capsys.readouterr().err.splitlines() == [
        "big.bin: waiting for the network",
        "3 of 5 files done: 3.0 MiB, 1.0 MiB/s, 2 connections",
    ]


def test_live_shows_a_list_and_what_is_at_work(terminal: Terminal) -> None:
    with redirect_stderr(terminal), Live() as live:
        live.update_whole(
            "3 of 5 files done", WHOLE, lambda: [progress(filename=f"big-{number}.bin") for number in range(100)]
        )
    [frame, *_] = re.findall(r".*3 of 5 files done.*", terminal.text)
    assert re.search(r"60 %\s+3\.0 MiB\s+1\.0 MiB/s", frame)
    assert 0 < terminal.text.count("big-") < 48
