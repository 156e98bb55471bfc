"""The engine's C core on Windows or under wine, with the libcurl in pycurl's wheel for Windows.

``make windows`` runs these under wine; a workflow runs them on Windows. The program is driver.pyx, which describes its
arguments and its output.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from servers.misbehaving import MisbehavingServer, content
from servers.tls import Certificates
from windows.build import CAN_BUILD, ROOT, build

ON_WINDOWS = sys.platform == "win32"
if os.environ.get("RANGEFETCH_WINDOWS") != "1":
    pytest.skip("RANGEFETCH_WINDOWS is not 1; make windows sets it", allow_module_level=True)
if not CAN_BUILD:
    pytest.skip("it takes the sources of the engine, and zig", allow_module_level=True)
if not ON_WINDOWS and shutil.which("wine") is None:
    pytest.skip("there is no wine here", allow_module_level=True)

pytestmark = [pytest.mark.xdist_group("windows"), pytest.mark.timeout(600)]

BUILD = ROOT / "build" / "windows"
MIB = 1 << 20
DONE, FAILED = 18, 17


@dataclass
class Outcome:
    """The program's exit status and output."""

    status: int
    said: str
    counted: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.counted = {name: int(number) for name, number in re.findall(r"(\w+) (-?\d+)(?= |\s|$)", self.said)}

    @property
    def events(self) -> list[int]:
        return [int(number) for number in re.findall(r"^event (\d+) ", self.said, re.MULTILINE)]


@dataclass
class Program:
    """The driver, which runs under wine in a prefix of its own."""

    path: Path
    libcurl: Path
    environment: dict[str, str]

    def start(self, url: str, file: Path, **given: object) -> subprocess.Popen[str]:
        options = [f"{name}={_windows(value)}" for name, value in given.items()]
        command = [str(self.path), _windows(self.libcurl), url, _windows(file), *options]
        if not ON_WINDOWS:
            command.insert(0, "wine")
        return subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, text=True)

    def run(self, url: str, file: Path, **given: object) -> Outcome:
        with self.start(url, file, **given) as started:
            said, _ = started.communicate(timeout=180)
        return Outcome(started.returncode, said.replace("\r", ""))


def _windows(value: object) -> str:
    is_there = ON_WINDOWS or not isinstance(value, Path)
    return str(value) if is_there else "Z:" + str(value).replace("/", "\\")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    BUILD.mkdir(parents=True, exist_ok=True)
    libraries = BUILD / "libraries"
    if not libraries.exists():
        fetched = tmp_path_factory.mktemp("wheel")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        pip += ["-d", str(fetched)]
        done = subprocess.run([*pip, "--platform", "win_amd64", "--python-version", "3.11", "pycurl"], check=False)
        if done.returncode != 0:
            pytest.skip("pip cannot fetch pycurl's wheel for Windows")
        (wheel,) = fetched.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.startswith("pycurl.libs/") and name.endswith(".dll"):
                    (BUILD / "unpacked").mkdir(exist_ok=True)
                    (BUILD / "unpacked" / Path(name).name).write_bytes(archive.read(name))
        (BUILD / "unpacked").rename(libraries)
    (libcurl,) = libraries.glob("libcurl*.dll")
    build(BUILD / "driver.exe")
    wine = {"WINEPREFIX": str(BUILD / "wine"), "WINEDEBUG": "-all", "WINEDLLOVERRIDES": "mscoree,mshtml="}
    environment = os.environ | wine
    return Program(BUILD / "driver.exe", libcurl, environment)


def _sha256(octets: bytes) -> str:
    return hashlib.sha256(octets).hexdigest()


def test_a_file_comes_in_ranges_on_several_connections(
    program: Program, tmp_path: Path, server: MisbehavingServer
) -> None:
    file = tmp_path / "file"
    outcome = program.run(server.url("/good/a.bin", size="40M"), file, lanes=4, first=MIB)
    assert (outcome.status, outcome.events[-1]) == (0, DONE), outcome.said
    assert _sha256(file.read_bytes()) == _sha256(content("40M"))
    assert outcome.counted["connections"] > 1
    assert outcome.counted["received"] == 40 * MIB
    assert outcome.counted["handles"] == 0  # all are freed when the engine has stopped
    assert all(request.headers.get("range") for request in server.requests)


def test_the_same_over_https_with_a_certificate_that_is_verified(
    program: Program, tmp_path: Path, certificates: Certificates
) -> None:
    file = tmp_path / "file"
    with MisbehavingServer(tls=certificates.server_context()) as server:
        url = server.url("/good/a.bin", size="40M")
        refused = program.run(url, tmp_path / "refused", tries=1)
        outcome = program.run(url, file, cafile=certificates.ca)
    assert (refused.status, FAILED in refused.events) == (1, True), refused.said
    assert outcome.status == 0, outcome.said
    assert _sha256(file.read_bytes()) == _sha256(content("40M"))


def test_connections_that_break_cost_no_byte(program: Program, tmp_path: Path, server: MisbehavingServer) -> None:
    file = tmp_path / "file"
    outcome = program.run(server.url("/cut/a.bin", size="8M", after="256K", times=6), file)
    assert outcome.status == 0, outcome.said
    assert FAILED in outcome.events
    assert _sha256(file.read_bytes()) == _sha256(content("8M"))


def test_a_limit_holds(program: Program, tmp_path: Path, server: MisbehavingServer) -> None:
    outcome = program.run(server.url("/good/a.bin", size="8M"), tmp_path / "file", limit=2 * MIB)
    assert outcome.status == 0, outcome.said
    assert outcome.counted["lasted_us"] > 2_500_000  # 4 s, less the initial burst that the limit allows
    assert _sha256((tmp_path / "file").read_bytes()) == _sha256(content("8M"))


def test_what_was_killed_goes_on_where_the_saved_state_says(
    program: Program, tmp_path: Path, server: MisbehavingServer
) -> None:
    file, state = tmp_path / "file", tmp_path / "state"
    url = server.url("/good/a.bin", size="16M")
    with program.start(url, file, limit=2 * MIB, state=state) as started:
        _until(lambda: state.exists() and state.read_bytes()[16:32].count(2) >= 4)  # blocks of 1 MiB are done
        started.kill()  # no code of its own runs after this, and nothing is flushed
    outcome = program.run(url, file, state=state)
    assert outcome.status == 0, outcome.said
    assert 4 * MIB <= outcome.counted["recalled"] < 16 * MIB
    assert outcome.counted["received"] == 16 * MIB - outcome.counted["recalled"]
    assert _sha256(file.read_bytes()) == _sha256(content("16M"))


def test_a_connection_that_stalls_does_not_hold_up_the_end(
    program: Program, tmp_path: Path, server: MisbehavingServer
) -> None:
    file = tmp_path / "file"
    outcome = program.run(server.url("/stall/a.bin", size="8M", after="64K", times=1), file, first=MIB)
    assert outcome.status == 0, outcome.said
    assert outcome.counted["hedges"] + outcome.counted["steals"] > 0
    assert FAILED not in outcome.events  # another lane took over before the timeout
    assert _sha256(file.read_bytes()) == _sha256(content("8M"))


def _until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)
