"""Anything may be asked of a download at any moment, of a server that does anything: it ends, and its bytes are right.

A run is made by its seed, which is the test's id; the moments themselves are the machine's. ``RANGEFETCH_SEEDS`` is how
many there are, ``RANGEFETCH_SEED`` the first (``make torture SEEDS=... SEED=...``).
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from matrix.answers import Answer, Ask
from matrix.faults import FAULTS
from matrix.run import SIZE, Fault, Run
from matrix.server import PROTOCOLS, Server
from rangefetch import DownloadError, DownloadManager, DownloadStatus, RetryPolicy
from support.files import names
from support.waiting import until

FIRST = int(os.environ.get("RANGEFETCH_SEED", "1"))
COUNT = int(os.environ.get("RANGEFETCH_SEEDS", "200"))
STEPS = 12
BOUND_S = 30.0
POLICY = RetryPolicy(longest_wait=0.05, longest_retry_after=0.1, network_check=0.05, network_wait=0.3, network_hosts=())
OVER = (DownloadStatus.COMPLETE, DownloadStatus.ERROR, DownloadStatus.REMOVED)
HARMLESS = [fault for fault in FAULTS.values() if fault.spoil and not (fault.starts_over or fault.slow or fault.proxy)]
"""After which the file is still the one that it was; a page in its place is told only from what is there."""


@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT))
def test_whatever_is_asked_of_it_the_bytes_are_right(matrix_server: Server, target: Path, seed: int) -> None:
    source = random.Random(seed)
    protocol = source.choice(PROTOCOLS)
    run = matrix_server.begin(protocol, Fault("anything", _anything(source, protocol)), "first", 1 << 30)
    run.held_after = source.randrange(SIZE)  # so that it takes a while
    try:
        _Life(matrix_server, run, target, source).live()
    finally:
        matrix_server.end()


def _anything(source: random.Random, protocol: str) -> Callable[[Answer, Ask, Run], Answer | None]:
    """A server that is good half of the time."""
    share = source.choice([0.1, 0.3, 0.5])
    faults = [
        fault
        for fault in source.sample(HARMLESS, 12)
        if protocol in fault.protocols and not fault.name.startswith(("200 with", "certificate"))
    ]
    chosen = random.Random(source.random())

    def spoil(answer: Answer, ask: Ask, run: Run) -> Answer | None:
        if not faults or chosen.random() > share:
            return answer
        fault = chosen.choice(faults)
        assert fault.spoil is not None
        return fault.spoil(answer, ask, run)

    return spoil


class _Life:
    """Of one download and its managers, one after the other."""

    def __init__(self, server: Server, run: Run, target: Path, source: random.Random) -> None:
        self.server, self.run, self.target, self.source = server, run, target, source
        self.url = server.url(run)
        self.options: dict[str, Any] = {
            "save_dir": target.parent,
            "filename": target.name,
            "split": source.choice([1, 2, 8, 16]),
            "min_split_size": source.choice(["1", "1M"]),
            "file_allocation": source.choice(["falloc", "trunc", "none"]),
            "durable": source.random() < 0.2,
            "http_version": "2" if run.protocol == "h2" else "1.1",
            "ca_file": server.certificates.ca,
            "connect_timeout": 1.0,
            "read_timeout": 1.0,
            "max_tries": 4,
            "retry_wait": 0.01,
        }
        self.manager = self._new_manager()
        self.gid = ""

    def live(self) -> None:
        try:
            self._begin()
            for _ in range(STEPS):
                self.source.choice(self._steps)(self)
                time.sleep(self.source.choice([0, 0, 0.001, 0.01, 0.05]))
            self.run.heal()
            self._end_well()
        finally:
            self.manager.stop()
        assert self.target.read_bytes() in self.run.versions
        assert names(self.target.parent) == [self.target.name]

    # -- steps -------------------------------------------------------------------------------------------------

    def _pause(self) -> None:
        self.manager.pause(self.gid)

    def _resume(self) -> None:
        self.manager.resume(self.gid)
        self.manager.retry(self.gid)

    def _limit(self) -> None:
        limits: list[int | str] = ["10K", "1M", "50M", 0, 0]
        self.manager.limit(self.source.choice(limits))

    def _change(self) -> None:
        changes = {
            "max_download_limit": self.source.choice(["20K", "1M", 0, 0]),
            "split": self.source.choice([1, 3, 16]),
            "headers": {"X-Number": str(self.source.randrange(100))},
        }
        name = self.source.choice(list(changes))
        try:
            self.manager.change_options(self.gid, **{name: changes[name]})
        except ValueError:
            assert self._status() in OVER

    def _cancel(self) -> None:
        """And begin anew."""
        if self.source.random() < 0.3:
            self.manager.cancel(self.gid, remove_files=self.source.random() < 0.3)
            self._begin()

    def _stop(self) -> None:
        """And begin anew with another manager."""
        if self.source.random() < 0.5:
            self.manager.stop()
            self.manager = self._new_manager()
            self._begin()

    def _wait(self) -> None:
        with contextlib.suppress(DownloadError, TimeoutError):
            self.manager.wait(self.gid, timeout=0.05)

    _steps = (_pause, _resume, _resume, _limit, _change, _cancel, _stop, _wait, _wait)

    # -- beginning and end -------------------------------------------------------------------------------------

    def _new_manager(self) -> DownloadManager:
        return DownloadManager("native", retry_policy=POLICY)

    def _status(self) -> DownloadStatus:
        return self.manager.get_download_progress(self.gid).status

    def _begin(self) -> None:
        self.gid = self.manager.download(self.url, self.options)

    def _end_well(self) -> None:
        """The server is good now, nothing is limited: within a bound it is there."""
        self.manager.limit(0)
        for _ in range(3):
            # It may be on its way to what it was told to be.
            self._resume()
            if self._status() not in OVER:
                self.manager.change_options(self.gid, max_download_limit=0)
            until(lambda: self._status() in OVER, BOUND_S)
            if self._status() is DownloadStatus.COMPLETE:
                return
        assert self.manager.wait(self.gid, timeout=BOUND_S).size == SIZE
