"""Download a generated file from a local server: first at full speed, then again while things go wrong.

``make run`` runs this. The server and the fetcher are separate processes; this one creates the file, shows progress,
causes the trouble, and compares the result with the served file. All files are in ``build/demo``. A demo that was
killed resumes where it stopped when it is run again.

    make run ARGS="--size 64M"       a smaller file
    make run ARGS="--fast"           only the first part
    make run ARGS="--quiet-life"     nothing goes wrong by itself; the keys still work
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rangefetch.checks import parse_size
from rangefetch.cli.display import amount, clock, counted
from rangefetch.net import libcurl

_HERE = Path(__file__).parent
_PIECE = 16 << 20
_MARGIN = 64 << 20
_LIMIT = 100_000_000
_TROUBLE_S = 3.0
_KEYS = (
    "1 to 9: set a limit of 20 to 180 MB/s; 0: remove it; c: pull the cable; s: kill the server; k: kill the fetcher; "
    "l: make the server lie; q: quit"
)
_SCRIPT = ((6, "2"), (18, "5"), (28, "c"), (42, "k"), (56, "l"), (72, "s"), (84, "0"))
"""Keys that the demo presses by itself at these percentages, until somebody presses one."""


def main() -> int:
    """Run the demo. Returns the exit status: 0 if the fetched files equal the served one."""
    typed = _arguments()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt_once)
    try:
        return _run(typed)
    except KeyboardInterrupt:
        _say("Stopped. The downloaded data is kept; run the same command again to resume.")
        return 130
    except OSError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="1G", help="size of the file, such as 64M (default: 1G)")
    parser.add_argument("--connections", type=int, default=8, metavar="N", help="number of connections (default: 8)")
    parser.add_argument(
        "--dir", type=Path, default=Path("build/demo"), help="directory for all files (default: build/demo)"
    )
    parser.add_argument("--fast", action="store_true", help="only the part at full speed")
    parser.add_argument("--quiet-life", action="store_true", help="do not cause trouble by itself; the keys still work")
    parser.add_argument("--keep", action="store_true", help="keep the fetched file")
    typed = parser.parse_args()
    try:
        typed.size = parse_size(typed.size, "--size")
    except ValueError as error:
        parser.error(str(error))
    return typed


def _run(typed: argparse.Namespace) -> int:
    served, fetched_in = typed.dir / "served" / "demo.bin", typed.dir / "fetched"
    expected = _make_file(served, fetched_in, typed.size)
    is_left_over = any(fetched_in.iterdir())
    if is_left_over:
        _say("An earlier demo was stopped. Resuming its download.")
    elif not _fetch_fast(typed, served, expected):
        return 1
    if typed.fast and not is_left_over:
        return 0
    path = _Trouble(typed, served, fetched_in).fetch()
    if path is None or not _is_same(path, expected):
        return 1
    if typed.keep:
        _say(f"The file is {path}.")
    else:
        path.unlink()
    return 0


def _make_file(served: Path, fetched_in: Path, size: int) -> str:
    """Create a file of that many random bytes, unless it exists. Returns its SHA-256; raises ``OSError``."""
    known = served.with_suffix(".sha256")
    if known.exists() and served.exists() and served.stat().st_size == size and fetched_in.exists():
        return known.read_text()
    for directory in (served.parent, fetched_in):  # left from another file
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
    needed, free = 2 * size + _MARGIN, shutil.disk_usage(served.parent).free
    if needed > free:
        raise OSError(f"{amount(needed)} needed, {amount(free)} free; try --size 64M, or another --dir")
    _say(f"Creating a file of {amount(size)} of random bytes ...")
    generator, digest = random.Random(), hashlib.sha256()
    with served.open("wb") as file:
        for start in range(0, size, _PIECE):
            piece = generator.randbytes(min(_PIECE, size - start))
            file.write(piece)
            digest.update(piece)
    known.write_text(digest.hexdigest())
    return digest.hexdigest()


def _is_same(path: Path, expected: str) -> bool:
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != expected:
        print(f"demo: {path}: SHA-256 {actual} differs from the served file's {expected}", file=sys.stderr)
        return False
    _say(f"  SHA-256 {actual[:16]}... matches the served file.")
    return True


# -- at full speed ----------------------------------------------------------------------------------------------------


def _fetch_fast(typed: argparse.Namespace, served: Path, expected: str) -> bool:
    """Fetch with the ``rangefetch`` command. Returns whether the file equals the served one."""
    loaded = libcurl.load()
    directory = typed.dir / "fast"
    with _serving(served) as (url, server):
        count = typed.connections
        _say("")
        _say(f"At full speed: {count} connections to {server}, libcurl {loaded.version}")
        command = [sys.executable, "-m", "rangefetch", "--json", f"--dir={directory}", f"--split={count}"]
        with subprocess.Popen(
            [*command, f"--max-connection-per-server={count}", url], stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                said, _ = process.communicate()
            except KeyboardInterrupt:
                process.send_signal(signal.SIGINT)  # a terminal has already sent one; a second does no harm
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=10)
                process.kill()
                raise
    try:
        return process.returncode == 0 and _is_same(Path(json.loads(said)["path"]), expected)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _serving(served: Path) -> Iterator[tuple[str, str]]:
    """The file's URL, and the name of what serves it: nginx if it is installed."""
    try:
        with _helper("server.py", str(served.parent.absolute())) as (process, url):
            assert process.poll() is None
            yield url + served.name, "nginx"
        return
    except _NotStarted:
        pass
    with _helper("loopback.py", str(served)) as (_, url):
        yield url, "a small Python server"


class _NotStarted(OSError):
    """A server did not start."""


@contextlib.contextmanager
def _helper(script: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a server; yields it and the URL that it prints. It ends when its stdin does, so also if we are killed."""
    # In a process group of its own: if Ctrl-C reached it first, the fetcher would see its connections cut.
    process = subprocess.Popen(
        [sys.executable, str(_HERE / script), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        process_group=0,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise _NotStarted(f"{script} did not start")
        yield process, url
    finally:
        process.send_signal(signal.SIGCONT)
        with contextlib.suppress(subprocess.TimeoutExpired, ValueError):
            process.communicate(timeout=5)
        process.kill()
        process.wait()


# -- while things go wrong --------------------------------------------------------------------------------------------


class _Trouble:
    """A download during which things go wrong, as the user presses keys, or by the script."""

    def __init__(self, typed: argparse.Namespace, served: Path, fetched_in: Path) -> None:
        self._typed = typed
        self._served = served
        self._fetched_in = fetched_in
        self._url = ""
        self._limit = _LIMIT
        self._script = [] if typed.quiet_life else list(_SCRIPT)
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._line = _StatusLine()
        self._fetcher: subprocess.Popen[str] | None = None
        self._server: subprocess.Popen[str] | None = None
        self._stack = contextlib.ExitStack()
        self._fetcher_began_s = 0.0
        self._percentage = 0.0

    def fetch(self) -> Path | None:
        """Run the download. Returns the file; None if it failed."""
        has_keys = sys.stdin.isatty() and sys.stdout.isatty()
        _say("")
        _say(f"Again at {_LIMIT // 10**6} MB/s, while things go wrong" + (". Keys:" if has_keys else ""))
        if has_keys:
            _say(f"  {_KEYS}", indent=2)
        with self._stack, _raw_keys(has_keys):
            self._start_server()
            self._start_fetcher()
            try:
                return self._watch(has_keys)
            finally:
                self._line.clear()
                self._stop_fetcher()

    def _watch(self, has_keys: bool) -> Path | None:
        while True:
            assert self._fetcher is not None
            assert self._fetcher.stdout is not None
            sources = [self._fetcher.stdout, *([sys.stdin] if has_keys else [])]
            ready, _, _ = select.select(sources, [], [], 0.1)
            if sys.stdin in ready:
                self._script = []  # somebody is at the keyboard
                self._press(os.read(sys.stdin.fileno(), 1).decode("ascii", "replace").lower())
            if self._fetcher.stdout in ready:
                line = self._fetcher.stdout.readline()
                if not line:
                    self._mourn_fetcher()
                    continue
                facts = json.loads(line)
                if "error" in facts:
                    self._line.log(f"Failed: {facts['error']}")
                    return None
                if "path" in facts:
                    self._tell_the_end(facts)
                    return Path(facts["path"])
                self._follow(facts)
            now_s = time.monotonic()
            for due in [due for due in self._later if due[0] <= now_s]:
                self._later.remove(due)
                due[1]()

    def _follow(self, facts: dict[str, Any]) -> None:
        if not self._percentage:  # skip what an earlier demo has passed
            self._script = [each for each in self._script if each[0] >= facts["percentage"]]
        self._percentage = facts["percentage"]
        self._line.show(facts)
        while self._script and self._percentage >= self._script[0][0] and not self._later:
            self._press(self._script.pop(0)[1])

    def _tell_the_end(self, facts: dict[str, Any]) -> None:
        resumed = f", {amount(facts['resumed'])} of which was already on disk" if facts["resumed"] else ""
        transfers = counted(facts["retries"], "transfer")
        retries = f"; {transfers} {'was' if facts['retries'] == 1 else 'were'} retried" if facts["retries"] else ""
        self._line.log(f"Done: {amount(facts['size'])}{resumed}{retries}.")

    # -- what can go wrong --------------------------------------------------------------------------------------------

    def _press(self, key: str) -> None:
        if key.isdigit():
            self._set_limit(int(key) * 20_000_000)
        elif key == "c":
            self._pull_cable()
        elif key == "s":
            self._kill_server()
        elif key == "k":
            self._kill_fetcher()
        elif key == "l":
            self._lie()
        elif key in ("q", "\x03", "\x04"):
            raise KeyboardInterrupt

    def _set_limit(self, bytes_per_s: int) -> None:
        self._limit = bytes_per_s
        self._event(f"Limit set to {bytes_per_s // 10**6} MB/s." if bytes_per_s else "Limit removed.")
        assert self._fetcher is not None
        assert self._fetcher.stdin is not None
        with contextlib.suppress(OSError):
            self._fetcher.stdin.write(f"{bytes_per_s}\n")
            self._fetcher.stdin.flush()

    def _pull_cable(self) -> None:
        if self._server is not None:
            self._event(f"Cable pulled: nothing arrives for {_TROUBLE_S:.0f} s.")
            self._server.send_signal(signal.SIGSTOP)
            self._after(self._plug_in)

    def _plug_in(self) -> None:
        if self._server is not None:
            self._server.send_signal(signal.SIGCONT)
        self._event("Cable plugged in again.")

    def _kill_server(self) -> None:
        if self._server is not None:
            self._event(f"Server killed. It restarts in {_TROUBLE_S:.0f} s.")
            self._server.kill()
            self._server.wait()
            self._server = None
            self._after(self._restart_server)

    def _restart_server(self) -> None:
        self._start_server()
        self._event("Server back.")

    def _kill_fetcher(self) -> None:
        assert self._fetcher is not None
        self._event("Fetcher killed (kill -9) and restarted: it resumes from its saved state.")
        self._fetcher.kill()
        self._stop_fetcher()
        self._start_fetcher()

    def _mourn_fetcher(self) -> None:
        """Restart the fetcher, which somebody has killed. Raises ``OSError`` if it ended right after its start."""
        if time.monotonic() - self._fetcher_began_s < 1.0:
            raise OSError("the fetcher exited by itself")
        self._event("Somebody killed the fetcher. It is restarted, and resumes from its saved state.")
        self._stop_fetcher()
        self._start_fetcher()

    def _lie(self) -> None:
        if self._server is not None:
            self._event(
                f"Server lies for {_TROUBLE_S:.0f} s: every other response has wrong bytes, too few bytes, or is a "
                "refusal."
            )
            self._tell_server("lie")
            self._after(self._be_honest)

    def _be_honest(self) -> None:
        self._tell_server("be honest")
        self._event("Server honest again.")

    def _tell_server(self, line: str) -> None:
        if self._server is not None and self._server.stdin is not None:
            with contextlib.suppress(OSError):
                self._server.stdin.write(f"{line}\n")
                self._server.stdin.flush()

    def _after(self, action: Callable[[], None]) -> None:
        self._later.append((time.monotonic() + _TROUBLE_S, action))

    def _event(self, words: str) -> None:
        self._line.log(f"{self._percentage:5.0f} %  {words}", indent=9)

    # -- the two processes --------------------------------------------------------------------------------------------

    def _start_server(self) -> None:
        """Start the server at the last one's port if that is free, so that the URL stays the same."""
        kept = self._typed.dir / "url"
        before = self._url or (kept.read_text() if kept.exists() else "")
        for port in dict.fromkeys((urlsplit(before).port or 0, 0)):
            with contextlib.suppress(_NotStarted):
                helper = _helper("loopback.py", str(self._served), str(port))
                self._server, self._url = self._stack.enter_context(helper)
                kept.write_text(self._url)
                return
        raise OSError("the server did not start")

    def _start_fetcher(self) -> None:
        self._fetcher_began_s = time.monotonic()
        words = [self._url, self._fetched_in, self._typed.connections, self._limit]
        self._fetcher = subprocess.Popen(
            [sys.executable, str(_HERE / "demo_fetch.py"), *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _stop_fetcher(self) -> None:
        if self._fetcher is not None:
            with contextlib.suppress(subprocess.TimeoutExpired, OSError, ValueError):
                self._fetcher.communicate(timeout=10)  # it ends when its stdin does
            self._fetcher.kill()
            self._fetcher.wait()


class _StatusLine:
    """A status line below the log, updated in place; if stdout is no terminal, a line every few seconds."""

    seconds_between_lines = 2.0

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._is_shown = False
        self._next_s = 0.0

    def log(self, words: str, indent: int = 0) -> None:
        """Print a line that stays."""
        self.clear()
        _say(words, indent)

    def show(self, facts: dict[str, Any]) -> None:
        """Show the progress."""
        numbers = f"{facts['percentage']:3.0f} %  {amount(facts['speed']):>9}/s  {clock(facts['eta']):>5}"
        if not self._is_terminal:
            if time.monotonic() >= self._next_s:
                self._next_s = time.monotonic() + self.seconds_between_lines
                _say(f"{numbers}  {facts['note']}".rstrip())
            return
        width = shutil.get_terminal_size().columns - 1
        numbers += f"  {facts['connections']:2} conn."
        room = width - len(numbers) - 2
        middle = facts["note"][: max(room, 0)].ljust(room) if facts["note"] else _bar(facts["percentage"], room)
        line = f"{middle}  {numbers}" if room >= 10 else numbers
        sys.stdout.write(f"\r\x1b[K{line[:width]}")
        sys.stdout.flush()
        self._is_shown = True

    def clear(self) -> None:
        """Erase the status line."""
        if self._is_shown:
            sys.stdout.write("\r\x1b[K")
            sys.stdout.flush()
            self._is_shown = False


def _bar(percentage: float, width: int) -> str:
    full, empty = "━─" if "utf" in (sys.stdout.encoding or "").lower() else "#-"
    done = round(width * percentage / 100)
    return full * done + empty * (width - done)


@contextlib.contextmanager
def _raw_keys(has_keys: bool) -> Iterator[None]:
    """Read keys as they are pressed, without echo. Ctrl-C still sends a signal."""
    if not has_keys:
        yield
        return
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _interrupt_once(_number: int, _frame: object) -> None:
    # Clean-up must not be interrupted.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _say(line: str, indent: int = 0) -> None:
    """Print a line, wrapped to the terminal's width with an indent."""
    if sys.stdout.isatty():
        width = max(shutil.get_terminal_size().columns - 1, indent + 20)
        line = textwrap.fill(line, width, subsequent_indent=" " * indent, drop_whitespace=True) if line else line
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
