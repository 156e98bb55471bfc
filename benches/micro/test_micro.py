"""Microbenchmarks (``pytest benches/micro``) of what runs for each range, each piece of data, or each save."""

from __future__ import annotations

import select
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from rangefetch import _engine
from rangefetch.disk import state
from rangefetch.net import libcurl

_MIB = 1 << 20
_BLOCKS = 65_536


@pytest.fixture(scope="module")
def profile() -> _engine.Profile:
    libcurl.load()
    return _engine.Profile([], [], [])


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    with (tmp_path / "file").open("wb") as file:
        yield file.fileno()


def _saved(done: int) -> state.State:
    """A state in which every other block is partial, the worst case of the largest file."""
    url = "http://example.com/file"
    return state.State(
        url=url,
        resolved_url=url,
        total_size=_BLOCKS * _MIB,
        supports_range=True,
        sources=[state.SourceState(url, etag='"etag"')],
        block_size=_MIB,
        blocks=b"\2" * done + bytes(_BLOCKS - done),
        partial=dict.fromkeys(range(done, min(done + 128, _BLOCKS)), 1000),
    )


@pytest.mark.parametrize("blocks", [64, _BLOCKS])
def test_plan_of_a_resumed_file(
    benchmark: BenchmarkFixture, profile: _engine.Profile, descriptor: int, blocks: int
) -> None:
    """Build the block map from saved data."""
    known: dict[str, Any] = {
        "size": blocks * _MIB,
        "block_size": _MIB,
        "blocks": b"\2\0" * (blocks // 2),
        "partial": {1: 5},
    }
    benchmark(lambda: _engine.File(descriptor, "http://127.0.0.1/", profile, **known))


def test_a_round_of_the_loop(benchmark: BenchmarkFixture, profile: _engine.Profile) -> None:
    """Send a command and get an event: a resumed file that is already complete."""
    engine = _engine.Engine()
    poller = select.poll()
    poller.register(engine.fileno(), select.POLLIN)

    def round_trip() -> None:
        engine.add(_engine.File(-1, "http://127.0.0.1/", profile, size=1, block_size=_MIB, blocks=b"\2"))
        while not engine.events():
            poller.poll()

    benchmark(round_trip)
    engine.close()


@pytest.mark.parametrize("at", [0, _BLOCKS // 2])
def test_claim_of_one_block_that_is_given_back(
    benchmark: BenchmarkFixture, profile: _engine.Profile, descriptor: int, at: int
) -> None:
    """The only missing block of a file is claimed, fails at once, and is given back."""
    engine = _engine.Engine()
    poller = select.poll()
    poller.register(engine.fileno(), select.POLLIN)
    blocks = b"\2" * at + b"\0" + b"\2" * (_BLOCKS - at - 1)
    known: dict[str, Any] = {"size": _BLOCKS * _MIB, "block_size": _MIB, "blocks": blocks}

    def once() -> None:
        # Nothing listens on port 1, so the connection is refused before a byte is sent.
        file = _engine.File(descriptor, "http://127.0.0.1:1/", profile, **known)
        engine.add(file)
        kinds: list[str] = []
        while "FAILED" not in kinds:
            poller.poll()
            kinds += [event[0] for event in engine.events()]
        file.remove()
        while "REMOVED" not in kinds:
            poller.poll()
            kinds += [event[0] for event in engine.events()]

    benchmark(once)
    engine.close()


def test_reading_the_block_map(benchmark: BenchmarkFixture, profile: _engine.Profile, descriptor: int) -> None:
    """Copy what a save needs from the largest map."""
    known: dict[str, Any] = {"size": _BLOCKS * _MIB, "block_size": _MIB, "blocks": bytes(_BLOCKS)}
    file = _engine.File(descriptor, "http://127.0.0.1/", profile, **known)
    benchmark(lambda: (bytes(file.blocks), bytes(file.partial)))


def test_parsing_a_content_range(benchmark: BenchmarkFixture) -> None:
    benchmark(_engine.content_range, b"bytes 1048576-9437183/214748364800")


@pytest.mark.parametrize("done", [64, _BLOCKS - 200])
def test_saving_a_state(benchmark: BenchmarkFixture, tmp_path: Path, done: int) -> None:
    """Write a state to disk; most of the time is the sync."""
    saved = _saved(done)
    benchmark(state.save, tmp_path / "state", saved)


def test_loading_a_state(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    state.save(tmp_path / "state", _saved(_BLOCKS - 200))
    benchmark(state.load, tmp_path / "state")


def test_a_piece_through_a_token_bucket(benchmark: BenchmarkFixture) -> None:
    bucket = _engine.TokenBucket(1 << 30)
    clock = iter(range(1, 1 << 60, 20))

    def piece() -> None:
        bucket.fill(next(clock))
        if not bucket.is_dry:
            bucket.take(16384)

    benchmark(piece)
