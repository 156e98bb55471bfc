"""Downloads from each of these servers: whole files, interrupted ones, many small ones, and streams."""

import hashlib
import json
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rangefetch
from rangefetch import DownloadManager, DownloadResult
from rangefetch.disk.control_file import ControlFile
from servers.tls import Certificates
from support.files import MIB, names, saved_bytes
from support.waiting import until
from third_party.servers.running import Running, serving
from third_party.servers.table import SERVERS

_LARGE = "large.bin"
_SIZE = 24 * MIB
_MANY = 50
_SLOWLY = 4 * MIB
"""Bytes per second of a download that is killed. The file would take six seconds, and the state is saved after two."""
_TIMEOUT_S = 90

_AS_ARGUMENT = {"ca_file": "ca-certificate", "proxy": "all-proxy", "http_version": "http-version"}

_random = random.Random(24)
CONTENTS = {_LARGE: _random.randbytes(_SIZE)} | {
    # The first is empty.
    f"small{number:02}.bin": _random.randbytes(number * number * 41)
    for number in range(_MANY)
}
_OPTIONS: dict[str, Any] = {"split": 8, "min_split_size": MIB, "total_timeout": _TIMEOUT_S}


def _cases(check: str) -> list[Any]:
    """The servers that go through this check; those known to fail it are marked. A server's tests share one worker."""
    cases = []
    for server in SERVERS:
        if check in server.checks:
            marks = [pytest.mark.xdist_group(f"server {server.name}")]
            if check in server.known:
                marks.append(pytest.mark.xfail(reason=server.known[check], strict=True))
            cases.append(pytest.param(server, id=server.name, marks=marks))
    return cases


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest, certificates: Certificates) -> Iterator[Running]:
    """The server, with a large file and many small ones."""
    with serving(request.param, CONTENTS, certificates) as running:
        yield running


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("running", _cases("fetch"), indirect=True)
def test_a_file_over_eight_connections(running: Running, manager: DownloadManager, target: Path) -> None:
    result = _fetch(manager, running, target)
    assert (result.size, result.already_complete) == (_SIZE, False)
    assert _sha256(target.read_bytes()) == _sha256(CONTENTS[_LARGE])
    assert names(target.parent) == [target.name]


@pytest.mark.parametrize("running", _cases("resume"), indirect=True)
def test_a_killed_command_is_resumed(running: Running, target: Path) -> None:
    command = _command(running, target)
    with subprocess.Popen(
        [*command, f"--limit-rate={_SLOWLY}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            until(lambda: process.poll() is not None or _may_be_killed(running, target), _TIMEOUT_S)
            assert process.poll() is None, process.communicate()
        finally:
            process.send_signal(signal.SIGKILL)
    assert not target.exists()
    trace = target.parent.parent / "trace"
    tracing = [] if running.server.scheme == "ftp" else ["--trace", str(trace)]  # aria2 has no trace
    done = subprocess.run([*command, *tracing], capture_output=True, text=True, timeout=_TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    assert _sha256(target.read_bytes()) == _sha256(CONTENTS[_LARGE])
    assert names(target.parent) == [target.name]
    if running.server.ranges:
        assert json.loads(done.stdout)["resumed"] > 0
        if tracing:
            assert sum(json.loads(line)["bytes"] for line in trace.read_text().splitlines()) < _SIZE


@pytest.mark.parametrize("running", _cases("many"), indirect=True)
def test_many_small_files(running: Running, tmp_path: Path) -> None:
    small = sorted(name for name in CONTENTS if name != _LARGE)
    rangefetch.fetch_many(map(running.url, small), tmp_path, total_timeout=_TIMEOUT_S, **running.options)
    assert names(tmp_path) == small
    assert [name for name in small if (tmp_path / name).read_bytes() != CONTENTS[name]] == []


@pytest.mark.parametrize("running", _cases("again"), indirect=True)
def test_the_second_time_it_is_already_complete(running: Running, manager: DownloadManager, target: Path) -> None:
    _fetch(manager, running, target)
    assert _fetch(manager, running, target).already_complete
    assert _sha256(target.read_bytes()) == _sha256(CONTENTS[_LARGE])
    assert names(target.parent) == [target.name]


@pytest.mark.parametrize("running", _cases("stream"), indirect=True)
def test_a_stream(running: Running) -> None:
    with rangefetch.stream(running.url(_LARGE), **_OPTIONS, **running.options) as stream:
        assert hashlib.file_digest(stream, "sha256").hexdigest() == _sha256(CONTENTS[_LARGE])


def _fetch(manager: DownloadManager, running: Running, target: Path) -> DownloadResult:
    where = {"save_dir": target.parent, "filename": target.name}
    return manager.download_and_wait(running.url(_LARGE), where | _OPTIONS | running.options)


def _command(running: Running, target: Path) -> list[str]:
    options = {
        "json": True,
        "split": 8,
        "max-connection-per-server": 8,
        "min-split-size": MIB,
        "dir": target.parent,
        "out": target.name,
        **{_AS_ARGUMENT[name]: value for name, value in running.options.items()},
    }
    if running.server.scheme == "ftp":  # FTP has no validators to show that the file is still the same
        options["checksum"] = f"sha-256={_sha256(CONTENTS[_LARGE])}"
    return [
        *(sys.executable, "-m", "rangefetch", "--no-conf"),
        *(f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items()),
        running.url(_LARGE),
    ]


def _may_be_killed(running: Running, target: Path) -> bool:
    """Whether the download has something to lose: saved bytes or, without ranges, a part file."""
    if running.server.scheme == "ftp":
        control_file = target.with_name(f"{target.name}.part.aria2")
        return control_file.exists() and ControlFile.parse(control_file.read_bytes()).written_bytes >= MIB
    if running.server.ranges:
        return saved_bytes(target) >= MIB
    return target.with_name(f"{target.name}.part").exists()
