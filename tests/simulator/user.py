"""The engine's user in a simulated run: adds files, performs operations on them, and decides what to do after failures.

Failures are classified with the package's own table (``transfer.retry``) and handled in a short version of
``native.recovery``. This code runs in the loop's thread while the simulated clock stands still, and checks all
invariants: see ``Broken``.
"""

from __future__ import annotations

import functools
import heapq
import random
from collections.abc import Callable
from typing import Any

from rangefetch import _engine
from rangefetch._engine import Engine, File, Profile
from rangefetch.transfer.events import EngineEvent
from rangefetch.transfer.failure import Curl, Failure, Fault
from rangefetch.transfer.retry import Kind, RetryPolicy
from simulator.promises import DONE, Broken, Download, Promises
from simulator.world import DIRECTORY, EPOCH_US, Simulated

__all__ = ["User"]

_LONGEST_US = 120_000 * 1_000_000
"""Of simulated time, for a run. The slowest schedules move 10 MiB at some hundred bytes a second, and what moves 100 in
a second is not given up."""
_LOOK_US = 5_000_000
_MOST_RESTARTS = 3
_MOST_FAILURES = 150


class User:
    """The driver of one run."""

    def __init__(self, simulated: Simulated, schedule: dict[str, Any]) -> None:
        self.simulated = simulated
        self.schedule = schedule
        self._promises = Promises(simulated, schedule)
        self.engine: Engine | None = None
        self.error: BaseException | None = None
        self.policy = RetryPolicy()
        self.log: list[str] = []
        self.guests = self.leases = 0
        self._rng = random.Random(schedule["seed"] + 1)
        number = _engine.constants()
        self.profile = Profile(
            [(number["CURLOPT_CONNECTTIMEOUT_MS"], schedule["connect_timeout_s"] * 1000)],
            [],
            [],
            connect_timeout_s=schedule["connect_timeout_s"],
            read_timeout_s=schedule["read_timeout_s"],
        )
        self.downloads = [Download(number, spec) for number, spec in enumerate(schedule["files"])]
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0
        self._now_us = EPOCH_US
        for download in self.downloads:
            self._later(download.spec["at_ms"] / 1000, functools.partial(self._add, download))
        for at_ms, name, file, value in schedule["operations"]:
            self._later(at_ms / 1000, functools.partial(self._operate, name, self.downloads[file], value))
        self._later(_LOOK_US / 1e6, self._look)
        self.closes = False
        if schedule.get("closes_ms", 0):
            self._later(schedule["closes_ms"] / 1000, self._close)

    # -- the clock --------------------------------------------------------------------------------------------------

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._due, (self._now_us + int(seconds * 1_000_000), self._order, what))

    def act(self, now_us: int) -> int:
        """Do everything that is due. Returns when something is due next, or -1 if the run is over."""
        try:
            self._now_us = now_us
            engine = self.engine
            assert engine is not None
            if self.simulated.world.broken:
                raise Broken(self.simulated.world.broken.decode())
            self._promises.count_transfers(self.downloads)
            for event in engine.events():
                self._hear(EngineEvent._make(event))
            while self._due and self._due[0][0] <= now_us:
                heapq.heappop(self._due)[2]()
            if self.closes or all(download.result for download in self.downloads):
                return -1
            if now_us - EPOCH_US > _LONGEST_US:
                states = [
                    download.result or (f"{download.file.waiting_for}" if download.file else "not in the engine")
                    for download in self.downloads
                ]
                raise Broken(f"it does not end: {states}")
            return self._due[0][0]
        except BaseException as error:
            self.error = error
            return -1

    def _close(self) -> None:
        """End the run, whatever the loops are doing."""
        self.closes = True

    def closed(self) -> None:
        """Check the files after the engine has ended: their maps are what Python would save. Raises ``Broken``."""
        for download in self.downloads:
            if download.file is not None and not download.result:
                self.guests += download.file.guests
                self.leases += download.file.leases
                if not download.small:
                    self._promises.check_marks(download)
                download.result = "closed"
            download.result = download.result or "not begun"

    def _say(self, *words: Any) -> None:
        self.log.append(f"{(self._now_us - EPOCH_US) / 1e6:.6f} " + " ".join(str(word) for word in words))

    # -- files ------------------------------------------------------------------------------------------------------

    def _url(self, server: int, resource: int) -> str:
        scheme = "https" if self.schedule["servers"][server]["secure"] else "http"
        return f"{scheme}://{self.simulated.library.host_name(server).decode()}/{resource}"

    def _new_fd(self, download: Download) -> int:
        fd: int = self.simulated.library.simulated_file(download.name.encode())
        if fd < 0:
            raise Broken("no descriptors are left")
        return fd

    def _add(self, download: Download) -> None:
        """Give the download to the engine, for the first time or again."""
        spec = download.spec
        if download.result or download.file is not None:
            return
        resource = spec["resource"]
        known: dict[str, Any] = {}
        saved = download.saved
        if saved is None and spec["saved"] and download.restarts == 0:
            saved = self._earlier_run(download)
        if saved is not None:
            known = {key: saved[key] for key in ("size", "block_size", "blocks", "partial", "etag", "last_modified")}
            download.fd = saved["fd"]
        download.small = bool(spec["small"]) and saved is None and download.restarts == 0
        if saved is None:
            download.fd = -1 if download.small else self._new_fd(download)
        download.sources = [spec["server"], *(mirror for mirror in spec["mirrors"] if mirror != spec["server"])]
        download.banned.clear()
        download.answered.clear()
        download.held = 0
        download.leaving = ""
        download.reader = 0
        file = File(
            download.fd,
            self._url(spec["server"], resource),
            self.profile,
            tag=download,
            ranged=download.ranged,
            lanes=spec["lanes"],
            first_bytes=spec["first_bytes"],
            least_bytes=spec["least_bytes"],
            window_bytes=spec["window_bytes"],
            limit=download.limit,
            allocation=spec["allocation"],
            mirrors=[(self._url(server, resource), self.profile, "", "") for server in download.sources[1:]],
            source_lanes=spec["source_lanes"],
            host_lanes=spec["host_lanes"],
            insists=bool(spec["insists"]),
            request_every_us=spec.get("request_every_us", 0),
            loops=spec.get("loops", 0),
            lease_bytes=spec.get("lease_bytes", 256 << 20),
            **known,
        )
        file.uncached = download.number % 2 == 1
        if download.small:
            # A small file is created under its own name; a placed file has another one.
            file.be_small(DIRECTORY, download.name, named_by_url=False)
        if spec["reads"]:
            file.read_to(0, 1)
            if spec["window_bytes"]:
                self._later(0.05, lambda: self._read(download, file))
        if download.fd >= 0:
            self.simulated.library.simulated_return(download.fd, 0)
        download.file = file
        download.downloaded = file.downloaded
        assert self.engine is not None
        self.engine.add(file, download.number % self.schedule.get("loops", 1))
        self._say("add", download.name, "saved" if saved else "", "small" if download.small else "")

    def _earlier_run(self, download: Download) -> dict[str, Any] | None:
        """The state of an earlier run that has fetched parts of the first version."""
        spec = download.spec
        resource = spec["resource"]
        size = self.schedule["resources"][resource][0]
        server = self.schedule["servers"][spec["server"]]
        if not (server["etag"] or server["dates"]):
            return None
        rng = random.Random(spec["saved"])
        block_size = spec["block_size"]
        count = -(-size // block_size)
        fraction = rng.random()
        blocks = bytes(DONE if rng.random() < fraction else 0 for _ in range(count))
        partial = {}
        fd = self._new_fd(download)
        for index in range(count):
            start = index * block_size
            end = min(start + block_size, size)
            if blocks[index] == DONE:
                self.simulated.library.simulated_fill(fd, resource, 0, start, end)
            elif rng.random() < 0.3 and end - start > 1:
                partial[index] = rng.randrange(1, end - start)
                self.simulated.library.simulated_fill(fd, resource, 0, start, start + partial[index])
        kind = server["etag"]
        etag = {
            0: "",
            1: f'"{resource}-0"',
            2: f'W/"{resource}-0"',
            3: f'"{spec["server"]}-{resource}-0"',
        }[kind]
        return {
            "size": size,
            "block_size": block_size,
            "blocks": blocks,
            "partial": partial,
            "etag": etag,
            "last_modified": "Sun, 06 Nov 1994 08:00:37 GMT" if server["dates"] else "",
            "fd": fd,
        }

    def _remove(self, download: Download, leaving: str, why: str = "") -> None:
        if download.file is None or download.leaving:
            return
        self._say("remove", download.name, leaving, why)
        download.leaving = leaving
        download.why = why
        download.file.remove()

    def _read(self, download: Download, file: File) -> None:
        """Advance the reader, or let it wait."""
        if download.file is not file or download.result:
            return
        there = file.contiguous
        download.reader = min(there, download.reader + self._rng.randrange(1, 200_000))
        file.read_to(download.reader, there + 1)
        self._later(0.05 + self._rng.random() / 5, lambda: self._read(download, file))

    def _look(self) -> None:
        """Check that no file is idle while there is something to do."""
        for download in self.downloads:
            file = download.file
            if file is None or download.result or download.leaving:
                continue
            idle = file.waiting_for == "nothing" and not download.held
            download.waits_for_nothing = download.waits_for_nothing + 1 if idle else 0
            if download.waits_for_nothing >= 3:
                raise Broken(f"{download.name}: nothing is done for it, and it waits for nothing")
            self._promises.check_bounds(download, file)
        self._later(_LOOK_US / 1e6, self._look)

    # -- events -----------------------------------------------------------------------------------------------------

    def _hear(self, event: EngineEvent) -> None:
        """Handle an event, perhaps later: Python may be busy, and until it decides the engine goes on by itself."""
        decides_ms = self.schedule.get("decides_ms", 0)
        if decides_ms:
            self._later(decides_ms / 1000, lambda: self._heed(event))
        else:
            self._heed(event)

    def _heed(self, event: EngineEvent) -> None:
        download: Download = event.file.tag
        name = event.name
        if name in ("DONE", "REMOVED"):
            self.guests += event.file.guests
            self.leases += event.file.leases
            if download.fd >= 0:
                self.simulated.library.simulated_return(download.fd, 1)
        self._say(
            name, download.name, f"code={event.code} status={event.status} fault={Fault(event.fault).name}",
            f"source={event.source} at={event.offset}+{event.received_bytes} errno={event.errno}",
        )  # fmt: skip
        if download.file is None or event.file is not download.file:
            raise Broken("an event of a file that had its last one")
        if name in ("ANSWERED", "MET"):
            download.answered.add(event.source)
        elif name == "HELD" and not download.leaving:
            self._place(download)
        elif name == "DONE":
            self._promises.check_whole(download)
            self._promises.check_bounds(download, download.file)
            download.result = "done"
            download.file = None
        elif name == "REMOVED":
            self._removed(download)
        elif name == "FAILED" and not download.leaving:
            self._place(download)
            self._failed(download, event)

    def _place(self, download: Download) -> None:
        """Give a place to a download that was taken for a small file."""
        if download.small and download.file is not None:
            download.small = False
            download.fd = self._new_fd(download)
            download.file.place(download.fd)

    def _removed(self, download: Download) -> None:
        file = download.file
        assert file is not None
        if not download.small:
            self._promises.check_marks(download)
        if download.leaving == "pause" and not download.small and file.block_size:
            download.saved = {
                "size": file.size,
                "block_size": file.block_size,
                "blocks": bytes(DONE if state == DONE else 0 for state in file.blocks),
                "partial": {
                    index: written
                    for index, written in enumerate(file.partial)
                    if written and file.blocks[index] != DONE
                },
                "fd": download.fd,
                **dict(zip(("etag", "last_modified"), file.validators(0), strict=True)),
            }
        elif download.leaving in ("pause", "restart"):
            download.saved = None
            download.restarts += 1
        download.file = None
        if download.leaving == "pause":
            self._later(download.resume_ms / 1000, lambda: self._add(download))
        elif download.leaving == "restart":
            self._later(0, lambda: self._add(download))
        elif not download.leaving:
            raise Broken(f"{download.name}: removed, and nobody asked for it")
        else:
            download.result = download.why or download.leaving

    # -- failures ---------------------------------------------------------------------------------------------------

    def _others(self, download: Download, source: int) -> bool:
        return any(i not in download.banned for i in range(len(download.sources)) if i != source)

    def _release(self, download: Download, count: int = 1) -> None:
        file = download.file
        if file is None or download.leaving:
            return
        if download.held and ((file.answered and not file.splits) or download.plain):
            self._restart(download, "a stream cannot be continued")
            return
        for _ in range(min(count, download.held)):
            download.held -= 1
            file.release()

    def _release_later(self, download: Download, seconds: float, count: int = 1) -> None:
        file = download.file
        self._later(seconds, lambda: self._release(download, count) if download.file is file else None)

    def _restart(self, download: Download, why: str) -> None:
        if download.restarts >= _MOST_RESTARTS:
            self._remove(download, "error", why)
        else:
            self._remove(download, "restart", why)

    def _give_up_source(self, download: Download, source: int, why: str) -> None:
        assert download.file is not None
        if self._others(download, source):
            download.banned.add(source)
            download.file.ban(source)
            self._release(download, download.held)
        else:
            self._remove(download, "error", why)

    def _failed(self, download: Download, event: EngineEvent) -> None:
        file = download.file
        assert file is not None
        download.held += 1
        download.failures_in_all += 1
        self._promises.check_kept(download, file, event)
        if event.epoch < file.epoch(event.source):
            self._release(download)
            return
        url = self._url(download.sources[event.source], download.spec["resource"])
        redirected = bool(event.address) and event.address != url
        failure = Failure.of(
            event,
            other_lanes=file.lanes_busy,
            answered=event.source in download.answered,
            redirected=redirected,
            named_again=redirected and download.failed_at.get(event.source) == event.address,
            ranged=download.ranged,
        )
        kind = self.policy.classify(failure)
        why = f"{kind}: {failure.fault.name} {failure.status} {failure.code} {failure.errno}"
        self._say("  ", kind)
        if file.downloaded > download.downloaded:
            download.downloaded = file.downloaded
            download.failures = 0
        download.failures += 1
        if download.failures_in_all > _MOST_FAILURES:
            self._remove(download, "error", why)
            return
        if download.failures >= download.spec["gives_up_after"] and not file.lanes_busy:
            self._give_up_source(download, event.source, why)
            return
        wait_s = min(0.1 * 2 ** min(download.failures, 8), 10) * (0.5 + self._rng.random() / 2)
        match kind:
            case Kind.LOCAL:
                if failure.code in (Curl.OUT_OF_MEMORY, Curl.FAILED_INIT) or failure.fault is not Fault.NONE:
                    self._remove(download, "error", why)
                else:
                    self._release_later(download, wait_s)
            case Kind.TOO_MANY_LANES:
                if failure.retry_after_s:
                    _engine.rest_host(event.host, min(failure.retry_after_s, 120), for_all=False)
                file.lanes = max(1, file.lanes_busy)
                self._release_later(download, 0, download.held)
                self._later(30, lambda: self._more_lanes(download, file))
            case Kind.RATE_LIMITED:
                rest_s = min(failure.retry_after_s or wait_s, 120)
                _engine.rest_host(event.host, rest_s)
                self._release_later(download, rest_s)
            case Kind.STALE_LINK:
                download.failed_at[event.source] = event.address
                file.resolve_again(event.source)
                self._release_later(download, 0)
            case Kind.DOUBTFUL if download.failures < 3:
                self._release_later(download, wait_s)
            case Kind.DOUBTFUL | Kind.PERMANENT:
                self._give_up_source(download, event.source, why)
            case Kind.CHANGED:
                if event.source and self._others(download, event.source):
                    self._give_up_source(download, event.source, why)
                else:
                    self._restart(download, why)
            case Kind.NO_RANGES:
                if download.failures < 3 and download.ranged and event.source in download.answered:
                    self._release_later(download, wait_s)
                elif event.source and self._others(download, event.source):
                    self._give_up_source(download, event.source, why)
                elif download.ranged:
                    download.ranged = False
                    if not file.answered and not file.downloaded:
                        file.ask_plainly()
                        self._release(download)
                    else:
                        self._restart(download, why)
                else:
                    self._remove(download, "error", why)
            case _:
                if self._others(download, event.source):
                    file.rest(event.source, wait_s)
                    self._release(download)
                else:
                    self._release_later(download, wait_s)

    def _more_lanes(self, download: Download, file: File) -> None:
        if download.file is file and not download.leaving:
            file.lanes = download.spec["lanes"]

    # -- operations -------------------------------------------------------------------------------------------------

    def _operate(self, name: str, download: Download, value: Any) -> None:
        file = download.file
        self._say("operation", name, download.name, value)
        assert self.engine is not None
        if name == "limit":
            self.engine.limit = value
            if value:
                self._later(20, self._lift)
            return
        if name == "resume":
            self._add(download)
            return
        if file is None or download.leaving:
            if name == "cancel" and not download.result and file is None:
                download.result = "cancelled"
            return
        match name:
            case "file limit":
                download.limit = file.limit = value
            case "pause":
                download.resume_ms = value
                self._remove(download, "pause")
            case "cancel":
                self._remove(download, "cancelled")
            case "mirror":
                download.sources.append(value)
                file.add_source(self._url(value, download.spec["resource"]), self.profile)
            case "lanes":
                file.lanes = value
            case "source lanes":
                file.source_lanes = value
            case "host lanes":
                file.host_lanes = value
            case "rate":
                file.request_every_us = value
            case "rest":
                file.rest(0, value / 1000)
            case "move":
                file.move(0, self._url(download.sources[0], download.spec["resource"]), self.profile)
            case "resolve again":
                file.resolve_again(0)
            case "ban":
                if value < len(download.sources) and self._others(download, value):
                    download.banned.add(value)
                    file.ban(value)
            case "rest host":
                _engine.rest_host(file.host, value / 1000)
            case "feed":
                file.lanes = file.lanes

    def _lift(self) -> None:
        assert self.engine is not None
        self.engine.limit = 0
