"""Running a case: a download from a server with the fault, and afterwards one from a good server."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from matrix.cases import Case
from matrix.run import BLOCK, FIRST_RANGE, Run
from matrix.server import Server
from rangefetch import DownloadError, DownloadManager, DownloadStatus, RetryPolicy
from rangefetch.transfer.samples import SAMPLE_BYTES
from support.files import begun, names, saved_bytes

__all__ = ["undergo"]

POLICY = RetryPolicy(longest_wait=0.05, longest_retry_after=0.1, network_check=0.05, network_wait=0.3, network_hosts=())
TRIES = 4
NAME = "hangs.invalid"
"""Of this machine, where it can be looked up."""
SILENCE_S = 1.0
"""After which a transfer that brings nothing is given up."""
BOUND_S = 30.0
"""By when it has ended. Each of the ``TRIES`` may take a silence, on each of the ways that are tried, and the machine
may be busy; what is waited for without a bound takes longer."""
SLOW_S = 5.0
"""``total_timeout``, where nothing else ends it."""
HELD = 2 * BLOCK + 500_000
"""So much comes before what goes on meanwhile."""


def undergo(server: Server, case: Case, target: Path) -> None:
    """Check that the case ends with the right bytes, or with a clear error that keeps what was fetched. Raises
    ``AssertionError`` if not."""
    run = server.begin(case.protocol, case.fault, case.place, case.times)
    try:
        _Download(server, run, case, target).go()
    finally:
        server.end()


class _Download:
    """The downloads of one case."""

    def __init__(self, server: Server, run: Run, case: Case, target: Path) -> None:
        self.run, self.case, self.target = run, case, target
        self.url = server.url(run, host=NAME if case.fault.hangs == "the server's" else "127.0.0.1")
        self.options: dict[str, Any] = {
            "save_dir": target.parent,
            "filename": target.name,
            "split": case.lanes,
            "min_split_size": "1M",
            "http_version": "2" if case.protocol == "h2" else "1.1",
            "ca_file": server.certificates.ca,
            "connect_timeout": SILENCE_S,
            "read_timeout": SILENCE_S,
            "max_tries": TRIES,
            "retry_wait": 0.01,
            "total_timeout": SLOW_S if case.fault.slow else 0.0,
            "mirrors": [server.url(run, mirror=True)] if case.meanwhile == "mirror" else [],
            "proxy": self._proxy() if case.fault.proxy else "",
        }

    def _proxy(self) -> str:
        return self.run.server.proxy(NAME if self.case.fault.hangs == "the proxy's" else "127.0.0.1")

    def go(self) -> None:
        if self.case.place == "resume":
            self._begin_well()
        began_s = time.monotonic()
        error, before = self._fetch()
        assert time.monotonic() - began_s < BOUND_S
        if error is None and (self.case.meanwhile != "cancel" or self.target.exists()):
            self._is_right()
            assert names(self.target.parent) == [self.target.name]
            return
        assert not self.target.exists()
        if error is not None:
            self._is_clear(error)
            assert set(names(self.target.parent)) <= set(begun(self.target))
        self._is_finished_by_a_good_server(before if error is not None else 0)

    def _begin_well(self) -> None:
        """Fetch a part of the file while the server is still good."""
        self.run.arm(False)
        self.run.held_after = FIRST_RANGE + BLOCK
        with DownloadManager("native", retry_policy=POLICY) as manager:
            gid = manager.download(self.url, self.options | {"mirrors": [], "total_timeout": 0.0})
            _until(lambda: manager.get_download_progress(gid).downloaded >= FIRST_RANGE, BOUND_S)
            manager.pause(gid)
        self.run.release()
        self.run.next_phase()
        self.run.arm(True)

    def _fetch(self) -> tuple[DownloadError | None, int]:
        """Fetch under the fault. Returns the error that ended the download, if any, and how much was there by then."""
        if self.case.meanwhile in ("limit", "pause", "cancel"):
            self.run.held_after = HELD
        with DownloadManager("native", retry_policy=POLICY) as manager:
            gid = manager.download(self.url, self.options)
            self._do_meanwhile(manager, gid)
            self.run.release()
            if self.case.meanwhile == "cancel":
                assert manager.get_download_progress(gid).status is not DownloadStatus.ACTIVE
                return None, 0
            try:
                manager.wait(gid, timeout=BOUND_S)
            except DownloadError as error:
                return error, manager.get_download_progress(gid).downloaded
            return None, 0

    def _do_meanwhile(self, manager: DownloadManager, gid: str) -> None:
        def is_time() -> bool:
            progress = manager.get_download_progress(gid)
            return self.run.is_held or progress.status is not DownloadStatus.ACTIVE or self.run.struck > 0

        if self.case.meanwhile in ("limit", "pause", "cancel"):
            _until(is_time, 2.0, or_else=lambda: None)
        match self.case.meanwhile:
            case "limit":
                for limit in ("100K", 0):
                    try:
                        manager.change_options(gid, max_download_limit=limit)
                    except ValueError:
                        return  # it has ended
                    self.run.release()
                    time.sleep(0.1)
            case "pause":
                manager.pause(gid)
                self.run.release()
                manager.resume(gid)
            case "cancel":
                manager.cancel(gid, remove_files=self.case.times == 1)

    def _is_right(self) -> None:
        octets = self.target.read_bytes()
        assert octets in self.run.versions, "not one of the files that were served"

    def _is_clear(self, error: DownloadError) -> None:
        line = str(error)
        assert len(line.splitlines()) == 1
        assert line.isprintable()
        assert self.url in line
        assert "internal error" not in line
        assert "internal error" not in line

    def _is_finished_by_a_good_server(self, before: int) -> None:
        """Check that a good server completes the file, and that what was there is kept unless the file has changed."""
        kept = saved_bytes(self.target)
        self.run.heal()
        self.run.next_phase()
        with DownloadManager("native", retry_policy=POLICY) as manager:
            options = self.options | {"proxy": "", "total_timeout": 0.0, "mirrors": []}
            result = manager.wait(manager.download(self.url, options), timeout=BOUND_S)
        self._is_right()
        if len(self.run.versions) == 1 and not self.case.fault.starts_over:
            # Bytes in a lane's buffer, or of a block that another lane was fetching too, may be fetched again.
            assert kept >= before - self.case.lanes * (BLOCK + 65_536)
            # Less than a sample cannot be compared, if the validators are not known that it was sent with.
            assert result.resumed >= kept or result.already_complete or kept < SAMPLE_BYTES


def _until(condition: Any, seconds: float, or_else: Any = None) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            if or_else is not None:
                return
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(0.002)
