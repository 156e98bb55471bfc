"""The simulated world as Python sees it: its structs, and the library that serves the engine as libcurl and as system.

The library must be loaded before Python, so a world exists only in a process that runs ``simulator.run``.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

__all__ = ["FAULTS", "SERVER_FIELDS", "SOURCES", "Simulated"]

SOURCES = tuple(Path(__file__).with_name(name) for name in ("system.c", "servers.c", "curl.c"))

MOST_SERVERS, MOST_FAULTS, MOST_CHANGES, MOST_RESOURCES, MOST_VERSIONS = 8, 64, 8, 8, 4
DIRECTORY = (1 << 20) - 1
EPOCH_US = 1_000_000_000_000
"""What the simulated clock says when a world begins."""

FAULTS = {
    # Of connections.
    "no such host": 1,
    "refused": 2,
    "unreachable": 3,
    "hangs": 4,
    "no tls": 5,
    "bad certificate": 6,
    # Of requests: no answer.
    "silent": 20,
    "closed": 21,
    "reset": 22,
    "garbage": 23,
    "late": 24,  # a: microseconds
    # Another answer.
    "status": 25,  # a: the status, b: Retry-After in seconds; -1: none
    "redirect": 26,  # a: the server, b: which of the statuses
    "whole": 27,
    "other start": 28,  # a: by how much, b: whether it is later
    "other total": 29,  # a: by how much
    "no content-range": 30,
    "less": 31,  # a: by how much
    "beyond": 32,  # a: by how much
    "two content-ranges": 33,
    "other validator": 34,  # a: which
    "no validator": 35,
    "encoded": 36,
    "early hints": 37,  # a: how many
    "header flood": 38,  # a: lines
    "headers cut": 39,  # a: after so many lines
    # Another body.
    "truncated": 50,  # a: after so many bytes
    "reset within": 51,  # a: after so many bytes
    "stalls": 52,  # a: after so many bytes, b: microseconds; 0: for ever
    "drips": 53,  # a: bytes per second
    "slow": 54,  # a: how many times slower
    "chunked": 55,
    "chunks end early": 56,  # a: after so many bytes
    "lingers": 57,
    "excess": 58,  # a: bytes, b: whether Content-Length has them
    "short length": 59,  # a: by how much
    "no length": 60,
    "closes after": 61,
    "connection dies": 62,  # a: after so many bytes
    "other bytes": 63,  # undetectable by any client; for tests of the simulator itself
    # The system.
    "no space": 80,  # a: the errno
    "short write": 81,
    "interrupted": 82,
    "no fallocate": 83,  # a: the errno
    "no length set": 84,  # a: the errno
    "no nameless": 85,  # a: the errno
    "no link": 86,  # a: the errno
    "no socket": 87,  # a: the errno
    "no memory for option": 88,
    "no memory for transfer": 89,
}

SERVER_FIELDS = (
    *("rtt_us", "bytes_per_s", "total_bytes_per_s", "burst_bytes", "piece_bytes", "most_served", "idle_us", "secure"),
    *("http2", "ranges", "chunked", "states_length", "closes_each", "etag", "dates", "two_addresses"),
)


class _Server(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in SERVER_FIELDS]


class _Fault(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("kind", "server", "first", "count", "a", "b")]


class _Change(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("at_us", "resource", "version")]


class _Resource(ctypes.Structure):
    _fields_ = [("versions", ctypes.c_int64), ("sizes", ctypes.c_int64 * MOST_VERSIONS)]


class _World(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in (
                *("seed", "old_curl", "pauses_at_once", "late_us", "cpu_percent"),
                *("server_count", "fault_count", "change_count", "resource_count"),
            )
        ),
        ("servers", _Server * MOST_SERVERS),
        ("faults", _Fault * MOST_FAULTS),
        ("changes", _Change * MOST_CHANGES),
        ("resources", _Resource * MOST_RESOURCES),
        *(
            (name, ctypes.c_int64)
            for name in (
                *("now_us", "requests", "connections", "delivered_bytes", "polls", "open_sockets", "easies"),
                *("writes", "written_bytes"),
            )
        ),
        ("version", ctypes.c_int64 * MOST_RESOURCES),
        ("fired", ctypes.c_int64 * MOST_FAULTS),
        ("digest", ctypes.c_uint64),
        ("broken", ctypes.c_char * 256),
    ]


ACT = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)


class Simulated:
    """The library, and the world in it."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL(os.environ["RANGEFETCH_LIBCURL"])
        self.world = _World.in_dll(self.library, "world")
        self._declare("simulated_difference", ctypes.c_int64, ctypes.c_int, *[ctypes.c_int64] * 4)
        self._declare("simulated_fill", None, ctypes.c_int, *[ctypes.c_int64] * 4)
        self._declare("simulated_return", None, ctypes.c_int, ctypes.c_int)
        self._declare("simulated_size", ctypes.c_int64, ctypes.c_int)
        self._declare("simulated_file", ctypes.c_int, ctypes.c_char_p)
        self._declare("simulated_file_named", ctypes.c_int, ctypes.c_char_p)
        self._declare("world_begins", None, ACT)
        self._declare("host_name", ctypes.c_char_p, ctypes.c_int64)
        self._declare("transfers_of", ctypes.c_int, ctypes.c_int64)

    def _declare(self, name: str, result: Any, *arguments: Any) -> None:
        function = getattr(self.library, name)
        function.restype = result
        function.argtypes = arguments

    def fill(self, schedule: dict[str, Any]) -> None:
        """Set up the world as the schedule describes it."""
        world = self.world
        for name in ("seed", "old_curl", "pauses_at_once", "late_us", "cpu_percent"):
            setattr(world, name, schedule[name])
        world.server_count = len(schedule["servers"])
        for i, server in enumerate(schedule["servers"]):
            world.servers[i] = _Server(**server)
        world.fault_count = len(schedule["faults"])
        for i, (kind, *numbers) in enumerate(schedule["faults"]):
            world.faults[i] = _Fault(FAULTS[kind], *numbers)
        world.change_count = len(schedule["changes"])
        for i, change in enumerate(schedule["changes"]):
            world.changes[i] = _Change(*change)
        world.resource_count = len(schedule["resources"])
        for i, sizes in enumerate(schedule["resources"]):
            world.resources[i] = _Resource(len(sizes), (ctypes.c_int64 * MOST_VERSIONS)(*sizes))
