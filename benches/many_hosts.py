"""A thousand hosts with one small file each: ``rangefetch`` and ``curl -Z`` take turns.

One nginx that listens on all of 127.0.0.0/8 plays the hosts or, with ``--delay``, a server that delays each response as
a distant host would. Prints the seconds of each round and the medians, which include the start of the process.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

CONFIGURATION = """
daemon off; master_process off; pid {at}/pid; error_log {at}/errors;
events {{ worker_connections 8192; }}
http {{
    access_log off; client_body_temp_path {at}; proxy_temp_path {at}; fastcgi_temp_path {at}; uwsgi_temp_path {at};
    scgi_temp_path {at};
    server {{ listen 0.0.0.0:{port} backlog=2048; location / {{ root {at}; try_files /file =404; }} }}
}}
"""


@contextlib.contextmanager
def hosts(at: Path, port: int, delay: float) -> Iterator[None]:
    """Start the hosts: nginx or, with a delay, a server in Python."""
    if delay:
        server = multiprocessing.Process(target=answer_late, args=(port, delay), daemon=True)
        server.start()
    else:
        (at / "nginx.conf").write_text(CONFIGURATION.format(at=at, port=port))
        server = subprocess.Popen(["nginx", "-c", at / "nginx.conf"])  # type: ignore[assignment]  # it ends as a Process does: terminate()
    try:
        time.sleep(1)
        yield
    finally:
        server.terminate()


def answer_late(port: int, delay: float) -> None:
    """Each request gets the file after ``delay`` seconds."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError), contextlib.closing(writer):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await asyncio.sleep(delay)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000)

    async def serve() -> None:
        await (await asyncio.start_server(answer, "", port, backlog=2048)).serve_forever()

    asyncio.run(serve())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds that each answer takes")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, socket.create_server(("", 0)) as free:
        at, port = Path(directory), free.getsockname()[1]
        free.close()
        (at / "file").write_bytes(b"x" * 1000)
        names = [f"f{number}" for number in range(asked.hosts)]
        urls = [f"http://127.1.{n // 250}.{1 + n % 250}:{port}/{name}" for n, name in enumerate(names)]
        (at / "list").write_text("\n".join(urls))
        into = at / "into"
        lines = [f'url = "{url}"\noutput = "{into / name}"' for name, url in zip(names, urls, strict=True)]
        (at / "curl").write_text("\n".join(lines))
        commands = {
            "curl -Z": ["curl", "--silent", "--parallel", "--config", str(at / "curl")],
            "rangefetch": [sys.executable, "-m", "rangefetch", "-q", "-i", str(at / "list"), "-d", str(into)],
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        with hosts(at, port, asked.delay):
            for _ in range(asked.rounds):
                for name, command in commands.items():
                    into.mkdir()
                    begun_s = time.perf_counter()
                    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                    seconds[name].append(time.perf_counter() - begun_s)
                    shutil.rmtree(into)
    for name, each in seconds.items():
        rounds = " ".join(f"{one:.2f}" for one in each)
        print(f"{name}: median {statistics.median(each):.2f} s, least {min(each):.2f} s ({rounds})")


if __name__ == "__main__":
    main()
