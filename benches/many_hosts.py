"""A thousand hosts with one small file each: the command beside ``curl -Z``, in turns.

One nginx on all addresses of 127.0.0.0/8 is the hosts. Prints the seconds of each round and the medians; a process's
start is in them.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, socket.create_server(("", 0)) as free:
        at, port = Path(directory), free.getsockname()[1]
        free.close()
        (at / "file").write_bytes(b"x" * 1000)
        (at / "nginx.conf").write_text(CONFIGURATION.format(at=at, port=port))
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
        with subprocess.Popen(["nginx", "-c", at / "nginx.conf"]) as server:
            try:
                time.sleep(1)
                for _ in range(asked.rounds):
                    for name, command in commands.items():
                        into.mkdir()
                        begun_s = time.perf_counter()
                        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                        seconds[name].append(time.perf_counter() - begun_s)
                        shutil.rmtree(into)
            finally:
                server.terminate()
    for name, each in seconds.items():
        rounds = " ".join(f"{one:.2f}" for one in each)
        print(f"{name}: median {statistics.median(each):.2f} s, least {min(each):.2f} s ({rounds})")


if __name__ == "__main__":
    main()
