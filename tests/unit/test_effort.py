"""The sentence that says what limited the speed."""

import re
from typing import Any

import pytest

from rangefetch.transfer.effort import explain
from support.files import MIB

S = 1_000_000
"""Microseconds."""
NOTHING = {"lasted_us": 10 * S, "cpu_us": S, "disk_us": S, "paused_us": 0, "lanes_aim": 8, "growth_ended": False}


@pytest.mark.parametrize(
    ("found", "size_bytes", "most_lanes", "said"),
    [
        ({"lasted_us": 199_999}, 100 * MIB, 16, "too short to tell"),
        ({}, 0, 16, "too short to tell"),
        ({"lasted_us": 40_000, "request_ms": 30}, MIB, 16, "latency: the server took 30 ms to answer, of 40 ms in all"),
        ({"lasted_us": 40_000, "request_ms": 3}, MIB, 16, "^too short to tell$"),
        ({"paused_us": 6 * S}, 100 * MIB, 16, r"the configured limit \(10\.5 MB/s\)"),
        ({"limit": 10 * MIB}, 100 * MIB, 16, r"the configured limit \(10\.5 MB/s\)"),
        ({"limit": 20 * MIB, "disk_us": 6 * S}, 100 * MIB, 16, "the disk: 60 % of the time went into writing"),
        ({"cpu_us": 9 * S}, 100 * MIB, 16, "this machine: the engine's thread was busy 90 % of the time"),
        ({"growth_ended": True}, 100 * MIB, 16, "more than 8 connections were no faster than 10.5 MB/s"),
        (
            {},
            100 * MIB,
            8,
            "limit per connection: 8 connections reached 1.3 MB/s each; more may be allowed with -x and -s",
        ),
        ({"connections": 3}, 100 * MIB, 8, "the server or the network: 3 connections reached 10.5 MB/s"),
        ({"connections": 0}, 100 * MIB, 8, "limit per connection: 8 connections reached"),
        ({"lanes_aim": 0}, 100 * MIB, 1, "the only connection allowed reached 10.5 MB/s; more may be allowed with -x"),
        ({"lanes_aim": 1}, 100 * MIB, 16, "the server or the network: 1 connection reached 10.5 MB/s"),
        ({"growth_ended": True, "lanes_aim": 1}, 100 * MIB, 16, "more than 1 connection was no faster than"),
        ({}, 100 * MIB, 16, "the server or the network: 8 connections reached 10.5 MB/s"),
        ({}, 100 << 10, 16, "the server or the network: 8 connections reached 10 kB/s"),
    ],
)
def test_what_took_most_of_the_time_is_named(
    found: dict[str, Any], size_bytes: int, most_lanes: int, said: str
) -> None:
    told = explain(NOTHING | found, size_bytes, most_lanes)
    assert re.search(said, told), told
    assert len(told.splitlines()) == 1
