"""Programs with several processes, programs whose ``select`` module is patched, and event loops that are closed."""

import asyncio
import contextlib
import multiprocessing
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import rangefetch
from flow.children import child
from rangefetch import DownloadStatus, aio, get_download_manager
from servers.directed import Valve
from servers.misbehaving import MisbehavingServer, content
from support.children import environment, run
from support.downloads import fetch
from support.files import MIB
from support.waiting import until

SIZE = 9 * MIB


# ---- Forks -------------------------------------------------------------------------------------------------------


def test_a_forked_child_does_not_keep_its_parents_target_locked(
    server: MisbehavingServer, valve: Valve, target: Path
) -> None:
    """The parent is killed. The child lives on, and never uses what it inherited."""
    url = server.url("/valve/x", size=SIZE)
    with child("fork_and_stay", url, target) as process:
        assert process.stdout is not None
        left = psutil.Process(int(process.stdout.readline()))
        try:
            process.kill()
            process.wait()
            valve.open()
            assert left.is_running()
            assert left.status() != psutil.STATUS_ZOMBIE
            fetch(url, target)
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()
    assert target.read_bytes() == content(SIZE)


def test_a_forked_child_does_not_keep_its_parents_session(target: Path) -> None:
    session = target.with_name("session")
    with child("fork_with_a_session", session) as process:
        assert process.stdout is not None
        left = psutil.Process(int(process.stdout.readline()))
        try:
            process.kill()
            process.wait()
            with rangefetch.DownloadManager(session_file=session):
                pass
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()


def test_a_parents_target_stays_locked_after_a_fork(server: MisbehavingServer, valve: Valve, target: Path) -> None:
    url = server.url("/valve/x", size=SIZE)
    with child("fork_and_stay", url, target) as process:
        assert process.stdout is not None
        left = psutil.Process(int(process.stdout.readline()))
        try:
            with pytest.raises(rangefetch.errors.TargetLocked):
                fetch(url, target)
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()


# ---- multiprocessing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_multiprocessing(server: MisbehavingServer, tmp_path: Path, target: Path, method: str) -> None:
    """In a program whose parent process has already fetched something."""
    program = tmp_path / "program.py"  # spawned children import it
    program.write_text(_PROGRAM)
    done = subprocess.run(
        [sys.executable, program, method, server.url("/good/x"), target.parent],
        capture_output=True,
        text=True,
        timeout=90,
        env=environment(),
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "[12, 12, 12, 12] 20 1\n"), done.stderr


_PROGRAM = """
import multiprocessing, sys
import rangefetch
from concurrent.futures import ProcessPoolExecutor

method, url, directory = sys.argv[1:4]

def work(number):
    rangefetch.fetch(f"{url}?size=3000&id={number}", f"{directory}/single{number}")
    items = [(f"{url}?size=3000&id={number}-{each}", f"{number}-{each}") for each in range(10)]
    many = rangefetch.fetch_many(items, directory)
    with rangefetch.stream(f"{url}?size=3000&id=s{number}") as reader:
        return len(many) + 1 + (len(reader.read()) == 3000)

def main():
    rangefetch.fetch(f"{url}?size=3000", f"{directory}/parent")
    context = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        counts = pool.map(work, range(4))
    items = [(f"{url}?size=3000&id=e{number}", f"e{number}") for number in range(20)]
    with ProcessPoolExecutor(2, context) as executor:
        shared = len(rangefetch.fetch_many(items, directory, executor=executor))
    again = rangefetch.fetch(f"{url}?size=3000&id=again", f"{directory}/again")
    print(counts, shared, int(again.size == 3000))

if __name__ == "__main__":
    main()
"""

# ---- Programs that are patched -----------------------------------------------------------------------------------


def test_where_poll_was_taken_away(server: MisbehavingServer, target: Path) -> None:
    """As eventlet does; its ``select()`` lets its other threads run in the meantime."""
    code = """
        import select, sys
        del select.poll, select.epoll
        import rangefetch
        rangefetch.fetch(sys.argv[1], sys.argv[2])
    """
    done = run(code, server.url("/good/x", size=SIZE), target)
    assert (done.returncode, done.stderr) == (0, "")
    assert target.read_bytes() == content(SIZE)


# ---- Event loops -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["fetch", "fetch_many", "download_and_wait"])
def test_nothing_goes_on_when_the_loop_was_closed(
    server: MisbehavingServer, valve: Valve, target: Path, what: str
) -> None:
    """As when a program forgets to cancel its task."""
    url = server.url("/valve/x", size=24 * MIB)
    loop = asyncio.new_event_loop()
    manager = aio.DownloadManager()

    async def begin() -> asyncio.Task[object]:
        if what == "fetch":
            task: asyncio.Task[object] = asyncio.create_task(aio.fetch(url, target))
        elif what == "fetch_many":
            task = asyncio.create_task(aio.fetch_many([url], target.parent))
        else:
            options = {"save_dir": target.parent, "filename": target.name}
            task = asyncio.create_task(manager.download_and_wait(url, options))
        while server.bytes_sent < MIB:
            await asyncio.sleep(0.01)
        return task

    task = loop.run_until_complete(begin())
    loop.close()
    managers = (manager._manager, get_download_manager())
    until(lambda: not any(each.list_downloads(DownloadStatus.ACTIVE) for each in managers), AT_WORST_S)
    server.wait_idle()
    sent = server.bytes_sent
    valve.open()
    assert server.bytes_sent == sent
    assert not task.done()
    # Nothing will finish the task any more, and asyncio would complain about that.
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # private to asyncio
    task.get_coro().close()
    manager._manager.stop()


AT_WORST_S = 20.0
