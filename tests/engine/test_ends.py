"""How processes end during transfers: at exit, after a fork, on Ctrl-C. Child processes are observed from outside."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from servers.misbehaving import MisbehavingServer, content
from support import children
from support.files import MIB

# A child with a file that is being filled and that nothing ends.
LIVE = """
    import gc, os, signal, sys, threading
    from engine.driving import Driver
    from rangefetch._engine import Engine, File
    url, directory = sys.argv[1:3]
    driver = Driver(directory, loops=2)
    file = driver.add(url, loop=1)
    driver.until(lambda: file.downloaded)
"""

EXITS = {
    "held-by-the-module": "",
    "held-by-another-module": "import builtins; builtins.kept = driver, file",
    "held-for-ever": "import ctypes; ctypes.pythonapi.Py_IncRef(ctypes.py_object(driver.engine))",
    "in-a-cycle": "kept = [driver]; kept.append(kept); del driver, file, kept",
    "without-its-events": "engine = driver.engine; del driver",
    "only-its-file-is-held": "del driver",
    "only-a-view-is-held": "view = file.blocks; del driver, file",
    "by-an-exit-call": "sys.exit(0)",
    "from-a-thread-that-waits": (
        "threading.Thread(target=lambda: driver.until(lambda: False, 60), daemon=True).start(); del driver, file"
    ),
    "removal-unanswered": "file.remove()",
    "closed-at-exit": "import atexit; atexit.register(driver.engine.close)",
    "with-a-failed-lane": """failed = driver.add(url.partition("?")[0].replace("slow", "status"))
    driver.until(lambda: driver.names(failed))""",
}


@pytest.mark.parametrize("how", EXITS)
def test_an_exit_with_live_transfers_is_silent(how: str, server: MisbehavingServer, tmp_path: Path) -> None:
    url = server.url("/slow", size=64 * MIB, rate=MIB)
    done = children.run(f"{LIVE}\n    {EXITS[how]}", url, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("how", ["held-by-the-module", "in-a-cycle"])
def test_an_exit_with_live_tls_transfers_is_silent(how: str, tls_server: MisbehavingServer, tmp_path: Path) -> None:
    url = tls_server.url("/slow", size=64 * MIB, rate=16 * MIB)
    done = children.run(f"{LIVE}\n    {EXITS[how]}", url, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_exit_ends_the_loops_of_an_engine_that_is_held_for_ever(server: MisbehavingServer, tmp_path: Path) -> None:
    # Otherwise the loops would go on while libraries clean up, and use TLS after it is gone.
    first = """
    import atexit

    def look():
        from support.loops import loop_threads, loops_become
        loops_become(0)
        print(loop_threads())

    atexit.register(look)  # what is registered first is called last
    """
    url = server.url("/slow", size=64 * MIB, rate=MIB)
    done = children.run(f"{first}{LIVE}\n    {EXITS['held-for-ever']}", url, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


@pytest.mark.parametrize("how", ["", "sys.exit(0)"], ids=["end-of-script", "exit-call"])
def test_an_exit_with_a_manager_at_work_is_silent(how: str, server: MisbehavingServer, tmp_path: Path) -> None:
    done = children.run(
        f"""
        import sys, time
        from rangefetch import DownloadManager
        manager = DownloadManager()
        gid = manager.download(sys.argv[1], {{"save_dir": sys.argv[2]}})
        while not manager.get_download_progress(gid).downloaded:
            time.sleep(0.005)
        {how}
        """,
        server.url("/slow/a.bin", size=64 * MIB, rate=MIB),
        tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    data, state = sorted(tmp_path.iterdir())
    assert (data.suffix, state.name) == (".part", f"{data.name}.json")


FORKING = f"""{LIVE}
    fd = os.open(directory, os.O_RDONLY)
    other = driver.file(url)
    small = driver.small(url, fd, "small")
    ours = os.fork()
    if ours == 0:
        uses = {{
            "fileno": driver.engine.fileno,
            "ring": driver.engine.ring,
            "events": driver.engine.events,
            "add": lambda: driver.engine.add(other),
            "remove": file.remove,
            "place": lambda: small.place(1),
            "release": file.release,
            "read_to": lambda: file.read_to(1),
            "ban": lambda: file.ban(0),
            "rest": lambda: file.rest(0, 1),
            "resolve_again": lambda: file.resolve_again(0),
            "move": lambda: file.move(0, url, driver.profile),
            "ask_as": lambda: file.ask_as(0, driver.profile),
            "add_source": lambda: file.add_source(url, driver.profile),
            "source_lanes": lambda: setattr(file, "source_lanes", 2),
            "lanes": lambda: setattr(file, "lanes", 2),
            "limit": lambda: setattr(file, "limit", 1000),
            "limit of all": lambda: setattr(driver.engine, "limit", 1000),
        }}
        for name, use in uses.items():
            try:
                use()
            except RuntimeError as error:
                assert "fork" in str(error), error
            else:
                print(name, "was not refused")
        file.downloaded, file.blocks, driver.engine.live_files, driver.engine.closed
        sys.stdout.flush()
        CHILD_ENDS
    status = os.waitpid(ours, 0)[1]
    assert status == 0, status
    assert driver.end(file).name == "DONE"
    print("the parent's is whole" if file.tag.octets == file.tag.path.read_bytes() else "")
    driver.engine.close()
"""

CHILD_ENDS = {
    "os-exit": "os._exit(0)",
    "exit": "sys.exit(0)",
    "closes": "driver.engine.close(); driver.engine.close(); sys.exit(0)",
    "drops": "del driver, file, other, small, uses, use; gc.collect(); sys.exit(0)",
}


@pytest.mark.parametrize("ends", CHILD_ENDS)
def test_a_fork_leaves_the_engine_to_the_parent(ends: str, server: MisbehavingServer, tmp_path: Path) -> None:
    url = server.url("/slow", size=4 * MIB, rate=4 * MIB)
    code = FORKING.replace("CHILD_ENDS", CHILD_ENDS[ends])
    done = children.run(code, url, tmp_path, env={"PYTHONWARNINGS": "ignore::DeprecationWarning"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "the parent's is whole\n", "")
    assert content(4 * MIB) in [path.read_bytes() for path in tmp_path.iterdir()]


def test_a_forked_child_can_make_an_engine_of_its_own(server: MisbehavingServer, tmp_path: Path) -> None:
    done = children.run(
        f"""{LIVE}
    ours = os.fork()
    if ours == 0:
        with Driver(directory) as mine:
            mine.fill(url + "&id=child")
        sys.exit(0)
    assert os.waitpid(ours, 0)[1] == 0
    assert driver.end(file).name == "DONE"
    driver.engine.close()
    """,
        server.url("/slow", size=2 * MIB, rate=4 * MIB),
        tmp_path,
        env={"PYTHONWARNINGS": "ignore::DeprecationWarning"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [path.read_bytes() == content(2 * MIB) for path in tmp_path.iterdir()] == [True, True]


def test_a_signal_interrupts_the_waiting_and_not_the_engine(server: MisbehavingServer, tmp_path: Path) -> None:
    code = f"""{LIVE}
    try:
        print("ready", flush=True)
        driver.end(file, 60)
    except KeyboardInterrupt:
        print("interrupted", file.lanes_busy > 0, flush=True)
    assert driver.end(file).name == "DONE"
    print(driver.names(file))
    """
    url = server.url("/shared-rate", size=4 * MIB, rate=4 * MIB)
    with children.start(code, url, tmp_path) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGINT)
        printed, errors = child.communicate(timeout=20)
    assert (child.returncode, errors) == (0, "")
    assert printed == "interrupted True\n['ANSWERED', 'DONE']\n"


def test_an_interrupt_that_nobody_catches_ends_the_process(server: MisbehavingServer, tmp_path: Path) -> None:
    code = f"""{LIVE}
    print("ready", flush=True)
    driver.end(file, 60)
    """
    with children.start(code, server.url("/slow", size=64 * MIB, rate=MIB), tmp_path) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=20)
    assert child.returncode == -signal.SIGINT
    assert errors.rstrip().endswith("KeyboardInterrupt")


def test_a_storm_of_signals_costs_no_event_and_no_byte(server: MisbehavingServer, tmp_path: Path) -> None:
    done = children.run(
        f"""
    import signal
    came = 0
    def count(*_):
        global came
        came += 1
    signal.signal(signal.SIGALRM, count)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    {LIVE}
    assert driver.end(file).name == "DONE"
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(driver.names(file), came > 50)
    driver.engine.close()
    """,
        server.url("/slow", size=8 * MIB, rate=16 * MIB),
        tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "['ANSWERED', 'DONE'] True\n", "")
    assert [path.read_bytes() == content(8 * MIB) for path in tmp_path.iterdir()] == [True]
