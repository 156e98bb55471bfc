"""Run schedules in a separate process, with the simulated libcurl and system preloaded.

Each line of stdin is JSON: a schedule, ``{"seed": ...}`` or ``{"first": ..., "count": ...}``. Results are written to
stdout, also as lines of JSON.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import signal
import sys
import time
from typing import Any

__all__ = ["run"]

_REAL_SECONDS = 200
"""For a run, of real time: the engine's thread stands, or turns without asking for anything."""


def _use_other_engine() -> None:
    """Use an engine built with other flags, if the environment names one."""
    path = os.environ.get("SIMULATED_ENGINE")
    if not path:
        return
    import rangefetch

    spec = importlib.util.spec_from_file_location("rangefetch._engine", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["rangefetch._engine"] = module
    spec.loader.exec_module(module)
    rangefetch._engine = module


_use_other_engine()

from rangefetch import _engine  # noqa: E402 - on the engine that was chosen
from rangefetch._engine import Engine  # noqa: E402 - on the engine that was chosen
from rangefetch.net import libcurl  # noqa: E402 - on the engine that was chosen
from simulator.promises import Broken  # noqa: E402 - on the engine that was chosen
from simulator.schedule import draw  # noqa: E402 - on the engine that was chosen
from simulator.user import User  # noqa: E402 - on the engine that was chosen
from simulator.world import ACT, EPOCH_US, Simulated  # noqa: E402 - on the engine that was chosen


def run(simulated: Simulated, schedule: dict[str, Any]) -> dict[str, Any]:
    """Run one schedule. Returns how its files ended, what it took, and which invariant was broken, if any."""
    simulated.fill(schedule)
    user = User(simulated, schedule)
    act = ACT(user.act)
    simulated.library.world_begins(act)
    loops = schedule.get("loops", 1)
    user.engine = Engine(loops)
    simulated.library.world_starts(user.engine.fileno(), loops)
    lasted = simulated.library.world_lasts(_REAL_SECONDS)
    if not lasted:
        _say({"seed": schedule["seed"], "broken": "the engine's thread does not come back"})
        os._exit(3)
    user.engine.close()
    world = simulated.world
    error = user.error
    if error is None:
        try:
            user.closed()
        except Broken as broken:
            error = broken
    wrong = str(error) if isinstance(error, Broken) else ""
    if error is not None and not wrong:
        raise error
    if not wrong and world.broken:
        wrong = world.broken.decode()
    if not wrong and world.open_sockets:
        wrong = f"{world.open_sockets} sockets are open at the end"
    if not wrong and (_engine.live_handles() or world.easies):
        wrong = f"{world.easies} handles are left at the end"
    for download in user.downloads:
        download.file = None
    user.engine = None
    return {
        "seed": schedule["seed"],
        "results": [download.result for download in user.downloads],
        "broken": wrong,
        "seconds": (world.now_us - EPOCH_US) / 1e6,
        "requests": world.requests,
        "polls": world.polls,
        "guests": user.guests,
        "leases": user.leases,
        "digest": world.digest,
        "fired": [kind for (kind, *_), times in zip(schedule["faults"], world.fired, strict=False) if times],
        "log": user.log if wrong or os.environ.get("SIMULATED_LOG") else [],
    }


def _say(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


def _series(simulated: Simulated, first: int, count: int) -> None:
    """Run many seeds: prints a line for each that broke an invariant, and one summary."""
    began = time.monotonic()
    counts: dict[str, int] = {}
    fired: dict[str, int] = {}
    seconds = requests = 0.0
    guests = leases = 0
    longest = (0.0, 0)
    for seed in range(first, first + count):
        sys.stderr.write(f"{seed}\n")
        sys.stderr.flush()
        result = run(simulated, draw(seed))
        seconds += result["seconds"]
        requests += result["requests"]
        guests += result["guests"]
        leases += result["leases"]
        longest = max(longest, (result["seconds"], seed))
        for ended in result["results"]:
            word = ended.split(":")[0]
            counts[word] = counts.get(word, 0) + 1
        for kind in result["fired"]:
            fired[kind] = fired.get(kind, 0) + 1
        if result["broken"]:
            _say(result)
    gc.collect()
    live = _engine.live_resources()
    if live is not None and live["memory"]:
        _say({"seed": first, "broken": f"{live['memory']} pieces of memory are left after these and those that follow"})
    _say(
        {
            "first": first,
            "count": count,
            "results": counts,
            "fired": fired,
            "requests": requests,
            "guests": guests,
            "leases": leases,
            "simulated_seconds": seconds,
            "longest": longest,
            "real_seconds": time.monotonic() - began,
        }
    )


def main() -> None:
    """Run until stdin is closed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    libcurl.load()
    simulated = Simulated()
    for line in sys.stdin:
        wanted = json.loads(line)
        if "count" in wanted:
            _series(simulated, wanted["first"], wanted["count"])
        else:
            _say(run(simulated, wanted if "servers" in wanted else draw(wanted["seed"])))


if __name__ == "__main__":
    main()
