"""Finds out what limited a download's speed, from where its time went."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["SHORT_US", "TOO_SHORT", "explain"]

TOO_SHORT = "too short to tell"
"""The result for a download that took almost no time."""

SHORT_US = 200_000
"""If a download took less than this, and its server answered in no time, nothing can be told."""
_MOST = 0.5  # what takes this share of the time is the limit
_NEARLY = 0.85  # a speed above this share of a limit was at the limit
_BUSY = 0.8  # a thread busy for this share of the time has no room left


def explain(effort: Mapping[str, int], size_bytes: int, most_lanes: int) -> str:
    """Say in one line what limited the speed: the configured limit, the disk, this machine's processor, the server (per
    connection), or the network; ``TOO_SHORT`` if that cannot be told.

    ``effort`` is ``_engine.File.effort`` plus ``limit`` (bytes per second, 0: none), and perhaps ``request_ms``, the
    time that the server took to answer, and ``connections``, how many were opened. ``size_bytes`` is what was fetched,
    ``most_lanes`` the most connections allowed.
    """
    lasted_us = effort["lasted_us"]
    waited_us = 1000 * effort.get("request_ms", 0)
    if lasted_us < SHORT_US or not size_bytes:
        if waited_us > _MOST * lasted_us:
            return f"latency: the server took {waited_us / 1000:.0f} ms to answer, of {lasted_us / 1000:.0f} ms in all"
        return TOO_SHORT
    # The engine may still have been aiming for more connections when the last byte came.
    lanes = min(effort["lanes_aim"], most_lanes, effort.get("connections", 0) or most_lanes) or 1
    speed = size_bytes / lasted_us  # bytes per microsecond are megabytes per second
    limit = effort.get("limit", 0)
    if effort["paused_us"] > _MOST * lasted_us or (limit and speed * 1e6 > _NEARLY * limit):
        return f"the configured limit ({_rate(speed)})"
    if effort["disk_us"] > _MOST * lasted_us:
        return f"the disk: {100 * effort['disk_us'] // lasted_us} % of the time went into writing"
    if effort["cpu_us"] > _BUSY * lasted_us:
        return f"this machine: the engine's thread was busy {100 * effort['cpu_us'] // lasted_us} % of the time"
    if effort["growth_ended"]:
        more = "more than 1 connection was" if lanes == 1 else f"more than {lanes} connections were"
        return f"the server or the network: {more} no faster than {_rate(speed)}"
    if lanes >= most_lanes == 1:
        words = f"the server or the network: the only connection allowed reached {_rate(speed)}"
        return f"{words}; more may be allowed with -x and -s"
    if lanes >= most_lanes:
        return (
            f"the server's limit per connection: {lanes} connections reached {_rate(speed / lanes)} each; "
            "more may be allowed with -x and -s"
        )
    return f"the server or the network: {lanes} connection{'s' if lanes > 1 else ''} reached {_rate(speed)}"


def _rate(megabytes_per_s: float) -> str:
    return f"{megabytes_per_s:.1f} MB/s" if megabytes_per_s >= 0.1 else f"{1000 * megabytes_per_s:.0f} kB/s"
