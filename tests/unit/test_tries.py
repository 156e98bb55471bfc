"""Failures in a row: what starts a new series, and how many requests a file can cost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rangefetch.transfer.tries import Tries

KIB = 1 << 10
MIB = 1 << 20


def rows(downloaded: list[int], size: int) -> list[int]:
    """The count after each of several failures, which happen at these numbers of bytes."""
    tries = Tries()
    counts = []
    for number, each in enumerate(downloaded, 1):
        assert tries.is_further(number)
        begins = tries.fail(each, size, number)
        assert begins == (tries.failures == 1)
        counts.append(tries.failures)
    return counts


def test_failures_without_progress_are_one_row() -> None:
    assert rows([0, 0, 0], MIB) == rows([5, 5, 5], -1) == [1, 2, 3]


def test_a_few_bytes_do_not_begin_a_new_row() -> None:
    assert rows([100, 200, 300, 400], MIB) == [1, 2, 3, 4]
    assert rows([100, 200, 300, 400], -1) == [1, 2, 3, 4]


def test_progress_adds_up_until_it_is_worth_a_request() -> None:
    assert rows([0, 30 * KIB, 60 * KIB, 90 * KIB, 120 * KIB], 100 * MIB) == [1, 2, 3, 1, 2]


def test_of_a_small_file_a_share_is_enough() -> None:
    assert rows([0, 100, 200, 300], 6400) == [1, 1, 1, 1]
    assert rows([0, 1, 2], 10) == [1, 1, 1]


def test_bytes_that_were_taken_back_are_no_progress() -> None:
    assert rows([MIB, 0, MIB, MIB + KIB], 64 * MIB) == [1, 2, 3, 4]


def test_connections_that_broke_together_are_one_try_whenever_each_is_noticed() -> None:
    tries = Tries()
    tries.fail(0, MIB, 4)
    assert [tries.is_further(request) for request in (1, 2, 3, 4, 5)] == [False] * 4 + [True]
    tries.fail(0, MIB, 5)
    assert not tries.is_further(5)
    tries.begin()
    assert tries.is_further(1)
    assert tries.failures == 2


@given(st.integers(1, 1 << 24), st.integers(1, 10), st.integers(1, 1 << 20))
def test_the_failures_of_a_file_are_bounded(size: int, most: int, a_connection: int) -> None:
    # However little each connection brings, either there are too many failures in a row, or the file is completed by
    # requests that were worth it.
    tries, downloaded, failures = Tries(), 0, 0
    while downloaded < size and tries.failures < most:
        downloaded += a_connection
        failures += 1
        tries.fail(downloaded, size, failures)
    assert failures <= most * max(66, size // (64 * KIB) + 2)
