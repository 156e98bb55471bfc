"""Fixtures for all tests: the servers, their certificates, and checks that a test leaves nothing behind."""

import contextlib
import gc
import logging
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from _pytest.logging import LogCaptureHandler, caplog_records_key
from hypothesis import HealthCheck, settings

from rangefetch import DownloadManager, _engine
from servers.directed import Valve
from servers.misbehaving import MisbehavingServer
from servers.nginx import Nginx
from servers.programs import require
from servers.routing import ROUTES, Route
from servers.tls import Certificates, make_certificates
from support.alone import *  # noqa: F403 - hooks of pytest
from support.disks import *  # noqa: F403 - and fixtures
from support.downloads import SIZE
from support.effects import Scene
from support.quick import *  # noqa: F403 - hooks
from support.signals import *  # noqa: F403 - fixtures
from support.workers import *  # noqa: F403 - hooks

# How long an example takes to make or to try depends on what else the machine is doing.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

_GRACE = 3.0  # seconds in which what ends by itself may end


def pytest_collection_finish() -> None:
    """What there is by now stays: thousands of tests, which no collection of garbage has to look at again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _the_processs_manager_rests() -> Iterator[None]:
    """What ``fetch`` and the like have started is stopped where the next file of tests begins."""
    yield
    module = sys.modules.get("rangefetch.shared")
    if module is not None and module._manager is not None:
        module._manager.stop()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A CA, and a certificate by it for 127.0.0.1 and localhost."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def unrelated_certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """The same by a CA that has nothing to do with the first."""
    return make_certificates(tmp_path_factory.mktemp("unrelated-certificates"))


@pytest.fixture(scope="session")
def nginx(certificates: Certificates) -> Iterator[Nginx]:
    """A real server without limits; tests that need some start an ``Nginx`` of their own."""
    require(Nginx.available(), "nginx", "RANGEFETCH_REQUIRE_NGINX")
    with Nginx(certificates=certificates) as server:
        yield server


@pytest.fixture(scope="session")
def aria2c() -> Path:
    """The path of aria2c."""
    binary = shutil.which("aria2c")
    require(binary is not None, "aria2", "RANGEFETCH_REQUIRE_ARIA2")
    return Path(str(binary))


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    """A server with a route per fault."""
    with MisbehavingServer() as running:
        yield running


@pytest.fixture
def other_server() -> Iterator[MisbehavingServer]:
    """A second one: a mirror, or another origin."""
    with MisbehavingServer() as running:
        yield running


@pytest.fixture
def tls_server(certificates: Certificates) -> Iterator[MisbehavingServer]:
    """The same routes over https."""
    with MisbehavingServer(tls=certificates.server_context()) as running:
        yield running


@pytest.fixture
def valve() -> Valve:
    """4 MiB a second until it is opened, by all replies of ``/valve`` together."""
    valve = Valve(4 << 20)
    # It stays: a request that comes when the test is over still finds one.
    ROUTES["valve"] = Route("valve", valve, {})
    return valve


@pytest.fixture
def scene(
    server: MisbehavingServer,
    other_server: MisbehavingServer,
    tls_server: MisbehavingServer,
    certificates: Certificates,
    valve: Valve,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Scene:
    """What the effect of an option is seen by; ``fetch`` is the test's."""
    return Scene(SIZE, target.parent, server, other_server, tls_server, certificates, valve, monkeypatch)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A name in a directory that holds nothing else."""
    directory = tmp_path / "downloads"
    directory.mkdir()
    return directory / "file.bin"


@pytest.fixture
def manager() -> Iterator[DownloadManager]:
    """One with the defaults, which is stopped afterwards."""
    with DownloadManager() as running:
        yield running


@pytest.fixture(autouse=True)
def _nothing_of_the_engine_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Of an engine that counts what it makes (``make debug``) nothing is there after a test that was not before.

    The process's own manager is stopped for that; what a fixture of the module keeps is counted before.
    """
    if _engine.live_resources() is None:
        yield
        return
    before = _live(request.node)
    yield
    request.node.funcargs.clear()  # by which the item keeps what fixtures have let go of
    wanted = set(before)
    if request.node.get_closest_marker("keeps_memory") is not None:
        wanted.discard("memory")
    left = _settled(
        lambda: {name for name, count in _live(request.node).items() if name in wanted and count > before[name]}
    )
    assert not left, f"of the engine is left: {_live(request.node)}, and there was {before}"


def _live(item: pytest.Item) -> dict[str, int]:
    """With no process's manager, and nothing that waits to be collected."""
    module = sys.modules.get("rangefetch.shared")
    if module is not None and module._manager is not None:
        module._manager.stop()
        module._manager = None  # type: ignore[attr-defined]  # a module found by its name has no types
    # What was logged has tracebacks, which keep what their frames had.
    captured = [each.records for each in logging.getLogger().handlers if isinstance(each, LogCaptureHandler)]
    for records in (*captured, *item.stash.get(caplog_records_key, {}).values()):
        records.clear()
    gc.collect()
    return _engine.live_resources() or {}


@pytest.fixture(autouse=True)
def _no_child_is_left() -> Iterator[None]:
    """Fails a test that leaves a child process. Those of wider fixtures are older than this one."""
    before = _children()
    yield
    left = _settled(lambda: _children() - before)
    assert not left, f"child processes are left: {left}"


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Fails a test that leaves threads or open files; for tests that own all they open.

    Not for every test: what is opened once and kept for the life of the process is none of a test's business.
    """
    threads, files = set(threading.enumerate()), _open_files()
    yield
    gc.collect()
    left = _settled(lambda: set(threading.enumerate()) - threads)
    assert not left, f"threads are left: {left}"
    opened = _settled(lambda: _open_files() - files)
    assert not opened, f"files are left open: {opened}"


def _children() -> set[psutil.Process]:
    children = set()
    for pid in _child_pids():
        try:
            child = psutil.Process(pid)
            # multiprocessing keeps these until the interpreter ends.
            if not re.search(r"multiprocessing\.(resource_tracker|forkserver)", " ".join(child.cmdline())):
                children.add(child)
        except psutil.ZombieProcess:
            children.add(child)  # ended, but nobody has asked how
        except psutil.NoSuchProcess:
            pass
    return children


def _child_pids() -> Iterable[int]:
    """This process's children, twice for each test: Linux lists them, and elsewhere every process is looked at."""
    lists = list(Path("/proc/self/task").glob("*/children"))
    if not lists:
        return [child.pid for child in psutil.Process().children()]
    pids: list[int] = []
    for each in lists:
        with contextlib.suppress(OSError):  # the thread has just ended
            pids += map(int, each.read_text().split())
    return pids


def _open_files() -> set[tuple[str, str]]:
    """Number and name of each open descriptor; nothing where the system does not tell."""
    found = set()
    for link in Path("/proc/self/fd").glob("*"):
        with contextlib.suppress(FileNotFoundError):  # the one that listed them
            found.add((link.name, str(link.readlink())))
    return found


def _settled(left: Callable[[], set[Any]]) -> set[Any]:
    deadline = time.monotonic() + _GRACE
    while (found := left()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found
