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
from servers.content import content
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

# How long Hypothesis takes to generate or run an example depends on what else the machine is doing.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

_GRACE = 3.0  # seconds allowed for things that end by themselves


def pytest_collection_finish(session: pytest.Session) -> None:
    """Make what all workers need before they are forked, and exempt all objects made so far from garbage collection:
    thousands of tests, which live until the end.
    """
    if session.config.option.workers:
        for size in ("64M", "24M", SIZE):
            content(size)
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _the_processs_manager_rests() -> Iterator[None]:
    """Stop the manager that ``fetch`` and similar functions started before the next test file begins."""
    yield
    module = sys.modules.get("rangefetch.shared")
    if module is not None and module._manager is not None:
        module._manager.stop()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A CA, and a certificate issued by it for 127.0.0.1 and localhost."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def unrelated_certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """The same, issued by an unrelated CA."""
    return make_certificates(tmp_path_factory.mktemp("unrelated-certificates"))


@pytest.fixture(scope="session")
def nginx(certificates: Certificates) -> Iterator[Nginx]:
    """A real server without limits; tests that need limits start their own ``Nginx``."""
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
    """A server with one route per fault."""
    with MisbehavingServer() as running:
        yield running


@pytest.fixture
def other_server() -> Iterator[MisbehavingServer]:
    """A second such server: a mirror, or another origin."""
    with MisbehavingServer() as running:
        yield running


@pytest.fixture
def tls_server(certificates: Certificates) -> Iterator[MisbehavingServer]:
    """The same routes over https."""
    with MisbehavingServer(tls=certificates.server_context()) as running:
        yield running


@pytest.fixture
def valve() -> Valve:
    """The valve of the route ``/valve``, whose replies together send 4 MiB/s until the test opens it."""
    valve = Valve(4 << 20)
    # The route is not removed, so that a request which arrives after the test still finds a valve.
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
    """What the functions in ``support.effects`` work with; the test module provides ``fetch``."""
    return Scene(SIZE, target.parent, server, other_server, tls_server, certificates, valve, monkeypatch)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """The path of a file that does not exist, in an empty directory."""
    directory = tmp_path / "downloads"
    directory.mkdir()
    return directory / "file.bin"


@pytest.fixture
def manager() -> Iterator[DownloadManager]:
    """A manager with default settings, stopped after the test."""
    with DownloadManager() as running:
        yield running


@pytest.fixture(autouse=True)
def _nothing_of_the_engine_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """With an engine that counts its objects (``make debug``), fails a test after which there are more than before.

    The process's own manager is stopped before counting. Objects held by fixtures of the module are in the first count.
    """
    if _engine.live_resources() is None:
        yield
        return
    before = _live(request.node)
    yield
    request.node.funcargs.clear()  # keeps the values of fixtures alive after they were torn down
    wanted = set(before)
    if request.node.get_closest_marker("keeps_memory") is not None:
        wanted.discard("memory")
    left = _settled(
        lambda: {name for name, count in _live(request.node).items() if name in wanted and count > before[name]}
    )
    assert not left, f"of the engine is left: {_live(request.node)}, and there was {before}"


def _live(item: pytest.Item) -> dict[str, int]:
    """Count the engine's objects, without the process's manager and after a garbage collection."""
    module = sys.modules.get("rangefetch.shared")
    if module is not None and module._manager is not None:
        module._manager.stop()
        module._manager = None  # type: ignore[attr-defined]  # a module found by its name has no types
    # Log records hold tracebacks, whose frames keep objects alive.
    captured = [each.records for each in logging.getLogger().handlers if isinstance(each, LogCaptureHandler)]
    for records in (*captured, *item.stash.get(caplog_records_key, {}).values()):
        records.clear()
    gc.collect()
    return _engine.live_resources() or {}


@pytest.fixture(autouse=True)
def _no_child_is_left() -> Iterator[None]:
    """Fails a test that leaves a child process. Children of wider fixtures were started before this one."""
    before = _children()
    yield
    left = _settled(lambda: _children() - before)
    assert not left, f"child processes are left: {left}"


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Fails a test that leaves threads or open files; for tests that own everything they open.

    Not used by every test, because some files and threads are opened once and kept for the life of the process.
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
            children.add(child)  # a zombie: it has ended but was not waited for
        except psutil.NoSuchProcess:
            pass
    return children


def _child_pids() -> Iterable[int]:
    """This process's children. Called twice per test, so it uses Linux's list; elsewhere it looks at every process."""
    lists = list(Path("/proc/self/task").glob("*/children"))
    if not lists:
        return [child.pid for child in psutil.Process().children()]
    pids: list[int] = []
    for each in lists:
        with contextlib.suppress(OSError):  # the thread has just ended
            pids += map(int, each.read_text().split())
    return pids


def _open_files() -> set[tuple[str, str]]:
    """Number and name of each open descriptor; empty where the system does not list them."""
    found = set()
    for link in Path("/proc/self/fd").glob("*"):
        with contextlib.suppress(FileNotFoundError):  # the descriptor that listed the others
            found.add((link.name, str(link.readlink())))
    return found


def _settled(left: Callable[[], set[Any]]) -> set[Any]:
    deadline = time.monotonic() + _GRACE
    while (found := left()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found
