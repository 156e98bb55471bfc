"""How files and engines begin and end: added once, removed with an event, closed twice, dropped without closing."""

from __future__ import annotations

import gc
import os
import select
import threading
import time
from pathlib import Path

import pytest

from engine.driving import Driver
from rangefetch import _engine
from rangefetch._engine import Engine, File
from servers.misbehaving import MisbehavingServer, content
from support import children
from support.files import MIB
from support.loops import loops_become

pytestmark = pytest.mark.usefixtures("no_leaks")


def endless(server: MisbehavingServer, *, size: int = 32 * MIB) -> str:
    """A file that takes longer than any test."""
    return server.url("/slow", size=size, rate=2 * MIB)


def test_a_file_is_added_once(driver: Driver, server: MisbehavingServer) -> None:
    file = driver.add(endless(server))
    for _ in range(2):
        with pytest.raises(ValueError, match="added already"):
            driver.engine.add(file)
        driver.until(lambda: file.answered)
    file.remove()
    driver.end(file)
    with pytest.raises(ValueError, match="added already"):
        driver.engine.add(file)
    assert driver.engine.live_files == 0


@pytest.mark.parametrize("loop", [-1, 1, 1 << 20])
def test_a_file_is_added_to_a_loop_that_exists(driver: Driver, server: MisbehavingServer, loop: int) -> None:
    file = driver.file(server.url("/good"))
    with pytest.raises(ValueError, match="loop"):
        driver.engine.add(file, loop)
    driver.engine.add(file)
    assert driver.end(file).name == "DONE"


@pytest.mark.parametrize("loops", [0, -1, 65, 1 << 20])
def test_an_engine_has_at_least_one_loop(loops: int) -> None:
    with pytest.raises(ValueError, match="loops"):
        Engine(loops)


def test_each_loop_fills_its_files(tmp_path: Path, server: MisbehavingServer) -> None:
    with Driver(tmp_path, loops=3) as driver:
        files = [driver.add(server.url("/good", size=MIB, seed=seed), loop=seed % 3) for seed in range(9)]
        assert driver.engine.live_files == 9
        for seed, file in enumerate(files):
            assert driver.end(file).name == "DONE"
            assert file.tag.octets == content(MIB, seed)
        assert driver.engine.live_files == 0


@pytest.mark.parametrize("when", ["at-once", "answered", "twice"])
def test_removal_is_told_once_and_leaves_the_descriptor_alone(
    driver: Driver, server: MisbehavingServer, when: str
) -> None:
    file = driver.add(endless(server), allocation="none")
    if when != "at-once":
        driver.until(lambda: file.downloaded > 0)
    file.remove()
    if when == "twice":
        file.remove()
    assert driver.end(file).name == "REMOVED"
    assert (file.lanes_busy, driver.engine.live_files) == (0, 0)
    # The descriptor's number now belongs to another file, and nothing may be written to that.
    other = file.tag.path.with_suffix(".other")
    taken = os.open(other, os.O_CREAT | os.O_RDWR)
    os.dup2(taken, file.tag.fd)
    os.close(taken)
    before = file.downloaded
    time.sleep(0.05)
    driver.take()
    assert (other.stat().st_size, file.downloaded) == (0, before)
    assert driver.names(file).count("REMOVED") == 1


def test_what_is_said_to_a_file_after_its_end_is_not_heard(driver: Driver, server: MisbehavingServer) -> None:
    file = driver.fill(server.url("/good"))
    file.remove()
    file.release()
    file.lanes = 3
    file.limit = 1000
    driver.fill(server.url("/good", seed=1))
    assert driver.names(file) == ["ANSWERED", "DONE"]


def _ended(driver: Driver) -> bool:
    """Whether a file has ended. Keeps no events, so that a file which has ended is freed."""
    return any(event[0] in ("DONE", "REMOVED") for event in driver.engine.events())


def test_what_is_said_while_a_file_ends_finds_it_there_or_not_at_all(driver: Driver, server: MisbehavingServer) -> None:
    """Most commands cross with the file's last event. ``make sanitize`` checks that no freed memory is read."""
    url = server.url("/good", size=10)
    fd = os.open(driver.file(url).tag.path, os.O_RDWR)
    for _ in range(200):
        file = File(fd, url, driver.profile, allocation="none")
        driver.engine.add(file)
        while not _ended(driver):
            file.release()
    os.close(fd)
    assert driver.engine.live_files == 0


def test_what_is_said_while_a_small_file_ends_finds_it_there_or_not_at_all(
    driver: Driver, server: MisbehavingServer, tmp_path: Path
) -> None:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    for number in range(200):
        file = driver.small(server.url("/good", size=10), fd, str(number))
        file.remove()
        while not _ended(driver):
            file.remove()
    os.close(fd)
    assert driver.engine.live_files == 0


def test_a_file_that_was_never_added_can_be_told_things(driver: Driver) -> None:
    file = driver.file("http://127.0.0.1:1/")
    file.remove()
    file.release()
    file.lanes = 3
    assert (file.lanes, driver.take()) == (3, [])


def test_a_failed_lane_waits_until_it_is_released(driver: Driver, server: MisbehavingServer) -> None:
    file = driver.add(server.url("/status", code=503, times=1))
    driver.until(lambda: "FAILED" in driver.names(file))
    time.sleep(0.05)
    driver.take()
    assert (len(server.requests), file.lanes_busy, driver.names(file)) == (1, 0, ["FAILED"])
    file.release()
    assert driver.end(file).name == "DONE"
    assert file.tag.octets == content(MIB)


def test_a_failure_tells_whether_the_source_has_another_address_by_now(
    driver: Driver, server: MisbehavingServer
) -> None:
    good = server.url("/good/new", size=100)
    file = driver.add(server.url("/status/old", code=403, delay=0.2))
    driver.until(lambda: server.requests)
    file.move(0, good, driver.profile)
    driver.until(lambda: "FAILED" in driver.names(file))
    assert driver.log[-1].epoch == 0
    file.move(0, server.url("/status/new", code=410), driver.profile)
    file.release()
    driver.until(lambda: driver.names(file).count("FAILED") == 2)
    assert (driver.log[-1].status, driver.log[-1].epoch, file.epoch(0)) == (410, 2, 2)
    file.move(0, good, driver.profile)
    file.release()
    assert driver.end(file).name == "DONE"


def test_a_redirect_from_where_a_source_was_before_is_not_followed(driver: Driver, server: MisbehavingServer) -> None:
    file = driver.add(server.url("/redirect/old", to="/status/elsewhere", delay=0.3))
    driver.until(lambda: server.requests)
    file.move(0, server.url("/good/new", size=100), driver.profile)
    assert driver.end(file).name == "DONE"
    assert [request.path.split("?")[0] for request in server.requests] == ["/redirect/old", "/good/new"]
    (answered,) = [event for event in driver.log if event.name == "ANSWERED"]
    assert answered.text == server.url("/good/new", size=100)


def test_a_file_whose_lane_is_held_can_be_removed(driver: Driver, server: MisbehavingServer) -> None:
    file = driver.add(server.url("/status", code=404))
    driver.until(lambda: "FAILED" in driver.names(file))
    file.remove()
    assert driver.end(file).name == "REMOVED"


def test_the_bell_rings_for_events_and_when_it_is_rung(driver: Driver, server: MisbehavingServer) -> None:
    poller = select.poll()
    poller.register(driver.engine.fileno(), select.POLLIN)
    assert poller.poll(0) == []
    threading.Thread(target=driver.engine.ring).start()
    assert poller.poll(5000)
    assert driver.take() == []
    assert poller.poll(0) == []
    file = driver.add(server.url("/good"))
    assert poller.poll(5000)
    driver.end(file)


def test_closing_ends_transfers_and_threads(tmp_path: Path, server: MisbehavingServer) -> None:
    with Driver(tmp_path, loops=2) as driver:
        files = [driver.add(endless(server), loop=loop) for loop in (0, 1)]
        driver.until(lambda: all(file.downloaded for file in files))
        assert loops_become(2)
        assert _engine.live_handles() > 0
        driver.engine.close()
        assert driver.engine.closed
        assert loops_become(0)
        assert _engine.live_handles() == 0
        assert [file.lanes_busy for file in files] == [0, 0]


def test_events_up_to_the_end_can_be_read_after_closing(driver: Driver, server: MisbehavingServer) -> None:
    done = driver.add(server.url("/good"))
    live = driver.add(endless(server))
    waiting = driver.add(server.url("/slow-headers", seconds=20))
    driver.until(lambda: done.downloaded == MIB and live.downloaded)
    driver.engine.close()
    driver.take()
    assert driver.names(done) == ["ANSWERED", "DONE"]
    assert driver.names(live) == ["ANSWERED", "REMOVED"]
    assert driver.names(waiting) == ["REMOVED"]
    assert driver.engine.live_files == 0
    assert driver.take() == []


def test_closing_twice_is_fine_and_use_after_it_is_not(driver: Driver, server: MisbehavingServer) -> None:
    file = driver.add(endless(server))
    driver.engine.close()
    driver.engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        driver.engine.add(driver.file(server.url("/good")))
    with pytest.raises(RuntimeError, match="closed"):
        driver.engine.fileno()
    driver.engine.ring()
    file.remove()
    file.release()
    file.lanes = 2


def test_closing_gives_back_every_descriptor() -> None:
    before = open_descriptors()
    engine = Engine(2)
    engine.close()
    assert open_descriptors() == before, "who keeps the closed engine keeps no more than its memory"


def open_descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_closing_from_two_threads_at_once_is_fine(driver: Driver, server: MisbehavingServer) -> None:
    driver.add(endless(server))
    threads = [threading.Thread(target=driver.engine.close) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert driver.engine.closed
    assert loops_become(0)


def test_whoever_closes_second_returns_when_the_threads_have_ended(server: MisbehavingServer, tmp_path: Path) -> None:
    for _ in range(20):
        with Driver(tmp_path, loops=3) as driver:
            file = driver.add(endless(server))
            driver.until(lambda file=file: file.downloaded)  # type: ignore[misc]  # not inferred
            live: list[int] = []
            together = threading.Barrier(3)

            def close(engine: Engine = driver.engine, live: list[int] = live, go: threading.Barrier = together) -> None:
                go.wait()
                engine.close()
                live.append(_engine.live_handles())

            threads = [threading.Thread(target=close) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert live == [0, 0, 0]


def test_commands_that_cross_with_the_end_of_the_engine_are_harmless(server: MisbehavingServer, tmp_path: Path) -> None:
    for _ in range(30):
        with Driver(tmp_path) as driver:
            file = driver.add(endless(server))
            small = driver.small(endless(server), -1, "small")

            def command(engine: Engine = driver.engine, file: File = file, small: File = small) -> None:
                while not engine.closed:
                    file.read_to(0)
                    file.lanes = 3
                    small.remove()
                    engine.ring()
                    engine.events()

            threads = [threading.Thread(target=command) for _ in range(2)]
            for thread in threads:
                thread.start()
            driver.engine.close()
            for thread in threads:
                thread.join()


def test_an_engine_that_could_not_be_woken_does_not_start() -> None:
    done = children.run(
        """
        import os, resource
        from rangefetch.net import libcurl
        from rangefetch._engine import Engine
        libcurl.load()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        refused = 0
        for room in range(12):
            lowest = os.dup(0)
            os.close(lowest)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + room, hard))
            try:
                engine = Engine(1)
            except OSError:
                refused += 1
            else:
                # It hears of its end at once, not when it wakes by itself.
                engine.close()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        print(0 < refused < 12)
        """,
        timeout_s=20,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def test_the_last_reference_ends_an_engine_without_files() -> None:
    engine = Engine()
    assert loops_become(1)
    del engine
    gc.collect()
    assert loops_become(0)


def test_the_last_reference_ends_an_engine_at_work(server: MisbehavingServer) -> None:
    # In a child process that overwrites freed memory: memory used by a loop must not be freed before the loop ends.
    done = children.run(
        """
        import gc, sys, tempfile, threading
        from engine.driving import Driver
        from support.loops import loops_become
        from rangefetch import _engine
        url = sys.argv[1]
        for turn in range(20):
            driver = Driver(tempfile.gettempdir(), loops=2)
            files = [driver.add(url, loop=loop) for loop in (0, 1)]
            driver.until(lambda: all(file.downloaded and len(file.blocks) for file in files))
            parts = [file.tag for file in files]
            view = files[0].blocks  # of the file, not of the engine
            del driver, files
            gc.collect()
            assert loops_become(0), turn
            assert 0 < len(bytes(view)) == 8
            for part in parts:
                part.close()
                part.path.unlink()
        assert _engine.live_handles() == 0
        print("all ended")
        """,
        endless(server, size=8 * MIB),
        env={"MALLOC_PERTURB_": "165"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "all ended\n", "")


def test_descriptors_of_many_files_are_not_lost(driver: Driver, server: MisbehavingServer) -> None:
    before = open_descriptors()
    for number in range(50):
        file = driver.fill(server.url("/good", size=1000, seed=number))
        file.tag.close()
    assert len(open_descriptors() - before) <= 3, "a connection and its two ends in this process"
