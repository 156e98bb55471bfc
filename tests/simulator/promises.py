"""Invariants that every file in a simulated run must satisfy, whatever happens to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rangefetch._engine import File
from rangefetch.transfer.events import EngineEvent
from simulator.world import Simulated

__all__ = ["DONE", "Broken", "Download", "Promises"]

DONE = 2
"""The mark of a complete block."""


class Broken(Exception):
    """An invariant does not hold."""


class Download:
    """One file of the schedule. The engine may have several ``File`` objects for it, one after the other."""

    def __init__(self, number: int, spec: dict[str, Any]) -> None:
        self.number = number
        self.spec = spec
        self.file: File | None = None
        self.fd = -1
        self.held = 0
        self.failures = 0
        self.failures_in_all = 0
        self.downloaded = 0
        self.restarts = 0
        self.ranged = bool(spec["ranged"])
        self.limit = spec["limit"]
        self.leaving = ""  # why it was removed from the engine
        self.why = ""
        self.result = ""
        self.sources: list[int] = []
        self.banned: set[int] = set()
        self.answered: set[int] = set()
        self.failed_at: dict[int, str] = {}
        self.resume_ms = 0
        self.saved: dict[str, Any] | None = None
        self.waits_for_nothing = 0
        self.reader = 0
        self.plain = False
        self.small = False
        self.bytes_in_all = 0

    @property
    def name(self) -> str:
        return f"file{self.number}"


class Promises:
    """Checks the invariants during one run."""

    def __init__(self, simulated: Simulated, schedule: dict[str, Any]) -> None:
        self._simulated = simulated
        self._schedule = schedule

    def _versions(self, download: Download) -> list[int]:
        """The versions that the resource may have had."""
        resource = download.spec["resource"]
        return sorted({0, *(version for _, of, version in self._schedule["changes"] if of == resource)})

    def check_marks(self, download: Download) -> None:
        """Check that the bytes that the map marks as written are in the file, and all from one version."""
        file = download.file
        assert file is not None
        spans = []
        if file.block_size:
            block_size, size = file.block_size, file.size
            partial = file.partial
            for index, state in enumerate(file.blocks):
                start = index * block_size
                end = min(start + block_size, size) if state == DONE else start + partial[index]
                if end > start:
                    spans.append((start, end))
        elif file.downloaded:
            spans.append((0, file.downloaded))
        if sum(end - start for start, end in spans) != file.downloaded:
            raise Broken(f"{download.name}: its map has {spans}, and its counter {file.downloaded}")
        if spans and download.fd >= 0:
            self._must_match(download, spans)

    def _must_match(self, download: Download, spans: list[tuple[int, int]]) -> None:
        differ = {}
        for version in self._versions(download):
            for start, end in spans:
                at = self._simulated.library.simulated_difference(
                    download.fd, download.spec["resource"], version, start, end
                )
                if at >= 0:
                    differ[version] = at
                    break
            else:
                return
        raise Broken(f"{download.name}: wrong bytes: of version: at {differ}")

    def check_whole(self, download: Download) -> None:
        file = download.file
        assert file is not None
        if download.fd < 0:
            download.fd = self._simulated.library.simulated_file_named(download.name.encode())
        if download.fd < 0:
            raise Broken(f"{download.name}: it is done, and there is no file")
        sizes = self._schedule["resources"][download.spec["resource"]]
        held = self._simulated.library.simulated_size(download.fd)
        if file.size < 0 or held < file.size:
            raise Broken(f"{download.name}: it is done, its size is {file.size}, and there are {held} bytes")
        if file.size not in {sizes[version] for version in self._versions(download)}:
            raise Broken(f"{download.name}: it is done with {file.size} bytes; it never had so many: {sizes}")
        if file.size:
            self._must_match(download, [(0, file.size)])
        if file.downloaded != file.size:
            raise Broken(f"{download.name}: it is done with {file.downloaded} of {file.size} bytes")

    def check_bounds(self, download: Download, file: File) -> None:
        """Check that not much more is requested than there is."""
        sizes = max(self._schedule["resources"][download.spec["resource"]])
        failures = download.failures_in_all + download.restarts + 1
        most = (sizes + (1 << 18)) * (3 + failures) + file.hedges * (4 << 20) + file.replacements * (1 << 20)
        # The pages of errors and redirects are read too, up to a limit for each.
        if file.received_bytes > most + file.requests * (64 << 10):
            raise Broken(f"{download.name}: {file.received_bytes} bytes came for {sizes}")
        # A range is at most a quarter of the window, and a server may answer it in several parts.
        ranges = 16 * sizes // download.spec["window_bytes"] if download.spec["window_bytes"] else 0
        if file.requests > 300 + 100 * failures + 4 * file.steals + 8 * len(file.blocks) + ranges:
            raise Broken(f"{download.name}: {file.requests} requests")

    def check_kept(self, download: Download, file: File, event: EngineEvent) -> None:
        """Check what a failure says is there without transfers in progress."""
        if not 0 <= event.kept_bytes <= max(file.size, 0):
            raise Broken(f"{download.name}: {event.kept_bytes} of {file.size} bytes are said to be there")

    def count_transfers(self, downloads: Sequence[Download]) -> None:
        """Check that a file has no more transfers than its lanes, however many loops it is on."""
        if any(name == "lanes" for _, name, _, _ in self._schedule["operations"]):
            return
        for download in downloads:
            transfers = self._simulated.library.transfers_of(download.spec["resource"])
            if transfers > download.spec["lanes"]:
                raise Broken(f"{download.name}: {transfers} transfers at a time, {download.spec['lanes']} at most")
