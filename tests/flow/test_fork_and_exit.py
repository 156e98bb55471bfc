"""Ending the interpreter, or forking, in the middle of a download: both are clean."""

import time
from pathlib import Path

import pytest

from flow.children import child, run_child
from servers.directed import Valve
from servers.misbehaving import MisbehavingServer, content
from support import children
from support.downloads import fetch
from support.files import MIB, begun, names, saved_bytes
from support.waiting import AT_ONCE

SIZE = 24 * MIB + 12_345


def _end(program: str, *arguments: object) -> tuple[float, int, str]:
    """Run a program until its interpreter has ended. Returns how long the end took, the exit status, and stderr."""
    with child(program, *arguments) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ending\n"
        started = time.monotonic()
        _, errors = process.communicate(timeout=2 * AT_ONCE)
        return time.monotonic() - started, process.returncode, errors


def test_the_interpreter_ends_in_silence_and_the_state_is_saved(
    server: MisbehavingServer, valve: Valve, target: Path
) -> None:
    url = server.url("/valve/x", size=SIZE)
    seconds, status, errors = _end("end_while_it_runs", url, target, MIB)
    assert (status, errors) == (0, "")
    assert seconds < AT_ONCE
    assert names(target.parent) == begun(target)
    kept = saved_bytes(target)
    assert kept >= MIB
    valve.open()
    server.wait_idle()
    before = server.bytes_sent
    assert fetch(url, target, split=1).resumed == kept
    assert target.read_bytes() == content(SIZE)
    assert server.bytes_sent - before == SIZE - kept


def test_the_interpreter_ends_in_silence_where_nothing_can_be_saved(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/chunked/x", size=SIZE, rate="4M")
    seconds, status, errors = _end("end_while_it_runs", url, target, MIB)
    assert (status, errors) == (0, "")
    assert seconds < AT_ONCE
    assert names(target.parent) == []


@pytest.mark.parametrize("what", ["a fetch", "a start"])
def test_the_interpreter_ends_in_silence_and_at_once_where_nothing_is_left_to_do(
    server: MisbehavingServer, target: Path, what: str
) -> None:
    seconds, status, errors = _end("end_after", server.url("/good/x", size=MIB), target, what)
    assert (status, errors) == (0, "")
    assert seconds < AT_ONCE


def test_after_a_fork_parent_and_child_both_fetch_right(server: MisbehavingServer, target: Path) -> None:
    size = 6 * MIB
    done = run_child(
        "fork_midway",
        server.url("/shared-rate/x", size=size, rate="12M"),
        target,
        server.url("/good/y", size=size),
        target.with_name("of_child"),
        size,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 True\n", "")
    assert target.read_bytes() == content(size)
    assert names(target.parent) == ["file.bin", "of_child"]


def test_a_fork_leaves_the_child_no_half_of_a_module(server: MisbehavingServer, target: Path) -> None:
    """The module that parses dates is imported when the first one arrives, by a thread that the child does not have."""
    size = 6 * MIB
    done = run_child(
        "fork_during_an_import",
        server.url("/good/x", size=size),
        target,
        server.url("/good/y", size=size),
        target.with_name("of_child"),
        size,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 True\n", "")


FORKS_WHILE_IT_BEGINS = """
import os, sys, threading
import rangefetch  # of which nothing is loaded before the thread asks for it

url, directory, way = sys.argv[1:]


def fetch(name):
    path = os.path.join(directory, name)
    if way == "fetch":
        return rangefetch.fetch(url, path).size
    if way == "fetch_many":
        return rangefetch.fetch_many([(url, name)], directory)[0].size
    if way == "stream":
        with rangefetch.stream(url) as stream:
            return sum(map(len, stream))
    with rangefetch.DownloadManager(backend=way) as manager:
        return manager.download_and_wait(url, {"save_dir": directory, "filename": name}).size


sizes = []
thread = threading.Thread(target=lambda: sizes.append(fetch("parent")))
thread.start()
children = []
for number in range(40):
    pid = os.fork()
    if pid == 0:
        os._exit(0 if number % 10 or fetch(f"child-{number}") else 1)
    children.append(pid)
thread.join()
print(sizes, {os.waitpid(pid, 0)[1] for pid in children})
"""


@pytest.mark.parametrize("way", ["fetch", "fetch_many", "stream", "native", "aria2"])
def test_a_child_forked_while_a_thread_loads_rangefetch_fetches_right(
    server: MisbehavingServer, target: Path, way: str
) -> None:
    """Otherwise the child would wait for ever for a module that none of its threads is loading."""
    done = children.run(FORKS_WHILE_IT_BEGINS, server.url("/good/x", size=9 * MIB), target.parent, way)
    assert done.stdout == f"[{9 * MIB}] {{0}}\n", done.stderr
    if way != "stream":
        assert {path.read_bytes() for path in target.parent.iterdir()} == {content(9 * MIB)}
        assert len(names(target.parent)) == 5


@pytest.mark.parametrize(
    "verb",
    [
        *("download", "download_and_wait", "start", "wait", "pause", "resume"),
        *("change_options", "limit", "pause_all", "resume_all", "cancel_all"),
    ],
)
def test_the_parents_manager_refuses_in_the_child_with_a_clear_error(
    server: MisbehavingServer, target: Path, verb: str
) -> None:
    url = server.url("/shared-rate/x", size=SIZE, rate="256K")
    done = run_child("use_the_parents_manager", url, target, verb)
    assert done.stderr == ""
    assert done.stdout.startswith("RuntimeError: ")
    assert "fork" in done.stdout
    # The child has not touched the parent's files: the parent saved its state when it stopped.
    assert names(target.parent) == begun(target)
    assert saved_bytes(target) > 0


def test_a_child_that_returns_from_a_callback_gets_a_clear_error_at_once(
    server: MisbehavingServer, target: Path
) -> None:
    done = run_child("fork_in_a_callback", server.url("/slow/x", size=MIB, rate="1M"), target)
    assert done.stderr == ""
    assert done.stdout.startswith("RuntimeError: ")
    assert "it hangs" not in done.stdout
    assert target.read_bytes() == content(MIB)


def test_the_parents_manager_may_be_stopped_in_the_child(server: MisbehavingServer, target: Path) -> None:
    done = run_child("use_the_parents_manager", server.url("/shared-rate/x", size=SIZE, rate="256K"), target, "stop")
    assert (done.stdout, done.stderr) == ("nothing\n", "")
    assert names(target.parent) == begun(target)
