"""Python's memory runs out in ``Engine.events``: no event is lost, and none is told twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from servers.misbehaving import MisbehavingServer
from support import children

pytest.importorskip("_testcapi", reason="this Python cannot make its allocations fail")

WITHOUT_MEMORY = """
    import os, select, sys
    import _testcapi
    from engine.driving import Driver, Event

    url, directory = sys.argv[1:]

    def events(engine, whole, allocation):
        # Of the allocations of this call, the one with that number fails.
        _testcapi.set_nomemory(allocation, allocation + 1)
        try:
            return engine.events(whole)
        finally:
            _testcapi.remove_mem_hooks()

    def fetch(allocation):
        with Driver(directory) as driver:
            engine, told, whole, failures = driver.engine, [], [], 0
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            files = [driver.add(url) for number in range(3)]
            small = [driver.small(url, fd, f"{allocation}-{number}") for number in range(3)]
            poller = select.poll()
            poller.register(engine.fileno(), select.POLLIN)
            while engine.live_files:
                # What could not be told has rung the bell again.
                assert poller.poll(30_000), (told, whole)
                try:
                    told += map(Event._make, events(engine, whole, allocation))
                except MemoryError:
                    failures += 1
                    allocation += failures > 3
            os.close(fd)
            assert engine.events() == []
            for file in files + small:
                names = [event.name for event in told if event.file is file]
                assert (names, whole.count(file)) == (([], 1) if file in small else (["ANSWERED", "DONE"], 0))
            return failures

    # More and more allocations succeed before one fails.
    assert sum(fetch(allocation) for allocation in range(60)) > 30
    print("right")
"""


def test_no_event_is_lost_and_none_is_told_twice(server: MisbehavingServer, tmp_path: Path) -> None:
    done = children.run(WITHOUT_MEMORY, server.url("/good", size=1000), tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "right\n", "")
