"""Processor time of a thousand files from a hundred hosts, over a thousand connections and over sixteen, in turns.

One nginx on addresses of 127.0.0.0/8 plays the hosts. It always sends the same file, so the variants differ only in the
number of concurrent connections and downloads. Prints user and system seconds of each round, and the ratio of the
lowest sums.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from many_hosts import hosts

WAYS = {16: ["-j", "16", "-x", "1", "-s", "1"], 1000: ["-j", "1000", "-x", "10", "-s", "1"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=4 << 20, help="bytes of each file")
    parser.add_argument("--into", type=Path, help="a directory with room for a thousand of them (default: /tmp)")
    asked = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 8192), most))
    with tempfile.TemporaryDirectory(dir=asked.into) as directory, socket.create_server(("", 0)) as free:
        at, port = Path(directory), free.getsockname()[1]
        free.close()
        at.chmod(0o755)
        with (at / "file").open("wb") as file:
            file.truncate(asked.size)
        (at / "list").write_text("\n".join(f"http://127.1.0.{1 + n % 100}:{port}/f{n}" for n in range(1000)))
        into = at / "into"
        command = [sys.executable, "-m", "rangefetch", "-q", "-i", str(at / "list"), "-d", str(into)]
        seconds: dict[int, list[tuple[float, float]]] = {connections: [] for connections in WAYS}
        with hosts(at, port, 0.0):
            for _ in range(asked.rounds):
                for connections, options in WAYS.items():
                    into.mkdir()
                    before = resource.getrusage(resource.RUSAGE_CHILDREN)
                    subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL)
                    after = resource.getrusage(resource.RUSAGE_CHILDREN)
                    spent = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
                    seconds[connections].append(spent)
                    shutil.rmtree(into)
    for connections, each in seconds.items():
        rounds = " ".join(f"{user:.2f}+{system:.2f}" for user, system in each)
        print(f"{connections} connections: least {min(map(sum, each)):.2f} s of processor time ({rounds})")
    least, most_of_them = (min(map(sum, each)) for each in seconds.values())
    print(f"ratio {most_of_them / least:.2f}")


if __name__ == "__main__":
    main()
