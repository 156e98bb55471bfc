"""``python -m third_party.servers packages`` prints the Debian packages that the servers need, and ``python -m
third_party.servers table`` prints the servers as a Markdown table."""

import importlib.metadata
import json
import shutil
import subprocess
import sys
from pathlib import Path

from third_party.servers.model import Server
from third_party.servers.running import packages_of
from third_party.servers.table import SERVERS


def _version(server: Server) -> str:
    if server.debian:
        shown = subprocess.run(
            ["dpkg-query", "-W", "-f", "${Version}", server.debian[0]], capture_output=True, text=True
        ).stdout
        return shown.split(":")[-1].split("-")[0].split("+")[0] or "not installed"
    packages = packages_of(server)
    if server.pypi:
        name = server.pypi[0]
        found = list(importlib.metadata.distributions(name=name, path=[str(packages)]))
        return found[0].version if found else "not installed"
    if server.npm:
        file = Path(packages, "node_modules", server.npm[0], "package.json")
        return str(json.loads(file.read_text())["version"]) if file.exists() else "not installed"
    program = sys.executable if "@PYTHON@" in server.command else server.command.split()[0]
    return subprocess.run([program, "--version"], capture_output=True, text=True).stdout.split()[-1].strip("v")


def _table() -> None:
    for server in SERVERS:
        differs = "; ".join(f"{check}: {reason}" for check, reason in server.known.items())
        print(f"| {server.name} | {_version(server)} | {'yes' if server.ranges else 'no'} | {differs} |")


def _packages() -> None:
    needed = {package for server in SERVERS for package in server.debian}
    print(*sorted(needed if shutil.which("npm") else needed | {"nodejs", "npm"}))


{"packages": _packages, "table": _table}[sys.argv[1]]()
