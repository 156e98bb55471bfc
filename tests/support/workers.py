"""``pytest --workers N``: the tests are collected once, and N forks of this process run them.

With pytest-xdist each worker starts a Python and collects all tests, which takes longer than most tests; here a worker
costs one fork. A worker is given a piece of a test file at a time. The tests of a group (``xdist_group``) form one
piece. If a worker dies, the test that it was running fails, and another worker takes its place.

pytest-xdist is still used with ThreadSanitizer, which does not survive threads in a forked process.
"""

from __future__ import annotations

import gc
import itertools
import os
import sys
import traceback
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import pytest
from _pytest.config import create_terminal_writer

__all__ = ["pytest_addoption", "pytest_runtestloop"]

_LONGEST_PIECE = 16
_PIECES_FOR_EACH = 8  # at least this many per worker, so that all stay busy until the end


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option ``--workers``."""
    parser.addoption("--workers", type=int, default=0, metavar="N", help="run the tests in N forks of this process")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run the tests in workers if that was asked for; otherwise leave it to pytest, which runs them one by one."""
    option = session.config.option
    if not option.workers or option.collectonly or not session.items:
        return None
    if session.testsfailed and not option.continue_on_collection_errors:
        return None  # some tests could not be collected; pytest reports that
    _Workers(session, option.workers).run()
    return True


def _pieces(items: list[pytest.Item], workers: int) -> Iterator[list[int]]:
    """Pieces of work, as indices of tests: first groups, then parts of files, then the tests that run alone."""
    groups: dict[str, list[int]] = {}
    others: list[int] = []
    for number, item in enumerate(items):
        marker = item.get_closest_marker("xdist_group")
        (groups.setdefault(marker.args[0], []) if marker else others).append(number)
    alone = groups.pop("alone", [])
    yield from groups.values()
    most = max(1, min(_LONGEST_PIECE, len(others) // (workers * _PIECES_FOR_EACH)))
    for _, of_a_file in itertools.groupby(others, key=lambda number: items[number].path):
        numbers = list(of_a_file)
        yield from (numbers[i : i + most] for i in range(0, len(numbers), most))
    if alone:
        yield alone


# ---- Where the run began ------------------------------------------------------------------------------------------


@dataclass
class _Worker:
    pid: int
    left: list[int] = field(default_factory=list)
    """Of its piece, the one that it runs first."""


class _Workers:
    """Hands out the pieces and reports the results."""

    def __init__(self, session: pytest.Session, count: int) -> None:
        self._session = session
        self._count = count
        self._pieces = deque(_pieces(session.items, count))
        self._workers: dict[Connection, _Worker] = {}
        self._names = (f"worker{number}" for number in itertools.count())
        # The workers' directories are all in this one, which pytest removes after a successful run.
        self._directory: Path = session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]  # private to pytest

    def run(self) -> None:
        """Run until all tests have ended, or one of them stops the run."""
        reporter: Any = self._session.config.pluginmanager.getplugin("terminalreporter")
        reporter.showfspath = False  # results of many files are interleaved
        gc.disable()  # the reports are kept, and collections would go through all of them again and again
        try:
            for _ in range(min(self._count, len(self._pieces))):
                self._start()
            while self._workers:
                for connection in wait(list(self._workers)):
                    assert isinstance(connection, Connection)
                    self._hear(connection)
        finally:
            for connection in self._workers:
                connection.close()  # which ends the worker
            for worker in self._workers.values():
                os.waitpid(worker.pid, 0)
        if self._session.shouldfail:
            raise self._session.Failed(self._session.shouldfail)
        if self._session.shouldstop:
            raise self._session.Interrupted(self._session.shouldstop)

    def _start(self) -> None:
        ours, its = Pipe()
        directory = self._directory / next(self._names)
        pid = os.fork()
        if pid == 0:
            for other in (ours, *self._workers):
                other.close()
            _work(self._session, its, directory)
        its.close()
        self._workers[ours] = _Worker(pid)

    def _hear(self, connection: Connection) -> None:
        worker = self._workers[connection]
        try:
            number, reports = connection.recv()
        except (EOFError, ConnectionResetError):
            self._bury(connection)
            return
        if number is not None:
            worker.left = [each for each in worker.left if each != number]
            self._report(number, reports)
            return
        if self._session.shouldfail or self._session.shouldstop:
            self._pieces.clear()
        worker.left = self._pieces.popleft() if self._pieces else []
        connection.send(worker.left)

    def _bury(self, connection: Connection) -> None:
        """Handle the end of a worker, which had nothing left to do or died during a test."""
        worker = self._workers.pop(connection)
        connection.close()
        _, status = os.waitpid(worker.pid, 0)
        if not worker.left:
            return
        dead, *left = worker.left
        why = f"the process in which it ran has ended with {os.waitstatus_to_exitcode(status)}"
        self._report(dead, [_failed(self._session, self._session.items[dead], "call", why)])
        if left:
            self._pieces.appendleft(left)
        self._start()

    def _report(self, number: int, reports: list[dict[str, Any]]) -> None:
        config, item = self._session.config, self._session.items[number]
        config.hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for each in reports:
            report = config.hook.pytest_report_from_serializable(config=config, data=each)
            config.hook.pytest_runtest_logreport(report=report)
        config.hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)


def _failed(session: pytest.Session, item: pytest.Item, when: Any, why: str) -> dict[str, Any]:
    report = pytest.TestReport(item.nodeid, item.location, {}, "failed", why, when)
    told: dict[str, Any] = session.config.hook.pytest_report_to_serializable(config=session.config, report=report)
    return told


# ---- A worker -----------------------------------------------------------------------------------------------------


class _Teller:
    """A plugin that collects the reports of a test, in place of the one that prints them and under its name."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._tw = create_terminal_writer(config, sys.stderr)  # where pytest-timeout writes the stacks
        self.reports: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.reports.append(self._config.hook.pytest_report_to_serializable(config=self._config, report=report))


def _work(session: pytest.Session, connection: Connection, directory: Path) -> None:
    """Run the tests that the other end of the connection names, then end the process."""
    gc.enable()
    status = 1
    try:
        teller = _begin(session, directory)
        while True:
            connection.send((None, []))
            piece: list[int] = connection.recv()
            if not piece:
                break
            for number, following in itertools.zip_longest(piece, piece[1:]):
                # The next piece is not known yet, so only session-wide fixtures are kept at the end of this one.
                beyond = session if following is None else session.items[following]
                session.config.hook.pytest_runtest_protocol(item=session.items[number], nextitem=beyond)
                connection.send((number, teller.reports))
                teller.reports = []
        try:
            session._setupstate.teardown_exact(None)
        except BaseException:
            connection.send((number, [_failed(session, session.items[number], "teardown", traceback.format_exc())]))
        status = 0
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        pass  # the run was stopped
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)  # Python's exit handlers belong to the parent process


def _begin(session: pytest.Session, directory: Path) -> _Teller:
    """Give this process its own output and temporary directory in place of the parent's."""
    plugins = session.config.pluginmanager
    capture = plugins.getplugin("capturemanager")
    capture.stop_global_capturing()
    capture.start_global_capturing()
    capture.suspend_global_capture()
    plugins.unregister(name="terminalreporter")
    teller = _Teller(session.config)
    plugins.register(teller, name="terminalreporter")
    directory.mkdir(mode=0o700)
    session.config._tmp_path_factory._basetemp = directory  # type: ignore[attr-defined]  # private to pytest
    return teller
