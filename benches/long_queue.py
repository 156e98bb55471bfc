"""Operations on all downloads of a long queue: wall and processor time of each, in seconds.

``python benches/long_queue.py [--count 100000] [--session]``. The server accepts connections and never answers, so that
active downloads stay active. Ctrl-C is sent to a ``rangefetch`` command that has queued the whole list.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import rangefetch


@contextlib.contextmanager
def _silent() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0), backlog=512) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def _measure(name: str, function: Callable[[], object]) -> None:
    began_s, began_cpu_s = time.monotonic(), time.process_time()
    function()
    took_s, cpu_s = time.monotonic() - began_s, time.process_time() - began_cpu_s
    print(f"{name:12} {took_s:6.2f} s  {cpu_s:6.2f} s of processor time")


def _operations(count: int, place: Path, *, session: bool) -> None:
    with _silent() as url:
        options = {"save_dir": place}

        def fill() -> None:
            for number in range(count):
                manager.download(f"{url}/f{number}", options)

        manager = rangefetch.DownloadManager("native", session_file=place / "session" if session else None)
        with manager:
            _measure("add", fill)
            _measure("pause all", manager.pause_all)
            _measure("list", manager.list_downloads)
            _measure("resume all", manager.resume_all)
            _measure("cancel all", manager.cancel_all)
            fill()
            _measure("stop", manager.stop)


def _interrupt(count: int, place: Path) -> None:
    with _silent() as url:
        (place / "list").write_text("".join(f"{url}/f{number}\n" for number in range(count)))
        command = [sys.executable, "-m", "rangefetch", "-q", "-d", str(place), "-i", str(place / "list")]
        process = subprocess.Popen(command)
        time.sleep(8)
        began_s, before = time.monotonic(), os.times()
        process.send_signal(signal.SIGINT)
        status = process.wait()
        after = os.times()
        cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
        print(
            f"{'Ctrl-C':12} {time.monotonic() - began_s:6.2f} s  ({cpu_s:.2f} s for the whole process), status {status}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--session", action="store_true", help="with a session file")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        _operations(asked.count, Path(place), session=asked.session)
        _interrupt(asked.count, Path(place))


if __name__ == "__main__":
    main()
