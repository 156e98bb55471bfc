"""Workers: a job that blocks one, such as on a file system that does not respond, delays no other job."""

from __future__ import annotations

import itertools
import threading

import pytest

from rangefetch.transfer import workers
from rangefetch.transfer.workers import Outcome, Workers
from support.waiting import until

WAIT_S = 20.0


def test_where_all_are_stuck_there_is_one_more_after_a_second() -> None:
    pool = Workers("test-worker")
    pool.start()
    pool.grow()
    stuck, done = threading.Event(), threading.Event()
    begun = threading.Semaphore(0)

    def hang() -> None:
        begun.release()
        stuck.wait(WAIT_S)

    try:
        for _ in range(workers._LEAST):
            pool.submit(hang, lambda _: None)
        for _ in range(workers._LEAST):
            assert begun.acquire(timeout=WAIT_S)
        pool.submit(lambda: None, lambda _: done.set())
        pool.tend(100.0)
        pool.tend(100.9)
        assert not done.wait(0.05), "a second is not over"
        pool.tend(101.1)
        assert done.wait(WAIT_S)
    finally:
        stuck.set()
        pool.stop()


def test_there_is_an_end_to_them() -> None:
    pool = Workers("test-worker")
    pool.start()
    pool.grow()
    stuck, seconds = threading.Event(), itertools.count(0, 10)

    def threads() -> int:
        pool.tend(float(next(seconds)))
        return sum(thread.name == "test-worker" for thread in threading.enumerate())

    try:
        for _ in range(workers._MOST + 10):
            pool.submit(lambda: stuck.wait(WAIT_S), lambda _: None)
        until(lambda: threads() == workers._MOST)
        assert [threads() for _ in range(10)] == [workers._MOST] * 10
    finally:
        stuck.set()
        pool.stop()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_threads_that_have_died_for_lack_of_memory_are_replaced() -> None:
    pool = Workers("test-worker")
    pool.start()
    seconds, done = itertools.count(0, 10), threading.Event()

    def ended() -> bool:
        pool.tend(float(next(seconds)))
        return done.is_set()

    def die(_: Outcome[object]) -> None:
        raise MemoryError

    try:
        for _ in range(workers._MOST + 10):
            pool.submit(lambda: None, die)
        pool.submit(lambda: None, lambda _: done.set())
        until(ended)
    finally:
        pool.stop()


def test_what_a_job_raises_is_told() -> None:
    pool = Workers("test-worker")
    pool.start()
    pool.grow()
    told: list[BaseException | None] = []
    heard = threading.Event()

    def done(outcome: Outcome[object]) -> None:
        told.append(outcome.exception())
        heard.set()

    def broken() -> None:
        raise SystemExit(3)

    try:
        pool.submit(broken, done)
        assert heard.wait(WAIT_S)
    finally:
        pool.stop()
    assert isinstance(told[0], SystemExit)
