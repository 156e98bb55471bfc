"""How many bytes may come under a limit, counted with the test's own clock, and without any clock."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.driving import Driver
from rangefetch._engine import File, TokenBucket
from servers.misbehaving import MisbehavingServer, content
from support.files import MIB

PIECE = 16 << 10
"""What libcurl hands over at once, and so how far a bucket may run into debt."""
SECOND_US = 1_000_000

rates = st.integers(1, 1 << 34)
gaps_us = st.integers(0, 300_000)
"""Between two looks at the clock: rounds of a loop."""


def burst(rate: int) -> int:
    """The bytes that a bucket can save up: 100 ms' worth, and at least one piece."""
    return max(rate // 10, PIECE)


def drain(bucket: TokenBucket, most: int = 1 << 40, piece: int = PIECE) -> int:
    """Take pieces as long as the bucket allows it. Returns the number of bytes taken."""
    taken = 0
    while not bucket.is_dry and taken < most:
        bucket.take(piece)
        taken += piece
    return taken


def started(rate: int, now_us: int = SECOND_US) -> TokenBucket:
    """An empty bucket whose clock is running."""
    bucket = TokenBucket(rate)
    bucket.fill(now_us)
    drain(bucket)
    return bucket


@given(rate=rates, gaps=st.lists(gaps_us, max_size=60))
def test_never_more_comes_than_the_rate_and_a_burst(rate: int, gaps: list[int]) -> None:
    bucket = TokenBucket(rate)
    now_us = SECOND_US
    bucket.fill(now_us)
    taken = drain(bucket)
    for gap in gaps:
        now_us += gap
        bucket.fill(now_us)
        taken += drain(bucket)
    elapsed_us = now_us - SECOND_US
    assert taken <= rate * elapsed_us / SECOND_US + burst(rate) + PIECE


@given(rate=rates, gaps=st.lists(st.tuples(gaps_us, st.integers(0, 4 * PIECE)), max_size=60))
def test_nor_when_it_comes_in_uneven_amounts(rate: int, gaps: list[tuple[int, int]]) -> None:
    bucket = TokenBucket(rate)
    now_us = SECOND_US
    bucket.fill(now_us)
    taken = 0
    for gap, wanted in gaps:
        now_us += gap
        bucket.fill(now_us)
        taken += drain(bucket, wanted)
    assert taken <= rate * (now_us - SECOND_US) / SECOND_US + burst(rate) + PIECE


@pytest.mark.parametrize("gap_us", [7, 20, 101, 1499, 10_000, 50_000])
@pytest.mark.parametrize("rate", [3000, 37_000, 1_000_000, MIB, 123_456_789])
def test_what_was_asked_for_comes_however_often_the_clock_is_read(rate: int, gap_us: int) -> None:
    # A busy loop looks at the clock every few microseconds, and a byte may take longer than that.
    bucket, piece = TokenBucket(rate), max(1, rate // 1000)
    now_us, taken = SECOND_US, 0
    bucket.fill(now_us)
    drain(bucket, piece=piece)
    for _ in range(SECOND_US // gap_us):
        bucket.fill(now_us := now_us + gap_us)
        taken += drain(bucket, piece=piece)
    allowed = rate * (SECOND_US // gap_us * gap_us) / SECOND_US
    assert allowed * 0.97 <= taken + 2 * piece <= allowed * 1.03 + 4 * piece


@given(rate=st.integers(1000, 1 << 30), pieces=st.integers(1, 64))
def test_a_debt_is_paid_back_before_more_may_come(rate: int, pieces: int) -> None:
    bucket = started(rate)
    for _ in range(pieces):
        bucket.take(PIECE)
    owed_us = (pieces - 1) * PIECE * SECOND_US // rate
    now_us = SECOND_US
    # In steps of half a second, since a refill covers at most a second.
    while now_us - SECOND_US + 500_000 < owed_us:
        now_us += 500_000
        bucket.fill(now_us)
        assert bucket.is_dry


@given(rate=rates)
def test_a_long_rest_saves_up_no_more_than_a_burst(rate: int) -> None:
    bucket = started(rate)
    for hour in range(1, 4):
        bucket.fill(SECOND_US + hour * 3600 * SECOND_US)
    assert drain(bucket) <= burst(rate) + PIECE


@given(rate=rates, back_us=st.integers(0, 10 * SECOND_US))
def test_a_clock_that_stands_or_runs_back_pays_nothing(rate: int, back_us: int) -> None:
    bucket = TokenBucket(rate)
    bucket.fill(20 * SECOND_US)
    drain(bucket)
    bucket.fill(20 * SECOND_US - back_us)
    assert bucket.is_dry


def test_without_a_limit_it_is_never_dry() -> None:
    bucket = TokenBucket(0)
    bucket.take(1 << 50)
    assert not bucket.is_dry


@settings(max_examples=20)
@given(lanes=st.integers(1, 64))
def test_many_lanes_get_no_more_than_one(lanes: int) -> None:
    rate, bucket = MIB, started(MIB)
    now_us, taken = SECOND_US, 0
    for _ in range(300):
        now_us += 10_000
        bucket.fill(now_us)
        for _ in range(lanes):
            if not bucket.is_dry:
                bucket.take(PIECE)
                taken += PIECE
    assert taken <= rate * 3 + burst(rate) + PIECE


# ---- In the engine -----------------------------------------------------------------------------------------------

A_TRICKLE = 1
"""Bytes per second: nothing after the first piece comes within a test's life."""


def stands_still(driver: Driver, *files: File) -> None:
    """Wait until the files have their answers, and then long enough for more bytes to come."""
    driver.until(lambda: all(file.answered for file in files))
    looks = 0

    def looked_often() -> bool:
        nonlocal looks
        looks += 1
        return looks > 40

    driver.until(looked_often)


@pytest.mark.parametrize("lanes", [1, 4, 16])
def test_a_files_limit_holds_all_its_lanes(driver: Driver, server: MisbehavingServer, lanes: int) -> None:
    file = driver.add(server.url("/good", size=8 * MIB), lanes=lanes, least_bytes=1, limit=A_TRICKLE)
    stands_still(driver, file)
    assert file.limit == A_TRICKLE
    assert file.downloaded <= 2 * PIECE
    file.limit = 0
    driver.end(file)
    assert file.tag.octets == content(8 * MIB)


def test_the_engines_limit_holds_all_files(driver: Driver, server: MisbehavingServer) -> None:
    driver.engine.limit = A_TRICKLE
    files = [driver.add(server.url("/good", size=4 * MIB, seed=seed), lanes=4, least_bytes=1) for seed in range(3)]
    # Only one piece in all may come, so some files may not even have their answer.
    driver.until(lambda: any(file.answered for file in files))
    assert sum(file.downloaded for file in files) <= 2 * PIECE
    driver.engine.limit = 0
    for seed, file in enumerate(files):
        driver.end(file)
        assert file.tag.octets == content(4 * MIB, seed)


def test_one_files_limit_is_none_of_anothers(driver: Driver, server: MisbehavingServer) -> None:
    slow = driver.add(server.url("/good", size=8 * MIB), limit=A_TRICKLE)
    fast = driver.fill(server.url("/good", size=8 * MIB, seed=1), least_bytes=1)
    assert fast.tag.octets == content(8 * MIB, 1)
    assert slow.downloaded <= 2 * PIECE
    slow.remove()
    driver.end(slow)


def test_the_lower_of_two_limits_counts(driver: Driver, server: MisbehavingServer) -> None:
    driver.engine.limit = 1 << 40
    file = driver.add(server.url("/good", size=8 * MIB), limit=A_TRICKLE)
    stands_still(driver, file)
    driver.engine.limit, file.limit = A_TRICKLE, 1 << 40
    stands_still(driver, file)
    assert file.downloaded <= 4 * PIECE
    driver.engine.limit = 0
    driver.end(file)
    assert file.tag.octets == content(8 * MIB)


def test_a_limit_can_come_in_the_middle(driver: Driver, server: MisbehavingServer) -> None:
    file = driver.add(server.url("/shared-rate", size=64 * MIB, rate=16 * MIB), lanes=4)
    driver.until(lambda: file.downloaded > MIB)
    file.limit = A_TRICKLE
    stands_still(driver, file)
    before = file.downloaded
    stands_still(driver, file)
    assert file.downloaded - before <= 2 * PIECE
    assert before < 32 * MIB
    file.remove()
    driver.end(file)


def test_a_limit_is_no_reason_to_help_a_lane(driver: Driver, server: MisbehavingServer) -> None:
    file = driver.fill(server.url("/good", size=3 * MIB), lanes=4, least_bytes=1, limit=4 * MIB)
    assert (file.steals, file.hedges, file.replacements) == (0, 0, 0)
    assert file.received_bytes == 3 * MIB


def test_a_limit_must_not_be_negative(driver: Driver, server: MisbehavingServer) -> None:
    file = driver.file(server.url("/good"))
    with pytest.raises(ValueError, match="limit"):
        file.limit = -1
    with pytest.raises(ValueError, match="limit"):
        driver.engine.limit = -1
