"""Schedules: everything that determines a simulated run, drawn from a seed.

A schedule is plain data: the servers' properties, which request or call meets which fault, the files, and when the
engine is asked to do something. It determines the run completely, so it can be kept and minimised.
"""

from __future__ import annotations

import errno
import random
from typing import Any

__all__ = ["draw"]

_OF_CONNECTIONS = ("no such host", "refused", "unreachable", "hangs", "no tls", "bad certificate")
_OF_REQUESTS = (
    *("silent", "closed", "reset", "garbage", "late", "status", "status", "status", "redirect", "whole"),
    *("other start", "other total", "no content-range", "less", "beyond", "two content-ranges", "other validator"),
    *("no validator", "encoded", "early hints", "header flood", "headers cut", "truncated", "truncated"),
    *(
        "reset within",
        "reset within",
        "stalls",
        "stalls",
        "drips",
        "slow",
        "slow",
        "chunked",
        "chunks end early",
        "lingers",
    ),
    *("excess", "short length", "no length", "closes after", "connection dies"),
)
_OF_THE_SYSTEM = (
    *("no space", "short write", "interrupted", "no fallocate", "no length set", "no nameless", "no link", "no socket"),
    *("no memory for option", "no memory for transfer"),
)
_ERRNOS = {
    "no space": (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG),
    "no fallocate": (errno.ENOSPC, errno.EOPNOTSUPP, errno.EINTR, errno.EIO),
    "no length set": (errno.EFBIG, errno.EIO),
    "no nameless": (errno.EOPNOTSUPP, errno.ENOSPC, errno.EISDIR),
    "no link": (errno.EEXIST, errno.EIO),
    "no socket": (errno.EMFILE, errno.ENFILE, errno.EACCES),
}
_STATUSES = (400, 401, 403, 403, 404, 408, 410, 416, 423, 425, 429, 429, 429, 500, 502, 503, 503, 503, 504, 521)
_FOR_EVER = -1


def draw(seed: int) -> dict[str, Any]:
    """The schedule for a seed."""
    rng = random.Random(seed)
    servers = [_server(rng) for _ in range(rng.choice((1, 1, 1, 2, 2, 3)))]
    changes = rng.random() < 0.15
    resources = [_sizes(rng, changes) for _ in range(rng.choice((1, 1, 1, 1, 2, 3)))]
    if changes:
        for server in servers:
            server["etag"] = server["etag"] or rng.choice((1, 2))
    files = [_file(rng, number, servers, resources) for number in range(len(resources))]
    horizon_ms = rng.choice((300, 2000, 10_000, 60_000))
    loops = _spread(random.Random(f"loops {seed}"), servers, resources, files)
    faults = [fault for _ in range(_few(rng)) for fault in _faults(rng, servers, changes)]
    return {
        "seed": seed,
        "loops": loops,
        "closes_ms": random.Random(f"closes {seed}").choice((*(0,) * 22, 300, 1000, 3000)),
        "old_curl": int(rng.random() < 0.3),
        "pauses_at_once": int(rng.random() < 0.5),
        "late_us": rng.choice((0, 0, 0, 3000, 400_000)),
        "cpu_percent": rng.choice((5, 5, 40, 95)),
        "servers": servers,
        "resources": resources,
        "faults": faults[:60],
        "changes": [
            [rng.randrange(horizon_ms * 1000), rng.randrange(len(resources)), rng.randrange(1, 3)]
            for _ in range(rng.choice((1, 1, 2)) if changes else 0)
        ],
        "files": files,
        "operations": sorted(
            _operation(rng, rng.randrange(horizon_ms), len(files), servers)
            for _ in range(rng.choice((0, 0, 0, 1, 1, 2, 4, 8)))
        ),
        "read_timeout_s": rng.choice((1, 5, 20, 60)),
        "connect_timeout_s": rng.choice((1, 10, 30)),
        "decides_ms": rng.choice((0, 0, 0, 1, 50, 300)),
    }


def _spread(
    rng: random.Random, servers: list[dict[str, int]], resources: list[list[int]], files: list[dict[str, Any]]
) -> int:
    """Choose how many loops there are, and on how many of them each file runs. If some files use several loops, most
    are large enough, and their servers slow enough, that there is time for it."""
    loops = rng.choice((*(1,) * 42, 2, 2, 3))  # runs with several loops take ten times as long
    for file in files:
        file["loops"] = rng.choice((0, 2, 3))
        file["lease_bytes"] = rng.choice((1, 4096, 65_536, 1 << 20))
    if loops == 1 or rng.random() < 0.4:
        return loops
    for server in servers:
        server["bytes_per_s"] = rng.choice((100_000, 1_000_000, 3_000_000))
        server["total_bytes_per_s"] = rng.choice((0, 0, 3)) * server["bytes_per_s"]
        server["rtt_us"] = min(server["rtt_us"], 30_000)
        server["ranges"] = 1
    for file, sizes in zip(files, resources, strict=True):
        more = rng.randrange(1 << 20, 12 << 20)
        sizes[:] = [size + more for size in sizes]
        file.update(window_bytes=0, reads=0, small=0, ranged=1)
        file.update(loops=rng.choice((0, 2, 2, 3)), lanes=rng.choice((2, 4, 8, 16)))
        file["least_bytes"] = min(file["least_bytes"], 65_536)
        if not file["saved"] and rng.random() < 0.7:
            # Only files started by an earlier run have blocks smaller than a MiB.
            file["saved"] = rng.randrange(1, 1 << 30)
        if file["saved"]:
            file["block_size"] = max(rng.choice((512, 4096, 65_536)), sizes[0] // 500)
    return loops


def _few(rng: random.Random) -> int:
    return rng.choice((0, 1, 1, 1, 2, 2, 3, 4, 6))


def _server(rng: random.Random) -> dict[str, int]:
    rate = rng.choice((20_000, 300_000, 3_000_000, 30_000_000, 300_000_000))
    secure = rng.random() < 0.4
    return {
        "rtt_us": rng.choice((100, 5_000, 30_000, 120_000, 400_000)),
        "bytes_per_s": rate,
        "total_bytes_per_s": rng.choice((0, 0, 0, rate, 3 * rate)),
        "burst_bytes": rng.choice((1000, 16_384, 65_536, 262_144)),
        "piece_bytes": rng.choice((16_384, 16_384, 16_384, 16_384, 5000)),
        "most_served": rng.choice((0, 0, 0, 0, 1, 2, 5)),
        "idle_us": rng.choice((1_000, 5_000_000, 60_000_000)),
        "secure": int(secure),
        "http2": int(secure and rng.random() < 0.4),
        "ranges": int(rng.random() < 0.9),
        "chunked": int(rng.random() < 0.1),
        "states_length": int(rng.random() < 0.9),
        "closes_each": int(rng.random() < 0.1),
        "etag": rng.choice((0, 1, 1, 1, 1, 2, 3)),
        "dates": int(rng.random() < 0.5),
        "two_addresses": int((second := rng.random()) < 0.1) + int(second < 0.04),
    }


def _sizes(rng: random.Random, each_its_own: bool) -> list[int]:
    size = rng.choice(
        (0, 1, rng.randrange(5000), rng.randrange(1 << 17), 1 << 20, rng.randrange(1 << 21), rng.randrange(10 << 20))
    )
    if each_its_own or rng.random() < 0.5:
        return [size, size + 1 + rng.randrange(1000), size + 2000 + rng.randrange(1000)]
    return [size, size, size]


def _file(rng: random.Random, number: int, servers: list[dict[str, int]], resources: list[list[int]]) -> dict[str, Any]:
    size = resources[number][0]
    saved = size > 0 and rng.random() < 0.5
    others = [i for i in range(len(servers)) if i]
    return {
        "at_ms": rng.choice((0, 0, rng.randrange(3000))),
        "resource": number,
        "server": 0 if rng.random() < 0.8 else rng.randrange(len(servers)),
        "mirrors": rng.sample(others, rng.randrange(len(others) + 1)),
        "lanes": rng.choice((1, 2, 4, 8, 16, 64)),
        "source_lanes": rng.choice((1, 2, 1024, 1024)),
        "host_lanes": rng.choice((1, 3, 8, 1024, 1024)),
        "insists": int(rng.random() < 0.3),
        "request_every_us": rng.choice((0, 0, 0, 0, 1000, 50_000, 2_000_000)),
        "first_bytes": rng.choice((1, 1000, 65_536, 1 << 20, 4 << 20)),
        "least_bytes": rng.choice((0, 1000, 65_536, 4 << 20)),
        "window_bytes": rng.choice((0, 0, 0, 20_000, 1 << 20)),
        "limit": rng.choice((0, 0, 0, 0, 50_000, 1_000_000)),
        "allocation": rng.choice(("falloc", "trunc", "none")),
        "ranged": int(rng.random() < 0.9),
        "small": int(not saved and rng.random() < 0.25),
        "block_size": max(rng.choice((1, 7, 512, 4096, 65_536)), size // 500) if saved else 0,
        "saved": rng.randrange(1 << 30) if saved else 0,
        "reads": int(rng.random() < 0.15),
        "gives_up_after": rng.choice((3, 8, 15)),
    }


def _faults(rng: random.Random, servers: list[dict[str, int]], changes: bool) -> list[list[Any]]:
    server = rng.randrange(len(servers))
    draw = rng.random()
    kind = rng.choice(_OF_CONNECTIONS if draw < 0.15 else _OF_THE_SYSTEM if draw < 0.25 else _OF_REQUESTS)
    if changes and kind == "no validator":
        kind = "other validator"
    first = rng.choice((0, 0, 1, 2, rng.randrange(8), rng.randrange(30)))
    count = rng.choice((1, 1, 1, 2, 3, 6, _FOR_EVER if rng.random() < 0.3 else 1))
    near = rng.choice((0, 1, rng.randrange(1, 5000), rng.randrange(1, 1 << 17), rng.randrange(1, 1 << 21)))
    a, b = near, 0
    if kind in _ERRNOS:
        server, a = 0, rng.choice(_ERRNOS[kind])
    elif kind in _OF_THE_SYSTEM:
        server = 0
    elif kind == "late":
        a = rng.choice((100_000, 2_000_000, 15_000_000))
    elif kind == "status":
        a, b = rng.choice(_STATUSES), rng.choice((-1, -1, 0, 1, 5, 90))
    elif kind == "redirect":
        a, b = rng.randrange(len(servers)), rng.randrange(5)
    elif kind == "other start":
        b = rng.randrange(2)
    elif kind == "other validator":
        a = rng.choice((0, 4, 8))
    elif kind == "header flood":
        a = rng.choice((50, 1001, 3000))
    elif kind == "headers cut":
        a = rng.randrange(5)
    elif kind == "stalls":
        b = rng.choice((0, 0, 300_000, 3_000_000, 30_000_000))
    elif kind == "drips":
        a = rng.choice((5, 3000))
    elif kind == "slow":
        a = rng.choice((3, 10, 50))
    elif kind == "excess":
        a, b = near or 1, rng.randrange(2)
    if (kind == "interrupted" or (kind == "no fallocate" and a == errno.EINTR)) and count == _FOR_EVER:
        count = 3
    return [[kind, server, first, count, a, b]]


def _operation(rng: random.Random, at_ms: int, files: int, servers: list[dict[str, int]]) -> list[Any]:
    name = rng.choice(
        (
            *("limit", "limit", "file limit", "file limit", "pause", "pause", "resume", "cancel", "mirror", "lanes"),
            *("source lanes", "host lanes", "rest", "move", "resolve again", "ban", "rest host", "feed", "rate"),
        )
    )
    value: Any = 0
    if name in ("limit", "file limit"):
        value = rng.choice((0, 0, 0, 20_000, 200_000, 5_000_000))
    elif name == "mirror":
        value = rng.randrange(len(servers))
    elif name in ("lanes", "source lanes", "host lanes"):
        value = rng.choice((1, 2, 5, 64))
    elif name in ("rest", "rest host"):
        value = rng.choice((100, 2000, 20_000))
    elif name == "rate":
        value = rng.choice((0, 0, 1000, 1_000_000))
    elif name == "pause":
        value = rng.choice((1, 500, 10_000))
    elif name == "ban":
        value = rng.randrange(2)
    return [at_ms, name, rng.randrange(files), value]
