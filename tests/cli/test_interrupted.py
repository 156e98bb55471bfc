"""Interrupting the program: it saves its state and says how to continue, and the same command continues."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
from collections.abc import Sequence
from pathlib import Path

import pytest

from servers.counting import CountingServer
from servers.misbehaving import MisbehavingServer, content
from support.command_line import command, end_by, environment, on_a_terminal, run, started
from support.files import MIB, names
from support.waiting import AT_ONCE, until

SIZE = 24 * MIB
AT_FIRST = 6 * MIB
RATE = "6M"


def slow_then_fast(server: MisbehavingServer) -> str:
    """A URL whose responses share a rate of 6 MiB/s, so that a test has time to stop the download."""
    return server.url("/shared-rate/file.bin", size=SIZE, rate=RATE)


def arrived(server: MisbehavingServer, at_least: int) -> None:
    until(lambda: server.bytes_sent >= at_least)


def resumed_bytes(server: MisbehavingServer, place: Path, words: Sequence[object]) -> int:
    """Run the same command again to its end, and return how many bytes of the file it did not need to fetch."""
    assert names(place) == ["file.bin.part", "file.bin.part.json"]
    server.wait_idle()
    server.clear()
    said = run(place, "--json", *words)
    assert said.returncode == 0, said.stderr
    assert (place / "file.bin").read_bytes() == content(SIZE)
    assert names(place) == ["file.bin"]
    resumed = int(json.loads(said.stdout)["resumed"])
    # Only the rest was fetched, except that the ends of a few ranges may have been requested twice.
    assert server.bytes_sent <= SIZE - resumed + 2 * MIB
    return resumed


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "terminated"),
        (signal.SIGHUP, 129, "hung up"),
    ],
)
def test_a_signal_ends_it_at_once_and_the_same_command_goes_on(
    server: MisbehavingServer, place: Path, number: signal.Signals, status: int, word: str
) -> None:
    words = [slow_then_fast(server), "-x", 4, "-o", "file.bin"]
    with started(place, words) as process:
        arrived(server, AT_FIRST)
        seconds, out, err = end_by(process, number)
    assert (process.returncode, out) == (status, "")
    assert seconds < AT_ONCE
    assert "Traceback" not in err
    last = err.splitlines()[-1]
    assert last.startswith(f"rangefetch: {word}; run the same command again to continue: the file stands at ")
    assert resumed_bytes(server, place, words) > AT_FIRST // 2


@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
def test_a_terminal_that_is_closed_ends_it_as_the_signal_says(
    server: MisbehavingServer, place: Path, term: str
) -> None:
    words = [slow_then_fast(server), "-x", 4, "-o", "file.bin"]
    with on_a_terminal(place, *words, TERM=term) as (process, screen):
        arrived(server, AT_FIRST)
        os.close(screen)
        seconds, _, _ = end_by(process, signal.SIGHUP)
    assert process.returncode == 129
    assert seconds < AT_ONCE
    assert resumed_bytes(server, place, words) > AT_FIRST // 2


def test_what_was_killed_goes_on_too(server: MisbehavingServer, place: Path) -> None:
    words = [slow_then_fast(server), "-x", 4, "-o", "file.bin"]
    with started(place, words) as process:
        until(lambda: (place / "file.bin.part.json").exists())
        end_by(process, signal.SIGKILL)
    assert resumed_bytes(server, place, words) > 0


def test_a_signal_before_anything_has_come(server: MisbehavingServer, place: Path) -> None:
    with started(place, [server.url("/slow-headers/file.bin", seconds=60)]) as process:
        until(lambda: server.requests)
        seconds, out, err = end_by(process, signal.SIGINT)
    assert (process.returncode, out) == (130, "")
    assert seconds < AT_ONCE
    assert "run the same command again" in err
    assert "file.bin" not in names(place)


def test_a_signal_in_the_middle_of_a_list(server: MisbehavingServer, place: Path) -> None:
    quick = [server.url(f"/good/quick-{number}.bin", size="16K", seed=number) for number in range(20)]
    slow = [server.url(f"/shared-rate/slow-{number}.bin", size=SIZE, rate="2M") for number in range(30)]
    (place / "list").write_text("\n".join(quick + slow))
    words = ["-i", "list", "-j", 4]
    with started(place, words) as process:
        until(lambda: len([name for name in names(place) if name.startswith("quick-")]) == 20)
        arrived(server, AT_FIRST)
        before = len({request.path for request in server.requests})
        seconds, out, err = end_by(process, signal.SIGINT)
    assert process.returncode == 130
    # Only complete files were printed.
    assert set(out.splitlines()) <= {str(place / f"quick-{number}.bin") for number in range(20)}
    assert seconds < AT_ONCE
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith(
        "rangefetch: interrupted; run the same command again to continue: 20 of 50 files done"
    )
    # Stopping one download must not start the next.
    assert len({request.path for request in server.requests}) <= before + 4
    assert not [name for name in names(place) if name.startswith("slow-") and name.endswith(".bin")]


def _unread_bytes(pipe: int) -> int:
    """The number of unread bytes in the pipe (FIONREAD, ioctl_tty(2))."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_a_signal_while_a_list_comes_in(place: Path) -> None:
    reader, writer = os.pipe()
    with subprocess.Popen(
        command("-i", "-"), cwd=place, env=environment(place), stdin=reader, stderr=subprocess.PIPE, text=True
    ) as process:
        os.close(reader)
        os.write(writer, b"# more will come\n")
        until(lambda: not _unread_bytes(writer))
        seconds, _, err = end_by(process, signal.SIGINT)
        os.close(writer)
    assert process.returncode == 130
    assert seconds < AT_ONCE
    assert "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_was_ignored_when_it_started_stays_so(
    server: MisbehavingServer, place: Path, number: signal.Signals
) -> None:
    """``nohup`` ignores SIGHUP, and a script ignores SIGINT for commands that it runs in the background."""
    words = command(slow_then_fast(server), "-x", 4, "-o", "file.bin")
    ignore = f"signal.signal({int(number)}, signal.SIG_IGN)"
    ignoring = f"import os, signal, sys; {ignore}; os.execv(sys.argv[1], sys.argv[1:])"
    with subprocess.Popen(
        [sys.executable, "-c", ignoring, *words],
        cwd=place,
        env=environment(place),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        arrived(server, AT_FIRST)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, f"{place / 'file.bin'}\n"), err
    assert (place / "file.bin").read_bytes() == content(SIZE)


@pytest.mark.parametrize("option", ["--quiet", "--durable", "--max-download-limit=1M"])
def test_a_signal_ends_a_list_of_100_000_at_once(place: Path, option: str) -> None:
    """Also with ``--durable`` and with a limit, which rule out small files."""
    with CountingServer() as server:
        (place / "list").write_text("\n".join(server.url(f"{number:06}.bin") for number in range(100_000)))
        with started(place, ["-i", "list", "-d", "into", option]) as process:
            until(lambda: len(server.seen) > 50)
            seconds, _, err = end_by(process, signal.SIGINT)
    assert process.returncode == 130
    assert seconds < AT_ONCE
    assert " of 100000 files done" in err.splitlines()[-1]
