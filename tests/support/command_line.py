"""Running the program as a user does, in a separate process."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import rangefetch
from support.waiting import AT_ONCE

SOURCES = Path(rangefetch.__file__).parents[1]


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "rangefetch", *map(str, words)]


def environment(directory: Path, **changes: str) -> dict[str, str]:
    """An environment without the tester's proxies, configuration and terminal."""
    alien = ("_proxy", "_PROXY", "RANGEFETCH_", "XDG_", "NO_COLOR", "SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(alien) and not name.endswith(alien) and name != "RANGEFETCH_BACKEND"
    }
    return kept | {"HOME": str(directory), "PYTHONPATH": str(SOURCES), "TERM": "dumb"} | changes


def run(
    directory: Path, *words: object, stdin: str | bytes = b"", timeout: float = 90.0, **changes: str
) -> subprocess.CompletedProcess[str]:
    """Run the program in ``directory`` until it ends, and check that its output is fit for people."""
    done = subprocess.run(
        command(*words),
        cwd=directory,
        env=environment(directory, **changes),
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        timeout=timeout,
        check=False,
    )
    said = subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
    assert "Traceback" not in said.stderr
    assert all(line.isprintable() for line in said.stderr.splitlines())
    return said


def errors(said: subprocess.CompletedProcess[str]) -> list[str]:
    """The error messages on stderr."""
    no_errors = re.compile(
        r"rangefetch: (warning: |\d+ files? fetched, |\d+ URLs? given more than once|there is no URL)"
    )
    lines = [line for line in said.stderr.splitlines() if line.startswith("rangefetch: ")]
    return [line for line in lines if not no_errors.match(line)]


@contextmanager
def started(directory: Path, words: Sequence[object], **changes: str) -> Iterator[subprocess.Popen[str]]:
    """Start the program, and kill it afterwards if it still runs."""
    with subprocess.Popen(
        command(*words),
        cwd=directory,
        env=environment(directory, **changes),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def on_a_terminal(directory: Path, *words: object, **changes: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run the program with stdin, stdout and stderr on a pseudo-terminal, whose other end the body must close. Kills it
    at the end of the context.
    """
    screen, terminal = os.openpty()
    with subprocess.Popen(
        command(*words),
        cwd=directory,
        env=environment(directory, **changes),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        text=True,
    ) as process:
        os.close(terminal)
        try:
            yield process, screen
        finally:
            process.kill()


def end_by(process: subprocess.Popen[str], number: signal.Signals) -> tuple[float, str, str]:
    """Send a signal and wait. Returns the seconds until the process ended, its stdout and its stderr."""
    sent_s = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=2 * AT_ONCE)
    return time.monotonic() - sent_s, out, err
