"""The whole package with its engine on a CPython for Windows, on Windows itself or under wine.

``make windows`` runs these under wine, with a wheel for Windows that the tests build. On Windows they test the
installed package: ``python -m pytest tests/windows/test_package.py`` with RANGEFETCH_WINDOWS=1.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from servers.misbehaving import MisbehavingServer, content
from servers.tls import Certificates
from windows.build import CAN_BUILD

ON_WINDOWS = sys.platform == "win32"
if os.environ.get("RANGEFETCH_WINDOWS") != "1":
    pytest.skip("RANGEFETCH_WINDOWS is not 1; make windows sets it", allow_module_level=True)
if not ON_WINDOWS:
    if not CAN_BUILD or sys.version_info[:2] != (3, 11):
        pytest.skip("it takes the sources of the engine, zig and CPython 3.11", allow_module_level=True)
    if shutil.which("wine") is None:
        pytest.skip("there is no wine here", allow_module_level=True)

pytestmark = [pytest.mark.xdist_group("windows"), pytest.mark.timeout(900)]

MIB = 1 << 20


class Windows:
    """A Python for Windows with the package."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._command, self._environment = command, os.environ | environment

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        words = [path_there(each) if isinstance(each, Path) else str(each) for each in arguments]
        return subprocess.Popen(
            [*self._command, *words],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: object) -> tuple[int, str, str]:
        """Return the exit status, stdout and stderr."""
        with self.start(*arguments) as started:
            said, complained = started.communicate(timeout=300)
        return started.returncode, said.replace("\r", ""), complained.replace("\r", "")

    def fetch(self, *arguments: object) -> tuple[int, str, str]:
        return self.run("-m", "rangefetch", *arguments)


def path_there(path: Path) -> str:
    return str(path) if ON_WINDOWS else "Z:" + str(path).replace("/", "\\")


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Windows:
    if ON_WINDOWS:
        return Windows([sys.executable], {})
    from windows.python import BUILD, ENVIRONMENT, install, make_python, wheel_of_this

    python = BUILD / "python" / "python.exe"
    try:
        if not python.exists():
            make_python(python.parent)
        wheel = wheel_of_this(tmp_path_factory.mktemp("wheel"))
    except subprocess.CalledProcessError as error:
        pytest.skip(f"what it takes cannot be fetched or built: {error}")
    assert wheel.name.endswith("-cp311-abi3-win_amd64.whl")
    install(wheel, python)
    # The first program under wine creates the prefix and prints messages about it, so run one before the tests.
    subprocess.run(["wine", "winecfg", "-v", "win10"], env=os.environ | ENVIRONMENT, capture_output=True, check=True)
    return Windows(["wine", str(python)], ENVIRONMENT)


def sha256(octets: bytes) -> str:
    return hashlib.sha256(octets).hexdigest()


def test_the_engine_is_there_with_pycurls_libcurl(windows: Windows) -> None:
    status, said, complained = windows.fetch("--version")
    assert (status, complained) == (0, "")
    assert "from pycurl: " in said
    assert ".dll" in said


def test_a_file_comes_over_several_connections(windows: Windows, tmp_path: Path, server: MisbehavingServer) -> None:
    status, said, complained = windows.fetch("-d", tmp_path, server.url("/good/a.bin", size="40M"))
    assert status == 0, complained
    assert said == path_there(tmp_path / "a.bin") + "\n"
    assert sha256((tmp_path / "a.bin").read_bytes()) == sha256(content("40M"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]
    assert len(server.requests) > 1
    assert " connections" in complained


def test_a_certificate_is_verified(windows: Windows, tmp_path: Path, certificates: Certificates) -> None:
    with MisbehavingServer(tls=certificates.server_context()) as server:
        url = server.url("/good/a.bin", size="4M")
        refused, _, complained = windows.fetch("-d", tmp_path, "--max-tries", 1, url)
        status, _, said = windows.fetch("-d", tmp_path, "--ca-certificate", certificates.ca, url)
    assert refused != 0, complained
    assert status == 0, said
    assert (tmp_path / "a.bin").read_bytes() == content("4M")


def test_what_was_killed_goes_on(windows: Windows, tmp_path: Path, server: MisbehavingServer) -> None:
    url = server.url("/good/a.bin", size="24M")
    with windows.start(
        "-m", "rangefetch", "-q", "-d", tmp_path, "-o", "a.bin", "--max-download-limit", "1M", url
    ) as started:
        state = tmp_path / "a.bin.part.json"
        _until(lambda: state.exists() and b'"total_size":25165824' in state.read_bytes())
        started.kill()
    before = len(server.requests)
    status, _, complained = windows.fetch("-d", tmp_path, "-o", "a.bin", url)
    assert status == 0, complained
    assert (tmp_path / "a.bin").read_bytes() == content("24M")
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]
    assert len(server.requests) > before


def test_two_processes_do_not_write_one_file(windows: Windows, tmp_path: Path, server: MisbehavingServer) -> None:
    url = server.url("/good/a.bin", size="24M")
    with windows.start(
        "-m", "rangefetch", "-q", "-d", tmp_path, "-o", "a.bin", "--max-download-limit", "2M", url
    ) as started:
        _until((tmp_path / "a.bin.part.json").exists)
        status, _, complained = windows.fetch("-d", tmp_path, "-o", "a.bin", url)
        started.kill()
    assert status != 0
    assert "is writing it" in complained


def test_a_list_of_small_files_and_a_ledger(windows: Windows, tmp_path: Path, server: MisbehavingServer) -> None:
    urls = [server.url(f"/good/{number}.bin", size=20000) for number in range(20)]
    (tmp_path / "list").write_text("\n".join(urls))
    command = ("-q", "-d", tmp_path / "out", "-i", tmp_path / "list", "--run", tmp_path / "ledger")
    for _ in range(2):
        status, _, complained = windows.fetch(*command)
        assert status == 0, complained
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(f"{number}.bin" for number in range(20))
    assert len([request for request in server.requests if request.path.startswith("/good/")]) == 20


@pytest.mark.parametrize("name", ["NUL.txt", "a:b", "ends."])
def test_a_name_that_windows_takes_for_something_else_is_refused(
    windows: Windows, tmp_path: Path, server: MisbehavingServer, name: str
) -> None:
    status, _, complained = windows.fetch("-d", tmp_path, "-o", name, server.url("/good/a.bin", size=1000))
    assert status != 0
    assert "not a plain file name" in complained


def test_a_stream(windows: Windows, server: MisbehavingServer) -> None:
    program = "import sys, rangefetch, zlib\nwith rangefetch.stream(sys.argv[1]) as f: print(zlib.crc32(f.read()))"
    status, said, complained = windows.run("-c", program, server.url("/good/a.bin", size="3M"))
    import zlib

    assert (status, said.strip()) == (0, str(zlib.crc32(content("3M")))), complained


def test_aria2_does_so_too(windows: Windows, tmp_path: Path, server: MisbehavingServer) -> None:
    url = server.url("/good/a.bin", size="4M")
    status, _, complained = windows.fetch("--backend", "aria2", "-d", tmp_path, url)
    assert status == 0, complained
    assert (tmp_path / "a.bin").read_bytes() == content("4M")


HALF = """
import errno, os, sys, tempfile, pathlib
from rangefetch.disk import system
place = pathlib.Path(tempfile.mkdtemp())
path = place / "a"
fd = system.open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
assert system.pwrite(fd, b"hello", 3) == 5
assert system.pread(fd, 100, 0) == b"\\0\\0\\0hello"
assert system.pread(fd, 5, 100) == b""
system.lock(fd)
other = system.open_file(path, os.O_RDWR)
try:
    system.lock(other)
except BlockingIOError:
    pass
else:
    raise AssertionError("locked twice")
assert system.pread(other, 3, 3) == b"hel"  # a lock keeps nobody from reading
system.unlock(fd)
system.lock(other)
os.close(other)
system.set_time(fd, 1_000_000_000.5)
assert os.stat(path).st_mtime == 1_000_000_000.5
(place / "b").write_bytes(b"other")
assert system.rename_free(path, place / "b") == errno.EEXIST
assert system.rename_free(path, place / "c") == 0  # while it is open
system.replace(place / "c", place / "b")
assert (place / "b").read_bytes() == b"\\0\\0\\0hello"
(place / "b").unlink()
os.close(fd)
assert list(place.iterdir()) == []
directory = system.open_directory(place)
assert os.path.samestat(os.fstat(directory), os.lstat(place))
try:
    system.lock(directory)
except OSError as error:
    assert error.errno == errno.ENOTSUP, error
os.close(directory)
fd, path = system.open_temporary()
system.pwrite(fd, b"x", 0)
os.close(fd)
assert not path.exists()
assert system.free_bytes(place) > 0
assert system.physical_bytes() > 0
print("all of it")
"""


def test_the_half_of_the_interface_that_is_for_windows(windows: Windows) -> None:
    assert windows.run("-c", HALF) == (0, "all of it\n", "")


def _until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)
