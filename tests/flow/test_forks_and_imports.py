"""One thread imports a module on first use while another one forks: they do not deadlock."""

import pytest

from support import children

BEGIN = """
import os, signal, sys, threading, time
from rangefetch.importing import no_fork
from rangefetch import importing

forking = threading.Event()
importing_it = threading.Event()
calls = []


def load():
    with no_fork:
        importing_it.set()
        forking.wait()
        time.sleep(0.2)  # for the thread that forks to come to wait for this one
        wanted()


def fork(in_child):
    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    importing_it.wait()
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        with no_fork:
            in_child()
        os._exit(0)
    thread.join()
    return os.waitpid(pid, 0)[1]
"""

PROGRAMS = {
    # Before a fork, the newest handler runs first: logging's takes its lock before ours, which is older, is called.
    "wants the lock of logging, which is the younger": """
import logging
os.register_at_fork(before=forking.set)

def wanted():
    logging.getLogger("of what is imported").addHandler(logging.NullHandler())

print(fork(lambda: logging.getLogger("of the child").addHandler(logging.NullHandler())))
""",
    "loads logging": """
os.register_at_fork(before=forking.set)
assert "logging" not in sys.modules

def wanted():
    import logging

def use():
    import logging
    logging.getLogger("of the child").addHandler(logging.NullHandler())

print(fork(use))
""",
    "has handlers of its own": """
os.register_at_fork(before=forking.set)

def wanted():
    os.register_at_fork(
        before=lambda: calls.append("before"),
        after_in_parent=lambda: calls.append("in the parent"),
        after_in_child=lambda: calls.append("in the child"),
    )

def look():
    assert calls == ["before", "in the child"], calls

print(fork(look))
assert calls == ["before", "in the parent"], calls
""",
    "wants the lock of somebody else's handler": """
importing._PATIENCE_S = 0.5
lock = threading.Lock()
os.register_at_fork(
    before=lambda: (lock.acquire(), forking.set()), after_in_parent=lock.release, after_in_child=lock.release
)

def wanted():
    with lock:
        pass

print(fork(lambda: None))
""",
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_fork_and_an_import_do_not_wait_for_each_other_where_what_is_imported(program: str) -> None:
    done = children.run(BEGIN + PROGRAMS[program], timeout_s=30)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_handlers_that_are_registered_while_nothing_is_imported_are_the_systems() -> None:
    """Each is called once, in the system's order, whether or not another thread imports something."""
    done = children.run(
        """
        import os, sys, threading
        from rangefetch.importing import no_fork

        calls, may_end, importing = [], threading.Event(), threading.Event()

        def load():
            with no_fork:
                importing.set()
                may_end.wait()

        thread = threading.Thread(target=load)
        thread.start()
        importing.wait()
        for name in ("first", "second"):
            add = calls.append
            os.register_at_fork(before=lambda name=name: add(name), after_in_parent=lambda: add("after"))
        may_end.set()
        thread.join()
        pid = os.fork()
        if pid == 0:
            os._exit(calls != ["second", "first"])
        assert calls == ["second", "first", "after", "after"], calls
        for wrong in ({}, {"before": 1}):
            try:
                os.register_at_fork(**wrong)
            except TypeError:
                continue
            sys.exit("it was taken")
        sys.exit(os.waitpid(pid, 0)[1])
        """
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_while_a_fork_waits_for_an_import_leaves_all_locks_as_they_were() -> None:
    # Python prints an exception raised by a fork handler, and forks all the same.
    done = children.run(
        """
        import os, signal, sys, threading
        from rangefetch import importing
        import logging

        def fork():
            pid = os.fork()
            if pid == 0:
                logging.getLogger("child").debug("")
                os._exit(not importing.no_fork.acquire(timeout=5))
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

        raised, held, may_end = [], threading.Event(), threading.Event()
        sys.unraisablehook = lambda error: raised.append(error.exc_type.__name__)

        def load():
            with importing.no_fork:
                held.set()
                may_end.wait(20)

        codes = [fork()]
        thread = threading.Thread(target=load)
        thread.start()
        held.wait()
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        codes.append(fork())
        may_end.set()
        thread.join()
        codes.append(fork())
        other = threading.Thread(target=logging.getLogger().setLevel, args=("INFO",), daemon=True)
        other.start()
        other.join(10)
        print(codes, raised, other.is_alive())
        """,
        timeout_s=60,
    )
    assert (done.stdout, done.stderr) == ("[0, 0, 0] ['KeyboardInterrupt'] False\n", "")


def test_a_child_can_make_temporary_files_that_is_forked_while_a_thread_looks_for_the_directory_of_its_first() -> None:
    done = children.run(
        """
        import os, signal, sys, tempfile, threading, time
        from rangefetch.disk.system import open_temporary

        looking, find = threading.Event(), tempfile._get_default_tempdir

        def slowly():
            looking.set()
            time.sleep(0.3)
            return find()

        tempfile._get_default_tempdir = slowly
        thread = threading.Thread(target=open_temporary)
        thread.start()
        looking.wait()
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            open_temporary()
            os._exit(0)
        thread.join()
        sys.exit(os.waitpid(pid, 0)[1])
        """
    )
    assert (done.returncode, done.stderr) == (0, "")
