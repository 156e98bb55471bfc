"""Bytes flow without Python: a loop's thread has no Python thread state and never takes or needs the GIL."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path

import pytest

from engine.driving import Driver
from rangefetch import _engine
from servers.misbehaving import MisbehavingServer, content
from servers.nginx import Nginx
from support import children
from support.files import MIB
from support.loops import loop_threads, loops_become

RESIDENT_LIMIT_MIB = 60


def test_a_loop_is_no_thread_of_pythons(tmp_path: Path, server: MisbehavingServer) -> None:
    before = set(sys._current_frames())
    with Driver(tmp_path, loops=3) as driver:
        assert loops_become(3)
        ours = set(loop_threads())
        file = driver.add(server.url("/slow", size=8 * MIB, rate=4 * MIB))
        driver.until(lambda: file.downloaded > MIB)
        assert not ours & {str(thread.native_id) for thread in threading.enumerate()}
        others = {thread.ident for thread in threading.enumerate()}
        assert set(sys._current_frames()) - before <= others
    assert loops_become(0)


@pytest.fixture(scope="module")
def calls() -> dict[str, set[str]]:
    """For each function of the extension, the names that it refers to."""
    objdump = shutil.which("objdump")
    if objdump is None:
        pytest.skip("there is no objdump: apt-get install binutils")
    listing = subprocess.run(
        [objdump, "--disassemble", "--no-show-raw-insn", str(_engine.__file__)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found: defaultdict[str, set[str]] = defaultdict(set)
    function = ""
    for line in listing.splitlines():
        if head := re.fullmatch(r"[0-9a-f]+ <(.+)>:", line):
            function = head[1]
        else:
            found[function] |= {re.sub(r"[@+].*", "", name) for name in re.findall(r"<([^>]+)>", line)}
    if not any(name.endswith("loop_run") for name in found):
        pytest.skip("the extension is stripped of its symbols")
    return found


def test_nothing_that_a_loop_calls_calls_python(calls: dict[str, set[str]]) -> None:
    reached: set[str] = set()
    further = {name for name in calls if name.endswith("loop_run")}
    while further:
        reached |= further
        further = {name for caller in further for name in calls.get(caller, ())} - reached
    # Functions whose address is taken, such as libcurl's callbacks, count as called.
    assert any(name.endswith("on_body") for name in reached), "the walk must reach the callbacks"
    assert any("pwrite" in name for name in reached)
    assert not {name for name in reached if re.match(r"_?Py|__Pyx_", name)}


def test_the_walk_would_find_a_call_of_python(calls: dict[str, set[str]]) -> None:
    assert any(name.startswith("Py") for callees in calls.values() for name in callees)


# Holds the GIL in one C call, and prints the engine's counters right after it.
HOLDING = """
    import ctypes, json, sys, threading, time
    from engine.driving import Driver

    url, directory = sys.argv[1:]
    libc = ctypes.PyDLL(None)  # PyDLL, unlike CDLL, keeps the GIL
    ticks = 0

    def tick():
        global ticks
        while True:
            ticks += 1
            time.sleep(0.001)

    threading.Thread(target=tick, daemon=True).start()
    with Driver(directory) as driver:
        file = driver.add(url, lanes=4, least_bytes=1)
        ticks_before, begin = ticks, time.monotonic()
        libc.sleep(1)
        downloaded, end, ticks_after = file.downloaded, time.monotonic(), ticks
        driver.end(file)
        print(json.dumps({
            "ticks": ticks_after - ticks_before,
            "begin": begin,
            "end": end,
            "downloaded": downloaded,
            "requests": file.requests,
            "kinds": driver.names(file),
        }))
"""


@pytest.mark.alone
def test_a_download_begins_and_ends_while_python_stands_still(server: MisbehavingServer, tmp_path: Path) -> None:
    done = children.run(HOLDING, server.url("/good", size=24 * MIB), tmp_path)
    assert done.stderr == ""
    seen = json.loads(done.stdout)
    assert seen["ticks"] < 100, "the GIL was to be held"
    assert seen["downloaded"] == 24 * MIB
    assert seen["requests"] > 1, "the answer was acted upon without Python"
    assert seen["kinds"] == ["ANSWERED", "DONE"]
    [part] = tmp_path.iterdir()
    assert part.read_bytes() == content(24 * MIB)


@pytest.mark.alone
def test_bytes_reach_the_disk_while_python_stands_still(server: MisbehavingServer, tmp_path: Path) -> None:
    url = server.url("/shared-rate", size=12 * MIB, rate=8 * MIB)
    samples: list[tuple[float, int]] = []
    with children.start(HOLDING, url, tmp_path) as child:
        while child.poll() is None:
            samples.append((time.monotonic(), sum(map(pieces_written, tmp_path.iterdir()))))
            time.sleep(0.01)
        assert child.stdout is not None
        seen = json.loads(child.stdout.read())
    assert seen["ticks"] < 100, "the GIL was to be held"
    meanwhile = [count for when, count in samples if seen["begin"] < when < seen["end"]]
    assert len(set(meanwhile)) > 8
    assert meanwhile == sorted(meanwhile)
    assert 4 * MIB < seen["downloaded"] < 12 * MIB


def pieces_written(path: Path) -> int:
    """How many pieces of 16 KiB have their first bytes; space that is only reserved reads as zeros."""
    with path.open("rb") as file:
        octets = file.read()
    return sum(octets[at : at + 4] != bytes(4) for at in range(0, len(octets), 16384))


def test_a_gibibyte_is_fetched_in_little_memory(nginx: Nginx, tmp_path: Path) -> None:
    path = nginx.write("/gibibyte.bin", b"")
    with path.open("r+b") as file:
        file.truncate(1024 * MIB)
    try:
        done = children.run(
            """
            import re, sys
            from pathlib import Path
            from rangefetch.cli.main import run
            assert run(sys.argv[1:]) == 0
            # Not ru_maxrss: that includes the parent's, whose memory the child had before it became Python.
            print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
            """,
            "-q", "-x", "16", "-s", "16", "-d", tmp_path, nginx.url("/gibibyte.bin"),
        )  # fmt: skip
    finally:
        path.unlink()
    assert (done.returncode, done.stderr) == (0, "")
    *_, resident_kib = done.stdout.split()
    fetched = tmp_path / "gibibyte.bin"
    assert fetched.stat().st_size == 1024 * MIB
    fetched.unlink()
    assert int(resident_kib) / 1024 < RESIDENT_LIMIT_MIB
